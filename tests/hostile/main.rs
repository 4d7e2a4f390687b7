//! Hostile clients, one behaviour a test, each beside an honest pair that keeps talking. Dropping the
//! scene checks that threads, descriptors and memory are back where they were.

#[path = "../common/mod.rs"]
mod common;
mod scene;

mod connections;
mod frames;
mod limits;
mod resources;
