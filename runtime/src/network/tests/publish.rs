//! Published ports: who reaches them, from where, and who does not.

use std::net::Ipv4Addr;

use super::members::{address, gateway, published};
use super::support::{ANYWHERE, HOST, LOCALHOST, PATIENCE, Place, port, with_a_network};
use crate::network::{PortRequest, Protocol};

#[test]
fn k3_a_port_is_reached_from_everywhere_and_outside_clients_keep_their_address() {
    with_a_network(async |network| {
        let outside = Place::neighbour(100);
        let web = published(&network, "web", vec![port(ANYWHERE, 0, 80)]).await;
        let other = published(&network, "other", Vec::new()).await;
        let at = web.ports[0].host_port;
        let _server = Place::of(&web).serve(80, "web");
        let from_bridge = format!("{} web", gateway(&web));
        let host = Place::here();
        assert_eq!(outside.ask(HOST, at), "198.51.100.2 web");
        assert_eq!(host.ask(LOCALHOST, at), from_bridge);
        assert_eq!(host.ask(Ipv4Addr::new(127, 8, 8, 8), at), from_bridge);
        assert_eq!(host.ask(HOST, at), "198.51.100.1 web");
        assert_eq!(host.ask(gateway(&web), at), from_bridge);
        assert_eq!(Place::of(&other).ask(HOST, at), from_bridge);
        assert_eq!(Place::of(&web).ask(HOST, at), from_bridge);
        assert_eq!(Place::of(&web).ask(gateway(&web), at), from_bridge);
        network.detach("web", &web).await.unwrap();
        assert!(outside.cannot_reach(HOST, at));
        assert!(host.cannot_reach(LOCALHOST, at));
    });
}

#[test]
fn a_udp_port_is_reached_from_inside_and_outside() {
    with_a_network(async |network| {
        let outside = Place::neighbour(100);
        let udp = PortRequest {
            protocol: Protocol::Udp,
            ..port(ANYWHERE, 0, 53)
        };
        let dns = published(&network, "dns", vec![udp]).await;
        let at = dns.ports[0].host_port;
        let _server = Place::of(&dns).serve_udp((ANYWHERE, 53), "dns");
        assert_eq!(
            outside.ask_udp(HOST, at, PATIENCE).unwrap(),
            "198.51.100.2 dns"
        );
        let said = Place::here().ask_udp(LOCALHOST, at, PATIENCE).unwrap();
        assert_eq!(said, format!("{} dns", gateway(&dns)));
        assert!(outside.cannot_reach(HOST, at));
    });
}

#[test]
fn k2_the_hosts_loopback_services_are_closed_to_containers() {
    with_a_network(async |network| {
        let a = published(&network, "a", vec![port(LOCALHOST, 0, 80)]).await;
        assert!(!Place::of(&a).is_heard_by_loopback(address(&a)));
    });
}

#[test]
fn k5_a_port_on_the_loopback_address_is_closed_to_neighbours() {
    with_a_network(async |network| {
        let outside = Place::neighbour(100);
        let web = published(&network, "web", vec![port(LOCALHOST, 0, 80)]).await;
        let at = web.ports[0].host_port;
        let _server = Place::of(&web).serve(80, "web");
        assert!(Place::here().reaches(LOCALHOST, at));
        assert!(outside.cannot_reach(HOST, at));
        assert!(outside.cannot_reach(address(&web), 80));
        assert!(Place::of(&web).reaches(LOCALHOST, 80));
    });
}

/// From every direction: other containers by any address of the host's, the host by another address than
/// loopback, and a neighbour who says that loopback is behind this host.
#[test]
fn k5_a_port_on_the_loopback_address_is_closed_to_containers_and_to_a_lying_neighbour() {
    with_a_network(async |network| {
        let outside = Place::neighbour(100);
        let web = published(&network, "web", vec![port(LOCALHOST, 0, 80)]).await;
        let other = published(&network, "other", Vec::new()).await;
        let at = web.ports[0].host_port;
        let _server = Place::of(&web).serve(80, "web");
        assert!(Place::here().reaches(LOCALHOST, at));
        for from in [Place::of(&other), Place::of(&web), Place::here()] {
            assert!(from.cannot_reach(HOST, at));
            assert!(from.cannot_reach(gateway(&web), at));
        }
        for from in [outside, Place::of(&other)] {
            from.route_loopback_out();
            assert!(from.cannot_reach(LOCALHOST, at));
        }
    });
}

#[test]
fn k5_a_neighbour_that_routes_through_the_host_reaches_published_ports_only() {
    with_a_network(async |network| {
        let outside = Place::neighbour(100);
        let web = published(&network, "web", vec![port(HOST, 0, 80)]).await;
        let _public = Place::of(&web).serve(80, "public");
        let _private = Place::of(&web).serve(81, "private");
        assert!(Place::here().reaches(address(&web), 81));
        assert!(outside.cannot_reach(address(&web), 81));
        assert!(outside.reaches(HOST, web.ports[0].host_port));
        assert!(Place::here().cannot_reach(LOCALHOST, web.ports[0].host_port));
    });
}

#[test]
fn k6_traffic_for_other_hosts_is_not_taken() {
    with_a_network(async |network| {
        let (client, server) = (Place::neighbour(100), Place::neighbour(200));
        let web = published(&network, "web", vec![port(ANYWHERE, 0, 80)]).await;
        let at = web.ports[0].host_port;
        let _mine = Place::of(&web).serve(80, "container");
        let _theirs = server.serve(at, "other host");
        let said = client.ask(Ipv4Addr::new(198, 51, 200, 2), at);
        assert_eq!(said, "198.51.100.2 other host");
    });
}
