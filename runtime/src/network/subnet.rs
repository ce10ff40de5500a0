//! IPv4 subnets, and the pool that an instance's networks take theirs from.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Bits of a network's subnet, unless its user says otherwise: room for 65,533 containers.
const PREFIX: u8 = 16;
/// 172.18 to 172.31; 172.17 is left to a Docker on the same host.
const POOL_172: std::ops::RangeInclusive<u8> = 18..=31;
const POOL_SIZE: usize = 14 + 256;

/// A network address and the number of its leading bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) struct Subnet {
    network: Ipv4Addr,
    prefix: u8,
}

impl Subnet {
    /// Addresses of a host that only it can use.
    pub(crate) const LOOPBACK: Self = Self {
        network: Ipv4Addr::new(127, 0, 0, 0),
        prefix: 8,
    };

    /// The subnet that an address is in; `None` for more than 32 bits.
    pub(crate) fn new(address: Ipv4Addr, prefix: u8) -> Option<Self> {
        (prefix <= 32).then(|| Self {
            network: Ipv4Addr::from(u32::from(address) & mask(prefix)),
            prefix,
        })
    }

    /// Its first address.
    pub(crate) fn network(self) -> Ipv4Addr {
        self.network
    }

    /// The number of leading bits.
    pub(crate) fn prefix(self) -> u8 {
        self.prefix
    }

    /// The leading bits.
    pub(crate) fn mask(self) -> Ipv4Addr {
        Ipv4Addr::from(mask(self.prefix))
    }

    /// Its last address.
    pub(crate) fn broadcast(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network) | !mask(self.prefix))
    }

    /// The address with this number in it.
    pub(crate) fn host(self, number: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network) | (number & !mask(self.prefix)))
    }

    /// How many addresses it has, network and broadcast included.
    pub(crate) fn size(self) -> u32 {
        (!mask(self.prefix)).saturating_add(1)
    }

    /// The number of an address in it; `None` for one that is elsewhere.
    pub(crate) fn number(self, address: Ipv4Addr) -> Option<u32> {
        let inside = u32::from(address) & mask(self.prefix) == u32::from(self.network);
        inside.then(|| u32::from(address) & !mask(self.prefix))
    }

    /// Whether any address is in both.
    pub(crate) fn overlaps(self, other: Self) -> bool {
        let common = mask(self.prefix.min(other.prefix));
        u32::from(self.network) & common == u32::from(other.network) & common
    }
}

/// The pool, each subnet once, from the `start`th on.
pub(crate) fn pool(start: usize) -> impl Iterator<Item = Subnet> {
    (0..POOL_SIZE).filter_map(move |step| {
        let number = (start % POOL_SIZE + step) % POOL_SIZE;
        let second = POOL_172.clone().nth(number);
        let address = match second {
            Some(second) => Ipv4Addr::new(172, second, 0, 0),
            None => Ipv4Addr::new(10, u8::try_from(number - POOL_172.len()).ok()?, 0, 0),
        };
        Subnet::new(address, PREFIX)
    })
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = || format!("{text:?} is not a subnet");
        let (address, prefix) = text.split_once('/').ok_or_else(invalid)?;
        let address = address.parse().map_err(|_| invalid())?;
        let prefix = prefix.parse().map_err(|_| invalid())?;
        Self::new(address, prefix).ok_or_else(invalid)
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> Self {
        subnet.to_string()
    }
}

impl TryFrom<String> for Subnet {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn arithmetic() {
        let s = subnet("172.18.3.4/16");
        assert_eq!(s.to_string(), "172.18.0.0/16");
        assert_eq!(s.host(1), Ipv4Addr::new(172, 18, 0, 1));
        assert_eq!(s.broadcast(), Ipv4Addr::new(172, 18, 255, 255));
        assert_eq!(s.number(Ipv4Addr::new(172, 18, 1, 2)), Some(258));
        assert_eq!(s.number(Ipv4Addr::new(172, 19, 1, 2)), None);
        assert_eq!(subnet("0.0.0.0/0").size(), u32::MAX);
    }

    #[test]
    fn overlap_is_symmetric_and_covers_containment() {
        let all = [
            ("172.18.0.0/16", "172.18.4.0/24", true),
            ("10.0.0.0/8", "10.9.0.0/16", true),
            ("172.18.0.0/16", "172.19.0.0/16", false),
            ("1.2.3.4/32", "1.2.3.5/32", false),
        ];
        for (a, b, expected) in all {
            assert_eq!(subnet(a).overlaps(subnet(b)), expected);
            assert_eq!(subnet(b).overlaps(subnet(a)), expected);
        }
    }

    #[test]
    fn the_pool_has_each_subnet_once_wherever_it_starts() {
        for start in [0, 13, 200, 12_345] {
            let all: std::collections::HashSet<_> = pool(start).collect();
            assert_eq!(all.len(), POOL_SIZE);
        }
        assert_eq!(pool(0).next().unwrap().to_string(), "172.18.0.0/16");
    }

    #[test]
    fn bad_texts_are_no_subnet() {
        for text in ["", "1.2.3.4", "1.2.3.4/33", "x/8", "1.2.3.4/-1"] {
            assert!(text.parse::<Subnet>().is_err(), "{text}");
        }
    }
}
