//! The store by itself, through its socket: both forms of layers beside GNU tar, trees through a mount
//! beside the host's file system, and what a million blobs cost.

mod blobs;
mod layers;
mod service;
mod trees;

use crate::report::Report;

/// The columns: ours with layers as images, ours with layers as directories, and the peer that the
/// work names.
const COLUMNS: [&str; 3] = ["orlop, image", "orlop, directory", "peer"];

/// Measures everything; `rounds` for what is quick, fewer for what is not.
pub(crate) fn measure(rounds: usize) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut report = Report::new(COLUMNS.to_vec());
    layers::measure(&runtime, (rounds / 3).max(3), &mut report);
    trees::measure(&runtime, (rounds / 3).max(3), &mut report);
    report.print();
    report.save("target/bench-store.json");
    blobs::measure(&runtime);
}
