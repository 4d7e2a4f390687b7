//! IP addresses: networks, and the part of an address that stands for one customer.

use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use crate::limits::IPV6_PREFIX;

/// All addresses with the same first bits, such as 10.0.0.0/8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    length: u32,
}

impl Network {
    /// Whether `ip` belongs to this network. An IPv4 address in IPv6 notation counts as IPv4.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let same_bits = match (self.address, ip.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(ip)) => (own.to_bits() ^ ip.to_bits()).leading_zeros(),
            (IpAddr::V6(own), IpAddr::V6(ip)) => (own.to_bits() ^ ip.to_bits()).leading_zeros(),
            _ => return false,
        };
        same_bits >= self.length
    }
}

impl FromStr for Network {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Network, Self::Err> {
        let parse = || {
            let (address, length) = text.split_once('/').unzip();
            let address: IpAddr = address.unwrap_or(text).parse().ok()?;
            let longest = if address.is_ipv4() { 32 } else { 128 };
            let length = length.map_or(Some(longest), |length| length.parse().ok())?;
            (length <= longest).then_some(Network { address, length })
        };
        parse().ok_or("an address or a network, such as 10.0.0.0/8")
    }
}

/// What limits count as one address: a whole IPv4 address, or the first [`IPV6_PREFIX`] bits of an
/// IPv6 address.
pub fn address_prefix(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) => {
            let host_bits = Ipv6Addr::BITS - IPV6_PREFIX;
            Ipv6Addr::from_bits(ip.to_bits() >> host_bits << host_bits).into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_all_addresses_with_the_same_first_bits() {
        let contains = |network: &str, ip: &str| {
            network.parse::<Network>().unwrap().contains(ip.parse().unwrap())
        };
        assert!(contains("127.0.0.1", "127.0.0.1") && !contains("127.0.0.1", "127.0.0.2"));
        assert!(contains("10.0.0.0/8", "10.255.0.1") && !contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("10.0.0.0/8", "::ffff:10.1.2.3"));
        assert!(contains("0.0.0.0/0", "192.0.2.1") && !contains("0.0.0.0/0", "::1"));
        assert!(contains("2001:db8::/33", "2001:db8:7fff::1"));
        assert!(!contains("2001:db8::/33", "2001:db8:8000::1"));
        for wrong in ["", "/8", "10.0.0.0/33", "::/129", "10.0.0.0/-1", "10/8", "x"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_ipv6_56_counts_as_one_address() {
        let prefix = |ip: &str| address_prefix(ip.parse().unwrap());
        assert_eq!(prefix("2001:db8:1:ff00::1"), prefix("2001:db8:1:ffff:1:2:3:4"));
        assert_ne!(prefix("2001:db8:1:ff00::1"), prefix("2001:db8:1:fe00::1"));
        assert_eq!(prefix("::ffff:192.0.2.1"), prefix("192.0.2.1"));
        assert_ne!(prefix("192.0.2.1"), prefix("192.0.2.2"));
    }
}
