//! The instance's packet filter table: address translation for its bridges, and who may reach what is
//! behind them.
//!
//! The rules are written once, in one transaction with every published port in it (so there is no
//! moment when a bridge is open, K4), and anew when a network comes or goes; publishing a port is one
//! map entry. Reading it, with BRIDGE and SUBNET for those of each network:
//!
//! ```text
//! table ip orlop {
//!   map published    { type inet_proto . inet_service : ipv4_addr . inet_service; }
//!   map published_at { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }
//!   chain guard       { type filter hook prerouting priority raw;
//!                       iifname BRIDGE ip daddr 127.0.0.0/8 drop                   # K2
//!                       iifname BRIDGE ip daddr != SUBNET drop }        # internal ones only
//!   chain prerouting  { type nat hook prerouting priority dstnat;
//!                       fib daddr type local goto publish }                        # K6
//!   chain output      { type nat hook output priority dstnat;
//!                       fib daddr type local goto publish }
//!   chain publish     { dnat to ip daddr . meta l4proto . th dport map @published_at
//!                       dnat to meta l4proto . th dport map @published }
//!   chain postrouting { type nat hook postrouting priority srcnat;
//!                       ip saddr SUBNET oifname != BRIDGE masquerade
//!                       ip saddr 127.0.0.0/8 oifname BRIDGE masquerade
//!                       ip saddr SUBNET oifname BRIDGE ct status dnat masquerade } # hairpin
//!   chain forward     { type filter hook forward priority filter;
//!                       ct state established,related accept
//!                       iifname BRIDGE oifname BRIDGE accept
//!                       ct status dnat accept
//!                       oifname BRIDGE drop }             # K5, and other networks' containers
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
use super::nft::{self, Batch, ChainType, Entry, FieldType, Hook, Map};
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

/// What the rules must know of one network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Behind {
    pub(crate) bridge: String,
    pub(crate) subnet: Subnet,
    /// The bridge's address.
    pub(crate) gateway: Ipv4Addr,
    /// No way out.
    pub(crate) internal: bool,
    /// What leaves has the host's address.
    pub(crate) masquerade: bool,
}

/// The table of one instance.
#[derive(Clone, Debug)]
pub(crate) struct Firewall {
    pub(crate) table: String,
}

impl Firewall {
    /// Writes the whole table anew, with these networks and ports, at once: also over one that is there.
    pub(crate) fn install(&self, networks: &[Behind], ports: &[Published]) -> Result<()> {
        let batch = Batch::new(&self.table)
            .add_table()
            .delete_table()
            .add_table();
        let batch = batch.add_map(&ANYWHERE).add_map(&AT);
        let batch = rules(networks)
            .iter()
            .fold(chains(batch), |batch, (chain, rule)| {
                batch.add_rule(chain, rule)
            });
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

    /// Whether the table still has all of its rules.
    pub(crate) fn is_whole(&self, networks: &[Behind]) -> Result<bool> {
        let there = nft::count_rules(&self.table);
        let there = there.map_err(NetworkError::kernel(format!(
            "read nftables table {}",
            self.table
        )))?;
        Ok(there == rules(networks).len())
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
}

fn chains(batch: Batch<'_>) -> Batch<'_> {
    use ChainType::{Filter, Nat};
    batch
        .add_base_chain("guard", Filter, Hook::Prerouting, PRIORITY_RAW)
        .add_base_chain("prerouting", Nat, Hook::Prerouting, PRIORITY_DESTINATION)
        .add_base_chain("output", Nat, Hook::Output, PRIORITY_DESTINATION)
        .add_base_chain("postrouting", Nat, Hook::Postrouting, PRIORITY_SOURCE)
        .add_base_chain("forward", Filter, Hook::Forward, PRIORITY_FILTER)
        .add_chain("publish")
}

/// A chain's name and a rule at its end.
type Rule<'a> = (&'static str, Vec<Expression<'a>>);

/// All rules, in the order of the table above.
fn rules(networks: &[Behind]) -> Vec<Rule<'_>> {
    let publish = || [on::for_this_host(), end(Verdict::Goto("publish"))].concat();
    let each = |rules: fn(&Behind) -> Vec<Rule<'_>>| networks.iter().flat_map(rules);
    let mut all: Vec<_> = each(guard).collect();
    all.extend([
        ("prerouting", publish()),
        ("output", publish()),
        ("publish", translate(&AT)),
        ("publish", translate(&ANYWHERE)),
    ]);
    all.extend(each(translate_source));
    all.push(forward([on::established(), end(Verdict::Accept)]));
    all.extend(each(|network| {
        let bridge = [
            on::input_is(&network.bridge),
            on::output_is(&network.bridge),
        ];
        vec![forward([bridge.concat(), end(Verdict::Accept)])]
    }));
    all.push(forward([on::published(), end(Verdict::Accept)]));
    all.extend(each(|network| {
        vec![forward([
            on::output_is(&network.bridge),
            end(Verdict::Drop),
        ])]
    }));
    all
}

fn end<'a>(verdict: Verdict<'a>) -> Vec<Expression<'a>> {
    vec![Expression::Verdict(verdict)]
}

fn forward<'a>(parts: [Vec<Expression<'a>>; 2]) -> Rule<'a> {
    ("forward", parts.concat())
}

fn guard(network: &Behind) -> Vec<Rule<'_>> {
    let from_inside = || on::input_is(&network.bridge);
    let loopback = on::address_in(Field::DestinationAddress, on::LOOPBACK);
    let mut rules = vec![(
        "guard",
        [from_inside(), loopback, end(Verdict::Drop)].concat(),
    )];
    if network.internal {
        let outside = on::address_not_in(Field::DestinationAddress, network.subnet);
        rules.push((
            "guard",
            [from_inside(), outside, end(Verdict::Drop)].concat(),
        ));
    }
    rules
}

fn translate_source(network: &Behind) -> Vec<Rule<'_>> {
    let bridge = network.bridge.as_str();
    let from_subnet = || on::address_in(Field::SourceAddress, network.subnet);
    let from_loopback = on::address_in(Field::SourceAddress, on::LOOPBACK);
    let mut conditions = vec![
        [from_loopback, on::output_is(bridge)].concat(),
        [from_subnet(), on::output_is(bridge), on::published()].concat(),
    ];
    if network.masquerade && !network.internal {
        conditions.push([from_subnet(), on::output_is_not(bridge)].concat());
    }
    let masquerade = |mut rule: Vec<_>| {
        rule.push(Expression::Masquerade);
        ("postrouting", rule)
    };
    conditions.into_iter().map(masquerade).collect()
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
