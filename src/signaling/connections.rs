//! Who is connected: how many there are, how many from one address, and a handle to wake each.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Shutdown};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::addresses::address_prefix;
use crate::limits::{EVICTION_AGE, Limits, MAX_EVICTIONS};
use crate::signaling::socket::ClientSocket;

/// The open connections, handshakes included.
pub struct Connections {
    limits: Limits,
    open: Mutex<HashMap<usize, Connection>>,
    emptied: Condvar,
}

struct Connection {
    socket: Arc<ClientSocket>,
    since: Instant,
    state: State,
    /// Whose it is, as [`address_prefix`] sees it. `None` for a trusted proxy's, until its request
    /// has been read.
    prefix: Option<IpAddr>,
}

#[derive(PartialEq, Eq)]
enum State {
    NotLoggedIn,
    LoggedIn,
    /// Told to disconnect, to make room.
    Evicted,
}

/// A place among the [`Connections`]. Dropping it gives the place back.
pub struct ConnectionPermit {
    connections: Arc<Connections>,
    /// The address of its socket in memory, which is unique as long as the connection is open.
    key: usize,
}

/// Why a connection was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitReached {
    /// [`Limits::max_connections`] are open.
    Server,
    /// [`Limits::max_per_ip`] of them are from this address.
    Address,
}

impl fmt::Display for LimitReached {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            LimitReached::Server => "the server is full (--max-connections)",
            LimitReached::Address => "too many connections from this address (--max-per-ip)",
        })
    }
}

impl Connections {
    /// No connections yet.
    pub fn new(limits: Limits) -> Arc<Connections> {
        Arc::new(Connections { limits, open: Mutex::default(), emptied: Condvar::new() })
    }

    /// Takes a place for a connection. If there is none left, the oldest connection gives way that
    /// has not logged in and is older than [`EVICTION_AGE`].
    ///
    /// # Errors
    /// There is no place, and nobody to give way.
    pub fn admit(
        self: &Arc<Self>,
        socket: Arc<ClientSocket>,
    ) -> Result<ConnectionPermit, LimitReached> {
        let now = Instant::now();
        let mut open = self.open.lock();
        let evicted = open.values().filter(|other| other.state == State::Evicted).count();
        // Evicted connections end on their own threads, a moment later.
        if open.len() >= self.limits.max_connections.saturating_add(evicted) {
            let oldest = open
                .values_mut()
                .filter(|other| other.state == State::NotLoggedIn)
                .min_by_key(|other| other.since)
                .filter(|oldest| now - oldest.since > EVICTION_AGE && evicted < MAX_EVICTIONS)
                .ok_or(LimitReached::Server)?;
            oldest.state = State::Evicted;
            oldest.socket.disconnect();
        }
        let key = Arc::as_ptr(&socket).addr();
        let state = State::NotLoggedIn;
        open.insert(key, Connection { socket, since: now, state, prefix: None });
        Ok(ConnectionPermit { connections: self.clone(), key })
    }

    /// How many connections are open.
    pub fn count(&self) -> usize {
        self.open.lock().len()
    }

    /// Wakes all threads that wait for their clients: each one's next `recv` returns 0. Writing stays
    /// possible, for the close frame.
    pub fn wake_all(&self) {
        for connection in self.open.lock().values() {
            let _ = connection.socket.stream.shutdown(Shutdown::Read); // An error means that it has ended.
        }
    }

    /// Waits until no connection is left, or for `timeout`.
    pub fn wait_until_empty(&self, timeout: Duration) {
        let is_open = |open: &mut HashMap<_, _>| !open.is_empty();
        self.emptied.wait_while_for(&mut self.open.lock(), is_open, timeout);
    }
}

impl ConnectionPermit {
    /// Counts this connection as one of `address`. Called at most once.
    ///
    /// # Errors
    /// The address has as many connections as it may have.
    pub fn assign(&self, address: IpAddr) -> Result<(), LimitReached> {
        let prefix = Some(address_prefix(address));
        let mut open = self.connections.open.lock();
        let same = open.values().filter(|other| other.prefix == prefix).count();
        if same >= self.connections.limits.max_per_ip {
            return Err(LimitReached::Address);
        }
        if let Some(own) = open.get_mut(&self.key) {
            own.prefix = prefix;
        }
        Ok(())
    }

    /// Keeps this connection from giving way to new ones.
    pub fn set_logged_in(&self) {
        let mut open = self.connections.open.lock();
        if let Some(own) = open.get_mut(&self.key).filter(|own| own.state == State::NotLoggedIn) {
            own.state = State::LoggedIn;
        }
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut open = self.connections.open.lock();
        open.remove(&self.key);
        if open.is_empty() {
            self.connections.emptied.notify_all();
        }
    }
}
