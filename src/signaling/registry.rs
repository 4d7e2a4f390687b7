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
    /// connection of `to`, and whether `from` had neither called nor answered before.
    ///
    /// # Errors
    /// `from` has `max_calls` outgoing calls already, or one of the two is leaving.
    pub fn start_call(
        &self,
        from: &str,
        to: &str,
        max_calls: usize,
    ) -> Result<(Peer, bool), Fault> {
        let mut users = self.users.lock();
        let Some((own, theirs, peer)) = both(&mut users, from, to) else {
            return Err(Fault::UserNotFound(to.into()));
        };
        let is_new = own.get(to) != Some(&Direction::Outgoing);
        if is_new {
            let outgoing = own.values().filter(|call| **call == Direction::Outgoing).count();
            if outgoing >= max_calls {
                return Err(Fault::TooManyCalls);
            }
            own.insert(to.into(), Direction::Outgoing);
            theirs.entry(from.into()).or_insert(Direction::Incoming);
        }
        Ok((peer, is_new))
    }

    /// Undoes [`Registry::start_call`] if the message could not be sent: `to` does not know of the
    /// call, so needs no `leave`. A call that `to` has started stays.
    pub fn cancel_call(&self, from: &str, to: &str) {
        let mut users = self.users.lock();
        let Some((own, theirs, _)) = both(&mut users, from, to) else {
            return;
        };
        if theirs.get(from) == Some(&Direction::Outgoing) {
            own.insert(to.into(), Direction::Incoming);
        } else {
            own.remove(to);
            theirs.remove(from);
        }
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
        // Only a name's `Registration` removes it, so the entry is this connection's own.
        users.remove(&self.name);
        self.registry.unregistered.notify_all();
    }
}

/// The partners of two different users, and the connection of the second, unless one of the two is
/// leaving.
fn both<'a>(
    users: &'a mut Users,
    from: &str,
    to: &str,
) -> Option<(&'a mut Partners, &'a mut Partners, Peer)> {
    let [from, to] = users.get_disjoint_mut([from, to]);
    let to = to?;
    Some((from?.partners.as_mut()?, to.partners.as_mut()?, to.peer.clone()))
}
