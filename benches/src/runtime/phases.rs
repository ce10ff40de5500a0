//! Where the time of a start goes: the spans that the runtime logs at debug level, added up.

use std::collections::HashMap;
use std::fs;
use std::time::Instant;

use orlop_tests::Instance;

/// The spans, in the order of a run; those further in are parts of the one above.
const PHASES: [(&str, &str); 12] = [
    ("create", "create"),
    ("resolve", "  image and request"),
    ("prepare", "  snapshot and record"),
    ("start", "start"),
    ("network", "  namespace, address, ports"),
    ("spec", "  document, files, cgroup"),
    ("spawn", "  shim: spawned"),
    ("build", "  shim: container built"),
    ("save", "    record, meanwhile"),
    ("join", "  streams joined"),
    ("exec", "  command let go"),
    ("end", "end: network, record"),
];

/// Runs containers on an instance that logs its phases, and prints the median of each.
pub(crate) fn measure(rounds: usize) {
    let instance = Instance::stopped();
    let mut up = instance.command(&["up", "--registry-http", instance.registry()]);
    let started = up.env("ORLOP_LOG", "info,orlop_runtime=debug").output();
    assert!(started.unwrap().status.success());
    instance.import_busybox("busybox");
    let commands = (0..=rounds).map(|_| {
        let start = Instant::now();
        let run = instance.run(&["run", "--rm", "busybox", "true"]);
        run.success();
        start.elapsed().as_secs_f64() * 1e3
    });
    let commands: Vec<_> = commands.collect();
    let log = fs::read_to_string(instance.root().join("logs/runtime.log")).unwrap();
    print(&commands, &phases(&log));
}

/// Milliseconds by phase, as they came.
fn phases(log: &str) -> HashMap<String, Vec<f64>> {
    let mut found = HashMap::<_, Vec<_>>::new();
    for (name, milliseconds) in log.lines().filter_map(closed) {
        found.entry(name).or_default().push(milliseconds);
    }
    found
}

/// The span that a line of the log closes, and how long it was open.
fn closed(line: &str) -> Option<(String, f64)> {
    let (before, times) = line.split_once("close time.busy=")?;
    let (busy, idle) = times.split_once(" time.idle=")?;
    let spans = before.split_whitespace().find(|word| word.ends_with(':'))?;
    let name = spans.trim_end_matches(':').rsplit(':').next()?;
    let name = name.split('{').next()?;
    Some((name.to_owned(), milliseconds(busy)? + milliseconds(idle)?))
}

/// `1.5ms` and its like.
fn milliseconds(text: &str) -> Option<f64> {
    let units = [("ns", 1e-6), ("µs", 1e-3), ("ms", 1.0), ("s", 1e3)];
    let (number, factor) = units
        .iter()
        .find_map(|(unit, factor)| Some((text.trim().strip_suffix(unit)?, factor)))?;
    Some(number.parse::<f64>().ok()? * factor)
}

fn print(commands: &[f64], phases: &HashMap<String, Vec<f64>>) {
    println!("\n{:34}{:>20}", "phase of run --rm true", "median, ms");
    println!("{:34}{:>20.2}", "the whole command", median(commands));
    for (name, text) in PHASES {
        let samples = phases.get(name).expect("the runtime has lost a span");
        println!("{text:34}{:>20.2}", median(samples));
    }
}

fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
