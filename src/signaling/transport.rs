//! The stream under a WebSocket: a read buffer, the socket and a write buffer, plain or under TLS.
//!
//! Once the handshakes are done, neither reads nor writes block. Reading takes what
//! [`Transport::feed`] was given. Writing sends what the socket takes at once; the rest stays in the
//! write buffer, which a [`Peer`](super::peer::Peer) empties from a thread of its own.
//!
//! ```text
//!   recv ──► read buffer ──► (TLS) ──► WebSocket ──► messages      the client's own thread
//!   send ◄───────────────── (TLS) ◄─── WebSocket ◄── messages      whichever thread has one
//!     ▲                        │
//!     └──── write buffer ◄─────┘                                   the flusher, while there is one
//! ```

use std::collections::VecDeque;
use std::io::{self, Cursor, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Condvar;
use socket2::SockRef;

use crate::limits::{FLUSH_PART, HANDSHAKE_READS, PACING_DELAY, RECV_BUFFER, Timeouts};
use crate::operator::tls;

/// A client's stream, and what other threads need to know about it. All of it is under the client's
/// lock.
pub struct Transport {
    stream: MaybeTls,
    /// The owning thread has stopped reading; treat the user as offline.
    pub closed: bool,
    /// A PeerJS client that still has to get its `OPEN`, which must be the first message to it.
    pub unopened: bool,
    /// The owning thread is handling received bytes, and cannot see a pong meanwhile.
    pub processing: bool,
    /// Since when the owning thread has been probing another connection, which may probe this one.
    pub probing: Option<Instant>,
    /// TLS records without data, such as key updates, that have not been charged yet.
    pub empty_records: usize,
    /// Grows whenever received bytes have been handled, or the flusher has sent some.
    pub progress: u64,
    /// How many probe pings were sent to this client, by logins that want its name.
    pub pings_sent: u64,
    /// The earliest time for the next probe ping.
    pub next_ping: Instant,
    /// The number of the last probe ping that the client has answered.
    pub last_pong: u64,
}

enum MaybeTls {
    Plain(BufferedSocket),
    Tls(tls::Stream<BufferedSocket>),
}

/// The socket, and the bytes that are on their way from it and to it.
pub(super) struct BufferedSocket {
    socket: Arc<ClientSocket>,
    read_buffer: Cursor<Vec<u8>>,
    /// Bytes that the socket has not taken yet.
    pub(super) write_buffer: VecDeque<u8>,
    /// The flusher is running. Nobody else may send meanwhile, to keep the order of bytes.
    pub(super) flushing: bool,
    /// Calls of `read` on this socket since the current or last `Transport::read` began.
    reads: usize,
    /// Set only during the handshakes: reads and writes then block, until this deadline. No other
    /// thread has this transport yet, so none is delayed.
    handshake_deadline: Option<Instant>,
    handshake_reads: usize,
}

/// The flag for a `send` that takes what fits and does not wait.
#[cfg(unix)]
const DONT_WAIT: i32 = libc::MSG_DONTWAIT;
/// Windows has no such flag: there `send` waits, up to [`Timeouts::stall`].
#[cfg(not(unix))]
const DONT_WAIT: i32 = 0;

impl Transport {
    /// Takes over an accepted socket and, with an acceptor, does the TLS handshake. This and all
    /// further I/O up to [`Transport::finish_handshake`] must be done within `timeouts.handshake`.
    ///
    /// # Errors
    /// The client disconnected, was too slow, or has no TLS version or cipher suite in common with us.
    pub fn accept(
        socket: Arc<ClientSocket>,
        acceptor: Option<&tls::Acceptor>,
        timeouts: &Timeouts,
    ) -> io::Result<Transport> {
        socket.stream.set_nodelay(true)?; // A message is one `send`.
        let socket = BufferedSocket {
            socket,
            read_buffer: Cursor::default(),
            write_buffer: VecDeque::new(),
            flushing: false,
            reads: 0,
            handshake_deadline: Some(Instant::now() + timeouts.handshake),
            handshake_reads: 0,
        };
        Ok(Transport {
            stream: match acceptor {
                None => MaybeTls::Plain(socket),
                Some(acceptor) => MaybeTls::Tls(tls::accept(acceptor, socket)?),
            },
            closed: false,
            unopened: false,
            processing: true,
            probing: None,
            empty_records: 0,
            progress: 0,
            pings_sent: 0,
            next_ping: Instant::now(),
            last_pong: 0,
        })
    }

    /// From here on reads take only what is fed, and writes do not wait.
    ///
    /// # Errors
    /// The socket is closed.
    pub fn finish_handshake(&mut self, timeouts: &Timeouts) -> io::Result<()> {
        let socket = self.socket();
        socket.handshake_deadline = None;
        socket.socket.stream.set_read_timeout(Some(timeouts.idle))?;
        socket.socket.stream.set_write_timeout(Some(timeouts.stall)) // for the flusher
    }

    /// Hands over received bytes. What was fed before has been read to the end.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.socket().read_buffer = Cursor::new(bytes.to_vec());
        self.processing = true;
    }

    /// Records a pong. Its payload is the number of a probe ping, or empty after a keepalive ping.
    pub fn pong_received(&mut self, payload: &[u8]) {
        let number = payload.try_into().map_or(0, u64::from_be_bytes);
        if (self.last_pong..=self.pings_sent).contains(&number) {
            self.last_pong = number;
        }
    }

    /// Everything that was fed has been handled.
    pub fn processed(&mut self) {
        self.processing = false;
        self.progress += 1;
    }

    /// Writes TLS's closure alert (RFC 8446, section 6.1).
    pub fn shutdown_tls(&mut self) {
        if let MaybeTls::Tls(stream) = &mut self.stream {
            let _ = stream.shutdown(); // An error means that the client is gone.
        }
    }

    /// Whether the caller must start the flusher now.
    pub fn start_flushing(&mut self) -> bool {
        let socket = self.socket();
        let start = !socket.flushing && !socket.write_buffer.is_empty();
        socket.flushing |= start;
        start
    }

    /// What the flusher is to send next. `None` ends the flusher.
    pub fn next_part(&mut self) -> Option<Vec<u8>> {
        let socket = self.socket();
        let length = socket.write_buffer.len().min(FLUSH_PART);
        let part: Vec<u8> = socket.write_buffer.drain(..length).collect();
        if part.is_empty() {
            socket.write_buffer = VecDeque::new(); // An idle client keeps no buffer.
            socket.flushing = false;
        }
        (!part.is_empty()).then_some(part)
    }

    /// Gives up on a client that is being disconnected, and ends the flusher.
    pub fn discard_buffered(&mut self) {
        self.socket().write_buffer.clear();
        self.next_part();
    }

    /// The socket, which lies under the TLS stream if there is one.
    pub(super) fn socket(&mut self) -> &mut BufferedSocket {
        match &mut self.stream {
            MaybeTls::Plain(socket) => socket,
            MaybeTls::Tls(stream) => stream.get_mut(),
        }
    }
}

impl Read for Transport {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket().reads = 0;
        let result = match &mut self.stream {
            MaybeTls::Plain(socket) => socket.read(buffer),
            MaybeTls::Tls(stream) => stream.read(buffer),
        };
        // TLS reads a record in two steps, header and body, and goes on until a record has data. So
        // each two reads after the first two stand for one record without data.
        self.empty_records += self.socket().reads.saturating_sub(2) / 2;
        result
    }
}

impl Write for Transport {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.stream {
            MaybeTls::Plain(socket) => socket.write(bytes),
            MaybeTls::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for BufferedSocket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reads += 1;
        let count = self.read_buffer.read(buffer)?;
        if count > 0 {
            return Ok(count);
        }
        self.read_buffer = Cursor::default(); // An idle client keeps no buffer.
        let Some(deadline) = self.handshake_deadline else {
            return Err(ErrorKind::WouldBlock.into());
        };
        pace(&mut self.handshake_reads);
        let mut received = vec![0; RECV_BUFFER];
        let count = read_until(deadline, &self.socket.stream, &mut received)?;
        received.truncate(count);
        self.read_buffer = Cursor::new(received);
        self.read_buffer.read(buffer)
    }
}

impl Write for BufferedSocket {
    /// Takes all of `bytes` once the handshakes are done.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(deadline) = self.handshake_deadline {
            self.socket.stream.set_write_timeout(Some(time_left(deadline)?))?;
            return (&self.socket.stream).write(bytes);
        }
        let mut sent = 0;
        if !self.flushing && self.write_buffer.is_empty() {
            sent = match send_now(&self.socket.stream, bytes) {
                Err(error) if is_timeout(&error) || error.kind() == ErrorKind::Interrupted => 0,
                // A failed `send` disconnects the client, so that its thread handles no more of
                // what it received.
                result => result.inspect_err(|_| self.socket.disconnect())?,
            };
        }
        self.write_buffer.extend(bytes.get(sent..).unwrap_or_default());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A client's socket, which several threads share. It needs no lock: the client's own thread waits in
/// `recv` while others disconnect the client.
pub struct ClientSocket {
    /// For I/O.
    pub stream: TcpStream,
    /// Notified after every change of what other threads may wait for, under the client's lock.
    pub activity: Condvar,
    disconnected: AtomicBool,
}

impl ClientSocket {
    /// An accepted connection.
    pub fn new(stream: TcpStream) -> ClientSocket {
        ClientSocket { stream, activity: Condvar::new(), disconnected: AtomicBool::new(false) }
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

/// Sends what the socket takes without waiting.
pub fn send_now(socket: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    SockRef::from(socket).send_with_flags(bytes, DONT_WAIT)
}

/// Whether this is how a socket reports that its timeout has passed.
pub fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Ends a connection whose last bytes have been sent: reads and drops what the client still sends,
/// until it closes too, or for `timeout`. Closing a socket with unread bytes would reset the
/// connection, and the client might lose the last bytes.
#[inline(never)] // The buffer would enlarge the stack frame of a waiting client.
pub fn drain(socket: &TcpStream, timeout: Duration) {
    let _ = socket.shutdown(Shutdown::Write); // An error means that the client is gone.
    let deadline = Instant::now() + timeout;
    let (mut dropped, mut reads) = ([0; RECV_BUFFER], 0);
    while let Ok(1..) = read_until(deadline, socket, &mut dropped) {
        pace(&mut reads);
    }
}

/// Counts a read. After [`HANDSHAKE_READS`] of them, each further one is delayed, so that a slowloris
/// client costs a few wake-ups a second.
fn pace(reads: &mut usize) {
    *reads += 1;
    if *reads > HANDSHAKE_READS {
        thread::sleep(PACING_DELAY);
    }
}

/// One `recv` that ends at the deadline.
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

fn time_left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}
