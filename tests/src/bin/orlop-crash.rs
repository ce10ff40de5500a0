//! `orlop-crash`: kills a store under load, cuts the power of its disk, and compares what it had
//! acknowledged with what it has. Ends with 1 and the seed if something does not hold.
#![allow(clippy::print_stdout, reason = "a program that reports")]

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use orlop_tests::crash::{Plan, run};

/// Kills the store and cuts its power, many times, and says what does not hold.
#[derive(Debug, Parser)]
struct Options {
    /// Times that each named moment is died at
    #[arg(long, default_value_t = 5)]
    rounds: u64,
    /// `kill -9` at any time, besides
    #[arg(long, default_value_t = 700)]
    kills: u64,
    /// Losses of power
    #[arg(long, default_value_t = 200)]
    power_cuts: u64,
    /// Nothing new begins after so many seconds
    #[arg(long, default_value_t = 900)]
    seconds: u64,
    /// Where all chance comes from [default: the clock]
    #[arg(long)]
    seed: Option<u64>,
    /// Stores at once; every other one is on a disk whose power is cut
    #[arg(long, default_value_t = 4)]
    lanes: u64,
    /// Options for the store, for example `--layers=directory`
    #[arg(last = true)]
    store: Vec<String>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let clock = std::time::UNIX_EPOCH.elapsed();
    let seed = options
        .seed
        .unwrap_or(clock.map_or(0, |time| time.as_secs()));
    let tally = run(&Plan {
        rounds: options.rounds,
        kills: options.kills,
        power_cuts: options.power_cuts,
        time: Duration::from_secs(options.seconds),
        seed,
        lanes: options.lanes,
        options: options.store,
    });
    println!("{tally}\nseed {seed}");
    let missed = tally.missed();
    if !missed.is_empty() {
        println!("never met: {missed:?}");
    }
    ExitCode::from(u8::from(!tally.violations.is_empty() || !missed.is_empty()))
}
