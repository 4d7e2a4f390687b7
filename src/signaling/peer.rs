//! A client's connection as other threads see it: sending to it, probing it, disconnecting it.
//!
//! No thread waits for a client while it holds that client's lock. What the client's socket does not
//! take at once is sent by the *flusher*, a thread that exists only while something is left to send.

use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{info, warn};
use parking_lot::{Mutex, MutexGuard};
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::{Message, Utf8Bytes, WebSocket};

use crate::limits::{FLUSHER_STACK, PROBE_INTERVAL, PROBING_TIME, Timeouts};
use crate::operator::users::TokenHash;
use crate::signaling::transport::{self, ClientSocket, Transport, is_timeout};
use crate::threads;

/// A client's connection, shared by its own thread and by every thread that sends to it.
#[derive(Clone)]
pub struct Peer {
    websocket: Arc<Mutex<WebSocket<Transport>>>,
    /// To wait for the client, and to disconnect it, without the lock.
    pub socket: Arc<ClientSocket>,
    /// The hash of a PeerJS client's token. A new connection with the same token takes over the name.
    pub token: Option<TokenHash>,
}

/// Why a message was not sent, not even a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// The client is disconnecting, or is a PeerJS client that has not got its `OPEN` yet.
    Closed,
    /// The client takes data too slowly: the message does not fit into its write buffer.
    Full,
}

impl Peer {
    /// A connection whose handshakes are done.
    pub fn new(websocket: WebSocket<Transport>, socket: Arc<ClientSocket>) -> Peer {
        Peer { websocket: Arc::new(Mutex::new(websocket)), socket, token: None }
    }

    /// Whether both are the same connection.
    pub fn is(&self, other: &Peer) -> bool {
        Arc::ptr_eq(&self.websocket, &other.websocket)
    }

    /// Does something under the client's lock. Starts the flusher if that left bytes to send, and wakes
    /// the threads that wait for a change.
    pub fn with<T>(&self, work: impl FnOnce(&mut WebSocket<Transport>) -> T) -> T {
        let mut websocket = self.websocket.lock();
        let result = work(&mut websocket);
        self.flush_later(&mut websocket);
        self.socket.activity.notify_all();
        result
    }

    /// Sends a text message without waiting, if the bytes in the write buffer and the message are at
    /// most `bound` together.
    ///
    /// # Errors
    /// No part of the message was sent, or will be.
    pub fn send(&self, text: Utf8Bytes, bound: usize) -> Result<(), SendError> {
        // `WebSocket::send` would keep a buffer as large as the largest message so far.
        let frame = Frame::message(text, OpCode::Data(Data::Text), true);
        let mut bytes = Vec::with_capacity(frame.len());
        frame.format(&mut bytes).map_err(|_| SendError::Closed)?;
        // Not by `with`, which would wake all waiting probes at each message.
        let mut websocket = self.websocket.lock();
        if websocket.get_ref().closed || websocket.get_ref().unopened || !websocket.can_write() {
            return Err(SendError::Closed);
        }
        let transport = websocket.get_mut();
        if transport.socket().write_buffer.len().saturating_add(bytes.len()) > bound {
            return Err(SendError::Full);
        }
        let sent = transport.write_all(&bytes).map_err(|_| SendError::Closed);
        self.flush_later(&mut websocket);
        sent
    }

    /// Waits until the write buffer holds at most `bound` bytes. Only the client's own thread calls
    /// this: a client that reads nothing is not read from either. The wait ends at the latest when the
    /// flusher disconnects the client.
    pub fn wait_for_room(&self, bound: usize) {
        let is_full = |websocket: &mut WebSocket<Transport>| {
            websocket.get_mut().socket().write_buffer.len() > bound
        };
        self.socket.activity.wait_while(&mut self.websocket.lock(), is_full);
    }

    /// Whether the client is alive, for a login that wants its name: sends a ping and waits for the
    /// pong. If no pong arrives within `timeout`, the client still counts as alive if other bytes
    /// from it were or are being handled, or if the flusher has sent it some. A dead client is
    /// disconnected.
    ///
    /// Other bytes do not end the wait early, because a close frame may follow them.
    pub fn probe(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut websocket = self.websocket.lock();
        let Transport { progress, pings_sent, .. } = *websocket.get_ref();
        loop {
            let now = Instant::now();
            let transport = websocket.get_mut();
            if transport.closed {
                return false;
            }
            if transport.last_pong > pings_sent {
                return true;
            }
            let wake = match transport.probing {
                // The client's thread is itself probing, perhaps this caller's connection, and
                // cannot read a pong.
                Some(since) if now < since + PROBING_TIME => since + PROBING_TIME,
                Some(_) => return true,
                // Wait: the client's thread is handling bytes, perhaps a close frame, or the ping
                // has been sent.
                None if transport.processing || transport.pings_sent > pings_sent => deadline,
                // However many logins want the name, pings keep this interval.
                None if now < transport.next_ping => transport.next_ping,
                None => {
                    transport.pings_sent += 1;
                    transport.next_ping = now + PROBE_INTERVAL;
                    let number = transport.pings_sent.to_be_bytes().to_vec();
                    // An error means that the connection is ending. The client's own thread then
                    // sets `closed`.
                    let _ = websocket.send(Message::Ping(number.into()));
                    self.flush_later(&mut websocket);
                    deadline
                }
            };
            if now >= deadline {
                break;
            }
            self.socket.activity.wait_until(&mut websocket, wake.min(deadline));
        }
        let alive = websocket.get_ref().processing || websocket.get_ref().progress != progress;
        if !alive {
            self.socket.disconnect();
        }
        alive
    }

    /// Ends the connection in good order (RFC 6455, section 7.1.1): sends what is left, with `frame` as
    /// the last, and drops what the client still sends. Only the client's own thread calls this, and
    /// waits for the client here with no lock.
    pub fn close(&self, frame: Option<CloseFrame>, timeouts: &Timeouts) {
        self.with(|websocket| {
            if frame.is_some() {
                let _ = websocket.close(frame); // An error means that the client is gone.
            }
            websocket.get_mut().shutdown_tls();
        });
        self.wait_for_flusher(timeouts);
        transport::drain(&self.socket.stream, timeouts.drain);
        self.socket.disconnect();
    }

    /// Ends the connection at once. Only the client's own thread calls this.
    pub fn abort(&self, timeouts: &Timeouts) {
        self.socket.disconnect();
        self.wait_for_flusher(timeouts); // It must end before the connection's permit is dropped.
    }

    fn wait_for_flusher(&self, timeouts: &Timeouts) {
        let is_flushing =
            |websocket: &mut WebSocket<Transport>| websocket.get_mut().socket().flushing;
        let mut websocket = self.websocket.lock();
        self.socket.activity.wait_while_for(&mut websocket, is_flushing, timeouts.stall);
    }

    /// Starts the flusher, if there is something left to send and no flusher yet.
    fn flush_later(&self, websocket: &mut MutexGuard<WebSocket<Transport>>) {
        if !websocket.get_mut().start_flushing() {
            return;
        }
        let peer = self.clone();
        if let Err(error) = threads::spawn("flusher", FLUSHER_STACK, move || peer.flush()) {
            self.socket.disconnect();
            websocket.get_mut().discard_buffered();
            // Without the lock, because standard error may be a pipe that is full.
            MutexGuard::unlocked(websocket, || {
                warn!("disconnecting a slow reader: cannot start a thread: {error}");
            });
        }
    }

    /// Sends the write buffer, and what is appended to it meanwhile.
    fn flush(&self) {
        loop {
            let Some(part) = self.with(|websocket| websocket.get_mut().next_part()) else {
                return;
            };
            if let Err(error) = self.send_part(&part) {
                if let (true, Ok(address)) = (is_timeout(&error), self.socket.stream.peer_addr()) {
                    info!("{address} disconnecting a slow reader: send timeout");
                }
                self.socket.disconnect();
                return self.with(|websocket| websocket.get_mut().discard_buffered());
            }
        }
    }

    /// Sends all of `part`. Each `send` has the socket's timeout to make progress.
    fn send_part(&self, mut part: &[u8]) -> io::Result<()> {
        while !part.is_empty() {
            let sent = match (&self.socket.stream).write(part) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                // A timeout does not mean that the client reads nothing: Linux wakes a blocked
                // `send` only when a third of the buffer is free. Less may be free, so one more
                // `send` tries without waiting.
                Err(error) if is_timeout(&error) => transport::send_now(&self.socket.stream, part)?,
                result => result?,
            };
            part = part.get(sent..).unwrap_or_default();
            self.with(|websocket| websocket.get_mut().progress += 1);
        }
        Ok(())
    }
}
