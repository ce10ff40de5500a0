//! The `store` service.

use std::process::ExitCode;

use clap::Parser as _;
use orlop_store::Config;
use orlop_store::server::run;

fn main() -> ExitCode {
    let config = Config::parse();
    orlop_wire::run("store", &config.service, run(&config))
}
