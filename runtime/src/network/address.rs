//! Which addresses of the bridge's subnet are taken. Nothing is written down: what is taken is what a
//! living container's record says, and what this process has given out.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::route::Mac;
use super::subnet::Subnet;

/// Network address and gateway come before the first container's.
const FIRST: u32 = 2;

/// The addresses of one subnet.
#[derive(Clone, Debug)]
pub(crate) struct Addresses {
    subnet: Subnet,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    taken: HashSet<u32>,
    /// Where the search goes on: an address comes back as late as possible, so that no neighbour has
    /// its old owner in a cache.
    next: u32,
}

/// An address that is taken until this is dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    addresses: Addresses,
    number: u32,
}

impl Addresses {
    /// All free.
    pub(crate) fn new(subnet: Subnet) -> Self {
        let state = State {
            taken: HashSet::new(),
            next: FIRST,
        };
        Self {
            subnet,
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// The subnet.
    pub(crate) fn subnet(&self) -> Subnet {
        self.subnet
    }

    /// The bridge's own address.
    pub(crate) fn gateway(&self) -> Ipv4Addr {
        self.subnet.host(1)
    }

    /// A free address; `None` if there is none.
    pub(crate) fn take(&self) -> Option<Lease> {
        let mut state = self.lock();
        let last = self.subnet.size().saturating_sub(2);
        let start = state.next.clamp(FIRST, last.max(FIRST));
        let number = (start..=last)
            .chain(FIRST..start)
            .find(|number| !state.taken.contains(number))?;
        state.taken.insert(number);
        state.next = number + 1;
        Some(self.lease(number))
    }

    /// This address, if it is of the subnet and free.
    pub(crate) fn claim(&self, address: Ipv4Addr) -> Option<Lease> {
        let number = self.subnet.number(address)?;
        let mut state = self.lock();
        let new = state.taken.insert(number);
        state.next = state.next.max(number + 1);
        new.then(|| self.lease(number))
    }

    /// Whether the address with this number is taken.
    pub(crate) fn is_taken(&self, number: u32) -> bool {
        self.lock().taken.contains(&number)
    }

    fn lease(&self, number: u32) -> Lease {
        Lease {
            addresses: self.clone(),
            number,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    /// The address.
    pub(crate) fn address(&self) -> Ipv4Addr {
        self.addresses.subnet.host(self.number)
    }

    /// Its number in the subnet.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// The subnet that it is of.
    pub(crate) fn subnet(&self) -> Subnet {
        self.addresses.subnet
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.addresses.lock().taken.remove(&self.number);
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
    use super::*;

    fn addresses(prefix: u8) -> Addresses {
        Addresses::new(Subnet::new(Ipv4Addr::new(10, 1, 2, 0), prefix).unwrap())
    }

    #[test]
    fn every_address_once_and_then_none() {
        let addresses = addresses(29);
        let leases: Vec<_> = std::iter::from_fn(|| addresses.take()).collect();
        let given: Vec<_> = leases
            .iter()
            .map(|lease| lease.address().octets()[3])
            .collect();
        assert_eq!(given, [2, 3, 4, 5, 6]);
        drop(leases);
        assert!(addresses.take().is_some());
    }

    #[test]
    fn an_address_comes_back_as_late_as_possible() {
        let addresses = addresses(29);
        drop(addresses.take());
        assert_eq!(addresses.take().unwrap().number(), 3);
    }

    #[test]
    fn what_is_claimed_is_not_given_out() {
        let addresses = addresses(29);
        let claimed = addresses.claim(Ipv4Addr::new(10, 1, 2, 2)).unwrap();
        assert!(addresses.claim(claimed.address()).is_none());
        assert!(addresses.claim(Ipv4Addr::new(10, 9, 9, 9)).is_none());
        let rest =
            std::iter::from_fn(|| addresses.take().map(|l| (l.number(), std::mem::forget(l))));
        assert!(rest.map(|(number, ())| number).all(|number| number != 2));
    }
}
