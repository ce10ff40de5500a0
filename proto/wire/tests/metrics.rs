//! Metrics as Prometheus reads them: over HTTP, from a process that serves gRPC.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::net::SocketAddr;

use orlop_wire::{Endpoint, Listener, connect, metrics, serve};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::service::Routes;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

const LABELS: &str = r#"grpc_service="grpc.health.v1.Health",grpc_method="Check""#;

#[tokio::test]
async fn calls_are_counted_by_method_and_code() {
    let directory = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::Unix(directory.path().join("wire.sock"));
    let listener = Listener::bind(&endpoint, false).await.unwrap();
    tokio::spawn(serve(
        listener,
        Routes::default(),
        &["known"],
        std::future::pending(),
    ));
    let address = metrics::serve(loopback(), false).await.unwrap();
    let mut health = HealthClient::new(connect(&endpoint));
    for service in ["known", "known", "unknown"] {
        let service = service.to_owned();
        health.check(HealthCheckRequest { service }).await.ok();
    }

    let text = get(address, "/metrics").await;
    let value = |name: &str, more: &str| value(&text, &format!("{name}{{{LABELS}{more}}}"));
    assert_eq!(value("grpc_server_started_total", ""), 3.0, "{text}");
    assert_eq!(
        value("grpc_server_handled_total", r#",grpc_code="OK""#),
        2.0
    );
    assert_eq!(
        value("grpc_server_handled_total", r#",grpc_code="NotFound""#),
        1.0
    );
    assert_eq!(value("grpc_server_handling_seconds_count", ""), 3.0);
    assert_eq!(value("grpc_server_in_flight", ""), 0.0);
}

#[tokio::test]
async fn a_client_cannot_make_metrics() {
    let directory = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::Unix(directory.path().join("wire.sock"));
    let listener = Listener::bind(&endpoint, false).await.unwrap();
    tokio::spawn(serve(
        listener,
        Routes::default(),
        &[],
        std::future::pending(),
    ));
    let mut client = tonic::client::Grpc::new(connect(&endpoint));
    for number in 0..100 {
        client.ready().await.unwrap();
        let path = format!("/evil.v{number}.Service/Method").parse().unwrap();
        let codec = tonic_prost::ProstCodec::<(), ()>::default();
        let answer = client.unary(tonic::Request::new(()), path, codec).await;
        assert_eq!(answer.unwrap_err().code(), tonic::Code::Unimplemented);
    }
    let text = metrics::text();
    assert!(!text.contains("evil"), "{text}");
    let unknown = r#"grpc_server_started_total{grpc_service="unknown",grpc_method="unknown"}"#;
    assert_eq!(value(&text, unknown), 100.0);
}

#[tokio::test]
async fn the_process_tells_its_memory_descriptors_and_age() {
    let text = get(metrics::serve(loopback(), false).await.unwrap(), "/metrics").await;
    let resident = value(&text, "process_resident_memory_bytes");
    assert!(resident > 1e6, "{resident}");
    assert!(value(&text, "process_resident_memory_max_bytes") >= resident);
    assert!(value(&text, "process_open_fds") >= 3.0);
    assert!(value(&text, "process_start_time_seconds") > 1.7e9);
    assert!(text.ends_with("# EOF\n"), "{text}");
}

#[tokio::test]
async fn nothing_but_metrics_is_answered() {
    let address = metrics::serve(loopback(), false).await.unwrap();
    assert!(get(address, "/").await.starts_with("HTTP/1.1 404"));
    let posted = request(
        address,
        "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    );
    assert!(posted.await.starts_with("HTTP/1.1 405"));
}

#[tokio::test]
async fn j9_metrics_are_for_this_host_unless_the_operator_says_otherwise() {
    let everywhere: SocketAddr = ([0, 0, 0, 0], 0).into();
    let refused = metrics::serve(everywhere, false).await.unwrap_err();
    assert!(refused.to_string().contains("--insecure"), "{refused}");
    assert!(metrics::serve(everywhere, true).await.is_ok());
}

fn loopback() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

async fn get(address: SocketAddr, path: &str) -> String {
    request(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await
}

async fn request(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// The value of a sample: what follows its name and labels on its line.
fn value(text: &str, sample: &str) -> f64 {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or(-1.0)
}
