//! `Networks` through the socket of a real service.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::path::Path;
use std::time::Duration;

use clap::Parser as _;
use orlop_proto::error::{Failure, Kind};
use orlop_proto::runtime as wire;
use orlop_proto::runtime::networks_client::NetworksClient;
use orlop_runtime::{Config, serve_until};
use orlop_wire::Endpoint;
use tonic::transport::Channel;

/// A client of a service with a root of its own, which ends with the test.
async fn client(root: &Path) -> NetworksClient<Channel> {
    let run = root.join("run");
    let options = [
        "orlop-runtime".as_ref(),
        "--root".as_ref(),
        root.as_os_str(),
    ];
    let options = options
        .into_iter()
        .chain(["--run-dir".as_ref(), run.as_os_str()]);
    let config = Config::try_parse_from(options).unwrap();
    let socket = run.join("runtime.sock");
    let service = tokio::spawn(serve_until(config, std::future::pending()));
    while !socket.exists() && !service.is_finished() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    NetworksClient::new(orlop_wire::connect(&Endpoint::Unix(socket)))
}

#[tokio::test]
async fn list_has_the_three_networks_by_name() {
    let root = tempfile::tempdir().unwrap();
    let mut client = client(root.path()).await;
    let answer = client.list(wire::ListNetworksRequest {}).await.unwrap();
    let networks = answer.into_inner().networks;
    let names: Vec<_> = networks
        .iter()
        .map(|network| (network.name.as_str(), network.driver.as_str()))
        .collect();
    assert_eq!(
        names,
        [("bridge", "bridge"), ("host", "host"), ("none", "null")]
    );
}

#[tokio::test]
async fn inspect_knows_the_bridge_and_says_what_it_does_not_know() {
    let root = tempfile::tempdir().unwrap();
    let mut client = client(root.path()).await;
    let name = |name: &str| wire::InspectNetworkRequest {
        name: name.to_owned(),
    };
    let bridge = client.inspect(name("bridge")).await.unwrap().into_inner();
    assert!(bridge.interface.starts_with("orl-"), "{bridge:?}");
    for unknown in ["", "front", "../../bin/x"] {
        let failure = Failure::from(client.inspect(name(unknown)).await.unwrap_err());
        assert_eq!(failure.kind, Kind::NotFound);
        assert!(failure.message.contains(unknown), "{failure}");
    }
}

#[tokio::test]
async fn a_network_of_a_user_is_there_until_it_is_removed_and_keeps_its_subnet() {
    let root = tempfile::tempdir().unwrap();
    let mut client = client(root.path()).await;
    let request = |name: &str, subnet: &str| wire::CreateNetworkRequest {
        name: name.to_owned(),
        subnet: subnet.to_owned(),
        ..Default::default()
    };
    let made = client.create(request("front", "")).await.unwrap();
    let made = made.into_inner();
    let twice = client.create(request("front", "")).await.unwrap_err();
    assert_eq!(Failure::from(twice).kind, Kind::AlreadyExists);
    let overlapping = client.create(request("back", &made.subnet)).await;
    let failure = Failure::from(overlapping.unwrap_err());
    assert_eq!(failure.kind, Kind::FailedPrecondition);
    assert!(failure.message.contains(&made.subnet), "{failure}");
    let other = client
        .create(request("back", ""))
        .await
        .unwrap()
        .into_inner();
    assert_ne!(other.subnet, made.subnet);

    let by_id = wire::InspectNetworkRequest {
        name: made.id[..12].to_owned(),
    };
    assert_eq!(client.inspect(by_id).await.unwrap().into_inner(), made);
    for name in ["front", "back"] {
        let name = name.to_owned();
        let request = wire::RemoveNetworkRequest { name };
        client.remove(request.clone()).await.unwrap();
        let failure = Failure::from(client.remove(request).await.unwrap_err());
        assert_eq!(failure.kind, Kind::NotFound);
    }
    let name = "bridge".to_owned();
    let refused = client.remove(wire::RemoveNetworkRequest { name }).await;
    assert_eq!(
        Failure::from(refused.unwrap_err()).kind,
        Kind::FailedPrecondition
    );
}
