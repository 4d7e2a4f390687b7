//! PeerJS clients. They log in with their URL. Messages for an absent recipient are held for a few
//! seconds, because apps connect to each other while their pages are still loading.
//!
//! The sender's thread holds these messages, and drops them when it ends. Other clients are not told
//! when a client disconnects: PeerJS would end calls that can go on.

use std::collections::{BTreeMap, VecDeque};
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Instant;

use log::{debug, info};
use sha2::{Digest, Sha256};
use tungstenite::Message::Text;
use tungstenite::Utf8Bytes;
use tungstenite::protocol::frame::coding::CloseCode;

use super::{Client, DisconnectReason, Shared};
use crate::limits::{HELD_POLL, MAX_HELD, MAX_HELD_BYTES};
use crate::operator::users::TokenHash;
use crate::peerjs::{self, Login, Message};
use crate::signaling::peer::{Peer, SendError};
use crate::signaling::protocol::LoginRefusal;
use crate::signaling::registry::Registry;
use crate::signaling::transport::is_timeout;

/// What a client has in addition if it speaks PeerJS.
pub struct State {
    /// The query of its URL, until it has logged in.
    query: Option<String>,
    /// The client's messages for recipients that are offline or read too slowly.
    held: BTreeMap<String, Held>,
}

/// The messages for one recipient. They are delivered in order, or expire together.
struct Held {
    until: Instant,
    messages: VecDeque<Utf8Bytes>,
    /// Whether the sender is told if they expire.
    can_expire: bool,
    /// The hash of the recipient's token, known once the recipient was online. The messages must
    /// not go to a later holder of the id with another token.
    token: Option<TokenHash>,
}

impl State {
    /// Whether the messages `more`, for `dst`, fit into the bounds beside those already held.
    fn has_room(&self, dst: &str, more: &Held) -> bool {
        let (mut count, mut bytes) = (0, 0);
        for (dst, held) in self.held.iter().map(|(dst, held)| (&**dst, held)).chain([(dst, more)]) {
            count += held.messages.len();
            bytes += held.messages.iter().map(|text| dst.len() + text.len()).sum::<usize>();
        }
        count <= MAX_HELD && bytes <= MAX_HELD_BYTES
    }
}

impl Held {
    /// Whether `peer`, which has the recipient's id, may get these messages.
    fn is_for(&self, peer: &Peer) -> bool {
        self.token.is_none() || self.token == peer.token
    }

    /// Sends the messages to `peer`, until one cannot be sent.
    fn deliver(&mut self, peer: &Peer, bound: usize) {
        while let Some(text) = self.messages.front().filter(|_| self.is_for(peer)) {
            let sent = peer.send(text.clone(), bound);
            if sent != Err(SendError::Closed) {
                self.token = peer.token;
            }
            if sent.is_err() {
                return;
            }
            self.messages.pop_front();
        }
    }
}

impl Client {
    /// Makes this a PeerJS client if it has the `query` of a PeerJS URL.
    pub fn with_peerjs(mut self, query: Option<String>) -> Client {
        self.peer.with(|websocket| websocket.get_mut().unopened = query.is_some());
        self.peerjs = query.map(|query| State { query: Some(query), held: BTreeMap::new() });
        self
    }

    /// Who is online among the clients that this one can reach.
    pub(super) fn registry(&self) -> &Arc<Registry> {
        match self.peerjs {
            Some(_) => &self.shared.peerjs_registry,
            None => &self.shared.registry,
        }
    }

    /// Logs a PeerJS client in, once; other clients send a message for that.
    pub(super) fn login_peerjs(&mut self) -> Result<(), DisconnectReason> {
        let query = self.peerjs.as_mut().and_then(|peerjs| peerjs.query.take());
        let (Some(query), Some(key)) = (query, &self.shared.site.peerjs) else {
            return Ok(());
        };
        let refusal = match Login::parse(&query, key) {
            Err(refusal) => refusal,
            Ok(Login { id, token }) => {
                self.peer.token = Some(Sha256::digest(&token).into());
                match self.log_in_as(&id, &token) {
                    Ok(()) => {
                        info!("{} logged in as {id:?} (PeerJS)", self.address);
                        // From now on, other clients can send to it.
                        self.say_first(peerjs::OPEN);
                        return Ok(());
                    }
                    Err(LoginRefusal::InvalidName) => peerjs::INCOMPLETE,
                    Err(LoginRefusal::Unauthorized) => peerjs::WRONG_TOKEN,
                    Err(LoginRefusal::NameTaken) => peerjs::ID_TAKEN,
                }
            }
        };
        info!("{} PeerJS login refused: {refusal}", self.address);
        self.say_first(refusal);
        Err(DisconnectReason::ClosedByServer(CloseCode::Policy, "not logged in"))
    }

    /// Disconnects the holder of a wanted name if it has this client's token: it is the same page,
    /// which was reloaded or lost its network. The probe that follows then finds the holder dead.
    pub(super) fn disconnect_own(&self, holder: &Peer) {
        if self.peer.token.is_some() && self.peer.token == holder.token {
            holder.socket.disconnect();
        }
    }

    fn say_first(&self, text: &'static str) {
        self.peer.with(|websocket| {
            websocket.get_mut().unopened = false;
            let _ = websocket.send(Text(text.into())); // An error: the next `receive` returns.
        });
    }

    /// Relays a message. Any other text is ignored, because PeerJS has no error message for it.
    pub(super) fn relay_peerjs(&mut self, text: &str) -> Result<(), DisconnectReason> {
        let (Some(peerjs), Some(session)) = (&mut self.peerjs, &self.session) else {
            return Ok(());
        };
        let Some(message) = Message::parse(text, session.name()) else {
            return Ok(());
        };
        let (dst, can_expire) = (&*message.dst, message.can_expire());
        let Shared { peerjs_registry, limits, timeouts, .. } = &*self.shared;
        let until = Instant::now() + timeouts.hold;
        let new = Held { until, messages: VecDeque::new(), can_expire, token: None };
        // Every message is queued behind the held ones, so that it cannot overtake them.
        let recipient = peerjs_registry.find(dst);
        let is_for = |held: &Held| recipient.as_ref().is_none_or(|peer| held.is_for(peer));
        let mut held = match peerjs.held.remove(dst) {
            Some(former) if is_for(&former) => former,
            Some(former) if former.can_expire => {
                expire(&self.peer, session.name(), dst, limits.write_buffer());
                new
            }
            _ => new,
        };
        held.can_expire |= can_expire;
        held.messages.push_back(message.to_json().into());
        if let Some(peer) = &recipient {
            held.deliver(peer, limits.write_buffer());
        }
        debug!("PeerJS message from {:?} to {dst:?}, {} bytes", session.name(), text.len());
        if !peerjs.has_room(dst, &held) {
            if can_expire {
                expire(&self.peer, session.name(), dst, limits.write_buffer());
                return Ok(());
            }
            held.messages.pop_back();
        }
        if !held.messages.is_empty() {
            peerjs.held.insert(dst.into(), held);
        }
        Ok(())
    }

    /// While messages are held, waits for bytes from the client instead of
    /// [`receive`](Client::receive), and checks every [`HELD_POLL`] whether a recipient is online.
    pub(super) fn wait_for_recipients(&mut self) {
        if !self.holds_messages() {
            return;
        }
        let socket = self.peer.socket.clone();
        let _ = socket.stream.set_read_timeout(Some(HELD_POLL)); // An error: `peek` fails, too.
        loop {
            match socket.stream.peek(&mut [0]) {
                Err(error) if is_timeout(&error) || error.kind() == ErrorKind::Interrupted => {}
                _ => break, // The next `recv` returns these bytes or this error.
            }
            if !self.holds_messages() {
                break;
            }
        }
        let _ = socket.stream.set_read_timeout(Some(self.shared.timeouts.idle));
    }

    /// Delivers or expires held messages. Returns whether any are still held.
    fn holds_messages(&mut self) -> bool {
        let (Some(peerjs), Some(session)) = (&mut self.peerjs, &self.session) else {
            return false;
        };
        let Shared { peerjs_registry, limits, .. } = &*self.shared;
        let now = Instant::now();
        peerjs.held.retain(|dst, held| {
            if let Some(peer) = peerjs_registry.find(dst) {
                held.deliver(&peer, limits.write_buffer());
            }
            if held.messages.is_empty() {
                return false;
            }
            let is_over = held.until <= now;
            if is_over && held.can_expire {
                expire(&self.peer, session.name(), dst, limits.write_buffer());
            }
            !is_over
        });
        !peerjs.held.is_empty()
    }
}

/// Tells `src` that its messages to `dst` could not be delivered.
fn expire(peer: &Peer, src: &str, dst: &str, bound: usize) {
    debug!("PeerJS messages from {src:?} to {dst:?} expired");
    // An error means that this client is leaving, or reads nothing.
    let _ = peer.send(Message::expire(src, dst).to_json().into(), bound);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signaling::client::tests::{connected, shared};
    use std::io::Read;
    use std::net::TcpStream;

    fn peer(shared: &Arc<Shared>, id: &str) -> (Client, TcpStream) {
        let (client, end) = connected(shared);
        let mut client = client.with_peerjs(Some(format!("key=peerjs&id={id}&token={id}")));
        client.login_peerjs().unwrap();
        (client, end)
    }

    /// All that the client has been sent.
    fn sent((client, mut end): (Client, TcpStream)) -> String {
        client.peer.socket.disconnect(); // so that `read_to_end` returns
        let mut bytes = Vec::new();
        end.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into()
    }

    #[test]
    fn nothing_is_sent_to_a_client_before_it_has_its_id() {
        let mut shared = shared();
        Arc::get_mut(&mut shared).unwrap().site.peerjs = Some("peerjs".into());
        let (client, end) = connected(&shared);
        let mut client = client.with_peerjs(Some("key=peerjs&id=bob&token=t".into()));
        assert_eq!(client.peer.send("early".into(), usize::MAX), Err(SendError::Closed));
        client.login_peerjs().unwrap();
        client.peer.send("late".into(), usize::MAX).unwrap();
        let sent = sent((client, end));
        assert!(sent.contains(peerjs::OPEN) && sent.ends_with("late"), "{sent}");
    }

    #[test]
    fn what_is_held_is_bounded_by_its_number_and_its_bytes_with_the_recipients() {
        let held = |count, length: usize| Held {
            until: Instant::now(),
            messages: vec![Utf8Bytes::from("x".repeat(length)); count].into(),
            can_expire: true,
            token: None,
        };
        let with_one =
            |length| State { query: None, held: [("bob".to_string(), held(1, length))].into() };
        assert!(with_one(0).has_room("anna", &held(MAX_HELD - 1, 0)));
        assert!(!with_one(0).has_room("anna", &held(MAX_HELD, 0)));
        let rest = MAX_HELD_BYTES - "bob".len() - "anna".len();
        assert!(with_one(1000).has_room("anna", &held(1, rest - 1000)));
        assert!(!with_one(1001).has_room("anna", &held(1, rest - 1000)));
    }

    #[test]
    fn what_waited_for_a_former_holder_of_an_id_expires_and_goes_to_nobody() {
        let mut shared = shared();
        Arc::get_mut(&mut shared).unwrap().site.peerjs = Some("peerjs".into());
        let [mut alice, bob] = ["alice", "bob"].map(|id| peer(&shared, id));
        let former = Held {
            until: Instant::now() + shared.timeouts.hold,
            messages: [Utf8Bytes::from("former")].into(),
            can_expire: true,
            token: Some([0; 32]), // not this Bob's
        };
        alice.0.peerjs.as_mut().unwrap().held.insert("bob".into(), former);
        alice.0.relay_peerjs(r#"{"type":"CANDIDATE","dst":"bob","payload":"new"}"#).unwrap();
        assert!(!alice.0.holds_messages());
        let (alice, bob) = (sent(alice), sent(bob));
        assert!(alice.contains(r#"{"type":"EXPIRE","src":"bob","dst":"alice"}"#), "{alice}");
        assert!(bob.contains(r#""payload":"new""#) && !bob.contains("former"), "{bob}");
    }
}
