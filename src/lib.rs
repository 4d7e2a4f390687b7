//! A WebRTC signaling server: it carries login, offer, answer, candidate and leave between two
//! people who want to call each other, over `ws://` and `wss://`, and serves its own call page.
//! That is all it does. It has no rooms, no storage, and no media passes through it.
//!
//! It is synchronous, one thread a client, and meant to be read from top to bottom.
//!
//! # The way of a message
//!
//! ```text
//!  alice's browser                                                       bob's browser
//!        │                                                                     ▲
//!        ▼  one recv, no lock held                         one send, bob's lock │
//!  client::receive ──► wire::feed ──► client::next_message ──► client::handle ──┘
//!                      (alice's lock)   (alice's lock)          │          ▲
//!                                                               ▼          │
//!                                                  protocol::Envelope   registry::find
//!                                                  (no lock)            (the map's lock)
//! ```
//!
//! Alice's thread does all of that, up to bob's socket. There is no queue and no second wake-up.
//! (Her handshakes and her login were done by a thread before that one, which went deep into its
//! stack, and gave it back when it ended.)
//!
//! # The locks
//!
//! There are six kinds: the registry's map, the table of open connections, the turn at a gate, the
//! certificate in use, the list of users, and one for each client. No thread ever holds two. None
//! does I/O under the first four; under that of the users the users file is read, an ordinary one.
//! Under a client's lock there is only I/O with that client, none of it waits for the client to *say*
//! something, and it waits for the client to *take* something for at most one write timeout.
//! (A client that goes from its first thread to its second lies in a lock of its own for a moment.)
//!
//! # Reading order
//!
//! Each file owns one thing, and uses only the ones above it:
//!
//! 1. [`limits`]: every number, with its unit and its reason
//! 2. [`rates`]: how fast anyone may go
//! 3. [`slots`]: who is connected
//! 4. [`protocol`]: the messages, as pure functions
//! 5. [`wire`]: the stream under a WebSocket, and how waiting for bytes needs no lock
//! 6. [`registry`]: who is online, and in a call with whom
//! 7. [`config`]: the options
//! 8. [`tls`]: the certificate
//! 9. [`users`]: who may log in
//! 10. [`turn`]: credentials for a TURN server
//! 11. [`http`]: the request head, the call page
//! 12. [`client`]: one client's life; the heart of it
//! 13. [`systemd`]: what the service manager is told
//! 14. [`listen`]: opening the ports
//! 15. [`server`]: accepting, starting threads, stopping
#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(
    not(test),
    warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub mod limits;
pub mod rates;
pub mod slots;
pub mod protocol;
pub mod wire;
pub mod registry;
pub mod config;
pub mod tls;
pub mod users;
pub mod turn;
pub mod http;
pub mod client;
pub mod systemd;
pub mod listen;
pub mod server;
