//! Logging in: who may have a name, and what happens to the connection that had it before.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use log::info;
use tungstenite::protocol::frame::coding::CloseCode;

use super::{Client, DisconnectReason, Shared};
use crate::names::{excerpt, is_valid_name};
use crate::operator::users::TokenHash;
use crate::signaling::peer::SendError;
use crate::signaling::protocol::{self, Envelope, LoginRefusal};
use crate::signaling::registry::Registration;

/// A user who is logged in. Dropping this tells the user's partners, and then frees the name.
pub(super) struct Session {
    shared: Arc<Shared>,
    registration: Registration,
    /// The hash of the user's token in the users file; `None` if the server has no such file.
    pub(super) token_hash: Option<TokenHash>,
}

impl Session {
    pub(super) fn name(&self) -> &str {
        &self.registration.name
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // The registration is a field, so a panic below frees the name all the same.
        let partners = self.registration.begin_unregister();
        if self.shared.stopping.load(Ordering::Relaxed) {
            return; // Every user gets a close frame, and calls go on without the server.
        }
        for partner in partners.keys() {
            // `None` if the two have ended their call meanwhile, or the partner is leaving, too.
            if let Some(peer) = self.shared.registry.end_call(self.name(), partner) {
                let leave = protocol::leave_message(self.name(), partner);
                let bound = self.shared.limits.write_buffer_with_leaves();
                // A partner who is disconnecting needs no message. A partner whose write buffer is
                // full is disconnected, because its call would never end without this `leave`.
                if peer.send(leave.into(), bound) == Err(SendError::Full) {
                    info!("disconnecting {partner:?}: no room for the leave of {:?}", self.name());
                    peer.socket.disconnect();
                }
            }
        }
    }
}

impl Client {
    pub(super) fn login(
        &mut self,
        envelope: &Envelope,
        text: &str,
    ) -> Result<(), DisconnectReason> {
        let name = envelope.from_user();
        let outcome = self.log_in_as(name, &protocol::login_token(text));
        match outcome {
            Ok(()) => info!("{} logged in as {name:?}", self.address),
            Err(refusal) => {
                let name = excerpt(name);
                info!("{} login as {name:?} refused: {}", self.address, refusal.reason());
            }
        }
        // The name is already registered, so an offer may arrive before this reply. If the reply
        // were sent before the registration, a user whom this client then invites could get
        // `user-not-found`.
        let ice_servers = || Some(self.shared.turn.as_ref()?.ice_servers(name));
        self.reply(protocol::login_reply(text, outcome.map(|()| ice_servers())));
        match (outcome, &self.shared.users) {
            // After a failed login, a throttled client is disconnected. Otherwise a queue of wrong
            // logins, each delayed, could occupy this thread for hours.
            (Err(LoginRefusal::Unauthorized), Some(users))
                if users.is_throttled(self.address.ip()) =>
            {
                let reason = "too many failed logins";
                Err(DisconnectReason::ClosedByServer(CloseCode::Policy, reason))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn log_in_as(&mut self, name: &str, token: &str) -> Result<(), LoginRefusal> {
        if !is_valid_name(name) {
            return Err(LoginRefusal::InvalidName);
        }
        // The token is checked before the name is looked up, so that a client without a valid token
        // cannot learn who is online.
        let token_hash = match &self.shared.users {
            None => None,
            Some(users) => {
                let known = users.authenticate(self.address.ip(), name, token);
                Some(known.ok_or(LoginRefusal::Unauthorized)?)
            }
        };
        if self.session.as_ref().is_some_and(|session| session.name() == name) {
            return Err(LoginRefusal::NameTaken);
        }
        let registration = self.take_name(name).ok_or(LoginRefusal::NameTaken)?;
        self.permit.set_logged_in();
        let shared = self.shared.clone();
        // Dropping the former session frees the former name.
        self.session = Some(Session { shared, registration, token_hash });
        Ok(())
    }

    /// Takes `name` if it is free, or if the connection that holds it is closing or dead.
    fn take_name(&self, name: &str) -> Option<Registration> {
        let (registry, timeouts) = (self.registry(), &self.shared.timeouts);
        let deadline = Instant::now() + timeouts.probe;
        let mut holder = match registry.register(name, &self.peer) {
            Ok(registration) => return Some(registration),
            Err(holder) => holder,
        };
        self.disconnect_own(&holder);
        loop {
            self.peer.with(|websocket| websocket.get_mut().probing = Some(Instant::now()));
            let is_alive = holder.probe(timeouts.probe);
            self.peer.with(|websocket| websocket.get_mut().probing = None);
            if !is_alive {
                info!("{} takes over {name:?} from a closed connection", self.address);
                // Waits until the holder's thread has told its partners, so that they get its
                // `leave` before any message from the new login.
                registry.wait_until_unregistered(name, &holder, timeouts.probe);
            }
            match registry.register(name, &self.peer) {
                // Another login took the name first, and may be dead as well: a page reloaded twice.
                Err(next) if !next.is(&holder) && Instant::now() < deadline => holder = next,
                result => return result.ok(), // Can succeed: a live holder may have changed its name.
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signaling::client::tests::{connected, shared};
    use std::io::Read;
    use std::net::TcpStream;
    use std::thread;
    use std::time::Duration;

    #[test]
    fn a_name_is_taken_over_from_a_quicker_login_that_is_dead_too() {
        let mut shared = shared();
        Arc::get_mut(&mut shared).unwrap().timeouts.probe = Duration::from_secs(60);
        let [first, second, third] = [(); 3].map(|()| connected(&shared));
        let register = |(client, _): &(Client, TcpStream)| {
            client.peer.with(|websocket| websocket.get_mut().processed());
            shared.registry.register("alice", &client.peer).ok().unwrap()
        };
        let wait_for_probe = |(_, end): &(Client, TcpStream)| {
            let mut end = end;
            end.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            end.read_exact(&mut [0; 10]).expect("a ping with a number of 8 bytes");
        };
        let close = |(client, _): &(Client, TcpStream)| {
            client.peer.with(|websocket| websocket.get_mut().closed = true);
        };
        let former = register(&first);
        thread::scope(|scope| {
            let taken = scope.spawn(|| third.0.take_name("alice"));
            wait_for_probe(&first);
            drop(former);
            let quicker = register(&second);
            close(&first);
            wait_for_probe(&second);
            close(&second);
            drop(quicker);
            assert!(taken.join().unwrap().is_some());
        });
    }
}
