//! Hostile clients of every kind, one behaviour a test, each beside an honest pair that keeps
//! talking. What becomes of threads, descriptors and memory is checked when the scene is dropped.

#[path = "../common/mod.rs"]
mod common;
mod scene;

mod connections;
mod frames;
mod limits;
mod resources;
