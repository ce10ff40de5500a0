//! Network namespaces. Each is made by a thread of its own, which enters it, sets it up and ends; what
//! keeps the namespace alive is one open file, and later the container's processes. Nothing of it is in
//! the file system, so a service that is killed leaves none behind.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns, unshare};

use super::address::Lease;
use super::bridge::Bridge;
use super::error::{NetworkError, Result};
use super::family::Address;
use super::ipv6;
use super::numbers::Number;
use super::route::{Mac, Routes, Veth};

const LOOPBACK: u32 = 1;

/// Settings of a new namespace. Any user may open low ports and ping: both are the container's own.
/// Interfaces made later have no IPv6 (K8) unless their network has it, and believe no router (K1).
const SETTINGS: [(&str, &str); 4] = [
    ("net/ipv4/ip_unprivileged_port_start", "0"),
    ("net/ipv4/ping_group_range", "0 2147483647"),
    ("net/ipv6/conf/default/accept_ra", "0"),
    ("net/ipv6/conf/default/disable_ipv6", "1"),
];

/// A network namespace that is ready for a container.
#[derive(Debug)]
pub(crate) struct Namespace {
    pub(crate) handle: OwnedFd,
    /// The places on bridges; none: only a loopback interface.
    pub(crate) ports: Vec<BridgePort>,
}

/// A namespace's place on a bridge.
#[derive(Debug)]
pub(crate) struct BridgePort {
    /// The network's name.
    pub(crate) network: String,
    /// The host's end of the veth pair.
    pub(crate) veth: String,
    /// The other end.
    pub(crate) interface: String,
    pub(crate) lease: Lease,
    pub(crate) gateway: Ipv4Addr,
    /// The way out is through here.
    pub(crate) routed: bool,
    /// Absent: the network has no IPv6.
    pub(crate) ipv6: Option<Ipv6Port>,
    /// Keeps the name of the veth pair.
    pub(crate) _number: Number,
}

/// The IPv6 side of a place on a bridge.
#[derive(Debug)]
pub(crate) struct Ipv6Port {
    pub(crate) lease: Lease<Ipv6Addr>,
    pub(crate) gateway: Ipv6Addr,
    /// The way out by IPv6 is through here.
    pub(crate) routed: bool,
}

/// A place that is to be made, and the bridge that it is on.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) bridge: Bridge,
    pub(crate) port: BridgePort,
    pub(crate) mac: Mac,
}

/// A path that other processes of root can open while this process lives and has the namespace open.
pub(crate) fn path(handle: &OwnedFd) -> PathBuf {
    let handle = handle.as_raw_fd();
    PathBuf::from(format!("/proc/{}/fd/{handle}", std::process::id()))
}

/// Makes a namespace, or sets up one that was `prepared`, in a thread of its own.
pub(crate) async fn build(places: Vec<Place>, prepared: Option<PathBuf>) -> Result<Namespace> {
    in_thread(move || build_here(places, prepared)).await
}

/// Makes one more place in a namespace that there is.
pub(crate) async fn plug_into(handle: OwnedFd, place: Place) -> Result<BridgePort> {
    in_thread(move || {
        let mut host = netlink()?;
        let mut inside = enter(&handle)?;
        let plugged = plug(&mut host, &mut inside, &place, &handle);
        if plugged.is_err() {
            // The namespace goes on, and would keep what was made.
            let veth = &place.port.veth;
            host.delete(veth)
                .map_err(NetworkError::kernel(format!("remove interface {veth}")))?;
        }
        plugged.map(|()| place.port)
    })
    .await
}

/// Lets the way out of a namespace, for the gateway's family, be through this gateway.
pub(crate) async fn route_through<A: Address>(
    handle: OwnedFd,
    interface: String,
    gateway: A,
) -> Result<()> {
    in_thread(move || {
        let mut inside = enter(&handle)?;
        let link = inside.link(&interface).and_then(|link| {
            let link = link.ok_or(io::ErrorKind::NotFound)?;
            inside.add_default_route(link.index, gateway)
        });
        link.map_err(NetworkError::kernel(format!(
            "route through {gateway} in a container"
        )))
    })
    .await
}

/// A thread that changes its namespace must end afterwards.
async fn in_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let (answer, answered) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("netns".to_owned())
        .spawn(move || answer.send(work()).is_ok())
        .map_err(NetworkError::kernel("start a thread"))?;
    answered.await.map_err(|_| NetworkError::TaskLost)?
}

/// Of the namespace that the thread is in now.
fn netlink() -> Result<Routes> {
    Routes::open().map_err(NetworkError::kernel("open a netlink socket"))
}

fn enter(handle: &OwnedFd) -> Result<Routes> {
    setns(handle, CloneFlags::CLONE_NEWNET)
        .map_err(|errno| NetworkError::kernel("enter a network namespace")(errno.into()))?;
    netlink()
}

fn build_here(places: Vec<Place>, prepared: Option<PathBuf>) -> Result<Namespace> {
    let mut host = netlink()?;
    if prepared.is_none() {
        unshare(CloneFlags::CLONE_NEWNET)
            .map_err(|errno| NetworkError::kernel("make a network namespace")(errno.into()))?;
    }
    let path = prepared.unwrap_or_else(|| "/proc/thread-self/ns/net".into());
    let handle = OwnedFd::from(File::open(&path).map_err(NetworkError::file(path))?);
    setns(&handle, CloneFlags::CLONE_NEWNET)
        .map_err(|errno| NetworkError::kernel("enter a network namespace")(errno.into()))?;
    for (name, value) in SETTINGS {
        set(name, value)?;
    }
    let mut inside = netlink()?;
    inside
        .set_up(LOOPBACK)
        .map_err(NetworkError::kernel("bring up the loopback interface"))?;
    for place in &places {
        plug(&mut host, &mut inside, place, &handle)?;
    }
    let mut ports: Vec<_> = places.into_iter().map(|place| place.port).collect();
    // They are where the places were, which are larger, and stay as long as the container.
    ports.shrink_to_fit();
    Ok(Namespace { handle, ports })
}

fn plug(host: &mut Routes, inside: &mut Routes, place: &Place, namespace: &OwnedFd) -> Result<()> {
    let Place { bridge, port, mac } = place;
    let veth = Veth {
        host: &port.veth,
        bridge: bridge.index,
        inside: &port.interface,
        inside_mac: *mac,
        isolated: !bridge.between,
        mtu: bridge.mtu,
        namespace: namespace.as_fd(),
    };
    let failed = || NetworkError::kernel(format!("connect {} to the bridge", port.veth));
    host.add_veth(&veth).map_err(failed())?;
    if port.ipv6.is_some() {
        ipv6::configure(&port.interface, true)?;
    }
    connect(host, inside, place).map_err(failed())
}

fn connect(host: &mut Routes, inside: &mut Routes, place: &Place) -> io::Result<()> {
    let Place { bridge, port, .. } = place;
    let link = inside.link(&port.interface)?;
    let link = link.ok_or(io::ErrorKind::NotFound)?;
    inside.add_address(link.index, port.lease.address(), port.lease.subnet())?;
    if port.routed {
        inside.add_default_route(link.index, port.gateway)?;
    }
    if let Some(ipv6) = &port.ipv6 {
        inside.add_address(link.index, ipv6.lease.address(), ipv6.lease.subnet())?;
        if ipv6.routed {
            inside.add_default_route(link.index, ipv6.gateway)?;
        }
    }
    inside.wait_until_running(&port.interface)?;
    if let Some(ipv6) = &port.ipv6 {
        inside.wait_until_answered(ipv6.lease.address())?;
    }
    host.wait_until_running(&port.veth)?;
    host.wait_until_running(&bridge.name)
}

/// Writes a setting of the thread's network namespace, a path below `/proc/sys`. One that this kernel
/// does not have (IPv6 switched off) is no error.
pub(crate) fn set(name: &str, value: &str) -> Result<()> {
    let path = Path::new("/proc/sys").join(name);
    match fs::write(&path, value) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(NetworkError::file(path)(error))
        }
        _ => Ok(()),
    }
}
