//! Starting threads, in one place.

use std::io;
use std::thread::{self, JoinHandle};

/// Starts a thread with a stack of `stack` bytes. Only touched pages of a stack take memory.
///
/// # Errors
/// The system has no thread left. (`thread::spawn` would panic.)
pub fn spawn<T: Send + 'static>(
    name: &str,
    stack: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    thread::Builder::new().name(name.into()).stack_size(stack).spawn(work)
}
