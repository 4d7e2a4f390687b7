//! What the operator brings: options, certificate, users, TURN server, log.

#[path = "../common/mod.rs"]
mod common;

mod config;
mod listen;
mod logging;
mod tls;
mod turn;
mod users;
mod watched_files;
