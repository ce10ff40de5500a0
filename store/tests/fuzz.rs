//! The targets of `store/fuzz`, called with the same mutated inputs each time.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

#[path = "fuzz/mutator.rs"]
mod mutator;
#[path = "fuzz/seeds.rs"]
mod seeds;
#[path = "support/smith.rs"]
mod smith;
#[path = "../fuzz/targets.rs"]
mod targets;
use mutator::Mutator;
use targets::TARGETS;

/// Inputs for each target.
const ROUNDS: usize = 20_000;

/// Calls a target with `rounds` mutations of its seeds; the first input that it does not bear is in
/// the message.
fn run(name: &str, seed: u64, rounds: usize) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).unwrap();
    let seeds = seeds::of(name);
    let mut mutator = Mutator::new(seed);
    for round in 0..seeds.len() + rounds {
        let input = match seeds.get(round) {
            Some(seed) => seed.clone(),
            None => mutator.next(&seeds, name == "tar"),
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| target(&input)));
        assert!(
            outcome.is_ok(),
            "{name}, round {round}: {}",
            input.escape_ascii()
        );
    }
}

#[test]
fn tar() {
    run("tar", 1, ROUNDS);
}

#[test]
fn gzip() {
    run("gzip", 2, ROUNDS / 4);
}

#[test]
fn zstd() {
    run("zstd", 3, ROUNDS / 4);
}

#[test]
fn document() {
    run("document", 4, ROUNDS);
}

#[test]
fn reference() {
    run("reference", 5, ROUNDS);
}

#[test]
fn digest() {
    run("digest", 6, ROUNDS);
}

/// Where a fuzzer that follows coverage begins.
#[test]
fn the_seeds_can_be_written() {
    let directory = tempfile::tempdir().unwrap();
    let wanted = option_env!("ORLOP_SEEDS").map(Path::new);
    for (name, _) in TARGETS {
        let place = wanted.unwrap_or(directory.path()).join(name);
        fs::create_dir_all(&place).unwrap();
        for (number, seed) in seeds::of(name).iter().enumerate() {
            fs::write(place.join(number.to_string()), seed).unwrap();
        }
        assert!(fs::read_dir(place).unwrap().count() > 1, "{name}");
    }
}
