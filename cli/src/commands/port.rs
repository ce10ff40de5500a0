//! `orlop port`.

use std::process::ExitCode;

use clap::Args;
use orlop_proto::runtime::{InspectRequest, PortBinding};

use crate::app::Context;
use crate::error::CliError;
use crate::ui;

/// Show where a container's ports are published
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orlop port web 80/tcp")]
pub(crate) struct PortArgs {
    /// Id or name
    container: String,

    /// Only this port: PORT[/tcp|udp]
    port: Option<String>,
}

/// Runs the command.
pub(super) async fn run(args: PortArgs, context: &Context) -> Result<ExitCode, CliError> {
    let request = InspectRequest {
        id: args.container.clone(),
        size: false,
    };
    let container = context
        .clients
        .containers()?
        .inspect(request)
        .await?
        .into_inner();
    let Some(port) = &args.port else {
        for binding in &container.ports {
            ui::line(format!("{} -> {}", inside(binding), outside(binding)))?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    let wanted = if port.contains('/') {
        port.clone()
    } else {
        format!("{port}/tcp")
    };
    let mut found = false;
    for binding in container
        .ports
        .iter()
        .filter(|binding| inside(binding) == wanted)
    {
        found = true;
        ui::line(outside(binding))?;
    }
    if !found {
        return Err(CliError::NotPublished {
            container: args.container,
            port: wanted,
        });
    }
    Ok(ExitCode::SUCCESS)
}

/// `80/tcp`.
pub(super) fn inside(binding: &PortBinding) -> String {
    let protocol = if binding.protocol.is_empty() {
        "tcp"
    } else {
        &binding.protocol
    };
    format!("{}/{protocol}", binding.container_port)
}

/// `0.0.0.0:8080`.
pub(super) fn outside(binding: &PortBinding) -> String {
    let address = host_address(binding);
    if address.contains(':') {
        format!("[{address}]:{}", binding.host_port)
    } else {
        format!("{address}:{}", binding.host_port)
    }
}

/// The address; all of them when none was given.
pub(crate) fn host_address(binding: &PortBinding) -> &str {
    if binding.host_address.is_empty() {
        "0.0.0.0"
    } else {
        &binding.host_address
    }
}
