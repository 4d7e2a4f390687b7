//! Who is connected: how many there are, how many from one address, and a handle to wake each.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::net::{IpAddr, Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::addresses::address_prefix;
use crate::limits::Limits;

/// The open connections, handshakes included: how many, whose, and a handle to wake each.
pub struct Slots {
    limits: Limits,
    open: Mutex<OpenSlots>,
    emptied: Condvar,
}

#[derive(Default)]
struct OpenSlots {
    next: u64,
    sockets: HashMap<u64, Arc<TcpStream>>,
    /// How many of them each address has, as [`address_prefix`] takes it.
    per_block: HashMap<IpAddr, usize>,
}

/// One connection's place among the [`Slots`]; dropping it gives the place back.
pub struct Slot {
    slots: Arc<Slots>,
    number: u64,
    /// Whose it is. `None` while it is a trusted proxy's, whose request has not said yet.
    block: Option<IpAddr>,
}

/// Why there is no place for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// [`Limits::max_connections`] are open.
    Server,
    /// [`Limits::max_per_ip`] of them from this address.
    Address,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Full::Server => "the server is full (--max-connections)",
            Full::Address => "too many connections from this address (--max-per-ip)",
        })
    }
}

impl Slots {
    /// No connections yet.
    pub fn new(limits: Limits) -> Arc<Slots> {
        Arc::new(Slots { limits, open: Mutex::default(), emptied: Condvar::new() })
    }

    /// Takes a place for a connection. Whose it is can be said later, with [`Slot::assign`].
    ///
    /// # Errors
    /// All places are taken.
    pub fn take(self: &Arc<Self>, socket: Arc<TcpStream>) -> Result<Slot, Full> {
        let mut open = self.open.lock();
        if open.sockets.len() >= self.limits.max_connections {
            return Err(Full::Server);
        }
        let number = open.next;
        open.next += 1;
        open.sockets.insert(number, socket);
        Ok(Slot { slots: self.clone(), number, block: None })
    }

    /// How many connections are open.
    pub fn count(&self) -> usize {
        self.open.lock().sockets.len()
    }

    /// Ends every connection's wait for its client: each thread's next `recv` returns 0. Writing
    /// stays possible, so that each thread can say goodbye.
    pub fn wake_all(&self) {
        for socket in self.open.lock().sockets.values() {
            // An error means that the connection is gone already.
            let _ = socket.shutdown(Shutdown::Read);
        }
    }

    /// Waits until no connection is left; false if that took longer than `timeout`.
    pub fn wait_until_empty(&self, timeout: Duration) -> bool {
        let mut open = self.open.lock();
        let occupied = |open: &mut OpenSlots| !open.sockets.is_empty();
        !self.emptied.wait_while_for(&mut open, occupied, timeout).timed_out()
    }
}

impl Slot {
    /// Counts this connection as one of `address`. Called at most once.
    ///
    /// # Errors
    /// The address has all the connections that it may have.
    pub fn assign(&mut self, address: IpAddr) -> Result<(), Full> {
        let block = address_prefix(address);
        let mut open = self.slots.open.lock();
        let count = open.per_block.entry(block).or_default();
        if *count >= self.slots.limits.max_per_ip {
            return Err(Full::Address);
        }
        *count += 1;
        self.block = Some(block);
        Ok(())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut open = self.slots.open.lock();
        open.sockets.remove(&self.number);
        if let Some(block) = self.block
            && let Entry::Occupied(mut count) = open.per_block.entry(block)
        {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        if open.sockets.is_empty() {
            self.slots.emptied.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    const LIMITS: Limits = Limits {
        max_connections: 3,
        max_per_ip: 2,
        max_message: usize::MAX,
        max_rate: usize::MAX,
        max_calls: usize::MAX,
    };

    fn socket() -> Arc<TcpStream> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Arc::new(TcpStream::connect(listener.local_addr().unwrap()).unwrap())
    }

    #[test]
    fn a_dropped_slot_is_free_again_and_the_last_one_ends_the_wait() {
        let slots = Slots::new(LIMITS);
        let first = slots.take(socket()).unwrap();
        let second = slots.take(socket()).unwrap();
        let third = slots.take(socket()).unwrap();
        assert_eq!(slots.take(socket()).err(), Some(Full::Server));
        drop(first);
        assert_eq!(slots.count(), 2);
        drop(slots.take(socket()).unwrap());
        drop(third);
        assert!(!slots.wait_until_empty(Duration::from_millis(1)));
        drop(second);
        assert!(slots.wait_until_empty(Duration::from_secs(10)));
    }

    #[test]
    fn an_address_has_its_share_and_an_ipv6_56_is_one_address() {
        let slots = Slots::new(LIMITS);
        let assigned = |address: &str| {
            let mut slot = slots.take(socket()).unwrap();
            slot.assign(address.parse().unwrap()).map(|()| slot)
        };
        for [first, second, third] in [
            ["192.0.2.1", "::ffff:192.0.2.1", "192.0.2.1"],
            ["2001:db8:0:1::1", "2001:db8:0:ff:ffff::", "2001:db8::1:1:2:3:4"],
        ] {
            let held = (assigned(first).unwrap(), assigned(second).unwrap());
            assert_eq!(assigned(third).err(), Some(Full::Address));
            drop(held.0);
            drop(assigned(third).unwrap());
            drop(held.1);
        }
        let _other = (assigned("2001:db8:0:1::1"), assigned("2001:db8:0:100::1"));
        assert!(slots.open.lock().per_block.len() == 2);
        drop(_other);
        assert!(slots.open.lock().per_block.is_empty());
    }
}
