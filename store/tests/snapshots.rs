//! Every rpc of `Snapshots` through a socket, with real overlays.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use orlop_proto::error::{Failure, Kind};
use orlop_proto::store::file_op::Op;
use orlop_proto::store::snapshots_client::SnapshotsClient;
use orlop_proto::store::{
    ApplyRequest, Change, ChangeKind, ChangesRequest, CommitRequest, Compression, CopyEntries,
    CopySnapshot, DiffRequest, DiffResponse, Entry, EntryKind, ExportSnapshotRequest, Extract,
    FileOp, GetMountRequest, ListSnapshotsRequest, Mkdir, Owner, PrepareRequest, ReadFileRequest,
    RemovePath, RemoveSnapshotRequest, SnapshotKind, SnapshotMount, StatSnapshotRequest,
    UnpackRequest, UnpackResponse, UsageRequest,
};
use orlop_store::Store;
use prost_types::Timestamp;

#[path = "support/service.rs"]
mod service;
#[path = "support/smith.rs"]
mod smith;
use service::{Channel, Service, names, sha256};
use smith::{Canary, Tar};

struct Client {
    service: Service,
    rpc: SnapshotsClient<Channel>,
}

type Outcome<T> = Result<T, Failure>;

impl Client {
    async fn start() -> Self {
        let service = Service::start().await;
        let rpc = service.client(SnapshotsClient::new);
        Self { service, rpc }
    }

    async fn unpack(&mut self, digest: &str) -> Outcome<UnpackResponse> {
        let request = UnpackRequest {
            digest: digest.to_owned(),
            ..Default::default()
        };
        Ok(self.rpc.unpack(request).await?.into_inner())
    }

    async fn prepare(&mut self, key: &str, parent: &str) -> Outcome<SnapshotMount> {
        Ok(self.rpc.prepare(request(key, parent)).await?.into_inner())
    }

    async fn commit(&mut self, key: &str, name: &str) -> Outcome<()> {
        let request = CommitRequest {
            key: key.into(),
            name: name.into(),
            ..Default::default()
        };
        self.rpc.commit(request).await?;
        Ok(())
    }

    async fn diff(&mut self, key: &str, compression: Compression) -> DiffResponse {
        let request = DiffRequest {
            key: key.into(),
            compression: compression.into(),
            ..Default::default()
        };
        self.rpc.diff(request).await.unwrap().into_inner()
    }

    async fn apply(&mut self, key: &str, ops: Vec<Op>) -> Outcome<u64> {
        let ops = ops.into_iter().map(|op| FileOp { op: Some(op) }).collect();
        let message = ApplyRequest {
            key: key.into(),
            ops,
        };
        Ok(self
            .rpc
            .apply(tokio_stream::once(message))
            .await?
            .into_inner()
            .entries)
    }

    async fn read(&mut self, key: &str, path: &str) -> Outcome<Vec<u8>> {
        let request = ReadFileRequest {
            key: key.into(),
            path: bytes(path),
        };
        Ok(self
            .rpc
            .read_file(request)
            .await?
            .into_inner()
            .data
            .to_vec())
    }

    async fn changes(&mut self, key: &str) -> Vec<(String, ChangeKind)> {
        let request = ChangesRequest { key: key.into() };
        let mut stream = self.rpc.changes(request).await.unwrap().into_inner();
        let mut changes = Vec::new();
        while let Some(Change { path, kind }) = stream.message().await.unwrap() {
            let path = String::from_utf8(path.to_vec()).unwrap();
            changes.push((path, ChangeKind::try_from(kind).unwrap()));
        }
        changes
    }

    async fn remove(&mut self, key: &str) -> Outcome<()> {
        self.rpc
            .remove(RemoveSnapshotRequest { key: key.into() })
            .await?;
        Ok(())
    }

    /// A committed snapshot with these files.
    async fn base(&mut self, tar: Vec<u8>) -> String {
        let image = self.service.image(&[(&tar, sha256(&tar))]);
        self.unpack(&image).await.unwrap().name
    }
}

fn request(key: &str, parent: &str) -> PrepareRequest {
    PrepareRequest {
        key: key.into(),
        parent: parent.into(),
        ..Default::default()
    }
}

fn bytes(text: &str) -> bytes::Bytes {
    text.to_owned().into()
}

fn kind<T>(outcome: Outcome<T>) -> Kind {
    outcome.err().unwrap().kind
}

fn owner(spec: &str) -> Option<Owner> {
    Some(Owner { spec: spec.into() })
}

fn at(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp { seconds, nanos: 5 })
}

fn file(path: &str, digest: &str, mode: u32) -> Entry {
    Entry {
        path: bytes(path),
        kind: EntryKind::File.into(),
        mode,
        mtime: at(1000),
        digest: digest.into(),
        ..Default::default()
    }
}

fn passwd() -> Tar {
    Tar::new()
        .directory("etc", 0o755)
        .file("etc/passwd", b"root:x:0:0::/:\nweb:x:33:34::/:\n")
        .file("etc/group", b"web:x:35:\n")
        .directory("usr", 0o755)
        .directory("usr/lib", 0o755)
        .symlink("lib", "usr/lib")
        .file("usr/lib/a.js", b"a")
        .file("usr/lib/b.js", b"b")
        .file("usr/lib/c.txt", b"c")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_unpacked_once_and_stacked() {
    let mut client = Client::start().await;
    let lower = Tar::new()
        .file("a", b"1")
        .file("b", b"1")
        .directory("d", 0o755)
        .file("d/x", b"1")
        .end();
    let upper = Tar::new()
        .file("b", b"2")
        .file(".wh.a", b"")
        .file("d/.wh..wh..opq", b"")
        .end();
    let image = client
        .service
        .image(&[(&lower, sha256(&lower)), (&upper, sha256(&upper))]);
    let first = client.unpack(&image).await.unwrap();
    assert_eq!((first.unpacked, first.existed), (2, 0));
    let chain = sha256(format!("{} {}", sha256(&lower), sha256(&upper)).as_bytes());
    assert_eq!(first.name, chain);
    let second = client.unpack(&image).await.unwrap();
    assert_eq!((second.unpacked, second.existed), (0, 2));
    assert_eq!(client.read(&chain, "/b").await.unwrap(), b"2");
    assert_eq!(kind(client.read(&chain, "a").await), Kind::NotFound);
    assert_eq!(kind(client.read(&chain, "d/x").await), Kind::NotFound);
    assert_eq!(kind(client.read(&chain, "d").await), Kind::InvalidArgument);
    let view = client
        .rpc
        .view(request("v", &chain))
        .await
        .unwrap()
        .into_inner();
    assert_eq!((view.lower.len(), view.upper.as_str()), (2, ""));
    assert!(view.lower[0].contains(&sha256(&upper).replace(':', "-")));
    let absent = sha256(b"absent");
    assert_eq!(kind(client.unpack(&absent).await), Kind::NotFound);
    assert_eq!(
        kind(client.unpack("sha256:../../x").await),
        Kind::InvalidArgument
    );
    let mounted = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounted.contains(client.service.state().to_str().unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn h5_a_wrong_diff_id_fails_and_leaves_nothing() {
    let mut client = Client::start().await;
    let good = Tar::new().file("a", b"1").end();
    let bad = Tar::new().file("b", b"1").end();
    let image = client
        .service
        .image(&[(&good, sha256(&good)), (&bad, sha256(b"other"))]);
    let failure = client.unpack(&image).await.unwrap_err();
    assert_eq!(failure.kind, Kind::InvalidArgument);
    assert_eq!(failure.reason, "DIGEST_MISMATCH");
    assert!(client.service.left("layers").is_empty());
    assert!(client.service.left("snapshots").is_empty());
    let broken = Tar::new().file("../x", b"").end();
    let image = client.service.image(&[(&broken, sha256(&broken))]);
    assert_eq!(kind(client.unpack(&image).await), Kind::InvalidArgument);
    assert!(client.service.left("layers").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a25_many_callers_share_one_unpack_also_of_a_bad_layer() {
    let mut client = Client::start().await;
    let good = Tar::new().file("a", &[7; 1 << 20]).end();
    let bad = Tar::new().file("a", &[7; 1 << 20]).cut()[..600_000].to_vec();
    let good = client.service.image(&[(&good, sha256(&good))]);
    let bad = client.service.image(&[(&bad, sha256(&bad))]);
    let mut calls = Vec::new();
    for i in 0..16 {
        let mut rpc = client.rpc.clone();
        let digest = if i % 2 == 0 {
            good.clone()
        } else {
            bad.clone()
        };
        calls.push(tokio::spawn(async move {
            let request = UnpackRequest {
                digest,
                ..Default::default()
            };
            (
                i,
                rpc.unpack(request)
                    .await
                    .map(|answer| answer.into_inner().unpacked),
            )
        }));
    }
    let mut unpacked = 0;
    for call in calls {
        let (i, answer) = call.await.unwrap();
        assert_eq!(answer.is_ok(), i % 2 == 0);
        unpacked += answer.unwrap_or(0);
    }
    assert_eq!(unpacked, 1);
    assert_eq!(client.service.left("layers").len(), 1);
    assert_eq!(client.unpack(&good).await.unwrap().existed, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_step_from_prepare_to_diff() {
    let mut client = Client::start().await;
    let base = client.base(passwd().end()).await;
    let mount = client.prepare("work", &base).await.unwrap();
    assert_eq!(mount.lower.len(), 1);
    assert!(Path::new(&mount.upper).is_dir() && Path::new(&mount.work).is_dir());
    assert_eq!(
        kind(client.prepare("work", &base).await),
        Kind::AlreadyExists
    );
    assert_eq!(kind(client.prepare("x", "nothing").await), Kind::NotFound);
    assert_eq!(
        kind(client.prepare("../x", &base).await),
        Kind::InvalidArgument
    );
    assert_eq!(
        kind(client.prepare("x", "work").await),
        Kind::FailedPrecondition
    );
    let again = client
        .rpc
        .get_mount(GetMountRequest { key: "work".into() })
        .await
        .unwrap();
    assert_eq!(again.into_inner(), mount);

    let blob = client.service.put(b"new");
    let ops = vec![
        Op::CopyEntries(CopyEntries {
            dest: bytes("/opt"),
            dest_is_dir: true,
            entries: vec![file("new", &blob, 0o640)],
            owner: owner("web"),
            mode: None,
        }),
        Op::Remove(RemovePath {
            path: bytes("/usr/lib/c.txt"),
        }),
        Op::Remove(RemovePath {
            path: bytes("/not/there"),
        }),
    ];
    client.apply("work", ops).await.unwrap();
    let expected = [
        ("/opt", ChangeKind::Added),
        ("/opt/new", ChangeKind::Added),
        ("/usr", ChangeKind::Modified),
        ("/usr/lib", ChangeKind::Modified),
        ("/usr/lib/c.txt", ChangeKind::Deleted),
    ];
    let expected = expected.map(|(path, kind)| (path.to_owned(), kind));
    assert_eq!(client.changes("work").await, expected);
    client.commit("work", "step").await.unwrap();
    assert_eq!(client.changes("step").await, expected);
    assert_eq!(kind(client.commit("work", "step2").await), Kind::NotFound);

    packed_as_it_should_be(&mut client, &base).await;

    assert_eq!(kind(client.remove(&base).await), Kind::FailedPrecondition);
    client.remove("step").await.unwrap();
    client.remove("step").await.unwrap();
    client.remove(&base).await.unwrap();
    assert!(client.service.left("layers").is_empty());
    emptied(&client.service.state().join("trash")).await;
}

/// The step's layer, in every compression, and what Python reads in it.
async fn packed_as_it_should_be(client: &mut Client, base: &str) {
    let diff = client.diff("step", Compression::Unspecified).await;
    let descriptor = diff.descriptor.clone().unwrap();
    assert_eq!(
        descriptor.media_type,
        "application/vnd.oci.image.layer.v1.tar+gzip"
    );
    assert_eq!(client.diff("step", Compression::Gzip).await, diff);
    let plain = client.diff("step", Compression::None).await;
    assert_eq!(plain.descriptor.unwrap().digest, diff.diff_id);
    assert_eq!(
        client.diff("step", Compression::Zstd).await.diff_id,
        diff.diff_id
    );
    let info = client
        .rpc
        .stat(StatSnapshotRequest { key: "step".into() })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(info.kind(), SnapshotKind::Committed);
    assert_eq!(
        (info.parent, info.diff_id),
        (base.to_owned(), diff.diff_id.clone())
    );

    let tar = read_blob(client, &diff.diff_id);
    let listed = python(&tar, "print([i.name for i in t])");
    assert_eq!(
        listed,
        "['opt', 'opt/new', 'usr', 'usr/lib', 'usr/lib/.wh.c.txt']"
    );
    let owners = python(
        &tar,
        "i=t.getmember('opt/new'); print(i.uid, i.gid, oct(i.mode), i.mtime)",
    );
    assert_eq!(owners, "33 34 0o640 1000.000000005");
    let gunzipped = python(
        &read_blob(client, &descriptor.digest),
        "print(len(t.getnames()))",
    );
    assert_eq!(gunzipped, "5");
}

async fn emptied(trash: &Path) {
    let start = Instant::now();
    while !names(trash).is_empty() {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "the trash is not emptied"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn read_blob(client: &Client, digest: &str) -> Vec<u8> {
    let digest = orlop_proto::descriptor::parse_digest(digest).unwrap();
    client
        .service
        .store
        .content
        .read_all(&digest, 1 << 30)
        .unwrap()
}

/// Runs a line of Python on an archive `t`.
fn python(tar: &[u8], line: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t.tar");
    fs::write(&path, tar).unwrap();
    let script = format!("import tarfile,sys\nt=tarfile.open(sys.argv[1])\n{line}");
    let out = std::process::Command::new("python3")
        .arg("-c")
        .arg(script)
        .arg(path)
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

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
async fn copies_follow_dockers_rules() {
    let mut client = Client::start().await;
    let base = client.base(passwd().end()).await;
    client.prepare("w", &base).await.unwrap();
    let copy = |sources: &[&str], dest: &str, dest_is_dir| {
        Op::CopySnapshot(CopySnapshot {
            from: base.clone(),
            sources: sources.iter().map(|source| bytes(source)).collect(),
            dest: bytes(dest),
            dest_is_dir,
            owner: None,
            mode: None,
        })
    };
    let ops = vec![
        copy(&["/lib/*.js"], "/js/", true),
        copy(&["lib"], "/all", false),
        copy(&["/lib/a.js"], "/renamed", false),
        copy(&["/lib/a.js"], "/js", false),
        copy(&["/lib/[c-d].txt", "etc/passwd"], "/several", true),
    ];
    assert!(client.apply("w", ops).await.unwrap() >= 9);
    for (path, content) in [
        ("js/a.js", "a"),
        ("js/b.js", "b"),
        ("all/c.txt", "c"),
        ("renamed", "a"),
        ("several/c.txt", "c"),
    ] {
        assert_eq!(
            client.read("w", path).await.unwrap(),
            content.as_bytes(),
            "{path}"
        );
    }
    assert_eq!(kind(client.read("w", "js/c.txt").await), Kind::NotFound);
    let none = vec![copy(&["/lib/*.rs"], "/x/", true)];
    assert_eq!(kind(client.apply("w", none).await), Kind::NotFound);
    let none = vec![copy(&["/nothing"], "/x/", true)];
    assert_eq!(kind(client.apply("w", none).await), Kind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_are_placed_or_refused() {
    let mut client = Client::start().await;
    let base = client.base(passwd().end()).await;
    client.prepare("w", &base).await.unwrap();
    let blob = client.service.put(b"blob");
    let entries = |dest: &str, dest_is_dir, entries| {
        Op::CopyEntries(CopyEntries {
            dest: bytes(dest),
            dest_is_dir,
            entries,
            owner: None,
            mode: Some(0o600),
        })
    };
    let link = Entry {
        path: bytes("link"),
        kind: EntryKind::Symlink.into(),
        link_target: bytes("/etc"),
        ..Default::default()
    };
    let ops = vec![
        entries("/lib", false, vec![file("into", &blob, 0o644)]),
        entries("/one", false, vec![file("ignored", &blob, 0o644)]),
        entries("/links", true, vec![link]),
    ];
    client.apply("w", ops).await.unwrap();
    assert_eq!(client.read("w", "usr/lib/into").await.unwrap(), b"blob");
    assert_eq!(client.read("w", "one").await.unwrap(), b"blob");
    assert_eq!(
        client.read("w", "links/link/group").await.unwrap(),
        b"web:x:35:\n"
    );
    let bad = |path| vec![entries("/x", true, vec![file(path, &blob, 0o644)])];
    for path in ["../x", "/x", "a/../b", "", "a\0b"] {
        assert_eq!(
            kind(client.apply("w", bad(path)).await),
            Kind::InvalidArgument,
            "{path:?}"
        );
    }
    let over = vec![entries("/usr", true, vec![file("lib", &blob, 0o644)])];
    assert_eq!(kind(client.apply("w", over).await), Kind::InvalidArgument);
    assert_eq!(
        kind(client.apply(&base, Vec::new()).await),
        Kind::FailedPrecondition
    );
    assert_eq!(
        kind(client.apply("nobody", Vec::new()).await),
        Kind::NotFound
    );
    for spec in ["4294967296", "-1", "nobody", "web:nobody"] {
        let mkdir = Mkdir {
            path: bytes("/m"),
            owner: owner(spec),
            ..Default::default()
        };
        let refused = client.apply("w", vec![Op::Mkdir(mkdir)]).await;
        assert_eq!(kind(refused), Kind::InvalidArgument, "{spec}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a2_operations_never_leave_the_snapshot() {
    let canary = Canary::new();
    let mut client = Client::start().await;
    let base = Tar::new()
        .symlink("out", canary.path())
        .symlink("up", &format!("../../../../../..{}", canary.path()))
        .symlink("file", &format!("{}/f", canary.path()))
        .end();
    let base = client.base(base).await;
    client.prepare("w", &base).await.unwrap();
    let blob = client.service.put(b"evil");
    let tar = Tar::new()
        .symlink("a", "/")
        .file(&format!("a{}/f", canary.path()), b"evil")
        .end();
    let tar = client.service.put(&tar);
    let entries = |dest: &str, dest_is_dir| {
        Op::CopyEntries(CopyEntries {
            dest: bytes(dest),
            dest_is_dir,
            entries: vec![file("f", &blob, 0o777)],
            ..Default::default()
        })
    };
    let ops = vec![
        entries("/out", true),
        entries("/up/d", true),
        entries("/file", false),
        entries(&format!("/../../..{}", canary.path()), true),
        Op::Mkdir(Mkdir {
            path: bytes("/out/made"),
            mode: 0o777,
            ..Default::default()
        }),
        Op::Extract(Extract {
            digest: tar,
            dest: bytes("/up"),
            owner: None,
        }),
        Op::Remove(RemovePath {
            path: bytes("/up/f"),
        }),
        Op::Remove(RemovePath {
            path: bytes("/out/d"),
        }),
        Op::Remove(RemovePath {
            path: bytes("/out"),
        }),
    ];
    client.apply("w", ops).await.unwrap();
    canary.sings();
    assert_eq!(kind(client.read("w", "/file").await), Kind::NotFound);
    client.remove("w").await.unwrap();
    emptied(&client.service.state().join("trash")).await;
    canary.sings();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_tree_is_exported() {
    let mut client = Client::start().await;
    let base = client
        .base(passwd().file("big", &vec![3; 2 << 20]).end())
        .await;
    client.prepare("w", &base).await.unwrap();
    client
        .apply(
            "w",
            vec![Op::Remove(RemovePath {
                path: bytes("/etc"),
            })],
        )
        .await
        .unwrap();
    let mut stream = client
        .rpc
        .export(ExportSnapshotRequest { key: "w".into() })
        .await
        .unwrap()
        .into_inner();
    let mut tar = Vec::new();
    while let Some(message) = stream.message().await.unwrap() {
        tar.extend_from_slice(&message.data);
    }
    let listed = python(&tar, "print(t.getnames(), t.getmember('big').size)");
    assert_eq!(
        listed,
        "['big', 'lib', 'usr', 'usr/lib', 'usr/lib/a.js', 'usr/lib/b.js', 'usr/lib/c.txt'] 2097152"
    );
    let absent = client
        .rpc
        .export(ExportSnapshotRequest { key: "x".into() })
        .await;
    assert_eq!(Failure::from(absent.err().unwrap()).kind, Kind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_list_and_limits_of_reading() {
    let mut client = Client::start().await;
    let base = client
        .base(
            Tar::new()
                .file("big", &vec![1; 2 << 20])
                .kind(b'6', "pipe")
                .end(),
        )
        .await;
    let usage = client
        .rpc
        .usage(UsageRequest { key: base.clone() })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(usage.inodes, 3);
    assert!(usage.bytes >= 2 << 20);
    assert_eq!(kind(client.read(&base, "big").await), Kind::OutOfRange);
    assert_eq!(
        kind(client.read(&base, "pipe").await),
        Kind::InvalidArgument
    );
    client.rpc.view(request("v", &base)).await.unwrap();
    let mut stream = client
        .rpc
        .list(ListSnapshotsRequest {})
        .await
        .unwrap()
        .into_inner();
    let mut kinds = Vec::new();
    while let Some(info) = stream.message().await.unwrap() {
        kinds.push(info.kind());
    }
    assert_eq!(kinds, [SnapshotKind::Committed, SnapshotKind::View]);
    assert_eq!(
        kind(client.commit("v", "c").await),
        Kind::FailedPrecondition
    );
    assert_eq!(kind(client.commit("none", "c").await), Kind::NotFound);
    client.prepare("w", &base).await.unwrap();
    assert_eq!(kind(client.commit("w", &base).await), Kind::AlreadyExists);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_left_is_cleaned_and_what_was_acknowledged_stays() {
    let mut client = Client::start().await;
    let base = client.base(passwd().end()).await;
    client.prepare("w", &base).await.unwrap();
    client.commit("w", "c").await.unwrap();
    client.prepare("w2", "c").await.unwrap();
    let diff = client.diff("c", Compression::Gzip).await;
    let crashed = tempfile::tempdir().unwrap();
    let state = crashed.path().join("store");
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .arg(client.service.state())
        .arg(&state)
        .status();
    assert!(copied.unwrap().success());
    fs::create_dir_all(state.join("layers/.tmp-x/fs/deep/er")).unwrap();
    fs::create_dir_all(state.join("layers/sha256-without-meta/fs")).unwrap();
    fs::create_dir_all(state.join("snapshots/.tmp-y/upper")).unwrap();
    fs::create_dir_all(state.join("snapshots/half/upper")).unwrap();
    fs::write(state.join("snapshots/half/meta.json"), b"{").unwrap();
    fs::create_dir_all(state.join("trash/z/deep")).unwrap();
    fs::remove_dir_all(state.join("index")).unwrap();

    let store = Store::open(&state).unwrap();
    let keys: HashSet<String> = store
        .snapshots
        .list()
        .into_iter()
        .map(|record| record.key)
        .collect();
    assert_eq!(keys, HashSet::from([base.clone(), "c".into(), "w2".into()]));
    assert_eq!(
        store.snapshots.stat("c").unwrap().diff_id,
        Some(diff.diff_id)
    );
    assert_eq!(
        store.snapshots.read_file("w2", b"/etc/group").unwrap(),
        b"web:x:35:\n"
    );
    emptied(&state.join("trash")).await;
    assert_eq!(names(&state.join("layers")).len(), 2);

    let collected = store.snapshots.collect(&HashSet::new(), false).unwrap();
    assert_eq!(collected.snapshots, 0);
    store.snapshots.remove("w2").unwrap();
    let live = HashSet::from([base.clone()]);
    assert_eq!(store.snapshots.collect(&live, true).unwrap().snapshots, 1);
    assert_eq!(store.snapshots.collect(&live, false).unwrap().snapshots, 1);
    assert!(store.snapshots.stat("c").is_err() && store.snapshots.stat(&base).is_ok());
    assert_eq!(
        store
            .snapshots
            .collect(&HashSet::new(), false)
            .unwrap()
            .snapshots,
        1
    );
    assert!(names(&state.join("layers")).is_empty());
}
