//! A disk that is full, has no inodes, is read-only or fails (`SECURITY` 5.2, rows 11, 12 and 13): what
//! was acknowledged stays and is read, what cannot be written is refused with the reason, and work goes
//! on without a restart when the disk is well again.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

#[path = "support/disk.rs"]
mod disk;
#[path = "served/store.rs"]
mod served;

use std::fs;

use disk::Disk;
use orlop_proto::store as pb;
use orlop_proto::store::snapshots_client::SnapshotsClient;
use orlop_store::Store;
use orlop_store::config::StoreArgs;
use served::{Served, digest};
use tonic::{Code, Status};

const NAME: &str = "docker.io/library/a:1";

/// A store on a disk of its own.
async fn on(disk: &Disk) -> Served {
    let directory = tempfile::tempdir().unwrap();
    Served::at(directory, &disk.root().join("store")).await
}

async fn read(served: &Served, digest: &str) -> Result<Vec<u8>, Status> {
    let request = pb::ReadRequest {
        digest: digest.to_owned(),
        ..pb::ReadRequest::default()
    };
    let mut stream = served.content().read(request).await?.into_inner();
    let mut bytes = Vec::new();
    while let Some(message) = stream.message().await? {
        bytes.extend_from_slice(&message.data);
    }
    Ok(bytes)
}

async fn put(served: &Served, bytes: &[u8]) -> Result<(), Status> {
    let request = pb::PutManyRequest {
        digest: digest(bytes),
        data: bytes.to_vec().into(),
        lease: String::new(),
    };
    let requests = tokio_stream::iter([request]);
    served.content().put_many(requests).await.map(drop)
}

async fn write(served: &Served, id: &str, bytes: &[u8]) -> Result<(), Status> {
    use pb::write_request::Message;
    let open = pb::OpenIngest {
        ingest_id: id.to_owned(),
        ..pb::OpenIngest::default()
    };
    let commit = pb::CommitIngest {
        digest: digest(bytes),
        size: i64::try_from(bytes.len()).unwrap(),
    };
    let data = bytes
        .chunks(orlop_wire::CHUNK_BYTES)
        .map(|piece| Message::Data(piece.to_vec().into()));
    let messages: Vec<_> = std::iter::once(Message::Open(open))
        .chain(data)
        .chain([Message::Commit(commit)])
        .map(|message| pb::WriteRequest {
            message: Some(message),
        })
        .collect();
    let requests = tokio_stream::iter(messages);
    served.content().write(requests).await.map(drop)
}

/// One of each rpc that writes, and what it answered.
async fn all_writes(served: &Served, bytes: &[u8]) -> Vec<(&'static str, Result<(), Status>)> {
    let mut snapshots = SnapshotsClient::new(served.channel.clone());
    let prepare = pb::PrepareRequest {
        key: "refused".to_owned(),
        ..pb::PrepareRequest::default()
    };
    let lease = |id: &str| pb::PutLeaseRequest {
        id: id.to_owned(),
        labels: [("of".to_owned(), "x".repeat(8000))].into(),
        ..pb::PutLeaseRequest::default()
    };
    let add = pb::AddResourcesRequest {
        lease: "l".to_owned(),
        resources: (0..200).map(|n| blob(&digest(&[n]))).collect(),
    };
    let target = served.store.images.get(NAME).unwrap().target;
    let image = served::put(
        "docker.io/library/refused:1",
        &orlop_proto::types::Descriptor {
            media_type: target.media_type().to_string(),
            digest: target.digest().to_string(),
            size: i64::try_from(target.size()).unwrap(),
            ..Default::default()
        },
    );
    vec![
        ("PutMany", put(served, bytes).await),
        ("Write", write(served, "refused", bytes).await),
        ("Prepare", snapshots.prepare(prepare).await.map(drop)),
        ("Put", served.leases().put(lease("refused")).await.map(drop)),
        ("Add", served.leases().add(add).await.map(drop)),
        ("Images.Put", served.images().put(image).await.map(drop)),
    ]
}

fn blob(digest: &str) -> pb::Resource {
    pb::Resource {
        resource: Some(pb::resource::Resource::Blob(digest.to_owned())),
    }
}

/// What was acknowledged before the trouble, and must be answered during and after it.
struct Kept {
    blob: String,
    bytes: Vec<u8>,
    target: String,
}

impl Kept {
    async fn in_store(served: &Served) -> Self {
        let bytes = vec![9; 500_000];
        let blob = served.blob(&bytes).await;
        let target = served.named(NAME, b"layer").await.digest;
        let lease = pb::PutLeaseRequest {
            id: "l".to_owned(),
            ..pb::PutLeaseRequest::default()
        };
        served.leases().put(lease).await.unwrap();
        let add = pb::AddResourcesRequest {
            lease: "l".to_owned(),
            resources: vec![self::blob(&blob)],
        };
        served.leases().add(add).await.unwrap();
        Self {
            blob,
            bytes,
            target,
        }
    }

    /// Names and leases are in memory and in the page cache; bytes of blobs may need the disk.
    async fn is_there(&self, served: &Served) {
        let request = pb::GetImageRequest {
            name: NAME.to_owned(),
        };
        let image = served.images().get(request).await.unwrap().into_inner();
        assert_eq!(image.target.unwrap().digest, self.target);
        assert_eq!(read(served, &self.blob).await.unwrap(), self.bytes);
        let held = served.store.leases.resources("l").unwrap();
        assert!(format!("{held:?}").contains(&self.blob));
    }

    /// The same, told by files alone: as the next process finds them.
    fn is_on_disk(&self, disk: &Disk) {
        let (_directory, store) = next_process(disk);
        let target = store.images.get(NAME).unwrap().target;
        assert_eq!(target.digest().to_string(), self.target);
        let blob = orlop_store::content::digest(&self.blob).unwrap();
        assert_eq!(store.content.read_all(&blob, 1 << 20).unwrap(), self.bytes);
        let held = store.leases.resources("l").unwrap();
        assert!(format!("{held:?}").contains(&self.blob));
        let mut findings = Vec::new();
        let collect = &mut |finding| {
            findings.push(finding);
            Ok(())
        };
        let options = orlop_store::check::Options {
            repair: false,
            rehash: true,
        };
        store.check.run(options, collect).unwrap();
        assert_eq!(findings, []);
    }
}

/// What a new process makes of the files of this moment.
fn next_process(disk: &Disk) -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .arg(disk.root().join("store"))
        .arg(directory.path())
        .status();
    assert!(copied.unwrap().success());
    let args = StoreArgs {
        disk_reserve_mib: 1,
        ..StoreArgs::default()
    };
    let store = Store::open_with(&directory.path().join("store"), args).unwrap();
    (directory, store)
}

/// Every write works again, without a restart.
async fn works(served: &Served) {
    put(served, b"works again").await.unwrap();
    write(served, "again", &vec![1; 300_000]).await.unwrap();
    let target = served.named("docker.io/library/again:1", b"again").await;
    assert!(!target.digest.is_empty());
    let lease = pb::PutLeaseRequest {
        id: "again".to_owned(),
        ..pb::PutLeaseRequest::default()
    };
    served.leases().put(lease).await.unwrap();
    let mut snapshots = SnapshotsClient::new(served.channel.clone());
    let prepare = pb::PrepareRequest {
        key: "again".to_owned(),
        ..pb::PrepareRequest::default()
    };
    snapshots.prepare(prepare).await.unwrap();
}

/// The text and the hints of an error.
fn said(status: &Status) -> String {
    let failure = orlop_proto::error::Failure::from(status.clone());
    format!("{} {:?}", failure.message, failure.hints)
}

/// The reserve keeps bytes for names and leases, after blobs are refused already.
#[tokio::test]
async fn row_11_below_the_reserve_blobs_are_refused_and_names_are_not() {
    let disk = Disk::new(32, &[]);
    let served = on(&disk).await;
    let kept = Kept::in_store(&served).await;
    let ballast = disk.fill(900_000);
    for refused in [
        put(&served, b"more").await,
        write(&served, "w", b"more").await,
    ] {
        let status = refused.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        assert!(said(&status).contains("bytes"), "{}", said(&status));
    }
    kept.is_there(&served).await;
    let lease = pb::PutLeaseRequest {
        id: "from-the-reserve".to_owned(),
        ..pb::PutLeaseRequest::default()
    };
    served.leases().put(lease).await.unwrap();
    fs::remove_file(ballast).unwrap();
    works(&served).await;
    kept.is_there(&served).await;
}

/// No byte is left: each write says so, or needed none.
#[tokio::test]
async fn row_11_a_full_disk_refuses_writes_and_loses_nothing() {
    let disk = Disk::new(32, &[]);
    let served = on(&disk).await;
    let kept = Kept::in_store(&served).await;
    let ballast = disk.fill(0);
    let mut refused = 0;
    for _ in 0..3 {
        for (rpc, answer) in all_writes(&served, &vec![3; 200_000]).await {
            if let Err(status) = answer {
                let known = [Code::ResourceExhausted, Code::AlreadyExists].contains(&status.code());
                assert!(known, "{rpc}: {status}");
                assert!(
                    status.code() != Code::ResourceExhausted || said(&status).contains("bytes")
                );
                refused += 1;
            }
        }
    }
    assert!(refused >= 6, "{refused}");
    kept.is_there(&served).await;
    fs::remove_file(ballast).unwrap();
    works(&served).await;
    kept.is_there(&served).await;
    kept.is_on_disk(&disk);
}

/// A write that the disk refuses in the middle leaves an upload to go on with, and no blob.
#[tokio::test]
async fn row_11_an_upload_that_does_not_fit_can_be_gone_on_with() {
    let disk = Disk::new(32, &[]);
    let served = on(&disk).await;
    let kept = Kept::in_store(&served).await;
    let bytes: Vec<u8> = (0..6_000_000_u32).map(|n| (n % 251) as u8).collect();
    let ballast = disk.fill(4_000_000);
    let status = write(&served, "large", &bytes).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(read(&served, &digest(&bytes)).await.is_err());
    kept.is_there(&served).await;
    fs::remove_file(ballast).unwrap();
    let offset = served.store.content.stat_ingest("large").unwrap().offset;
    assert!(offset > 0 && offset < 6_000_000, "{offset}");
    let mut writer = served
        .store
        .content
        .ingest("large", i64::try_from(offset).unwrap(), false)
        .unwrap();
    let rest = &bytes[usize::try_from(offset).unwrap()..];
    writer.write(rest).unwrap();
    writer.commit(None, None, &served.store.leases, "").unwrap();
    assert_eq!(read(&served, &digest(&bytes)).await.unwrap(), bytes);
}

/// Every write at a disk that fills up in the middle: whatever was acknowledged is there.
#[tokio::test]
async fn row_11_what_is_acknowledged_while_the_disk_fills_up_stays() {
    let disk = Disk::new(32, &[]);
    let served = on(&disk).await;
    let kept = Kept::in_store(&served).await;
    let mut acknowledged = Vec::new();
    for round in 0..2 {
        let ballast = disk.fill(1_200_000);
        for n in 0..400_u32 {
            let id = format!("r{round}-{n}");
            let lease = served.store.leases.put(&id, None, [].into()).is_ok();
            let held = orlop_store::leases::Resource::Blob(digest(id.as_bytes()));
            if lease && served.store.leases.add(&id, [held.clone()]).is_ok() {
                acknowledged.push((id, held));
            }
            // What the reserve leaves is used up by others.
            let filler = disk.root().join(format!("filler-{round}-{n}"));
            fs::write(filler, [0; 4096]).ok();
        }
        fs::remove_file(ballast).unwrap();
    }
    assert!(acknowledged.len() > 10, "{}", acknowledged.len());
    kept.is_there(&served).await;
    let (_directory, store) = next_process(&disk);
    for (id, held) in acknowledged {
        assert_eq!(store.leases.resources(&id).unwrap(), [held], "{id}");
    }
}

#[tokio::test]
async fn row_12_without_inodes_the_message_says_inodes() {
    let disk = Disk::new(32, &["-N", "128"]);
    let served = on(&disk).await;
    let kept = Kept::in_store(&served).await;
    let mut taken = Vec::new();
    while let Ok(()) = fs::write(disk.root().join(taken.len().to_string()), b"") {
        taken.push(disk.root().join(taken.len().to_string()));
    }
    let mut refused = 0;
    for (rpc, answer) in all_writes(&served, b"more").await {
        if let Err(status) = answer {
            assert_eq!(status.code(), Code::ResourceExhausted, "{rpc}: {status}");
            assert!(said(&status).contains("inodes"), "{rpc}: {}", said(&status));
            refused += 1;
        }
    }
    assert!(refused >= 4, "{refused}");
    kept.is_there(&served).await;
    for path in taken {
        fs::remove_file(path).unwrap();
    }
    works(&served).await;
    kept.is_there(&served).await;
}

/// The reserve of inodes, on a disk that has enough of them for one.
#[tokio::test]
async fn row_12_some_inodes_are_kept_for_names() {
    let disk = Disk::new(32, &["-N", "1024"]);
    let served = on(&disk).await;
    let kept = Kept::in_store(&served).await;
    let free = rustix::fs::statvfs(disk.root()).unwrap().f_favail;
    for n in 0..free - 8 {
        fs::write(disk.root().join(n.to_string()), b"").unwrap();
    }
    let status = put(&served, b"more").await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().contains("inodes"), "{status}");
    let lease = pb::PutLeaseRequest {
        id: "from-the-reserve".to_owned(),
        ..pb::PutLeaseRequest::default()
    };
    served.leases().put(lease).await.unwrap();
    kept.is_there(&served).await;
}

#[tokio::test]
async fn row_13_a_read_only_disk_is_read_and_says_so() {
    let disk = Disk::new(32, &[]);
    let served = on(&disk).await;
    let kept = Kept::in_store(&served).await;
    disk.cover_read_only();
    for (rpc, answer) in all_writes(&served, b"more").await {
        let status = answer.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{rpc}: {status}");
        assert!(
            said(&status).contains("read-only"),
            "{rpc}: {}",
            said(&status)
        );
    }
    kept.is_there(&served).await;
    disk.uncover();
    works(&served).await;
    kept.is_there(&served).await;
    kept.is_on_disk(&disk);
}

/// A blob that is damaged on a disk that cannot put it aside is refused all the same, every time.
#[tokio::test]
async fn row_13_a_damaged_blob_on_a_read_only_disk_is_refused() {
    let disk = Disk::new(32, &[]);
    let served = on(&disk).await;
    let digest = served.blob(&vec![5; 10_000]).await;
    let path = served
        .store
        .content
        .path(&orlop_store::content::digest(&digest).unwrap());
    fs::write(&path, vec![6; 10_000]).unwrap();
    disk.cover_read_only();
    for _ in 0..3 {
        let status = read(&served, &digest).await.unwrap_err();
        assert_eq!(status.code(), Code::DataLoss, "{status}");
    }
}

/// The device is gone: nothing is written, what memory has is answered, nobody panics; after it came
/// back, everything acknowledged is there.
#[tokio::test]
async fn row_13_a_disk_that_fails_refuses_and_keeps_what_was_acknowledged() {
    let disk = Disk::new(32, &[]);
    let served = on(&disk).await;
    let kept = Kept::in_store(&served).await;
    disk.shut_down();
    for (rpc, answer) in all_writes(&served, b"more").await {
        let status = answer.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{rpc}: {status}");
        assert!(
            said(&status).contains("failing"),
            "{rpc}: {}",
            said(&status)
        );
    }
    // Names are in memory.
    let list = served.images().list(pb::ListImagesRequest::default()).await;
    assert!(list.is_ok() || list.unwrap_err().code() == Code::Unavailable);
    let read = read(&served, &kept.blob).await;
    assert!(read.is_err() || read.unwrap() == kept.bytes);
    kept.is_on_disk(&disk.after_the_power_came_back());
}

/// What was given is too long for a file's name.
#[tokio::test]
async fn a_name_that_the_file_system_cannot_hold_is_the_callers_fault() {
    let served = Served::start().await;
    let target = served.image(b"layer").await;
    let long = format!("docker.io/library/{}:1", "a".repeat(5000));
    let status = served
        .images()
        .put(served::put(&long, &target))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    let status = write(&served, &"i".repeat(300), b"x").await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
}
