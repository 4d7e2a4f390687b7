//! One client on its own thread: reads and handles messages until the connection ends.
//!
//! ```text
//! serve ─┬► process_buffered ─► next_message     one message, under this client's lock
//!    ▲   │                       └► handle ─► login, or relay ─► Peer::send
//!    └───┴► receive                              waits for bytes, with no lock
//! ```
//!
//! No thread holds the locks of two clients, or of a client and the map, and no lock is held while
//! waiting for a client. A message is read under this client's lock, and sent under the recipient's.
//!
//! Only this thread ends the connection. Any other thread calls `ClientSocket::disconnect`, which
//! wakes this thread from its `recv`, so that it cleans up.

mod login;
mod peerjs;
mod relay;

use std::io::{ErrorKind, Read};
use std::mem;
use std::net::SocketAddr;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use log::{Level, debug, log};
use tungstenite::error::ProtocolError;
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Error, Message};

use crate::limits::{BURST, Limits, PACING_DELAY, RECV_BUFFER, Timeouts};
use crate::operator::turn::Turn;
use crate::operator::users::AllowedUsers;
use crate::rate::{self, RateLimiter};
use crate::signaling::connections::{ConnectionPermit, Connections};
use crate::signaling::peer::Peer;
use crate::signaling::protocol::{Envelope, Fault, Signal};
use crate::signaling::registry::Registry;
use crate::signaling::transport::is_timeout;
use crate::web::request::Site;
use login::Session;

/// What all clients share.
pub struct Shared {
    /// Who is online.
    pub registry: Arc<Registry>,
    /// Which PeerJS clients are online. Their ids are separate from the users' names.
    pub peerjs_registry: Arc<Registry>,
    /// Which connections are open.
    pub connections: Arc<Connections>,
    /// How much each client may do.
    pub limits: Limits,
    /// How long everything may take.
    pub timeouts: Timeouts,
    /// What HTTP requests are answered with.
    pub site: Site,
    /// Who may log in. `None` for everybody.
    pub users: Option<AllowedUsers>,
    /// The TURN server, if there is one.
    pub turn: Option<Turn>,
    /// Set once, when the server stops.
    pub stopping: AtomicBool,
}

/// A connected client. Only its own thread has this.
pub struct Client {
    shared: Arc<Shared>,
    peer: Peer,
    address: SocketAddr,
    /// The name it is logged in with.
    session: Option<Session>,
    /// `None` unless the client speaks PeerJS.
    peerjs: Option<peerjs::State>,
    rate: RateLimiter,
    /// When this user was last looked up in the users file.
    users_checked: Instant,
    /// The last field, so it is dropped last: when [`Connections`] is empty, no client is left.
    permit: ConnectionPermit,
}

/// Why a connection ended.
#[derive(Debug)]
enum DisconnectReason {
    /// The connection is lost, or must be dropped without a close frame.
    Lost(&'static str),
    /// The client sent a close frame, which has been answered.
    ClosedByClient,
    /// The server ends it: the close code and its reason.
    ClosedByServer(CloseCode, &'static str),
}

/// The socket was closed or reset, by the client or by `ClientSocket::disconnect`.
const CONNECTION_LOST: DisconnectReason = DisconnectReason::Lost("connection lost");

impl Client {
    /// A client whose handshakes are done.
    pub fn new(
        shared: Arc<Shared>,
        peer: Peer,
        address: SocketAddr,
        permit: ConnectionPermit,
    ) -> Client {
        let now = Instant::now();
        let rate = RateLimiter::new(rate::per_second(shared.limits.max_rate), BURST, now);
        let (session, peerjs) = (None, None);
        Client { shared, peer, address, session, peerjs, rate, users_checked: now, permit }
    }

    /// Reads and handles messages until the connection ends, then logs out and closes the socket.
    pub fn run(mut self: Box<Self>) {
        let reason = panic::catch_unwind(AssertUnwindSafe(|| self.serve()))
            .unwrap_or(DisconnectReason::Lost("a bug in this server")); // The panic hook has logged where.
        self.peer.with(|websocket| websocket.get_mut().closed = true);
        // Tells the partners and frees the name. First, because closing can wait for the client.
        let was_logged_in = self.session.take().is_some();
        let (shared, address) = (self.shared.clone(), self.address);
        let (by_server, words) = match reason {
            DisconnectReason::Lost(words) => {
                self.peer.abort(&shared.timeouts);
                (false, words.to_string())
            }
            DisconnectReason::ClosedByClient => {
                self.peer.close(None, &shared.timeouts);
                (false, "closed by the client".into())
            }
            DisconnectReason::ClosedByServer(code, reason) => {
                let frame = CloseFrame { code, reason: reason.into() };
                self.peer.close(Some(frame), &shared.timeouts);
                (true, format!("{reason}, closed with {code}"))
            }
        };
        drop(self);
        let level = if by_server || was_logged_in { Level::Info } else { Level::Debug };
        let open = shared.connections.count();
        log!(level, "{address} disconnected: {words} ({open} connections open)");
    }

    fn serve(&mut self) -> DisconnectReason {
        loop {
            // First, because bytes may have come with the handshake.
            if let Err(reason) = self.process_buffered().and_then(|()| self.receive()) {
                return reason;
            }
        }
    }

    /// Handles all messages in what was received, no faster than the client's rate. A part of a
    /// message is charged like a short message.
    fn process_buffered(&mut self) -> Result<(), DisconnectReason> {
        self.login_peerjs()?;
        self.check_user()?;
        let mut message = self.next_message()?;
        self.charge_rate()?;
        while let Some(present) = message {
            self.handle(present)?;
            message = self.next_message()?;
            if message.is_some() {
                self.charge_rate()?;
            }
        }
        Ok(())
    }

    /// Charges one message. Waits while the client is over its rate or does not read its replies.
    /// What the client sends meanwhile stays in the kernels' socket buffers.
    fn charge_rate(&mut self) -> Result<(), DisconnectReason> {
        self.peer.wait_for_room(self.shared.limits.write_buffer());
        let delay = self.rate.charge(Instant::now());
        if !delay.is_zero() {
            // At least `PACING_DELAY`, so that a flood wakes this thread less often. Jitter from the
            // port keeps many clients from waking up together.
            thread::sleep(
                delay.max(PACING_DELAY) + PACING_DELAY * u32::from(self.address.port() % 256) / 256,
            );
            if self.peer.socket.is_reset() {
                return Err(CONNECTION_LOST);
            }
        }
        self.check_open() // Here too, because handling all received bytes could take minutes.
    }

    /// Returns an error if this client has been disconnected, or if the server is stopping.
    fn check_open(&self) -> Result<(), DisconnectReason> {
        if self.peer.socket.is_disconnected() {
            return Err(CONNECTION_LOST);
        }
        if self.shared.stopping.load(Ordering::Relaxed) {
            return Err(DisconnectReason::ClosedByServer(CloseCode::Away, "server is stopping"));
        }
        Ok(())
    }

    /// The next message in what was received, or `None` when all of it has been handled. tungstenite
    /// answers pings and close frames meanwhile; pings and pongs are returned to be charged.
    fn next_message(&self) -> Result<Option<Message>, DisconnectReason> {
        self.peer.with(|websocket| {
            loop {
                match websocket.read() {
                    Ok(Message::Close(_)) => {} // The next `read` sends the answer.
                    Ok(message) => {
                        if let Message::Pong(payload) = &message {
                            websocket.get_mut().pong_received(payload);
                        }
                        return Ok(Some(message));
                    }
                    Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {
                        websocket.get_mut().processed();
                        return Ok(None);
                    }
                    Err(error) => return Err(disconnect_reason(error)),
                }
            }
        })
    }

    /// Waits for bytes from the client, and pings it when none come. A client's thread waits for a
    /// quiet client only here and in [`Client::wait_for_recipients`]. Not inlined: otherwise
    /// `buffer` would take stack space while messages are handled.
    #[inline(never)]
    fn receive(&mut self) -> Result<(), DisconnectReason> {
        self.wait_for_recipients();
        let mut buffer = [0; RECV_BUFFER];
        let Timeouts { idle, pong, .. } = self.shared.timeouts;
        let mut progress_at_ping = None;
        let mut stream = &self.peer.socket.stream;
        let received = loop {
            match stream.read(&mut buffer) {
                Ok(count @ 1..) => break buffer.get(..count).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_timeout(&error) => {
                    let progress = self.peer.with(|websocket| websocket.get_ref().progress);
                    if progress_at_ping == Some(progress) {
                        return Err(DisconnectReason::Lost("keepalive timeout"));
                    }
                    // Only the first timeout sends a ping. If the flusher has sent bytes since
                    // then, the client is a slow reader and may not have received the ping yet: it
                    // gets more time, and no second ping.
                    if progress_at_ping.replace(progress).is_none() {
                        let _ = stream.set_read_timeout(Some(pong)); // If this fails, `read` does too.
                        let ping = Message::Ping(Vec::new().into());
                        self.peer
                            .with(|websocket| websocket.send(ping))
                            .map_err(disconnect_reason)?;
                    }
                }
                Ok(_) | Err(_) => {
                    self.check_open()?;
                    return Err(CONNECTION_LOST);
                }
            }
        };
        self.check_open()?;
        if progress_at_ping.is_some() {
            let _ = stream.set_read_timeout(Some(idle));
        }
        let unpaid = self.peer.with(|websocket| {
            websocket.get_mut().feed(received);
            mem::take(&mut websocket.get_mut().empty_records)
        });
        // `unpaid` counts TLS records without data, such as key updates, in the bytes handled
        // before. Each is charged as one message, because it costs more than a short message.
        for _ in 0..unpaid {
            self.charge_rate()?;
        }
        Ok(())
    }

    /// Does what a message asks for, or tells the client why not.
    fn handle(&mut self, message: Message) -> Result<(), DisconnectReason> {
        // Clients send either kind of frame; recipients always get text.
        if !message.is_text() && !message.is_binary() {
            return Ok(());
        }
        // A binary message that is not UTF-8 is refused like an empty one.
        let text = message.into_text().unwrap_or_default();
        if self.peerjs.is_some() {
            return self.relay_peerjs(&text);
        }
        let envelope = match Envelope::parse(&text) {
            Ok(envelope) => envelope,
            Err(fault) => return self.refuse(&Envelope::default(), &fault),
        };
        let relayed = match envelope.signal(&text) {
            Ok(Signal::Login) => return self.login(&envelope, &text),
            Ok(signal) => self.relay(signal, &envelope, &text),
            Err(fault) => Err(fault),
        };
        relayed.or_else(|fault| self.refuse(&envelope, &fault))
    }

    /// Tells the client why its message was refused. The connection goes on.
    fn refuse(&self, envelope: &Envelope, fault: &Fault) -> Result<(), DisconnectReason> {
        debug!("{} refused: {}", self.address, fault.words().0);
        self.reply(envelope.refusal(fault));
        Ok(())
    }

    /// Sends to this client itself. There is room: [`Client::charge_rate`] has waited for it.
    fn reply(&self, text: String) {
        // An error means that the client is disconnecting, and the next `receive` returns.
        let _ = self.peer.send(text.into(), usize::MAX);
    }

    /// Ends the connection of a user whose token is no longer in the users file. Checks at most once
    /// in `timeouts.idle`; a silent client is checked when it answers the keepalive ping.
    fn check_user(&mut self) -> Result<(), DisconnectReason> {
        if let (Some(users), Some(session)) = (&self.shared.users, &self.session)
            && self.users_checked.elapsed() >= self.shared.timeouts.idle
        {
            self.users_checked = Instant::now();
            if users.token_hash(session.name()) != session.token_hash {
                return Err(DisconnectReason::ClosedByServer(CloseCode::Policy, "unauthorized"));
            }
        }
        Ok(())
    }
}

/// What tungstenite's error means for the connection (close codes: RFC 6455, section 7.4.1).
fn disconnect_reason(error: Error) -> DisconnectReason {
    let close = DisconnectReason::ClosedByServer;
    match error {
        Error::ConnectionClosed | Error::AlreadyClosed => DisconnectReason::ClosedByClient,
        Error::Capacity(_) => close(CloseCode::Size, "message too big"),
        Error::Utf8(_) => close(CloseCode::Invalid, "text is not UTF-8"),
        // The client closed TLS without sending a close frame first.
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => CONNECTION_LOST,
        Error::Protocol(_) => close(CloseCode::Protocol, "not RFC 6455"),
        _ => CONNECTION_LOST,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signaling::protocol;
    use crate::signaling::transport::{ClientSocket, Transport};
    use std::net::{TcpListener, TcpStream};
    use tungstenite::WebSocket;
    use tungstenite::protocol::Role;

    pub(super) fn shared() -> Arc<Shared> {
        let limits = Limits::default();
        Arc::new(Shared {
            registry: Arc::default(),
            peerjs_registry: Arc::default(),
            connections: Connections::new(limits),
            limits,
            timeouts: Timeouts::default(),
            site: Site::default(),
            users: None,
            turn: None,
            stopping: AtomicBool::new(false),
        })
    }

    /// A client as it is after the handshakes, and the other end of its socket.
    pub(super) fn connected(shared: &Arc<Shared>) -> (Client, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let other_end = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, address) = listener.accept().unwrap();
        let socket = Arc::new(ClientSocket::new(socket));
        let mut transport = Transport::accept(socket.clone(), None, &shared.timeouts).unwrap();
        transport.finish_handshake(&shared.timeouts).unwrap();
        let websocket = WebSocket::from_raw_socket(transport, Role::Server, None);
        let permit = shared.connections.admit(socket.clone(), None).unwrap();
        let peer = Peer::new(websocket, socket);
        (Client::new(shared.clone(), peer, address, permit), other_end)
    }

    /// The same, logged in.
    fn client(shared: &Arc<Shared>, name: &str) -> (Client, TcpStream) {
        let (mut client, other_end) = connected(shared);
        let login = format!(r#"{{"signalType":"login","fromUser":"{name}"}}"#);
        client.handle(Message::text(login)).unwrap();
        (client, other_end)
    }

    #[test]
    fn a_panic_frees_the_name_and_tells_the_partner_and_ends_nobody_else() {
        let shared = shared();
        let (bob, mut bobs_end) = client(&shared, "bob");
        thread::scope(|scope| {
            let panicked = scope.spawn(|| {
                let (mut alice, _alices_end) = client(&shared, "alice");
                let offer = r#"{"signalType":"offer","fromUser":"alice","toUser":"bob"}"#;
                alice.handle(Message::text(offer)).unwrap();
                panic!("on purpose");
            });
            assert!(panicked.join().is_err());
        });
        assert!(shared.registry.find("alice").is_none());
        assert!(shared.registry.find("bob").is_some());
        assert_eq!(shared.connections.count(), 1);

        bob.peer.socket.disconnect(); // so that `read_to_end` returns
        let mut received = Vec::new();
        bobs_end.read_to_end(&mut received).unwrap();
        let leave = protocol::leave_message("alice", "bob");
        assert!(received.ends_with(leave.as_bytes()), "{}", String::from_utf8_lossy(&received));
    }

    #[test]
    fn the_flusher_ends_before_its_connection() {
        let shared = shared();
        let (client, _end) = connected(&shared);
        let is_flushing = || client.peer.with(|websocket| websocket.get_mut().socket().flushing);
        let more_than_the_network_stack_takes = "x".repeat(64 * 1024 * 1024);
        client.peer.send(more_than_the_network_stack_takes.into(), usize::MAX).unwrap();
        assert!(is_flushing());
        client.peer.abort(&shared.timeouts);
        assert!(!is_flushing());
    }

    #[test]
    fn a_registration_that_is_dropped_by_a_panic_frees_the_name() {
        // As when telling the partners panics.
        let shared = shared();
        let (bob, _end) = client(&shared, "bob");
        let registration = shared.registry.register("second name", &bob.peer).ok();
        let panicked = panic::catch_unwind(AssertUnwindSafe(|| {
            let _registration = registration;
            panic!("on purpose");
        }));
        assert!(panicked.is_err() && shared.registry.find("second name").is_none());
    }
}
