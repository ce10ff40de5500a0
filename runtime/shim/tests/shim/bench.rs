//! Times of the main path, printed for whoever asks with `--nocapture`; nothing is asserted.

use std::time::Instant;

use crate::support::Box;

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

#[test]
#[ignore = "a measurement; run it with --release --ignored --nocapture"]
fn times() {
    let mut runs = Vec::new();
    let mut creates = Vec::new();
    for _ in 0..100 {
        let mut container = Box::new(&["true"]);
        let began = Instant::now();
        container.start();
        creates.push(began.elapsed().as_secs_f64() * 1e3);
        container.ended();
        runs.push(began.elapsed().as_secs_f64() * 1e3);
    }
    let mut container = Box::new(&["sleep", "100"]);
    container.start();
    let mut execs = Vec::new();
    for _ in 0..100 {
        let began = Instant::now();
        container.exec("", &["true"]);
        execs.push(began.elapsed().as_secs_f64() * 1e3);
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", container.shim_pid())).unwrap();
    let memory = status.lines().filter(|line| line.starts_with("Rss"));
    println!(
        "start {:.2} ms, run {:.2} ms, exec {:.2} ms",
        median(creates),
        median(runs),
        median(execs)
    );
    println!("{}", memory.collect::<Vec<_>>().join(" "));
}
