//! Coming back after a death, and putting back what somebody took.

use super::members::{live, published};
use super::support::{
    LOCALHOST, Place, in_a_life_before, instance, kernel_state, on_a_host, port,
    wait_for_kernel_state, with_a_network,
};
use crate::network::route::Routes;
use crate::network::{Attachment, Network, NetworkRequest};

async fn web(network: &Network, id: &str) -> Attachment {
    published(network, id, vec![port(LOCALHOST, 0, 80)]).await
}

fn interface(network: &Network) -> String {
    network.inspect("bridge").unwrap().interface
}

#[test]
fn a_service_that_died_leaves_nothing_but_what_running_containers_have() {
    on_a_host(|| async {
        let root = tempfile::tempdir().unwrap();
        let before = kernel_state();
        let (running, gone, place) = in_a_life_before(root.path(), async |first| {
            let running = web(&first, "running").await;
            let place = Place::of(&running);
            (running, web(&first, "gone").await, place)
        });
        let _server = place.serve(80, "running");

        let second = instance(root.path());
        let at = running.ports[0].host_port;
        assert!(
            Place::here().reaches(LOCALHOST, at),
            "the port closed when the service died"
        );
        second
            .reconcile(vec![live("running", &running)])
            .await
            .unwrap();
        assert!(Place::here().reaches(LOCALHOST, at));
        assert!(Place::here().cannot_reach(LOCALHOST, gone.ports[0].host_port));
        let same_port = NetworkRequest {
            ports: vec![port(LOCALHOST, at, 80)],
            ..NetworkRequest::default()
        };
        assert!(second.attach("b", &same_port).await.is_err());
        let new = web(&second, "new").await;
        assert_ne!(new.endpoints, running.endpoints);
        for (id, attachment) in [("running", &running), ("new", &new)] {
            second.detach(id, attachment).await.unwrap();
        }
        assert!(Place::here().cannot_reach(LOCALHOST, at));
        second.release_pool().await.unwrap();
        drop(place);
        wait_for_kernel_state(&before).await;
    });
}

#[test]
fn a_start_without_containers_removes_everything_of_an_earlier_life() {
    on_a_host(|| async {
        let root = tempfile::tempdir().unwrap();
        let before = kernel_state();
        let pinned = in_a_life_before(root.path(), async |first| {
            Place::of(&web(&first, "a").await)
        });
        instance(root.path()).reconcile(Vec::new()).await.unwrap();
        wait_for_kernel_state(&before).await;
        drop(pinned);
    });
}

#[test]
fn k4_a_flushed_firewall_is_restored_with_its_ports() {
    with_a_network(async |network| {
        let a = web(&network, "a").await;
        let _server = Place::of(&a).serve(80, "a");
        let at = a.ports[0].host_port;
        let firewall = &network.inner.firewall;
        firewall.remove().unwrap();
        assert!(Place::here().cannot_reach(LOCALHOST, at));
        network.reconcile(vec![live("a", &a)]).await.unwrap();
        assert!(Place::here().reaches(LOCALHOST, at));
        firewall.remove().unwrap();
        let b = web(&network, "b").await;
        assert!(Place::here().reaches(LOCALHOST, at));
        firewall.remove().unwrap();
        network.detach("b", &b).await.unwrap();
    });
}

#[test]
fn a_deleted_bridge_is_made_anew_and_containers_are_connected_again() {
    with_a_network(async |network| {
        let a = web(&network, "a").await;
        let _server = Place::of(&a).serve(80, "a");
        let at = a.ports[0].host_port;
        let bridge = interface(&network);
        Routes::open().unwrap().delete(&bridge).unwrap();
        assert!(Place::here().cannot_reach(LOCALHOST, at));
        network.reconcile(vec![live("a", &a)]).await.unwrap();
        assert!(Place::here().comes_to_reach(LOCALHOST, at).await);
        let b = web(&network, "b").await;
        assert_ne!(a.endpoints, b.endpoints);
    });
}

#[test]
fn k4_a_flushed_firewall_and_a_deleted_bridge_come_back_by_themselves() {
    with_a_network(async |network| {
        network.reconcile(Vec::new()).await.unwrap();
        let a = web(&network, "a").await;
        let _server = Place::of(&a).serve(80, "a");
        let at = a.ports[0].host_port;
        let bridge = interface(&network);
        let firewall = &network.inner.firewall;
        assert!(Place::here().comes_to_reach(LOCALHOST, at).await);
        firewall.remove().unwrap();
        assert!(Place::here().cannot_reach(LOCALHOST, at));
        assert!(
            Place::here().comes_to_reach(LOCALHOST, at).await,
            "the firewall is not restored"
        );
        Routes::open().unwrap().delete(&bridge).unwrap();
        assert!(Place::here().cannot_reach(LOCALHOST, at));
        assert!(
            Place::here().comes_to_reach(LOCALHOST, at).await,
            "the bridge is not restored"
        );
        network.detach("a", &a).await.unwrap();
    });
}
