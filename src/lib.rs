//! A WebRTC signaling server: it carries login, offer, answer, candidate and leave between users who
//! want to call each other, over `ws://` and `wss://`, and serves a call page. It has no rooms and no
//! storage, and no media passes through it.
//!
//! `docs/architecture.md` follows one message through this code: start there.
//!
//! | folder | owns |
//! | --- | --- |
//! | [`signaling`] | how a message travels: read this |
//! | [`web`] | the request head, and the call page that browsers load |
//! | [`operator`] | options, certificate, users, TURN, log: skip it on a first reading |
//! | [`peerjs`] | the messages of PeerJS clients, with `--peerjs` only: skip it on a first reading |
//! | [`limits`] | every bound and timeout, with its unit and its reason |
//!
//! In the module lists below, a file uses only files of its folder that are listed above it.
//! Imports between folders go one way: `signaling` uses `web` and `operator`; these two use only
//! files at the top of `src`.
//!
//! Terms: *WebRTC* sends sound and picture from browser to browser. To set up a call, the two
//! browsers first exchange a few messages through a server; this is *signaling*. A *WebSocket* starts
//! as an HTTP request (an *upgrade*), and then carries messages both ways as *frames*. A *ping* is
//! answered with a *pong*, and a *close frame* ends the connection. A *TURN* server relays media
//! between browsers that cannot reach each other.
//!
//! *SDP* describes what a browser can send and receive (RFC 8866): the caller sends an *offer*, the
//! callee an *answer*. A *candidate* is an address at which a browser may be reached (ICE, RFC 8445).
//! A *client* is a connection, a *user* is a name that a client has logged in with, a *peer* is a
//! client as other threads see it. *Partners* are two users in a call.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub mod limits;
pub mod names;
pub mod addresses;
pub mod peerjs;
pub mod threads;
pub mod rate;
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
    pub mod transport;
    pub mod peer;
    pub mod connections;
    pub mod registry;
    pub mod client;
    pub mod handshake;
    pub mod server;
}
