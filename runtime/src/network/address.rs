//! Which addresses of a bridge's subnet are taken.

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::family::Address;
use super::numbers::{Number, Numbers};
use super::route::Mac;
use super::subnet::Subnet;

/// The addresses of one subnet. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub(crate) struct Addresses<A = Ipv4Addr> {
    subnet: Subnet<A>,
    gateway: A,
    numbers: Numbers,
    /// The gateway's, and those that are kept free.
    _taken: Arc<Vec<Number>>,
}

/// An address that is taken until this is dropped.
#[derive(Debug)]
pub(crate) struct Lease<A = Ipv4Addr> {
    subnet: Subnet<A>,
    number: Number,
}

impl<A: Address> Addresses<A> {
    /// All free but the gateway's and those that are `kept`. Containers that ask for no address get one of
    /// the range.
    pub(crate) fn new(subnet: Subnet<A>, gateway: A, range: Subnet<A>, kept: &[A]) -> Self {
        let in_range = |address| subnet.number(address).unwrap_or(0);
        let last = in_range(subnet.last()).saturating_sub(1);
        let first = in_range(range.network()).max(1);
        let numbers = Numbers::new(first..=in_range(range.last()).min(last));
        let taken = std::iter::once(&gateway)
            .chain(kept)
            .filter_map(|address| numbers.claim(subnet.number(*address)?))
            .collect();
        Self {
            subnet,
            gateway,
            numbers,
            _taken: Arc::new(taken),
        }
    }

    /// The subnet.
    pub(crate) fn subnet(&self) -> Subnet<A> {
        self.subnet
    }

    /// The bridge's own address.
    pub(crate) fn gateway(&self) -> A {
        self.gateway
    }

    /// A free address; `None` if there is none.
    pub(crate) fn take(&self) -> Option<Lease<A>> {
        Some(self.lease(self.numbers.take()?))
    }

    /// This address, if a container can have it and it is free.
    pub(crate) fn claim(&self, address: A) -> Option<Lease<A>> {
        let number = self.subnet.number(address).filter(|_| self.has(address))?;
        Some(self.lease(self.numbers.claim(number)?))
    }

    /// Whether it is an address of the subnet that an interface can have. In IPv6 the first is every
    /// router's, and the last is reserved (RFC 4291, 2.6.1; RFC 2526).
    pub(crate) fn has(&self, address: A) -> bool {
        let ends = [self.subnet.network(), self.subnet.last()];
        self.subnet.number(address).is_some() && !ends.contains(&address)
    }

    fn lease(&self, number: Number) -> Lease<A> {
        Lease {
            subnet: self.subnet,
            number,
        }
    }
}

impl<A: Address> Lease<A> {
    /// The address.
    pub(crate) fn address(&self) -> A {
        self.subnet.host(self.number.value())
    }

    /// The subnet that it is of.
    pub(crate) fn subnet(&self) -> Subnet<A> {
        self.subnet
    }
}

/// The hardware address that goes with an address: an address that comes back brings the same one, so
/// that no neighbour's table is wrong. `02` says "locally administered".
pub(crate) fn mac_of(address: Ipv4Addr) -> Mac {
    let [a, b, c, d] = address.octets();
    [0x02, 0x42, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    fn addresses(range: &str) -> Addresses {
        let subnet: Subnet = "10.1.2.0/29".parse().unwrap();
        Addresses::new(subnet, subnet.host(1), range.parse().unwrap(), &[])
    }

    fn all(addresses: &Addresses) -> Vec<u8> {
        let leases: Vec<_> = std::iter::from_fn(|| addresses.take()).collect();
        leases.iter().map(|l| l.address().octets()[3]).collect()
    }

    #[test]
    fn containers_get_all_but_the_ends_and_the_gateway() {
        assert_eq!(all(&addresses("10.1.2.0/29")), [2, 3, 4, 5, 6]);
    }

    #[test]
    fn a_range_bounds_what_is_given_out_and_not_what_can_be_asked_for() {
        let addresses = addresses("10.1.2.4/31");
        let asked = addresses.claim(Ipv4Addr::new(10, 1, 2, 2)).unwrap();
        assert_eq!(asked.address(), Ipv4Addr::new(10, 1, 2, 2));
        assert_eq!(all(&addresses), [4, 5]);
    }

    #[test]
    fn addresses_that_are_kept_are_nobodys() {
        let subnet: Subnet = "10.1.2.0/29".parse().unwrap();
        let kept = [subnet.host(2), subnet.host(4)];
        let addresses = Addresses::new(subnet, subnet.host(1), subnet, &kept);
        assert!(addresses.claim(subnet.host(4)).is_none());
        assert_eq!(all(&addresses), [3, 5, 6]);
    }

    #[test]
    fn what_no_container_can_have_is_not_claimed() {
        let addresses = addresses("10.1.2.0/29");
        for text in ["10.1.2.0", "10.1.2.1", "10.1.2.7", "10.9.9.9"] {
            assert!(addresses.claim(text.parse().unwrap()).is_none(), "{text}");
        }
    }

    #[test]
    fn addresses_of_ipv6_begin_after_the_gateway_and_any_can_be_asked_for() {
        let subnet: Subnet<Ipv6Addr> = "fd00:5::/64".parse().unwrap();
        let addresses = Addresses::new(subnet, subnet.host(1), subnet, &[]);
        assert_eq!(addresses.take().unwrap().address(), subnet.host(2));
        let far = subnet.host(u128::from(u64::MAX) - 1);
        assert_eq!(addresses.claim(far).unwrap().address(), far);
        assert!(addresses.claim(subnet.network()).is_none());
    }
}
