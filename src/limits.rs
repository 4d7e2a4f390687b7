//! Every number the server lives by, with its unit and its reason, and the count of who is there.
//!
//! Nothing here reads or writes a socket. A file that needs a bound takes it from here, so that
//! an auditor finds all of them on one page.

use std::collections::HashMap;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Longest user name, in bytes of UTF-8.
pub const MAX_NAME: usize = 128;

/// Deepest nesting of a message's JSON, the message's own braces included. The server would not
/// mind more, but the recipient's parser may recurse.
pub const MAX_DEPTH: usize = 128;

/// Largest message, in bytes. An offer with audio and video is 4 to 10 KB.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// How much longer than the message a reply to it can be, in bytes. Only the text of an error is
/// ours: a name in it is at most [`MAX_NAME`] bytes, each at most 6 as JSON (`\u0000`), plus about
/// 150 bytes of fields.
pub const MAX_REPLY_OVERHEAD: usize = 1024;

/// Largest request head (request line and headers), in bytes. Browsers send less than 1 KiB.
pub const MAX_HEAD: usize = 8 * 1024;

/// Most headers in a request head. A proxy in front adds a dozen to a browser's fifteen.
pub const MAX_HEADERS: usize = 64;

/// Bytes that one `recv` can take. A real offer fits, so that a message costs one system call. The
/// buffer lies on stack pages that the TLS and HTTP handshakes have touched already.
pub const RECV_BUFFER: usize = 8 * 1024;

/// Bytes of read buffer that tungstenite keeps for each client; it grows for a larger message.
/// (Its own default is 128 KiB, allocated at once.)
pub const READ_BUFFER: usize = 2 * 1024;

/// Stack of a client's thread, in bytes of address space; only touched pages take memory. Twenty
/// times what the deepest path, a TLS handshake, was seen to use.
pub const CLIENT_STACK: usize = 512 * 1024;

/// How long the accept loop waits after it could not accept or start a thread. Whatever ran out
/// (descriptors, threads, memory) comes back when a client leaves, not sooner for asking often.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The waits that a connection can cost. They travel together so that a test can shorten them;
/// the program itself always runs with [`Timeouts::default`].
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// From `accept` to the end of the HTTP exchange, TLS included, however the bytes drip.
    pub handshake: Duration,
    /// Without a byte from the client for this long, it is pinged.
    pub idle: Duration,
    /// Without a byte for this long after that ping, it is disconnected.
    pub pong: Duration,
    /// How long one `send` waits for a client that takes no data, and how long a sender waits for
    /// the lock that such a `send` holds. Whoever needs more is disconnected. Until then the
    /// kernel's send buffer (at least 16 KiB) must be full, so a slow link does not come near it.
    pub write: Duration,
    /// How long the holder of a name that somebody else asks for has to show a sign of life.
    pub probe: Duration,
    /// After our last word to a client: how long what it still sends is read and dropped.
    pub linger: Duration,
    /// How long a stopping server waits for its clients' threads.
    pub stop: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            handshake: Duration::from_secs(10),
            idle: Duration::from_secs(30),
            pong: Duration::from_secs(10),
            write: Duration::from_secs(1),
            probe: Duration::from_secs(2),
            linger: Duration::from_secs(1),
            stop: Duration::from_secs(2),
        }
    }
}

/// The open connections, handshakes included: how many, and a handle to wake each.
#[derive(Default)]
pub struct Slots {
    open: Mutex<OpenSlots>,
    emptied: Condvar,
}

#[derive(Default)]
struct OpenSlots {
    next: u64,
    sockets: HashMap<u64, Arc<TcpStream>>,
}

/// One connection's place among the [`Slots`]; dropping it gives the place back.
pub struct Slot {
    slots: Arc<Slots>,
    number: u64,
}

impl Slots {
    /// Takes a place for a connection.
    pub fn take(self: &Arc<Self>, socket: Arc<TcpStream>) -> Slot {
        let mut open = self.open.lock();
        let number = open.next;
        open.next += 1;
        open.sockets.insert(number, socket);
        Slot { slots: self.clone(), number }
    }

    /// How many connections are open.
    pub fn count(&self) -> usize {
        self.open.lock().sockets.len()
    }

    /// Ends every connection's wait for its client: each thread's next `recv` returns 0. Writing
    /// stays possible, so that each thread can say goodbye.
    pub fn wake_all(&self) {
        for socket in self.open.lock().sockets.values() {
            // An error means that the connection is gone already.
            let _ = socket.shutdown(std::net::Shutdown::Read);
        }
    }

    /// Waits until no connection is left; false if that took longer than `timeout`.
    pub fn wait_until_empty(&self, timeout: Duration) -> bool {
        let mut open = self.open.lock();
        let left = |open: &mut OpenSlots| !open.sockets.is_empty();
        !self.emptied.wait_while_for(&mut open, left, timeout).timed_out()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut open = self.slots.open.lock();
        open.sockets.remove(&self.number);
        if open.sockets.is_empty() {
            self.slots.emptied.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_dropped_slot_is_free_again_and_the_last_one_ends_the_wait() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = Arc::new(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        let slots = Arc::new(Slots::default());

        let first = slots.take(socket.clone());
        let second = slots.take(socket);
        assert_eq!(slots.count(), 2);
        drop(first);
        assert_eq!(slots.count(), 1);
        assert!(!slots.wait_until_empty(Duration::from_millis(1)));
        drop(second);
        assert!(slots.wait_until_empty(Duration::from_secs(10)));
    }
}
