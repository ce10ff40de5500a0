//! `orlop system check`.

use std::process::ExitCode;

use clap::Args;
use orlop_proto::store::{CheckFinding, CheckRequest};

use crate::app::Context;
use crate::error::CliError;
use crate::ui;

/// Look for damage in the store
///
/// Compares everything that the store keeps with everything else. Nothing is lost by a repair: what
/// cannot be proved to be garbage is moved aside. The exit code is 1 when something is left that is not
/// as it should be.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orlop system check --rehash --repair")]
pub(crate) struct CheckArgs {
    /// Repair what can be repaired
    #[arg(long)]
    repair: bool,

    /// Read every blob and every layer, and compare them with what they should be
    #[arg(long)]
    rehash: bool,
}

/// Prints a line for each finding.
pub(in crate::commands) async fn run(
    args: CheckArgs,
    context: &Context,
) -> Result<ExitCode, CliError> {
    let request = CheckRequest {
        repair: args.repair,
        rehash: args.rehash,
    };
    let mut maintenance = context.clients.maintenance()?;
    let mut findings = maintenance.check(request).await?.into_inner();
    let (mut left, mut repaired) = (0_u64, 0_u64);
    while let Some(finding) = findings.message().await? {
        ui::line(describe(&finding))?;
        if finding.repaired {
            repaired += 1;
        } else {
            left += 1;
        }
    }
    ui::line(match (left, repaired) {
        (0, 0) => "nothing found".to_owned(),
        (0, repaired) => format!("{repaired} repaired, nothing left"),
        (left, repaired) => format!("{left} left, {repaired} repaired"),
    })?;
    Ok(ExitCode::from(u8::from(left > 0)))
}

fn describe(finding: &CheckFinding) -> String {
    let subject = ui::text::escape(&finding.subject);
    let detail = ui::text::escape(&finding.detail);
    let repaired = if finding.repaired { " (repaired)" } else { "" };
    format!("{}: {subject}: {detail}{repaired}", finding.kind)
}
