//! Trees: reading one through the mount of a layer beside the host's file system, and an archive that
//! comes in, is changed and goes out again.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use orlop_proto::store as pb;
use orlop_tests::fixtures;
use tokio::runtime::Runtime;

use super::service::Service;
use crate::report::Report;

const CHUNK: usize = 512 * 1024;

pub(crate) fn measure(runtime: &Runtime, rounds: usize, report: &mut Report) {
    let archive = fixtures::debian_node_rootfs();
    for round in 0..=rounds {
        for (column, form) in [("orlop, image", "erofs"), ("orlop, directory", "directory")] {
            let service = Service::start(runtime, form);
            one(runtime, &service, &archive, &mut |name, took| {
                if round > 0 {
                    report.add(name, column, took);
                }
            });
        }
        peer(&archive, &mut |name, took| {
            if round > 0 {
                report.add(name, "peer", took);
            }
        });
    }
}

/// Import, unpack, read twice, commit a copy-up of nothing but a new file, and diff the whole tree.
fn one(
    runtime: &Runtime,
    service: &Service,
    archive: &[u8],
    add: &mut dyn FnMut(&'static str, Duration),
) {
    let (manifest, took) = timed(|| runtime.block_on(import(service, archive)));
    add("import Debian", took);
    let parent = runtime.block_on(service.unpack(&manifest));
    let mount = runtime.block_on(prepare(service, "k", &parent));
    let tree = PathBuf::from(&mount.lower[0]);
    drop_caches();
    add("read its tree, cold", timed(|| read(&tree)).1);
    add("read its tree, warm", timed(|| read(&tree)).1);
    std::fs::write(Path::new(&mount.upper).join("new"), b"new").unwrap();
    let (_, took) = timed(|| runtime.block_on(commit(service, "k", "committed")));
    add("commit a small change", took);
    let (_, took) = timed(|| runtime.block_on(diff(service, "committed")));
    add("diff of a small change", took);
    let copy = runtime.block_on(prepare(service, "whole", ""));
    copy_tree(&tree, Path::new(&copy.upper));
    runtime.block_on(commit(service, "whole", "copied"));
    let (_, took) = timed(|| runtime.block_on(diff(service, "copied")));
    add("diff of Debian, to zstd", took);
}

/// GNU tar out of and into a directory of the same disk.
fn peer(archive: &[u8], add: &mut dyn FnMut(&'static str, Duration)) {
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let (file, root) = (directory.path().join("tar"), directory.path().join("root"));
    std::fs::create_dir(&root).unwrap();
    let (_, took) = timed(|| {
        std::fs::write(&file, archive).unwrap();
        rustix::fs::syncfs(std::fs::File::open(&file).unwrap()).unwrap();
    });
    add("import Debian", took);
    let extract = ["-xp", "--numeric-owner", "-f"];
    shell(
        Command::new("tar")
            .args(extract)
            .arg(&file)
            .arg("-C")
            .arg(&root),
    );
    rustix::fs::sync();
    drop_caches();
    add("read its tree, cold", timed(|| read(&root)).1);
    add("read its tree, warm", timed(|| read(&root)).1);
    let out = directory.path().join("out");
    let pack = ["-c", "--zstd", "--numeric-owner", "-f"];
    let (_, took) = timed(|| {
        shell(
            Command::new("tar")
                .args(pack)
                .arg(&out)
                .arg("-C")
                .arg(&root)
                .arg("."),
        )
    });
    add("diff of Debian, to zstd", took);
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let done = work();
    (done, start.elapsed())
}

/// All bytes of all files. (GNU tar looks at no byte when it writes to `/dev/null`; `cat` does.)
fn read(tree: &Path) {
    let mut pack = Command::new("tar")
        .arg("-c")
        .arg("-C")
        .arg(tree)
        .arg(".")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let stdout = pack.stdout.take().unwrap();
    shell(Command::new("cat").stdin(stdout).stdout(Stdio::null()));
    pack.wait().unwrap();
}

fn copy_tree(from: &Path, to: &Path) {
    shell(Command::new("cp").arg("-a").arg(from.join(".")).arg(to));
}

fn shell(command: &mut Command) {
    assert!(command.status().unwrap().success(), "{command:?}");
}

/// Nothing that was read before is in memory any more.
fn drop_caches() {
    rustix::fs::sync();
    std::fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
}

async fn import(service: &Service, archive: &[u8]) -> String {
    use pb::import_request::Message;
    let options = Message::Options(pb::ImportOptions::default());
    let data = archive
        .chunks(CHUNK)
        .map(|piece| Message::Data(bytes::Bytes::copy_from_slice(piece)));
    let messages = std::iter::once(options).chain(data);
    let messages = messages.map(|message| pb::ImportRequest {
        message: Some(message),
    });
    let stream = tokio_stream::iter(messages.collect::<Vec<_>>());
    let answer = service.archives().import(stream).await.unwrap();
    answer.into_inner().target.unwrap().digest
}

async fn prepare(service: &Service, key: &str, parent: &str) -> pb::SnapshotMount {
    let request = pb::PrepareRequest {
        key: key.to_owned(),
        parent: parent.to_owned(),
        ..pb::PrepareRequest::default()
    };
    service
        .snapshots()
        .prepare(request)
        .await
        .unwrap()
        .into_inner()
}

async fn commit(service: &Service, key: &str, name: &str) {
    let request = pb::CommitRequest {
        key: key.to_owned(),
        name: name.to_owned(),
        ..pb::CommitRequest::default()
    };
    service.snapshots().commit(request).await.unwrap();
}

async fn diff(service: &Service, key: &str) {
    let request = pb::DiffRequest {
        key: key.to_owned(),
        compression: pb::Compression::Zstd.into(),
        ..pb::DiffRequest::default()
    };
    service.snapshots().diff(request).await.unwrap();
}
