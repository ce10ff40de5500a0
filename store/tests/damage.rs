//! What is damaged on the disk: blobs, the index, names and leases (`SECURITY` 5.2, rows 9 and 10).
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

#[path = "served/store.rs"]
mod served;

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt as _, symlink};
use std::path::{Path, PathBuf};

use orlop_proto::store as pb;
use orlop_store::Store;
use orlop_store::config::StoreArgs;
use orlop_store::content::digest as parse;
use served::{Served, digest};
use tonic::{Code, Status};

const PAGE: u64 = 4096;

async fn read(served: &Served, request: pb::ReadRequest) -> Result<Vec<u8>, (Vec<u8>, Status)> {
    let mut bytes = Vec::new();
    let answer = served.content().read(request).await;
    let mut stream = answer.map_err(|status| (Vec::new(), status))?.into_inner();
    loop {
        match stream.message().await {
            Ok(Some(message)) => bytes.extend_from_slice(&message.data),
            Ok(None) => return Ok(bytes),
            Err(status) => return Err((bytes, status)),
        }
    }
}

fn whole(digest: &str) -> pb::ReadRequest {
    pb::ReadRequest {
        digest: digest.to_owned(),
        ..pb::ReadRequest::default()
    }
}

async fn missing(served: &Served, digest: &str) -> bool {
    let request = pb::FindMissingRequest {
        digests: vec![digest.to_owned()],
    };
    let answer = served.content().find_missing(request).await.unwrap();
    !answer.into_inner().missing.is_empty()
}

fn blob_path(served: &Served, digest: &str) -> PathBuf {
    served.store.content.path(&parse(digest).unwrap())
}

/// Writes into a blob's file, as a bad disk does: `chmod` and all.
fn overwrite(path: &Path, offset: u64, bytes: &[u8]) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, offset).unwrap();
}

fn flip(path: &Path, offset: u64) {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[!byte[0]], offset).unwrap();
}

fn quarantined(served: &Served) -> Vec<String> {
    let directory = served.state().join("quarantine");
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

type Damage = fn(&Path);

const DAMAGES: [(&str, Damage); 10] = [
    ("first byte", |path| flip(path, 0)),
    ("last byte", |path| {
        flip(path, fs::metadata(path).unwrap().len() - 1);
    }),
    ("a page of zeros", |path| overwrite(path, PAGE, &[0; 4096])),
    ("cut short", |path| {
        File::options()
            .write(true)
            .open(path)
            .unwrap()
            .set_len(PAGE)
            .unwrap();
    }),
    ("empty", |path| fs::write(path, b"").unwrap()),
    ("longer", |path| {
        let size = fs::metadata(path).unwrap().len();
        overwrite(path, size, b"more");
    }),
    ("a directory", |path| {
        fs::remove_file(path).unwrap();
        fs::create_dir(path).unwrap();
        fs::write(path.join("x"), b"x").unwrap();
    }),
    ("a symbolic link", |path| {
        fs::remove_file(path).unwrap();
        symlink("/etc/passwd", path).unwrap();
    }),
    ("a FIFO", |path| {
        fs::remove_file(path).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o644),
            0,
        )
        .unwrap();
    }),
    ("a device", |path| {
        fs::remove_file(path).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            path,
            rustix::fs::FileType::CharacterDevice,
            rustix::fs::Mode::from_raw_mode(0o644),
            rustix::fs::makedev(1, 5),
        )
        .unwrap();
    }),
];

/// Whatever happens to its file, no reader takes a damaged blob for whole; it is put aside, missing,
/// and whole again when it is written again. Others do not notice.
#[tokio::test]
async fn row_9_a_damaged_blob_is_refused_put_aside_and_heals() {
    let served = Served::start().await;
    let bytes: Vec<u8> = (0..300_000_u32).map(|n| (n * 7 % 251) as u8).collect();
    let other = served.blob(b"not damaged").await;
    for (what, damage) in DAMAGES {
        let digest = served.blob_in_pieces(&bytes).await;
        assert_eq!(
            read(&served, whole(&digest)).await.unwrap(),
            bytes,
            "{what}"
        );
        damage(&blob_path(&served, &digest));
        let (got, status) = read(&served, whole(&digest)).await.unwrap_err();
        assert_ne!(got, bytes, "{what}");
        assert_eq!(status.code(), Code::DataLoss, "{what}: {status}");
        assert!(status.message().contains(&digest), "{what}: {status}");
        assert!(missing(&served, &digest).await, "{what}");
        let (_, status) = read(&served, whole(&digest)).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound, "{what}");
    }
    let digest = served.blob_in_pieces(&bytes).await;
    assert_eq!(read(&served, whole(&digest)).await.unwrap(), bytes);
    assert_eq!(quarantined(&served).len(), DAMAGES.len());
    assert_eq!(read(&served, whole(&other)).await.unwrap(), b"not damaged");
}

/// Every way to a blob looks at it first, not only the reading of the whole.
#[tokio::test]
async fn row_9_no_way_to_a_blob_gives_a_wrong_byte() {
    let served = Served::start().await;
    let bytes = vec![42_u8; 100_000];
    for way in [
        "range", "locate", "open", "read_all", "stat", "put", "write",
    ] {
        let digest = match way {
            "range" => served.blob_in_pieces(&bytes).await,
            _ => served.blob(&bytes).await,
        };
        let path = blob_path(&served, &digest);
        flip(&path, 77_777);
        let parsed = parse(&digest).unwrap();
        let content = &served.store.content;
        match way {
            "range" => {
                let request = pb::ReadRequest {
                    length: 10,
                    ..whole(&digest)
                };
                let (got, status) = read(&served, request).await.unwrap_err();
                assert!(got.is_empty());
                assert_eq!(status.code(), Code::DataLoss);
            }
            "locate" => {
                let request = pb::LocateRequest {
                    digest: digest.clone(),
                };
                let error = served.content().locate(request).await.unwrap_err();
                assert_eq!(error.code(), Code::DataLoss);
            }
            "open" => drop(content.open(&parsed).unwrap_err()),
            "read_all" => drop(content.read_all(&parsed, 1 << 20).unwrap_err()),
            // A blob that is damaged and was not read since is healed by whoever brings it again.
            "put" => assert_eq!(served.blob(&bytes).await, digest),
            "write" => assert_eq!(served.blob_in_pieces(&bytes).await, digest),
            _ => drop(content.verify(&parsed).unwrap_err()),
        }
        let healed = way == "put" || way == "write";
        assert_eq!(missing(&served, &digest).await, !healed, "{way}");
        if healed {
            assert_eq!(read(&served, whole(&digest)).await.unwrap(), bytes, "{way}");
        }
    }
}

/// Bits that rot behind the back of the file system leave its times as they are: a check of the whole
/// finds them, and `verify` of a reader.
#[tokio::test]
async fn row_9_a_reader_can_ask_for_the_disk_itself() {
    let served = Served::start().await;
    let digest = served.blob(&vec![1; 10_000]).await;
    let path = blob_path(&served, &digest);
    let times = fs::metadata(&path).unwrap();
    flip(&path, 5000);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    let modified = times.modified().unwrap();
    file.set_times(fs::FileTimes::new().set_modified(modified))
        .unwrap();
    let request = pb::ReadRequest {
        verify: true,
        ..whole(&digest)
    };
    let (_, status) = read(&served, request).await.unwrap_err();
    assert_eq!(status.code(), Code::DataLoss);
    assert!(missing(&served, &digest).await);
}

/// An empty blob has no last byte to withhold.
#[tokio::test]
async fn row_9_an_empty_file_is_only_the_empty_blob() {
    let served = Served::start().await;
    let empty = served.blob(b"").await;
    assert_eq!(read(&served, whole(&empty)).await.unwrap(), b"");
    let digest = served.blob(b"some").await;
    fs::write(blob_path(&served, &digest), b"").unwrap();
    let (_, status) = read(&served, whole(&digest)).await.unwrap_err();
    assert_eq!(status.code(), Code::DataLoss);
}

// The index.

fn open(state: &Path) -> Store {
    let args = StoreArgs {
        disk_reserve_mib: 1,
        ..StoreArgs::default()
    };
    Store::open_with(state, args).unwrap()
}

/// Everything that the API says of names.
fn answers(store: &Store) -> String {
    let all = store.images.list("", "", 0).unwrap();
    let page = store.images.list("docker.io/library/b", "", 7).unwrap();
    let one = store.images.get("docker.io/library/a:3").unwrap();
    format!("{all:?}\n{page:?}\n{one:?}\n{}", store.images.count())
}

/// A state directory with names in it, closed in order, and what it answers.
fn named(names: usize) -> (tempfile::TempDir, PathBuf, String) {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("store");
    let store = open(&state);
    let targets: Vec<_> = (0..5)
        .map(|n| {
            let layer = format!("layer {n}");
            let put = |bytes: &[u8]| store.content.put_bytes(bytes).unwrap().to_string();
            let layer_digest = put(layer.as_bytes());
            let config = served::config(&[&layer_digest]);
            let json = served::manifest(
                &put(config.as_bytes()),
                config.len(),
                &[(&layer_digest, layer.len())],
            );
            put(json.as_bytes());
            oci_spec::image::Descriptor::new(
                served::MANIFEST.into(),
                json.len() as u64,
                parse(&digest(json.as_bytes())).unwrap(),
            )
        })
        .collect();
    for n in 0..names {
        let name = format!("docker.io/library/{}:{n}", ["a", "b", "c"][n % 3]);
        let target = targets[n % 5].clone();
        store
            .images
            .put(&name, target, &orlop_store::images::Expected::Any)
            .unwrap();
    }
    let before = answers(&store);
    drop(store);
    (directory, state, before)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files
}

/// Runs a damage on a copy of the index, and compares the answers.
fn survives(state: &Path, saved: &Path, before: &str, what: &str, damage: impl FnOnce(&Path)) {
    let index = state.join("index");
    for path in [&index, &state.join("index.old")] {
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap();
        } else if path.exists() {
            fs::remove_file(path).unwrap();
        }
    }
    copy(saved, &index);
    damage(&index);
    let store = open(state);
    assert!(answers(&store) == before, "{what}");
    // Changes are taken, and an index that seemed whole does not lose them either.
    let target = store.images.get("docker.io/library/a:3").unwrap().target;
    let expected = orlop_store::images::Expected::Any;
    store.images.put("new", target, &expected).unwrap();
    store
        .images
        .delete("docker.io/library/new:latest", &expected)
        .unwrap();
    assert!(answers(&store) == before, "{what}, after a change");
}

#[test]
fn row_10_an_index_that_is_gone_or_something_else_loses_nothing() {
    let (directory, state, before) = named(300);
    let saved = directory.path().join("saved");
    copy(&state.join("index"), &saved);
    let cases: [(&str, Damage); 8] = [
        ("untouched", |_| {}),
        ("gone", |index| fs::remove_dir_all(index).unwrap()),
        ("a file", |index| {
            fs::remove_dir_all(index).unwrap();
            fs::write(index, b"x").unwrap();
        }),
        ("an empty directory", |index| {
            fs::remove_dir_all(index).unwrap();
            fs::create_dir(index).unwrap();
        }),
        ("`db` is a directory", |index| {
            fs::remove_file(index.join("db")).unwrap();
            fs::create_dir(index.join("db")).unwrap();
        }),
        ("`conf` is gone", |index| {
            fs::remove_file(index.join("conf")).unwrap();
        }),
        ("empty snapshot files", |index| {
            for file in files_below(index) {
                if file
                    .file_name()
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .starts_with("snap")
                {
                    fs::write(file, b"").unwrap();
                }
            }
        }),
        ("no snapshot files", |index| {
            for file in files_below(index) {
                if file
                    .file_name()
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .starts_with("snap")
                {
                    fs::remove_file(file).unwrap();
                }
            }
        }),
    ];
    for (what, damage) in cases {
        survives(&state, &saved, &before, what, damage);
    }
}

#[test]
fn row_10_a_flip_in_any_page_of_the_index_loses_nothing() {
    let (directory, state, before) = named(300);
    let saved = directory.path().join("saved");
    copy(&state.join("index"), &saved);
    let mut flips = 0;
    for file in files_below(&saved) {
        let relative = file.strip_prefix(&saved).unwrap();
        let size = fs::metadata(&file).unwrap().len();
        for page in 0..size.div_ceil(PAGE) {
            // Somewhere else in each page, so that heads, keys and values are all met.
            let offset = (page * PAGE + page * 997 % PAGE).min(size - 1);
            let what = format!("{} at {offset}", relative.display());
            survives(&state, &saved, &before, &what, |index| {
                flip(&index.join(relative), offset);
            });
            flips += 1;
        }
    }
    assert!(flips > 20, "{flips} pages");
}

#[test]
fn row_10_an_index_cut_at_any_page_loses_nothing() {
    let (directory, state, before) = named(300);
    let saved = directory.path().join("saved");
    copy(&state.join("index"), &saved);
    for file in files_below(&saved) {
        let relative = file.strip_prefix(&saved).unwrap();
        let size = fs::metadata(&file).unwrap().len();
        for page in 0..size.div_ceil(PAGE) {
            let what = format!("{} cut to {} pages", relative.display(), page);
            survives(&state, &saved, &before, &what, |index| {
                let file = OpenOptions::new().write(true).open(index.join(relative));
                file.unwrap().set_len(page * PAGE).unwrap();
            });
        }
    }
}

/// An older index of the same store is whole, and wrong.
#[test]
fn row_10_a_stale_index_is_not_believed() {
    let (directory, state, _) = named(300);
    let saved = directory.path().join("saved");
    copy(&state.join("index"), &saved);
    let store = open(&state);
    let any = orlop_store::images::Expected::Any;
    let other = store.images.get("docker.io/library/b:1").unwrap().target;
    store
        .images
        .put("docker.io/library/a:3", other, &any)
        .unwrap();
    store.images.delete("docker.io/library/a:0", &any).unwrap();
    let before = answers(&store);
    drop(store);
    survives(&state, &saved, &before, "stale", |_| {});
}

// Names and leases.

/// A damaged name or lease does not stop the start; and because nobody knows what it held, nothing is
/// collected until a person was told.
#[tokio::test]
async fn row_10_a_damaged_name_or_lease_stops_the_collector_and_nothing_else() {
    for part in ["images", "leases"] {
        let served = Served::start().await;
        served.named("docker.io/library/a:1", b"one").await;
        served.named("docker.io/library/a:2", b"two").await;
        let lease = pb::PutLeaseRequest {
            id: "l".to_owned(),
            ..pb::PutLeaseRequest::default()
        };
        served.leases().put(lease).await.unwrap();
        let directory = served.state().join(part);
        let file = fs::read_dir(&directory).unwrap().next().unwrap().unwrap();
        fs::write(file.path(), b"\xff garbage \0").unwrap();

        let served = served.after_a_kill().await;
        let blobs = served.store.content.list().unwrap().len();
        assert_eq!(quarantined(&served).len(), 1, "{part}");
        assert_eq!(
            served.store.images.count(),
            if part == "images" { 1 } else { 2 }
        );
        for _ in 0..2 {
            served.store.maintenance.collect(false).unwrap();
        }
        assert_eq!(served.store.content.list().unwrap().len(), blobs, "{part}");
        let serving = served.blob(b"still works").await;
        assert_eq!(serving, digest(b"still works"));
    }
}
