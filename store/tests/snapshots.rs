//! Snapshots on the disk: what is there, what is left, and what a kill leaves.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use jiff::Timestamp;
use orlop_proto::error::Kind;
use orlop_proto::store::file_op::Op;
use orlop_proto::store::{Compression, CopyEntries, RemovePath};
use orlop_store::Store;
use orlop_store::snapshots::collect::Names;

#[path = "support/client.rs"]
mod client;
#[path = "support/service.rs"]
mod service;
#[path = "support/smith.rs"]
mod smith;
use client::{Client, bytes, emptied, file, kind, owner, passwd, python, read_blob};
use service::{names, sha256};
use smith::Tar;

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
async fn a_step_is_packed_as_python_reads_it() {
    let mut client = Client::start().await;
    let base = client.base(passwd().end()).await;
    client.prepare("work", &base).await.unwrap();
    let blob = client.service.put(b"new");
    let copy = CopyEntries {
        dest: bytes("/opt"),
        dest_is_dir: true,
        entries: vec![file("new", &blob, 0o640)],
        owner: owner("web"),
        mode: None,
    };
    let path = bytes("/usr/lib/c.txt");
    let ops = vec![Op::CopyEntries(copy), Op::Remove(RemovePath { path })];
    client.apply("work", ops).await.unwrap();
    client.commit("work", "step").await.unwrap();
    let diff = client.diff("step", Compression::Gzip).await;
    client.diff("step", Compression::None).await;
    let descriptor = diff.descriptor.clone().unwrap();
    let tar = read_blob(&client, &diff.diff_id);
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
        &read_blob(&client, &descriptor.digest),
        "print(len(t.getnames()))",
    );
    assert_eq!(gunzipped, "5");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_removed_leaves_nothing_and_nothing_is_mounted_on_the_host() {
    let mut client = Client::start().await;
    let base = client.base(passwd().end()).await;
    client.prepare("work", &base).await.unwrap();
    client.read("work", "etc/passwd").await.unwrap();
    let mounted = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let snapshots = client.service.state().join("snapshots");
    assert!(!mounted.contains(snapshots.to_str().unwrap()));
    for key in ["work", &base] {
        client.remove(key).await.unwrap();
    }
    assert!(client.service.left("layers").is_empty());
    emptied(&client.service.state().join("trash")).await;
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
        .map(|record| record.key.clone())
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
        .collect(&Names::default(), Timestamp::MAX, false)
        .unwrap();
    assert_eq!(collected.snapshots, 0);
    store.snapshots.remove("w2").unwrap();
    let live = Names::from_iter([base.as_str().into()]);
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
            .collect(&Names::default(), Timestamp::MAX, false)
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
    let none = Names::default();
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
