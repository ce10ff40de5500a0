//! Rows A3, A21, J3 and J8: what the process does besides answering.

use std::fs;
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use orlop_proto::store::ListSnapshotsRequest;
use orlop_proto::store::snapshots_client::SnapshotsClient;
use tonic::Code;

use crate::process::Process;
use crate::smith::Tar;

const NOBODY: u32 = 65_534;

/// Begins of a stream of `xz` and of `bzip2`.
const XZ: &[u8] = b"\xfd7zXZ\0\0\x04\xe6\xd6\xb4F\x02\0!\x01\x1c\0\0\0\x10\xcfX\xcc";
const BZIP2: &[u8] = b"BZh91AY&SY\0\0\0\0";

#[tokio::test(flavor = "multi_thread")]
async fn a3_nothing_is_executed_to_decompress() {
    let fake = tempfile::tempdir().unwrap();
    for name in ["xz", "unxz", "bzip2", "unpigz", "tar"] {
        fs::write(fake.path().join(name), "#!/bin/sh\necho evil\n").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(fake.path().join(name), mode).unwrap();
    }
    let store = Process::start_with(|command| {
        command.env("PATH", fake.path());
    })
    .await;
    let trace = store.path("trace");
    let mut strace = Command::new("strace")
        .args(["-f", "-e", "trace=execve,execveat", "-o"])
        .arg(&trace)
        .args(["-p", &store.id().to_string()])
        .stderr(Stdio::piped())
        .spawn()
        .expect("install strace");
    let mut attached = [0; 1];
    strace
        .stderr
        .as_mut()
        .unwrap()
        .read_exact(&mut attached)
        .unwrap();

    for (bytes, name) in [(XZ, "xz"), (BZIP2, "bzip2")] {
        let refused = store.load(bytes.to_vec()).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(refused.message().contains(name), "{refused}");
        let image = store.import(bytes.to_vec()).await;
        let refused = match image {
            Ok(image) => store.unpack(image).await.unwrap_err(),
            Err(refused) => refused,
        };
        assert!(refused.message().contains(name), "{refused}");
    }
    let image = store
        .import(Tar::new().file("f", b"x").end())
        .await
        .unwrap();
    store.unpack(image).await.unwrap();

    let pid = rustix::process::Pid::from_child(&strace);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    strace.wait().unwrap();
    let executed = fs::read_to_string(trace).unwrap();
    assert!(!executed.contains("exec"), "{executed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a21_a_hard_link_is_not_looked_up_in_the_working_directory() {
    let store = Process::start().await;
    let secret = store.path("cwd").join("victim.secret");
    fs::write(&secret, "secret").unwrap();
    for target in [
        "victim.secret",
        "./victim.secret",
        "cwd/../victim.secret",
        "/proc/self/cwd/victim.secret",
    ] {
        let layer = Tar::new().hard_link("x", target).end();
        let image = store.import(layer).await;
        let refused = match image {
            Ok(image) => store.unpack(image).await.unwrap_err(),
            Err(refused) => refused,
        };
        assert_eq!(refused.code(), Code::InvalidArgument, "{target}: {refused}");
    }
    assert_eq!(
        std::os::unix::fs::MetadataExt::nlink(&fs::metadata(secret).unwrap()),
        1
    );
}

/// A setuid file of a layer is out of reach of other users.
#[tokio::test(flavor = "multi_thread")]
async fn j3_no_other_user_reaches_a_layer() {
    let store = Process::start().await;
    let world = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(store.path(""), world).unwrap();
    let image = store
        .import(Tar::new().file_mode("su", 0o4755, b"x").end())
        .await
        .unwrap();
    store.unpack(image).await.unwrap();
    let state = store.path("root/store");
    assert!(state.is_dir());
    let as_nobody = |program: &str, path: &std::path::Path| {
        let mut command = Command::new(program);
        command.arg(path).uid(NOBODY).gid(NOBODY);
        command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap()
            .success()
    };
    assert!(as_nobody("stat", &store.path("root")) || as_nobody("stat", &store.path("")));
    let mut todo = vec![state];
    let mut seen = 0;
    while let Some(directory) = todo.pop() {
        assert!(!as_nobody("ls", &directory), "{}", directory.display());
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            seen += 1;
            assert!(!as_nobody("stat", &path), "{}", path.display());
            if path.is_dir() && seen < 60 {
                todo.push(path);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn j8_metadata_of_calls_is_in_no_log() {
    let store = Process::start_with(|command| {
        command.args(["--log", "trace"]);
    })
    .await;
    let mut request = tonic::Request::new(ListSnapshotsRequest {});
    let metadata = request.metadata_mut();
    metadata.insert("authorization", "Bearer canary-4711".parse().unwrap());
    metadata.insert("x-registry-auth", "canary-4711".parse().unwrap());
    let shown = format!("{:?}", request.get_ref());
    assert!(!shown.contains("canary-4711"));
    SnapshotsClient::new(store.channel.clone())
        .list(request)
        .await
        .unwrap();
    let log = fs::read_to_string(store.path("log")).unwrap();
    assert!(!log.is_empty());
    assert!(!log.contains("canary-4711"));
}
