//! Every bound and every pause, with its unit and its reason.
//!
//! Nothing here reads or writes a socket. A file that needs a bound takes it from here, so that
//! an auditor finds all of them on one page.

use std::time::Duration;

// ---- messages ----

/// Longest user name, in bytes of UTF-8.
pub const MAX_NAME: usize = 128;

/// Largest message that an operator can allow, in bytes, and what "no limit" means for it. A frame says
/// first how long it is, and has memory set aside for that; one that says 2^40 would end the process.
pub const LARGEST_MESSAGE: usize = 64 * 1024 * 1024;

/// Deepest nesting of a message's JSON, the message's own braces included. The server would not
/// mind more, but the recipient's parser may recurse.
pub const MAX_DEPTH: usize = 128;

/// How much longer than the message a reply to it can be, in bytes. In an error, a name is at most
/// [`MAX_NAME`] bytes, each at most 6 as JSON (`\u0000`), plus about 150 bytes of fields. In a login
/// reply, the TURN servers are [`MAX_TURN_URLS`] and a name of 3 bytes each, plus about 150.
pub const MAX_REPLY_OVERHEAD: usize = 1024;

/// Bits of an IPv6 address that count as one address. Providers give a customer a /56 or a longer
/// prefix, within which the customer chooses addresses at will.
pub const IPV6_PREFIX: u32 = 56;

// ---- how fast ----

/// What a connection may send at once is this many seconds' worth of its rate.
pub const BURST_SECONDS: u64 = 4;

/// Who sends too much for this long without a break is disconnected.
pub const ABUSE_TIME: Duration = Duration::from_secs(10);

/// No refusal for this long is a break.
pub const ABUSE_BREAK: Duration = Duration::from_secs(2);

/// How long a client that is over its rate is not read from. By then there is room for ten messages
/// at the default rate, so that a flood wakes us up five times a second and not a thousand times.
pub const FLOOD_PAUSE: Duration = Duration::from_millis(200);

/// Reads that the TLS and HTTP handshakes have for free: in one piece they need four, and a full
/// [`MAX_HEAD`] in packets of a network's usual size six more. Who drips beyond that is not read from
/// for [`FLOOD_PAUSE`] before each further read, and so wakes us up five times a second. The same goes for
/// what a client still sends after our last word.
pub const HANDSHAKE_READS: usize = 16;

/// How far apart in time those go on who wait at the same [`Gate`](crate::rates::Gate): about as long as each then needs
/// of the processor. A thousand that end at once are through in 0.2 s.
pub const GATE_INTERVAL: Duration = Duration::from_micros(200);

// ---- who may log in ----

/// Random bytes in a user's token. Nobody guesses 256 bits, so one fast hash is enough to keep them.
pub const TOKEN_BYTES: usize = 32;

/// Failed logins from one address within [`LOGIN_WINDOW`] of the first. After these, each login from
/// that address is delayed by [`LOGIN_DELAY`], and a failed one ends its connection. This does not
/// protect tokens, which are too long to guess, but the log and the processor.
pub const LOGIN_TRIES: u32 = 5;

/// How long failed logins count.
pub const LOGIN_WINDOW: Duration = Duration::from_secs(60);

/// Delay before each login from an address with too many failed logins. The right token is accepted
/// after it, so that another user behind the same address is only slowed down. Shorter than
/// [`Timeouts::stop`], so that a server that stops can still send its close frame.
pub const LOGIN_DELAY: Duration = Duration::from_millis(1500);

/// Most addresses with failed logins that are remembered, 24 bytes each. After that, a new address
/// replaces the oldest.
pub const LOGIN_ADDRESSES: usize = 1024;

/// How long TURN credentials are good for. A page makes its line anew, and gets new ones, after half
/// of it. A call that uses them may last longer: TURN servers look at the time when it starts.
pub const TURN_TTL: Duration = Duration::from_secs(12 * 60 * 60);

/// The addresses of the TURN servers, in bytes together. One is about 40. With the credentials they
/// must fit into [`MAX_REPLY_OVERHEAD`].
pub const MAX_TURN_URLS: usize = 400;

// ---- HTTP ----

/// Largest request head (request line and headers), in bytes. Browsers send less than 1 KiB.
pub const MAX_HEAD: usize = 8 * 1024;

/// Bytes of a request head that one read takes. Most requests fit.
pub const HEAD_CHUNK: usize = 1024;

/// Most headers in a request head. A proxy in front adds a dozen to a browser's fifteen.
pub const MAX_HEADERS: usize = 64;

/// How soon a client that found no place is asked to come again.
pub const RETRY_AFTER: Duration = Duration::from_secs(10);

// ---- a connection's memory ----

/// Bytes that the first `recv` of a message can take. A candidate fits, and an audio offer of 2 KiB
/// with its frame's header, so that such a message costs one system call. The buffer is on the
/// thread's stack, and with this size an idle client has touched two pages of that, not three.
pub const RECV_BUFFER: usize = 2 * 1024 + 256;

/// Bytes that one `recv` can take when the one before was full, so that there is probably more.
pub const FULL_RECV_BUFFER: usize = 8 * 1024;

/// Bytes that tungstenite, the WebSocket library, reads at a time, and keeps for each client; for a larger message it grows.
/// (Its default is 128 KiB, allocated at once.)
pub const READ_BUFFER: usize = 256;

/// What the kernel may keep for a client that does not read, and of what a client sends while we
/// don't, in bytes each. (Linux takes it twice, for its own bookkeeping, and would otherwise let it
/// grow to several MiB.) Small, so that a ping to a client on a slow line of 50 KB/s does not stand
/// behind more than about a second's worth of other people's messages.
pub const SOCKET_BUFFER: usize = 32 * 1024;

/// Stack of a client's thread, in bytes; only touched pages take memory. A TLS handshake and a login,
/// the deepest paths, were seen to touch 28 KiB of it; a client that waits, 8 KiB. For a moment after
/// the login there are both, which together is less than all of one.
pub const CLIENT_STACK: usize = 128 * 1024;

/// What TLS holds for a connection at most, in bytes: OpenSSL's two record buffers of 17 KiB each,
/// and its state, which is largest during the handshake.
pub const TLS_STATE: usize = 96 * 1024;

// ---- the process ----

/// What the process needs with nobody connected, in bytes: its code, libraries, and allocator, 16 MiB;
/// and what OpenSSL remembers of 20,480 TLS sessions for clients who come again, 1.4 KiB each.
pub const BASE_MEMORY: usize = 48 * 1024 * 1024;

/// Descriptors that the process needs besides one for each connection: three standard streams, two
/// ports, two for signals, and a file that is being read.
pub const OWN_DESCRIPTORS: usize = 8;

/// Connections that wait to be accepted. All of a restarted server's clients come at once. (The
/// standard library says 128.)
pub const BACKLOG: i32 = 4096;

/// How long the accept loop waits after it could not accept or start a thread. Whatever ran out
/// (descriptors, threads, memory) comes back when a client leaves, not sooner for asking often.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a server that stops tries to connect to itself, to wake an accept loop.
pub const ACCEPT_WAKE: Duration = Duration::from_secs(1);

/// How often at most the accept loop logs that it turns clients away or can't take them.
pub const COMPLAINT_PAUSE: Duration = Duration::from_secs(1);

// ---- the operator's files and log ----

/// Largest file that is read for the operator, in bytes: 12,000 users, or a certificate of 500 links.
pub const MAX_FILE: u64 = 1024 * 1024;

/// How often at most the certificate's files, and the users file, are read again. This is also how
/// long an edit can take to count.
pub const FILE_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// With fewer days left than this, an expiring certificate is logged as a warning. certbot renews
/// 30 days before the end; by then it has failed for weeks.
pub const EXPIRY_NOTICE: i32 = 7;

/// Lines that one place in the code may log at once. Clients cause most lines, and must not fill a
/// disk or hide a rare line among many of another kind.
pub const LOG_BURST: u32 = 60;

/// How often one place in the code may log another line after [`LOG_BURST`].
pub const LOG_INTERVAL: Duration = Duration::from_secs(1);

// ---- timeouts, and what the operator can choose ----

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
    /// How long one message waits for a client that takes no data, and how long a sender waits for
    /// the lock that such a message holds. A client that needs more is disconnected. Before that its
    /// [`SOCKET_BUFFER`] must be full, and the kernel goes on when a third of it is free again.
    pub write: Duration,
    /// The same for the `leave` to a caller whom the user that ends never answered. Many callers who
    /// take no data could otherwise hold up that user's end.
    pub goodbye: Duration,
    /// How long the holder of a name that somebody else asks for has to show a sign of life. It is
    /// pinged for that once in half of this time at most.
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
            goodbye: Duration::from_millis(10),
            probe: Duration::from_secs(2),
            linger: Duration::from_secs(1),
            stop: Duration::from_secs(2),
        }
    }
}

/// The bounds that an operator can choose. [`usize::MAX`] stands for none, but for the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once, handshakes and page requests included.
    pub max_connections: usize,
    /// Of these, how many from one address. An IPv6 network of [`IPV6_PREFIX`] bits
    /// counts as one address.
    pub max_per_ip: usize,
    /// Largest message, in bytes, at most [`LARGEST_MESSAGE`]. An offer with audio and video is 4 to
    /// 10 KB.
    pub max_message: usize,
    /// Messages a second from one connection, once [`BURST_SECONDS`] worth of them at once are used
    /// up. A call's start is a few dozen. A message that comes in parts, of [`FULL_RECV_BUFFER`] at
    /// most, counts as one for each part.
    pub max_rate: usize,
    /// Calls that one connection can have made or answered and not ended. A mesh call is one for each
    /// of the others. Being called is no call yet, so nobody can use up somebody else's.
    pub max_calls: usize,
}

impl Default for Limits {
    /// What a Raspberry Pi can live with; [`Limits::worst_case`] has the arithmetic.
    fn default() -> Self {
        Limits {
            max_connections: 1000,
            max_per_ip: 128,
            max_message: 64 * 1024,
            max_rate: 50,
            max_calls: 32,
        }
    }
}

impl Limits {
    /// What `--print-limits` prints: every bound, and the memory that they add up to.
    pub fn report(&self, timeouts: &Timeouts) -> String {
        let bound = |limit: usize, unit: &str| match limit {
            usize::MAX => "no limit".to_string(),
            limit => format!("{limit}{unit}"),
        };
        let kib = |bytes: usize| bytes.div_ceil(1024);
        let Timeouts { handshake, idle, pong, write, goodbye: _, probe, linger, stop } = timeouts;
        let mut report = format!(
            "connections at once          {}\n\
             of these from one address    {} (an IPv6 /56 is one address)\n\
             message                      {}, nested at most {MAX_DEPTH} deep\n\
             messages of one connection   {}, {BURST_SECONDS} s worth of them at once;\n\
             \u{20}                            who is over that for {ABUSE_TIME:?} is disconnected\n\
             calls of one connection      {}\n\
             name                         {MAX_NAME} bytes\n\
             request head                 {MAX_HEAD} bytes, {MAX_HEADERS} headers\n\
             TLS and HTTP handshake       {handshake:?} together\n\
             silence                      {idle:?}, and {pong:?} more after a ping\n\
             a client that takes no data  {write:?}\n\
             the holder of a wanted name  {probe:?} to answer a ping\n\
             wrong logins of an address   {LOGIN_TRIES} in {LOGIN_WINDOW:?}, then {LOGIN_DELAY:?} for \
             each login,\n\
             \u{20}                            and a wrong one ends its connection\n\
             after our last word          {linger:?}\n\
             after the signal to stop     {stop:?}\n\n",
            bound(self.max_connections, ""),
            bound(self.max_per_ip, ""),
            bound(self.max_message, " bytes"),
            bound(self.max_rate, " a second"),
            bound(self.max_calls, ""),
        );
        match self.worst_case() {
            None => report.push_str("With a limit missing, or that large, memory has no bound.\n"),
            Some(WorstCase { parts, connection, total }) => {
                report.push_str("Memory in the worst case, for each connection:\n");
                for (bytes, what) in parts {
                    report.push_str(&format!("  {:>7} KiB  {what}\n", kib(bytes)));
                }
                report.push_str(&format!(
                    "  {:>7} KiB  together\n\
                     times {} connections, and {} KiB for the process: {} MiB.\n",
                    kib(connection),
                    self.max_connections,
                    kib(BASE_MEMORY),
                    total.div_ceil(1024 * 1024),
                ));
            }
        }
        report
    }

    /// The arithmetic of the worst case; `None` if one of the limits is missing.
    pub fn worst_case(&self) -> Option<WorstCase> {
        // A buffer that grows can be twice as large as what it holds.
        let message = self.max_message.checked_add(MAX_REPLY_OVERHEAD)?.checked_mul(2)?;
        let partner = MAX_NAME + 64; // in a tree of names
        let parts = [
            (CLIENT_STACK, "the thread's stack, if all of it were touched"),
            (FULL_RECV_BUFFER, "received, not yet taken"),
            (
                message.checked_mul(2)?.checked_add(READ_BUFFER)?,
                "a frame, and the fragments before it",
            ),
            (message, "a message or a reply on its way out"),
            (TLS_STATE, "TLS"),
            (self.max_calls.checked_mul(2 * partner)?, "partners, noted on both sides"),
            (4 * SOCKET_BUFFER, "the kernel's buffers, which are not the process's own"),
        ];
        let connection =
            parts.iter().try_fold(0_usize, |sum, (bytes, _)| sum.checked_add(*bytes))?;
        let total = connection.checked_mul(self.max_connections)?.checked_add(BASE_MEMORY)?;
        Some(WorstCase { parts, connection, total })
    }
}

/// The most memory that some [`Limits`] let the process take, in bytes.
pub struct WorstCase {
    /// What one connection takes, and for what.
    pub parts: [(usize, &'static str); 7],
    /// The sum of these.
    pub connection: usize,
    /// All connections, and the process itself.
    pub total: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_case_is_a_sum_of_all_parts_for_all_connections() {
        let WorstCase { parts, connection, total } = Limits::default().worst_case().unwrap();
        let kib = parts.map(|(bytes, _)| bytes.div_ceil(1024));
        assert_eq!(kib, [128, 8, 261, 130, 96, 12, 128]);
        assert_eq!(connection, parts.iter().map(|(bytes, _)| bytes).sum::<usize>());
        assert_eq!(total, 1000 * connection + 48 * 1024 * 1024);
        for missing in [
            Limits { max_connections: usize::MAX, ..Limits::default() },
            Limits { max_message: usize::MAX, ..Limits::default() },
            Limits { max_calls: usize::MAX, ..Limits::default() },
        ] {
            assert!(missing.worst_case().is_none());
        }
    }

    #[test]
    fn a_reply_and_the_longest_goodbye_fit_into_what_is_set_aside() {
        let name = "\u{1}".repeat(MAX_NAME); // six bytes each in JSON
        let goodbye = crate::protocol::goodbye(&name, &name);
        assert!(goodbye.len() <= Limits::default().max_message.min(2 * MAX_REPLY_OVERHEAD));
    }
}
