//! `orlop info`.

use std::process::ExitCode;

use clap::Args;
use orlop_proto::registry::EndpointRequest;
use orlop_proto::runtime::{ContainerStatus, ListContainersRequest};
use orlop_proto::store::DiskUsageRequest;
use serde_json::{Value, json};

use super::version::architecture;
use crate::app::Context;
use crate::error::CliError;
use crate::format::Template;
use crate::ui;

/// Show facts about the instance
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orlop info --format '{{.ContainersRunning}}'")]
pub(crate) struct InfoArgs {
    /// Template, or json
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
}

/// Runs the command.
pub(super) async fn run(args: InfoArgs, context: &Context) -> Result<ExitCode, CliError> {
    let facts = facts(context).await?;
    match args.format.as_deref() {
        None => print(&facts)?,
        Some("json") => ui::line(facts.to_string())?,
        Some(form) => ui::line(Template::parse(form)?.render(&facts)?)?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn facts(context: &Context) -> Result<Value, CliError> {
    let request = ListContainersRequest {
        all: true,
        ..ListContainersRequest::default()
    };
    let containers = context
        .clients
        .containers()?
        .list(request)
        .await?
        .into_inner()
        .containers;
    let count = |status: ContainerStatus| {
        let of = |c: &&orlop_proto::runtime::Container| {
            c.state
                .as_ref()
                .is_some_and(|state| state.status() == status)
        };
        containers.iter().filter(of).count()
    };
    let usage = context
        .clients
        .maintenance()?
        .disk_usage(DiskUsageRequest {})
        .await?
        .into_inner();
    let endpoint = context
        .clients
        .repositories()?
        .endpoint(EndpointRequest {})
        .await;
    let address = endpoint.map_or_else(
        |status| format!("not served: {}", CliError::from(status)),
        |endpoint| endpoint.into_inner().address,
    );
    let host = rustix::system::uname();
    let (running, paused) = (
        count(ContainerStatus::Running) + count(ContainerStatus::Restarting),
        count(ContainerStatus::Paused),
    );
    Ok(json!({
        "Containers": containers.len(),
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": containers.len() - running - paused,
        "Images": usage.images,
        "ServerVersion": env!("CARGO_PKG_VERSION"),
        "KernelVersion": host.release().to_string_lossy(),
        "OSType": std::env::consts::OS,
        "Architecture": architecture(),
        "NCPU": std::thread::available_parallelism().map_or(1, usize::from),
        "Name": host.nodename().to_string_lossy(),
        "OrlopRootDir": context.config.paths.root,
        "OrlopRunDir": context.config.paths.run_dir,
        "RegistryAddress": address,
    }))
}

fn print(facts: &Value) -> Result<(), CliError> {
    for (label, field) in [
        ("Containers", "Containers"),
        (" Running", "ContainersRunning"),
        (" Paused", "ContainersPaused"),
        (" Stopped", "ContainersStopped"),
        ("Images", "Images"),
        ("Server Version", "ServerVersion"),
        ("Kernel Version", "KernelVersion"),
        ("OSType", "OSType"),
        ("Architecture", "Architecture"),
        ("CPUs", "NCPU"),
        ("Name", "Name"),
        ("Orlop Root Dir", "OrlopRootDir"),
        ("Orlop Run Dir", "OrlopRunDir"),
        ("Registry", "RegistryAddress"),
    ] {
        let value = match &facts[field] {
            Value::String(text) => ui::text::escape(text),
            other => other.to_string(),
        };
        ui::line(format!("{label}: {value}"))?;
    }
    Ok(())
}
