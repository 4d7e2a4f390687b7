//! Who is online, and who is in a call with whom: the map from a user's name to that user's
//! connection and partners.
//!
//! This is the only file that locks the map. It does nothing else while it holds that lock: no I/O,
//! and no other lock.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::signaling::peer::Peer;
use crate::signaling::protocol::Fault;

/// The users who are online.
#[derive(Default)]
pub struct Registry {
    users: Mutex<Users>,
    unregistered: Condvar,
}

type Users = HashMap<String, RegisteredUser>;

struct RegisteredUser {
    peer: Peer,
    /// `None` once the user is leaving. The name stays taken until all partners have been told.
    partners: Option<Partners>,
}

/// Everyone that a user is in a call with. Two partners always list each other.
pub type Partners = BTreeMap<String, Direction>;

/// Who started a call, as one of its two users sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// This user has called or answered. The number of these is limited.
    Outgoing,
    /// The partner has called, and this user has not answered. These are limited on the partner's
    /// side, so that nobody can use up somebody else's calls.
    Incoming,
}

/// A name that is taken. Dropping this frees it.
pub struct Registration {
    registry: Arc<Registry>,
    /// The name.
    pub name: String,
}

impl Registry {
    /// Gives `name` to `peer`.
    ///
    /// # Errors
    /// The name is taken, by the connection returned.
    pub fn register(self: &Arc<Self>, name: &str, peer: &Peer) -> Result<Registration, Peer> {
        match self.users.lock().entry(name.to_owned()) {
            Entry::Occupied(holder) => Err(holder.get().peer.clone()),
            Entry::Vacant(free) => {
                let partners = Some(Partners::new());
                free.insert(RegisteredUser { peer: peer.clone(), partners });
                Ok(Registration { registry: self.clone(), name: name.to_owned() })
            }
        }
    }

    /// The connection of the user `name`, unless that user is leaving.
    pub fn find(&self, name: &str) -> Option<Peer> {
        let users = self.users.lock();
        users.get(name).filter(|user| user.partners.is_some()).map(|user| user.peer.clone())
    }

    /// Makes two different users partners, because `from` calls or answers `to`. Returns the
    /// connection of `to`. If the message then cannot be sent, they stay partners: docs/protocol.md
    /// allows a `leave` for a call that its recipient does not know.
    ///
    /// # Errors
    /// `from` has `max_calls` outgoing calls already, or one of the two is leaving.
    pub fn start_call(&self, from: &str, to: &str, max_calls: usize) -> Result<Peer, Fault> {
        let mut users = self.users.lock();
        let [
            Some(RegisteredUser { partners: Some(own), .. }),
            Some(RegisteredUser { partners: Some(theirs), peer }),
        ] = users.get_disjoint_mut([from, to])
        else {
            return Err(Fault::UserNotFound(to.into()));
        };
        if own.get(to) != Some(&Direction::Outgoing) {
            let outgoing = own.values().filter(|call| **call == Direction::Outgoing).count();
            if outgoing >= max_calls {
                return Err(Fault::TooManyCalls);
            }
            own.insert(to.into(), Direction::Outgoing);
            theirs.entry(from.into()).or_insert(Direction::Incoming);
        }
        Ok(peer.clone())
    }

    /// Ends the call of two users, if there is one. Returns the connection of `other`, if `other` was
    /// in a call with `name` until now.
    pub fn end_call(&self, name: &str, other: &str) -> Option<Peer> {
        let mut users = self.users.lock();
        let mut remove = |name: &str, partner: &str| {
            let user = users.get_mut(name)?;
            user.partners.as_mut()?.remove(partner).map(|_| user.peer.clone())
        };
        remove(name, other);
        remove(other, name)
    }

    /// Waits until `peer` no longer holds `name`, or for `timeout`.
    pub fn wait_until_unregistered(&self, name: &str, peer: &Peer, timeout: Duration) {
        let is_held = |users: &mut Users| users.get(name).is_some_and(|user| user.peer.is(peer));
        self.unregistered.wait_while_for(&mut self.users.lock(), is_held, timeout);
    }
}

impl Registration {
    /// Hides the user from [`Registry::find`]; the name stays taken. Returns the partners to be told.
    pub fn begin_unregister(&self) -> Partners {
        let mut users = self.registry.users.lock();
        users.get_mut(&self.name).and_then(|user| user.partners.take()).unwrap_or_default()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut users = self.registry.users.lock();
        // Only a `Registration` removes its name from the map, so this entry is the one that it
        // added.
        users.remove(&self.name);
        self.registry.unregistered.notify_all();
    }
}
