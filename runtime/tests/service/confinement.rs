//! What a container sees of itself, of its network and of its limits.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use orlop_proto::error::reason;
use orlop_proto::runtime as wire;

use crate::service::{Service, eventually, sh};

fn publish(host_port: u32, script: &str) -> wire::CreateRequest {
    let mut request = sh(script);
    request.network = String::new();
    request.ports = vec![wire::PortBinding {
        container_port: 80,
        host_port,
        ..wire::PortBinding::default()
    }];
    request
}

fn say(port: u32) -> Option<String> {
    let port = u16::try_from(port).unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    stream.write_all(b"hello\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer).filter(|text| !text.is_empty())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_port_answers_and_survives_a_kill_of_the_service() {
    let mut service = Service::start().await;
    let script = "while :; do echo ahoy | nc -l -p 80 -w 1; done";
    let id = service.launch(publish(0, script)).await;
    let inspected = service.inspect(&id).await.unwrap();
    let port = inspected.ports.first().unwrap().host_port;
    assert!(inspected.endpoints.first().unwrap().address.contains('.'));
    // Between two clients nobody listens for a moment.
    let answers = async || say(port).is_some_and(|text| text == "ahoy\n");
    eventually("the port answers", answers).await;
    let taken = service.create(publish(port, "true")).await.unwrap();
    let error = service.start_container(&taken).await.unwrap_err();
    assert_eq!(error.reason, reason::PORT_IN_USE, "{error}");
    service.kill();
    eventually("it answers without the service", answers).await;
    service.begin().await;
    eventually("it answers with the next service", answers).await;
    let found = service.inspect(&id).await.unwrap();
    assert_eq!(found.ports, inspected.ports);
    assert_eq!(found.endpoints, inspected.endpoints);
    service.remove(&id, true).await.unwrap();
    assert!(say(port).is_none());
    service.start_container(&taken).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn c11_the_services_own_environment_never_reaches_a_container() {
    let service = Service::start().await;
    let output = service.sh("env; cat /proc/1/environ").await;
    assert!(output.stdout.contains("A=image"));
    assert!(!output.stdout.contains("CANARY"), "{}", output.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_and_their_groups_go_with_the_container() {
    let service = Service::start().await;
    let mut request = sh("cat /proc/1/limits /proc/self/cgroup; sleep 100");
    request.resources = Some(wire::Resources {
        memory: 32 << 20,
        pids: Some(16),
        nano_cpus: 500_000_000,
        ..wire::Resources::default()
    });
    let id = service.launch(request).await;
    let pid = service.state(&id).await.pid;
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(groups.contains(&id), "{groups}");
    service.remove(&id, true).await.unwrap();
    let left = walk(std::path::Path::new("/sys/fs/cgroup"), &id);
    assert_eq!(left, Vec::<std::path::PathBuf>::new());
}

/// Directories of that name.
fn walk(directory: &std::path::Path, name: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if entry.file_name() == *name {
                found.push(entry.path());
            }
            found.extend(walk(&entry.path(), name));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn too_much_memory_is_told_as_such() {
    let service = Service::start().await;
    let mut request = sh("tail /dev/zero");
    request.resources = Some(wire::Resources {
        memory: 16 << 20,
        memory_swap: 16 << 20,
        ..wire::Resources::default()
    });
    let id = service.create(request).await.unwrap();
    assert_eq!(
        service.run_attached(&id, b"").await.unwrap().code,
        Some(137)
    );
    assert!(service.state(&id).await.oom_killed);
}
