//! `Leases`: what the collector must not touch.

use std::time::Duration;

use orlop_proto::error::Kind;
use orlop_proto::store as pb;
use orlop_proto::store::resource::Resource;

use crate::calls::{all, kind};
use crate::reach::Subject;
use crate::smith::Tar;
use crate::words::digest;

conforms! {
    leases_are_made_filled_listed_and_ended,
    a_lease_is_extended_and_keeps_what_it_holds,
    an_unknown_lease_holds_nothing,
    an_expired_lease_is_gone,
    a_manifest_is_held_with_its_children,
    a_snapshot_is_held_with_its_parents,
    e8_ids_and_resources_are_checked_before_use,
    a_time_to_live_has_an_end,
}

async fn put(store: &Subject, id: &str, ttl_seconds: u64) -> Result<pb::Lease, tonic::Status> {
    let request = pb::PutLeaseRequest {
        id: id.to_owned(),
        ttl_seconds,
        labels: [("for".to_owned(), id.to_owned())].into(),
    };
    let answer = store.leases().put(request).await;
    answer.map(tonic::Response::into_inner)
}

async fn ids(store: &Subject) -> Vec<String> {
    let list = all(store.leases().list(pb::ListLeasesRequest {}).await)
        .await
        .unwrap();
    let mut ids: Vec<_> = list.into_iter().map(|lease| lease.id).collect();
    ids.sort();
    ids
}

async fn release(store: &Subject, lease: &str, resource: &Resource) -> Result<(), tonic::Status> {
    let request = pb::ReleaseResourcesRequest {
        lease: lease.to_owned(),
        resources: vec![pb::Resource {
            resource: Some(resource.clone()),
        }],
    };
    store.leases().release(request).await.map(drop)
}

async fn leases_are_made_filled_listed_and_ended(store: Subject) {
    let blob = Resource::Blob(store.blob(b"held").await);
    let lease = put(&store, "l", 0).await.unwrap();
    assert_eq!((lease.id.as_str(), lease.expires), ("l", None));
    assert_eq!(lease.labels["for"], "l");
    put(&store, "m", 60).await.unwrap();
    assert_eq!(ids(&store).await, ["l", "m"]);
    let resources = [blob.clone(), Resource::Snapshot("not-there-yet".into())];
    for _ in 0..2 {
        store.hold("l", &resources).await.unwrap();
    }
    assert_eq!(store.held("l").await.unwrap(), resources);
    for _ in 0..2 {
        release(&store, "l", &resources[1]).await.unwrap();
    }
    assert_eq!(store.held("l").await.unwrap(), [blob]);
    for _ in 0..2 {
        store.end_lease("l").await;
    }
    assert_eq!(ids(&store).await, ["m"]);
    store.collect(false).await;
    assert_eq!(kind(store.stat(&digest(b"held")).await), Kind::NotFound);
}

async fn a_lease_is_extended_and_keeps_what_it_holds(store: Subject) {
    let first = put(&store, "l", 60).await.unwrap();
    let blob = Resource::Blob(digest(b"held"));
    store.hold("l", std::slice::from_ref(&blob)).await.unwrap();
    let second = put(&store, "l", 3600).await.unwrap();
    assert_eq!(second.created, first.created);
    let longer = second.expires.unwrap().seconds - first.expires.unwrap().seconds;
    assert!((3530..=3550).contains(&longer), "{longer}");
    assert_eq!(put(&store, "l", 0).await.unwrap().expires, None);
    assert_eq!(store.held("l").await.unwrap(), [blob]);
}

async fn an_unknown_lease_holds_nothing(store: Subject) {
    let blob = Resource::Blob(digest(b"x"));
    assert_eq!(
        kind(store.hold("l", std::slice::from_ref(&blob)).await),
        Kind::NotFound
    );
    assert_eq!(kind(release(&store, "l", &blob).await), Kind::NotFound);
    assert_eq!(kind(store.held("l").await), Kind::NotFound);
    store.end_lease("l").await;
}

async fn an_expired_lease_is_gone(store: Subject) {
    let blob = store.blob(b"held").await;
    // Long enough for what comes before its end, on a slow machine too.
    put(&store, "l", 4).await.unwrap();
    store
        .hold("l", &[Resource::Blob(blob.clone())])
        .await
        .unwrap();
    store.collect(false).await;
    store.stat(&blob).await.unwrap();
    while !ids(&store).await.is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(kind(store.held("l").await), Kind::NotFound);
    assert_eq!(
        kind(store.hold("l", &[Resource::Blob(blob.clone())]).await),
        Kind::NotFound
    );
    store.collect(false).await;
    assert_eq!(kind(store.stat(&blob).await), Kind::NotFound);
}

async fn a_manifest_is_held_with_its_children(store: Subject) {
    let image = store.image(b"layer").await;
    store.blob(b"free").await;
    put(&store, "l", 0).await.unwrap();
    store
        .hold("l", &[Resource::Blob(image.digest.clone())])
        .await
        .unwrap();
    assert_eq!(
        kind(store.delete(&digest(b"layer")).await),
        Kind::FailedPrecondition
    );
    assert_eq!(store.collect(false).await.blobs, 1);
    store
        .images()
        .put(crate::calls::named("a", &image))
        .await
        .unwrap();
}

async fn a_snapshot_is_held_with_its_parents(store: Subject) {
    let base = store.base(&Tar::new().file("f", b"1").end()).await;
    for (key, name) in [("k", "held"), ("k", "free")] {
        store.prepare(key, &base).await.unwrap();
        store.commit(key, name).await.unwrap();
    }
    put(&store, "l", 0).await.unwrap();
    store
        .hold("l", &[Resource::Snapshot("held".into())])
        .await
        .unwrap();
    assert_eq!(store.collect(false).await.snapshots, 1);
    assert_eq!(store.keys().await, ["held".to_owned(), base]);
    store.end_lease("l").await;
    assert_eq!(store.collect(false).await.snapshots, 2);
    assert!(store.keys().await.is_empty());
}

async fn e8_ids_and_resources_are_checked_before_use(store: Subject) {
    let (longest, longer) = ("x".repeat(128), "x".repeat(129));
    for id in ["../x", "/x", "", ".x", &longer] {
        assert_eq!(
            kind(put(&store, id, 0).await),
            Kind::InvalidArgument,
            "{id}"
        );
        assert_eq!(
            kind(store.hold(id, &[]).await),
            Kind::InvalidArgument,
            "{id}"
        );
        assert_eq!(kind(store.held(id).await), Kind::InvalidArgument, "{id}");
        let id = id.to_owned();
        let deleted = store.leases().delete(pb::DeleteLeaseRequest { id }).await;
        assert_eq!(kind(deleted), Kind::InvalidArgument);
    }
    put(&store, &longest, 0).await.unwrap();
    for bad in [
        Resource::Blob("sha256:../../x".into()),
        Resource::Blob(String::new()),
        Resource::Snapshot("../x".into()),
        Resource::Snapshot(String::new()),
    ] {
        assert_eq!(
            kind(store.hold(&longest, &[bad]).await),
            Kind::InvalidArgument
        );
    }
    let nothing = pb::AddResourcesRequest {
        lease: longest,
        resources: vec![pb::Resource { resource: None }],
    };
    assert_eq!(
        kind(store.leases().add(nothing).await),
        Kind::InvalidArgument
    );
}

async fn a_time_to_live_has_an_end(store: Subject) {
    for ttl in [u64::MAX, i64::MAX.unsigned_abs(), 300_000_000_000] {
        assert_eq!(
            kind(put(&store, "l", ttl).await),
            Kind::InvalidArgument,
            "{ttl}"
        );
    }
    assert!(ids(&store).await.is_empty());
    put(&store, "l", 3_000_000_000).await.unwrap();
}
