//! `orlop version`.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use crate::app::Context;
use crate::clients::{healthy, probe};
use crate::config::SERVICES;
use crate::error::CliError;
use crate::format::Template;
use crate::ui;

/// Show the version, and which services answer
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orlop version --format '{{.Client.Version}}'")]
pub(crate) struct VersionArgs {
    /// Template, or json
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
}

/// Runs the command. Starts nothing.
pub(super) async fn run(args: VersionArgs, context: &Context) -> Result<ExitCode, CliError> {
    let facts = facts(context);
    match args.format.as_deref() {
        None => print(&facts)?,
        Some("json") => ui::line(facts.to_string())?,
        Some(form) => ui::line(Template::parse(form)?.render(&facts)?)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn facts(context: &Context) -> Value {
    let services = SERVICES.map(|service| {
        let endpoint = context.config.endpoint(service);
        let state = if probe(endpoint).is_err() {
            "not running"
        } else if healthy(endpoint) {
            "running"
        } else {
            "not healthy"
        };
        json!({ "Name": service, "Endpoint": endpoint.to_string(), "State": state })
    });
    json!({
        "Client": {
            "Version": env!("CARGO_PKG_VERSION"),
            "Os": std::env::consts::OS,
            "Arch": architecture(),
        },
        "Services": services,
    })
}

/// The architecture by Go's name, as images use it.
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn print(facts: &Value) -> Result<(), CliError> {
    let text = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let client = &facts["Client"];
    ui::line("Client: orlop")?;
    ui::line(format!(" Version:   {}", text(client, "Version")))?;
    ui::line(format!(
        " OS/Arch:   {}/{}",
        text(client, "Os"),
        text(client, "Arch")
    ))?;
    ui::line("")?;
    ui::line("Services:")?;
    for service in facts["Services"].as_array().into_iter().flatten() {
        ui::line(format!(
            " {:<10} {} ({})",
            text(service, "Name") + ":",
            text(service, "State"),
            text(service, "Endpoint")
        ))?;
    }
    Ok(())
}
