//! `Maintenance.Check`: every kind of finding is made, found, repaired as it is documented, and nothing
//! else is touched.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

#[path = "served/store.rs"]
mod served;

use std::collections::BTreeMap;
use std::fs::{self, File, FileTimes, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use orlop_proto::store as pb;
use orlop_store::check::{Finding, Kind, Options};
use orlop_store::content::digest as parse;
use orlop_store::images::Expected;
use orlop_store::index::Table;
use orlop_store::leases::Resource;
use orlop_store::snapshots::lifecycle::Wanted;
use served::{Served, digest};

const DAY: Duration = Duration::from_secs(25 * 60 * 60);
const NAME: &str = "docker.io/library/a:1";

const LOOK: Options = Options {
    repair: false,
    rehash: false,
};
const REHASH: Options = Options {
    repair: false,
    rehash: true,
};
const REPAIR: Options = Options {
    repair: true,
    rehash: false,
};

fn check(served: &Served, options: Options) -> Vec<Finding> {
    let mut findings = Vec::new();
    let collect = &mut |finding| {
        findings.push(finding);
        Ok(())
    };
    served.store.check.run(options, collect).unwrap();
    findings
}

/// The one finding of a run.
fn one(served: &Served, options: Options) -> Finding {
    let findings = check(served, options);
    assert_eq!(findings.len(), 1, "{findings:#?}");
    findings.into_iter().next().unwrap()
}

/// Looks, then repairs, then looks again: it is found twice and gone.
fn found_and_repaired(served: &Served, kind: Kind, subject: &str) {
    let before = tree(&served.state());
    let seen = one(served, LOOK);
    assert_eq!((seen.kind, seen.subject.as_str()), (kind, subject));
    assert!(!seen.repaired);
    assert_eq!(tree(&served.state()), before, "a look changes nothing");
    let mended = one(served, REPAIR);
    assert!(mended.repaired, "{mended:?}");
    assert_eq!(check(served, LOOK), []);
}

/// Looks and repairs: it stays, and nothing is changed.
fn found_and_left(served: &Served, kind: Kind, subject: &str) {
    let before = tree(&served.state());
    for options in [LOOK, REPAIR] {
        let found = one(served, options);
        assert_eq!((found.kind, found.subject.as_str()), (kind, subject));
        assert!(!found.repaired, "{found:?}");
        assert_eq!(tree(&served.state()), before);
    }
}

/// Every file below the state directory with the digest of its bytes, without the index and the trash.
fn tree(state: &Path) -> BTreeMap<PathBuf, Option<String>> {
    let mut found = BTreeMap::new();
    let mut directories = vec![state.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.ends_with("store/index") || path.ends_with("store/trash") {
                continue;
            }
            let directory = fs::symlink_metadata(&path).unwrap().is_dir();
            let bytes = (!directory).then(|| digest(&fs::read(&path).unwrap_or_default()));
            if directory {
                directories.push(path.clone());
            }
            found.insert(path, bytes);
        }
    }
    found
}

fn make_old(path: &Path) {
    let times = FileTimes::new().set_modified(SystemTime::now() - DAY);
    File::open(path).unwrap().set_times(times).unwrap();
}

fn layer() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(5);
    header.set_mode(0o644);
    builder
        .append_data(&mut header, "hello", &b"hello"[..])
        .unwrap();
    builder.into_inner().unwrap()
}

/// A store with an image, unpacked, a lease and an active snapshot; all of it well.
async fn healthy() -> Served {
    let served = Served::start().await;
    let target = served.named(NAME, &layer()).await;
    let snapshots = &served.store.snapshots;
    let manifest = parse(&target.digest).unwrap();
    let parent = snapshots.unpack_image(&manifest, "").unwrap().name;
    let wanted = |key: &str| Wanted {
        key: key.to_owned(),
        parent: parent.clone(),
        ..Wanted::default()
    };
    snapshots.prepare(wanted("box")).unwrap();
    let leases = &served.store.leases;
    leases.put("l", None, [].into()).unwrap();
    let resource = Resource::Blob(target.digest.clone());
    leases.add("l", [resource]).unwrap();
    served
}

fn blob(served: &Served, bytes: &[u8]) -> PathBuf {
    served.store.content.path(&parse(&digest(bytes)).unwrap())
}

fn name_file(served: &Served) -> PathBuf {
    let entries = fs::read_dir(served.state().join("images")).unwrap();
    entries.map(|entry| entry.unwrap().path()).next().unwrap()
}

#[tokio::test]
async fn a_store_that_is_well_has_no_findings() {
    let served = healthy().await;
    let before = tree(&served.state());
    for repair in [false, true] {
        for rehash in [false, true] {
            assert_eq!(check(&served, Options { repair, rehash }), []);
        }
    }
    assert_eq!(tree(&served.state()), before);
}

#[tokio::test]
async fn damaged_blobs_are_put_aside_by_rehash_and_what_lost_them_is_told() {
    let served = healthy().await;
    let path = blob(&served, &layer());
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(b"X", 600).unwrap();
    assert_eq!(check(&served, LOOK), [], "only reading it tells");
    let findings = check(&served, REHASH);
    let kinds: Vec<_> = findings.iter().map(|f| (f.kind, f.repaired)).collect();
    assert_eq!(
        kinds,
        [(Kind::DamagedBlob, true), (Kind::DanglingName, false)]
    );
    assert_eq!(findings[0].subject, digest(&layer()));
    assert!(!path.exists());
    found_and_left(&served, Kind::DanglingName, NAME);
    served.blob(&layer()).await;
    assert_eq!(check(&served, REHASH), [], "written again, it is whole");
}

#[tokio::test]
async fn what_is_no_regular_file_is_no_blob() {
    let served = healthy().await;
    let stray = digest(b"stray");
    let path = blob(&served, b"stray");
    fs::create_dir(&path).unwrap();
    found_and_repaired(&served, Kind::DamagedBlob, &stray);
    assert!(
        served
            .state()
            .join("quarantine")
            .read_dir()
            .unwrap()
            .count()
            == 1
    );
}

#[tokio::test]
async fn foreign_files_are_put_aside() {
    let served = healthy().await;
    for place in ["blobs/x", "blobs/sha256/core", "ingest/not an id"] {
        fs::write(served.state().join(place), b"mine").unwrap();
        found_and_repaired(&served, Kind::ForeignFile, place);
    }
    let aside = served.state().join("quarantine/foreign-core");
    assert_eq!(fs::read(aside).unwrap(), b"mine");
}

#[tokio::test]
async fn a_blob_of_another_size_than_its_descriptor_says_is_told() {
    let served = healthy().await;
    let path = blob(&served, &layer());
    OpenOptions::new()
        .write(true)
        .open(path)
        .unwrap()
        .set_len(512)
        .unwrap();
    found_and_left(&served, Kind::WrongSize, NAME);
}

#[tokio::test]
async fn a_damaged_name_is_written_again_from_what_the_index_knows() {
    let served = healthy().await;
    let before = served.store.images.get(NAME).unwrap();
    for damage in [
        |path: &Path| fs::write(path, b"garbage").unwrap(),
        |path: &Path| fs::remove_file(path).unwrap(),
        |path: &Path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        },
    ] {
        damage(&name_file(&served));
        found_and_repaired(&served, Kind::DamagedName, NAME);
        let after = served.store.images.get(NAME).unwrap();
        assert_eq!(after.target, before.target);
        assert!(name_file(&served).is_file());
    }
}

#[tokio::test]
async fn a_damaged_name_that_nothing_remembers_is_put_aside() {
    let served = healthy().await;
    fs::write(name_file(&served), b"garbage").unwrap();
    served.store.index.remove(Table::Names, NAME);
    found_and_repaired(&served, Kind::DamagedName, NAME);
    assert_eq!(served.store.images.count(), 0);
    let seen = served.state().join("quarantine/seen");
    assert_eq!(seen.read_dir().unwrap().count(), 1);
}

#[tokio::test]
async fn what_was_put_aside_at_the_start_holds_up_the_collector_until_it_is_told() {
    let served = healthy().await;
    fs::write(served.state().join("leases/l"), b"garbage").unwrap();
    served.store.leases.delete("other").unwrap();
    let images = &served.store.images;
    images.delete(NAME, &Expected::Any).unwrap();
    let served = served.after_a_kill().await;
    let blobs = || served.store.content.list().unwrap().len();
    let before = blobs();
    served.store.maintenance.collect(false).unwrap();
    assert_eq!(blobs(), before);
    found_and_repaired(&served, Kind::DamagedLease, "quarantine/lease-l");
    served.store.maintenance.collect(false).unwrap();
    assert_eq!(blobs(), 0);
}

#[tokio::test]
async fn a_damaged_lease_is_written_again_from_what_the_store_knows() {
    let served = healthy().await;
    let path = served.state().join("leases/l");
    let before = fs::read(&path).unwrap();
    fs::write(&path, b"garbage").unwrap();
    found_and_repaired(&served, Kind::DamagedLease, "l");
    assert_eq!(fs::read(&path).unwrap(), before);
    fs::write(served.state().join("leases/unknown"), b"garbage").unwrap();
    found_and_repaired(&served, Kind::DamagedLease, "unknown");
    assert!(
        served
            .state()
            .join("quarantine/seen/lease-unknown")
            .exists()
    );
}

#[tokio::test]
async fn a_hold_on_nothing_is_released_when_it_is_old() {
    let served = healthy().await;
    let leases = &served.store.leases;
    let before = leases.resources("l").unwrap();
    leases
        .add("l", [Resource::Blob(digest(b"never came"))])
        .unwrap();
    assert_eq!(check(&served, LOOK), [], "it may be about to come");
    make_old(&served.state().join("leases/l"));
    found_and_repaired(&served, Kind::DanglingLease, "l");
    assert_eq!(leases.resources("l").unwrap(), before);
}

#[tokio::test]
async fn half_made_snapshots_go_or_are_put_aside() {
    let served = healthy().await;
    let snapshots = served.state().join("snapshots");
    for name in [".tmp-00", "stranger"] {
        let place = snapshots.join(name);
        fs::create_dir_all(place.join("upper")).unwrap();
        assert_eq!(check(&served, REPAIR), [], "it may be in the making");
        make_old(&place);
        found_and_repaired(&served, Kind::HalfMadeSnapshot, name);
    }
    let aside = served.state().join("quarantine/snapshot-stranger/upper");
    assert!(aside.is_dir());
}

#[tokio::test]
async fn a_damaged_description_is_written_again() {
    let served = healthy().await;
    let meta = served.state().join("snapshots/box/meta.json");
    let before = fs::read(&meta).unwrap();
    fs::write(&meta, b"garbage").unwrap();
    found_and_repaired(&served, Kind::HalfMadeSnapshot, "box");
    assert_eq!(fs::read(&meta).unwrap(), before);
}

/// What was written in a container is not thrown away because a byte beside it is wrong.
#[tokio::test]
async fn a_snapshot_with_a_damaged_description_survives_a_start_in_quarantine() {
    let served = healthy().await;
    let place = served.state().join("snapshots/box");
    fs::write(place.join("upper/work"), b"of a week").unwrap();
    fs::write(place.join("meta.json"), b"garbage").unwrap();
    let served = served.after_a_kill().await;
    let kept = served.state().join("quarantine/snapshot-box/upper/work");
    assert_eq!(fs::read(kept).unwrap(), b"of a week");
    assert_eq!(check(&served, LOOK), []);
}

#[tokio::test]
async fn a_snapshot_without_its_directories_is_told() {
    let served = healthy().await;
    fs::remove_dir_all(served.state().join("snapshots/box/work")).unwrap();
    found_and_left(&served, Kind::HalfMadeSnapshot, "box");
    let served = served.after_a_kill().await;
    assert_eq!(check(&served, LOOK), [], "a start makes what it can make");
}

fn only_layer(served: &Served) -> PathBuf {
    let entries = fs::read_dir(served.state().join("layers")).unwrap();
    entries.map(|entry| entry.unwrap().path()).next().unwrap()
}

#[tokio::test]
async fn a_missing_layer_is_told() {
    let served = healthy().await;
    let parent = served.store.snapshots.stat("box").unwrap().parent.unwrap();
    fs::remove_dir_all(only_layer(&served).join("fs")).unwrap();
    found_and_left(&served, Kind::MissingLayer, &parent);
}

/// At the next start the snapshot of a lost layer is dropped, and what is built on it is told.
#[tokio::test]
async fn a_missing_parent_is_told() {
    let served = healthy().await;
    fs::remove_dir_all(only_layer(&served)).unwrap();
    let served = served.after_a_kill().await;
    found_and_left(&served, Kind::MissingParent, "box");
}

#[tokio::test]
async fn a_damaged_layer_is_found_by_its_description_or_its_size() {
    let served = healthy().await;
    let layer = only_layer(&served);
    let id = layer.file_name().unwrap().to_str().unwrap().to_owned();
    let before = fs::read(layer.join("meta.json")).unwrap();
    fs::write(layer.join("meta.json"), b"garbage").unwrap();
    found_and_repaired(&served, Kind::DamagedLayer, &id);
    assert_eq!(fs::read(layer.join("meta.json")).unwrap(), before);
    fs::write(layer.join("fs/hello"), b"more than hello").unwrap();
    let found = one(&served, REHASH);
    assert_eq!((found.kind, found.subject), (Kind::DamagedLayer, id));
    assert!(!found.repaired);
}

#[tokio::test]
async fn a_layer_of_no_snapshot_goes() {
    let served = healthy().await;
    let snapshots = &served.store.snapshots;
    let parent = snapshots.stat("box").unwrap().parent.unwrap();
    snapshots.remove("box").unwrap();
    let layer = only_layer(&served);
    let id = layer.file_name().unwrap().to_str().unwrap().to_owned();
    let meta = served
        .state()
        .join("snapshots")
        .join(parent.replace(':', "%3A"));
    let kept = served.directory.path().join("kept");
    fs::rename(&meta, kept).unwrap();
    let served = served.after_a_kill().await;
    let layer = served.state().join("layers").join(&id);
    assert_eq!(check(&served, REPAIR), [], "it may have just arrived");
    make_old(&layer);
    found_and_repaired(&served, Kind::OrphanLayer, &id);
    assert!(!layer.exists());
}

#[tokio::test]
async fn a_directory_that_is_no_layer_is_put_aside() {
    let served = healthy().await;
    let place = served.state().join("layers/stranger");
    fs::create_dir(&place).unwrap();
    make_old(&place);
    found_and_repaired(&served, Kind::OrphanLayer, "stranger");
    assert!(served.state().join("quarantine/layer-stranger").is_dir());
}

#[tokio::test]
async fn an_upload_that_nobody_goes_on_with_is_discarded_after_a_day() {
    let served = healthy().await;
    let content = &served.store.content;
    for id in ["abandoned", "busy"] {
        let mut writer = content.ingest(id, 0, false).unwrap();
        writer.write(b"some").unwrap();
        writer.suspend().unwrap();
    }
    assert_eq!(check(&served, REPAIR), []);
    let busy = content.ingest("busy", 4, false).unwrap();
    for id in ["abandoned", "busy"] {
        make_old(&served.state().join("ingest").join(id).join("data"));
    }
    let found = check(&served, REPAIR);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.iter().all(|f| f.kind == Kind::OrphanIngest));
    assert!(
        found
            .iter()
            .all(|f| f.repaired == (f.subject == "abandoned"))
    );
    busy.suspend().unwrap();
    assert_eq!(content.list_ingests().unwrap().len(), 1);
}

/// Taken off at the end of a test, whatever its outcome.
struct Mounted(PathBuf);

impl Mounted {
    fn new(at: PathBuf) -> Self {
        fs::create_dir_all(&at).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("orlop-test", &at, "tmpfs", flags, None).unwrap();
        Self(at)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH).ok();
    }
}

#[tokio::test]
async fn a_mount_that_no_layer_explains_is_taken_off_where_only_the_store_mounts() {
    let served = healthy().await;
    let explained = Mounted::new(only_layer(&served).join("m"));
    assert_eq!(check(&served, REPAIR), []);
    drop(explained);
    let mounted = Mounted::new(served.state().join("layers/.tmp-white space"));
    found_and_repaired(&served, Kind::StaleMount, "layers/.tmp-white space");
    drop(mounted);
    let foreign = Mounted::new(served.state().join("tmp/mine"));
    found_and_left(&served, Kind::StaleMount, "tmp/mine");
    drop(foreign);
}

#[tokio::test]
async fn an_index_that_says_something_else_is_made_to_say_what_files_do() {
    let served = healthy().await;
    let before = served.store.images.list("", "", 0).unwrap();
    let index = &served.store.index;
    index.put(Table::Names, NAME, &"not the facts of a list");
    found_and_repaired(&served, Kind::Index, NAME);
    index.put(Table::Names, "docker.io/library/ghost:1", &before[0]);
    assert_eq!(served.store.images.list("", "", 0).unwrap(), before);
    found_and_repaired(&served, Kind::Index, "docker.io/library/ghost:1");
    assert_eq!(served.store.images.list("", "", 0).unwrap(), before);
}

/// Through the socket, with the words of the contract; the check runs while others work.
#[tokio::test]
async fn the_rpc_tells_of_findings_in_the_words_of_the_contract() {
    let served = healthy().await;
    fs::write(served.state().join("blobs/x"), b"x").unwrap();
    for (repair, repaired) in [(false, false), (true, true)] {
        let request = pb::CheckRequest {
            repair,
            rehash: true,
        };
        let answer = served.maintenance().check(request).await.unwrap();
        let mut stream = answer.into_inner();
        let found = stream.message().await.unwrap().unwrap();
        assert_eq!(found.kind, "foreign-file");
        assert_eq!(found.subject, "blobs/x");
        assert_eq!(found.repaired, repaired);
        assert!(stream.message().await.unwrap().is_none());
    }
}

/// Nothing that others do meanwhile looks like damage.
#[tokio::test(flavor = "multi_thread")]
async fn a_check_of_a_busy_store_finds_nothing() {
    let served = healthy().await;
    let store = served.store.clone();
    let target = store.images.get(NAME).unwrap().target;
    let until = std::time::Instant::now() + Duration::from_secs(2);
    let workers: Vec<_> = (0..3)
        .map(|worker| {
            let (store, target) = (store.clone(), target.clone());
            std::thread::spawn(move || {
                let parent = store.snapshots.stat("box").unwrap().parent.unwrap();
                for n in 0.. {
                    let key = format!("w{worker}-{n}");
                    let name = format!("docker.io/library/w{worker}:latest");
                    store
                        .images
                        .put(&name, target.clone(), &Expected::Any)
                        .unwrap();
                    let wanted = |key: &str, parent: &str| Wanted {
                        key: key.to_owned(),
                        parent: parent.to_owned(),
                        ..Wanted::default()
                    };
                    store.snapshots.prepare(wanted(&key, &parent)).unwrap();
                    let done = format!("{key}-done");
                    store.snapshots.commit(&key, wanted(&done, "")).unwrap();
                    store.snapshots.remove(&done).unwrap();
                    store.leases.put(&key, None, [].into()).unwrap();
                    store.leases.delete(&key).unwrap();
                    store.content.put_bytes(key.as_bytes()).unwrap();
                    store.images.delete(&name, &Expected::Any).unwrap();
                    if std::time::Instant::now() > until {
                        break;
                    }
                }
            })
        })
        .collect();
    while std::time::Instant::now() < until {
        let all = Options {
            repair: true,
            rehash: true,
        };
        assert_eq!(check(&served, all), []);
    }
    for worker in workers {
        worker.join().unwrap();
    }
}
