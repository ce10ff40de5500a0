//! What the store takes for many small blobs, and while it unpacks large layers, and the registry for many
//! transfers at once: resident memory at most, and time per operation.

use std::fmt;
use std::time::{Duration, Instant};

use bytes::Bytes;
use orlop_proto::store as pb;
use orlop_proto::store::maintenance_client::MaintenanceClient;
use orlop_proto::store::snapshots_client::SnapshotsClient;

use super::image::{self, Layer};
use super::prometheus::value;
use super::side::{SERVICES, Side};

const MIB: f64 = 1024.0 * 1024.0;
/// The store with a million blobs.
const BLOBS_MIB_MAX: f64 = 100.0;
/// The store while it unpacks ten layers at once.
const LAYERS_MIB_MAX: f64 = 64.0;
/// A registry that sends, serves or fetches everything at once.
const TRANSFERS_MIB_MAX: f64 = 160.0;
const LAYERS: usize = 10;
/// Layers of each image that is transferred: as many as one transfer has under way.
const TRANSFERRED_LAYERS: usize = 6;
/// Questions of `stat`, and of each `find-missing`.
const QUESTIONS: u64 = 10_000;
/// Blobs of one `PutMany`, so that each has its own time.
const PUT_AT_ONCE: u64 = 20_000;
const FILE_BYTES: usize = 64 * 1024;

/// One phase: how long it took for how many, and the most memory until its end.
#[derive(Clone, Debug)]
pub struct Phase {
    name: &'static str,
    count: u64,
    took: Duration,
    peak: f64,
}

/// All phases, and the bound of memory.
#[derive(Clone, Debug)]
pub struct Measured {
    service: &'static str,
    phases: Vec<Phase>,
    mib_max: f64,
}

impl Measured {
    /// No phase took more memory than it may.
    pub fn fits(&self) -> bool {
        self.phases
            .iter()
            .all(|phase| phase.peak / MIB < self.mib_max)
    }

    fn new(service: &'static str, mib_max: f64) -> Self {
        Self {
            service,
            phases: Vec::new(),
            mib_max,
        }
    }

    fn time<T>(
        &mut self,
        side: &Side,
        name: &'static str,
        count: u64,
        work: impl FnOnce() -> T,
    ) -> T {
        let began = Instant::now();
        let done = work();
        let took = began.elapsed();
        let peak = value(
            &side.metrics(self.service),
            "process_resident_memory_max_bytes",
        );
        let phase = Phase {
            name,
            count,
            took,
            peak,
        };
        self.phases.push(phase);
        done
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "phase                     count   seconds   µs each  peak MiB"
        )?;
        for phase in &self.phases {
            let (name, count, seconds) = (phase.name, phase.count, phase.took.as_secs_f64());
            let each = phase.took.as_micros() / u128::from(count.max(1));
            let peak = phase.peak / MIB;
            writeln!(
                f,
                "{name:<22}{count:>9}{seconds:>10.2}{each:>10}{peak:>10.1}"
            )?;
        }
        write!(f, "at most {} MiB", self.mib_max)
    }
}

/// Puts that many blobs, asks for them in all ways, starts the store again, and has it collect them.
pub fn blobs(count: u64) -> Measured {
    let mut measured = Measured::new("store", BLOBS_MIB_MAX);
    let mut side = Side::start_with(&["--collect-grace-seconds", "86400"], &["store"]);
    measured.time(&side, "start, empty", 1, || ());
    for from in (0..count).step_by(usize::try_from(PUT_AT_ONCE).unwrap()) {
        let batch = PUT_AT_ONCE.min(count - from);
        let name = if from == 0 { "put, first" } else { "put" };
        measured.time(&side, name, batch, || put(&side, from, batch));
    }
    let asked = QUESTIONS.min(count);
    let step = (count / asked).max(1);
    measured.time(&side, "stat", asked, || stat(&side, asked, step));
    measured.time(&side, "find-missing", asked, || {
        find_missing(&side, asked, step);
    });
    let listed = measured.time(&side, "list", count, || list(&side));
    assert_eq!(listed, count);
    let kept = measured.time(&side, "collect, all wanted", count, || collect(&side));
    assert_eq!(kept, 0);
    measured.phases = joined(measured.phases);

    let began = Instant::now();
    side.restart_store(&["--collect-grace-seconds", "0"]);
    let started = began.elapsed();
    measured.time(&side, "start again", 1, || ());
    measured.phases.last_mut().unwrap().took = started;
    let collected = measured.time(&side, "collect, none wanted", count, || collect(&side));
    assert_eq!(collected, count);
    measured
}

/// All middle batches as one; the first and the last as they are, to be compared.
fn joined(phases: Vec<Phase>) -> Vec<Phase> {
    let last = phases.iter().rposition(|phase| phase.name == "put");
    let mut joined: Vec<Phase> = Vec::new();
    for (position, mut phase) in phases.into_iter().enumerate() {
        if Some(position) == last {
            phase.name = "put, last";
        }
        match joined.last_mut() {
            Some(before) if before.name == "put" && phase.name == "put" => {
                before.count += phase.count;
                before.took += phase.took;
                before.peak = phase.peak;
            }
            _ => joined.push(phase),
        }
    }
    joined
}

/// Loads an image of ten layers of that many MiB each, and unpacks it.
pub fn layers(mib: u64) -> Measured {
    let mut measured = Measured::new("store", LAYERS_MIB_MAX);
    let name = "docker.io/soak/layers:1";
    let archive = large(name, usize::try_from(mib).unwrap());
    let side = Side::start_with(&[], &["store"]);
    let count = LAYERS as u64;
    measured.time(&side, "load", count, || {
        let sent = side.load(archive.bytes);
        sent.expect("the archive is one that can be loaded");
    });
    let digest = archive.digest;
    let unpacked = measured.time(&side, "unpack", count, || {
        let lease = String::new();
        let mut snapshots = SnapshotsClient::new(side.channel());
        side.ask(snapshots.unpack(pb::UnpackRequest { digest, lease }))
    });
    assert_eq!(unpacked.unwrap().into_inner().unpacked, 10);
    measured
}

/// Pushes so many images at once to a registry that is another side's, and pulls them at once into a third.
pub fn transfers(images: usize, mib: u64) -> Measured {
    let mut measured = Measured::new("registry", TRANSFERS_MIB_MAX);
    let [from, between, to] = [(); 3].map(|()| Side::start_with(&[], &SERVICES[..3]));
    let registry = between.instance.registry();
    let name = |number| format!("{registry}/soak/transfer{number}:1");
    let names: Vec<_> = (0..images).map(name).collect();
    let block = image::noise(7, mib << 20);
    for name in &names {
        from.load(transferred(name, &block).bytes).unwrap();
    }
    let count = images as u64;
    measured.time(&from, "push", count, || at_once(&from, "push", &names));
    measured.time(&to, "pull", count, || at_once(&to, "pull", &names));
    measured.time(&between, "serve both", 2 * count, || ());
    measured
}

/// Layers that no other image has.
fn transferred(name: &str, block: &[u8]) -> image::Archive {
    let layer = |number| Layer::of(&image::tar_of(&[(&format!("{number} of {name}"), block)]));
    let layers: Vec<_> = (0..TRANSFERRED_LAYERS).map(layer).collect();
    image::archive(name, &layers.iter().collect::<Vec<_>>())
}

fn at_once(side: &Side, command: &str, names: &[String]) {
    std::thread::scope(|scope| {
        for name in names {
            scope.spawn(move || side.orlop(&[command, name], b"").unwrap());
        }
    });
}

fn large(name: &str, mib: usize) -> image::Archive {
    let block = image::noise(7, 2 << 20);
    let layer = |number: usize| {
        let files = (0..(mib << 20) / FILE_BYTES).map(|file| {
            let from = (file * 4099 + number * 65_537) % (block.len() - FILE_BYTES);
            (
                format!("layer{number}/file{file}"),
                &block[from..from + FILE_BYTES],
            )
        });
        let files: Vec<_> = files.collect();
        let files: Vec<_> = files
            .iter()
            .map(|(path, bytes)| (path.as_str(), *bytes))
            .collect();
        Layer::of(&image::tar_of(&files))
    };
    let layers: Vec<Layer> = std::thread::scope(|scope| {
        let made: Vec<_> = (0..LAYERS)
            .map(|number| scope.spawn(move || layer(number)))
            .collect();
        made.into_iter().map(|made| made.join().unwrap()).collect()
    });
    image::archive(name, &layers.iter().collect::<Vec<_>>())
}

fn bytes_of(number: u64) -> Vec<u8> {
    format!("blob {number}").into_bytes()
}

fn put(side: &Side, from: u64, count: u64) {
    let requests = (from..from + count).map(|number| {
        let data = bytes_of(number);
        pb::PutManyRequest {
            digest: image::digest(&data),
            data: Bytes::from(data),
            lease: String::new(),
        }
    });
    let stored = side.ask(async { side.content().put_many(tokio_stream::iter(requests)).await });
    assert_eq!(stored.unwrap().into_inner().stored, count);
}

fn stat(side: &Side, count: u64, step: u64) {
    let mut content = side.content();
    side.ask(async {
        for number in 0..count {
            let digest = image::digest(&bytes_of(number * step));
            content.stat(pb::StatRequest { digest }).await.unwrap();
        }
    });
}

fn find_missing(side: &Side, count: u64, step: u64) {
    let digests = (0..count).map(|number| image::digest(&bytes_of(number * step)));
    let request = pb::FindMissingRequest {
        digests: digests.collect(),
    };
    let answer = side.ask(async { side.content().find_missing(request).await });
    assert!(answer.unwrap().into_inner().missing.is_empty());
}

fn list(side: &Side) -> u64 {
    side.ask(async {
        let listing = side.content().list(pb::ListRequest::default()).await;
        let mut stream = listing.unwrap().into_inner();
        let mut count = 0;
        while stream.message().await.unwrap().is_some() {
            count += 1;
        }
        count
    })
}

fn collect(side: &Side) -> u64 {
    let mut maintenance = MaintenanceClient::new(side.channel());
    let request = pb::CollectRequest { dry_run: false };
    let collected = side.ask(maintenance.collect(request));
    collected.unwrap().into_inner().blobs
}
