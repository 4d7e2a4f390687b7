//! One client's life on its own thread, from the handshakes to the goodbye. (Two threads, one after
//! the other: the first ends with the login.)
//!
//! ```text
//!   shake_hands ─► serve ─┬► work_through ─► next_message   one message, under this client's lock
//!                    ▲    │                  └► handle ─► login, or relay ─► send_to
//!                    └────┴► receive                        waits for bytes, with no lock
//! ```
//!
//! The rules of the locks: never hold two, and never wait for bytes with one. A message is taken out
//! under this client's lock, and sent under the recipient's.
//!
//! Only this thread ends this connection. Everybody else calls [`Peer::disconnect`]; the thread
//! wakes from its `recv`, and dropping its `Client` cleans up, after a panic too.
//!
//! # Performance notes
//!
//! What brought the memory of an idle client from 31 KiB to 12, and over TLS from 63 to 27:
//!
//! - Handshakes and login have a thread that ends, as they go deep into its stack.
//! - [`RECV_BUFFER`] fits into a page of stack that is touched anyway.
//! - A [`Client`] goes from the one thread to the other in a box, and so is on neither stack.
//! - What is sent lies in a buffer that is freed again (`send_text`).
//!
//! What made no difference: fewer of the allocator's arenas, and keeping a message until the next
//! read, so that tungstenite would take a new buffer.
//!
//! A relayed offer of 2 KiB takes the processor 11 to 16 µs; four fifths of that are the kernel's, and
//! half of the rest is this program's, with tungstenite and JSON.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::mem;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use log::{Level, debug, error, info, log};
use parking_lot::Mutex;
use tungstenite::error::ProtocolError;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tungstenite::{Error, Message, Utf8Bytes, WebSocket};

use crate::limits::{
    FULL_RECV_BUFFER, Limits, MAX_REPLY_OVERHEAD, READ_BUFFER, RECV_BUFFER, Timeouts,
};
use crate::names;
use crate::operator::tls::CertificateFiles;
use crate::operator::turn::Turn;
use crate::operator::users::{AllowedUsers, TokenHash};
use crate::protocol::{self, Envelope, Fault, LoginRefusal, Signal};
use crate::rates::{Gate, RateLimiter, Verdict};
use crate::registry::{Partners, Peer, Registry};
use crate::slots::{Slot, Slots};
use crate::web::request::{self as http, Outcome, Site};
use crate::wire::{self, Wire, is_timeout};

/// What all clients share.
pub struct Shared {
    /// Who is online.
    pub registry: Registry,
    /// Which connections are open.
    pub slots: Arc<Slots>,
    /// How much anyone may do.
    pub limits: Limits,
    /// Who is over the message rate waits here for [`FLOOD_PAUSE`](crate::limits::FLOOD_PAUSE).
    pub floods: Gate,
    /// Keeps the work apart that comes when many connections end at once.
    pub endings: Gate,
    /// How long anything may take.
    pub timeouts: Timeouts,
    /// What HTTP requests get.
    pub site: Site,
    /// Who may log in; everybody without it.
    pub users: Option<AllowedUsers>,
    /// What lets a user use the TURN server, if there is one.
    pub turn: Option<Turn>,
    /// Set once, when the server is to end.
    pub stopping: AtomicBool,
}

/// TLS if there is a certificate, then HTTP. `None` when the connection ends with that. The client's
/// address is what a trusted proxy says, if that is who is connected.
pub fn shake_hands(
    shared: &Arc<Shared>,
    mut slot: Slot,
    socket: Arc<TcpStream>,
    mut address: SocketAddr,
    tls: Option<&CertificateFiles>,
) -> Option<Box<Client>> {
    let certificate = tls.map(CertificateFiles::get);
    let acceptor = certificate.as_ref().map(|certificate| &certificate.acceptor);
    let mut wire = Wire::accept(socket.clone(), acceptor, &shared.timeouts)
        .inspect_err(|error| debug!("{address} TLS handshake failed: {error}"))
        .ok()?;
    let mut assign = |ip| slot.assign(ip).map_err(|full| full.to_string());
    let served = http::serve(&mut wire, &shared.site, tls.is_some(), address, &mut assign);
    let early = match served.map(|(client, outcome)| {
        address = client;
        outcome
    }) {
        Ok(Outcome::Upgraded(early)) => early,
        Ok(Outcome::Answered(status)) => {
            debug!("{address} HTTP request answered with {status}");
            wire.say_no_more();
            wire::linger(&socket, shared.timeouts.linger);
            return None;
        }
        Err(error) => {
            debug!("{address} HTTP request failed: {error}");
            return None;
        }
    };
    wire.end_handshake(&shared.timeouts)
        .inspect_err(|error| debug!("{address} went during the handshake: {error}"))
        .ok()?;
    let max_message = shared.limits.max_message;
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0) // Every message is sent at once.
        .max_write_buffer_size(max_message.saturating_add(MAX_REPLY_OVERHEAD))
        .max_message_size(Some(max_message))
        .max_frame_size(Some(max_message));
    let websocket = WebSocket::from_partially_read(wire, early, Role::Server, Some(config));
    let peer = Peer { websocket: Arc::new(Mutex::new(websocket)), socket };
    debug!("{address} connected ({} connections open)", shared.slots.count());
    Some(Box::new(Client::new(shared, peer, address, slot)))
}

/// A connected client. Only its own thread has this.
pub struct Client {
    shared: Arc<Shared>,
    peer: Peer,
    address: SocketAddr,
    /// As whom it is logged in.
    user: Option<User>,
    /// [`Ending::Panicked`] until it ends in another way: that is what a panic leaves here.
    ending: Ending,
    rate: RateLimiter,
    /// Whether there is probably more to receive.
    recv_was_full: bool,
    /// Whether parts of the next message are paid for.
    paid_in_parts: bool,
    /// When the users file was last asked whether this user is still in it.
    checked: Instant,
    /// The last field, and so dropped last: when no slot is taken, everybody has said goodbye.
    _slot: Slot,
}

/// A user who is logged in.
struct User {
    name: String,
    /// What the users file said of this user's token; `None` if the server has no such file.
    token_hash: Option<TokenHash>,
}

/// Why a connection ended.
enum Ending {
    /// The socket was closed or reset, by the client or by [`Peer::disconnect`].
    Gone,
    /// A bug of ours; the panic's own message says where.
    Panicked,
    /// The client's close, which is answered already.
    Closed,
    /// The client answered neither our ping nor anything else.
    Silent,
    /// The client broke RFC 6455 or a limit: the close code and the reason that name it.
    Broken(CloseCode, &'static str),
    /// The server is stopping.
    Stopping,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Ending::Gone => f.write_str("connection lost"),
            Ending::Panicked => f.write_str("a bug in this server"),
            Ending::Closed => f.write_str("closed by the client"),
            Ending::Silent => f.write_str("no sign of life"),
            Ending::Broken(code, reason) => write!(f, "{reason}, closed with {code}"),
            Ending::Stopping => f.write_str("server is stopping"),
        }
    }
}

impl Client {
    fn new(shared: &Arc<Shared>, peer: Peer, address: SocketAddr, slot: Slot) -> Client {
        let (shared, now) = (shared.clone(), Instant::now());
        let rate = RateLimiter::new(shared.limits.max_rate, now);
        Client {
            shared,
            peer,
            address,
            user: None,
            ending: Ending::Panicked,
            rate,
            recv_was_full: false,
            paid_in_parts: false,
            checked: now,
            _slot: slot,
        }
    }

    /// Reads and handles messages until the client has logged in. `None` if it ends before that.
    pub fn until_login(self: Box<Self>) -> Option<Box<Self>> {
        self.serve_until(|client| client.user.is_some())
    }

    /// Reads and handles messages until the connection has ended.
    pub fn serve(self: Box<Self>) {
        self.serve_until(|_| false);
    }

    fn serve_until(mut self: Box<Self>, enough: impl Fn(&Client) -> bool) -> Option<Box<Self>> {
        self.ending = loop {
            // First, since bytes may have come with the handshake.
            let done = self.work_through();
            if done.is_ok() && enough(&self) {
                return Some(self);
            }
            if let Err(ending) = done.and_then(|()| self.receive()) {
                break ending;
            }
        };
        let (shared, address) = (self.shared.clone(), self.address);
        let reason = self.ending.to_string();
        // Whoever only connects and goes, as fast as possible, is not to fill a disk with that.
        let matters = self.user.is_some() || matches!(self.ending, Ending::Broken(..));
        let level = if matters { Level::Info } else { Level::Debug };
        drop(self);
        let open = shared.slots.count();
        log!(level, "{address} disconnected: {reason} ({open} connections open)");
        None
    }

    /// Handles all the messages in what was received, as far as the client's rate allows.
    fn work_through(&mut self) -> Result<(), Ending> {
        let mut messages = 0;
        while let Some(message) = self.next_message()? {
            messages += 1;
            self.check_user()?;
            let over_rate = !(mem::take(&mut self.paid_in_parts) || self.pay()?);
            self.handle(&message, over_rate)?;
            if messages > 1 {
                thread::yield_now(); // Who has much to say lets the others in between.
            }
        }
        if messages == 0 {
            // A part of a message is as much work as a short one.
            self.paid_in_parts |= self.pay()?;
            self.check_user()?;
            thread::yield_now();
        }
        Ok(())
    }

    /// Pays for one message; false if the client is over its rate. Then this also waits, with no
    /// lock: meanwhile what the client sends stays in its own network stack, and costs us nothing.
    fn pay(&mut self) -> Result<bool, Ending> {
        match self.rate.check(Instant::now()) {
            Verdict::Allowed => Ok(true),
            Verdict::Refused => {
                self.shared.floods.wait();
                Ok(false)
            }
            Verdict::Abusive => Err(Ending::Broken(CloseCode::Policy, "too many messages")),
        }
    }

    /// Waits for bytes from the client, and pings it when none come.
    fn receive(&mut self) -> Result<(), Ending> {
        match self.recv_was_full {
            false => self.receive_at_most::<RECV_BUFFER>(),
            true => self.receive_at_most::<FULL_RECV_BUFFER>(),
        }
    }

    /// Not inlined: between two calls the buffer's part of the stack serves the messages' handling.
    #[inline(never)]
    fn receive_at_most<const SIZE: usize>(&mut self) -> Result<(), Ending> {
        let mut buffer = [0; SIZE];
        let timeouts = &self.shared.timeouts;
        let mut pinged = false;
        loop {
            match (&*self.peer.socket).read(&mut buffer) {
                Ok(0) if self.shared.stopping.load(Ordering::Relaxed) => {
                    return Err(Ending::Stopping);
                }
                Ok(0) => return Err(Ending::Gone),
                Ok(count) => {
                    if pinged {
                        self.peer.socket.set_read_timeout(Some(timeouts.idle)).map_err(gone)?;
                    }
                    self.recv_was_full = count == SIZE;
                    let bytes = buffer.get(..count).unwrap_or_default();
                    self.peer.websocket.lock().get_mut().feed(bytes);
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_timeout(&error) && !pinged => {
                    pinged = true;
                    self.peer.socket.set_read_timeout(Some(timeouts.pong)).map_err(gone)?;
                    self.peer
                        .websocket
                        .lock()
                        .send(Message::Ping(Vec::new().into()))
                        .map_err(|_| Ending::Gone)?;
                }
                Err(error) if is_timeout(&error) => return Err(Ending::Silent),
                Err(error) => return Err(gone(error)),
            }
        }
    }

    /// The next message from what was received, or `None` when all of it is read. tungstenite
    /// answers pings and closes on the way; pings and pongs are returned too, as they count.
    fn next_message(&self) -> Result<Option<Message>, Ending> {
        let mut websocket = self.peer.websocket.lock();
        loop {
            match websocket.read() {
                Ok(Message::Close(_)) => {} // The next `read` sends the answer.
                Ok(message) => return Ok(Some(message)),
                Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {
                    websocket.get_mut().busy = false;
                    return Ok(None);
                }
                Err(error) => return Err(ending_of(error)),
            }
        }
    }

    /// Does what a message asks for, or tells the client why not.
    fn handle(&mut self, message: &Message, over_rate: bool) -> Result<(), Ending> {
        // Clients send either kind; recipients always get text.
        let text = match message {
            Message::Text(text) => Ok(text.clone()),
            Message::Binary(bytes) => Utf8Bytes::try_from(bytes.clone()),
            _ => return Ok(()),
        };
        let refuse_unread = |fault| {
            self.refuse(&Envelope::default(), &fault);
            Ok(())
        };
        let text = match text {
            Ok(text) => text,
            Err(error) => return refuse_unread(Fault::InvalidJson(error.to_string())),
        };
        let envelope = match Envelope::parse(&text) {
            Ok(envelope) => envelope,
            Err(fault) => return refuse_unread(fault),
        };
        let signal = if over_rate { Err(Fault::RateLimited) } else { envelope.signal(&text) };
        let done = match signal {
            Ok(Signal::Login) => return self.login(&envelope, &text),
            Ok(signal) => self.relay(signal, &envelope, &text),
            Err(fault) => Err(fault),
        };
        if let Err(fault) = done {
            self.refuse(&envelope, &fault);
        }
        Ok(())
    }

    fn refuse(&self, envelope: &Envelope, fault: &Fault) {
        if matches!(fault, Fault::UserUnreachable(_)) {
            // Recipients who stalled together time out together, and so do those who send to them.
            self.shared.endings.wait();
        }
        debug!("{} refused: {}", self.address, fault.code());
        self.reply(envelope.refusal(fault));
    }

    /// Sends to this client itself. If that fails, the socket is of no use any more, and the next
    /// `receive` says so.
    fn reply(&self, text: String) {
        let sent = send_text(&mut self.peer.websocket.lock(), text.into());
        if sent.is_err() {
            self.peer.disconnect();
        }
    }

    /// Ends the connection of a user whose token the users file no longer has. Looks at most once in
    /// `timeouts.idle`, and at the latest when a silent client answers the next ping.
    fn check_user(&mut self) -> Result<(), Ending> {
        let Some(users) = &self.shared.users else {
            return Ok(());
        };
        if self.checked.elapsed() < self.shared.timeouts.idle {
            return Ok(());
        }
        self.checked = Instant::now();
        match &self.user {
            Some(user) if users.token_hash(&user.name) != user.token_hash => {
                Err(Ending::Broken(CloseCode::Policy, "unauthorized"))
            }
            _ => Ok(()),
        }
    }

    // ---- login ----

    fn login(&mut self, envelope: &Envelope, text: &str) -> Result<(), Ending> {
        let name = envelope.from_user();
        let outcome = self.log_in_as(name, text);
        match outcome {
            Ok(()) => info!("{} logged in as {name:?}", self.address),
            Err(refusal) => {
                let name = names::excerpt(name);
                info!("{} login as {name:?} refused: {}", self.address, refusal.reason());
            }
        }
        // Others find this name already, so an offer may come before this reply. The other way round
        // would be worse: whoever has heard of the login could still hear that there is no such user.
        let ice_servers = || Some(self.shared.turn.as_ref()?.ice_servers(name));
        self.reply(protocol::login_reply(text, outcome.map(|()| ice_servers())));
        match (outcome, &self.shared.users) {
            // Or the next one, which may be here already, would wait as well, and so for hours.
            (Err(LoginRefusal::Unauthorized), Some(users))
                if users.is_throttled(self.address.ip()) =>
            {
                Err(Ending::Broken(CloseCode::Policy, "too many wrong logins"))
            }
            _ => Ok(()),
        }
    }

    fn log_in_as(&mut self, name: &str, text: &str) -> Result<(), LoginRefusal> {
        if !names::is_valid_name(name) {
            return Err(LoginRefusal::InvalidName);
        }
        // Before anything about the name is told: a stranger is not to learn who is online.
        let token_hash = match &self.shared.users {
            None => None,
            Some(users) => {
                let admitted =
                    users.authenticate(self.address.ip(), name, &protocol::login_token(text));
                Some(admitted.ok_or(LoginRefusal::Unauthorized)?)
            }
        };
        if self.user.as_ref().is_some_and(|user| user.name == name) || !self.claim(name) {
            return Err(LoginRefusal::NameTaken);
        }
        let former = self.user.replace(User { name: name.into(), token_hash });
        self.say_goodbye(former);
        Ok(())
    }

    /// Takes `name` if it is free, or if the connection that holds it turns out to be dead. Waits for
    /// that one's lock, its sign of life, and its thread: each for `timeouts.probe` at most.
    fn claim(&self, name: &str) -> bool {
        let registry = &self.shared.registry;
        let Err(holder) = registry.claim(name, &self.peer) else {
            return true;
        };
        if self.probe(&holder) {
            return false;
        }
        info!("{} takes over {name:?} from a dead connection", self.address);
        // Its own thread frees the name, after it has told the partners of the dead connection:
        // they hear `leave` before they can hear anything from the new one.
        registry.wait_until_released(name, &holder, self.shared.timeouts.probe);
        registry.claim(name, &self.peer).is_ok()
    }

    /// Whether another connection is alive: pings it, and waits for any byte from it. If none comes,
    /// disconnects it. However many ask, it is pinged once in half of that time at most, since its
    /// pongs count for its own message rate.
    fn probe(&self, holder: &Peer) -> bool {
        let timeout = self.shared.timeouts.probe;
        // Whoever holds this lock for so long is sending, and finds out by itself.
        let Some(mut websocket) = holder.websocket.try_lock_for(timeout) else {
            return true;
        };
        let wire = websocket.get_mut();
        if wire.busy {
            // Perhaps it is probing us, for our own name: then each would find the other silent.
            return true;
        }
        let (now, bell) = (Instant::now(), wire.bell.clone());
        let (heard, ping) = match wire.probed {
            Some((time, heard)) if now - time < timeout / 2 => (heard, false),
            _ => (wire.heard, true),
        };
        if ping {
            wire.probed = Some((now, heard));
        }
        if !ping || websocket.send(Message::Ping(Vec::new().into())).is_ok() {
            let silent = |websocket: &mut WebSocket<Wire>| {
                websocket.get_ref().heard == heard && !websocket.get_ref().ended
            };
            bell.wait_while_for(&mut websocket, silent, timeout); // Without the lock meanwhile.
        }
        let wire = websocket.get_ref();
        if wire.heard == heard && !wire.ended {
            holder.disconnect();
        }
        wire.heard != heard && !wire.ended
    }

    // ---- relay ----

    fn relay(&self, signal: Signal, envelope: &Envelope, text: &Utf8Bytes) -> Result<(), Fault> {
        let Shared { registry, limits, timeouts, .. } = &*self.shared;
        let me = &self.user.as_ref().ok_or(Fault::NotLoggedIn)?.name;
        if envelope.from_user() != me {
            return Err(Fault::WrongSender(me.clone()));
        }
        let to = envelope.to_user();
        let not_found = || Fault::UserNotFound(to.into());
        // A new call is noted before the message: who ends right after it must find whom to tell.
        let (peer, is_new) = match signal {
            Signal::Leave => {
                registry.end_call(me, to);
                match registry.find(to) {
                    Some(peer) => (peer, false),
                    None => return Ok(()), // Hanging up twice is no error.
                }
            }
            // (Nobody is a partner of their own.)
            _ if signal.makes_partners() && me != to => {
                registry.start_call(me, to, limits.max_calls)?
            }
            _ => (registry.find(to).ok_or_else(not_found)?, false),
        };
        let sent = self.send_to(&peer, to, text.clone(), timeouts.write);
        match sent {
            Ok(()) => debug!("{signal} from {me:?} to {to:?}, {} bytes", text.len()),
            Err(_) if is_new => registry.withdraw_call(me, to),
            Err(_) => {}
        }
        sent
    }

    /// Sends to the user `name`. One who takes no data, or keeps others waiting, for longer than
    /// `patience` is disconnected.
    fn send_to(
        &self,
        peer: &Peer,
        name: &str,
        text: Utf8Bytes,
        patience: Duration,
    ) -> Result<(), Fault> {
        let problem = match peer.websocket.try_lock_for(patience) {
            None => "it takes too little data for all who send to it".into(),
            // It has left off since it was looked up.
            Some(recipient) if recipient.get_ref().ended => {
                return Err(Fault::UserNotFound(name.into()));
            }
            Some(mut recipient) => {
                // If these fail, the socket is gone, and sending says so.
                let _ = recipient.get_mut().set_patience(patience);
                let sent = send_text(&mut recipient, text);
                let _ = recipient.get_mut().set_patience(self.shared.timeouts.write);
                match sent {
                    Ok(()) => return Ok(()),
                    Err(error) => error.to_string(),
                }
            }
        };
        info!("cannot send to {name:?}, disconnecting: {problem}");
        peer.disconnect();
        Err(Fault::UserUnreachable(name.into()))
    }

    /// Tells a user's partners that the user is gone, and frees the name. Those in a call with this
    /// user come first; who merely rang, and takes no data, does not hold it up.
    fn say_goodbye(&self, user: Option<User>) {
        let Some(User { name, .. }) = user else {
            return;
        };
        let Shared { registry, timeouts, .. } = &*self.shared;
        let Partners { called, callers } = registry.retire(&name);
        let called = called.iter().map(|partner| (partner, timeouts.write));
        let callers = callers.iter().map(|partner| (partner, timeouts.goodbye));
        for (partner, patience) in called.chain(callers) {
            // Not if the two have parted meanwhile, or the partner goes as well.
            if let Some(peer) = registry.end_call(&name, partner) {
                let goodbye = protocol::goodbye(&name, partner).into();
                match self.send_to(&peer, partner, goodbye, patience) {
                    Ok(()) => debug!("leave from {name:?} to {partner:?}, on its end"),
                    Err(fault) => debug!("leave to {partner:?} not delivered: {}", fault.code()),
                }
            }
        }
        registry.release(&name, &self.peer);
    }
}

/// Whatever ended the client: the name is free, the partners know, and the socket is closed.
impl Drop for Client {
    fn drop(&mut self) {
        if matches!(self.ending, Ending::Panicked) {
            error!("{} disconnected: {}", self.address, self.ending);
        }
        if !matches!(self.ending, Ending::Stopping) {
            self.shared.endings.wait();
        }
        {
            let mut websocket = self.peer.websocket.lock();
            let wire = websocket.get_mut();
            (wire.busy, wire.ended) = (false, true);
            wire.bell.notify_all(); // Whoever waits for a sign of life: there will be none.
        }
        let user = self.user.take();
        // A stopping server tells everybody so; calls can go on without it.
        if !matches!(self.ending, Ending::Stopping) {
            self.say_goodbye(user);
        }
        let frame = match self.ending {
            Ending::Gone | Ending::Panicked | Ending::Silent => {
                return self.peer.disconnect();
            }
            Ending::Closed => None, // It has been sent.
            Ending::Broken(code, reason) => Some(CloseFrame { code, reason: reason.into() }),
            Ending::Stopping => {
                let reason = "server is stopping".into();
                Some(CloseFrame { code: CloseCode::Away, reason })
            }
        };
        {
            let mut websocket = self.peer.websocket.lock();
            if frame.is_some() {
                // If it can't be sent, there is nobody to miss it.
                let _ = websocket.close(frame);
            }
            websocket.get_mut().say_no_more();
        }
        wire::linger(&self.peer.socket, self.shared.timeouts.linger);
    }
}

/// Sends a text message. (`WebSocket::send` would do the same, and keep a buffer as long as the
/// longest message that the client ever got.)
fn send_text(websocket: &mut WebSocket<Wire>, text: Utf8Bytes) -> Result<(), Error> {
    if !websocket.can_write() {
        return Err(ProtocolError::SendAfterClosing.into());
    }
    let frame = Frame::message(text, OpCode::Data(Data::Text), true);
    let mut bytes = Vec::with_capacity(frame.len());
    frame.format(&mut bytes)?;
    websocket.get_mut().write_all(&bytes)?;
    Ok(websocket.get_mut().flush()?)
}

fn gone(_: std::io::Error) -> Ending {
    Ending::Gone
}

/// What tungstenite's error means for the connection (close codes: RFC 6455, section 7.4.1).
fn ending_of(error: Error) -> Ending {
    match error {
        Error::ConnectionClosed | Error::AlreadyClosed => Ending::Closed,
        Error::Capacity(_) => Ending::Broken(CloseCode::Size, "message too big"),
        Error::Utf8(_) => Ending::Broken(CloseCode::Invalid, "text is not UTF-8"),
        // TLS has said goodbye and the WebSocket has not.
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Ending::Gone,
        Error::Protocol(_) => Ending::Broken(CloseCode::Protocol, "not RFC 6455"),
        _ => Ending::Gone,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn shared() -> Arc<Shared> {
        let limits = Limits::default();
        let site = Site {
            settings: crate::web::page::settings("[]", None, false, &[]),
            allow_origin: vec![],
            trust_proxy: vec![],
        };
        Arc::new(Shared {
            registry: Registry::default(),
            slots: Slots::new(limits),
            limits,
            floods: Gate::new(crate::limits::FLOOD_PAUSE),
            endings: Gate::new(Duration::ZERO),
            timeouts: Timeouts::default(),
            site,
            users: None,
            turn: None,
            stopping: AtomicBool::new(false),
        })
    }

    /// A client as it is after the handshakes, and the other end of its socket.
    fn client(shared: &Arc<Shared>) -> (Client, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let other_end = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, address) = listener.accept().unwrap();
        let socket = Arc::new(socket);
        let mut wire = Wire::accept(socket.clone(), None, &shared.timeouts).unwrap();
        wire.end_handshake(&shared.timeouts).unwrap();
        let websocket = WebSocket::from_raw_socket(wire, Role::Server, None);
        let slot = shared.slots.take(socket.clone()).unwrap();
        let peer = Peer { websocket: Arc::new(Mutex::new(websocket)), socket };
        (Client::new(shared, peer, address, slot), other_end)
    }

    fn handle(client: &mut Client, text: &str) {
        let _ = client.handle(&Message::text(text), false);
    }

    #[test]
    fn a_panic_frees_the_name_and_tells_the_partner_and_ends_nobody_else() {
        let shared = shared();
        let (mut bob, mut bobs_end) = client(&shared);
        handle(&mut bob, r#"{"signalType":"login","fromUser":"bob"}"#);
        thread::scope(|scope| {
            let panicked = scope.spawn(|| {
                let (mut alice, _alices_end) = client(&shared);
                handle(&mut alice, r#"{"signalType":"login","fromUser":"alice"}"#);
                handle(&mut alice, r#"{"signalType":"offer","fromUser":"alice","toUser":"bob"}"#);
                // As in the worst place for it: with her own lock held.
                let _held = alice.peer.websocket.lock();
                panic!("on purpose");
            });
            assert!(panicked.join().is_err());
        });
        assert!(shared.registry.find("alice").is_none());
        assert!(shared.registry.find("bob").is_some());

        bob.peer.disconnect(); // so that there is an end to read to
        let mut heard = Vec::new();
        bobs_end.read_to_end(&mut heard).unwrap();
        let leave = protocol::goodbye("alice", "bob");
        assert!(heard.ends_with(leave.as_bytes()), "{}", String::from_utf8_lossy(&heard));
    }
}
