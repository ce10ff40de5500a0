//! Published ports behind the host's own input rules: who is let in, and whom the container sees.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use orlop_proto::runtime as wire;

use super::members::{address, gateway, live_in, membership, named, published, published_in};
use super::support::{
    ANYWHERE, BRIEFLY, HOST, LOCALHOST, PATIENCE, Place, in_a_life_before_that, instance_that,
    kernel_state, on_a_host, port, wait_for_kernel_state, with_a_network_that,
};
use crate::network::nft::expression::{Expression, Field, Register, Verdict};
use crate::network::nft::{Batch, ChainType, Hook};
use crate::network::route::Routes;
use crate::network::{PortBinding, PortRequest, Protocol, Publishing};

fn udp(port: PortRequest) -> PortRequest {
    PortRequest {
        protocol: Protocol::Udp,
        ..port
    }
}

/// What an administrator says: `nft add rule ip host input th dport PORT drop`.
fn close(port: &PortBinding) {
    let rule = [
        Expression::Payload(Field::DestinationPort, Register::R0),
        Expression::Equal(Register::R0, port.host_port.to_be_bytes().to_vec()),
        Expression::Verdict(Verdict::Drop),
    ];
    Batch::new("host")
        .add_table()
        .add_base_chain("input", ChainType::Filter, Hook::Input, 0)
        .add_rule("input", &rule)
        .commit()
        .unwrap();
}

/// What a server says to a client, while the relay works.
async fn ask(place: &Place, address: Ipv4Addr, port: &PortBinding) -> Option<String> {
    try_ask(place, address, port, PATIENCE).await
}

/// Whether none says anything.
async fn is_closed(place: &Place, address: Ipv4Addr, port: &PortBinding) -> bool {
    try_ask(place, address, port, BRIEFLY).await.is_none()
}

async fn try_ask(
    place: &Place,
    address: Ipv4Addr,
    port: &PortBinding,
    patience: Duration,
) -> Option<String> {
    let port = *port;
    let asked = place.meanwhile(move |place| match port.protocol {
        Protocol::Tcp => place.try_ask(address.into(), port.host_port, patience),
        Protocol::Udp => place.ask_udp(address, port.host_port, patience),
    });
    asked.await.ok()
}

#[test]
fn the_hosts_input_rules_decide_about_a_relayed_port_only() {
    on_a_host(|| async {
        for (publishing, let_in) in [(Publishing::Forward, true), (Publishing::Input, false)] {
            let root = tempfile::tempdir().unwrap();
            let outside = Place::neighbour(100);
            let network = instance_that(root.path(), publishing);
            let ports = vec![port(ANYWHERE, 0, 80), udp(port(ANYWHERE, 0, 53))];
            let web = published(&network, "web", ports).await;
            let _servers = (
                Place::of(&web).serve(80, "web"),
                Place::of(&web).serve_udp((ANYWHERE, 53), "web"),
            );
            for port in &web.ports {
                let said = ask(&outside, HOST, port).await;
                assert_eq!(said.as_deref(), Some("198.51.100.2 web"), "{publishing:?}");
                close(port);
                match let_in {
                    true => assert_eq!(ask(&outside, HOST, port).await, said, "{port:?}"),
                    false => assert!(is_closed(&outside, HOST, port).await, "{port:?}"),
                }
            }
            network.detach("web", &web).await.unwrap();
            network.release_pool().await.unwrap();
            Batch::new("host").delete_table().commit().unwrap();
            Routes::open().unwrap().delete("wan100").unwrap();
        }
    });
}

#[test]
fn k3_k5_a_relayed_port_is_reached_as_a_forwarded_one_is() {
    with_a_network_that(Publishing::Input, async |network| {
        let outside = Place::neighbour(100);
        let ports = vec![port(ANYWHERE, 0, 80), port(LOCALHOST, 0, 80)];
        let web = published(&network, "web", ports).await;
        let other = published(&network, "other", Vec::new()).await;
        let _server = Place::of(&web).serve(80, "web");
        let [open, closed] = &web.ports[..] else {
            panic!("two were published");
        };
        let (host, from_bridge) = (Place::here(), Some(format!("{} web", gateway(&web))));
        assert_eq!(ask(&host, LOCALHOST, open).await, from_bridge);
        assert!(ask(&host, gateway(&web), open).await.is_some());
        assert_eq!(ask(&Place::of(&other), HOST, open).await, from_bridge);
        assert_eq!(ask(&Place::of(&web), HOST, open).await, from_bridge);
        let from_host = Some("198.51.100.1 web".to_owned());
        assert_eq!(ask(&host, HOST, open).await, from_host);
        assert_eq!(ask(&host, LOCALHOST, closed).await, from_bridge);
        assert!(is_closed(&outside, HOST, closed).await);
        let inside = PortBinding {
            host_port: 80,
            ..*open
        };
        assert!(is_closed(&outside, address(&web), &inside).await);
    });
}

#[test]
fn a_relayed_connection_carries_much_and_ends_where_it_is_closed() {
    with_a_network_that(Publishing::Input, async |network| {
        const BYTES: usize = 3 << 20;
        let outside = Place::neighbour(100);
        let web = published(&network, "web", vec![port(ANYWHERE, 0, 80)]).await;
        let at = web.ports[0].host_port;
        let listener = Place::of(&web).run(|| TcpListener::bind("0.0.0.0:80").unwrap());
        // Answers once it has heard all.
        let server = std::thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            let mut heard = Vec::new();
            client.read_to_end(&mut heard).unwrap();
            client.write_all(&heard).unwrap();
        });
        let client = tokio::task::spawn_blocking(move || {
            let mut stream = outside.run(|| TcpStream::connect((HOST, at)).unwrap());
            stream.write_all(&vec![7; BYTES]).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut heard = Vec::new();
            stream.read_to_end(&mut heard).unwrap();
            heard
        });
        assert_eq!(client.await.unwrap(), vec![7; BYTES]);
        server.join().unwrap();
    });
}

#[test]
fn k4_relays_come_back_with_the_service_and_with_what_others_take() {
    on_a_host(|| async {
        let root = tempfile::tempdir().unwrap();
        let before = kernel_state();
        let outside = Place::neighbour(100);
        let (web, place) = in_a_life_before_that(root.path(), Publishing::Input, async |first| {
            let web = published(&first, "web", vec![port(ANYWHERE, 0, 80)]).await;
            let place = Place::of(&web);
            (web, place)
        });
        let _server = place.serve(80, "web");
        let at = &web.ports[0];
        assert!(is_closed(&outside, HOST, at).await, "nobody relays");
        // What the option says now is for containers that start now.
        let network = instance_that(root.path(), Publishing::Forward);
        network
            .reconcile(vec![live_in(&place, "web", &web)])
            .await
            .unwrap();
        let said = Some("198.51.100.2 web".to_owned());
        assert_eq!(ask(&outside, HOST, at).await, said);
        let table = format!("{}-relay", network.inner.instance.table);
        Batch::new(&table).delete_table().commit().unwrap();
        let deadline = Instant::now() + PATIENCE;
        while is_closed(&outside, HOST, at).await {
            assert!(Instant::now() < deadline, "the way back is not put back");
        }
        assert_eq!(ask(&outside, HOST, at).await, said);
        network.detach("web", &web).await.unwrap();
        assert!(is_closed(&outside, HOST, at).await);
        network.release_pool().await.unwrap();
        drop((place, outside, network));
        wait_for_kernel_state(&before).await;
    });
}

#[test]
fn a_port_goes_the_way_of_the_network_that_it_leads_to() {
    with_a_network_that(Publishing::Forward, async |network| {
        let outside = Place::neighbour(100);
        let behind = wire::CreateNetworkRequest {
            options: [("com.orlop.published".to_owned(), "input".to_owned())].into(),
            ..named("behind")
        };
        network.create(behind).await.unwrap();
        let web = published_in(&network, "behind", "web", vec![port(ANYWHERE, 0, 80)]).await;
        let _server = Place::of(&web).serve(80, "web");
        let (at, said) = (&web.ports[0], Some("198.51.100.2 web".to_owned()));
        assert_eq!(ask(&outside, HOST, at).await, said);
        close(at);
        assert!(is_closed(&outside, HOST, at).await);
        network
            .connect("web", &membership("bridge"), &[])
            .await
            .unwrap();
        network.disconnect("web", "behind").await.unwrap();
        assert_eq!(ask(&outside, HOST, at).await, said, "it is forwarded now");
        network
            .connect("web", &membership("behind"), &[])
            .await
            .unwrap();
        let back = network.disconnect("web", "bridge").await.unwrap();
        assert!(is_closed(&outside, HOST, at).await, "it is relayed again");
        assert!(is_closed(&Place::here(), HOST, at).await);
        network.detach("web", &back).await.unwrap();
        network.remove("behind").await.unwrap();
    });
}
