//! Network namespaces. Each is made by a thread of its own, which enters it, sets it up and ends; what
//! keeps the namespace alive is one open file, and later the container's processes. Nothing of it is in
//! the file system, so a service that is killed leaves none behind.

use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, unshare};

use super::address::{Lease, mac_of};
use super::bridge::Bridge;
use super::error::{NetworkError, Result};
use super::route::{Routes, Veth};

/// The container's interface.
const INTERFACE: &str = "eth0";
const LOOPBACK: u32 = 1;

/// Settings of a new namespace. Any user may open low ports and ping: both are the container's own.
/// Interfaces made later have no IPv6 (K8) and believe no router (K1).
const SETTINGS: [(&str, &str); 4] = [
    ("net/ipv4/ip_unprivileged_port_start", "0"),
    ("net/ipv4/ping_group_range", "0 2147483647"),
    ("net/ipv6/conf/default/accept_ra", "0"),
    ("net/ipv6/conf/default/disable_ipv6", "1"),
];

/// A network namespace that is ready for a container.
#[derive(Debug)]
pub(crate) struct Namespace {
    handle: OwnedFd,
    /// The place on the bridge; absent: only a loopback interface.
    pub(crate) port: Option<BridgePort>,
}

/// A namespace's place on the bridge.
#[derive(Debug)]
pub(crate) struct BridgePort {
    /// The host's end of the veth pair.
    pub(crate) veth: String,
    pub(crate) lease: Lease,
    pub(crate) gateway: Ipv4Addr,
}

impl Namespace {
    /// A path that other processes of root can open while this process lives and has the namespace.
    pub(crate) fn path(&self) -> PathBuf {
        let handle = self.handle.as_raw_fd();
        PathBuf::from(format!("/proc/{}/fd/{handle}", std::process::id()))
    }
}

/// Makes a namespace, in a thread of its own.
pub(crate) async fn build(place: Option<(Bridge, BridgePort)>) -> Result<Namespace> {
    let (answer, answered) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("netns".to_owned())
        .spawn(move || answer.send(build_here(place)).is_ok())
        .map_err(NetworkError::kernel("start a thread"))?;
    answered.await.map_err(|_| NetworkError::TaskLost)?
}

/// This thread stays in the new namespace: it must end after this.
fn build_here(place: Option<(Bridge, BridgePort)>) -> Result<Namespace> {
    let mut host = Routes::open().map_err(NetworkError::kernel("open a netlink socket"))?;
    unshare(CloneFlags::CLONE_NEWNET)
        .map_err(|errno| NetworkError::kernel("make a network namespace")(errno.into()))?;
    let own = "/proc/thread-self/ns/net";
    let handle = OwnedFd::from(File::open(own).map_err(NetworkError::file(own))?);
    for (name, value) in SETTINGS {
        set(name, value)?;
    }
    let mut inside = Routes::open().map_err(NetworkError::kernel("open a netlink socket"))?;
    inside
        .set_up(LOOPBACK)
        .map_err(NetworkError::kernel("bring up the loopback interface"))?;
    if let Some((bridge, port)) = &place {
        plug(&mut host, &mut inside, bridge, port, &handle).map_err(NetworkError::kernel(
            format!("connect {} to the bridge", port.veth),
        ))?;
    }
    let port = place.map(|(_, port)| port);
    Ok(Namespace { handle, port })
}

fn plug(
    host: &mut Routes,
    inside: &mut Routes,
    bridge: &Bridge,
    port: &BridgePort,
    namespace: &OwnedFd,
) -> io::Result<()> {
    let address = port.lease.address();
    host.add_veth(&Veth {
        host: &port.veth,
        bridge: bridge.index,
        inside: INTERFACE,
        inside_mac: mac_of(address),
        namespace: namespace.as_fd(),
    })?;
    let link = inside.link(INTERFACE)?.ok_or(io::ErrorKind::NotFound)?;
    inside.add_address(link.index, address, port.lease.subnet())?;
    inside.add_default_route(link.index, port.gateway)?;
    inside.wait_until_running(INTERFACE)?;
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
