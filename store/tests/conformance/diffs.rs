//! `Snapshots`: changes as layer blobs.

use std::collections::HashSet;

use orlop_proto::error::Kind;
use orlop_proto::store as pb;
use orlop_proto::store::Compression;
use orlop_proto::store::file_op::Op;
use orlop_proto::store::resource::Resource;

use crate::calls::{at, bytes, file, kind, owner, prepare};
use crate::reach::Subject;
use crate::smith::Tar;
use crate::words::{digest, listing};

conforms! {
    the_same_tree_is_the_same_layer_in_another_store,
    a_diff_unpacks_to_the_same_tree,
    a_diff_comes_in_every_compression,
    a_snapshot_that_changed_nothing_is_the_empty_tar,
    a_packed_layer_is_found_again_by_its_diff_id,
    a_diff_outlives_its_blob,
    a_lease_holds_the_layer,
    a_view_has_no_diff,
}

fn base() -> Vec<u8> {
    Tar::new()
        .directory("etc", 0o755)
        .file("etc/passwd", b"web:x:33:34::/:\n")
        .file("etc/group", b"web:x:35:\n")
        .directory("old", 0o755)
        .file("old/a", b"a")
        .file("old/b", b"b")
        .file("kept", b"kept")
        .end()
}

/// A snapshot with something made, something replaced and something removed.
async fn changed(store: &Subject, key: &str) {
    let base = store.base(&base()).await;
    store.prepare(key, &base).await.unwrap();
    let big = store.blob(&vec![9; 3 << 20]).await;
    let small = store.blob(b"small").await;
    let link = pb::Entry {
        path: bytes("deep/link"),
        kind: pb::EntryKind::Symlink.into(),
        mtime: at(7),
        link_target: bytes("../f"),
        ..Default::default()
    };
    let ops = vec![
        Op::Mkdir(pb::Mkdir {
            path: bytes("/app/deep"),
            mode: 0o700,
            owner: owner("7:web"),
            mtime: at(5),
        }),
        Op::CopyEntries(pb::CopyEntries {
            dest: bytes("/app"),
            dest_is_dir: true,
            entries: vec![file("f", &big, 0o755), link],
            owner: owner("web"),
            mode: None,
        }),
        Op::CopyEntries(pb::CopyEntries {
            dest: bytes("/old/a"),
            entries: vec![file("a", &small, 0o600)],
            ..Default::default()
        }),
        Op::Remove(pb::RemovePath {
            path: bytes("/old/b"),
        }),
        Op::Remove(pb::RemovePath {
            path: bytes("/etc"),
        }),
    ];
    store.apply(key, ops).await.unwrap();
}

fn blob_of(diff: &pb::DiffResponse) -> String {
    diff.descriptor.as_ref().unwrap().digest.clone()
}

async fn the_same_tree_is_the_same_layer_in_another_store(store: Subject) {
    let mut digests = HashSet::new();
    for _ in 0..2 {
        let store = store.another().await;
        let base = store.base(&base()).await;
        store.prepare("w", &base).await.unwrap();
        let blob = store.blob(&vec![9; 3 << 20]).await;
        let mkdir = pb::Mkdir {
            path: bytes("/app/deep"),
            mode: 0,
            owner: owner("7:web"),
            mtime: at(5),
        };
        let directory = pb::Entry {
            path: bytes("d"),
            kind: pb::EntryKind::Directory.into(),
            mode: 0o755,
            mtime: at(9),
            ..Default::default()
        };
        let copy = pb::CopyEntries {
            dest: bytes("/"),
            dest_is_dir: true,
            entries: vec![directory, file("d/f", &blob, 0o755)],
            ..Default::default()
        };
        let path = bytes("/kept");
        let remove = Op::Remove(pb::RemovePath { path });
        let ops = vec![Op::Mkdir(mkdir), Op::CopyEntries(copy), remove];
        store.apply("w", ops).await.unwrap();
        let active = store.diff("w", Compression::Gzip).await.unwrap();
        store.commit("w", "c").await.unwrap();
        let committed = store.diff("c", Compression::Gzip).await.unwrap();
        assert_eq!(blob_of(&active), blob_of(&committed));
        digests.insert(blob_of(&committed));
    }
    assert_eq!(digests.len(), 1);
}

async fn a_diff_unpacks_to_the_same_tree(store: Subject) {
    changed(&store, "w").await;
    let active = store.diff("w", Compression::Zstd).await.unwrap();
    store.commit("w", "c").await.unwrap();
    let diff = store.diff("c", Compression::Zstd).await.unwrap();
    assert_eq!(active, diff);
    assert!(!diff.empty);
    let expected = listing(&store.export("c").await.unwrap());
    assert!(expected.contains_key("app/deep/link") && !expected.contains_key("etc/passwd"));

    let other = store.another().await;
    let (base, layer) = (base(), store.bytes(&blob_of(&diff)).await.unwrap());
    let layers = [(&*base, digest(&base)), (&*layer, diff.diff_id.clone())];
    let image = other.image_of(&layers, "").await;
    let name = other.unpack(&image.digest).await.unwrap().name;
    assert_eq!(listing(&other.export(&name).await.unwrap()), expected);
    let changes = other.changes(&name).await.unwrap();
    assert_eq!(changes, store.changes("c").await.unwrap());
    assert_eq!(
        other.diff(&name, Compression::Zstd).await.unwrap().diff_id,
        diff.diff_id
    );
}

async fn a_diff_comes_in_every_compression(store: Subject) {
    changed(&store, "w").await;
    store.commit("w", "c").await.unwrap();
    assert_eq!(store.info("c").await.unwrap().diff_id, "");
    let plain = store.diff("c", Compression::None).await.unwrap();
    assert_eq!(blob_of(&plain), plain.diff_id);
    assert_eq!(
        digest(&store.bytes(&plain.diff_id).await.unwrap()),
        plain.diff_id
    );
    for (compression, suffix) in [
        (Compression::None, ""),
        (Compression::Unspecified, "+gzip"),
        (Compression::Gzip, "+gzip"),
        (Compression::Zstd, "+zstd"),
    ] {
        let diff = store.diff("c", compression).await.unwrap();
        let descriptor = diff.descriptor.clone().unwrap();
        assert_eq!(
            descriptor.media_type,
            format!("application/vnd.oci.image.layer.v1.tar{suffix}")
        );
        assert_eq!(diff.diff_id, plain.diff_id);
        assert_eq!(
            store.stat(&descriptor.digest).await.unwrap().size,
            descriptor.size
        );
        assert_eq!(store.diff("c", compression).await.unwrap(), diff);
    }
    assert_eq!(store.info("c").await.unwrap().diff_id, plain.diff_id);
    let unknown = pb::DiffRequest {
        key: "c".to_owned(),
        compression: 77,
        lease: String::new(),
    };
    assert_eq!(
        kind(store.snapshots().diff(unknown).await),
        Kind::InvalidArgument
    );
}

async fn a_snapshot_that_changed_nothing_is_the_empty_tar(store: Subject) {
    let base = store.base(&base()).await;
    store.prepare("w", &base).await.unwrap();
    assert!(store.diff("w", Compression::Gzip).await.unwrap().empty);
    store.commit("w", "c").await.unwrap();
    let diff = store.diff("c", Compression::None).await.unwrap();
    assert!(diff.empty);
    let tar = store.bytes(&diff.diff_id).await.unwrap();
    assert!(tar.iter().all(|byte| *byte == 0) && listing(&tar).is_empty());
    for (tar, empty) in [
        (Tar::new().end(), true),
        (Tar::new().file("f", b"").end(), false),
    ] {
        let name = store.base(&tar).await;
        assert_eq!(
            store.diff(&name, Compression::Gzip).await.unwrap().empty,
            empty
        );
    }
}

async fn a_packed_layer_is_found_again_by_its_diff_id(store: Subject) {
    changed(&store, "w").await;
    store.commit("w", "c").await.unwrap();
    let diff = store.diff("c", Compression::Gzip).await.unwrap();
    let (base, layer) = (base(), store.bytes(&blob_of(&diff)).await.unwrap());
    let layers = [(&*base, digest(&base)), (&*layer, diff.diff_id.clone())];
    let image = store.image_of(&layers, "").await;
    let unpacked = store.unpack(&image.digest).await.unwrap();
    assert_eq!((unpacked.unpacked, unpacked.existed), (0, 2));
    let (ours, theirs) = (store.export("c").await, store.export(&unpacked.name).await);
    assert_eq!(listing(&ours.unwrap()), listing(&theirs.unwrap()));
}

async fn a_diff_outlives_its_blob(store: Subject) {
    changed(&store, "w").await;
    store.commit("w", "c").await.unwrap();
    let first = store.diff("c", Compression::Gzip).await.unwrap();
    store.delete(&blob_of(&first)).await.unwrap();
    assert_eq!(store.diff("c", Compression::Gzip).await.unwrap(), first);
    store.stat(&blob_of(&first)).await.unwrap();
}

async fn a_lease_holds_the_layer(store: Subject) {
    store.prepare("w", "").await.unwrap();
    let request = pb::DiffRequest {
        key: "w".to_owned(),
        compression: Compression::Gzip.into(),
        lease: "l".to_owned(),
    };
    assert_eq!(
        kind(store.snapshots().diff(request.clone()).await),
        Kind::NotFound
    );
    store.lease("l", 0).await;
    let diff = store.snapshots().diff(request).await.unwrap().into_inner();
    assert_eq!(
        store.held("l").await.unwrap(),
        [Resource::Blob(blob_of(&diff))]
    );
    store.collect(false).await;
    store.stat(&blob_of(&diff)).await.unwrap();
}

async fn a_view_has_no_diff(store: Subject) {
    let base = store.base(&base()).await;
    store.snapshots().view(prepare("v", &base)).await.unwrap();
    let answer = store.diff("v", Compression::Gzip).await;
    assert_eq!(kind(answer), Kind::FailedPrecondition);
}
