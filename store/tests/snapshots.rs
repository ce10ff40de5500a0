//! The life of snapshots through a socket, with real overlays: unpack, prepare, commit, remove, a kill.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use jiff::Timestamp;
use orlop_proto::error::{Failure, Kind};
use orlop_proto::store::file_op::Op;
use orlop_proto::store::{
    ChangeKind, Compression, CopyEntries, ExportSnapshotRequest, GetMountRequest,
    ListSnapshotsRequest, RemovePath, SnapshotKind, StatSnapshotRequest, UnpackRequest,
    UsageRequest,
};
use orlop_store::Store;

#[path = "support/client.rs"]
mod client;
#[path = "support/service.rs"]
mod service;
#[path = "support/smith.rs"]
mod smith;
use client::{Client, bytes, emptied, file, kind, owner, passwd, python, read_blob, request};
use service::{names, sha256};
use smith::Tar;

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_unpacked_once_and_stacked() {
    let mut client = Client::start().await;
    let lower = Tar::new()
        .file("a", b"1")
        .file("b", b"1")
        .directory("d", 0o755)
        .file("d/x", b"1")
        .end();
    let upper = Tar::new()
        .file("b", b"2")
        .file(".wh.a", b"")
        .directory("d", 0o755)
        .file("d/.wh..wh..opq", b"")
        .end();
    let image = client
        .service
        .image(&[(&lower, sha256(&lower)), (&upper, sha256(&upper))]);
    let first = client.unpack(&image).await.unwrap();
    assert_eq!((first.unpacked, first.existed), (2, 0));
    let chain = sha256(format!("{} {}", sha256(&lower), sha256(&upper)).as_bytes());
    assert_eq!(first.name, chain);
    let second = client.unpack(&image).await.unwrap();
    assert_eq!((second.unpacked, second.existed), (0, 2));
    assert_eq!(client.read(&chain, "/b").await.unwrap(), b"2");
    assert_eq!(kind(client.read(&chain, "a").await), Kind::NotFound);
    assert_eq!(kind(client.read(&chain, "d/x").await), Kind::NotFound);
    assert_eq!(kind(client.read(&chain, "d").await), Kind::InvalidArgument);
    let view = client
        .rpc
        .view(request("v", &chain))
        .await
        .unwrap()
        .into_inner();
    assert_eq!((view.lower.len(), view.upper.as_str()), (2, ""));
    assert!(view.lower[0].contains(&sha256(&upper).replace(':', "-")));
    let absent = sha256(b"absent");
    assert_eq!(kind(client.unpack(&absent).await), Kind::NotFound);
    assert_eq!(
        kind(client.unpack("sha256:../../x").await),
        Kind::InvalidArgument
    );
    // The store mounts layers, and never a snapshot.
    let mounted = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let snapshots = client.service.state().join("snapshots");
    assert!(!mounted.contains(snapshots.to_str().unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn h5_a_wrong_diff_id_fails_and_leaves_nothing() {
    let mut client = Client::start().await;
    let good = Tar::new().file("a", b"1").end();
    let bad = Tar::new().file("b", b"1").end();
    let image = client
        .service
        .image(&[(&good, sha256(&good)), (&bad, sha256(b"other"))]);
    let failure = client.unpack(&image).await.unwrap_err();
    assert_eq!(failure.kind, Kind::InvalidArgument);
    assert_eq!(failure.reason, "DIGEST_MISMATCH");
    assert!(client.service.left("layers").is_empty());
    assert!(client.service.left("snapshots").is_empty());
    let broken = Tar::new().file("../x", b"").end();
    let image = client.service.image(&[(&broken, sha256(&broken))]);
    assert_eq!(kind(client.unpack(&image).await), Kind::InvalidArgument);
    assert!(client.service.left("layers").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a25_many_callers_share_one_unpack_also_of_a_bad_layer() {
    let mut client = Client::start().await;
    let good = Tar::new().file("a", &[7; 1 << 20]).end();
    let bad = Tar::new().file("a", &[7; 1 << 20]).cut()[..600_000].to_vec();
    let good = client.service.image(&[(&good, sha256(&good))]);
    let bad = client.service.image(&[(&bad, sha256(&bad))]);
    let mut calls = Vec::new();
    for i in 0..16 {
        let mut rpc = client.rpc.clone();
        let digest = if i % 2 == 0 {
            good.clone()
        } else {
            bad.clone()
        };
        calls.push(tokio::spawn(async move {
            let request = UnpackRequest {
                digest,
                ..Default::default()
            };
            (
                i,
                rpc.unpack(request)
                    .await
                    .map(|answer| answer.into_inner().unpacked),
            )
        }));
    }
    let mut unpacked = 0;
    for call in calls {
        let (i, answer) = call.await.unwrap();
        assert_eq!(answer.is_ok(), i % 2 == 0);
        unpacked += answer.unwrap_or(0);
    }
    assert_eq!(unpacked, 1);
    assert_eq!(client.service.left("layers").len(), 1);
    assert_eq!(client.unpack(&good).await.unwrap().existed, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_step_from_prepare_to_diff() {
    let mut client = Client::start().await;
    let base = client.base(passwd().end()).await;
    let mount = client.prepare("work", &base).await.unwrap();
    assert_eq!(mount.lower.len(), 1);
    assert!(Path::new(&mount.upper).is_dir() && Path::new(&mount.work).is_dir());
    assert_eq!(
        kind(client.prepare("work", &base).await),
        Kind::AlreadyExists
    );
    assert_eq!(kind(client.prepare("x", "nothing").await), Kind::NotFound);
    assert_eq!(
        kind(client.prepare("../x", &base).await),
        Kind::InvalidArgument
    );
    assert_eq!(
        kind(client.prepare("x", "work").await),
        Kind::FailedPrecondition
    );
    let again = client
        .rpc
        .get_mount(GetMountRequest { key: "work".into() })
        .await
        .unwrap();
    assert_eq!(again.into_inner(), mount);

    let blob = client.service.put(b"new");
    let ops = vec![
        Op::CopyEntries(CopyEntries {
            dest: bytes("/opt"),
            dest_is_dir: true,
            entries: vec![file("new", &blob, 0o640)],
            owner: owner("web"),
            mode: None,
        }),
        Op::Remove(RemovePath {
            path: bytes("/usr/lib/c.txt"),
        }),
        Op::Remove(RemovePath {
            path: bytes("/not/there"),
        }),
    ];
    client.apply("work", ops).await.unwrap();
    let expected = [
        ("/opt", ChangeKind::Added),
        ("/opt/new", ChangeKind::Added),
        ("/usr", ChangeKind::Modified),
        ("/usr/lib", ChangeKind::Modified),
        ("/usr/lib/c.txt", ChangeKind::Deleted),
    ];
    let expected = expected.map(|(path, kind)| (path.to_owned(), kind));
    assert_eq!(client.changes("work").await, expected);
    client.commit("work", "step").await.unwrap();
    assert_eq!(client.changes("step").await, expected);
    assert_eq!(kind(client.commit("work", "step2").await), Kind::NotFound);

    packed_as_it_should_be(&mut client, &base).await;

    assert_eq!(kind(client.remove(&base).await), Kind::FailedPrecondition);
    client.remove("step").await.unwrap();
    client.remove("step").await.unwrap();
    client.remove(&base).await.unwrap();
    assert!(client.service.left("layers").is_empty());
    emptied(&client.service.state().join("trash")).await;
}

/// The step's layer, in every compression, and what Python reads in it.
async fn packed_as_it_should_be(client: &mut Client, base: &str) {
    let diff = client.diff("step", Compression::Unspecified).await;
    let descriptor = diff.descriptor.clone().unwrap();
    assert_eq!(
        descriptor.media_type,
        "application/vnd.oci.image.layer.v1.tar+gzip"
    );
    assert_eq!(client.diff("step", Compression::Gzip).await, diff);
    let plain = client.diff("step", Compression::None).await;
    assert_eq!(plain.descriptor.unwrap().digest, diff.diff_id);
    assert_eq!(
        client.diff("step", Compression::Zstd).await.diff_id,
        diff.diff_id
    );
    let info = client
        .rpc
        .stat(StatSnapshotRequest { key: "step".into() })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(info.kind(), SnapshotKind::Committed);
    assert_eq!(
        (info.parent, info.diff_id),
        (base.to_owned(), diff.diff_id.clone())
    );

    let tar = read_blob(client, &diff.diff_id);
    let listed = python(&tar, "print([i.name for i in t])");
    assert_eq!(
        listed,
        "['opt', 'opt/new', 'usr', 'usr/lib', 'usr/lib/.wh.c.txt']"
    );
    let owners = python(
        &tar,
        "i=t.getmember('opt/new'); print(i.uid, i.gid, oct(i.mode), i.mtime)",
    );
    assert_eq!(owners, "33 34 0o640 1000.000000005");
    let gunzipped = python(
        &read_blob(client, &descriptor.digest),
        "print(len(t.getnames()))",
    );
    assert_eq!(gunzipped, "5");
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_list_and_limits_of_reading() {
    let mut client = Client::start().await;
    let base = client
        .base(
            Tar::new()
                .file("big", &vec![1; 2 << 20])
                .kind(b'6', "pipe")
                .end(),
        )
        .await;
    let usage = client
        .rpc
        .usage(UsageRequest { key: base.clone() })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(usage.inodes, 3);
    assert!(usage.bytes >= 2 << 20);
    assert_eq!(kind(client.read(&base, "big").await), Kind::OutOfRange);
    assert_eq!(
        kind(client.read(&base, "pipe").await),
        Kind::InvalidArgument
    );
    client.rpc.view(request("v", &base)).await.unwrap();
    let mut stream = client
        .rpc
        .list(ListSnapshotsRequest {})
        .await
        .unwrap()
        .into_inner();
    let mut kinds = Vec::new();
    while let Some(info) = stream.message().await.unwrap() {
        kinds.push(info.kind());
    }
    assert_eq!(kinds, [SnapshotKind::Committed, SnapshotKind::View]);
    assert_eq!(
        kind(client.commit("v", "c").await),
        Kind::FailedPrecondition
    );
    assert_eq!(kind(client.commit("none", "c").await), Kind::NotFound);
    client.prepare("w", &base).await.unwrap();
    assert_eq!(kind(client.commit("w", &base).await), Kind::AlreadyExists);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_tree_is_exported() {
    let mut client = Client::start().await;
    let base = client
        .base(passwd().file("big", &vec![3; 2 << 20]).end())
        .await;
    client.prepare("w", &base).await.unwrap();
    client
        .apply(
            "w",
            vec![Op::Remove(RemovePath {
                path: bytes("/etc"),
            })],
        )
        .await
        .unwrap();
    let mut stream = client
        .rpc
        .export(ExportSnapshotRequest { key: "w".into() })
        .await
        .unwrap()
        .into_inner();
    let mut tar = Vec::new();
    while let Some(message) = stream.message().await.unwrap() {
        tar.extend_from_slice(&message.data);
    }
    let listed = python(&tar, "print(t.getnames(), t.getmember('big').size)");
    assert_eq!(
        listed,
        "['big', 'lib', 'usr', 'usr/lib', 'usr/lib/a.js', 'usr/lib/b.js', 'usr/lib/c.txt'] 2097152"
    );
    let absent = client
        .rpc
        .export(ExportSnapshotRequest { key: "x".into() })
        .await;
    assert_eq!(Failure::from(absent.err().unwrap()).kind, Kind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_left_is_cleaned_and_what_was_acknowledged_stays() {
    let mut client = Client::start().await;
    let base = client.base(passwd().end()).await;
    client.prepare("w", &base).await.unwrap();
    client.commit("w", "c").await.unwrap();
    client.prepare("w2", "c").await.unwrap();
    let diff = client.diff("c", Compression::Gzip).await;
    let crashed = tempfile::tempdir().unwrap();
    let state = crashed.path().join("store");
    copy_tree(&client.service.state(), &state);
    fs::create_dir_all(state.join("layers/.tmp-x/fs/deep/er")).unwrap();
    fs::create_dir_all(state.join("layers/sha256-without-meta/fs")).unwrap();
    fs::create_dir_all(state.join("snapshots/.tmp-y/upper")).unwrap();
    fs::create_dir_all(state.join("snapshots/half/upper")).unwrap();
    fs::write(state.join("snapshots/half/meta.json"), b"{").unwrap();
    fs::create_dir_all(state.join("trash/z/deep")).unwrap();
    fs::remove_dir_all(state.join("index")).unwrap();

    let store = Store::open(&state).unwrap();
    let keys: HashSet<String> = store
        .snapshots
        .list()
        .into_iter()
        .map(|record| record.key)
        .collect();
    assert_eq!(keys, HashSet::from([base.clone(), "c".into(), "w2".into()]));
    assert_eq!(
        store.snapshots.stat("c").unwrap().diff_id,
        Some(diff.diff_id)
    );
    assert_eq!(
        store.snapshots.read_file("w2", b"/etc/group").unwrap(),
        b"web:x:35:\n"
    );
    emptied(&state.join("trash")).await;
    assert_eq!(names(&state.join("layers")).len(), 2);

    let collected = store
        .snapshots
        .collect(&HashSet::new(), Timestamp::MAX, false)
        .unwrap();
    assert_eq!(collected.snapshots, 0);
    store.snapshots.remove("w2").unwrap();
    let live = HashSet::from([base.clone()]);
    assert_eq!(
        store
            .snapshots
            .collect(&live, Timestamp::MAX, true)
            .unwrap()
            .snapshots,
        1
    );
    assert_eq!(
        store
            .snapshots
            .collect(&live, Timestamp::MAX, false)
            .unwrap()
            .snapshots,
        1
    );
    assert!(store.snapshots.stat("c").is_err() && store.snapshots.stat(&base).is_ok());
    assert_eq!(
        store
            .snapshots
            .collect(&HashSet::new(), Timestamp::MAX, false)
            .unwrap()
            .snapshots,
        1
    );
    assert!(names(&state.join("layers")).is_empty());
}

/// The states that a commit passes through on the disk, each as a kill would leave it.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_cut_short_loses_nothing() {
    let mut client = Client::start().await;
    let base = client.base(passwd().end()).await;
    client.prepare("model", &base).await.unwrap();
    client.commit("model", "made").await.unwrap();
    client.prepare("w", &base).await.unwrap();
    let blob = client.service.put(b"precious");
    let copy = CopyEntries {
        dest: bytes("/f"),
        entries: vec![file("f", &blob, 0o644)],
        ..Default::default()
    };
    client
        .apply("w", vec![Op::CopyEntries(copy)])
        .await
        .unwrap();
    let made = fs::read_to_string(client.service.state().join("snapshots/made/meta.json")).unwrap();
    let layer = client
        .service
        .left("layers")
        .into_iter()
        .find(|id| id.starts_with("tree-"));
    let layer = layer.unwrap();
    for step in 0..4 {
        let crashed = tempfile::tempdir().unwrap();
        let state = crashed.path().join("store");
        copy_tree(&client.service.state(), &state);
        let place = state.join("layers/tree-0");
        fs::create_dir(&place).unwrap();
        fs::copy(
            state.join("layers").join(&layer).join("meta.json"),
            place.join("meta.json"),
        )
        .unwrap();
        if step > 0 {
            fs::create_dir(state.join("snapshots/c")).unwrap();
            let meta = made.replace(&layer, "tree-0").replace("\"made\"", "\"c\"");
            fs::write(state.join("snapshots/c/meta.json"), meta).unwrap();
        }
        if step > 1 {
            fs::rename(state.join("snapshots/w/upper"), place.join("fs")).unwrap();
        }
        if step > 2 {
            fs::remove_dir_all(state.join("snapshots/w")).unwrap();
        }
        let (there, gone) = if step > 1 { ("c", "w") } else { ("w", "c") };
        let store = Store::open(&state).unwrap();
        let read = store.snapshots.read_file(there, b"/f").unwrap();
        assert_eq!(read, b"precious", "after step {step}");
        assert!(store.snapshots.stat(gone).is_err(), "after step {step}");
        let layers = if step > 1 { 3 } else { 2 };
        assert_eq!(
            names(&state.join("layers")).len(),
            layers,
            "after step {step}"
        );
    }
}

fn copy_tree(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .arg(from)
        .arg(to)
        .status();
    assert!(copied.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_just_committed_has_a_grace() {
    let mut client = Client::start().await;
    let before = Timestamp::now();
    let base = client.base(passwd().end()).await;
    client.prepare("w", &base).await.unwrap();
    client.commit("w", "c").await.unwrap();
    let snapshots = client.service.store.snapshots.clone();
    let none = HashSet::new();
    assert_eq!(
        snapshots.collect(&none, before, false).unwrap().snapshots,
        0
    );
    snapshots.unwant(["c".to_owned()]);
    assert_eq!(
        snapshots.collect(&none, before, false).unwrap().snapshots,
        1
    );
    assert!(snapshots.stat(&base).is_ok());
    assert_eq!(
        snapshots
            .collect(&none, Timestamp::now(), false)
            .unwrap()
            .snapshots,
        1
    );
}
