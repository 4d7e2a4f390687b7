//! Who is online: the map from a user's name to that user's connection.
//!
//! The only file that locks the map, and it does nothing else while it holds that lock: no I/O, and
//! no other lock. Whoever needs a connection gets a clone of its `Arc`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tungstenite::WebSocket;

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
        if users.get(name).is_some_and(|holder| holder.is(peer)) {
            users.remove(name);
            self.released.notify_all();
        }
    }

    /// Waits until `peer` no longer holds `name`, for at most `timeout`.
    pub fn wait_until_released(&self, name: &str, peer: &Peer, timeout: Duration) {
        let held = |users: &mut HashMap<String, Peer>| {
            users.get(name).is_some_and(|holder| holder.is(peer))
        };
        self.released.wait_while_for(&mut self.users.lock(), held, timeout);
    }
}
