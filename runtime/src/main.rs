//! The `orlop-runtime` binary: options in, service up, exit code out.

use std::process::ExitCode;

use clap::Parser as _;
use orlop_runtime::{Config, serve};

fn main() -> ExitCode {
    let config = Config::parse();
    orlop_wire::run("runtime", &config.service.clone(), serve(config))
}
