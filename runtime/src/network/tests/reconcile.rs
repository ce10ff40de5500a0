//! Coming back after a death, and putting back what somebody took.

use std::net::Ipv4Addr;

use super::support::{
    Place, in_a_life_before, instance, kernel_state, on_a_host, port, wait_for_kernel_state,
};
use crate::network::firewall::Firewall;
use crate::network::route::Routes;
use crate::network::{Attachment, Live, Network, NetworkRequest};

const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;

async fn web(network: &Network, id: &str) -> Attachment {
    let request = NetworkRequest {
        ports: vec![port(LOCALHOST, 0, 80)],
        ..NetworkRequest::default()
    };
    network.attach(id, &request).await.unwrap()
}

fn interface(network: &Network) -> String {
    network.inspect("bridge").unwrap().interface
}

/// As the service finds a container that runs.
fn live(id: &str, attachment: &Attachment) -> Live {
    Live {
        id: id.to_owned(),
        attachment: attachment.clone(),
        namespace: None,
    }
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
            Place::here().ask(LOCALHOST, at).is_ok(),
            "the port closed when the service died"
        );
        second
            .reconcile(vec![live("running", &running)])
            .await
            .unwrap();
        assert!(Place::here().ask(LOCALHOST, at).is_ok());
        assert!(
            Place::here()
                .ask(LOCALHOST, gone.ports[0].host_port)
                .is_err()
        );
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
        assert!(Place::here().ask(LOCALHOST, at).is_err());
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
    on_a_host(|| async {
        let root = tempfile::tempdir().unwrap();
        let network = instance(root.path());
        let a = web(&network, "a").await;
        let _server = Place::of(&a).serve(80, "a");
        let at = a.ports[0].host_port;
        let bridge = interface(&network);
        let firewall = Firewall {
            table: bridge.replace("orl-", "orlop-"),
        };
        firewall.remove().unwrap();
        assert!(Place::here().ask(LOCALHOST, at).is_err());
        network.reconcile(vec![live("a", &a)]).await.unwrap();
        assert!(Place::here().ask(LOCALHOST, at).is_ok());
        firewall.remove().unwrap();
        let b = web(&network, "b").await;
        assert!(Place::here().ask(LOCALHOST, at).is_ok());
        firewall.remove().unwrap();
        network.detach("b", &b).await.unwrap();
        network.release_pool().await.unwrap();
    });
}

#[test]
fn a_deleted_bridge_is_made_anew_and_containers_are_connected_again() {
    on_a_host(|| async {
        let root = tempfile::tempdir().unwrap();
        let network = instance(root.path());
        let a = web(&network, "a").await;
        let _server = Place::of(&a).serve(80, "a");
        let at = a.ports[0].host_port;
        let bridge = interface(&network);
        Routes::open().unwrap().delete(&bridge).unwrap();
        assert!(Place::here().ask(LOCALHOST, at).is_err());
        network.reconcile(vec![live("a", &a)]).await.unwrap();
        assert!(answers(at).await);
        let b = web(&network, "b").await;
        assert_ne!(a.endpoints, b.endpoints);
        network.release_pool().await.unwrap();
    });
}

/// Waits until a container answers at a published port, and lets the runtime work meanwhile.
async fn answers(at: u16) -> bool {
    for _ in 0..20 {
        let place = Place::here();
        let asked = tokio::task::spawn_blocking(move || place.ask(LOCALHOST, at));
        if asked.await.unwrap().is_ok() {
            return true;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    false
}

#[test]
fn k4_a_flushed_firewall_and_a_deleted_bridge_come_back_by_themselves() {
    on_a_host(|| async {
        let root = tempfile::tempdir().unwrap();
        let network = instance(root.path());
        network.reconcile(Vec::new()).await.unwrap();
        let a = web(&network, "a").await;
        let _server = Place::of(&a).serve(80, "a");
        let at = a.ports[0].host_port;
        let bridge = interface(&network);
        let firewall = Firewall {
            table: bridge.replace("orl-", "orlop-"),
        };
        assert!(answers(at).await);
        firewall.remove().unwrap();
        assert!(Place::here().ask(LOCALHOST, at).is_err());
        assert!(answers(at).await, "the firewall is not restored");
        Routes::open().unwrap().delete(&bridge).unwrap();
        assert!(Place::here().ask(LOCALHOST, at).is_err());
        assert!(answers(at).await, "the bridge is not restored");
        network.detach("a", &a).await.unwrap();
        network.release_pool().await.unwrap();
    });
}
