//! `orlop network …`.

use std::process::ExitCode;

use clap::Args;
use orlop_proto::runtime::{InspectNetworkRequest, ListNetworksRequest, Network};
use serde_json::{Map, Value, json};

use super::inspect;
use crate::app::Context;
use crate::error::CliError;
use crate::format::listing;
use crate::ui;
use crate::ui::table::Table;

/// Show networks
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orlop network ls")]
pub(crate) struct ListArgs {
    /// Print names only
    #[arg(short, long)]
    quiet: bool,

    /// Template, `table TEMPLATE`, or json
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
}

/// Show everything about networks
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orlop network inspect bridge")]
pub(crate) struct InspectArgs {
    /// Names
    #[arg(required = true, value_name = "NETWORK")]
    names: Vec<String>,

    /// Template, or json
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
}

/// Shows networks.
pub(super) async fn list(args: ListArgs, context: &Context) -> Result<ExitCode, CliError> {
    let networks = context
        .clients
        .networks()?
        .list(ListNetworksRequest {})
        .await?
        .into_inner()
        .networks;
    if args.quiet {
        networks
            .iter()
            .try_for_each(|network| ui::line(ui::text::escape(&network.name)))?;
    } else if let Some(form) = &args.format {
        let rows: Vec<_> = networks.iter().map(facts).collect();
        listing::print(form, &rows)?;
    } else {
        let mut table = Table::new(["NAME", "DRIVER", "SUBNET", "SCOPE"]);
        for network in networks {
            table.row([
                network.name,
                network.driver,
                network.subnet,
                "local".to_owned(),
            ]);
        }
        table.print()?;
    }
    Ok(ExitCode::SUCCESS)
}

fn facts(network: &Network) -> Map<String, Value> {
    let addresses = if network.subnet.is_empty() {
        json!([])
    } else {
        json!([{ "Subnet": network.subnet, "Gateway": network.gateway }])
    };
    let facts = json!({
        "Name": network.name,
        "Driver": network.driver,
        "Scope": "local",
        "IPAM": { "Driver": "default", "Config": addresses },
        "Interface": network.interface,
        "Labels": network.labels,
    });
    facts.as_object().cloned().unwrap_or_default()
}

/// Shows everything about networks.
pub(super) async fn inspect(args: InspectArgs, context: &Context) -> Result<ExitCode, CliError> {
    inspect::show(&args.names, args.format.as_deref(), async |name| {
        let request = InspectNetworkRequest { name };
        let network = context
            .clients
            .networks()?
            .inspect(request)
            .await?
            .into_inner();
        Ok(Value::Object(facts(&network)))
    })
    .await
}
