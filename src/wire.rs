//! The stream under a WebSocket: an inbox and the socket, plain or under TLS.
//!
//! The one hard problem of this server is that tungstenite reads and writes through one
//! `&mut WebSocket`. A thread that waited for its client's bytes with the lock on that held would
//! keep everybody else from writing to the client. So nothing here waits for bytes once the
//! handshakes are done: the client's thread waits in `recv` on the bare socket, with no lock, then
//! locks, [feeds](Wire::feed) what came, and reads messages until the inbox is empty.
//!
//! ```text
//!   recv ──► inbox ──► (TLS) ──► WebSocket ──► messages      the client's own thread
//!   send ◄──────────── (TLS) ◄── WebSocket ◄── messages      whichever thread has one
//! ```
//!
//! This file never looks at a message. It disconnects a client in one case only: when a `send` has
//! taken too long.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Condvar;

use crate::limits::{FLOOD_PAUSE, FULL_RECV_BUFFER, HANDSHAKE_READS, Timeouts};
use crate::operator::tls;

/// A client's stream, and what other threads must know about its own thread, under the same lock.
pub struct Wire {
    link: Link,
    socket: Arc<TcpStream>,
    /// True once the client's thread has left off: nobody will hear what is sent here.
    pub ended: bool,
    /// True while the client's thread works through what it received. It can't hear anything then,
    /// and its silence means nothing.
    pub busy: bool,
    /// How often bytes came from the client.
    pub heard: u64,
    /// When somebody who wants this client's name last pinged it, and what `heard` was then.
    pub probed: Option<(Instant, u64)>,
    /// Rung whenever bytes come, for those who wait for a sign of life. (Shared, since they lend the
    /// wire's lock to the wait.)
    pub bell: Arc<Condvar>,
}

enum Link {
    Plain(InboxStream),
    Tls(tls::Stream<InboxStream>),
}

/// The innermost stream. Reads come from the inbox, writes go to the socket.
struct InboxStream {
    socket: Arc<TcpStream>,
    inbox: Vec<u8>,
    /// How much of the inbox is read already.
    taken: usize,
    /// How long sending the present message has taken so far, and may take. (One message can be
    /// several TLS records, each a `send` of its own.)
    sending: Duration,
    patience: Duration,
    /// During the handshakes: when they must have ended. Meanwhile nobody else knows of this
    /// connection, and an empty inbox is filled from the socket.
    deadline: Option<Instant>,
    /// How often it was filled so.
    reads: usize,
}

impl Wire {
    /// Takes over an accepted socket and, with an acceptor, does the TLS handshake. Until
    /// [`Wire::end_handshake`], everything together must be done by `timeouts.handshake` from now.
    ///
    /// # Errors
    /// The client went, was too slow, or does not speak a TLS that we do.
    pub fn accept(
        socket: Arc<TcpStream>,
        tls: Option<&tls::Acceptor>,
        timeouts: &Timeouts,
    ) -> io::Result<Wire> {
        // A message is one `send`; Nagle's algorithm would only hold it back.
        socket.set_nodelay(true)?;
        let deadline = Some(Instant::now() + timeouts.handshake);
        let stream = InboxStream {
            socket: socket.clone(),
            inbox: Vec::new(),
            taken: 0,
            sending: Duration::ZERO,
            patience: timeouts.write,
            deadline,
            reads: 0,
        };
        let link = match tls {
            None => Link::Plain(stream),
            Some(acceptor) => Link::Tls(tls::accept(acceptor, stream)?),
        };
        Ok(Wire {
            link,
            socket,
            ended: false,
            busy: true,
            heard: 0,
            probed: None,
            bell: Arc::default(),
        })
    }

    /// From here on reads take only what was fed, and each write has `timeouts.write`.
    ///
    /// # Errors
    /// The socket is gone.
    pub fn end_handshake(&mut self, timeouts: &Timeouts) -> io::Result<()> {
        let stream = self.inbox_stream();
        stream.deadline = None;
        stream.sending = Duration::ZERO;
        self.socket.set_read_timeout(Some(timeouts.idle))?;
        self.socket.set_write_timeout(Some(timeouts.write))
    }

    /// How long from now on a message may take that is sent to this client. At first it is
    /// `timeouts.write`.
    ///
    /// # Errors
    /// The socket is gone.
    pub fn set_patience(&mut self, patience: Duration) -> io::Result<()> {
        if self.inbox_stream().patience != patience {
            self.inbox_stream().patience = patience;
            self.socket.set_write_timeout(Some(patience))?;
        }
        Ok(())
    }

    /// Hands over bytes that came from the client. At most [`FULL_RECV_BUFFER`] at a time, and read
    /// to the end before the next: the inbox never holds more than that.
    pub fn feed(&mut self, bytes: &[u8]) {
        let stream = self.inbox_stream();
        debug_assert!(stream.inbox.is_empty(), "what was fed before is read to the end");
        stream.inbox = bytes.to_vec();
        stream.taken = 0;
        self.busy = true;
        self.heard = self.heard.wrapping_add(1);
        self.bell.notify_all();
    }

    /// Tells the client that no more will come. What it still sends is then for [`linger`].
    pub fn say_no_more(&mut self) {
        if let Link::Tls(stream) = &mut self.link {
            // Sends TLS's own goodbye. If that can't be sent, there is nobody to miss it.
            let _ = stream.shutdown();
        }
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    fn inbox_stream(&mut self) -> &mut InboxStream {
        match &mut self.link {
            Link::Plain(stream) => stream,
            Link::Tls(stream) => stream.get_mut(),
        }
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.link {
            Link::Plain(stream) => stream.read(buffer),
            Link::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.link {
            Link::Plain(stream) => stream.write(bytes),
            Link::Tls(stream) => stream.write(bytes),
        }
    }

    /// The end of a message. Nothing is held back: every write is a `send`.
    fn flush(&mut self) -> io::Result<()> {
        self.inbox_stream().sending = Duration::ZERO;
        Ok(())
    }
}

impl Read for InboxStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.inbox.len() {
            // An idle client keeps no inbox.
            self.inbox = Vec::new();
            self.taken = 0;
            let Some(deadline) = self.deadline else {
                return Err(ErrorKind::WouldBlock.into());
            };
            pace(&mut self.reads);
            let mut received = vec![0; FULL_RECV_BUFFER];
            let count = read_until(deadline, &self.socket, &mut received)?;
            received.truncate(count);
            self.inbox = received;
        }
        let mut rest = self.inbox.get(self.taken..).unwrap_or_default();
        let count = rest.read(buffer)?;
        self.taken += count;
        Ok(count)
    }
}

impl Write for InboxStream {
    /// Sends all of `bytes`, or fails. If it fails for taking too long, it disconnects the client, who
    /// may have got a part.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(deadline) = self.deadline {
            self.socket.set_write_timeout(Some(time_left(deadline)?))?;
        }
        // What one `send` has taken whole was in time, however long this thread then waited for the
        // processor. It is the sum of several that says that a client drips.
        let is_first = self.sending.is_zero();
        loop {
            let start = Instant::now();
            let sent = (&*self.socket).write(bytes);
            self.sending += start.elapsed();
            let in_time = self.deadline.is_some() || self.sending < self.patience;
            match sent {
                Ok(count) if count == bytes.len() && (in_time || is_first) => return Ok(count),
                Err(error) if error.kind() == ErrorKind::Interrupted && in_time => {}
                Err(error) if !is_timeout(&error) => return Err(error),
                // A blocking `send` comes back with a part of it done when its timeout is over: the
                // client takes no data, or drips. One timeout is all that it gets. (A signal can cut
                // a waiting `send` short as well; ours are there to stop the server.)
                Ok(_) | Err(_) => {
                    let _ = self.socket.shutdown(Shutdown::Both);
                    return Err(ErrorKind::TimedOut.into());
                }
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The last thing on a connection that ends in good order: reads and drops what the client still
/// sends, until it is done too, or for `patience` and at most one [`FLOOD_PAUSE`]. Closing with unread
/// bytes would reset the connection, and the client might never see our last words.
///
/// Never inlined: its buffer would make room for itself on the stack of a client who only waits.
#[inline(never)]
pub fn linger(socket: &TcpStream, patience: Duration) {
    let deadline = Instant::now() + patience;
    let mut dropped = [0; FULL_RECV_BUFFER];
    let mut reads = 0;
    while let Ok(1..) = read_until(deadline, socket, &mut dropped) {
        pace(&mut reads);
    }
}

/// Counts a read, and makes whoever has had [`HANDSHAKE_READS`] of them wait for [`FLOOD_PAUSE`].
fn pace(reads: &mut usize) {
    *reads += 1;
    if *reads > HANDSHAKE_READS {
        thread::sleep(FLOOD_PAUSE);
    }
}

/// Whether this is how a socket says that its timeout is over: one kind on Unix, the other on
/// Windows.
pub fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// One `recv` that ends at the deadline. (A socket's read timeout starts anew with each read, so
/// without this a client that drips would never be late.)
fn read_until(deadline: Instant, mut socket: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        socket.set_read_timeout(Some(time_left(deadline)?))?;
        match socket.read(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if is_timeout(&error) => return Err(ErrorKind::TimedOut.into()),
            result => return result,
        }
    }
}

/// The time until `deadline`; an error when there is none, since a timeout of zero means for ever.
fn time_left(deadline: Instant) -> io::Result<Duration> {
    match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(ErrorKind::TimedOut.into()),
        left => Ok(left),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_handshake_that_drips_is_read_five_times_a_second() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut other_end = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = listener.accept().unwrap();
        let mut wire = Wire::accept(socket.into(), None, &Timeouts::default()).unwrap();
        let mut drip = || {
            other_end.write_all(b"x").unwrap();
            assert_eq!(wire.read(&mut [0; 10]).unwrap(), 1);
        };
        (0..HANDSHAKE_READS).for_each(|_| drip());
        let start = Instant::now();
        drip();
        drip();
        assert!(start.elapsed() >= FLOOD_PAUSE * 2);
    }
}
