//! A client's socket, which several threads share.

use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};

/// Needs no lock: the client's own thread waits in `recv` while others disconnect the client.
pub struct ClientSocket {
    /// For I/O.
    pub stream: TcpStream,
    disconnected: AtomicBool,
}

impl ClientSocket {
    /// An accepted connection.
    pub fn new(stream: TcpStream) -> ClientSocket {
        ClientSocket { stream, disconnected: AtomicBool::new(false) }
    }

    /// Ends all reads and writes. The client's own thread wakes up from that, and cleans up.
    pub fn disconnect(&self) {
        self.disconnected.store(true, Ordering::Relaxed);
        let _ = self.stream.shutdown(Shutdown::Both); // An error means that it is disconnected.
    }

    /// Whether some thread has disconnected the client. What was received before can still be read, but
    /// must not be handled.
    pub fn is_disconnected(&self) -> bool {
        self.disconnected.load(Ordering::Relaxed)
    }

    /// Whether the client has reset the connection. What was received before can still be read.
    pub fn is_reset(&self) -> bool {
        !matches!(self.stream.take_error(), Ok(None))
    }
}
