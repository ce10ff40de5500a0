//! `Snapshots`: the layers of an image.

use orlop_proto::error::{Kind, reason};
use orlop_proto::store as pb;
use orlop_proto::store::resource::Resource;

use crate::calls::{kind, refusal};
use crate::reach::Subject;
use crate::smith::Tar;
use crate::words::{digest, gzip, listing, zstd};

conforms! {
    an_image_is_unpacked_once_and_stacked,
    a_layer_is_the_same_in_every_compression,
    layers_are_shared_between_images,
    two_hundred_layers_are_one_tree,
    an_image_without_layers_has_no_snapshot,
    h5_a_wrong_diff_id_fails_and_leaves_nothing,
    a_tar_that_is_not_one_leaves_nothing,
    what_is_not_here_is_not_unpacked,
    a25_many_callers_share_one_unpack_also_of_a_bad_layer,
    a_lease_holds_what_is_unpacked,
}

fn layer(tar: &[u8]) -> (&[u8], String) {
    (tar, digest(tar))
}

async fn an_image_is_unpacked_once_and_stacked(store: Subject) {
    let lower = Tar::new()
        .file("a", b"1")
        .file("b", b"1")
        .directory("d", 0o755)
        .file("d/x", b"1")
        .directory("e", 0o755)
        .file("e/x", b"1")
        .end();
    let upper = Tar::new()
        .file("b", b"2")
        .file(".wh.a", b"")
        .file("d/.wh..wh..opq", b"")
        .file("d/y", b"2")
        .file(".wh.e", b"")
        .end();
    let image = store.image_of(&[layer(&lower), layer(&upper)], "").await;
    let first = store.unpack(&image.digest).await.unwrap();
    assert_eq!((first.unpacked, first.existed), (2, 0));
    let chain = digest(format!("{} {}", digest(&lower), digest(&upper)).as_bytes());
    assert_eq!(first.name, chain);
    let second = store.unpack(&image.digest).await.unwrap();
    assert_eq!((second.unpacked, second.existed), (0, 2));
    for (path, content) in [("/b", "2"), ("d/y", "2")] {
        assert_eq!(store.read(&chain, path).await.unwrap(), content.as_bytes());
    }
    for gone in ["a", "d/x", "e", "e/x"] {
        assert_eq!(
            kind(store.read(&chain, gone).await),
            Kind::NotFound,
            "{gone}"
        );
    }
    let top = store.info(&chain).await.unwrap();
    assert_eq!(
        (top.kind(), top.parent.as_str()),
        (pb::SnapshotKind::Committed, &*digest(&lower))
    );
    assert_eq!(top.diff_id, digest(&upper));
    assert_eq!(store.read(&digest(&lower), "a").await.unwrap(), b"1");
}

async fn a_layer_is_the_same_in_every_compression(store: Subject) {
    let tar = Tar::new()
        .directory("d", 0o750)
        .file("d/big", &[7; 700_000])
        .symlink("l", "d/big")
        .end();
    let (half, rest) = tar.split_at(300_000);
    let members = [gzip(half), gzip(rest)].concat();
    let frames = [zstd(half), zstd(rest)].concat();
    let mut trees = Vec::new();
    for blob in [tar.clone(), gzip(&tar), zstd(&tar), members, frames] {
        let store = store.another().await;
        let image = store.image_of(&[(&blob, digest(&tar))], "").await;
        let name = store.unpack(&image.digest).await.unwrap().name;
        assert_eq!(name, digest(&tar));
        trees.push(listing(&store.export(&name).await.unwrap()));
    }
    assert_eq!(trees[0].len(), 3);
    assert!(trees.iter().all(|tree| *tree == trees[0]));
}

async fn layers_are_shared_between_images(store: Subject) {
    let tars = ["1", "2", "3"].map(|n| Tar::new().file(n, n.as_bytes()).end());
    let image = store
        .image_of(&[layer(&tars[0]), layer(&tars[1])], "")
        .await;
    assert_eq!(store.unpack(&image.digest).await.unwrap().unpacked, 2);
    let other = store
        .image_of(&[layer(&tars[0]), layer(&tars[2])], "")
        .await;
    let shared = store.unpack(&other.digest).await.unwrap();
    assert_eq!((shared.unpacked, shared.existed), (1, 1));
    // The same layer over another one, and twice in one image.
    let moved = [&tars[2], &tars[1], &tars[2]].map(|tar| layer(tar));
    let moved = store.image_of(&moved, "").await;
    let name = store.unpack(&moved.digest).await.unwrap().name;
    for n in ["2", "3"] {
        assert_eq!(store.read(&name, n).await.unwrap(), n.as_bytes());
    }
    assert_eq!(kind(store.read(&name, "1").await), Kind::NotFound);
}

async fn two_hundred_layers_are_one_tree(store: Subject) {
    let tars: Vec<_> = (0..200_u8)
        .map(|n| {
            Tar::new()
                .file("last", &[n])
                .file(&format!("own-{n}"), &[n])
                .end()
        })
        .collect();
    let layers: Vec<_> = tars.iter().map(|tar| layer(tar)).collect();
    let image = store.image_of(&layers, "").await;
    let name = store.unpack(&image.digest).await.unwrap().name;
    assert_eq!(store.read(&name, "last").await.unwrap(), [199]);
    assert_eq!(store.read(&name, "own-0").await.unwrap(), [0]);
    store.prepare("k", &name).await.unwrap();
    let path = crate::calls::bytes("/own-7");
    let remove = pb::file_op::Op::Remove(pb::RemovePath { path });
    store.apply("k", vec![remove]).await.unwrap();
    assert_eq!(listing(&store.export("k").await.unwrap()).len(), 200);
}

async fn an_image_without_layers_has_no_snapshot(store: Subject) {
    let image = store.image_of(&[], "").await;
    let unpacked = store.unpack(&image.digest).await.unwrap();
    assert_eq!(unpacked, pb::UnpackResponse::default());
}

async fn h5_a_wrong_diff_id_fails_and_leaves_nothing(store: Subject) {
    let good = Tar::new().file("a", b"1").end();
    let bad = Tar::new().file("b", b"1").end();
    let layers = [layer(&good), (&*bad, digest(b"other"))];
    let image = store.image_of(&layers, "").await;
    for _ in 0..2 {
        let failure = refusal(store.unpack(&image.digest).await);
        assert_eq!(failure.kind, Kind::InvalidArgument);
        assert_eq!(failure.reason, reason::DIGEST_MISMATCH);
        assert!(store.keys().await.is_empty());
    }
    let right = store.image_of(&[layer(&good), layer(&bad)], "").await;
    store.unpack(&right.digest).await.unwrap();
}

async fn a_tar_that_is_not_one_leaves_nothing(store: Subject) {
    let whole = Tar::new().file("a", &[7; 10_000]).end();
    let root = Tar::new().symlink(".", "/etc").end();
    for bad in [
        Tar::new().file("../x", b"").end(),
        Tar::new().file(".wh.", b"").end(),
        Tar::new().hard_link("x", "nothing").end(),
        Tar::new().hard_link("x", "../../etc/passwd").end(),
        whole[..5000].to_vec(),
        vec![b'x'; 1024],
        root,
    ] {
        let image = store.image_of(&[layer(&bad)], "").await;
        assert_eq!(
            kind(store.unpack(&image.digest).await),
            Kind::InvalidArgument
        );
    }
    let cut = gzip(&whole);
    let image = store
        .image_of(&[(&cut[..cut.len() - 20], digest(&whole))], "")
        .await;
    assert_eq!(
        kind(store.unpack(&image.digest).await),
        Kind::InvalidArgument
    );
    assert!(store.keys().await.is_empty());
}

async fn what_is_not_here_is_not_unpacked(store: Subject) {
    assert_eq!(kind(store.unpack(&digest(b"absent")).await), Kind::NotFound);
    assert_eq!(
        kind(store.unpack("sha256:../../x").await),
        Kind::InvalidArgument
    );
    let blob = store.blob(b"no manifest").await;
    assert_eq!(kind(store.unpack(&blob).await), Kind::InvalidArgument);
    let tar = Tar::new().file("a", b"1").end();
    let image = store.image(&tar).await;
    store.delete(&digest(&tar)).await.unwrap();
    assert_eq!(kind(store.unpack(&image.digest).await), Kind::NotFound);
    store.blob(&tar).await;
    store.unpack(&image.digest).await.unwrap();
}

async fn a25_many_callers_share_one_unpack_also_of_a_bad_layer(store: Subject) {
    let good = Tar::new().file("a", &[7; 1 << 20]).end();
    let bad = Tar::new().file("a", &[7; 1 << 20]).cut()[..600_000].to_vec();
    let good = store.image(&good).await.digest;
    let bad = store.image(&bad).await.digest;
    let calls = (0..16).map(|n| {
        let (store, digest) = (store.clone(), [&good, &bad][n % 2].clone());
        tokio::spawn(async move { store.unpack(&digest).await })
    });
    let mut unpacked = 0;
    for (n, call) in calls.collect::<Vec<_>>().into_iter().enumerate() {
        let answer = call.await.unwrap();
        assert_eq!(answer.is_ok(), n % 2 == 0);
        unpacked += answer.map_or(0, |answer| answer.unpacked);
    }
    assert_eq!(unpacked, 1);
    assert_eq!(store.unpack(&good).await.unwrap().existed, 1);
    assert_eq!(store.keys().await.len(), 1);
}

async fn a_lease_holds_what_is_unpacked(store: Subject) {
    let tars = ["1", "2"].map(|n| Tar::new().file(n, n.as_bytes()).end());
    let image = store
        .image_of(&[layer(&tars[0]), layer(&tars[1])], "")
        .await;
    let request = pb::UnpackRequest {
        digest: image.digest,
        lease: "l".to_owned(),
    };
    let unknown = store.snapshots().unpack(request.clone()).await;
    assert_eq!(kind(unknown), Kind::NotFound);
    store.lease("l", 0).await;
    let name = store
        .snapshots()
        .unpack(request)
        .await
        .unwrap()
        .into_inner()
        .name;
    assert_eq!(store.held("l").await.unwrap(), [Resource::Snapshot(name)]);
    assert_eq!(store.collect(false).await.snapshots, 0);
    store.end_lease("l").await;
    assert_eq!(store.collect(false).await.snapshots, 2);
}
