//! One instance of the service: its own root, sockets and store; nothing is left behind.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use orlop_proto::error::Failure;
use orlop_proto::runtime as wire;
use orlop_proto::runtime::attach_request::Message as In;
use orlop_proto::runtime::attach_response::Message as Out;
use orlop_proto::runtime::containers_client::ContainersClient;
use orlop_proto::runtime::create_request::Root;
use orlop_proto::runtime::volumes_client::VolumesClient;
use orlop_wire::Endpoint;
use tempfile::TempDir;
use tonic::transport::Channel;

use crate::store::Store;

/// Images that the tests know.
const IMAGES: [(&str, &str); 4] = [
    (
        "busybox",
        r#"{"Cmd":["sh"],"Env":["A=image"],"Labels":{"tier":"base"}}"#,
    ),
    (
        "volumes",
        r#"{"Cmd":["true"],"Volumes":{"/seeded":{}},"ExposedPorts":{"80/tcp":{}}}"#,
    ),
    ("hostile", r#"{"Cmd":["true"],"Volumes":{"/proc":{}}}"#),
    ("empty", "{}"),
];

/// A service that can be stopped and started again.
#[derive(Debug)]
pub(crate) struct Service {
    root: TempDir,
    pub(crate) store: Store,
    running: Option<Child>,
}

/// What an attached run gave.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Output {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) code: Option<i32>,
}

impl Service {
    pub(crate) async fn start() -> Self {
        let root = tempfile::Builder::new()
            .prefix("orlop-rt-")
            .tempdir()
            .unwrap();
        let directory = root.path().join("fake-store");
        std::fs::create_dir(&directory).unwrap();
        let store = Store::serve(&directory, &root.path().join("store.sock"), &IMAGES);
        let mut service = Self {
            root,
            store,
            running: None,
        };
        service.begin().await;
        service
    }

    /// Starts the service; returns when it answers.
    pub(crate) async fn begin(&mut self) {
        let root = self.root.path();
        let log = std::fs::File::create(root.join("runtime.log")).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_orlop-runtime"))
            .arg("--root")
            .arg(root)
            .arg("--run-dir")
            .arg(root.join("run"))
            .arg("--store")
            .arg(root.join("store.sock"))
            .arg("--shim")
            .arg(shim())
            .env("CANARY", "of-the-service")
            .stderr(log)
            .spawn()
            .unwrap();
        self.running = Some(process);
        eventually("the service answers", async || {
            let mut containers = self.containers();
            let listed = containers.list(wire::ListContainersRequest::default());
            listed.await.is_ok()
        })
        .await;
    }

    /// SIGTERM; returns when the service has ended.
    pub(crate) fn terminate(&mut self) {
        if let Some(mut process) = self.running.take() {
            let pid = i32::try_from(process.id()).unwrap();
            let pid = nix::unistd::Pid::from_raw(pid);
            nix::sys::signal::kill(pid, nix::sys::signal::SIGTERM).ok();
            process.wait().ok();
        }
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        let mut process = self.running.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    pub(crate) fn path(&self) -> &std::path::Path {
        self.root.path()
    }

    fn channel(&self) -> Channel {
        orlop_wire::connect(&Endpoint::Unix(self.root.path().join("run/runtime.sock")))
    }

    pub(crate) fn containers(&self) -> ContainersClient<Channel> {
        ContainersClient::new(self.channel())
    }

    pub(crate) fn volumes(&self) -> VolumesClient<Channel> {
        VolumesClient::new(self.channel())
    }

    pub(crate) async fn create(&self, request: wire::CreateRequest) -> Result<String, Failure> {
        let created = self.containers().create(request).await;
        Ok(created?.into_inner().id)
    }

    /// Makes and starts a container.
    pub(crate) async fn launch(&self, request: wire::CreateRequest) -> String {
        let id = self.create(request).await.unwrap();
        self.start_container(&id).await.unwrap();
        id
    }

    pub(crate) async fn start_container(&self, id: &str) -> Result<(), Failure> {
        let request = wire::StartRequest {
            id: id.to_owned(),
            strict: false,
        };
        self.containers().start(request).await?;
        Ok(())
    }

    pub(crate) async fn inspect(&self, id: &str) -> Result<wire::Container, Failure> {
        let request = wire::InspectRequest {
            id: id.to_owned(),
            size: false,
        };
        Ok(self.containers().inspect(request).await?.into_inner())
    }

    pub(crate) async fn state(&self, id: &str) -> wire::ContainerState {
        self.inspect(id).await.unwrap().state.unwrap()
    }

    pub(crate) async fn wait(&self, id: &str) -> i32 {
        let request = wire::WaitRequest {
            id: id.to_owned(),
            condition: String::new(),
        };
        self.containers()
            .wait(request)
            .await
            .unwrap()
            .into_inner()
            .exit_code
    }

    pub(crate) async fn stop(&self, id: &str, timeout: i32) {
        let request = wire::StopRequest {
            id: id.to_owned(),
            timeout: Some(timeout),
            signal: String::new(),
        };
        self.containers().stop(request).await.unwrap();
    }

    pub(crate) async fn remove(&self, id: &str, force: bool) -> Result<(), Failure> {
        let request = wire::RemoveRequest {
            id: id.to_owned(),
            force,
            volumes: true,
        };
        self.containers().remove(request).await?;
        Ok(())
    }

    pub(crate) async fn list(&self, all: bool, filters: &[(&str, &str)]) -> Vec<wire::Container> {
        let filters = filters
            .iter()
            .map(|(key, value)| wire::Filter {
                key: (*key).to_owned(),
                value: (*value).to_owned(),
            })
            .collect();
        let request = wire::ListContainersRequest {
            all,
            filters,
            limit: 0,
            size: false,
        };
        let listed = self.containers().list(request).await.unwrap();
        listed.into_inner().containers
    }

    /// Attaches, starts, and reads to the end; `stdin` is written and closed.
    pub(crate) async fn run_attached(&self, id: &str, stdin: &[u8]) -> Result<Output, Failure> {
        let start = wire::AttachStart {
            id: id.to_owned(),
            stdin: true,
            stdout: true,
            stderr: true,
            start: true,
            ..wire::AttachStart::default()
        };
        let mut messages = vec![In::Start(start)];
        if !stdin.is_empty() {
            messages.push(In::Stdin(stdin.to_vec().into()));
            messages.push(In::Stdin(bytes::Bytes::new()));
        }
        let messages = messages.into_iter().map(|message| wire::AttachRequest {
            message: Some(message),
        });
        let requests = futures_util::StreamExt::chain(
            futures_util::stream::iter(messages),
            futures_util::stream::pending(),
        );
        let answers = self.containers().attach(requests).await?.into_inner();
        collect(answers).await
    }

    /// Runs `sh -c SCRIPT` to its end without a network.
    pub(crate) async fn sh(&self, script: &str) -> Output {
        let id = self.create(sh(script)).await.unwrap();
        let output = self.run_attached(&id, b"").await.unwrap();
        self.remove(&id, true).await.unwrap();
        output
    }
}

/// Waits until something is so, also on a slow machine.
pub(crate) async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so().await {
        assert!(Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Containers end with their test, also when it fails; then the service, which takes its bridge along.
impl Drop for Service {
    fn drop(&mut self) {
        self.kill_containers();
        std::thread::sleep(Duration::from_millis(100));
        self.terminate();
    }
}

impl Service {
    fn kill_containers(&self) {
        let Ok(entries) = std::fs::read_dir(self.root.path().join("runtime/containers")) else {
            return;
        };
        for entry in entries.flatten() {
            let Ok(json) = std::fs::read_to_string(entry.path().join("container.json")) else {
                continue;
            };
            for group in json
                .split('"')
                .filter(|text| text.starts_with("/sys/fs/cgroup/"))
            {
                let Ok(pids) =
                    std::fs::read_to_string(std::path::Path::new(group).join("cgroup.procs"))
                else {
                    continue;
                };
                for pid in pids.lines().filter_map(|pid| pid.parse().ok()) {
                    nix::sys::signal::kill(
                        nix::unistd::Pid::from_raw(pid),
                        nix::sys::signal::SIGKILL,
                    )
                    .ok();
                }
            }
        }
    }
}

pub(crate) async fn collect(
    mut answers: tonic::Streaming<wire::AttachResponse>,
) -> Result<Output, Failure> {
    let mut output = Output::default();
    while let Some(answer) = answers.message().await? {
        match answer.message.unwrap() {
            Out::Attached(_) => {}
            Out::Stdout(bytes) => output.stdout.push_str(&String::from_utf8_lossy(&bytes)),
            Out::Stderr(bytes) => output.stderr.push_str(&String::from_utf8_lossy(&bytes)),
            Out::Exited(exited) => output.code = Some(exited.code),
        }
    }
    Ok(output)
}

/// A request for a container of an image, without a network.
pub(crate) fn of_image(image: &str, command: &[&str]) -> wire::CreateRequest {
    wire::CreateRequest {
        root: Some(Root::Image(image.to_owned())),
        command: command.iter().map(|s| (*s).to_owned()).collect(),
        network: "none".to_owned(),
        ..wire::CreateRequest::default()
    }
}

pub(crate) fn sh(script: &str) -> wire::CreateRequest {
    of_image("busybox", &["sh", "-c", script])
}

/// The shim beside this test, as `cargo build --workspace --bins` leaves it.
fn shim() -> std::path::PathBuf {
    let shim =
        std::path::Path::new(env!("CARGO_BIN_EXE_orlop-runtime")).with_file_name("orlop-shim");
    assert!(
        shim.exists(),
        "{} is not built: run `cargo build --workspace --bins`",
        shim.display()
    );
    shim
}
