//! The bridges: subnet, address, settings.
//!
//! A subnet is chosen without a lock between instances: take one that nobody on the host uses, put
//! its address on the bridge, and look again. Of two instances that chose the same, at least one sees
//! the other when it looks again, and goes on to the next.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::address::{Addresses, mac_of};
use super::definition::Definition;
use super::error::{NetworkError, Result};
use super::family::Address;
use super::instance::Instance;
use super::ipv6::{self, Ipv6};
use super::namespace::set;
use super::route::Routes;
use super::subnet::{Subnet, pool};

const RECORD: &str = "bridge.json";

/// The bridge as it is in the kernel.
#[derive(Clone, Debug)]
pub(crate) struct Bridge {
    pub(crate) name: String,
    pub(crate) index: u32,
    pub(crate) addresses: Addresses,
    /// Absent: it has no IPv6.
    pub(crate) ipv6: Option<Addresses<Ipv6Addr>>,
    /// Whether its ports reach each other.
    pub(crate) between: bool,
    /// Bytes; absent: the kernel's default.
    pub(crate) mtu: Option<u32>,
}

impl Bridge {
    /// What was given out of the same subnet stays given out.
    pub(crate) fn keep_addresses(&mut self, before: &Self) {
        if self.addresses.subnet() == before.addresses.subnet() {
            self.addresses = before.addresses.clone();
        }
        if self.ipv6.is_some() && before.ipv6.is_some() {
            self.ipv6 = before.ipv6.clone();
        }
    }
}

/// Subnets of an instance's networks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Taken {
    pub(crate) ipv4: Vec<Subnet>,
    pub(crate) ipv6: Vec<Subnet<Ipv6Addr>>,
}

/// What is kept of the one that always exists.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Record {
    subnet: Subnet,
}

/// The subnet that the instance chose before, if it did. A record that cannot be read is none: another
/// subnet can be chosen.
pub(crate) fn recorded(instance: &Instance) -> Option<Subnet> {
    let bytes = fs::read(instance.state.join(RECORD)).ok()?;
    serde_json::from_slice::<Record>(&bytes)
        .inspect_err(|error| tracing::warn!(%error, "the record of the bridge is unreadable"))
        .ok()
        .map(|record| record.subnet)
}

/// Makes a network's bridge, or finds it. `inhabited`: containers live in this subnet, so it is not
/// asked whether it is free.
pub(crate) fn ensure(
    instance: &Instance,
    definition: &Definition,
    inhabited: Option<Subnet>,
) -> Result<Bridge> {
    let mut routes = Routes::open().map_err(NetworkError::kernel("open a netlink socket"))?;
    let name = instance.bridge_of(definition.number);
    let options = definition.options()?;
    let index = find_or_add(&mut routes, instance, definition, options.mtu)?;
    configure(&name, definition)?;
    let subnet = match (inhabited, definition.subnet) {
        (Some(subnet), _) => subnet,
        (None, Some(subnet)) if is_free(&mut routes, index, subnet)? => subnet,
        (None, Some(subnet)) => return Err(NetworkError::SubnetTaken(subnet.to_string())),
        (None, None) => {
            let candidates = recorded(instance).into_iter();
            choose(
                &mut routes,
                index,
                candidates.chain(pool(instance.subnet_start)),
            )?
        }
    };
    let gateway = definition.gateway_in(subnet);
    assign(&mut routes, index, gateway, subnet)?;
    if definition.subnet.is_none() && recorded(instance) != Some(subnet) {
        record(&instance.state, subnet).map_err(NetworkError::file(&instance.state))?;
    }
    set("net/ipv4/ip_forward", "1")?;
    let ipv6 = definition.ipv6.map(|ipv6| {
        assign_ipv6(&mut routes, index, &ipv6, inhabited.is_some())?;
        let range = ipv6.ip_range.unwrap_or(ipv6.subnet);
        let kept = definition.kept();
        Ok(Addresses::new(ipv6.subnet, ipv6.gateway, range, &kept.1))
    });
    Ok(Bridge {
        name,
        index,
        ipv6: ipv6.transpose()?,
        addresses: Addresses::new(
            subnet,
            gateway,
            definition.ip_range.unwrap_or(subnet),
            &definition.kept().0,
        ),
        between: options.between,
        mtu: options.mtu,
    })
}

/// Finds a subnet for a new network, the one that it asks for or a free one, and keeps others from it
/// by making the bridge. `taken`: those of this instance's other networks, whose bridges may not be
/// there.
pub(crate) fn found(instance: &Instance, definition: &Definition, taken: &Taken) -> Result<Subnet> {
    let clear = |subnet: &Subnet| !taken.ipv4.iter().any(|other| other.overlaps(*subnet));
    let is_taken = |ipv6: &Ipv6| taken.ipv6.iter().any(|other| other.overlaps(ipv6.subnet));
    if let Some(ipv6) = definition.ipv6.filter(is_taken) {
        return Err(NetworkError::SubnetTaken(ipv6.subnet.to_string()));
    }
    if let Some(subnet) = definition.subnet.filter(|subnet| !clear(subnet)) {
        return Err(NetworkError::SubnetTaken(subnet.to_string()));
    }
    let mut routes = Routes::open().map_err(NetworkError::kernel("open a netlink socket"))?;
    let index = find_or_add(&mut routes, instance, definition, definition.options()?.mtu)?;
    let chosen = match definition.subnet {
        Some(subnet) if is_free(&mut routes, index, subnet)? => Ok(subnet),
        Some(subnet) => Err(NetworkError::SubnetTaken(subnet.to_string())),
        None => choose(
            &mut routes,
            index,
            pool(instance.subnet_start).filter(clear),
        ),
    };
    let held = chosen.and_then(|subnet| {
        configure(&instance.bridge_of(definition.number), definition)?;
        assign(&mut routes, index, definition.gateway_in(subnet), subnet)?;
        if let Some(ipv6) = &definition.ipv6 {
            assign_ipv6(&mut routes, index, ipv6, false)?;
        }
        Ok(subnet)
    });
    if held.is_err() {
        remove(&instance.bridge_of(definition.number))?;
    }
    held
}

/// Removes a bridge.
pub(crate) fn remove(name: &str) -> Result<()> {
    Routes::open()
        .and_then(|mut routes| routes.delete(name))
        .map_err(NetworkError::kernel(format!("remove bridge {name}")))
}

fn find_or_add(
    routes: &mut Routes,
    instance: &Instance,
    definition: &Definition,
    mtu: Option<u32>,
) -> Result<u32> {
    let name = &instance.bridge_of(definition.number);
    let failed = || NetworkError::kernel(format!("make bridge {name}"));
    if let Some(link) = routes.link(name).map_err(failed())? {
        return Ok(link.index);
    }
    // A fixed hardware address: without one the bridge takes its lowest port's, and changes it as
    // containers come and go. Of the subnet's first address, which no container has.
    let subnet = definition
        .subnet
        .or_else(|| pool(instance.subnet_start).next());
    let mac = mac_of(subnet.map_or(Ipv4Addr::UNSPECIFIED, Subnet::network));
    routes.add_bridge(name, mac, mtu).map_err(failed())?;
    let link = routes.link(name).map_err(failed())?;
    link.map(|link| link.index)
        .ok_or_else(|| failed()(io::ErrorKind::NotFound.into()))
}

/// `route_localnet`: connections of the host to 127.0.0.1 that are sent on to a container come from
/// 127.0.0.1; the firewall's `guard` chain keeps containers from using it the other way (K2).
fn configure(bridge: &str, definition: &Definition) -> Result<()> {
    if definition.ipv6.is_some() {
        set(&format!("net/ipv6/conf/{bridge}/addr_gen_mode"), "1")?;
    }
    ipv6::configure(bridge, definition.ipv6.is_some())?;
    set(&format!("net/ipv4/conf/{bridge}/route_localnet"), "1")
}

/// The first of the candidates that nobody else has; the bridge has it then.
fn choose(
    routes: &mut Routes,
    index: u32,
    candidates: impl Iterator<Item = Subnet>,
) -> Result<Subnet> {
    for subnet in candidates {
        if !is_free(routes, index, subnet)? {
            continue;
        }
        assign(routes, index, subnet.host(1), subnet)?;
        if is_free(routes, index, subnet)? {
            return Ok(subnet);
        }
        routes
            .delete_address(index, subnet.host(1), subnet)
            .map_err(NetworkError::kernel(format!(
                "take {subnet} from the bridge"
            )))?;
    }
    Err(NetworkError::SubnetsExhausted)
}

/// `inhabited`: containers live in the subnet, so it is not asked whether it is free.
fn assign_ipv6(routes: &mut Routes, index: u32, ipv6: &Ipv6, inhabited: bool) -> Result<()> {
    if !inhabited && !is_free(routes, index, ipv6.subnet)? {
        return Err(NetworkError::SubnetTaken(ipv6.subnet.to_string()));
    }
    assign(routes, index, ipv6::BRIDGE, ipv6::LINK_LOCAL)?;
    assign(routes, index, ipv6.gateway, ipv6.subnet)?;
    routes
        .wait_until_answered(ipv6.gateway)
        .map_err(NetworkError::kernel(format!(
            "wait for bridge address {}",
            ipv6.gateway
        )))?;
    ipv6::forward()
}

fn is_free<A: Address>(routes: &mut Routes, index: u32, subnet: Subnet<A>) -> Result<bool> {
    let others = routes
        .subnets::<A>(index)
        .map_err(NetworkError::kernel("list the host's addresses and routes"))?;
    Ok(!others.iter().any(|other| other.overlaps(subnet)))
}

/// An address that the bridge has already is no error.
fn assign<A: Address>(
    routes: &mut Routes,
    index: u32,
    gateway: A,
    subnet: Subnet<A>,
) -> Result<()> {
    match routes.add_address(index, gateway, subnet) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => routes.set_up(index),
        other => other,
    }
    .map_err(NetworkError::kernel(format!(
        "give the bridge address {gateway}"
    )))
}

fn record(state: &Path, subnet: Subnet) -> io::Result<()> {
    fs::create_dir_all(state)?;
    let temporary = state.join(".bridge.json.new");
    let mut file = File::create(&temporary)?;
    file.write_all(&serde_json::to_vec(&Record { subnet })?)?;
    file.sync_all()?;
    fs::rename(&temporary, state.join(RECORD))?;
    File::open(state)?.sync_all()
}
