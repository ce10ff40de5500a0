//! `orlop update`.

use std::process::ExitCode;

use clap::Args;
use orlop_proto::runtime::{Resources, UpdateRequest};

use super::each::each;
use super::limits::LimitOptions;
use crate::app::Context;
use crate::error::CliError;
use crate::ui;
use crate::values::security;

/// Change the limits and the restart policy of containers
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orlop update --memory 512m --restart always web")]
pub(crate) struct UpdateArgs {
    /// Ids or names
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,

    #[command(flatten)]
    limits: LimitOptions,

    /// Restart: no, on-failure[:TIMES], always, unless-stopped
    #[arg(long, value_name = "POLICY")]
    restart: Option<String>,
}

/// Runs the command.
pub(super) async fn run(args: UpdateArgs, context: &Context) -> Result<ExitCode, CliError> {
    if args.restart.is_none() && args.limits == LimitOptions::default() {
        return Err(CliError::Usage(
            "nothing to change: give one limit or --restart at least".to_owned(),
        ));
    }
    let resources: Resources = args.limits.resources()?;
    let restart = args.restart.as_deref().map(security::restart).transpose()?;
    each(&args.containers, async |name| {
        let request = UpdateRequest {
            id: name.clone(),
            resources: Some(resources.clone()),
            restart: restart.clone(),
        };
        let answer = context.clients.containers()?.update(request).await?;
        for warning in answer.into_inner().warnings {
            ui::note(format!("orlop: {}", ui::text::escape(&warning)));
        }
        ui::line(&name)
    })
    .await
}
