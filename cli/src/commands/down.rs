//! `orlop down`.

use std::process::ExitCode;

use clap::Args;

use crate::app::Context;
use crate::error::CliError;
use crate::{services, ui};

/// Stop the services of this host; containers live on
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orlop down")]
pub(crate) struct DownArgs {}

/// Runs the command.
pub(super) async fn run(_: DownArgs, context: &Context) -> Result<ExitCode, CliError> {
    if context.config.configured {
        return Err(CliError::Usage(
            "endpoints are configured (--host or ORLOP_…): the services there are not ours to stop"
                .to_owned(),
        ));
    }
    for service in services::stop_all(&context.config)? {
        ui::line(format!("{service}: stopped"))?;
    }
    Ok(ExitCode::SUCCESS)
}
