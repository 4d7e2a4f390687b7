//! Every bound and every delay, with its unit and its reason, and what they add up to.

use std::time::Duration;

// ---- messages ----

/// Longest user name, in bytes of UTF-8.
pub const MAX_NAME: usize = 128;

/// Largest value of `--max-message`, in bytes; 0 means this value, too. tungstenite reserves memory
/// for the length that a frame's header announces, and the process would abort if that were 2^40
/// bytes.
pub const LARGEST_MESSAGE: usize = 64 * 1024 * 1024;

/// Deepest nesting of a message's JSON, the message's own braces included. The server could take
/// more, but the recipient's parser may recurse.
pub const MAX_DEPTH: usize = 128;

/// Largest integer that is a name, 2^53 - 1. A JavaScript recipient would read a larger one as another
/// number.
pub const MAX_INTEGER_NAME: u64 = (1 << 53) - 1;

/// How much longer than a message the reply to it can be, in bytes. An error quotes [`MAX_NAME`]
/// bytes, each at most 6 in JSON (`\u0000`). A login reply has [`MAX_TURN_URLS`] bytes of
/// addresses, and the name, percent-encoded in 3 bytes for each of its bytes. Each of the two
/// replies also has about 150 bytes of other text.
pub const MAX_REPLY_OVERHEAD: usize = 1024;

/// Bits of an IPv6 address that count as one address. Providers give a customer a /56 or a longer
/// prefix, within which the customer chooses addresses at will.
pub const IPV6_PREFIX: u32 = 56;

/// Most messages from one PeerJS client that are held for absent recipients: two offers, each with
/// all its candidates.
pub const MAX_HELD: usize = 64;

/// Most bytes of the messages held from one PeerJS client, the recipients' names included.
pub const MAX_HELD_BYTES: usize = 16 * 1024;

/// How often a thread with held messages checks whether their recipients are online. Nobody notices a
/// call that starts this much later.
pub const HELD_POLL: Duration = Duration::from_millis(200);

// ---- how fast ----

/// A connection may send as many messages at once as its message rate allows in this time.
pub const BURST: Duration = Duration::from_secs(4);

/// Shortest delay before a client over its rate is read from again, so that a flood wakes its thread
/// five times a second and not at each message. Also the delay before each read beyond
/// [`HANDSHAKE_READS`].
pub const PACING_DELAY: Duration = Duration::from_millis(200);

/// Reads that a handshake has without delay. TLS and HTTP need four, and a request head of
/// [`MAX_HEAD`] in packets of the usual size needs six more. A slowloris client needs many more.
pub const HANDSHAKE_READS: usize = 16;

/// Shortest time between two pings to a connection whose name other logins want. Its pongs count
/// towards its message rate.
pub const PROBE_INTERVAL: Duration = Duration::from_millis(100);

/// A connection whose thread has been probing another one for this long counts as alive, because a
/// thread that probes does not see its own client's pong.
pub const PROBING_TIME: Duration = Duration::from_millis(100);

// ---- who may log in ----

/// Random bytes in a user's token. Nobody can guess 256 random bits, so one fast hash is enough to
/// store a token safely.
pub const TOKEN_BYTES: usize = 32;

/// Failed logins from one address within [`LOGIN_WINDOW`] that throttle the address: each later login
/// from it is delayed by [`LOGIN_DELAY`]. The last of these failed logins and each failed one after it
/// end their connections. This protects the log and the processor. Tokens need no protection: they are
/// too long to guess.
pub const LOGIN_TRIES: u32 = 5;

/// How long the failed logins of an address count, from the first one on.
pub const LOGIN_WINDOW: Duration = Duration::from_secs(60);

/// Delay before each login from an address with too many failed logins. The right token is accepted
/// after it, so that another user behind the same address is only slowed down. Shorter than
/// [`Timeouts::stop`], so that a server that stops can still send its close frame.
pub const LOGIN_DELAY: Duration = Duration::from_millis(1500);

/// Most addresses with failed logins that are remembered, about 50 bytes each. After that, a new address
/// replaces the oldest.
pub const LOGIN_ADDRESSES: usize = 1024;

/// How long TURN credentials are valid. The call page logs in again after half of it, and gets new
/// ones. A call that uses them may last longer: TURN servers check the time when it starts.
pub const TURN_TTL: Duration = Duration::from_secs(12 * 60 * 60);

/// Most bytes of all TURN servers' addresses together; one has about 40. The addresses and the
/// credentials must fit into [`MAX_REPLY_OVERHEAD`].
pub const MAX_TURN_URLS: usize = 400;

// ---- HTTP ----

/// Largest request head (request line and headers), in bytes. Browsers send less than 1 KiB.
pub const MAX_HEAD: usize = 8 * 1024;

/// Bytes of a request head that one read takes. Most requests fit.
pub const HEAD_CHUNK: usize = 1024;

/// Most headers in a request head. A proxy in front adds a dozen to a browser's fifteen.
pub const MAX_HEADERS: usize = 64;

/// Longest text of a QR code that the page asks for, in bytes. The text is a link: the longest name,
/// percent-encoded, takes 384 bytes, and the rest is for the address. Drawing it takes about 0.8 ms.
pub const MAX_QR_TEXT: usize = 480;

/// Modules of white around a QR code, on each side (ISO/IEC 18004 asks for four).
pub const QR_QUIET_ZONE: i32 = 4;

/// `Retry-After` in the 503 response of a full server.
pub const RETRY_AFTER: Duration = Duration::from_secs(10);

// ---- a connection's memory ----

/// Bytes that one `recv` can take. An offer with audio fits. The buffer is on the thread's stack.
pub const RECV_BUFFER: usize = 4 * 1024;

/// Bytes that tungstenite reads at a time. For a larger frame its buffer grows. (Its default is 128 KiB
/// for each connection, allocated at once.)
pub const READ_BUFFER: usize = 256;

/// Send and receive buffer of a socket, in bytes each. Linux doubles this value. If it were not
/// set, Linux would let the buffers grow to several MiB. The value is small, so that at 50 KB/s a
/// ping waits only about a second behind the messages before it.
pub const SOCKET_BUFFER: usize = 32 * 1024;

/// Additional bytes of a write buffer, reserved for `leave` messages: 160 of the usual length.
pub const LEAVES_BUFFER: usize = 16 * 1024;

/// Longest message that may use [`LEAVES_BUFFER`], in bytes.
pub const MAX_LEAVE: usize = 1024;

/// Bytes of a write buffer that are sent at a time.
pub const FLUSH_PART: usize = 16 * 1024;

/// Stack of a client's thread and of its handshakes' thread, in bytes. Only touched pages take memory:
/// 24 KiB for a TLS handshake, 8 KiB for a client that waits.
pub const CLIENT_STACK: usize = 128 * 1024;

/// Stack of the thread that sends a write buffer, in bytes.
pub const FLUSHER_STACK: usize = 64 * 1024;

/// What TLS takes for a connection at most, in bytes: two record buffers of 17 KiB each; a
/// ClientHello of 128 KiB, in a buffer that can be a third larger; and the state of the TLS
/// connection.
pub const TLS_STATE: usize = 224 * 1024;

/// Names, addresses and handles of a connection, in bytes.
const BOOKKEEPING: usize = 2 * 1024;

// ---- the process ----

/// What the process needs besides its connections, in bytes: 8 MiB for its code and libraries; the
/// rest is freed memory of ended connections, which the allocator does not give back.
pub const BASE_MEMORY: usize = 20 * 1024 * 1024;

/// Descriptors that the process needs besides one for each connection: three standard streams, two
/// ports, two for signals, and a file that is being read.
pub const OWN_DESCRIPTORS: usize = 8;

/// Memory mappings of a connection: each thread takes four, and a connection can have two threads. If
/// the system has no mappings left for a new thread, Rust's runtime aborts the process.
pub const MAPPINGS: usize = 8;

/// In a full server, a new connection replaces the oldest one that has not logged in for this long.
pub const EVICTION_AGE: Duration = Duration::from_secs(10);

/// How many connections may be open beyond `--max-connections`: one for each connection that has
/// been disconnected but whose thread has not ended yet, up to this number.
pub const MAX_EVICTIONS: usize = 8;

/// Stack of an accept loop, in bytes.
pub const ACCEPT_STACK: usize = 256 * 1024;

/// Stack of the thread that waits for signals, in bytes.
pub const SIGNALS_STACK: usize = 64 * 1024;

/// Connections that wait to be accepted. All of a restarted server's clients come at once. (The
/// standard library says 128.)
pub const BACKLOG: i32 = 4096;

/// How long the accept loop waits after it could not accept a connection or start a thread. What ran
/// out (descriptors, threads, memory) comes back when a client disconnects.
pub const ACCEPT_DELAY: Duration = Duration::from_millis(100);

/// How long a server that stops tries to connect to itself, to wake an accept loop.
pub const ACCEPT_WAKE: Duration = Duration::from_secs(1);

// ---- the operator's files and log ----

/// Largest file that is read for the operator, in bytes. It has room for 12,000 users, or for a
/// chain of 500 certificates.
pub const MAX_FILE: u64 = 1024 * 1024;

/// Shortest time between two readings of the certificate or the users file. An edit counts after this
/// time at the latest.
pub const FILE_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// A certificate with fewer days left than this is logged as a warning. certbot renews 30 days before
/// the end, so renewal must have failed for weeks.
pub const EXPIRY_NOTICE: i32 = 7;

/// Lines that one place in the code may log at once. Clients cause most lines, and must not fill a
/// disk or hide a rare line among many of another kind.
pub const LOG_BURST: u32 = 60;

/// How often one place in the code may log another line after [`LOG_BURST`].
pub const LOG_INTERVAL: Duration = Duration::from_secs(1);

// ---- timeouts, and what the operator can choose ----

/// The timeouts of a connection. They are in one struct so that tests can shorten them; the program
/// always uses [`Timeouts::default`].
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// From `accept` to the end of the HTTP exchange, TLS included.
    pub handshake: Duration,
    /// A client is pinged after this long without a byte from it.
    pub idle: Duration,
    /// Keepalive timeout: a client that sends no byte for this long after the ping is disconnected.
    pub pong: Duration,
    /// Send timeout: a client that takes nothing of its write buffer for this long is disconnected.
    /// No other client's thread waits for it.
    pub stall: Duration,
    /// How long the connection that holds a wanted name has to answer a ping.
    pub probe: Duration,
    /// How long a PeerJS client's messages wait for an absent recipient, as in PeerJS's own server.
    pub hold: Duration,
    /// How long the server reads and drops what a client still sends after the server's last bytes.
    pub drain: Duration,
    /// How long a stopping server waits for its clients' threads.
    pub stop: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            handshake: Duration::from_secs(10),
            idle: Duration::from_secs(30),
            pong: Duration::from_secs(10),
            stall: Duration::from_secs(10),
            probe: Duration::from_secs(2),
            hold: Duration::from_secs(5),
            drain: Duration::from_secs(1),
            stop: Duration::from_secs(2),
        }
    }
}

/// The bounds that an operator can choose. [`usize::MAX`] means no limit. Only `max_message` always
/// has a limit, which is [`LARGEST_MESSAGE`] at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once, handshakes and page requests included.
    pub max_connections: usize,
    /// Connections at once from one address. An IPv6 network of [`IPV6_PREFIX`] bits counts as one.
    pub max_per_ip: usize,
    /// Largest message, in bytes, at most [`LARGEST_MESSAGE`]. An offer with audio and video has 4 to
    /// 10 KB.
    pub max_message: usize,
    /// Messages a second from one connection, after a burst of [`BURST`]. A call's start takes
    /// a few dozen. A message that arrives in parts, of [`RECV_BUFFER`] at most, counts as one for each
    /// part.
    pub max_rate: usize,
    /// Calls that one user has made or answered and not ended. A group call counts once for each
    /// other member.
    pub max_calls: usize,
    /// Whether PeerJS clients are served. Their held messages take memory.
    pub peerjs: bool,
}

impl Default for Limits {
    /// What fits into the usual limit of 1024 descriptors.
    fn default() -> Self {
        Limits {
            max_connections: 1000,
            max_per_ip: 128,
            max_message: 64 * 1024,
            max_rate: 50,
            max_calls: 32,
            peerjs: false,
        }
    }
}

impl Limits {
    /// Bound of a client's write buffer, in bytes: one message of the largest size, or many small
    /// ones. A message that would exceed the bound is refused.
    pub fn write_buffer(&self) -> usize {
        self.max_message.saturating_add(MAX_REPLY_OVERHEAD)
    }

    /// The bound for a `leave` message, which may also use [`LEAVES_BUFFER`].
    pub fn write_buffer_with_leaves(&self) -> usize {
        self.write_buffer().saturating_add(LEAVES_BUFFER)
    }

    /// The most memory that one connection can take, in bytes, and for what. `None` if a limit is off.
    pub fn connection_memory(&self) -> Option<[(usize, &'static str); 10]> {
        let message = self.max_message.checked_add(MAX_REPLY_OVERHEAD)?;
        let partner = 2 * (MAX_NAME + 64); // noted on both sides
        // A buffer that grows can be twice as large as what it holds.
        let waiting = message.checked_mul(2)?.checked_add(LEAVES_BUFFER)?.checked_mul(2)?;
        Some([
            (2 * CLIENT_STACK, "stacks of two threads"),
            (RECV_BUFFER, "received bytes"),
            (message.checked_mul(4)?.checked_add(READ_BUFFER)?, "a frame, and earlier fragments"),
            (message.checked_mul(5)?, "a message being handled, its fields and the reply"),
            (waiting.checked_add(FLUSH_PART)?, "the write buffer, with one reply more"),
            // Twice for the list and the names of many short messages; twice for growing buffers.
            (if self.peerjs { 4 * MAX_HELD_BYTES } else { 0 }, "messages held for PeerJS clients"),
            (TLS_STATE, "TLS"),
            (self.max_calls.checked_mul(partner)?, "partners"),
            (4 * SOCKET_BUFFER, "the kernel's buffers"),
            (BOOKKEEPING, "names, addresses and handles"),
        ])
    }

    /// The most memory that all connections and the process itself can take, in bytes. `None` if a
    /// limit is off.
    pub fn worst_case(&self) -> Option<usize> {
        let parts = self.connection_memory()?.into_iter();
        let connection = parts.map(|(bytes, _)| bytes).try_fold(0, usize::checked_add)?;
        let connections = self.max_connections.checked_add(MAX_EVICTIONS)?;
        connection.checked_mul(connections)?.checked_add(BASE_MEMORY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_case_is_a_sum_of_all_parts_for_all_connections() {
        let limits = Limits { peerjs: true, ..Limits::default() };
        let kib = limits.connection_memory().unwrap().map(|(bytes, _)| bytes.div_ceil(1024));
        assert_eq!(kib, [256, 4, 261, 325, 308, 64, 224, 12, 128, 2]);
        let connection =
            limits.connection_memory().unwrap().iter().map(|(bytes, _)| bytes).sum::<usize>();
        assert_eq!(limits.worst_case(), Some(1008 * connection + 20 * 1024 * 1024));
        for unlimited in [
            Limits { max_connections: usize::MAX, ..limits },
            Limits { max_message: usize::MAX, ..limits },
            Limits { max_calls: usize::MAX, ..limits },
        ] {
            assert_eq!(unlimited.worst_case(), None);
        }
    }

    #[test]
    fn the_default_fits_into_the_usual_number_of_descriptors() {
        assert!(Limits::default().max_connections + MAX_EVICTIONS + OWN_DESCRIPTORS <= 1024);
    }

    #[test]
    fn the_longest_leave_message_fits_into_its_buffer() {
        let name = "\"".repeat(MAX_NAME); // two bytes each in JSON
        let leave = crate::signaling::protocol::leave_message(&name, &name);
        assert!(leave.len() <= MAX_LEAVE);
    }
}
