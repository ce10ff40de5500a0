//! Subnets, and the pool that an instance's networks take theirs from.

use std::fmt::{self, Display};
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::family::Address;

/// Bits of a network's subnet, unless its user says otherwise: room for 65,533 containers.
const PREFIX: u8 = 16;
/// 172.18 to 172.31; 172.17 is left to a Docker on the same host.
const POOL_172: std::ops::RangeInclusive<u8> = 18..=31;
const POOL_SIZE: usize = 14 + 256;

/// A network address and the number of its leading bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(bound = "A: Address", into = "String", try_from = "String")]
pub(crate) struct Subnet<A = Ipv4Addr> {
    network: A,
    prefix: u8,
}

impl<A> Subnet<A> {
    /// One that is known when the program is made: the address has no bits after the prefix.
    pub(crate) const fn fixed(network: A, prefix: u8) -> Self {
        Self { network, prefix }
    }
}

impl<A: Address> Subnet<A> {
    /// The subnet that an address is in; `None` for more bits than an address has.
    pub(crate) fn new(address: A, prefix: u8) -> Option<Self> {
        (prefix <= A::BITS).then(|| Self {
            network: A::of_number(address.number() & mask::<A>(prefix)),
            prefix,
        })
    }

    /// Its first address.
    pub(crate) fn network(self) -> A {
        self.network
    }

    /// The number of leading bits.
    pub(crate) fn prefix(self) -> u8 {
        self.prefix
    }

    /// The leading bits.
    pub(crate) fn mask(self) -> A {
        A::of_number(mask::<A>(self.prefix))
    }

    /// Its last address.
    pub(crate) fn last(self) -> A {
        A::of_number(self.network.number() | !mask::<A>(self.prefix))
    }

    /// The address with this number in it.
    pub(crate) fn host(self, number: u128) -> A {
        A::of_number(self.network.number() | (number & !mask::<A>(self.prefix)))
    }

    /// The number of an address in it; `None` for one that is elsewhere.
    pub(crate) fn number(self, address: A) -> Option<u128> {
        let mask = mask::<A>(self.prefix);
        let inside = address.number() & mask == self.network.number();
        inside.then(|| address.number() & !mask)
    }

    /// Whether any address is in both.
    pub(crate) fn overlaps(self, other: Self) -> bool {
        let common = mask::<A>(self.prefix.min(other.prefix));
        self.network.number() & common == other.network.number() & common
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

/// The leading bits, and all above those that an address has.
fn mask<A: Address>(prefix: u8) -> u128 {
    let rest = u32::from(A::BITS - prefix);
    u128::MAX.checked_shl(rest).unwrap_or(0)
}

impl<A: Display> fmt::Display for Subnet<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl<A: Address> FromStr for Subnet<A> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = || format!("{text:?} is not a subnet");
        let (address, prefix) = text.split_once('/').ok_or_else(invalid)?;
        let address = address.parse().map_err(|_| invalid())?;
        let prefix = prefix.parse().map_err(|_| invalid())?;
        Self::new(address, prefix).ok_or_else(invalid)
    }
}

impl<A: Address> From<Subnet<A>> for String {
    fn from(subnet: Subnet<A>) -> Self {
        subnet.to_string()
    }
}

impl<A: Address> TryFrom<String> for Subnet<A> {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    fn subnet6(text: &str) -> Subnet<Ipv6Addr> {
        text.parse().unwrap()
    }

    #[test]
    fn arithmetic() {
        let s = subnet("172.18.3.4/16");
        assert_eq!(s.to_string(), "172.18.0.0/16");
        assert_eq!(s.host(1), Ipv4Addr::new(172, 18, 0, 1));
        assert_eq!(s.last(), Ipv4Addr::new(172, 18, 255, 255));
        assert_eq!(s.number(Ipv4Addr::new(172, 18, 1, 2)), Some(258));
        assert_eq!(s.number(Ipv4Addr::new(172, 19, 1, 2)), None);
        assert_eq!(subnet("0.0.0.0/0").last(), Ipv4Addr::BROADCAST);
        assert_eq!(subnet("0.0.0.0/0").mask(), Ipv4Addr::UNSPECIFIED);
    }

    #[test]
    fn arithmetic_of_ipv6() {
        let s = subnet6("fd00:1:2:3:4::5/64");
        assert_eq!(s.to_string(), "fd00:1:2:3::/64");
        assert_eq!(s.host(1).to_string(), "fd00:1:2:3::1");
        assert_eq!(s.last().to_string(), "fd00:1:2:3:ffff:ffff:ffff:ffff");
        assert_eq!(s.number(s.host(258)), Some(258));
        assert_eq!(s.number(subnet6("fd00::/64").host(1)), None);
        assert!(s.overlaps(subnet6("fd00::/16")) && subnet6("::/0").overlaps(s));
        assert!(!s.overlaps(subnet6("fd00:1:2:4::/64")));
        for text in ["fd00::", "fd00::/129", "10.0.0.0/8", "fd00:::/64"] {
            assert!(text.parse::<Subnet<Ipv6Addr>>().is_err(), "{text}");
        }
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
        for text in ["", "1.2.3.4", "1.2.3.4/33", "x/8", "1.2.3.4/-1", "fd00::/8"] {
            assert!(text.parse::<Subnet>().is_err(), "{text}");
        }
    }
}
