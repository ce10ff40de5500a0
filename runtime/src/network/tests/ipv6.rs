//! Networks with IPv6: who reaches whom, from where, and that others have none.

use std::net::{Ipv6Addr, UdpSocket};

use hickory_proto::rr::RecordType;
use orlop_proto::runtime as wire;

use super::members::{
    attach, in_network, leave_all, live, live_in, member_of, membership, named, published_in,
};
use super::names::{lookup, yes};
use super::support::{
    BRIEFLY, HOST as HOST_IPV4, OUTSIDE as OUTSIDE_IPV4, PATIENCE, Place, in_a_life_before,
    instance, kernel_state, on_a_host, port, wait_for_kernel_state, with_a_network,
    with_a_network_that,
};
use crate::network::family::Family;
use crate::network::nft::Batch;
use crate::network::route::Routes;
use crate::network::subnet::Subnet;
use crate::network::{
    Attachment, Ipv6Info, Network, NetworkError, NetworkRequest, PortRequest, Publishing,
};

const HOST: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 100, 0, 0, 0, 0, 1);
const OUTSIDE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 100, 0, 0, 0, 0, 2);
const LOCALHOST: Ipv6Addr = Ipv6Addr::LOCALHOST;

async fn create(network: &Network, name: &str) {
    let request = wire::CreateNetworkRequest {
        ipv6: true,
        ..named(name)
    };
    network.create(request).await.unwrap();
}

fn ipv6_in(attachment: &Attachment, network: &str) -> Ipv6Info {
    in_network(attachment, network).ipv6.unwrap()
}

/// As `-p 0:80`: every address of the host.
fn everywhere() -> PortRequest {
    PortRequest {
        host_address: None,
        ..port(Ipv6Addr::UNSPECIFIED, 0, 80)
    }
}

/// Whether a client on the host is answered at its loopback address, while the runtime works.
async fn loopback_reaches(at: u16) -> bool {
    let host = Place::here();
    host.meanwhile(move |host| host.reaches(LOCALHOST, at))
        .await
}

#[test]
fn containers_of_one_network_meet_by_ipv6_and_those_of_two_do_not() {
    with_a_network(async |network| {
        let outside = Place::neighbour(100);
        let before = kernel_state();
        create(&network, "front").await;
        create(&network, "back").await;
        let web = attach(&network, "web", &["front"]).await;
        let proxy = attach(&network, "proxy", &["front"]).await;
        let db = attach(&network, "db", &["back"]).await;
        let _server = Place::of(&web).serve(80, "web");
        let at = ipv6_in(&web, "front").address;
        let from = ipv6_in(&proxy, "front").address;
        assert_eq!(Place::of(&proxy).ask(at, 80), format!("{from} web"));
        assert!(Place::here().reaches(at, 80));
        assert!(Place::of(&db).cannot_reach(at, 80));
        assert!(outside.cannot_reach(at, 80));
        let _outside = outside.serve(80, "outside");
        let said = Place::of(&web).ask(OUTSIDE, 80);
        assert_eq!(said, format!("{HOST} outside"), "the host's address");
        let all = [("web", &web), ("proxy", &proxy), ("db", &db)];
        leave_all(&network, &all, &["front", "back"]).await;
        wait_for_kernel_state(&before).await;
    });
}

#[test]
fn k3_k5_a_port_is_reached_by_ipv6_from_everywhere_and_clients_keep_their_address() {
    with_a_network(async |network| {
        let outside = Place::neighbour(100);
        create(&network, "front").await;
        create(&network, "back").await;
        let web = published_in(&network, "front", "web", vec![everywhere()]).await;
        let other = attach(&network, "other", &["back"]).await;
        let [ipv4, ipv6] = &web.ports[..] else {
            unreachable!("{:?}", web.ports);
        };
        assert_eq!(ipv4.host_port, ipv6.host_port);
        let at = ipv6.host_port;
        let _server = Place::of(&web).serve(80, "web");
        let gateway = ipv6_in(&web, "front").gateway;
        let from_bridge = format!("{gateway} web");
        assert_eq!(outside.ask(HOST, at), format!("{OUTSIDE} web"));
        assert!(outside.reaches(HOST_IPV4, at));
        let host = Place::here();
        let said = host.meanwhile(move |host| host.ask(LOCALHOST, at)).await;
        assert_eq!(said, from_bridge);
        assert!(Place::here().reaches(HOST, at));
        assert!(Place::here().reaches(gateway, at));
        assert!(Place::of(&other).reaches(HOST, at));
        assert_eq!(Place::of(&web).ask(HOST, at), from_bridge);
        network.detach("web", &web).await.unwrap();
        assert!(outside.cannot_reach(HOST, at));
        assert!(
            host.meanwhile(move |host| host.cannot_reach(LOCALHOST, at))
                .await
        );
        leave_all(&network, &[("other", &other)], &["front", "back"]).await;
    });
}

#[test]
fn k5_a_port_on_the_ipv6_loopback_address_is_the_hosts_alone() {
    with_a_network(async |network| {
        let outside = Place::neighbour(100);
        create(&network, "front").await;
        let web = published_in(&network, "front", "web", vec![port(LOCALHOST, 0, 80)]).await;
        let other = attach(&network, "other", &["bridge"]).await;
        let at = web.ports[0].host_port;
        let _server = Place::of(&web).serve(80, "web");
        assert!(loopback_reaches(at).await);
        assert!(outside.cannot_reach(HOST, at));
        assert!(outside.cannot_reach(HOST_IPV4, at));
        assert!(Place::of(&other).cannot_reach(LOCALHOST, at));
        leave_all(&network, &[("web", &web), ("other", &other)], &["front"]).await;
    });
}

#[test]
fn an_internal_network_has_no_way_out_by_ipv6_and_its_containers_meet() {
    with_a_network(async |network| {
        let outside = Place::neighbour(100);
        let request = wire::CreateNetworkRequest {
            internal: true,
            ipv6: true,
            ..named("closed")
        };
        network.create(request).await.unwrap();
        let a = attach(&network, "a", &["closed"]).await;
        let b = attach(&network, "b", &["closed"]).await;
        let _outside = outside.serve(80, "outside");
        let _a = Place::of(&a).serve(80, "a");
        let ipv6 = ipv6_in(&b, "closed");
        assert!(!ipv6.routed);
        // A way out that a container makes for itself is none.
        Place::of(&b).run(|| {
            let mut routes = Routes::open().unwrap();
            let link = routes.link("eth0").unwrap().unwrap();
            routes.add_default_route(link.index, ipv6.gateway).unwrap();
        });
        assert!(Place::of(&b).cannot_reach(OUTSIDE, 80));
        assert!(Place::of(&b).reaches(ipv6_in(&a, "closed").address, 80));
        leave_all(&network, &[("a", &a), ("b", &b)], &["closed"]).await;
    });
}

#[test]
fn containers_that_are_kept_apart_do_not_meet_by_a_detour_over_the_host() {
    with_a_network(async |network| {
        let apart = ("com.docker.network.bridge.enable_icc", "false");
        let request = wire::CreateNetworkRequest {
            ipv6: true,
            options: [(apart.0.to_owned(), apart.1.to_owned())].into(),
            ..named("front")
        };
        network.create(request).await.unwrap();
        let a = attach(&network, "a", &["front"]).await;
        let b = attach(&network, "b", &["front"]).await;
        let _a = Place::of(&a).serve(80, "a");
        let (at, own) = (ipv6_in(&a, "front"), ipv6_in(&b, "front"));
        assert!(Place::of(&b).cannot_reach(at.address, 80));
        assert!(Place::here().reaches(at.address, 80));
        let socket = Place::of(&a).run(|| UdpSocket::bind(("::", 9000)).unwrap());
        let heard = |from: &Place, patience| {
            socket.set_read_timeout(Some(patience)).unwrap();
            from.run(|| {
                let sender = UdpSocket::bind("[::]:0").unwrap();
                sender.send_to(b"attack", (at.address, 9000)).ok();
            });
            socket.recv_from(&mut [0; 16]).is_ok()
        };
        assert!(heard(&Place::here(), PATIENCE));
        // Without the subnet's route everything goes to the gateway.
        Place::of(&b).run(|| {
            let mut routes = Routes::open().unwrap();
            let index = routes.link("eth0").unwrap().unwrap().index;
            let subnet = |prefix| Subnet::new(own.address, prefix).unwrap();
            let all = subnet(own.prefix);
            routes.delete_address(index, own.address, all).unwrap();
            let alone = subnet(128);
            routes.add_address(index, own.address, alone).unwrap();
        });
        assert!(!heard(&Place::of(&b), BRIEFLY));
        leave_all(&network, &[("a", &a), ("b", &b)], &["front"]).await;
    });
}

fn setting(interface: &str, name: &str) -> String {
    let path = format!("/proc/sys/net/ipv6/conf/{interface}/{name}");
    let text = std::fs::read_to_string(path).unwrap();
    text.trim().to_owned()
}

#[test]
fn k1_k8_only_networks_with_ipv6_have_it_and_nobody_there_believes_a_router() {
    with_a_network(async |network| {
        let _outside = Place::neighbour(100);
        assert_eq!(setting("wan100", "accept_ra"), "1");
        create(&network, "front").await;
        network.create(named("plain")).await.unwrap();
        let web = attach(&network, "web", &["plain", "front"]).await;
        let inside = |interface, name| Place::of(&web).run(move || setting(interface, name));
        assert_eq!(inside("eth0", "disable_ipv6"), "1");
        assert_eq!(inside("eth1", "disable_ipv6"), "0");
        assert_eq!(inside("eth1", "accept_ra"), "0");
        assert!(in_network(&web, "plain").ipv6.is_none());
        let bridge = |name: &str| network.inspect(name).unwrap().interface;
        assert_eq!(setting(&bridge("plain"), "disable_ipv6"), "1");
        assert_eq!(setting(&bridge("front"), "accept_ra"), "0");
        // The host goes on believing its own routers, though it forwards.
        assert_eq!(setting("wan100", "accept_ra"), "2");
        leave_all(&network, &[("web", &web)], &["front", "plain"]).await;
    });
}

#[test]
fn k4_what_is_flushed_comes_back_for_ipv6_too() {
    with_a_network(async |network| {
        let outside = Place::neighbour(100);
        create(&network, "front").await;
        let web = published_in(&network, "front", "web", vec![everywhere()]).await;
        let _server = Place::of(&web).serve(80, "web");
        let at = web.ports[0].host_port;
        let firewall = &network.inner.firewall;
        firewall.remove().unwrap();
        assert!(outside.cannot_reach(HOST, at));
        network.reconcile(vec![live("web", &web)]).await.unwrap();
        assert!(outside.reaches(HOST, at));
        assert!(outside.cannot_reach(ipv6_in(&web, "front").address, 80));
        // Of the two tables one is missing: that is noticed without being told.
        let table = Batch::new(&firewall.table).of(Family::V6);
        table.delete_table().commit().unwrap();
        assert!(outside.comes_to_reach(HOST, at).await);
        leave_all(&network, &[("web", &web)], &["front"]).await;
    });
}

#[test]
fn a_static_ipv6_address_is_given_once_and_only_where_there_is_ipv6() {
    with_a_network(async |network| {
        let request = wire::CreateNetworkRequest {
            ipv6: true,
            ipv6_subnet: "fd77::/64".to_owned(),
            ipv6_range: "fd77::100/120".to_owned(),
            ..named("front")
        };
        network.create(request.clone()).await.unwrap();
        let again = wire::CreateNetworkRequest {
            name: "again".to_owned(),
            ipv6_subnet: "fd77::/48".to_owned(),
            ipv6_range: String::new(),
            ..request
        };
        let taken = network.create(again).await.unwrap_err();
        assert!(matches!(taken, NetworkError::SubnetTaken(_)), "{taken}");
        let with = |name: &str, text: &str| {
            let mut request = member_of(&[name]);
            request.memberships[0].ipv6_address = Some(text.parse().unwrap());
            request
        };
        let a = network
            .attach("a", &with("front", "fd77::9"))
            .await
            .unwrap();
        assert_eq!(ipv6_in(&a, "front").address.to_string(), "fd77::9");
        for (name, text) in [
            ("front", "fd77::9"),
            ("front", "fd77::1"),
            ("front", "fd78::9"),
            ("bridge", "fd77::9"),
        ] {
            let refused = network.attach("b", &with(name, text)).await.unwrap_err();
            assert!(refused.to_string().contains(text), "{refused}");
        }
        let b = attach(&network, "b", &["front"]).await;
        assert_eq!(ipv6_in(&b, "front").address.to_string(), "fd77::100");
        let on_ipv6 = NetworkRequest {
            ports: vec![port(LOCALHOST, 0, 80)],
            ..NetworkRequest::default()
        };
        let refused = network.attach("c", &on_ipv6).await.unwrap_err();
        assert!(matches!(refused, NetworkError::NoIpv6Port(_)), "{refused}");
        leave_all(&network, &[("a", &a), ("b", &b)], &["front"]).await;
    });
}

#[test]
fn a_port_behind_the_hosts_input_rules_is_of_ipv4_only_and_another_is_refused() {
    with_a_network_that(Publishing::Input, async |network| {
        let outside = Place::neighbour(100);
        create(&network, "front").await;
        let on_ipv6 = NetworkRequest {
            ports: vec![port(HOST, 0, 80)],
            ..member_of(&["front"])
        };
        let refused = network.attach("web", &on_ipv6).await.unwrap_err();
        assert!(refused.to_string().contains("2001:db8:64::1"), "{refused}");
        let web = published_in(&network, "front", "web", vec![everywhere()]).await;
        let at = web.ports[0].host_port;
        assert!(web.ports.iter().all(|port| port.host_address.is_ipv4()));
        let _server = Place::of(&web).serve(80, "web");
        assert!(outside.cannot_reach(HOST, at));
        let said = outside.meanwhile(move |outside| outside.ask(HOST_IPV4, at));
        assert_eq!(said.await, "198.51.100.2 web");
        leave_all(&network, &[("web", &web)], &["front"]).await;
    });
}

#[test]
fn names_have_addresses_of_both_families() {
    with_a_network(async |network| {
        create(&network, "front").await;
        let known = |id: &str| NetworkRequest {
            names: vec![id.to_owned()],
            ..member_of(&["front"])
        };
        let web = network.attach("web", &known("web")).await.unwrap();
        let db = network.attach("db", &known("db")).await.unwrap();
        let ipv6 = ipv6_in(&db, "front").address;
        assert_eq!(
            lookup(&web, "front", "db.", RecordType::AAAA).await,
            yes(&[ipv6.to_string()])
        );
        let ipv4 = in_network(&db, "front").address;
        assert_eq!(
            lookup(&web, "front", "db.", RecordType::A).await,
            yes(&[ipv4.to_string()])
        );
        leave_all(&network, &[("web", &web), ("db", &db)], &["front"]).await;
    });
}

#[test]
fn a_running_container_gets_ipv6_with_a_network_and_its_way_out_follows() {
    with_a_network(async |network| {
        let outside = Place::neighbour(100);
        let _outside = outside.serve(80, "outside");
        create(&network, "front").await;
        create(&network, "back").await;
        let plain = attach(&network, "web", &["bridge"]).await;
        let place = Place::of(&plain);
        assert!(place.cannot_reach(OUTSIDE, 80));
        network
            .connect("web", &membership("front"), &[])
            .await
            .unwrap();
        assert!(place.reaches(OUTSIDE, 80));
        network
            .connect("web", &membership("back"), &[])
            .await
            .unwrap();
        let left = network.disconnect("web", "front").await.unwrap();
        assert!(ipv6_in(&left, "back").routed);
        assert!(place.reaches(OUTSIDE, 80));
        let left = network.disconnect("web", "back").await.unwrap();
        assert!(place.cannot_reach(OUTSIDE, 80));
        assert!(place.reaches(OUTSIDE_IPV4, 80));
        leave_all(&network, &[("web", &left)], &["front", "back"]).await;
    });
}

#[test]
fn ipv6_is_taken_up_after_a_death() {
    on_a_host(|| async {
        let root = tempfile::tempdir().unwrap();
        let outside = Place::neighbour(100);
        let (web, place) = in_a_life_before(root.path(), async |first| {
            create(&first, "front").await;
            let web = published_in(&first, "front", "web", vec![everywhere()]).await;
            let place = Place::of(&web);
            (web, place)
        });
        let _server = place.serve(80, "web");
        let at = web.ports[0].host_port;
        assert!(outside.reaches(HOST, at));
        let second = instance(root.path());
        second
            .reconcile(vec![live_in(&place, "web", &web)])
            .await
            .unwrap();
        let told = second.inspect("front").unwrap();
        assert_eq!(
            told.ipv6_gateway,
            ipv6_in(&web, "front").gateway.to_string()
        );
        assert!(outside.reaches(HOST, at));
        assert!(loopback_reaches(at).await);
        let other = attach(&second, "other", &["front"]).await;
        let address = ipv6_in(&other, "front").address;
        assert_ne!(address, ipv6_in(&web, "front").address);
        leave_all(&second, &[("web", &web), ("other", &other)], &["front"]).await;
    });
}
