//! What the store counts; `docs/metrics.md` says what each of them means. The parts that do the work
//! count it where they do it.

use std::sync::LazyLock;

use orlop_wire::metrics::{Counter, Family, Gauge, Histogram, register, seconds};

/// By the name of a lock.
type LockLabels = [(&'static str, &'static str); 1];

/// Blobs in one group commit: from one alone to a full batch of `PutMany` from several clients.
const GROUP_BLOBS: [f64; 8] = [1.0, 2.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0];

/// Everything that the store counts.
#[derive(Debug)]
pub struct Metrics {
    /// Blobs that were published; those that were here already do not count.
    pub blobs_written: Counter,
    /// Their bytes.
    pub blob_bytes_written: Counter,
    /// Ingests that became a blob, or were found to be one that was here.
    pub ingests_committed: Counter,
    /// Blobs that shared a commit.
    pub commit_blobs: Histogram,
    /// The syncs of a commit.
    pub commit_seconds: Histogram,
    /// From a layer's blob to its tree or image.
    pub unpack_seconds: Histogram,
    /// Bytes of plain tar that were unpacked.
    pub unpacked_bytes: Counter,
    /// One collection.
    pub collection_seconds: Histogram,
    /// Bytes that collections have freed.
    pub collected_bytes: Counter,
    /// Blobs that did not have the bytes of their name and were put aside.
    pub blobs_quarantined: Counter,
    /// Times that the index was made again from files.
    pub index_rebuilds: Counter,
    /// Layers that are mounted now.
    pub mounts: Gauge,
    pub(crate) lock_acquisitions: Family<LockLabels, Counter>,
    pub(crate) lock_wait_seconds: Family<LockLabels, Histogram, fn() -> Histogram>,
}

/// Of this process.
pub static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::registered);

impl Metrics {
    fn registered() -> Self {
        Self {
            blobs_written: counter("blobs_written", "Blobs that were published"),
            blob_bytes_written: counter("blob_bytes_written", "Bytes of published blobs"),
            ingests_committed: counter("ingests_committed", "Ingests that were committed"),
            commit_blobs: histogram(
                "commit_blobs",
                "Blobs that shared a commit",
                Histogram::new(GROUP_BLOBS),
            ),
            commit_seconds: histogram("commit_seconds", "Commits, with their syncs", seconds()),
            unpack_seconds: histogram("unpack_seconds", "Unpacking of one layer", seconds()),
            unpacked_bytes: counter("unpacked_bytes", "Bytes of plain tar that were unpacked"),
            collection_seconds: histogram("collection_seconds", "Collections", seconds()),
            collected_bytes: counter("collected_bytes", "Bytes that collections freed"),
            blobs_quarantined: counter("blobs_quarantined", "Damaged blobs that were put aside"),
            index_rebuilds: counter("index_rebuilds", "Times that the index was made anew"),
            mounts: register(
                "orlop_store_mounts",
                "Layers that are mounted",
                Gauge::default(),
            ),
            lock_acquisitions: register(
                "orlop_store_lock_acquisitions",
                "Times that a lock was taken",
                Family::default(),
            ),
            lock_wait_seconds: register(
                "orlop_store_lock_wait_seconds",
                "Waits for a lock that was not free",
                Family::new_with_constructor(seconds as fn() -> Histogram),
            ),
        }
    }
}

fn counter(name: &str, help: &str) -> Counter {
    register(&format!("orlop_store_{name}"), help, Counter::default())
}

fn histogram(name: &str, help: &str, metric: Histogram) -> Histogram {
    register(&format!("orlop_store_{name}"), help, metric)
}
