//! How a message travels: the contract, and what happens at each step.

#[path = "../common/mod.rs"]
mod common;

mod client;
mod connections;
mod original;
mod peer;
mod protocol;
mod server;
mod transport;
