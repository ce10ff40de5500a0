//! `orlop logout`.

use std::process::ExitCode;

use clap::Args;

use super::login::host;
use crate::app::Context;
use crate::docker_config::DockerConfig;
use crate::error::CliError;
use crate::ui;

/// Forget the login of a registry
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orlop logout registry.example.com")]
pub(crate) struct LogoutArgs {
    /// The registry's host [default: docker.io]
    server: Option<String>,
}

/// Runs the command. Forgetting what is not there is no error, as with Docker.
pub(super) async fn run(args: LogoutArgs, context: &Context) -> Result<ExitCode, CliError> {
    let registry = host(args.server.as_deref())?;
    let directory = context.config.docker_config.as_deref();
    let mut config = DockerConfig::load(directory, &context.config.search_path)?;
    if config.erase(&registry)? {
        ui::line(format!("Removing login credentials for {registry}"))?;
    } else {
        ui::line(format!("Not logged in to {registry}"))?;
    }
    Ok(ExitCode::SUCCESS)
}
