//! What IPv4 and IPv6 addresses have in common.

use std::fmt::{Debug, Display};
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::subnet::Subnet;

/// A version of the Internet Protocol, by the number that both rtnetlink (`AF_INET`) and the packet
/// filter (`NFPROTO_IPV4`) know it by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4 = 2,
    V6 = 10,
}

/// An address of one family.
pub(crate) trait Address:
    Copy + Debug + Display + Eq + Hash + FromStr + Into<IpAddr> + Send + Sync + 'static
{
    const FAMILY: Family;
    /// Of an address.
    const BITS: u8;
    /// Addresses of a host that only it can use.
    const LOOPBACK: Subnet<Self>;
    /// What neighbours need of each other besides the addresses of their subnet.
    const ON_LINK: &'static [Subnet<Self>];

    /// The address as a number.
    fn number(self) -> u128;

    /// The address that the low bits of a number are.
    fn of_number(number: u128) -> Self;

    /// The address as it travels.
    fn bytes(self) -> Vec<u8>;
}

impl Address for Ipv4Addr {
    const FAMILY: Family = Family::V4;
    const BITS: u8 = 32;
    const LOOPBACK: Subnet<Self> = Subnet::fixed(Self::new(127, 0, 0, 0), 8);
    const ON_LINK: &'static [Subnet<Self>] = &[];

    fn number(self) -> u128 {
        self.to_bits().into()
    }

    fn of_number(number: u128) -> Self {
        let [.., a, b, c, d] = number.to_be_bytes();
        Self::new(a, b, c, d)
    }

    fn bytes(self) -> Vec<u8> {
        self.octets().to_vec()
    }
}

impl Address for Ipv6Addr {
    const FAMILY: Family = Family::V6;
    const BITS: u8 = 128;
    const LOOPBACK: Subnet<Self> = Subnet::fixed(Self::LOCALHOST, 128);
    /// Neighbour discovery: link-local addresses and multicast, neither of which a router forwards.
    const ON_LINK: &'static [Subnet<Self>] = &[
        Subnet::fixed(Self::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
        Subnet::fixed(Self::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8),
    ];

    fn number(self) -> u128 {
        self.to_bits()
    }

    fn of_number(number: u128) -> Self {
        Self::from_bits(number)
    }

    fn bytes(self) -> Vec<u8> {
        self.octets().to_vec()
    }
}
