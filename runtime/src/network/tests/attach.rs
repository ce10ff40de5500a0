//! Attaching and detaching: what a container gets, and that nothing stays.

use std::collections::HashSet;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV6};
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, sendto, socket_with};

use super::members::{address, gateway};
use super::support::{
    OUTSIDE, Place, instance, kernel_state, on_a_host, port, wait_for_kernel_state, with_a_network,
};
use crate::network::pool::Pooled;
use crate::network::{Network, NetworkError, NetworkKind, NetworkRequest};

fn bridge() -> NetworkRequest {
    NetworkRequest::default()
}

/// Names of the interfaces with an IPv6 address, in the thread's namespace.
fn interfaces_with_ipv6() -> Vec<String> {
    let text = fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap_or_default();
    let names = text
        .lines()
        .filter_map(|line| line.split_whitespace().last());
    names.map(str::to_owned).collect()
}

/// The network namespaces that this process has open.
fn open_namespaces() -> Vec<PathBuf> {
    let open = fs::read_dir("/proc/self/fd").unwrap();
    let links = open.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    let is_network = |link: &PathBuf| link.to_string_lossy().starts_with("net:");
    links.filter(is_network).collect()
}

#[test]
fn a_container_gets_an_interface_an_address_and_a_route() {
    with_a_network(async |network| {
        let attachment = network.attach("a", &bridge()).await.unwrap();
        let endpoint = attachment.endpoints[0].clone();
        assert_eq!(endpoint.prefix, 16);
        let place = Place::of(&attachment);
        let routes = place.run(|| fs::read_to_string("/proc/thread-self/net/route").unwrap());
        let gateway = format!(
            "eth0\t00000000\t{:08X}",
            u32::from_le_bytes(endpoint.gateway.octets())
        );
        assert!(routes.contains(&gateway), "{routes}");
        let _server = Place::here().serve(4000, "host");
        let said = place.ask(endpoint.gateway, 4000);
        assert_eq!(said, format!("{} host", endpoint.address));
        network.detach("a", &attachment).await.unwrap();
    });
}

#[test]
fn containers_reach_each_other_and_the_outside_with_the_hosts_address() {
    with_a_network(async |network| {
        let outside = Place::neighbour(100);
        let a = network.attach("a", &bridge()).await.unwrap();
        let b = network.attach("b", &bridge()).await.unwrap();
        let _in_b = Place::of(&b).serve(80, "b");
        let _outside = outside.serve(80, "outside");
        let from_a = Place::of(&a);
        assert_eq!(from_a.ask(address(&b), 80), format!("{} b", address(&a)));
        let said = from_a.ask(OUTSIDE, 80);
        assert_eq!(said, "198.51.100.1 outside");
    });
}

#[test]
fn k1_k8_no_router_is_believed_and_no_ipv6_address_is_there() {
    with_a_network(async |network| {
        let attachment = network.attach("a", &bridge()).await.unwrap();
        let setting = |name: &str| {
            let path = format!("/proc/sys/net/ipv6/conf/{name}");
            fs::read_to_string(path)
                .unwrap_or("0".into())
                .trim()
                .to_owned()
        };
        let place = Place::of(&attachment);
        assert_eq!(place.run(|| setting("eth0/accept_ra")), "0");
        let interface = network.inspect("bridge").unwrap().interface;
        assert_eq!(setting(&format!("{interface}/accept_ra")), "0");
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert!(
            place
                .run(interfaces_with_ipv6)
                .iter()
                .all(|name| name == "lo")
        );
        assert!(interfaces_with_ipv6().iter().all(|name| *name != interface));
    });
}

/// A router advertisement: a default route, and a prefix to make addresses of (RFC 4861, 4.2 and 4.6.2).
/// It fails until the interface has an address to speak from, which the kernel gives it a moment later than it is asked to.
fn advertise(interface: &str) -> rustix::io::Result<usize> {
    let mut message = vec![134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
    message.extend([3, 4, 64, 0xc0, 0, 0, 7, 8, 0, 0, 7, 8, 0, 0, 0, 0]);
    message.extend(PREFIX.octets());
    let flags = SocketFlags::CLOEXEC;
    let icmp = Some(rustix::net::ipproto::ICMPV6);
    let socket = socket_with(AddressFamily::INET6, SocketType::RAW, flags, icmp).unwrap();
    // Others are not believed.
    rustix::net::sockopt::set_ipv6_multicast_hops(&socket, 255).unwrap();
    let index = nix::net::if_::if_nametoindex(interface).unwrap();
    let everyone = SocketAddrV6::new(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), 0, 0, index);
    sendto(&socket, &message, SendFlags::empty(), &everyone)
}

const PREFIX: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xbad, 0, 0, 0, 0, 0);

/// Whether the calling thread's host has a route by that advertisement.
fn believes() -> bool {
    let routes = fs::read_to_string("/proc/thread-self/net/ipv6_route").unwrap();
    routes.contains("20010db80bad")
}

/// A container that may do everything in its own network; one that listens to it proves that it is heard.
#[test]
fn k1_what_a_container_says_as_a_router_reaches_who_asked_for_it_and_not_the_host() {
    with_a_network(async |network| {
        let liar = network.attach("liar", &bridge()).await.unwrap();
        let other = network.attach("other", &bridge()).await.unwrap();
        let fool = network.attach("fool", &bridge()).await.unwrap();
        let set = |name: &str, value: &str| {
            fs::write(format!("/proc/sys/net/ipv6/conf/eth0/{name}"), value).unwrap();
        };
        for place in [Place::of(&liar), Place::of(&fool)] {
            place.run(|| {
                set("accept_dad", "0");
                set("accept_ra", "2");
                set("disable_ipv6", "0");
            });
        }
        let mut heard = 0;
        for _ in 0..200 {
            let said = Place::of(&liar).run(|| advertise("eth0"));
            assert!(matches!(said, Ok(_) | Err(Errno::ADDRNOTAVAIL)), "{said:?}");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            heard += usize::from(Place::of(&fool).run(believes));
            // The others have had time for it too.
            if heard == 10 {
                break;
            }
        }
        assert_eq!(heard, 10, "nobody hears it");
        assert!(!believes(), "the host");
        assert!(!Place::of(&other).run(believes), "a container");
    });
}

#[test]
fn nothing_is_made_before_the_first_container_and_nothing_stays_after_the_last() {
    on_a_host(|| async {
        let root = tempfile::tempdir().unwrap();
        let before = kernel_state();
        let network = instance(root.path());
        assert_eq!(kernel_state(), before);
        let request = NetworkRequest {
            ports: vec![port(Ipv4Addr::UNSPECIFIED, 0, 80)],
            ..bridge()
        };
        let attachment = network.attach("a", &request).await.unwrap();
        assert_ne!(kernel_state(), before);
        network.detach("a", &attachment).await.unwrap();
        network.detach("a", &attachment).await.unwrap();
        network.release_pool().await.unwrap();
        wait_for_kernel_state(&before).await;
    });
}

#[test]
fn a_shutdown_leaves_running_containers_what_they_have() {
    with_a_network(async |network| {
        let attachment = network.attach("a", &bridge()).await.unwrap();
        let gateway = gateway(&attachment);
        let _server = Place::here().serve(4000, "host");
        network.release_pool().await.unwrap();
        assert!(Place::of(&attachment).reaches(gateway, 4000));
        network.detach("a", &attachment).await.unwrap();
    });
}

#[test]
fn none_has_a_loopback_interface_only_and_host_has_no_namespace() {
    with_a_network(async |network| {
        let before = kernel_state();
        let request = |kind| NetworkRequest {
            kind,
            ports: vec![port(Ipv4Addr::UNSPECIFIED, 0, 80)],
            ..NetworkRequest::default()
        };
        let none = network
            .attach("n", &request(NetworkKind::None))
            .await
            .unwrap();
        let place = Place::of(&none);
        let _server = place.serve(80, "self");
        assert!(place.reaches(Ipv4Addr::LOCALHOST, 80));
        let routes = place.run(|| fs::read_to_string("/proc/thread-self/net/route").unwrap());
        assert_eq!(routes.lines().count(), 1, "{routes}");
        let host = network
            .attach("h", &request(NetworkKind::Host))
            .await
            .unwrap();
        assert_eq!(
            (&host.netns, host.ports.len(), none.ports.len()),
            (&None, 0, 0)
        );
        assert_eq!(kernel_state(), before);
    });
}

#[test]
fn a_container_without_a_network_gets_a_namespace_that_waited_for_it() {
    on_a_host(|| async {
        let root = tempfile::tempdir().unwrap();
        let before = kernel_state();
        let network = instance(root.path());
        let none = NetworkRequest {
            kind: NetworkKind::None,
            ..NetworkRequest::default()
        };
        let first = network.attach("a", &none).await.unwrap();
        let waiting = network.inner.pools.of(Pooled::Nowhere);
        while waiting.is_refilling() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        let ready = open_namespaces();
        let second = network.attach("b", &none).await.unwrap();
        let own = fs::read_link(second.netns.as_ref().unwrap()).unwrap();
        assert!(ready.contains(&own), "{own:?} of {ready:?}");
        assert_ne!(own, fs::read_link(first.netns.unwrap()).unwrap());
        let links = Place::of(&second).run(|| fs::read_to_string("/proc/thread-self/net/dev"));
        assert_eq!(links.unwrap().matches(": ").count(), 1, "only lo");
        network.release_pool().await.unwrap();
        assert!(waiting.is_empty());
        assert_eq!(kernel_state(), before, "no bridge for those that need none");
    });
}

#[test]
fn two_hundred_containers_at_once_have_an_address_each_and_leave_nothing() {
    with_a_network(async |network| {
        let before = kernel_state();
        let attach = |number: usize| {
            let network: Network = network.clone();
            tokio::spawn(async move {
                let request = NetworkRequest {
                    ports: vec![port(Ipv4Addr::LOCALHOST, 0, 80)],
                    ..NetworkRequest::default()
                };
                let id = number.to_string();
                let attachment = network.attach(&id, &request).await.unwrap();
                (id, attachment)
            })
        };
        let tasks: Vec<_> = (0..200).map(attach).collect();
        let mut attached = Vec::new();
        for task in tasks {
            attached.push(task.await.unwrap());
        }
        let addresses: HashSet<_> = attached
            .iter()
            .map(|(_, a)| a.endpoints.first().unwrap().address)
            .collect();
        assert_eq!(addresses.len(), 200);
        let (_, last) = attached.last().unwrap();
        let _server = Place::of(last).serve(80, "last");
        assert!(Place::here().reaches(Ipv4Addr::LOCALHOST, last.ports[0].host_port));
        for (id, attachment) in &attached {
            network.detach(id, attachment).await.unwrap();
        }
        network.release_pool().await.unwrap();
        wait_for_kernel_state(&before).await;
    });
}

#[test]
fn two_instances_have_different_subnets_and_do_not_meet() {
    on_a_host(|| async {
        let roots = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [first, second] = roots.each_ref().map(|root| instance(root.path()));
        let (bridge_a, bridge_b) = (bridge(), bridge());
        let (a, b) = tokio::join!(first.attach("x", &bridge_a), second.attach("x", &bridge_b));
        let (a, b) = (a.unwrap(), b.unwrap());
        let to_b = b.endpoints.first().unwrap();
        assert_ne!(a.endpoints.first().unwrap().gateway, to_b.gateway);
        let _server = Place::of(&b).serve(80, "b");
        assert!(Place::here().reaches(to_b.address, 80));
        assert!(Place::of(&a).cannot_reach(to_b.address, 80));
        first.detach("x", &a).await.unwrap();
        first.release_pool().await.unwrap();
        assert!(Place::here().reaches(to_b.address, 80));
        second.release_pool().await.unwrap();
    });
}

#[test]
fn k11_a_port_of_another_instance_is_refused_and_nothing_is_left_of_the_attempt() {
    on_a_host(|| async {
        let roots = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [first, second] = roots.each_ref().map(|root| instance(root.path()));
        let request = |host_port| NetworkRequest {
            ports: vec![port(Ipv4Addr::UNSPECIFIED, host_port, 80)],
            ..bridge()
        };
        let a = first.attach("a", &request(0)).await.unwrap();
        let taken = a.ports[0].host_port;
        let refused = second.attach("b", &request(taken)).await.unwrap_err();
        assert!(
            matches!(refused, NetworkError::PortInUse { address, .. } if address.port() == taken)
        );
        let state = kernel_state();
        let other = second.inspect("bridge").unwrap().interface;
        assert!(!state.contains(&other), "{state:?}");
        first.detach("a", &a).await.unwrap();
        let b = second.attach("b", &request(taken)).await.unwrap();
        assert_eq!(b.ports[0].host_port, taken);
        first.release_pool().await.unwrap();
        second.release_pool().await.unwrap();
    });
}
