//! The instance's packet filter table: address translation for its bridge, and who may reach what is
//! behind it.
//!
//! The rules are written once, in one transaction with every published port in it (so there is no
//! moment when the bridge is open, K4); after that publishing a port is one map entry. Reading it:
//!
//! ```text
//! table ip orlop {
//!   map published    { type inet_proto . inet_service : ipv4_addr . inet_service; }
//!   map published_at { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }
//!   chain guard       { type filter hook prerouting priority raw;
//!                       iifname orlop0 ip daddr 127.0.0.0/8 drop }                 # K2
//!   chain prerouting  { type nat hook prerouting priority dstnat;
//!                       fib daddr type local goto publish }                        # K6
//!   chain output      { type nat hook output priority dstnat;
//!                       fib daddr type local goto publish }
//!   chain publish     { dnat to ip daddr . meta l4proto . th dport map @published_at
//!                       dnat to meta l4proto . th dport map @published }
//!   chain postrouting { type nat hook postrouting priority srcnat;
//!                       ip saddr SUBNET oifname != orlop0 masquerade
//!                       ip saddr 127.0.0.0/8 oifname orlop0 masquerade
//!                       ip saddr SUBNET oifname orlop0 ct status dnat masquerade } # hairpin
//!   chain forward     { type filter hook forward priority filter;
//!                       oifname != orlop0 accept
//!                       iifname orlop0 accept
//!                       ct state established,related accept
//!                       ct status dnat accept
//!                       drop }                                                     # K5
//! }
//! ```
//!
//! A client from outside keeps its address (K3): only the host's own loopback and containers that come
//! back through the host are masqueraded towards a container. Another table on the host can still drop
//! what this one accepts: where Docker runs too, its FORWARD policy is DROP, and connections from
//! containers here to the outside need a rule of the administrator in `DOCKER-USER`.

use std::net::Ipv4Addr;

use super::error::{NetworkError, Result};
use super::nft::expression::{
    self as on, Expression, Field, Meta, Register, Verdict, concatenation,
};
use super::nft::{Batch, ChainType, Entry, FieldType, Hook, Map};
use super::request::PortBinding;
use super::subnet::Subnet;

const PRIORITY_RAW: i32 = -300;
const PRIORITY_DESTINATION: i32 = -100;
const PRIORITY_FILTER: i32 = 0;
const PRIORITY_SOURCE: i32 = 100;

/// Ports published on every address of the host.
const ANYWHERE: Map<'static> = Map {
    name: "published",
    key: &[FieldType::Protocol, FieldType::Port],
    value: &[FieldType::Ipv4Address, FieldType::Port],
};
/// Ports published on one address of the host.
const AT: Map<'static> = Map {
    name: "published_at",
    key: &[FieldType::Ipv4Address, FieldType::Protocol, FieldType::Port],
    value: &[FieldType::Ipv4Address, FieldType::Port],
};

/// A published port and the container behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Published {
    pub(crate) binding: PortBinding,
    pub(crate) container: Ipv4Addr,
}

/// The table of one instance.
#[derive(Clone, Debug)]
pub(crate) struct Firewall {
    pub(crate) table: String,
    pub(crate) bridge: String,
}

impl Firewall {
    /// Writes the whole table anew, with these ports, at once: also over one that is there.
    pub(crate) fn install(&self, subnet: Subnet, ports: &[Published]) -> Result<()> {
        let batch = Batch::new(&self.table)
            .add_table()
            .delete_table()
            .add_table();
        let batch = batch.add_map(&ANYWHERE).add_map(&AT);
        let batch = self.chains(batch);
        let batch = self.rules(batch, subnet);
        add(batch, ports)
            .commit()
            .map_err(NetworkError::kernel(format!(
                "write nftables table {}",
                self.table
            )))
    }

    /// Publishes ports: all or none.
    pub(crate) fn publish(&self, ports: &[Published]) -> Result<()> {
        add(Batch::new(&self.table), ports)
            .commit()
            .map_err(NetworkError::kernel("publish ports"))
    }

    /// Takes ports back. Those that are not there, because somebody flushed the table, are no error.
    pub(crate) fn withdraw(&self, ports: &[Published]) -> Result<()> {
        let (anywhere, at) = entries(ports);
        let all = Batch::new(&self.table)
            .delete_entries(ANYWHERE.name, &anywhere)
            .delete_entries(AT.name, &at);
        if all.commit().is_ok() {
            return Ok(());
        }
        let singles = anywhere.iter().map(|entry| (ANYWHERE.name, entry));
        for (map, entry) in singles.chain(at.iter().map(|entry| (AT.name, entry))) {
            let one = Batch::new(&self.table).delete_entries(map, std::slice::from_ref(entry));
            match one.commit() {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(NetworkError::kernel("withdraw a published port")(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Removes the table, if there is one.
    pub(crate) fn remove(&self) -> Result<()> {
        Batch::new(&self.table)
            .add_table()
            .delete_table()
            .commit()
            .map_err(NetworkError::kernel(format!(
                "remove nftables table {}",
                self.table
            )))
    }

    fn chains<'a>(&self, batch: Batch<'a>) -> Batch<'a> {
        use ChainType::{Filter, Nat};
        batch
            .add_base_chain("guard", Filter, Hook::Prerouting, PRIORITY_RAW)
            .add_base_chain("prerouting", Nat, Hook::Prerouting, PRIORITY_DESTINATION)
            .add_base_chain("output", Nat, Hook::Output, PRIORITY_DESTINATION)
            .add_base_chain("postrouting", Nat, Hook::Postrouting, PRIORITY_SOURCE)
            .add_base_chain("forward", Filter, Hook::Forward, PRIORITY_FILTER)
            .add_chain("publish")
    }

    fn rules<'a>(&self, batch: Batch<'a>, subnet: Subnet) -> Batch<'a> {
        let bridge = self.bridge.as_str();
        let verdict = |verdict| vec![Expression::Verdict(verdict)];
        let publish = [on::for_this_host(), verdict(Verdict::Goto("publish"))].concat();
        let from_subnet = on::address_in(Field::SourceAddress, subnet);
        let masquerade = || vec![Expression::Masquerade];
        let accept = || verdict(Verdict::Accept);
        let loopback = on::loopback();
        let to_loopback = loopback.map(|net| on::address_in(Field::DestinationAddress, net));
        let from_loopback = loopback.map(|net| on::address_in(Field::SourceAddress, net));
        let rules = [
            (
                "guard",
                [
                    on::input_is(bridge),
                    to_loopback.unwrap_or_default(),
                    verdict(Verdict::Drop),
                ]
                .concat(),
            ),
            ("prerouting", publish.clone()),
            ("output", publish),
            ("publish", translate(&AT)),
            ("publish", translate(&ANYWHERE)),
            (
                "postrouting",
                [from_subnet.clone(), on::output_is_not(bridge), masquerade()].concat(),
            ),
            (
                "postrouting",
                [
                    from_loopback.unwrap_or_default(),
                    on::output_is(bridge),
                    masquerade(),
                ]
                .concat(),
            ),
            (
                "postrouting",
                [
                    from_subnet,
                    on::output_is(bridge),
                    on::published(),
                    masquerade(),
                ]
                .concat(),
            ),
            ("forward", [on::output_is_not(bridge), accept()].concat()),
            ("forward", [on::input_is(bridge), accept()].concat()),
            ("forward", [on::established(), accept()].concat()),
            ("forward", [on::published(), accept()].concat()),
            ("forward", verdict(Verdict::Drop)),
        ];
        rules
            .iter()
            .fold(batch, |batch, (chain, rule)| batch.add_rule(chain, rule))
    }
}

/// Looks the packet's destination up in a map and sends it to what is found.
fn translate<'a>(map: &Map<'a>) -> Vec<Expression<'a>> {
    let registers = [Register::R0, Register::R1, Register::R2];
    let mut rule: Vec<_> = map
        .key
        .iter()
        .zip(registers)
        .map(|(field, register)| match field {
            FieldType::Ipv4Address => Expression::Payload(Field::DestinationAddress, register),
            FieldType::Protocol => Expression::Meta(Meta::Transport, register),
            FieldType::Port => Expression::Payload(Field::DestinationPort, register),
        })
        .collect();
    rule.push(Expression::Lookup {
        map: map.name,
        key: Register::R0,
        value: Register::R0,
    });
    rule.push(Expression::DestinationNat {
        address: Register::R0,
        port: Register::R1,
    });
    rule
}

fn add<'a>(batch: Batch<'a>, ports: &[Published]) -> Batch<'a> {
    let (anywhere, at) = entries(ports);
    batch
        .add_entries(ANYWHERE.name, &anywhere)
        .add_entries(AT.name, &at)
}

/// The entries of the two maps: for any address, and for one address.
fn entries(ports: &[Published]) -> (Vec<Entry>, Vec<Entry>) {
    let (anywhere, at): (Vec<_>, Vec<_>) = ports
        .iter()
        .partition(|port| port.binding.host_address.is_unspecified());
    (
        anywhere.into_iter().map(entry).collect(),
        at.into_iter().map(entry).collect(),
    )
}

fn entry(port: &Published) -> Entry {
    let address = port.binding.host_address.octets();
    let protocol = [port.binding.protocol.number()];
    let host_port = port.binding.host_port.to_be_bytes();
    let mut key: Vec<&[u8]> = vec![&protocol, &host_port];
    if !port.binding.host_address.is_unspecified() {
        key.insert(0, &address);
    }
    let container = port.container.octets();
    let container_port = port.binding.container_port.to_be_bytes();
    Entry {
        key: concatenation(&key),
        value: concatenation(&[&container, &container_port]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::request::Protocol;

    fn published(host_address: Ipv4Addr) -> Published {
        Published {
            binding: PortBinding {
                protocol: Protocol::Udp,
                container_port: 53,
                host_address,
                host_port: 5353,
            },
            container: Ipv4Addr::new(172, 18, 0, 9),
        }
    }

    #[test]
    fn a_port_on_one_address_has_the_address_in_its_key() {
        let (anywhere, at) = entries(&[published(Ipv4Addr::LOCALHOST)]);
        assert!(anywhere.is_empty());
        assert_eq!(at[0].key, [127, 0, 0, 1, 17, 0, 0, 0, 0x14, 0xe9, 0, 0]);
        assert_eq!(at[0].value, [172, 18, 0, 9, 0, 53, 0, 0]);
    }

    #[test]
    fn a_port_on_all_addresses_has_none() {
        let (anywhere, at) = entries(&[published(Ipv4Addr::UNSPECIFIED)]);
        assert!(at.is_empty());
        assert_eq!(anywhere[0].key, [17, 0, 0, 0, 0x14, 0xe9, 0, 0]);
    }
}
