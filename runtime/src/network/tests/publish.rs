//! Published ports: who reaches them, from where, and who does not.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use super::support::{Place, instance, on_a_host, port};
use crate::network::route::Routes;
use crate::network::subnet::Subnet;
use crate::network::{Attachment, Network, NetworkRequest, PortRequest, Protocol};

const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;
const ANYWHERE: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const HOST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

async fn published(network: &Network, id: &str, ports: Vec<PortRequest>) -> Attachment {
    let request = NetworkRequest {
        ports,
        ..NetworkRequest::default()
    };
    network.attach(id, &request).await.unwrap()
}

fn address(attachment: &Attachment) -> Ipv4Addr {
    attachment.endpoints.first().unwrap().address
}

fn gateway(attachment: &Attachment) -> Ipv4Addr {
    attachment.endpoints.first().unwrap().gateway
}

#[test]
fn k3_a_port_is_reached_from_everywhere_and_outside_clients_keep_their_address() {
    on_a_host(|| async {
        let root = tempfile::tempdir().unwrap();
        let outside = Place::neighbour(100);
        let network = instance(root.path());
        let web = published(&network, "web", vec![port(ANYWHERE, 0, 80)]).await;
        let other = published(&network, "other", Vec::new()).await;
        let at = web.ports[0].host_port;
        let _server = Place::of(&web).serve(80, "web");
        let from_bridge = format!("{} web", gateway(&web));
        let host = Place::here();
        assert_eq!(outside.ask(HOST, at).unwrap(), "198.51.100.2 web");
        assert_eq!(host.ask(LOCALHOST, at).unwrap(), from_bridge);
        assert_eq!(
            host.ask(Ipv4Addr::new(127, 8, 8, 8), at).unwrap(),
            from_bridge
        );
        assert_eq!(host.ask(HOST, at).unwrap(), "198.51.100.1 web");
        assert_eq!(host.ask(gateway(&web), at).unwrap(), from_bridge);
        assert_eq!(Place::of(&other).ask(HOST, at).unwrap(), from_bridge);
        assert_eq!(Place::of(&web).ask(HOST, at).unwrap(), from_bridge);
        assert_eq!(Place::of(&web).ask(gateway(&web), at).unwrap(), from_bridge);
        network.detach("web", &web).await.unwrap();
        assert!(outside.ask(HOST, at).is_err());
        assert!(host.ask(LOCALHOST, at).is_err());
        network.release_pool().await.unwrap();
    });
}

#[test]
fn a_udp_port_is_reached_from_inside_and_outside() {
    on_a_host(|| async {
        let root = tempfile::tempdir().unwrap();
        let outside = Place::neighbour(100);
        let network = instance(root.path());
        let udp = PortRequest {
            protocol: Protocol::Udp,
            ..port(ANYWHERE, 0, 53)
        };
        let dns = published(&network, "dns", vec![udp]).await;
        let at = dns.ports[0].host_port;
        let _server = Place::of(&dns).serve_udp((ANYWHERE, 53), "dns");
        assert_eq!(outside.ask_udp(HOST, at).unwrap(), "198.51.100.2 dns");
        let said = Place::here().ask_udp(LOCALHOST, at).unwrap();
        assert_eq!(said, format!("{} dns", gateway(&dns)));
        assert!(outside.ask(HOST, at).is_err());
        network.release_pool().await.unwrap();
    });
}

#[test]
fn k2_the_hosts_loopback_services_are_closed_to_containers() {
    on_a_host(|| async {
        let root = tempfile::tempdir().unwrap();
        let network = instance(root.path());
        let a = published(&network, "a", vec![port(LOCALHOST, 0, 80)]).await;
        let secret = UdpSocket::bind("127.0.0.1:4242").unwrap();
        secret
            .set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        Place::of(&a).run(|| {
            let mut routes = Routes::open().unwrap();
            let loopback = Subnet::new(LOCALHOST, 8).unwrap();
            routes.delete_address(1, LOCALHOST, loopback).unwrap();
            std::fs::write("/proc/sys/net/ipv4/conf/eth0/route_localnet", "1").unwrap();
            let socket = UdpSocket::bind((address(&a), 0)).unwrap();
            socket.send_to(b"attack", (LOCALHOST, 4242)).unwrap();
        });
        let heard = secret.recv_from(&mut [0; 16]);
        assert!(heard.is_err(), "{heard:?}");
        network.release_pool().await.unwrap();
    });
}

#[test]
fn k5_a_port_on_the_loopback_address_is_closed_to_neighbours() {
    on_a_host(|| async {
        let root = tempfile::tempdir().unwrap();
        let outside = Place::neighbour(100);
        let network = instance(root.path());
        let web = published(&network, "web", vec![port(LOCALHOST, 0, 80)]).await;
        let at = web.ports[0].host_port;
        let _server = Place::of(&web).serve(80, "web");
        assert!(Place::here().ask(LOCALHOST, at).is_ok());
        assert!(outside.ask(HOST, at).is_err());
        assert!(outside.ask(address(&web), 80).is_err());
        assert!(Place::of(&web).ask(LOCALHOST, 80).is_ok());
        network.release_pool().await.unwrap();
    });
}

/// From every direction: other containers by any address of the host's, the host by another address than
/// loopback, and a neighbour who says that loopback is behind this host.
#[test]
fn k5_a_port_on_the_loopback_address_is_closed_to_containers_and_to_a_lying_neighbour() {
    on_a_host(|| async {
        let root = tempfile::tempdir().unwrap();
        let outside = Place::neighbour(100);
        let network = instance(root.path());
        let web = published(&network, "web", vec![port(LOCALHOST, 0, 80)]).await;
        let other = published(&network, "other", Vec::new()).await;
        let at = web.ports[0].host_port;
        let _server = Place::of(&web).serve(80, "web");
        assert!(Place::here().ask(LOCALHOST, at).is_ok());
        for from in [Place::of(&other), Place::of(&web), Place::here()] {
            assert!(from.ask(HOST, at).is_err());
            assert!(from.ask(gateway(&web), at).is_err());
        }
        for from in [outside, Place::of(&other)] {
            from.run(|| {
                let mut routes = Routes::open().unwrap();
                let loopback = Subnet::new(LOCALHOST, 8).unwrap();
                routes.delete_address(1, LOCALHOST, loopback).unwrap();
                std::fs::write("/proc/sys/net/ipv4/conf/eth0/route_localnet", "1").unwrap();
            });
            assert!(from.ask(LOCALHOST, at).is_err());
        }
        network.release_pool().await.unwrap();
    });
}

#[test]
fn k5_a_neighbour_that_routes_through_the_host_reaches_published_ports_only() {
    on_a_host(|| async {
        let root = tempfile::tempdir().unwrap();
        let outside = Place::neighbour(100);
        let network = instance(root.path());
        let web = published(&network, "web", vec![port(HOST, 0, 80)]).await;
        let _public = Place::of(&web).serve(80, "public");
        let _private = Place::of(&web).serve(81, "private");
        assert!(Place::here().ask(address(&web), 81).is_ok());
        assert!(outside.ask(address(&web), 81).is_err());
        assert!(outside.ask(HOST, web.ports[0].host_port).is_ok());
        assert!(
            Place::here()
                .ask(LOCALHOST, web.ports[0].host_port)
                .is_err()
        );
        network.release_pool().await.unwrap();
    });
}

#[test]
fn k6_traffic_for_other_hosts_is_not_taken() {
    on_a_host(|| async {
        let root = tempfile::tempdir().unwrap();
        let (client, server) = (Place::neighbour(100), Place::neighbour(200));
        let network = instance(root.path());
        let web = published(&network, "web", vec![port(ANYWHERE, 0, 80)]).await;
        let at = web.ports[0].host_port;
        let _mine = Place::of(&web).serve(80, "container");
        let _theirs = server.serve(at, "other host");
        let said = client.ask(Ipv4Addr::new(198, 51, 200, 2), at).unwrap();
        assert_eq!(said, "198.51.100.2 other host");
        network.release_pool().await.unwrap();
    });
}
