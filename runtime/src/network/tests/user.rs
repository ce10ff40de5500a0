//! Networks of users: who is kept apart from whom, and what is there after a death.

use std::net::Ipv4Addr;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use orlop_proto::runtime as wire;

use super::members::{
    attach, in_network, leave_all, live_in, member_of, membership, named, published_in,
};
use super::names::{lookup, yes};
use super::support::{
    ANYWHERE, HOST, OUTSIDE, Place, in_a_life_before, instance, kernel_state, on_a_host, port,
    wait_for_kernel_state, with_a_network,
};
use crate::network::{Attachment, NetworkError, NetworkKind, NetworkRequest};

#[test]
fn containers_of_one_network_meet_and_those_of_two_do_not() {
    with_a_network(async |network| {
        let before = kernel_state();
        network.create(named("front")).await.unwrap();
        network.create(named("back")).await.unwrap();
        let web = attach(&network, "web", &["front"]).await;
        let proxy = attach(&network, "proxy", &["front", "back"]).await;
        let db = attach(&network, "db", &["back"]).await;
        let everyone = attach(&network, "everyone", &["bridge"]).await;
        let _server = Place::of(&db).serve(80, "db");
        let at = in_network(&db, "back").address;
        let from = in_network(&proxy, "back").address;
        assert_eq!(Place::of(&proxy).ask(at, 80), format!("{from} db"));
        assert!(Place::here().reaches(at, 80));
        assert!(Place::of(&web).cannot_reach(at, 80));
        assert!(Place::of(&everyone).cannot_reach(at, 80));
        let all = [
            ("web", &web),
            ("proxy", &proxy),
            ("db", &db),
            ("everyone", &everyone),
        ];
        leave_all(&network, &all, &["front", "back"]).await;
        wait_for_kernel_state(&before).await;
    });
}

#[test]
fn k3_k5_a_published_port_is_reached_from_another_network_through_the_host_and_no_other_is() {
    with_a_network(async |network| {
        let outside = Place::neighbour(100);
        network.create(named("front")).await.unwrap();
        let web = published_in(&network, "front", "web", vec![port(ANYWHERE, 0, 80)]).await;
        let other = attach(&network, "other", &["bridge"]).await;
        let _server = Place::of(&web).serve(80, "web");
        let at = web.ports[0].host_port;
        assert_eq!(outside.ask(HOST, at), "198.51.100.2 web");
        assert!(Place::of(&other).reaches(HOST, at));
        assert!(Place::of(&other).cannot_reach(in_network(&web, "front").address, 80));
        assert!(outside.cannot_reach(in_network(&web, "front").address, 80));
        leave_all(&network, &[("web", &web), ("other", &other)], &["front"]).await;
    });
}

#[test]
fn an_internal_network_has_no_way_out_and_none_in() {
    with_a_network(async |network| {
        let outside = Place::neighbour(100);
        let internal = wire::CreateNetworkRequest {
            internal: true,
            ..named("closed")
        };
        network.create(internal).await.unwrap();
        let a = published_in(&network, "closed", "a", vec![port(ANYWHERE, 0, 80)]).await;
        let b = attach(&network, "b", &["closed"]).await;
        assert!(a.ports.is_empty());
        let _outside = outside.serve(80, "outside");
        let _host = Place::here().serve(81, "host");
        let _a = Place::of(&a).serve(80, "a");
        let gateway = in_network(&b, "closed").gateway;
        // A way out that a container makes for itself is none.
        Place::of(&b).run(|| {
            let mut routes = crate::network::route::Routes::open().unwrap();
            let link = routes.link("eth0").unwrap().unwrap();
            routes.add_default_route(link.index, gateway).unwrap();
        });
        assert!(Place::of(&b).reaches(in_network(&a, "closed").address, 80));
        assert!(Place::of(&b).cannot_reach(OUTSIDE, 80));
        assert!(Place::of(&b).cannot_reach(HOST, 81));
        assert!(outside.cannot_reach(in_network(&a, "closed").address, 80));
        leave_all(&network, &[("a", &a), ("b", &b)], &["closed"]).await;
    });
}

#[test]
fn without_icc_containers_of_one_network_reach_the_outside_and_not_each_other() {
    with_a_network(async |network| {
        let outside = Place::neighbour(100);
        let option = "com.docker.network.bridge.enable_icc".to_owned();
        let apart = wire::CreateNetworkRequest {
            options: [(option, "false".to_owned())].into(),
            ..named("apart")
        };
        network.create(apart).await.unwrap();
        let a = attach(&network, "a", &["apart"]).await;
        let b = attach(&network, "b", &["apart"]).await;
        let _a = Place::of(&a).serve(80, "a");
        let _outside = outside.serve(80, "outside");
        assert!(Place::of(&b).cannot_reach(in_network(&a, "apart").address, 80));
        assert_eq!(Place::of(&b).ask(OUTSIDE, 80), "198.51.100.1 outside");
        leave_all(&network, &[("a", &a), ("b", &b)], &["apart"]).await;
    });
}

#[test]
fn without_masquerade_the_outside_sees_the_container() {
    with_a_network(async |network| {
        let outside = Place::neighbour(100);
        let option = "com.docker.network.bridge.enable_ip_masquerade".to_owned();
        let plain = wire::CreateNetworkRequest {
            options: [(option, "false".to_owned())].into(),
            ..named("plain")
        };
        network.create(plain).await.unwrap();
        let a = attach(&network, "a", &["plain"]).await;
        let _outside = outside.serve(80, "outside");
        let said = Place::of(&a).ask(OUTSIDE, 80);
        assert_eq!(said, format!("{} outside", in_network(&a, "plain").address));
        leave_all(&network, &[("a", &a)], &["plain"]).await;
    });
}

#[test]
fn of_a_removal_and_a_container_that_come_at_once_one_wins() {
    with_a_network(async |network| {
        for round in 0..20 {
            network.create(named("front")).await.unwrap();
            let request = member_of(&["front"]);
            let (attached, removed) = match round % 2 {
                0 => tokio::join!(network.attach("a", &request), network.remove("front")),
                _ => {
                    let (removed, attached) =
                        tokio::join!(network.remove("front"), network.attach("a", &request));
                    (attached, removed)
                }
            };
            match (attached, removed) {
                (Ok(attached), Err(error)) => {
                    assert!(error.to_string().contains("in use"), "{error}");
                    leave_all(&network, &[("a", &attached)], &["front"]).await;
                }
                (Err(error), Ok(())) => assert!(error.to_string().contains("no such network")),
                both => unreachable!("{both:?}"),
            }
        }
    });
}

#[test]
fn a_static_address_is_given_once_and_only_inside_of_the_subnet() {
    with_a_network(async |network| {
        let request = wire::CreateNetworkRequest {
            subnet: "10.77.0.0/24".to_owned(),
            ip_range: "10.77.0.128/25".to_owned(),
            ..named("fixed")
        };
        network.create(request).await.unwrap();
        let with = |text: &str| {
            let mut request = member_of(&["fixed"]);
            request.memberships[0].address = Some(text.parse().unwrap());
            request
        };
        let a = network.attach("a", &with("10.77.0.9")).await.unwrap();
        assert_eq!(in_network(&a, "fixed").address, Ipv4Addr::new(10, 77, 0, 9));
        let taken = network.attach("b", &with("10.77.0.9")).await.unwrap_err();
        assert!(
            matches!(taken, NetworkError::AddressTaken { .. }),
            "{taken}"
        );
        for text in ["10.77.0.0", "10.77.0.1", "10.77.0.255", "10.78.0.9"] {
            let outside = network.attach("b", &with(text)).await.unwrap_err();
            assert!(
                matches!(outside, NetworkError::AddressOutside { .. }),
                "{outside}"
            );
        }
        let b = attach(&network, "b", &["fixed"]).await;
        assert_eq!(
            in_network(&b, "fixed").address,
            Ipv4Addr::new(10, 77, 0, 128)
        );
        let in_use = network.remove("fixed").await.unwrap_err();
        assert!(in_use.to_string().contains("container a"), "{in_use}");
        leave_all(&network, &[("a", &a), ("b", &b)], &["fixed"]).await;
    });
}

#[test]
fn a_running_container_joins_and_leaves_and_its_way_out_follows() {
    with_a_network(async |network| {
        let outside = Place::neighbour(100);
        network.create(named("front")).await.unwrap();
        network.create(named("back")).await.unwrap();
        let web = published_in(&network, "front", "web", vec![port(ANYWHERE, 0, 80)]).await;
        let db = attach(&network, "db", &["back"]).await;
        let place = Place::of(&web);
        let _web = place.serve(80, "web");
        let _outside = outside.serve(80, "outside");
        let at = in_network(&db, "back").address;
        let _db = Place::of(&db).serve(80, "db");
        let back = membership("back");
        let both = network.connect("web", &back, &[]).await.unwrap();
        assert_eq!(in_network(&both, "back").interface, "eth1");
        assert!(network.connect("web", &back, &[]).await.is_err());
        assert!(place.reaches(at, 80));
        let one = network.disconnect("web", "front").await.unwrap();
        assert_eq!(one.endpoints.len(), 1);
        assert_eq!(place.ask(OUTSIDE, 80), "198.51.100.1 outside");
        assert_eq!(
            outside.ask(HOST, web.ports[0].host_port),
            "198.51.100.2 web"
        );
        assert!(network.disconnect("web", "front").await.is_err());
        network.remove("front").await.unwrap();
        let none = network.disconnect("web", "back").await.unwrap();
        assert!(none.endpoints.is_empty());
        assert!(place.cannot_reach(at, 80));
        leave_all(&network, &[("web", &none), ("db", &db)], &["back"]).await;
    });
}

#[test]
fn a_namespace_is_shared_while_its_owner_has_it() {
    with_a_network(async |network| {
        let web = attach(&network, "web", &["bridge"]).await;
        let beside = |neighbour: &str| NetworkRequest {
            kind: NetworkKind::Container,
            neighbour: neighbour.to_owned(),
            ..NetworkRequest::default()
        };
        let side = network.attach("side", &beside("web")).await.unwrap();
        let _web = Place::of(&web).serve(80, "web");
        assert!(Place::of(&side).reaches(Ipv4Addr::LOCALHOST, 80));
        assert!(network.attach("x", &beside("nobody")).await.is_err());
        leave_all(&network, &[("side", &side), ("web", &web)], &[]).await;
    });
}

#[test]
fn networks_and_their_containers_are_taken_up_after_a_death() {
    on_a_host(|| async {
        let root = tempfile::tempdir().unwrap();
        let before = kernel_state();
        let (web, place, lost) = in_a_life_before(root.path(), async |first| {
            first.create(named("front")).await.unwrap();
            first.create(named("idle")).await.unwrap();
            let web = attach(&first, "web", &["front"]).await;
            let place = Place::of(&web);
            (web, place, attach(&first, "lost", &["front"]).await)
        });
        let second = instance(root.path());
        second
            .reconcile(vec![live_in(&place, "web", &web)])
            .await
            .unwrap();
        assert_eq!(second.inspect("front").unwrap().members.len(), 1);
        assert!(second.remove("front").await.is_err());
        let other = attach(&second, "other", &["front"]).await;
        assert_ne!(
            in_network(&other, "front").address,
            in_network(&web, "front").address
        );
        let _server = place.serve(80, "web");
        let at = in_network(&web, "front").address;
        assert!(Place::of(&other).reaches(at, 80));
        let idle = membership("idle");
        let web = second.connect("web", &idle, &[]).await.unwrap();
        assert_eq!(web.endpoints.len(), 2);
        leave_all(
            &second,
            &[("web", &web), ("other", &other)],
            &["front", "idle"],
        )
        .await;
        drop((place, lost));
        wait_for_kernel_state(&before).await;
    });
}

#[test]
fn names_are_those_of_the_networks_that_the_asker_is_in() {
    with_a_network(async |network| {
        network.create(named("front")).await.unwrap();
        network.create(named("back")).await.unwrap();
        let known = |id: &str, networks: &[&str]| NetworkRequest {
            names: vec![id.to_owned(), format!("{id}-short")],
            ..member_of(networks)
        };
        let web = network
            .attach("web", &known("web", &["front"]))
            .await
            .unwrap();
        let proxy = network
            .attach("proxy", &known("proxy", &["front", "back"]))
            .await
            .unwrap();
        let mut request = known("db", &["back"]);
        request.memberships[0].aliases.push("Data".to_owned());
        let db = network.attach("db", &request).await.unwrap();
        let mut request = known("db2", &["back"]);
        request.memberships[0].aliases.push("data".to_owned());
        let db2 = network.attach("db2", &request).await.unwrap();
        let at = |attachment: &Attachment, name| in_network(attachment, name).address.to_string();

        let a = RecordType::A;
        let of_proxy = |name: &'static str| lookup(&proxy, "front", name, a);
        assert_eq!(of_proxy("db.").await, yes(&[at(&db, "back")]));
        assert_eq!(of_proxy("DB.back.").await, yes(&[at(&db, "back")]));
        assert_eq!(of_proxy("web-short.").await, yes(&[at(&web, "front")]));
        assert_eq!(
            of_proxy("data.").await,
            yes(&[at(&db, "back"), at(&db2, "back")])
        );
        assert_eq!(
            lookup(&db, "back", "proxy.", a).await,
            yes(&[at(&proxy, "back")])
        );
        assert_eq!(
            lookup(&db, "back", "proxy.", RecordType::AAAA).await,
            yes(&[])
        );
        // The host of this test has no way to a name server.
        assert_eq!(
            lookup(&web, "front", "db.", a).await,
            [ResponseCode::ServFail.to_string()]
        );
        let octets = in_network(&web, "front").address.octets();
        let [x, y, z, w] = octets;
        let reverse = format!("{w}.{z}.{y}.{x}.in-addr.arpa.");
        let back = lookup(&proxy, "front", &reverse, RecordType::PTR).await;
        assert_eq!(back, yes(&["web.front.".to_owned()]));
        network.rename("db", "db", "data3");
        assert_eq!(of_proxy("data3.").await, yes(&[at(&db, "back")]));
        network.detach("db2", &db2).await.unwrap();
        assert_eq!(of_proxy("data.").await, yes(&[at(&db, "back")]));
        let all = [("web", &web), ("proxy", &proxy), ("db", &db)];
        leave_all(&network, &all, &["front", "back"]).await;
    });
}

#[test]
fn k7_in_an_internal_network_no_question_leaves() {
    with_a_network(async |network| {
        let outside = Place::neighbour(100);
        let internal = wire::CreateNetworkRequest {
            internal: true,
            ..named("closed")
        };
        network.create(internal).await.unwrap();
        network.create(named("open")).await.unwrap();
        let asking = |networks: &[&str]| NetworkRequest {
            servers: vec![OUTSIDE.into()],
            names: vec!["me".to_owned()],
            ..member_of(networks)
        };
        let inside = network.attach("in", &asking(&["closed"])).await.unwrap();
        let both = network
            .attach("both", &asking(&["closed", "open"]))
            .await
            .unwrap();
        let heard = outside.answer_names();
        let ask = |from, name| lookup(from, "closed", name, RecordType::A);
        assert_eq!(
            ask(&inside, "secret.example.org.").await,
            [ResponseCode::Refused.to_string()]
        );
        assert_eq!(heard.load(std::sync::atomic::Ordering::SeqCst), 0);
        let answered = ask(&both, "example.org.").await;
        assert_eq!(
            answered,
            yes(&[]),
            "the way out of the other network is taken"
        );
        assert!(heard.load(std::sync::atomic::Ordering::SeqCst) > 0);
        let all = [("in", &inside), ("both", &both)];
        leave_all(&network, &all, &["closed", "open"]).await;
    });
}

#[test]
fn k1_k2_k8_networks_of_users_are_guarded_as_the_one_of_everyone_is() {
    with_a_network(async |network| {
        let made = network.create(named("front")).await.unwrap();
        let web = attach(&network, "web", &["front"]).await;
        let setting = |interface: &str, name: &str| {
            let path = format!("/proc/sys/net/ipv6/conf/{interface}/{name}");
            std::fs::read_to_string(path).map(|text| text.trim().to_owned())
        };
        let place = Place::of(&web);
        let inside = |name: &'static str| place.run(move || setting("eth0", name));
        // A kernel without IPv6 has neither.
        if let Ok(believes) = inside("accept_ra") {
            assert_eq!(believes, "0");
            assert_eq!(inside("disable_ipv6").unwrap(), "1");
            assert_eq!(setting(&made.interface, "accept_ra").unwrap(), "0");
            assert_eq!(setting(&made.interface, "disable_ipv6").unwrap(), "1");
        }
        let own = in_network(&web, "front").address;
        assert!(!place.is_heard_by_loopback(own));
        leave_all(&network, &[("web", &web)], &["front"]).await;
    });
}
