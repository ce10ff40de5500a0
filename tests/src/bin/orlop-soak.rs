//! `orlop-soak`: everything at once for as long as one likes, and what store and registry take for much at once.
#![allow(clippy::print_stdout, reason = "a program that reports")]

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use orlop_tests::soak::{self, Plan, memory};

/// Work two instances hard and verify everything that they acknowledge.
#[derive(Debug, Parser)]
#[command(name = "orlop-soak")]
struct Args {
    /// How long
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    seconds: u64,

    /// Operations at once
    #[arg(long, value_name = "NUMBER", default_value_t = 8)]
    workers: u64,

    /// Where the dice begin
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,

    /// Instead: put so many small blobs into a store, and measure
    #[arg(long, value_name = "NUMBER")]
    blobs: Option<u64>,

    /// Instead: unpack ten layers of so many MiB at once, and measure
    #[arg(long, value_name = "MIB")]
    layers: Option<u64>,

    /// Instead: push and pull eight images at once, with layers of so many MiB, and measure
    #[arg(long, value_name = "MIB")]
    transfers: Option<u64>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let measured = (args.blobs.map(memory::blobs))
        .or_else(|| args.layers.map(memory::layers))
        .or_else(|| args.transfers.map(|mib| memory::transfers(8, mib)));
    let good = match measured {
        Some(measured) => {
            println!("{measured}");
            measured.fits()
        }
        None => soak(&args),
    };
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn soak(args: &Args) -> bool {
    let report = soak::run(Plan {
        duration: Duration::from_secs(args.seconds),
        workers: args.workers,
        seed: args.seed,
    });
    println!("{report}");
    let slow = report.slow_locks();
    for lock in &slow {
        println!("waited for too long: {lock:?}");
    }
    report.failures().is_empty() && slow.is_empty()
}
