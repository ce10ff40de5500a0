//! `orlop-builder`: the builder as a process of its own.

use std::process::ExitCode;

use clap::Parser as _;
use orlop_builder::config::Config;
use orlop_builder::server;

fn main() -> ExitCode {
    let config = Config::parse();
    orlop_wire::run("builder", &config.service, server::run(&config))
}
