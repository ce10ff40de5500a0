//! One service alone, used by a program that knows nothing of us but its socket.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "test code"
)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use orlop_tests::{Instance, binary, eventually};
use tokio_stream::StreamExt as _;

/// A store that was started alone, in a directory that goes with it.
struct Alone {
    directory: tempfile::TempDir,
    process: Child,
}

impl Alone {
    fn start() -> Self {
        let directory = tempfile::tempdir_in("/var/tmp").unwrap();
        let process = Command::new(binary("orlop"))
            .args(["serve", "store", "--root"])
            .arg(directory.path())
            .args(["--run-dir"])
            .arg(directory.path())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let alone = Self { directory, process };
        eventually("the store listens", || alone.socket().exists());
        alone
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("store.sock")
    }

    /// What a Python program says with the socket and one more argument.
    fn python(&self, program: &str, argument: Option<&str>) -> String {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let output = Command::new("/var/cache/orlop-tests/venv/bin/python")
            .arg(root.join(program))
            .arg(self.socket())
            .args(argument.map(|argument| root.join(argument)))
            .output()
            .expect("make test makes the Python environment");
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(output.status.success(), "{out}{err}");
        out
    }

    fn stop(mut self) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.process.id()).unwrap());
        rustix::process::kill_process(pid.unwrap(), rustix::process::Signal::TERM).unwrap();
        let ended = self.process.wait().unwrap();
        assert!(ended.success(), "SIGTERM ends a service cleanly");
    }
}

/// `docs/store.md` explains this program; here it runs twice, with reflection and with the
/// checked-in contract.
#[test]
fn the_python_client_of_the_documentation_works_with_a_store_alone() {
    let store = Alone::start();
    for contract in [None, Some("proto/src/gen/descriptors.bin")] {
        let out = store.python("docs/client.py", contract);
        for expected in [
            // echo -n hello | sha256sum
            "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
            "hello ell",
            "interrupted at 3000000",
            "resumed at 3000000",
            "named docker.io/library/example:1",
            "lost the race: ABORTED",
            "welcome",
        ] {
            assert!(out.contains(expected), "{expected} in {out}");
        }
    }
    store.stop();
}

#[test]
fn the_grpcurl_commands_of_the_documentation_work_with_a_store_alone() {
    let store = Alone::start();
    let out = store.python("tests/tests/clients/grpcurl.py", Some("docs/store.md"));
    for expected in [
        "Content/PutMany {\"stored\": \"1\"}",
        "Content/Read {\"data\": \"ZWxs\"}",
        "{\"missing\": [\"sha256:0000",
        "StatIngest {\"ingestId\": \"upload-2\", \"offset\": \"6\"",
        "Write {\"offset\": \"11\", \"digest\": \"sha256:b94d27b9934d",
        "ListResources {\"blob\": \"sha256:b94d27b9934d",
        "\"name\": \"docker.io/library/empty:1\"",
        "Apply {\"entries\": \"1\"}",
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "21 commands",
    ] {
        assert!(out.contains(expected), "{expected} in {out}");
    }
    store.stop();
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
