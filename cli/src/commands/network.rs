//! `orlop network …`.

use std::process::ExitCode;

use clap::Args;
use orlop_proto::runtime::{
    CreateNetworkRequest, InspectNetworkRequest, ListNetworksRequest, Network, RemoveNetworkRequest,
};
use serde_json::{Map, Value, json};

use super::each::each;
use super::inspect;
use crate::app::Context;
use crate::error::CliError;
use crate::format::listing;
use crate::ui;
use crate::ui::table::Table;
use crate::values::pair;

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

/// Make a network
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orlop network create --subnet 10.5.0.0/24 backend")]
pub(crate) struct CreateArgs {
    /// Its name
    name: String,

    /// Kind of network
    #[arg(short, long, default_value = "bridge", value_name = "DRIVER")]
    driver: String,

    /// Addresses, for example 10.5.0.0/24
    #[arg(long, value_name = "SUBNET")]
    subnet: Option<String>,

    /// Let nothing out of it
    #[arg(long)]
    internal: bool,

    /// Set a label
    #[arg(long, value_name = "KEY[=VALUE]")]
    label: Vec<String>,
}

/// Remove networks
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orlop network rm backend")]
pub(crate) struct RemoveArgs {
    /// Names
    #[arg(required = true, value_name = "NETWORK")]
    names: Vec<String>,
}

/// Makes a network.
pub(super) async fn create(args: CreateArgs, context: &Context) -> Result<ExitCode, CliError> {
    let request = CreateNetworkRequest {
        name: args.name,
        driver: args.driver,
        subnet: args.subnet.unwrap_or_default(),
        internal: args.internal,
        labels: args.label.iter().map(|label| pair(label)).collect(),
    };
    let network = context
        .clients
        .networks()?
        .create(request)
        .await?
        .into_inner();
    ui::line(network.name)?;
    Ok(ExitCode::SUCCESS)
}

/// Removes networks.
pub(super) async fn remove(args: RemoveArgs, context: &Context) -> Result<ExitCode, CliError> {
    each(&args.names, async |name| {
        let request = RemoveNetworkRequest { name: name.clone() };
        context.clients.networks()?.remove(request).await?;
        ui::line(&name)
    })
    .await
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
