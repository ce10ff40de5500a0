//! Collection while everything goes on: rows 2 and 31 of `SECURITY` 5.2, and what holds what.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use oci_spec::image::{Descriptor, Digest, MediaType};
use orlop_proto::descriptor::parse_digest;
use orlop_store::config::StoreArgs;
use orlop_store::images::{Expected, Wanted};
use orlop_store::leases::Resource;
use orlop_store::{Store, StoreError};
use serde_json::{Value, json};

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

struct Fixture {
    directory: tempfile::TempDir,
    store: Store,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let args = StoreArgs {
            collect_grace_seconds: 0,
            disk_reserve_mib: 1,
            ..StoreArgs::default()
        };
        let store = Store::open_with(directory.path(), args).unwrap();
        Self { directory, store }
    }

    fn put(&self, bytes: &[u8]) -> Digest {
        self.store.content.put_bytes(bytes).unwrap()
    }

    fn json(&self, value: &Value) -> Descriptor {
        let bytes = value.to_string();
        let digest = self.put(bytes.as_bytes());
        Descriptor::new(MediaType::ImageManifest, bytes.len() as u64, digest)
    }

    /// A manifest with its configuration and its layers, all of them new.
    fn image(&self, layers: &[&str]) -> Descriptor {
        self.json(&manifest(layers, &mut |bytes| self.put(bytes).to_string()))
    }

    fn name(&self, name: &str, target: &Descriptor) {
        let images = &self.store.images;
        images.put(name, target.clone(), &Expected::Any).unwrap();
    }

    fn hold(&self, lease: &str, digest: &Digest) {
        self.store.leases.put(lease, None, BTreeMap::new()).unwrap();
        let held = vec![Resource::Blob(digest.to_string())];
        self.store.maintenance.hold(lease, held).unwrap();
    }

    fn collect(&self) -> u64 {
        thread::sleep(Duration::from_millis(5));
        self.store.maintenance.collect(false).unwrap().blobs
    }

    fn blobs(&self) -> usize {
        self.store.content.list().unwrap().len()
    }
}

fn manifest(layers: &[&str], put: &mut dyn FnMut(&[u8]) -> String) -> Value {
    let digests: Vec<_> = layers.iter().map(|layer| put(layer.as_bytes())).collect();
    let architecture = if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "amd64"
    };
    let config = json!({
        "architecture": architecture, "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": digests },
    });
    let config = config.to_string();
    let descriptors = layers.iter().zip(&digests).map(
        |(layer, digest)| json!({ "mediaType": LAYER, "digest": digest, "size": layer.len() }),
    );
    json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": { "mediaType": CONFIG, "digest": put(config.as_bytes()), "size": config.len() },
        "layers": descriptors.collect::<Vec<_>>(),
    })
}

fn entry(target: &Descriptor) -> Value {
    json!({ "mediaType": MANIFEST, "digest": target.digest(), "size": target.size() })
}

#[test]
fn an_index_holds_its_manifests_and_they_their_layers() {
    let fixture = Fixture::new();
    let (one, two) = (
        fixture.image(&["one", "base"]),
        fixture.image(&["two", "base"]),
    );
    fixture.image(&["garbage", "base"]);
    let index = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [entry(&one), entry(&two)],
    });
    let bytes = index.to_string();
    let digest = fixture.put(bytes.as_bytes());
    let target = Descriptor::new(MediaType::ImageIndex, bytes.len() as u64, digest.clone());
    fixture.name("docker.io/library/a:1", &target);
    // The garbage shares its base: manifest, configuration and one layer go.
    assert_eq!(fixture.collect(), 3);
    assert_eq!(fixture.blobs(), 1 + 2 + 2 + 3);
    fixture.hold("l", &digest);
    let images = &fixture.store.images;
    images
        .delete("docker.io/library/a:1", &Expected::Any)
        .unwrap();
    assert_eq!(fixture.collect(), 0);
    fixture.store.leases.delete("l").unwrap();
    assert_eq!(fixture.collect(), 8);
    assert_eq!(fixture.blobs(), 0);
}

#[test]
fn a_referrer_stays_while_its_subject_does_and_so_does_what_refers_to_it() {
    let fixture = Fixture::new();
    let subject = fixture.image(&["subject"]);
    let referrer = |of: &Descriptor, layer: &str| {
        let mut document = manifest(&[layer], &mut |bytes| fixture.put(bytes).to_string());
        document["subject"] = entry(of);
        fixture.json(&document)
    };
    let signature = referrer(&subject, "signature");
    let counter = referrer(&signature, "countersignature");
    let orphan = referrer(&fixture.image(&["nobody's"]), "of nobody");
    fixture.name("docker.io/library/a:1", &subject);
    assert_eq!(fixture.collect(), 3 + 3);
    assert!(!fixture.store.content.exists(orphan.digest()));
    for kept in [&subject, &signature, &counter] {
        assert!(fixture.store.content.exists(kept.digest()));
    }
    assert_eq!(fixture.blobs(), 9);
    let images = &fixture.store.images;
    images
        .delete("docker.io/library/a:1", &Expected::Any)
        .unwrap();
    assert_eq!(fixture.collect(), 9);
}

/// A document may be the layer of another: then what it holds stays all the same.
#[test]
fn a_document_that_is_also_a_layer_holds_its_children() {
    let fixture = Fixture::new();
    let inner = manifest(&["inner"], &mut |bytes| fixture.put(bytes).to_string()).to_string();
    let outer = fixture.image(&[&inner]);
    fixture.name("docker.io/library/a:1", &outer);
    fixture.hold(
        "l",
        &parse_digest(fixture.put(inner.as_bytes()).as_ref()).unwrap(),
    );
    assert_eq!(fixture.collect(), 0);
    fixture.store.leases.delete("l").unwrap();
    assert_eq!(fixture.collect(), 2);
}

#[test]
fn a_blob_in_use_is_not_deleted_and_its_holder_is_named() {
    let fixture = Fixture::new();
    let target = fixture.image(&["layer"]);
    let layer = fixture.put(b"layer");
    fixture.name("docker.io/library/a:1", &target);
    let maintenance = &fixture.store.maintenance;
    let Err(StoreError::BlobInUse { holder, .. }) = maintenance.delete_blob(&layer) else {
        panic!("a layer of an image was deleted");
    };
    assert_eq!(holder, "image docker.io/library/a:1");
    fixture.hold("l", target.digest());
    let images = &fixture.store.images;
    images
        .delete("docker.io/library/a:1", &Expected::Any)
        .unwrap();
    let Err(StoreError::BlobInUse { holder, .. }) = maintenance.delete_blob(&layer) else {
        panic!("a layer of a leased manifest was deleted");
    };
    assert_eq!(holder, "lease l");
    fixture.store.leases.delete("l").unwrap();
    maintenance.delete_blob(&layer).unwrap();
    assert!(!fixture.store.content.exists(&layer));
}

/// What somebody else has wanted since a name was written does not go with the name.
#[test]
fn deleting_a_name_takes_no_wish_of_others_back() {
    let fixture = Fixture::new();
    let target = fixture.image(&["layer"]);
    let layer = fixture.put(b"layer");
    fixture.name("docker.io/library/a:1", &target);
    thread::sleep(Duration::from_millis(5));
    let before = jiff::Timestamp::now();
    fixture.store.content.want(&layer);
    let images = &fixture.store.images;
    images
        .delete("docker.io/library/a:1", &Expected::Any)
        .unwrap();
    assert!(fixture.store.content.stat(&layer).unwrap().wanted >= before);
    let manifest = fixture.store.content.stat(target.digest()).unwrap();
    assert_eq!(manifest.wanted, jiff::Timestamp::UNIX_EPOCH);
}

/// `df` is what `du` says, within the store's own small files and directories.
#[test]
fn usage_is_what_du_counts() {
    let fixture = Fixture::new();
    let large = "x".repeat(300_000);
    let tar = {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(300_000);
        header.set_mode(0o644);
        tar.append_data(&mut header, "f", large.as_bytes()).unwrap();
        let mut link = tar::Header::new_gnu();
        link.set_entry_type(tar::EntryType::Link);
        link.set_size(0);
        tar.append_link(&mut link, "same", "f").unwrap();
        String::from_utf8(tar.into_inner().unwrap()).unwrap()
    };
    let target = fixture.image(&[&tar]);
    fixture.name("docker.io/library/a:1", &target);
    fixture.put(large.as_bytes());
    fixture
        .store
        .snapshots
        .unpack_image(target.digest(), "")
        .unwrap();
    let usage = fixture.store.maintenance.disk_usage().unwrap();
    let du = |part: &str| {
        let path = fixture.directory.path().join(part);
        let output = std::process::Command::new("du")
            .arg("-sB1")
            .arg(path)
            .output();
        let text = String::from_utf8(output.unwrap().stdout).unwrap();
        text.split_whitespace()
            .next()
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    let near = |ours: u64, du: u64| du >= ours && du - ours <= 64 * 1024;
    assert!(
        near(usage.blob_bytes, du("blobs")),
        "{usage:?} {}",
        du("blobs")
    );
    assert!(
        near(usage.layer_bytes, du("layers")),
        "{usage:?} {}",
        du("layers")
    );
    assert!(usage.reclaimable_bytes >= 300_000 && usage.reclaimable_bytes < 310_000);
    assert_eq!(usage, fixture.store.maintenance.disk_usage().unwrap());
    fixture.put(b"one more");
    let more = fixture.store.maintenance.disk_usage().unwrap();
    assert_eq!(more.blobs, usage.blobs + 1);
}

/// Writers, taggers, untaggers, readers and the collector at once, without any grace: what is named and
/// acknowledged is whole at any moment, and what a lease holds stays.
#[test]
fn r31_no_acknowledged_image_is_ever_incomplete_while_the_collector_runs() {
    let fixture = Fixture::new();
    let (end, last) = (
        Instant::now() + Duration::from_secs(4),
        Instant::now() + Duration::from_secs(60),
    );
    let acknowledged: [Mutex<Option<Descriptor>>; 6] = Default::default();
    let (named, checked, freed) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let counts = || [&named, &checked, &freed].map(|count| count.load(Ordering::Relaxed));
    // A slow machine takes longer to do enough.
    let is_over = || {
        let few = counts().iter().any(|count| *count <= 10);
        Instant::now() > if few { last } else { end }
    };
    thread::scope(|scope| {
        for (writer, slot) in acknowledged.iter().enumerate() {
            let (fixture, named, is_over) = (&fixture, &named, &is_over);
            scope.spawn(move || {
                for turn in 0.. {
                    if is_over() {
                        return;
                    }
                    if rename(fixture, writer, turn, slot) {
                        named.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        scope.spawn(|| {
            while !is_over() {
                for (writer, slot) in acknowledged.iter().enumerate() {
                    checked.fetch_add(check(&fixture, writer, slot), Ordering::Relaxed);
                }
            }
        });
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_over() {
                    let collected = fixture.store.maintenance.collect(false).unwrap();
                    freed.fetch_add(collected.blobs, Ordering::Relaxed);
                }
            });
        }
    });
    let counts = counts();
    assert!(counts.iter().all(|count| *count > 10), "{counts:?}");
    for (writer, slot) in acknowledged.iter().enumerate() {
        check(&fixture, writer, slot);
    }
}

fn name_of(writer: usize) -> String {
    format!("docker.io/library/w{writer}:1")
}

/// Writes an image, names it and sometimes deletes the name; whether there is a name now. All share a
/// layer, and most images existed before. Every second writer does so under a lease. The others may find
/// their blobs gone before they are named, but not after.
fn rename(fixture: &Fixture, writer: usize, turn: u64, slot: &Mutex<Option<Descriptor>>) -> bool {
    let store = &fixture.store;
    let lease = match writer % 2 {
        0 => format!("w{writer}"),
        _ => String::new(),
    };
    if !lease.is_empty() {
        store.leases.put(&lease, None, BTreeMap::new()).unwrap();
    }
    let own = format!("layer {writer} {}", turn % 5);
    let mut write = |bytes: &[u8]| {
        let digest = Digest::try_from(sha256(bytes)).unwrap();
        store
            .leases
            .hold(&lease, Resource::Blob(digest.to_string()))
            .unwrap();
        assert_eq!(store.content.put_bytes(bytes).unwrap(), digest);
        digest.to_string()
    };
    let document = manifest(&["shared", &own], &mut write).to_string();
    let digest = parse_digest(&write(document.as_bytes())).unwrap();
    let target = Descriptor::new(MediaType::ImageManifest, document.len() as u64, digest);
    let name = name_of(writer);
    let mut slot = slot.lock().unwrap();
    match store.images.put(&name, target.clone(), &Expected::Any) {
        Ok(_) => *slot = Some(target),
        Err(StoreError::ChildMissing { .. }) if lease.is_empty() => return false,
        Err(error) => panic!("{error}"),
    }
    if !lease.is_empty() {
        store.leases.delete(&lease).unwrap();
    }
    if turn % 3 == 2 {
        store
            .snapshots
            .unwant(store.images.delete(&name, &Expected::Any).unwrap());
        *slot = None;
        return false;
    }
    true
}

/// Reads every byte of what is named; how many images.
fn check(fixture: &Fixture, writer: usize, slot: &Mutex<Option<Descriptor>>) -> u64 {
    let slot = slot.lock().unwrap();
    let Some(target) = slot.as_ref() else {
        return 0;
    };
    let store = &fixture.store;
    let resolved = store
        .images
        .resolve(&name_of(writer), &Wanted::host())
        .unwrap();
    assert_eq!(resolved.target.digest(), target.digest());
    let document: Value = serde_json::from_slice(&resolved.manifest_json).unwrap();
    for layer in document["layers"].as_array().unwrap() {
        let digest = parse_digest(layer["digest"].as_str().unwrap()).unwrap();
        store.content.read_all(&digest, 1 << 20).unwrap();
    }
    1
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    format!("sha256:{}", hex::encode(sha2::Sha256::digest(bytes)))
}

/// What a client adds to a lease and then finds is there as long as the lease, whatever runs meanwhile.
#[test]
fn r2_what_is_held_and_then_found_stays() {
    let fixture = Fixture::new();
    let end = Instant::now() + Duration::from_secs(3);
    thread::scope(|scope| {
        scope.spawn(|| {
            while Instant::now() < end {
                fixture.store.maintenance.collect(false).unwrap();
            }
        });
        for turn in (0..).take_while(|_| Instant::now() < end) {
            hold_and_find(&fixture, turn);
        }
    });
}

fn hold_and_find(fixture: &Fixture, turn: u64) {
    let target = fixture.image_of_anybody(turn);
    let lease = format!("l{turn}");
    fixture.hold(&lease, target.digest());
    let layer = Digest::try_from(sha256(format!("layer {turn}").as_bytes())).unwrap();
    let all = [target.digest(), &layer];
    if !all.iter().all(|blob| fixture.store.content.exists(blob)) {
        return;
    }
    thread::sleep(Duration::from_millis(10));
    let mut present = all.iter().map(|blob| fixture.store.content.exists(blob));
    assert!(present.all(|here| here), "what was held and found is gone");
}

impl Fixture {
    /// Written without a lease: it may be gone at any moment.
    fn image_of_anybody(&self, turn: u64) -> Descriptor {
        let layer = format!("layer {turn}");
        self.image(&[&layer])
    }
}

/// A collection that runs may have passed another name that holds the same blob and came while it ran:
/// then the wish of that name is all that holds the blob.
#[test]
fn r31_the_end_of_a_name_takes_back_no_wish_of_a_collection_that_runs() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let digest = store.content.put_bytes(b"shared by two names").unwrap();
    let wanted = || store.content.stat(&digest).unwrap().wanted;
    let before = wanted();
    let collecting = store.content.collecting();
    assert!(store.content.want(&digest));
    store.content.unwant(&digest, jiff::Timestamp::now());
    assert!(wanted() >= before, "the wish is still there");
    drop(collecting);
    store.content.unwant(&digest, jiff::Timestamp::now());
    assert_eq!(wanted(), jiff::Timestamp::UNIX_EPOCH);
}
