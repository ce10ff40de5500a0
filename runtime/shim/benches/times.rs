//! Times of the shim's main path: `cargo bench -p orlop-shim`. Medians of [`ROUNDS`] rounds.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    dead_code,
    reason = "a measurement, with the tests' support"
)]

#[path = "../tests/shim/support.rs"]
mod support;

use std::time::Instant;

use support::Box;

/// Containers, and later processes, that are started.
const ROUNDS: usize = 100;

fn main() {
    let (mut starts, mut runs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let mut container = Box::new(&["true"]);
        let began = Instant::now();
        container.start();
        starts.push(milliseconds(began));
        container.ended();
        runs.push(milliseconds(began));
    }
    let mut container = Box::new(&["sleep", "100"]);
    container.start();
    let mut execs = Vec::new();
    for _ in 0..ROUNDS {
        let began = Instant::now();
        container.exec("", &["true"]);
        execs.push(milliseconds(began));
    }
    let (start, run, exec) = (median(starts), median(runs), median(execs));
    println!("start {start:.2} ms, start to end {run:.2} ms, exec {exec:.2} ms");
    let status = std::fs::read_to_string(format!("/proc/{}/status", container.shim_pid())).unwrap();
    status
        .lines()
        .filter(|line| line.starts_with("Rss"))
        .for_each(|line| println!("{line}"));
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
