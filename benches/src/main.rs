//! `make bench`: ours and Docker's, alternately in one run, with medians and ratios.
//!
//! Everything runs in a network namespace of its own, so that neither engine's bridges and rules
//! touch the host's. Peers that are not installed are skipped by name. `BENCH_ROUNDS` (default 10)
//! is the number of counted rounds; JSON files hold every sample. `BENCH_ONLY` is one group: `engines`,
//! `runtime` or `store`; `BENCH_CONTAINERS` says how many containers are many.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark is a program for a person at a terminal"
)]

mod engine;
mod machine;
mod report;
mod runtime;
mod store;
mod work;

use engine::{Engine, Registry};
use report::Report;

fn main() {
    if Registry::installed() {
        // Made now, if it was not yet: it is downloaded, and the namespace has no way out.
        drop(orlop_tests::fixtures::debian_node_rootfs());
    }
    machine::enter_network_namespace();
    let only = std::env::var("BENCH_ONLY").unwrap_or_default();
    let rounds = std::env::var("BENCH_ROUNDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(10);
    println!("{}", machine::describe());

    let wanted = |group| only.is_empty() || only == group;
    if wanted("engines") {
        engines(rounds);
    }
    if wanted("runtime") {
        runtime::measure(rounds);
    }
    if wanted("store") {
        store::measure(rounds);
    }
}

/// Ours and Docker's, by their command lines.
fn engines(rounds: usize) {
    let registry = Registry::start();
    if registry.is_none() {
        println!("skipped: push and pull (docker-registry is not installed)");
    }
    let started = engine::start_all();
    let engines: Vec<&dyn Engine> = started.iter().map(|engine| &**engine).collect();
    let mut report = Report::new(engines.iter().map(|engine| engine.name()).collect());
    for work in work::all(registry.as_ref()) {
        work.measure(&engines, rounds, &mut report);
    }
    report.print();
    report.save("target/bench.json");
}
