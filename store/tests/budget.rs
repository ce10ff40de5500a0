//! A store with a budget: what nothing needs is a cache, and what was wanted least recently goes first.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use oci_spec::image::{Descriptor, Digest, MediaType};
use orlop_store::Store;
use orlop_store::config::StoreArgs;
use orlop_store::images::Expected;
use orlop_store::layers::form::Form;
use orlop_store::leases::Resource;
use orlop_store::maintenance::Collected;
use orlop_store::snapshots::images::ImageLayer;

const MIB: usize = 1 << 20;

fn open(state: &Path, budget_mib: Option<u64>, grace: u32) -> Store {
    let args = StoreArgs {
        budget_mib,
        collect_grace_seconds: grace,
        disk_reserve_mib: 1,
        layers: Form::Directory,
    };
    Store::open_with(state, args).unwrap()
}

/// A blob of a MiB, wanted later than all before.
fn blob(store: &Store, n: u8) -> Digest {
    let digest = store.content.put_bytes(&vec![n; MIB]).unwrap();
    std::thread::sleep(Duration::from_millis(5));
    digest
}

fn here(store: &Store, blobs: &[Digest]) -> Vec<bool> {
    blobs
        .iter()
        .map(|blob| store.content.exists(blob))
        .collect()
}

#[test]
fn what_nothing_needs_stays_until_there_is_too_much_and_then_the_oldest_goes() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), Some(4), 0);
    let mut blobs: Vec<_> = (0..4).map(|n| blob(&store, n)).collect();
    assert_eq!(
        store.maintenance.collect(false).unwrap(),
        Collected::default()
    );
    // The oldest is wanted again, so that the second one is the oldest now.
    store.content.want(&blobs[0]);
    std::thread::sleep(Duration::from_millis(5));
    blobs.extend([blob(&store, 4), blob(&store, 5)]);
    let dry = store.maintenance.collect(true).unwrap();
    assert_eq!((dry.blobs, dry.bytes), (2, 2 * MIB as u64));
    assert_eq!(store.maintenance.collect(false).unwrap(), dry);
    let expected = [true, false, false, true, true, true];
    assert_eq!(here(&store, &blobs), expected);
    let usage = store.maintenance.disk_usage().unwrap();
    assert_eq!(usage.budget_bytes, 4 * MIB as u64);
    assert_eq!(usage.reclaimable_bytes, 4 * MIB as u64);
    assert_eq!(usage.bytes(), 4 * MIB as u64);
}

#[test]
fn without_a_budget_nothing_that_nobody_needs_stays() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), None, 0);
    let blobs: Vec<_> = (0..2).map(|n| blob(&store, n)).collect();
    assert_eq!(store.maintenance.collect(false).unwrap().blobs, 2);
    assert_eq!(here(&store, &blobs), [false, false]);
}

/// Far over the budget, nothing goes that a lease holds, a name points at, or somebody has just wanted.
#[test]
fn what_a_build_or_a_pull_needs_never_goes() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), Some(0), 0);
    let pulled: Vec<_> = (0..2).map(|n| blob(&store, n)).collect();
    store.leases.put("pull", None, BTreeMap::new()).unwrap();
    let held = pulled.iter().map(|blob| Resource::Blob(blob.to_string()));
    store.maintenance.hold("pull", held.collect()).unwrap();
    let name = "docker.io/library/a:1";
    let (manifest, layer) = image(&store, name, 7);
    let idle = blob(&store, 9);
    assert_eq!(store.maintenance.collect(false).unwrap().blobs, 1);
    assert_eq!(here(&store, &[idle]), [false]);
    assert_eq!(here(&store, &pulled), [true, true]);
    assert_eq!(here(&store, &[manifest, layer]), [true, true]);

    store.leases.delete("pull").unwrap();
    store.images.delete(name, &Expected::Any).unwrap();
    assert_eq!(store.maintenance.collect(false).unwrap().blobs, 5);
    drop(store);

    let patient = open(directory.path(), Some(0), 600);
    let wanted = blob(&patient, 10);
    assert_eq!(
        patient.maintenance.collect(false).unwrap(),
        Collected::default()
    );
    assert_eq!(here(&patient, &[wanted]), [true]);
}

/// An image of one layer; its manifest and its layer.
fn image(store: &Store, name: &str, n: u8) -> (Digest, Digest) {
    let layer = store.content.put_bytes(&tar(n)).unwrap();
    let architecture = if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "amd64"
    };
    let config = serde_json::json!({
        "architecture": architecture, "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": [layer] },
    });
    let config = config.to_string();
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": store.content.put_bytes(config.as_bytes()).unwrap(),
            "size": config.len(),
        },
        "layers": [{
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": layer, "size": tar(n).len(),
        }],
    });
    let manifest = manifest.to_string();
    let digest = store.content.put_bytes(manifest.as_bytes()).unwrap();
    let target = Descriptor::new(
        MediaType::ImageManifest,
        manifest.len() as u64,
        digest.clone(),
    );
    store.images.put(name, target, &Expected::Any).unwrap();
    std::thread::sleep(Duration::from_millis(5));
    (digest, layer)
}

fn tar(n: u8) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(MIB as u64);
    header.set_mode(0o644);
    let content = vec![n; MIB];
    tar.append_data(&mut header, "f", &content[..]).unwrap();
    tar.into_inner().unwrap()
}

fn unpack(store: &Store, layer: &Digest) -> String {
    let layer = ImageLayer {
        digest: layer.to_string(),
        diff_id: layer.to_string(),
    };
    let unpacked = store.snapshots.unpack(&[layer], "").unwrap();
    std::thread::sleep(Duration::from_millis(5));
    unpacked.name
}

#[test]
fn snapshots_and_their_layers_go_by_their_last_use_too() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), Some(3), 0);
    let names = ["docker.io/library/a:1", "docker.io/library/b:1"];
    let (_, a) = image(&store, names[0], 1);
    let (_, b) = image(&store, names[1], 2);
    let (a_tree, b_tree) = (unpack(&store, &a), unpack(&store, &b));
    unpack(&store, &a);
    assert_eq!(
        store.maintenance.collect(false).unwrap(),
        Collected::default()
    );
    for name in names {
        store.images.delete(name, &Expected::Any).unwrap();
    }
    // The blobs have lost their wish with their name; then the tree that was not used again goes.
    let collected = store.maintenance.collect(false).unwrap();
    assert!(
        collected.blobs >= 1 && collected.snapshots == 0,
        "{collected:?}"
    );
    let small = open_smaller(store, directory.path());
    assert_eq!(small.maintenance.collect(false).unwrap().snapshots, 1);
    assert!(small.snapshots.stat(&a_tree).is_ok());
    assert!(small.snapshots.stat(&b_tree).is_err());
}

/// The last use survives a restart.
fn open_smaller(store: Store, state: &Path) -> Store {
    drop(store);
    let store = open(state, Some(1), 0);
    let used = store.maintenance.disk_usage().unwrap().layer_bytes;
    assert!(used > MIB as u64);
    store
}

/// One that has an active snapshot over it is not unused, whatever the budget.
#[test]
fn what_a_container_stands_on_never_goes() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), Some(0), 0);
    let (_, layer) = image(&store, "docker.io/library/a:1", 1);
    let tree = unpack(&store, &layer);
    let wanted = orlop_store::snapshots::lifecycle::Wanted {
        key: "container".into(),
        parent: tree.clone(),
        ..Default::default()
    };
    store.snapshots.prepare(wanted).unwrap();
    let unwanted = store.images.delete("docker.io/library/a:1", &Expected::Any);
    store.snapshots.unwant(unwanted.unwrap());
    let collected = store.maintenance.collect(false).unwrap();
    assert_eq!((collected.blobs, collected.snapshots), (3, 0));
    assert!(store.snapshots.stat(&tree).is_ok());
    store.snapshots.remove("container").unwrap();
    std::thread::sleep(Duration::from_millis(5));
    assert_eq!(store.maintenance.collect(false).unwrap().snapshots, 1);
}

#[test]
fn a_thread_keeps_the_budget_and_ends_with_its_keeper() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), Some(1), 0);
    assert!(
        open(&directory.path().join("other"), None, 0)
            .maintenance
            .keep_budget()
            .is_none()
    );
    let blobs: Vec<_> = (0..4).map(|n| blob(&store, n)).collect();
    let keeper = store.maintenance.keep_budget().unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    while here(&store, &blobs) != [false, false, false, true] {
        assert!(Instant::now() < until, "{:?}", here(&store, &blobs));
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(keeper);
    assert!(store.content.exists(&blobs[3]));
}
