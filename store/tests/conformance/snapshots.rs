//! `Snapshots`: their life, and what can be asked of them.

use orlop_proto::error::{Kind, reason};
use orlop_proto::store as pb;
use orlop_proto::store::file_op::Op;
use orlop_proto::store::resource::Resource;
use orlop_proto::store::{ChangeKind, SnapshotKind};

use crate::calls::{all, bytes, file, kind, owner, prepare, refusal};
use crate::reach::Subject;
use crate::smith::Tar;
use crate::words::listing;

conforms! {
    a_run_step_from_prepare_to_commit,
    a_snapshot_is_made_once_over_a_committed_one,
    of_many_callers_one_makes_the_snapshot,
    a_view_is_read_only,
    only_an_active_snapshot_is_committed_and_to_a_free_name,
    a_snapshot_is_stated_and_listed,
    only_what_is_not_committed_gets_another_key,
    what_has_children_is_not_removed,
    e8_keys_are_checked_before_use,
    a_lease_holds_a_snapshot_from_its_first_moment,
    a_small_file_is_read,
    usage_is_of_the_own_changes,
    the_whole_tree_is_exported,
    what_is_not_known_is_not_found,
}

conforms_on_a_host! {
    a_mount_is_of_directories_on_the_host,
}

fn passwd() -> Tar {
    Tar::new()
        .directory("etc", 0o755)
        .file("etc/passwd", b"root:x:0:0::/:\nweb:x:33:34::/:\n")
        .directory("usr", 0o755)
        .directory("usr/lib", 0o755)
        .symlink("lib", "usr/lib")
        .file("usr/lib/a", b"a")
        .file("usr/lib/b", b"b")
}

async fn view(
    store: &Subject,
    key: &str,
    parent: &str,
) -> Result<pb::SnapshotMount, tonic::Status> {
    let answer = store.snapshots().view(prepare(key, parent)).await;
    answer.map(tonic::Response::into_inner)
}

async fn mount(store: &Subject, key: &str) -> Result<pb::SnapshotMount, tonic::Status> {
    let key = key.to_owned();
    let answer = store
        .snapshots()
        .get_mount(pb::GetMountRequest { key })
        .await;
    answer.map(tonic::Response::into_inner)
}

async fn rename(
    store: &Subject,
    key: &str,
    new_key: &str,
) -> Result<pb::SnapshotInfo, tonic::Status> {
    let request = pb::RenameSnapshotRequest {
        key: key.to_owned(),
        new_key: new_key.to_owned(),
    };
    let answer = store.snapshots().rename(request).await;
    answer.map(tonic::Response::into_inner)
}

async fn usage(store: &Subject, key: &str) -> Result<pb::UsageResponse, tonic::Status> {
    let key = key.to_owned();
    let answer = store.snapshots().usage(pb::UsageRequest { key }).await;
    answer.map(tonic::Response::into_inner)
}

async fn a_run_step_from_prepare_to_commit(store: Subject) {
    let base = store.base(&passwd().end()).await;
    store.prepare("work", &base).await.unwrap();
    assert!(store.changes("work").await.unwrap().is_empty());
    let blob = store.blob(b"new").await;
    let ops = vec![
        Op::CopyEntries(pb::CopyEntries {
            dest: bytes("/opt"),
            dest_is_dir: true,
            entries: vec![file("new", &blob, 0o640)],
            owner: owner("web"),
            mode: None,
        }),
        Op::CopyEntries(pb::CopyEntries {
            dest: bytes("/usr/lib/a"),
            entries: vec![file("a", &blob, 0o644)],
            ..Default::default()
        }),
        Op::Remove(pb::RemovePath {
            path: bytes("/usr/lib/b"),
        }),
    ];
    store.apply("work", ops).await.unwrap();
    let expected = [
        ("/opt", ChangeKind::Added),
        ("/opt/new", ChangeKind::Added),
        ("/usr", ChangeKind::Modified),
        ("/usr/lib", ChangeKind::Modified),
        ("/usr/lib/a", ChangeKind::Modified),
        ("/usr/lib/b", ChangeKind::Deleted),
    ];
    let expected = expected.map(|(path, kind)| (path.to_owned(), kind));
    assert_eq!(store.changes("work").await.unwrap(), expected);
    let info = store.commit("work", "step").await.unwrap();
    assert_eq!(
        (info.kind(), &info.parent),
        (SnapshotKind::Committed, &base)
    );
    assert_eq!(store.changes("step").await.unwrap(), expected);
    assert_eq!(kind(store.info("work").await), Kind::NotFound);

    // What is prepared over it sees it, and does not change it.
    store.prepare("next", "step").await.unwrap();
    let path = bytes("/opt");
    store
        .apply("next", vec![Op::Remove(pb::RemovePath { path })])
        .await
        .unwrap();
    assert_eq!(store.read("step", "/opt/new").await.unwrap(), b"new");
    assert_eq!(kind(store.read("next", "/opt/new").await), Kind::NotFound);
    assert_eq!(store.read(&base, "/usr/lib/b").await.unwrap(), b"b");
}

async fn a_snapshot_is_made_once_over_a_committed_one(store: Subject) {
    let base = store.base(&passwd().end()).await;
    let made = store.prepare("k", &base).await.unwrap();
    assert_eq!(made.key, "k");
    assert_eq!(mount(&store, "k").await.unwrap(), made);
    assert_eq!(mount(&store, "k").await.unwrap(), made);
    assert_eq!(kind(store.prepare("k", &base).await), Kind::AlreadyExists);
    assert_eq!(kind(view(&store, "k", &base).await), Kind::AlreadyExists);
    assert_eq!(kind(store.prepare(&base, "").await), Kind::AlreadyExists);
    for missing in ["nothing", "../x"] {
        assert_eq!(kind(store.prepare("x", missing).await), Kind::NotFound);
        assert_eq!(kind(view(&store, "x", missing).await), Kind::NotFound);
    }
    assert_eq!(
        kind(store.prepare("x", "k").await),
        Kind::FailedPrecondition
    );
    assert_eq!(kind(mount(&store, &base).await), Kind::FailedPrecondition);
    store.prepare("empty", "").await.unwrap();
    assert!(
        store
            .export("empty")
            .await
            .unwrap()
            .iter()
            .all(|byte| *byte == 0)
    );
    assert_eq!(store.keys().await, ["empty", "k", &base]);
}

async fn of_many_callers_one_makes_the_snapshot(store: Subject) {
    let calls = (0..8).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { store.prepare("k", "").await.map(drop) })
    });
    let (mut made, mut named) = (0, 0);
    for call in calls.collect::<Vec<_>>() {
        match call.await.unwrap() {
            Ok(()) => made += 1,
            lost => assert_eq!(kind(lost), Kind::AlreadyExists),
        }
    }
    for key in ["0", "1", "2", "3"] {
        store.prepare(key, "").await.unwrap();
    }
    let calls = (0..4).map(|n| {
        let store = store.clone();
        tokio::spawn(async move { store.commit(&n.to_string(), "c").await.map(drop) })
    });
    for call in calls.collect::<Vec<_>>() {
        match call.await.unwrap() {
            Ok(()) => named += 1,
            lost => assert_eq!(kind(lost), Kind::AlreadyExists),
        }
    }
    assert_eq!((made, named), (1, 1));
}

async fn a_view_is_read_only(store: Subject) {
    let base = store.base(&passwd().end()).await;
    let made = view(&store, "v", &base).await.unwrap();
    assert_eq!(
        (made.key.as_str(), made.upper.as_str(), made.work.as_str()),
        ("v", "", "")
    );
    assert_eq!(mount(&store, "v").await.unwrap(), made);
    assert_eq!(store.info("v").await.unwrap().kind(), SnapshotKind::View);
    assert_eq!(store.read("v", "lib/a").await.unwrap(), b"a");
    assert!(store.changes("v").await.unwrap().is_empty());
    assert_eq!(
        kind(store.apply("v", Vec::new()).await),
        Kind::FailedPrecondition
    );
    assert_eq!(kind(store.commit("v", "c").await), Kind::FailedPrecondition);
    assert_eq!(
        kind(store.prepare("x", "v").await),
        Kind::FailedPrecondition
    );
}

async fn only_an_active_snapshot_is_committed_and_to_a_free_name(store: Subject) {
    let base = store.base(&passwd().end()).await;
    store.prepare("k", &base).await.unwrap();
    assert_eq!(kind(store.commit("none", "c").await), Kind::NotFound);
    assert_eq!(kind(store.commit("k", &base).await), Kind::AlreadyExists);
    assert_eq!(kind(store.commit("k", "k").await), Kind::AlreadyExists);
    assert_eq!(
        kind(store.commit(&base, "c").await),
        Kind::FailedPrecondition
    );
    assert_eq!(store.info("k").await.unwrap().kind(), SnapshotKind::Active);
    store.commit("k", "c").await.unwrap();
    assert_eq!(kind(store.commit("k", "d").await), Kind::NotFound);
}

async fn a_snapshot_is_stated_and_listed(store: Subject) {
    let base = store.base(&passwd().end()).await;
    let labels = |word: &str| [("word".to_owned(), word.to_owned())].into();
    let request = pb::PrepareRequest {
        labels: labels("prepared"),
        ..prepare("k", &base)
    };
    store.snapshots().prepare(request).await.unwrap();
    let info = store.info("k").await.unwrap();
    assert_eq!((info.key.as_str(), &info.parent), ("k", &base));
    assert_eq!(info.labels["word"], "prepared");
    assert!(info.created.is_some() && info.diff_id.is_empty());
    let request = pb::CommitRequest {
        key: "k".to_owned(),
        name: "c".to_owned(),
        labels: labels("committed"),
        ..Default::default()
    };
    store.snapshots().commit(request).await.unwrap();
    view(&store, "v", "c").await.unwrap();
    let list = store.snapshots().list(pb::ListSnapshotsRequest {}).await;
    let list = all(list).await.unwrap();
    assert_eq!(list[0].labels["word"], "committed");
    let facts = list
        .iter()
        .map(|info| (info.key.as_str(), info.kind(), info.parent.as_str()));
    let expected = [
        ("c", SnapshotKind::Committed, base.as_str()),
        (&base, SnapshotKind::Committed, ""),
        ("v", SnapshotKind::View, "c"),
    ];
    assert_eq!(facts.collect::<Vec<_>>(), expected);
}

async fn only_what_is_not_committed_gets_another_key(store: Subject) {
    let base = store.base(&passwd().end()).await;
    store.prepare("k", &base).await.unwrap();
    let blob = store.blob(b"kept").await;
    let copy = pb::CopyEntries {
        dest: bytes("/f"),
        entries: vec![file("f", &blob, 0o644)],
        ..Default::default()
    };
    store.apply("k", vec![Op::CopyEntries(copy)]).await.unwrap();
    view(&store, "v", &base).await.unwrap();
    let info = rename(&store, "k", "new").await.unwrap();
    assert_eq!(
        (info.key.as_str(), info.kind(), &info.parent),
        ("new", SnapshotKind::Active, &base)
    );
    assert_eq!(kind(store.info("k").await), Kind::NotFound);
    assert_eq!(mount(&store, "new").await.unwrap().key, "new");
    assert_eq!(store.read("new", "f").await.unwrap(), b"kept");
    assert_eq!(
        rename(&store, "v", "w").await.unwrap().kind(),
        SnapshotKind::View
    );
    assert_eq!(kind(rename(&store, "none", "x").await), Kind::NotFound);
    assert_eq!(kind(rename(&store, "new", "w").await), Kind::AlreadyExists);
    assert_eq!(
        kind(rename(&store, "new", &base).await),
        Kind::AlreadyExists
    );
    assert_eq!(
        kind(rename(&store, &base, "x").await),
        Kind::FailedPrecondition
    );
    assert_eq!(
        kind(rename(&store, "new", "../x").await),
        Kind::InvalidArgument
    );
    store.commit("new", "c").await.unwrap();
    assert_eq!(store.read("c", "f").await.unwrap(), b"kept");
}

async fn what_has_children_is_not_removed(store: Subject) {
    let base = store.base(&passwd().end()).await;
    store.prepare("k", &base).await.unwrap();
    let failure = refusal(store.remove(&base).await);
    assert_eq!(failure.kind, Kind::FailedPrecondition);
    assert_eq!(failure.reason, reason::IN_USE);
    store.commit("k", "c").await.unwrap();
    view(&store, "v", "c").await.unwrap();
    for held in [base.as_str(), "c"] {
        assert_eq!(refusal(store.remove(held).await).reason, reason::IN_USE);
    }
    for gone in ["v", "c", &base, &base, "unknown"] {
        store.remove(gone).await.unwrap();
    }
    assert!(store.keys().await.is_empty());
    // The key is free again, and nothing of the old one is left.
    store.prepare("c", "").await.unwrap();
    assert_eq!(kind(store.read("c", "lib/a").await), Kind::NotFound);
}

async fn e8_keys_are_checked_before_use(store: Subject) {
    let (longest, longer) = ("x".repeat(128), "x".repeat(129));
    store.prepare("k", "").await.unwrap();
    for key in [
        "../x", "/x", "", ".", "..", "a/b", "a b", ":a", "ä", &longer,
    ] {
        assert_eq!(
            kind(store.prepare(key, "").await),
            Kind::InvalidArgument,
            "{key}"
        );
        assert_eq!(
            kind(view(&store, key, "").await),
            Kind::InvalidArgument,
            "{key}"
        );
        assert_eq!(
            kind(store.commit("k", key).await),
            Kind::InvalidArgument,
            "{key}"
        );
        assert_eq!(kind(store.info(key).await), Kind::NotFound, "{key}");
        store.remove(key).await.unwrap();
    }
    for key in [longest.as_str(), "sha256:A.b_c-9"] {
        store.prepare(key, "").await.unwrap();
    }
    assert_eq!(store.keys().await.len(), 3);
}

async fn a_lease_holds_a_snapshot_from_its_first_moment(store: Subject) {
    let leased = |key: &str| pb::PrepareRequest {
        lease: "l".to_owned(),
        ..prepare(key, "")
    };
    let commit = pb::CommitRequest {
        key: "k".to_owned(),
        name: "c".to_owned(),
        lease: "l".to_owned(),
        ..Default::default()
    };
    store.prepare("k", "").await.unwrap();
    assert_eq!(
        kind(store.snapshots().prepare(leased("x")).await),
        Kind::NotFound
    );
    assert_eq!(
        kind(store.snapshots().commit(commit.clone()).await),
        Kind::NotFound
    );
    assert_eq!(store.keys().await, ["k"]);
    store.lease("l", 0).await;
    store.snapshots().prepare(leased("x")).await.unwrap();
    store.snapshots().commit(commit).await.unwrap();
    let expected = ["c", "x"].map(|key| Resource::Snapshot(key.into()));
    assert_eq!(store.held("l").await.unwrap(), expected);
    assert_eq!(store.collect(false).await.snapshots, 0);
}

async fn a_small_file_is_read(store: Subject) {
    let tar = passwd()
        .file("most", &[1; 1 << 20])
        .file("more", &[1; (1 << 20) + 1])
        .file("none", b"")
        .symlink("abs", "/etc/passwd")
        .symlink("up", "../../../etc/passwd")
        .symlink("loop", "loop")
        .kind(b'6', "pipe")
        .end();
    let base = store.base(&tar).await;
    assert_eq!(store.read(&base, "/most").await.unwrap().len(), 1 << 20);
    assert_eq!(kind(store.read(&base, "more").await), Kind::OutOfRange);
    assert_eq!(store.read(&base, "none").await.unwrap(), b"");
    for path in ["lib/a", "/lib/../lib/a", "usr/lib/./a"] {
        assert_eq!(store.read(&base, path).await.unwrap(), b"a", "{path}");
    }
    for path in ["abs", "up", "../../etc/passwd"] {
        assert!(
            store.read(&base, path).await.unwrap().starts_with(b"root"),
            "{path}"
        );
    }
    for path in ["pipe", "etc", "/", "", "loop", "a\0b"] {
        assert_eq!(
            kind(store.read(&base, path).await),
            Kind::InvalidArgument,
            "{path:?}"
        );
    }
    for path in ["nothing", "nothing/below", "none/below"] {
        assert_eq!(
            kind(store.read(&base, path).await),
            Kind::NotFound,
            "{path}"
        );
    }
}

async fn usage_is_of_the_own_changes(store: Subject) {
    let base = Tar::new()
        .file("big", &vec![1; 2 << 20])
        .kind(b'6', "pipe")
        .end();
    let base = store.base(&base).await;
    let own = usage(&store, &base).await.unwrap();
    assert_eq!(own.inodes, 3);
    assert!(own.bytes >= 2 << 20);
    store.prepare("k", &base).await.unwrap();
    let before = usage(&store, "k").await.unwrap();
    assert_eq!(before.inodes, 1);
    assert!(before.bytes < 1 << 20);
    let blob = store.blob(&vec![2; 3 << 20]).await;
    let copy = pb::CopyEntries {
        dest: bytes("/d"),
        dest_is_dir: true,
        entries: vec![file("f", &blob, 0o644)],
        ..Default::default()
    };
    store.apply("k", vec![Op::CopyEntries(copy)]).await.unwrap();
    let after = usage(&store, "k").await.unwrap();
    assert_eq!(after.inodes, 3);
    assert!(after.bytes >= 3 << 20);
    view(&store, "v", &base).await.unwrap();
    assert_eq!(
        usage(&store, "v").await.unwrap(),
        pb::UsageResponse::default()
    );
}

async fn the_whole_tree_is_exported(store: Subject) {
    let base = store
        .base(&passwd().file("big", &vec![3; 2 << 20]).end())
        .await;
    store.prepare("w", &base).await.unwrap();
    let path = bytes("/etc");
    store
        .apply("w", vec![Op::Remove(pb::RemovePath { path })])
        .await
        .unwrap();
    let tar = store.export("w").await.unwrap();
    assert_eq!(tar, store.export("w").await.unwrap());
    let names: Vec<_> = listing(&tar).into_keys().collect();
    assert_eq!(
        names,
        ["big", "lib", "usr", "usr/lib", "usr/lib/a", "usr/lib/b"]
    );
    assert_eq!(listing(&store.export(&base).await.unwrap()).len(), 8);
}

async fn what_is_not_known_is_not_found(store: Subject) {
    assert_eq!(kind(store.info("x").await), Kind::NotFound);
    assert_eq!(kind(mount(&store, "x").await), Kind::NotFound);
    assert_eq!(kind(store.read("x", "f").await), Kind::NotFound);
    assert_eq!(kind(store.export("x").await), Kind::NotFound);
    assert_eq!(kind(store.changes("x").await), Kind::NotFound);
    assert_eq!(kind(usage(&store, "x").await), Kind::NotFound);
    assert_eq!(
        kind(store.diff("x", pb::Compression::Gzip).await),
        Kind::NotFound
    );
    assert_eq!(kind(store.apply("x", Vec::new()).await), Kind::NotFound);
}

async fn a_mount_is_of_directories_on_the_host(store: Subject) {
    let is_directory = |path: &str| std::path::Path::new(path).is_dir();
    let base = store.base(&passwd().end()).await;
    let active = store.prepare("k", &base).await.unwrap();
    assert!(is_directory(&active.upper) && is_directory(&active.work));
    assert!(active.lower.len() == 1 && is_directory(&active.lower[0]));
    std::fs::write(format!("{}/written", active.upper), "by the caller").unwrap();
    assert_eq!(store.read("k", "written").await.unwrap(), b"by the caller");
    store.commit("k", "c").await.unwrap();
    let view = view(&store, "v", "c").await.unwrap();
    assert!(view.lower.len() == 2 && view.lower.iter().all(|path| is_directory(path)));
    let topmost = format!("{}/written", view.lower[0]);
    assert_eq!(std::fs::read(topmost).unwrap(), b"by the caller");
    let renamed = rename(&store, "v", "w").await.unwrap();
    assert_eq!(mount(&store, &renamed.key).await.unwrap().lower, view.lower);
    let empty = store.prepare("e", "").await.unwrap();
    assert!(empty.lower.len() == 1 && is_directory(&empty.lower[0]));
}
