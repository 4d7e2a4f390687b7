//! The open connections: how many there are, how many from each address, and a handle to wake each.

use std::collections::HashMap;
use std::net::{IpAddr, Shutdown};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::addresses::address_prefix;
use crate::limits::{EVICTION_AGE, Limits, MAX_EVICTIONS};
use crate::signaling::transport::ClientSocket;

/// The open connections, handshakes included.
pub struct Connections {
    limits: Limits,
    open: Mutex<Open>,
    emptied: Condvar,
}

type Open = HashMap<usize, Connection>;

struct Connection {
    socket: Arc<ClientSocket>,
    since: Instant,
    logged_in: bool,
    /// The [`address_prefix`] of the client. `None` for a connection from a trusted proxy, until the
    /// request, which names the client, has been read.
    prefix: Option<IpAddr>,
}

/// A place among the [`Connections`]. Dropping it gives the place back.
pub struct ConnectionPermit {
    connections: Arc<Connections>,
    /// A pointer to the connection's socket, as a number. It is unique while the connection is
    /// open.
    key: usize,
}

/// Why a connection is rejected: [`Limits::max_connections`] are open.
const SERVER_FULL: &str = "the server is full (--max-connections)";
/// Why a connection is rejected: [`Limits::max_per_ip`] of them are from its address.
const ADDRESS_FULL: &str = "too many connections from this address (--max-per-ip)";

impl Connections {
    /// No connections yet.
    pub fn new(limits: Limits) -> Arc<Connections> {
        Arc::new(Connections { limits, open: Mutex::default(), emptied: Condvar::new() })
    }

    /// Takes a place for a connection from `address`, which is `None` if it comes from a trusted
    /// proxy. If no place is left, disconnects the oldest connection that has not logged in, if that
    /// is older than [`EVICTION_AGE`].
    ///
    /// # Errors
    /// In words: the address has as many connections as it may have; or no place is left, and no
    /// connection can be evicted.
    pub fn admit(
        self: &Arc<Self>,
        socket: Arc<ClientSocket>,
        address: Option<IpAddr>,
    ) -> Result<ConnectionPermit, &'static str> {
        let (now, prefix) = (Instant::now(), address.map(address_prefix));
        let mut open = self.open.lock();
        // First, so that an address with too many connections evicts nobody.
        self.check_address(&open, prefix)?;
        // Disconnected connections whose threads have not ended yet. Up to `MAX_EVICTIONS` of them
        // do not count towards the limit.
        let ending = open.values().filter(|other| other.socket.is_disconnected()).count();
        if open.len() >= self.limits.max_connections.saturating_add(ending.min(MAX_EVICTIONS)) {
            let oldest = open
                .values()
                .filter(|other| !other.logged_in && !other.socket.is_disconnected())
                .min_by_key(|other| other.since)
                .filter(|oldest| now - oldest.since > EVICTION_AGE && ending < MAX_EVICTIONS)
                .ok_or(SERVER_FULL)?;
            oldest.socket.disconnect();
        }
        let key = Arc::as_ptr(&socket).addr();
        open.insert(key, Connection { socket, since: now, logged_in: false, prefix });
        Ok(ConnectionPermit { connections: self.clone(), key })
    }

    fn check_address(&self, open: &Open, prefix: Option<IpAddr>) -> Result<(), &'static str> {
        let same = open.values().filter(|other| prefix.is_some() && other.prefix == prefix).count();
        if same >= self.limits.max_per_ip { Err(ADDRESS_FULL) } else { Ok(()) }
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
        let is_open = |open: &mut Open| !open.is_empty();
        self.emptied.wait_while_for(&mut self.open.lock(), is_open, timeout);
    }
}

impl ConnectionPermit {
    /// Counts a trusted proxy's connection as one of `address`. Called at most once.
    ///
    /// # Errors
    /// In words: the address has as many connections as it may have.
    pub fn assign(&self, address: IpAddr) -> Result<(), &'static str> {
        let prefix = Some(address_prefix(address));
        let mut open = self.connections.open.lock();
        self.connections.check_address(&open, prefix)?;
        if let Some(own) = open.get_mut(&self.key) {
            own.prefix = prefix;
        }
        Ok(())
    }

    /// From now on, this connection is not evicted for a new one.
    pub fn set_logged_in(&self) {
        let mut open = self.connections.open.lock();
        if let Some(own) = open.get_mut(&self.key) {
            own.logged_in = true;
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    fn socket() -> Arc<ClientSocket> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Arc::new(ClientSocket::new(TcpStream::connect(listener.local_addr().unwrap()).unwrap()))
    }

    fn connections(max_connections: usize, max_per_ip: usize) -> Arc<Connections> {
        Connections::new(Limits { max_connections, max_per_ip, ..Limits::default() })
    }

    /// As if this connection had been open for longer.
    fn age(permit: &ConnectionPermit, by: Duration) {
        let mut open = permit.connections.open.lock();
        let own = open.get_mut(&permit.key).unwrap();
        own.since = own.since.checked_sub(by).unwrap();
    }

    #[test]
    fn a_dropped_permit_is_a_free_place_and_the_last_one_ends_the_wait() {
        let connections = connections(2, usize::MAX);
        let first = connections.admit(socket(), None).unwrap();
        let second = connections.admit(socket(), None).unwrap();
        assert_eq!(connections.admit(socket(), None).err(), Some(SERVER_FULL));
        drop(first);
        drop(connections.admit(socket(), None).unwrap());
        assert_eq!(connections.count(), 1);
        drop(second);
        connections.wait_until_empty(Duration::from_secs(3600));
    }

    #[test]
    fn an_address_has_its_share_and_an_ipv6_56_is_one_address() {
        let connections = connections(10, 2);
        let admit = |address: &str| connections.admit(socket(), Some(address.parse().unwrap()));
        for [first, second, third] in [
            ["192.0.2.1", "::ffff:192.0.2.1", "192.0.2.1"],
            ["2001:db8:0:1::1", "2001:db8:0:ff::1", "2001:db8:0:10:1:2:3:4"],
        ] {
            let held = (admit(first).unwrap(), admit(second).unwrap());
            assert_eq!(admit(third).err(), Some(ADDRESS_FULL));
            // The same for an address that a proxy names later.
            let unknown = connections.admit(socket(), None).unwrap();
            assert_eq!(unknown.assign(third.parse().unwrap()), Err(ADDRESS_FULL));
            drop(held.0);
            assert_eq!(unknown.assign(third.parse().unwrap()), Ok(()));
        }
        let _other = (admit("2001:db8:0:1::1").unwrap(), admit("2001:db8:0:1ff::1").unwrap());
    }

    #[test]
    fn the_oldest_stranger_gives_way_after_a_while_and_a_user_never_does() {
        let connections = connections(3, usize::MAX);
        let [user, older, old] = [(); 3].map(|()| connections.admit(socket(), None).unwrap());
        user.set_logged_in();
        age(&user, EVICTION_AGE * 3);
        age(&older, EVICTION_AGE * 2);
        assert!(connections.admit(socket(), None).is_ok(), "one is old enough");
        let is_evicted = |permit: &ConnectionPermit| {
            permit.connections.open.lock()[&permit.key].socket.is_disconnected()
        };
        assert_eq!([&user, &older, &old].map(is_evicted), [false, true, false]);
        // `older` has not ended yet, so one more connection is admitted. `old` is too young to be
        // evicted.
        let _next = connections.admit(socket(), None).unwrap();
        assert_eq!(connections.admit(socket(), None).err(), Some(SERVER_FULL));
    }

    #[test]
    fn an_address_at_its_limit_makes_nobody_give_way() {
        let connections = connections(2, 1);
        let (one, other) = ("192.0.2.1".parse().ok(), "192.0.2.2".parse().ok());
        let stranger = connections.admit(socket(), one).unwrap();
        let _second = connections.admit(socket(), other).unwrap();
        age(&stranger, EVICTION_AGE * 2);
        assert_eq!(connections.admit(socket(), other).err(), Some(ADDRESS_FULL));
        assert!(!connections.open.lock()[&stranger.key].socket.is_disconnected());
    }

    #[test]
    fn only_so_many_evicted_connections_may_not_have_ended_yet() {
        let connections = connections(20, usize::MAX);
        let strangers: Vec<_> =
            (0..20).map(|_| connections.admit(socket(), None).unwrap()).collect();
        strangers.iter().for_each(|stranger| age(stranger, EVICTION_AGE * 2));
        let next: Vec<_> = (0..20).map_while(|_| connections.admit(socket(), None).ok()).collect();
        assert_eq!(next.len(), MAX_EVICTIONS);
    }
}
