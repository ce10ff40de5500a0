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
async fn create_and_remove_say_that_they_are_not_built() {
    let root = tempfile::tempdir().unwrap();
    let mut client = client(root.path()).await;
    let create = client.create(wire::CreateNetworkRequest::default()).await;
    let remove = client.remove(wire::RemoveNetworkRequest::default()).await;
    for (status, rpc) in [
        (create.unwrap_err(), "Networks.Create"),
        (remove.unwrap_err(), "Networks.Remove"),
    ] {
        let failure = Failure::from(status);
        assert_eq!(failure.kind, Kind::Unimplemented);
        assert!(failure.message.contains(rpc), "{failure}");
    }
}
