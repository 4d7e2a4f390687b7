//! Who is online, and who is in a call with whom: the map from a user's name to that user's
//! connection and partners.
//!
//! The only file that locks the map, and it does nothing else while it holds that lock: no I/O, and
//! no other lock. Whoever needs a connection gets a clone of its `Arc`.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tungstenite::WebSocket;

use crate::protocol::Fault;
use crate::wire::Wire;

/// A client's connection, shared by its own thread and by every thread that sends to it.
#[derive(Clone)]
pub struct Peer {
    /// To send to the client, or to read what it sent.
    pub websocket: Arc<Mutex<WebSocket<Wire>>>,
    /// To wait for the client, or to disconnect it, when the lock can't be had.
    pub socket: Arc<TcpStream>,
}

impl Peer {
    /// Whether both are the same connection.
    fn is(&self, other: &Peer) -> bool {
        Arc::ptr_eq(&self.websocket, &other.websocket)
    }

    /// Disconnects the client: every read and write on its socket ends, and its own thread, which
    /// wakes up from that, cleans up. Needs no lock.
    pub fn disconnect(&self) {
        // An error means that it is disconnected already.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

/// The users who are online.
#[derive(Default)]
pub struct Registry {
    users: Mutex<Users>,
    released: Condvar,
}

type Users = HashMap<String, User>;

struct User {
    peer: Peer,
    /// `None` once the user goes. The name stays taken until all the partners know.
    partners: Option<Partners>,
}

/// Everyone that a user is in a call with, by name. Two partners always list each other, each in one
/// of the two sets.
#[derive(Default)]
pub struct Partners {
    /// Whom this user has called, or answered. How many there can be is limited.
    pub called: BTreeSet<String>,
    /// Who has called this user, without an answer so far. It is the callers who are limited, so
    /// that nobody can use up somebody else's calls.
    pub callers: BTreeSet<String>,
}

impl Registry {
    /// Gives `name` to `peer`.
    ///
    /// # Errors
    /// The connection that holds the name, if one does.
    pub fn claim(&self, name: &str, peer: &Peer) -> Result<(), Peer> {
        match self.users.lock().entry(name.to_owned()) {
            Entry::Occupied(holder) => Err(holder.get().peer.clone()),
            Entry::Vacant(free) => {
                free.insert(User { peer: peer.clone(), partners: Some(Partners::default()) });
                Ok(())
            }
        }
    }

    /// The connection of the user `name`, unless that user is about to go.
    pub fn find(&self, name: &str) -> Option<Peer> {
        let users = self.users.lock();
        users.get(name).filter(|user| user.partners.is_some()).map(|user| user.peer.clone())
    }

    /// Makes two different users partners, since `from` calls or answers `to`. Returns the connection
    /// of `to`, and whether `from` had neither called nor answered before.
    ///
    /// # Errors
    /// `from` has `max_calls` already, or one of the two is about to go.
    pub fn start_call(
        &self,
        from: &str,
        to: &str,
        max_calls: usize,
    ) -> Result<(Peer, bool), Fault> {
        let mut users = self.users.lock();
        let [Some(User { partners: Some(mine), .. }), Some(User { partners: Some(theirs), peer })] =
            users.get_disjoint_mut([from, to])
        else {
            return Err(Fault::UserNotFound(to.into()));
        };
        if mine.called.contains(to) {
            return Ok((peer.clone(), false));
        }
        if mine.called.len() >= max_calls {
            return Err(Fault::RateLimited);
        }
        mine.callers.remove(to);
        mine.called.insert(to.into());
        if !theirs.called.contains(from) {
            theirs.callers.insert(from.into());
        }
        Ok((peer.clone(), true))
    }

    /// Takes back what [`Registry::start_call`] has just noted, and no more: if `to` had called before,
    /// then `from` is still to hear how that ends.
    pub fn withdraw_call(&self, from: &str, to: &str) {
        let mut users = self.users.lock();
        let both = users.get_disjoint_mut([from, to]).map(|user| user?.partners.as_mut());
        let [Some(mine), theirs] = both else {
            return;
        };
        if mine.called.remove(to) {
            match theirs {
                Some(theirs) if !theirs.called.contains(from) => drop(theirs.callers.remove(from)),
                // Or `to` is about to go, and has a list of whom to tell, with `from` on it.
                _ => drop(mine.callers.insert(to.into())),
            }
        }
    }

    /// Parts two users. Returns the connection of `other`, if that one listed `name` until now.
    pub fn end_call(&self, name: &str, other: &str) -> Option<Peer> {
        let mut users = self.users.lock();
        let mut forget = |name: &str, other| {
            let user = users.get_mut(name)?;
            let partners = user.partners.as_mut()?;
            let listed = partners.called.remove(other) || partners.callers.remove(other);
            listed.then(|| user.peer.clone())
        };
        forget(name, other);
        forget(other, name)
    }

    /// The beginning of a user's end: nobody finds `name` any more, and nobody can have it until it
    /// is [released](Registry::release). Returns whom to tell.
    pub fn retire(&self, name: &str) -> Partners {
        let mut users = self.users.lock();
        users.get_mut(name).and_then(|user| user.partners.take()).unwrap_or_default()
    }

    /// Frees `name`, if it is `peer` that holds it.
    pub fn release(&self, name: &str, peer: &Peer) {
        let mut users = self.users.lock();
        if holds(&users, name, peer) {
            users.remove(name);
            self.released.notify_all();
        }
    }

    /// Waits until `peer` no longer holds `name`, for at most `timeout`.
    pub fn wait_until_released(&self, name: &str, peer: &Peer, timeout: Duration) {
        let held = |users: &mut Users| holds(users, name, peer);
        self.released.wait_while_for(&mut self.users.lock(), held, timeout);
    }
}

fn holds(users: &Users, name: &str, peer: &Peer) -> bool {
    users.get(name).is_some_and(|user| user.peer.is(peer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Timeouts;
    use std::net::TcpListener;
    use tungstenite::protocol::Role;

    fn peer() -> Peer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let socket = Arc::new(TcpStream::connect(address).unwrap());
        let wire = Wire::accept(socket.clone(), None, &Timeouts::default()).unwrap();
        let websocket = WebSocket::from_raw_socket(wire, Role::Server, None);
        Peer { websocket: Arc::new(Mutex::new(websocket)), socket }
    }

    fn online(names: &[&str]) -> Registry {
        let (registry, peer) = (Registry::default(), peer());
        for name in names {
            assert!(registry.claim(name, &peer).is_ok());
        }
        registry
    }

    #[test]
    fn a_name_is_its_holders_until_that_one_releases_it() {
        let (registry, alice, other) = (Registry::default(), peer(), peer());
        assert!(registry.claim("alice", &alice).is_ok());
        assert!(registry.claim("alice", &other).is_err_and(|holder| holder.is(&alice)));
        registry.release("alice", &other);
        assert!(registry.find("alice").unwrap().is(&alice));
        // Nobody waits for one who does not hold it.
        registry.wait_until_released("alice", &other, Duration::from_secs(3600));
        registry.release("alice", &alice);
        registry.wait_until_released("alice", &alice, Duration::from_secs(3600));
        assert!(registry.claim("alice", &other).is_ok());
        assert!(registry.find("alice").unwrap().is(&other));
    }

    #[test]
    fn being_called_does_not_use_up_ones_own_calls() {
        let registry = online(&["alice", "bob", "carol"]);
        let call = |from, to| registry.start_call(from, to, 1).map(|(_, is_new)| is_new);
        assert_eq!(call("bob", "alice"), Ok(true));
        assert_eq!(call("carol", "alice"), Ok(true));
        // Two ring, and she can answer one of them, however often.
        assert_eq!(call("alice", "bob"), Ok(true));
        assert_eq!(call("alice", "bob"), Ok(false));
        assert_eq!(call("alice", "carol"), Err(Fault::RateLimited));
        assert_eq!(call("bob", "carol"), Err(Fault::RateLimited));
        assert!(registry.end_call("alice", "bob").is_some());
        assert_eq!(call("alice", "nobody"), Err(Fault::UserNotFound("nobody".into())));
        assert_eq!(call("alice", "carol"), Ok(true));
    }

    #[test]
    fn a_call_ends_for_both() {
        let registry = online(&["alice", "bob"]);
        let ends = |name, other| registry.end_call(name, other).is_some();
        for (caller, callee) in [("alice", "bob"), ("bob", "alice")] {
            for (name, other) in [("alice", "bob"), ("bob", "alice")] {
                assert!(!ends(name, other));
                registry.start_call(caller, callee, 9).unwrap();
                assert!(ends(name, other));
                assert!(!ends(name, other) && !ends(other, name));
            }
        }
        let Partners { called, callers } = registry.retire("alice");
        assert!(called.is_empty() && callers.is_empty());
    }

    #[test]
    fn what_is_withdrawn_is_only_the_last_step() {
        let registry = online(&["alice", "bob"]);
        registry.start_call("alice", "bob", 9).unwrap();
        registry.withdraw_call("alice", "bob");
        assert!(registry.end_call("alice", "bob").is_none());
        assert!(registry.end_call("bob", "alice").is_none());
        // Bob calls, and alice's answer does not reach him: she is to hear how his call ends,
        registry.start_call("bob", "alice", 9).unwrap();
        registry.start_call("alice", "bob", 9).unwrap();
        registry.withdraw_call("alice", "bob");
        // also when he has begun to go meanwhile,
        registry.start_call("alice", "bob", 9).unwrap();
        let Partners { called, .. } = registry.retire("bob");
        registry.withdraw_call("alice", "bob");
        assert!(called.contains("alice"));
        assert!(registry.end_call("bob", "alice").is_some());
        // and once.
        registry.withdraw_call("alice", "bob");
        assert!(registry.end_call("bob", "alice").is_none());
    }

    #[test]
    fn who_retires_is_gone_for_others_and_keeps_the_name_until_its_release() {
        let registry = online(&["alice", "bob", "carol"]);
        let alice = registry.find("alice").unwrap();
        registry.start_call("alice", "bob", 9).unwrap();
        registry.start_call("carol", "alice", 9).unwrap();
        let Partners { called, callers } = registry.retire("alice");
        assert!(called.iter().eq(["bob"]) && callers.iter().eq(["carol"]));
        assert!(registry.find("alice").is_none());
        assert!(registry.start_call("bob", "alice", 9).is_err());
        assert!(registry.claim("alice", &alice).is_err());
        // Bob is told, and Carol has hung up meanwhile.
        assert!(registry.end_call("carol", "alice").is_none());
        assert!(registry.end_call("alice", "bob").is_some());
        assert!(registry.end_call("alice", "carol").is_none());
        registry.release("alice", &alice);
        assert!(registry.claim("alice", &alice).is_ok());
        assert!(registry.find("alice").is_some());
    }
}
