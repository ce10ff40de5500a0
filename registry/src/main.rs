//! `orlop-registry`: the registry service. Configuration, then the server until told to stop.

use std::process::ExitCode;

use clap::Parser as _;
use orlop_registry::{Config, server};

fn main() -> ExitCode {
    let config = Config::parse();
    orlop_wire::run("registry", &config.service.clone(), async {
        server::serve(config, orlop_wire::shutdown_signal()).await
    })
}
