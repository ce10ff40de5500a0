//! Snapshots as layer blobs, through a socket.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::collections::HashSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;

use orlop_proto::store::file_op::Op;
use orlop_proto::store::{Compression, CopyEntries, DiffRequest, GetMountRequest, Mkdir};

#[path = "support/client.rs"]
mod client;
#[path = "support/service.rs"]
mod service;
#[path = "support/smith.rs"]
mod smith;
use client::{Client, at, bytes, file, owner, passwd, read_blob};
use smith::Tar;

#[tokio::test(flavor = "multi_thread")]
async fn the_same_tree_is_the_same_layer_in_another_store() {
    let mut digests = HashSet::new();
    for _ in 0..2 {
        let mut client = Client::start().await;
        let base = client.base(passwd().end()).await;
        client.prepare("w", &base).await.unwrap();
        let blob = client.service.put(&vec![9; 3 << 20]);
        let ops = vec![
            Op::Mkdir(Mkdir {
                path: bytes("/app/deep"),
                mode: 0,
                owner: owner("7:web"),
                mtime: at(5),
            }),
            Op::CopyEntries(CopyEntries {
                dest: bytes("/app/deep/f"),
                entries: vec![file("name", &blob, 0o755)],
                ..Default::default()
            }),
            Op::Mkdir(Mkdir {
                path: bytes("/app/deep"),
                mode: 0o700,
                owner: None,
                mtime: at(9),
            }),
        ];
        client.apply("w", ops).await.unwrap();
        let upper = client
            .rpc
            .get_mount(GetMountRequest { key: "w".into() })
            .await
            .unwrap();
        let upper = upper.into_inner().upper;
        let deep = fs::metadata(format!("{upper}/app/deep")).unwrap();
        assert_eq!(
            (deep.uid(), deep.gid(), deep.mode() & 0o7777),
            (7, 35, 0o755)
        );
        for path in ["app/deep", "app"] {
            let directory = fs::File::open(format!("{upper}/{path}")).unwrap();
            directory.set_modified(std::time::UNIX_EPOCH).unwrap();
        }
        let active = client.diff("w", Compression::Gzip).await;
        client.commit("w", "c").await.unwrap();
        let committed = client.diff("c", Compression::Gzip).await;
        assert_eq!(active, committed);
        digests.insert(committed.descriptor.unwrap().digest);
    }
    assert_eq!(digests.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_packed_layer_is_found_again_by_its_diff_id() {
    let mut client = Client::start().await;
    client.prepare("w", "").await.unwrap();
    let mkdir = Mkdir {
        path: bytes("/d"),
        mtime: at(1),
        ..Default::default()
    };
    client.apply("w", vec![Op::Mkdir(mkdir)]).await.unwrap();
    client.commit("w", "c").await.unwrap();
    let diff = client.diff("c", Compression::None).await;
    assert!(!diff.empty);
    let tar = read_blob(&client, &diff.diff_id);
    let image = client.service.image(&[(&tar, diff.diff_id.clone())]);
    let unpacked = client.unpack(&image).await.unwrap();
    assert_eq!((unpacked.unpacked, unpacked.existed), (0, 1));
    assert_eq!(client.service.left("layers").len(), 1);

    client.prepare("e", &unpacked.name).await.unwrap();
    client.commit("e", "empty").await.unwrap();
    assert!(client.diff("empty", Compression::Gzip).await.empty);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remembered_blob_is_looked_at_before_it_is_answered() {
    let mut client = Client::start().await;
    let base = client.base(passwd().end()).await;
    client.prepare("w", &base).await.unwrap();
    client.commit("w", "c").await.unwrap();
    let content = client.service.store.content.clone();
    let first = client.diff("c", Compression::Gzip).await;
    let digest = first.descriptor.clone().unwrap().digest;
    let digest = orlop_proto::descriptor::parse_digest(&digest).unwrap();
    assert!(content.remove(&digest).unwrap());
    assert_eq!(client.diff("c", Compression::Gzip).await, first);
    assert!(content.exists(&digest));

    // A blob that is another tar by now is not passed on in another compression.
    let mut other = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    other.write_all(&[0; 1024 * 3]).unwrap();
    fs::write(content.path(&digest), other.finish().unwrap()).unwrap();
    let request = DiffRequest {
        key: "c".into(),
        compression: Compression::Zstd.into(),
        ..Default::default()
    };
    let refused = client.rpc.diff(request).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::DataLoss, "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unpacked_layer_without_members_is_empty() {
    let mut client = Client::start().await;
    for (tar, empty) in [
        (Tar::new().end(), true),
        (Tar::new().file("f", b"").end(), false),
    ] {
        let name = client.base(tar).await;
        for compression in [Compression::None, Compression::Gzip] {
            assert_eq!(client.diff(&name, compression).await.empty, empty);
        }
    }
}
