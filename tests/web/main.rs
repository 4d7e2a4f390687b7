//! What browsers load, and how they are answered.

#[path = "../common/mod.rs"]
mod common;

mod request;
