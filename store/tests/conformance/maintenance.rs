//! `Maintenance`: collection, accounts, checks.

use orlop_proto::error::Kind;
use orlop_proto::store as pb;
use orlop_proto::store::resource::Resource;
use orlop_proto::store::write_request::Message;

use crate::calls::{all, data, kind, open};
use crate::reach::Subject;
use crate::smith::Tar;
use crate::words::digest;

conforms! {
    a_collection_takes_what_nothing_needs,
    a_collection_leaves_what_is_in_use,
    collections_and_writers_do_not_meet,
    the_accounts_tell_what_is_there,
    what_could_go_is_counted,
    a_healthy_store_has_no_findings,
}

const NAME: &str = "docker.io/library/a:latest";

async fn usage(store: &Subject) -> pb::DiskUsageResponse {
    let request = pb::DiskUsageRequest {};
    store
        .maintenance()
        .disk_usage(request)
        .await
        .unwrap()
        .into_inner()
}

async fn delete(store: &Subject, name: &str) {
    let request = pb::DeleteImageRequest {
        name: name.to_owned(),
        expected: String::new(),
    };
    store.images().delete(request).await.unwrap();
}

async fn a_collection_takes_what_nothing_needs(store: Subject) {
    let garbage = store.blob(b"garbage").await;
    let held = store.blob(b"held").await;
    store.lease("l", 0).await;
    store
        .hold("l", &[Resource::Blob(held.clone())])
        .await
        .unwrap();
    store.named(NAME, b"layer").await;
    let dry = store.collect(true).await;
    store.stat(&garbage).await.unwrap();
    assert_eq!((dry.blobs, dry.snapshots), (1, 0));
    assert!(dry.bytes >= 7);
    assert_eq!(store.collect(false).await, dry);
    assert_eq!(kind(store.stat(&garbage).await), Kind::NotFound);
    store.stat(&held).await.unwrap();
    assert_eq!(store.collect(false).await, pb::CollectResponse::default());
    delete(&store, NAME).await;
    assert_eq!(store.collect(false).await.blobs, 3);
}

async fn a_collection_leaves_what_is_in_use(store: Subject) {
    let layer = Tar::new().file("f", b"1").end();
    let image = store.named(NAME, &layer).await;
    let base = store.unpack(&image.digest).await.unwrap().name;
    store.prepare("k", &base).await.unwrap();
    store.commit("k", "middle").await.unwrap();
    store.prepare("active", "middle").await.unwrap();
    let view = crate::calls::prepare("view", &base);
    store.snapshots().view(view).await.unwrap();
    assert_eq!(store.collect(false).await, pb::CollectResponse::default());
    store.remove("active").await.unwrap();
    assert_eq!(store.collect(false).await.snapshots, 1);
    // The view holds the layer's tree, and not its blob.
    delete(&store, NAME).await;
    let collected = store.collect(false).await;
    assert_eq!((collected.blobs, collected.snapshots), (3, 0));
    assert_eq!(store.read("view", "f").await.unwrap(), b"1");
    store.remove("view").await.unwrap();
    assert_eq!(store.collect(false).await.snapshots, 1);
    assert!(store.keys().await.is_empty());
}

async fn collections_and_writers_do_not_meet(store: Subject) {
    store.lease("l", 0).await;
    let writers = (0..4_u8).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            for n in 0..20_u8 {
                let bytes = [writer, n];
                let request = pb::PutManyRequest {
                    digest: digest(&bytes),
                    data: bytes.to_vec().into(),
                    lease: "l".to_owned(),
                };
                store.put_many(vec![request]).await.unwrap();
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let collectors = (0..2).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            for _ in 0..20 {
                assert_eq!(store.collect(false).await.blobs, 0);
            }
        })
    });
    for task in writers.into_iter().chain(collectors.collect::<Vec<_>>()) {
        task.await.unwrap();
    }
    assert_eq!(store.held("l").await.unwrap().len(), 80);
    assert_eq!(usage(&store).await.blobs, 80);
}

async fn the_accounts_tell_what_is_there(store: Subject) {
    let empty = usage(&store).await;
    assert_eq!(
        (empty.blobs, empty.layers, empty.snapshots, empty.images),
        (0, 0, 0, 0)
    );
    let layer = Tar::new().file("f", &[1; 100_000]).end();
    let image = store.named(NAME, &layer).await;
    store
        .write(vec![Message::Open(open("i", 0)), data(&[2; 1000])])
        .await
        .unwrap();
    let blobs = usage(&store).await;
    assert_eq!(
        (blobs.blobs, blobs.images, blobs.ingest_bytes),
        (3, 1, 1000)
    );
    assert!(blobs.blob_bytes > layer.len() as u64);
    let base = store.unpack(&image.digest).await.unwrap().name;
    store.prepare("k", &base).await.unwrap();
    let unpacked = usage(&store).await;
    assert_eq!((unpacked.layers, unpacked.snapshots), (1, 2));
    assert!(unpacked.layer_bytes >= 100_000);
    assert_eq!(unpacked.budget_bytes, 0);
}

async fn what_could_go_is_counted(store: Subject) {
    store.named(NAME, b"layer").await;
    assert_eq!(usage(&store).await.reclaimable_bytes, 0);
    store.blob(&[1; 100_000]).await;
    let reclaimable = usage(&store).await.reclaimable_bytes;
    assert!((100_000..200_000).contains(&reclaimable), "{reclaimable}");
    store.collect(false).await;
    assert_eq!(usage(&store).await.reclaimable_bytes, 0);
}

async fn a_healthy_store_has_no_findings(store: Subject) {
    let layer = Tar::new().file("f", b"1").end();
    let image = store.named(NAME, &layer).await;
    let base = store.unpack(&image.digest).await.unwrap().name;
    store.prepare("k", &base).await.unwrap();
    store.lease("l", 0).await;
    store
        .hold("l", &[Resource::Snapshot("k".into())])
        .await
        .unwrap();
    store
        .write(vec![Message::Open(open("i", 0)), data(b"x")])
        .await
        .unwrap();
    for (repair, rehash) in [(false, false), (false, true), (true, true)] {
        let request = pb::CheckRequest { repair, rehash };
        let findings = all(store.maintenance().check(request).await).await.unwrap();
        assert_eq!(findings, []);
    }
    store.bytes(&image.digest).await.unwrap();
    assert_eq!(store.read("k", "f").await.unwrap(), b"1");
    assert_eq!(store.stat_ingest("i").await.unwrap().offset, 1);
}
