//! `orlop up`.

use std::process::ExitCode;

use clap::Args;

use crate::app::Context;
use crate::error::CliError;
use crate::services::{self, StartOptions};
use crate::ui;

/// Start the services of this host in the background
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orlop up --registry-http 127.0.0.1:5000")]
pub(crate) struct UpArgs {
    /// Where our registry serves /v2/ [default: 127.0.0.1:5000]
    #[arg(long, value_name = "ADDRESS:PORT")]
    registry_http: Option<String>,

    /// Published ports: forward them, or input: the host's own input rules decide [default: forward]
    #[arg(long, value_parser = ["forward", "input"], value_name = "WAY")]
    published_ports: Option<String>,
}

/// Runs the command.
pub(super) async fn run(args: UpArgs, context: &Context) -> Result<ExitCode, CliError> {
    if context.config.configured {
        return Err(CliError::Usage(
            "endpoints are configured (--host or ORLOP_…): the services there are not ours to start"
                .to_owned(),
        ));
    }
    let options = StartOptions {
        registry_http: args.registry_http,
        published_ports: args.published_ports,
    };
    let started = services::start_missing(&context.config, &options)?;
    if options.registry_http.is_some() && !started.contains(&"registry") {
        ui::note(
            "orlop: the registry service runs already: `orlop down` first to move its address",
        );
    }
    if options.published_ports.is_some() && !started.contains(&"runtime") {
        ui::note("orlop: the runtime service runs already: `orlop down` first to change it");
    }
    for service in started {
        ui::line(format!("{service}: started"))?;
    }
    Ok(ExitCode::SUCCESS)
}
