//! `orlop-churn`: many containers one after another, many at once, and nothing of them afterwards.
#![allow(clippy::print_stdout, reason = "a program that reports")]

use std::process::ExitCode;

use clap::Parser;
use orlop_tests::churn::{self, Plan};

/// Have containers come and go, and verify that nothing of them stays.
#[derive(Debug, Parser)]
#[command(name = "orlop-churn")]
struct Args {
    /// Containers that are run, stopped, started and removed
    #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
    cycles: u64,

    /// Containers that run at the same time (a bridge has at most 1,023)
    #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
    at_once: u64,

    /// Commands at the same time
    #[arg(long, value_name = "NUMBER", default_value_t = 8)]
    workers: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let report = churn::run(Plan {
        cycles: args.cycles,
        at_once: args.at_once,
        workers: args.workers,
    });
    println!("{report}");
    if report.remains().is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
