//! The instance's bridge: its subnet, its address, its settings.
//!
//! The subnet is chosen without a lock between instances: take one that nobody on the host uses, put
//! its address on the bridge, and look again. Of two instances that chose the same, at least one sees
//! the other when it looks again, and goes on to the next.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::address::{Addresses, mac_of};
use super::error::{NetworkError, Result};
use super::instance::Instance;
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
}

/// What is kept of it.
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

/// Makes the bridge, or finds it. `fixed`: containers live in this subnet, so no other will do.
pub(crate) fn ensure(instance: &Instance, fixed: Option<Subnet>) -> Result<Bridge> {
    let mut routes = Routes::open().map_err(NetworkError::kernel("open a netlink socket"))?;
    let index = find_or_add(&mut routes, instance)?;
    configure(&instance.bridge)?;
    let subnet = match fixed {
        Some(subnet) => {
            assign(&mut routes, index, subnet)?;
            subnet
        }
        None => choose(&mut routes, instance, index)?,
    };
    if recorded(instance) != Some(subnet) {
        record(&instance.state, subnet).map_err(NetworkError::file(&instance.state))?;
    }
    set("net/ipv4/ip_forward", "1")?;
    Ok(Bridge {
        name: instance.bridge.clone(),
        index,
        addresses: Addresses::new(subnet),
    })
}

/// Removes the bridge.
pub(crate) fn remove(instance: &Instance) -> Result<()> {
    Routes::open()
        .and_then(|mut routes| routes.delete(&instance.bridge))
        .map_err(NetworkError::kernel(format!(
            "remove bridge {}",
            instance.bridge
        )))
}

fn find_or_add(routes: &mut Routes, instance: &Instance) -> Result<u32> {
    let name = &instance.bridge;
    let failed = || NetworkError::kernel(format!("make bridge {name}"));
    if let Some(link) = routes.link(name).map_err(failed())? {
        return Ok(link.index);
    }
    // A fixed hardware address: without one the bridge takes its lowest port's, and changes it as
    // containers come and go.
    let mac = mac_of(
        pool(instance.subnet_start)
            .next()
            .map_or_else(|| std::net::Ipv4Addr::UNSPECIFIED, Subnet::network),
    );
    routes.add_bridge(name, mac).map_err(failed())?;
    let link = routes.link(name).map_err(failed())?;
    link.map(|link| link.index)
        .ok_or_else(|| failed()(io::ErrorKind::NotFound.into()))
}

/// `route_localnet`: connections of the host to 127.0.0.1 that are sent on to a container come from
/// 127.0.0.1; the firewall's `guard` chain keeps containers from using it the other way (K2).
fn configure(bridge: &str) -> Result<()> {
    set(&format!("net/ipv6/conf/{bridge}/accept_ra"), "0")?;
    set(&format!("net/ipv6/conf/{bridge}/disable_ipv6"), "1")?;
    set(&format!("net/ipv4/conf/{bridge}/route_localnet"), "1")
}

fn choose(routes: &mut Routes, instance: &Instance, index: u32) -> Result<Subnet> {
    let candidates = recorded(instance)
        .into_iter()
        .chain(pool(instance.subnet_start));
    for subnet in candidates {
        if !is_free(routes, index, subnet)? {
            continue;
        }
        assign(routes, index, subnet)?;
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

fn is_free(routes: &mut Routes, index: u32, subnet: Subnet) -> Result<bool> {
    let others = routes
        .subnets(index)
        .map_err(NetworkError::kernel("list the host's addresses and routes"))?;
    Ok(!others.iter().any(|other| other.overlaps(subnet)))
}

/// An address that the bridge has already is no error.
fn assign(routes: &mut Routes, index: u32, subnet: Subnet) -> Result<()> {
    let gateway = subnet.host(1);
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
