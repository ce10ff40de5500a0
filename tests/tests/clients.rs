//! One service alone, used by a program that knows nothing of us but its socket.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "test code"
)]

use std::path::Path;
use std::process::{Command, Stdio};

use orlop_tests::{Instance, binary, eventually};
use tokio_stream::StreamExt as _;

/// `docs/clients.md` shows this program; here it runs against a store that was started alone.
#[test]
fn the_python_client_of_the_documentation_works_with_a_store_alone() {
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let socket = directory.path().join("store.sock");
    let mut store = Command::new(binary("orlop"))
        .args(["serve", "store", "--root"])
        .arg(directory.path())
        .args(["--run-dir"])
        .arg(directory.path())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the store listens", || socket.exists());
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/client.py");
    let output = Command::new("/var/cache/orlop-tests/venv/bin/python")
        .arg(program)
        .arg(&socket)
        .output()
        .expect("make test makes the Python environment");
    let pid = rustix::process::Pid::from_raw(i32::try_from(store.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(
        store.wait().unwrap().success(),
        "SIGTERM ends a service cleanly"
    );
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{out}{err}");
    // echo -n hello | sha256sum
    assert!(
        out.contains("sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"),
        "{out}"
    );
    assert!(out.contains("hello"), "{out}");
}

/// Health and reflection on every service.
#[test]
fn every_service_tells_its_health_and_its_contract() {
    let orlop = Instance::start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = runtime.enter();
    for (service, names) in [
        (
            "store",
            &["orlop.store.v1.Content", "orlop.store.v1.Snapshots"][..],
        ),
        (
            "builder",
            &["orlop.builder.v1.Build", "orlop.builder.v1.Cache"],
        ),
        (
            "runtime",
            &["orlop.runtime.v1.Containers", "orlop.runtime.v1.Volumes"],
        ),
        (
            "registry",
            &[
                "orlop.registry.v1.Transfer",
                "orlop.registry.v1.Repositories",
            ],
        ),
    ] {
        let channel = orlop.channel(service);
        runtime.block_on(async {
            let mut health = tonic_health::pb::health_client::HealthClient::new(channel.clone());
            for name in names {
                let request = tonic_health::pb::HealthCheckRequest {
                    service: (*name).to_owned(),
                };
                let status = health.check(request).await.unwrap().into_inner().status;
                assert_eq!(status, 1, "{name} is serving");
            }
            let listed = reflected(channel).await;
            for name in names {
                assert!(
                    listed.iter().any(|l| l == name),
                    "{service} lists {listed:?}"
                );
            }
        });
    }
}

async fn reflected(channel: tonic::transport::Channel) -> Vec<String> {
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(channel);
    let mut answers = client
        .server_reflection_info(tokio_stream::iter([request]))
        .await
        .unwrap()
        .into_inner();
    match answers
        .next()
        .await
        .unwrap()
        .unwrap()
        .message_response
        .unwrap()
    {
        MessageResponse::ListServicesResponse(list) => list
            .service
            .into_iter()
            .map(|service| service.name)
            .collect(),
        other => panic!("{other:?}"),
    }
}
