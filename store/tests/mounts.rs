//! Layers as images: mounted where they are used, once each, and nowhere when nobody needs them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use orlop_proto::store::snapshots_client::SnapshotsClient;
use orlop_proto::store::{GetMountRequest, SnapshotMount};
use orlop_store::check::Options;
use orlop_store::config::StoreArgs;
use orlop_store::layers::form::Form;
use orlop_wire::{Endpoint, connect};

#[path = "support/client.rs"]
mod client;
#[path = "support/service.rs"]
mod service;
#[path = "support/smith.rs"]
mod smith;

use client::Client;
use service::{Service, sha256};
use smith::Tar;

async fn client() -> Client {
    let service = Service::start_with(StoreArgs {
        layers: Form::Erofs,
        collect_grace_seconds: 0,
        ..StoreArgs::default()
    })
    .await;
    let rpc = service.client(SnapshotsClient::new);
    Client { service, rpc }
}

/// An image of two layers, unpacked, and the key of a snapshot on it.
async fn prepared(client: &mut Client) -> SnapshotMount {
    let layers = [
        Tar::new().directory("d", 0o755).file("d/a", b"below").end(),
        Tar::new().file("b", b"above").end(),
    ];
    let layers: Vec<_> = layers
        .iter()
        .map(|tar| (tar.as_slice(), sha256(tar)))
        .collect();
    let image = client.service.image(&layers);
    let parent = client.unpack(&image).await.unwrap().name;
    client.prepare("k", &parent).await.unwrap()
}

/// Where something is mounted below a directory.
fn mounts_below(directory: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let places = table.lines().filter_map(|line| line.split(' ').nth(4));
    places
        .map(PathBuf::from)
        .filter(|place| place.starts_with(directory))
        .collect()
}

#[tokio::test]
async fn a_layer_is_mounted_once_and_read_only_when_something_is_built_on_it() {
    let mut client = client().await;
    let mount = prepared(&mut client).await;
    let state = client.service.state();
    assert_eq!(mounts_below(&state).len(), 2);
    assert_eq!(
        fs::read(Path::new(&mount.lower[0]).join("b")).unwrap(),
        b"above"
    );
    assert_eq!(
        fs::read(Path::new(&mount.lower[1]).join("d/a")).unwrap(),
        b"below"
    );
    assert!(fs::write(Path::new(&mount.lower[0]).join("b"), b"x").is_err());

    let parent = client.service.store.snapshots.stat("k").unwrap().parent;
    client.prepare("k2", &parent.unwrap()).await.unwrap();
    assert_eq!(mounts_below(&state).len(), 2);
}

#[tokio::test]
async fn a_layer_that_nothing_is_built_on_is_unmounted_and_one_in_use_is_not() {
    let mut client = client().await;
    drop(prepared(&mut client).await);
    let state = client.service.state();
    let snapshots = client.service.store.snapshots.clone();
    snapshots.unmount_idle(Duration::ZERO).unwrap();
    assert_eq!(mounts_below(&state).len(), 2);
    client.remove("k").await.unwrap();
    snapshots.unmount_idle(Duration::from_secs(60)).unwrap();
    assert_eq!(mounts_below(&state).len(), 2, "it may be wanted again soon");
    snapshots.unmount_idle(Duration::ZERO).unwrap();
    assert!(mounts_below(&state).is_empty());
}

/// The option of an overlay mount has one page, which is what bounds others to 127 layers.
#[tokio::test]
async fn a_stack_of_three_hundred_layers_can_be_mounted() {
    const LAYERS: usize = 300;
    let mut client = client().await;
    let tar = |n: usize| {
        Tar::new()
            .file(&format!("f{n}"), n.to_string().as_bytes())
            .end()
    };
    let layers: Vec<_> = (0..LAYERS)
        .map(tar)
        .map(|tar| (sha256(&tar), tar))
        .collect();
    let layers: Vec<_> = layers
        .iter()
        .map(|(diff_id, tar)| (tar.as_slice(), diff_id.clone()))
        .collect();
    let image = client.service.image(&layers);
    let parent = client.unpack(&image).await.unwrap().name;
    client.prepare("k", &parent).await.unwrap();
    assert_eq!(client.read("k", "f0").await.unwrap(), b"0");
    assert_eq!(client.read("k", "f299").await.unwrap(), b"299");
    assert_eq!(mounts_below(&client.service.state()).len(), LAYERS);
}

/// A container whose store goes away keeps its root.
#[tokio::test]
async fn what_runs_on_a_layer_keeps_it() {
    let mut client = client().await;
    drop(prepared(&mut client).await);
    let snapshots = client.service.store.snapshots.clone();
    let record = snapshots.stat("k").unwrap();
    let root = snapshots.stack(&record).unwrap().open().unwrap();
    snapshots.unmount_all().unwrap();
    assert!(mounts_below(&client.service.state()).is_empty());
    let stat = root.stat(b"d/a").unwrap();
    assert_eq!(stat.st_size, 5);
}

#[tokio::test]
async fn a_removed_layer_leaves_no_mount_and_no_file() {
    let mut client = client().await;
    drop(prepared(&mut client).await);
    client.remove("k").await.unwrap();
    let maintenance = client.service.store.maintenance.clone();
    let collect = move || {
        // The creation of a layer is known to the second.
        std::thread::sleep(Duration::from_millis(1100));
        maintenance.collect(false).unwrap()
    };
    tokio::task::spawn_blocking(collect).await.unwrap();
    let state = client.service.state();
    assert_eq!(client.service.left("layers"), [""; 0]);
    // The trash unmounts it, off everyone's way.
    for _ in 0..3000 {
        if mounts_below(&state).is_empty() && client.service.left("trash").is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{:?} stays", mounts_below(&state));
}

/// The store as a process of its own, to be killed.
struct Process(Child);

impl Process {
    fn start(root: &Path) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_orlop-store"))
            .args(["--layers", "erofs", "--root"])
            .arg(root)
            .stderr(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }

    async fn mount(root: &Path) -> SnapshotMount {
        let endpoint = Endpoint::Unix(root.join("run/store.sock"));
        let request = GetMountRequest { key: "k".into() };
        for _ in 0..1500 {
            let mut client = SnapshotsClient::new(connect(&endpoint));
            match client.get_mount(request.clone()).await {
                Ok(mount) => return mount.into_inner(),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        panic!("the store never answered");
    }

    fn end(mut self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, signal).unwrap();
        self.0.wait().unwrap();
    }
}

#[tokio::test]
async fn a_killed_store_finds_its_mounts_again_and_an_ended_one_leaves_none() {
    use rustix::process::Signal;
    let directory = tempfile::tempdir().unwrap();
    {
        let mut client = client().await;
        drop(prepared(&mut client).await);
        let state = client.service.state();
        client.service.store.snapshots.unmount_all().unwrap();
        let copied = Command::new("cp")
            .arg("-a")
            .arg(&state)
            .arg(directory.path())
            .status();
        assert!(copied.unwrap().success());
    }
    let first = Process::start(directory.path());
    let before = Process::mount(directory.path()).await;
    first.end(Signal::KILL);
    let mounted = mounts_below(directory.path());
    assert_eq!(mounted.len(), 2);
    let second = Process::start(directory.path());
    let after = Process::mount(directory.path()).await;
    assert_eq!(before, after);
    assert_eq!(mounts_below(directory.path()), mounted);
    second.end(Signal::TERM);
    assert!(mounts_below(directory.path()).is_empty());
}

/// The bits of an image rot, and its length stays.
#[tokio::test]
async fn an_image_that_is_not_what_its_blob_makes_is_told() {
    let mut client = client().await;
    drop(prepared(&mut client).await);
    let damaged = |client: &Client| {
        let mut found = Vec::new();
        let check = client.service.store.check.clone();
        let rehash = Options {
            rehash: true,
            ..Options::default()
        };
        check
            .run(rehash, &mut |finding| {
                found.push(finding.kind.as_str().to_owned());
                Ok(())
            })
            .unwrap();
        found
    };
    assert_eq!(damaged(&client), Vec::<String>::new());
    let layers = client.service.left("layers");
    let image = client.service.state().join("layers").join(&layers[0]);
    let image = image.join("image.erofs");
    let mut bytes = fs::read(&image).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&image, bytes).unwrap();
    assert_eq!(damaged(&client), ["damaged-layer"]);
}

/// A store that is killed while it asks the kernel leaves the image that it asked with.
#[test]
fn what_a_killed_start_left_does_not_stop_the_next_one() {
    let directory = tempfile::tempdir().unwrap();
    let layers = directory.path().join("layers");
    fs::create_dir(&layers).unwrap();
    fs::write(layers.join(".probe-0"), b"half an image").unwrap();
    fs::create_dir_all(layers.join(".tmp-0/fs")).unwrap();
    let store = orlop_store::Store::open(directory.path()).unwrap();
    assert_eq!(service::names(&layers), [""; 0]);
    drop(store);
}
