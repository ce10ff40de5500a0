//! From a layer blob that is here to a tree that can be mounted and is durable. The peer is GNU tar,
//! with a sync of the file system at its end.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use orlop_proto::types::Descriptor;
use orlop_tests::{fixtures, have};
use tokio::runtime::Runtime;

use super::service::{Service, digest};
use crate::report::Report;

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const MANY: usize = 10;

/// A layer as it travels.
#[derive(Clone)]
struct Blob {
    bytes: Vec<u8>,
    diff_id: String,
    media_type: String,
}

pub(crate) fn measure(runtime: &Runtime, rounds: usize, report: &mut Report) {
    let archive = fixtures::debian_node_rootfs();
    for (name, program, kind) in [
        ("unpack Debian from gzip", "gzip", "+gzip"),
        ("unpack Debian from zstd", "zstd", "+zstd"),
    ] {
        if !have(program) {
            println!("skipped: {name} ({program} is not installed)");
            continue;
        }
        let blob = compressed(&archive, program, kind);
        compare(runtime, name, &[blob], rounds, report);
    }
    let tenths = tenths(&archive);
    compare(
        runtime,
        "unpack ten layers at once",
        &tenths,
        rounds,
        report,
    );
    while_written(runtime, &tenths, rounds, report);
}

fn compare(
    runtime: &Runtime,
    name: &'static str,
    blobs: &[Blob],
    rounds: usize,
    report: &mut Report,
) {
    for round in 0..=rounds {
        for (column, form) in [("orlop, image", "erofs"), ("orlop, directory", "directory")] {
            let service = Service::start(runtime, form);
            let manifest = runtime.block_on(image(&service, blobs, false));
            let start = Instant::now();
            runtime.block_on(service.unpack(&manifest.digest));
            add(report, name, column, round, start.elapsed());
        }
        add(report, name, "peer", round, tar(blobs));
    }
}

/// The layers travel and are unpacked at the same time, as in a pull; the peer gets them as files.
fn while_written(runtime: &Runtime, blobs: &[Blob], rounds: usize, report: &mut Report) {
    let name = "write and unpack ten layers";
    for round in 0..=rounds {
        for (column, form) in [("orlop, image", "erofs"), ("orlop, directory", "directory")] {
            let service = Service::start(runtime, form);
            let start = Instant::now();
            let manifest = runtime.block_on(image(&service, blobs, true));
            runtime.block_on(service.unpack(&manifest.digest));
            add(report, name, column, round, start.elapsed());
            if round == rounds {
                let (most, _) = service.memory();
                println!("{name}, {column}: at most {most} KiB resident");
            }
        }
    }
}

fn add(report: &mut Report, name: &'static str, column: &str, round: usize, took: Duration) {
    if round > 0 {
        report.add(name, column, took);
    }
}

async fn image(service: &Service, blobs: &[Blob], hint: bool) -> Descriptor {
    let writes = blobs.iter().map(|blob| {
        let diff_id = if hint { blob.diff_id.as_str() } else { "" };
        service.put(blob.bytes.clone(), &blob.media_type, diff_id)
    });
    let layers = futures_util::future::join_all(writes).await;
    let diff_ids: Vec<String> = blobs.iter().map(|blob| blob.diff_id.clone()).collect();
    service.manifest(&layers, &diff_ids).await
}

/// One after another into one directory, as a layer is applied over another.
fn tar(blobs: &[Blob]) -> Duration {
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let root = directory.path().join("root");
    std::fs::create_dir(&root).unwrap();
    let files: Vec<_> = blobs
        .iter()
        .enumerate()
        .map(|(n, blob)| {
            let path = directory.path().join(n.to_string());
            std::fs::write(&path, &blob.bytes).unwrap();
            path
        })
        .collect();
    rustix::fs::sync();
    let start = Instant::now();
    for file in &files {
        let status = Command::new("tar")
            .args(["-xp", "--numeric-owner", "-C"])
            .arg(&root)
            .arg("-f")
            .arg(file)
            .stderr(Stdio::null())
            .status();
        assert!(status.unwrap().success());
    }
    sync(&root);
    start.elapsed()
}

fn sync(path: &Path) {
    rustix::fs::syncfs(std::fs::File::open(path).unwrap()).unwrap();
}

fn compressed(archive: &[u8], program: &str, kind: &str) -> Blob {
    let bytes = filter(program, archive);
    Blob {
        bytes,
        diff_id: digest(archive),
        media_type: format!("{LAYER}{kind}"),
    }
}

fn filter(program: &str, input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .arg("-c")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let feed = std::thread::spawn(move || std::io::Write::write_all(&mut stdin, &input).unwrap());
    let output = child.wait_with_output().unwrap();
    feed.join().unwrap();
    output.stdout
}

/// The members of an archive dealt to ten archives in turn, so that they are of about equal size;
/// directories go to all.
fn tenths(archive: &[u8]) -> Vec<Blob> {
    let mut parts: Vec<_> = (0..MANY).map(|_| tar::Builder::new(Vec::new())).collect();
    let mut source = tar::Archive::new(archive);
    let mut sizes = [0_u64; MANY];
    for entry in source.entries().unwrap() {
        let mut entry = entry.unwrap();
        let header = entry.header().clone();
        let path = entry.path_bytes().into_owned();
        let path = std::path::PathBuf::from(String::from_utf8_lossy(&path).into_owned());
        let link = entry.link_name().unwrap().map(std::borrow::Cow::into_owned);
        let targets: Vec<usize> = if header.entry_type().is_dir() {
            (0..MANY).collect()
        } else if header.entry_type().is_hard_link() {
            continue;
        } else {
            vec![(0..MANY).min_by_key(|n| sizes[*n]).unwrap_or(0)]
        };
        let mut body = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut body).unwrap();
        for target in targets {
            sizes[target] += body.len() as u64 + 512;
            let mut header = header.clone();
            match &link {
                Some(link) => parts[target].append_link(&mut header, &path, link).unwrap(),
                None => parts[target]
                    .append_data(&mut header, &path, body.as_slice())
                    .unwrap(),
            }
        }
    }
    let finish = |part: tar::Builder<Vec<u8>>| part.into_inner().unwrap();
    parts
        .into_iter()
        .map(|part| compressed(&finish(part), "gzip", "+gzip"))
        .collect()
}
