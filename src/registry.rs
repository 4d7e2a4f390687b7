//! Who is online: the map from a user's name to that user's connection.
//!
//! The only file that locks the map, and it does nothing else while it holds that lock: no I/O, and
//! no other lock. Whoever needs a connection gets a clone of its `Arc`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tungstenite::WebSocket;

use crate::wire::Wire;

/// A client's connection, shared by its own thread and by every thread that sends to it.
pub type Peer = Arc<Mutex<WebSocket<Wire>>>;

/// The users who are online.
#[derive(Default)]
pub struct Registry {
    users: Mutex<HashMap<String, Peer>>,
    released: Condvar,
}

impl Registry {
    /// Gives `name` to `peer`.
    ///
    /// # Errors
    /// The connection that holds the name, if one does.
    pub fn claim(&self, name: &str, peer: &Peer) -> Result<(), Peer> {
        match self.users.lock().entry(name.to_owned()) {
            Entry::Occupied(holder) => Err(holder.get().clone()),
            Entry::Vacant(free) => {
                free.insert(peer.clone());
                Ok(())
            }
        }
    }

    /// The connection of the user `name`.
    pub fn find(&self, name: &str) -> Option<Peer> {
        self.users.lock().get(name).cloned()
    }

    /// Frees `name`, if it is `peer` that holds it.
    pub fn release(&self, name: &str, peer: &Peer) {
        let mut users = self.users.lock();
        if users.get(name).is_some_and(|holder| Arc::ptr_eq(holder, peer)) {
            users.remove(name);
            self.released.notify_all();
        }
    }

    /// Waits until `peer` no longer holds `name`, for at most `timeout`.
    pub fn wait_until_released(&self, name: &str, peer: &Peer, timeout: Duration) {
        let held = |users: &mut HashMap<String, Peer>| {
            users.get(name).is_some_and(|holder| Arc::ptr_eq(holder, peer))
        };
        self.released.wait_while_for(&mut self.users.lock(), held, timeout);
    }
}
