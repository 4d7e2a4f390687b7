//! A WebRTC signaling server: it carries login, offer, answer, candidate and leave between two
//! people who want to call each other, over `ws://` and `wss://`, and serves its own call page.
//! That is all it does. It has no rooms, no storage, and no media passes through it.
//!
//! It is synchronous, one thread a client, and meant to be read from top to bottom.
//!
//! # Words
//!
//! - *Signaling*: before two browsers can talk directly, each must know what the other can do and at
//!   which addresses. A third party has to carry that.
//! - *SDP*: the text that says what a browser can do (RFC 8866). The caller's is the *offer*, the other
//!   one's the *answer*. A *pranswer* is a provisional answer.
//! - *Candidate*: an address at which a browser may be reached. *ICE* tries them in pairs (RFC 8445). A
//!   *STUN* server tells a browser its outside address; a *TURN* server passes media on where there is
//!   no direct way.
//! - *WebSocket*: messages in both directions over one TCP connection that starts as an HTTP request
//!   (RFC 6455). A message is one *frame* or more. *tungstenite* is the library that speaks it.
//! - *Client*: a connection. *User*: a name that a client has logged in with. *Peer*: a client as other
//!   threads see it.
//! - *Partners*: two users in a call. When one goes, the other hears `leave`. (In a *mesh call* of more
//!   than two, everybody is everybody else's partner.)
//! - To *drip*: to send a byte now and then, so as to keep others waiting. To *stall*: to take nothing
//!   of what is sent.
//!
//! # The way of a message
//!
//! ```text
//!  alice's browser                                                         bob's browser
//!        │                                                                       ▲
//!        ▼ one recv, with no lock                       one send, with bob's lock │
//!  Client::receive ─► Wire::feed ─► Client::next_message                          │
//!                     └────────── alice's lock ────────┘                          │
//!        ┌───────────────────────────────────────────────┘                        │
//!        ▼ no lock                       the map's lock                            │
//!  Client::handle ─► Envelope::parse ─► Registry::find, start_call ─► Client::send_to
//! ```
//!
//! Alice's thread does all of that, up to bob's socket. There is no queue and no second wake-up.
//! (An earlier thread did her handshakes and her login. They need much stack, which is freed when that
//! thread ends.)
//!
//! # The locks
//!
//! There are six kinds: the map of users, the table of open connections, the certificate in use, the
//! list of who may log in, each of the two gates, and one for each client. No thread ever holds two.
//! Under the first five nobody waits for I/O. Under a client's lock there is only I/O with that
//! client: none of it waits for the client to *say* something, and it waits for the client to *take*
//! something for at most one write timeout. (A client that goes from one thread to the next lies in a
//! lock for a moment, which only these two know of.)
//!
//! # Reading order
//!
//! Each file owns one thing, and uses only the ones above it. Who wants the heart of it first can leave
//! out 5 to 9.
//!
//! 1. [`limits`]: every bound and every pause, with its unit and its reason
//! 2. [`rates`]: how fast anyone may go
//! 3. [`slots`]: who is connected
//! 4. [`protocol`]: the messages, as pure functions
//! 5. [`config`]: the options
//! 6. [`tls`]: the certificate, and its renewal
//! 7. [`users_file`]: the users file, and the commands that change it
//! 8. [`users`]: who may log in
//! 9. [`turn`]: credentials for a TURN server
//! 10. [`http`]: the request head, the call page
//! 11. [`wire`]: the stream under a WebSocket, and how waiting for bytes needs no lock
//! 12. [`registry`]: who is online, and in a call with whom
//! 13. [`client`]: one client's life; the heart of it
//! 14. [`systemd`]: what the service manager is told
//! 15. [`listen`]: opening the ports
//! 16. [`server`]: accepting, starting threads, stopping
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub mod limits;
pub mod names;
pub mod addresses;
pub mod threads;
pub mod qr;

/// What the operator brings: options, certificate, users, TURN. Skip it on a first reading.
pub mod operator {
    pub mod config;
    pub mod watched_files;
    pub mod tls;
    pub mod users;
    pub mod turn;
    pub mod files;
    pub mod listen;
    pub mod logging;
}

/// What browsers load: the request head, the call page.
pub mod web {
    pub mod page;
    pub mod request;
}

/// How a message travels. Read this.
pub mod signaling {
    pub mod protocol;
    pub mod rate;
    pub mod socket;
    pub mod transport;
    pub mod peer;
    pub mod connections;
    pub mod registry;
    pub mod shared;
    pub mod client;
    pub mod handshake;
    pub mod server;
}
