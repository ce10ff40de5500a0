//! `orlop network connect` and `orlop network disconnect`.

use std::process::ExitCode;

use clap::Args;
use orlop_proto::runtime::{
    ConnectContainerRequest, DisconnectContainerRequest, NetworkMembership,
};

use crate::app::Context;
use crate::error::CliError;

/// Put a container into a network
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orlop network connect --alias db backend postgres")]
pub(crate) struct ConnectArgs {
    /// Address in the network
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<String>,

    /// IPv6 address in the network
    #[arg(long, value_name = "ADDRESS")]
    ip6: Option<String>,

    /// One more name in the network
    #[arg(long, value_name = "NAME")]
    alias: Vec<String>,

    /// Know another container of the network by a name: CONTAINER[:ALIAS]
    #[arg(long, value_name = "CONTAINER[:ALIAS]")]
    link: Vec<String>,

    /// The network
    network: String,

    /// The container
    container: String,
}

/// Take a container out of a network
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orlop network disconnect backend postgres")]
pub(crate) struct DisconnectArgs {
    /// A container that is not in the network, or does not exist, is no error
    #[arg(short, long)]
    force: bool,

    /// The network
    network: String,

    /// The container
    container: String,
}

/// Puts a container into a network.
pub(in crate::commands) async fn connect(
    args: ConnectArgs,
    context: &Context,
) -> Result<ExitCode, CliError> {
    let request = ConnectContainerRequest {
        container: args.container,
        membership: Some(NetworkMembership {
            network: args.network,
            address: args.ip.unwrap_or_default(),
            aliases: args.alias,
            ipv6_address: args.ip6.unwrap_or_default(),
            links: args.link,
            ..NetworkMembership::default()
        }),
    };
    let mut networks = context.clients.networks()?;
    networks.connect_container(request).await?;
    Ok(ExitCode::SUCCESS)
}

/// Takes a container out of a network.
pub(in crate::commands) async fn disconnect(
    args: DisconnectArgs,
    context: &Context,
) -> Result<ExitCode, CliError> {
    let request = DisconnectContainerRequest {
        network: args.network,
        container: args.container,
        force: args.force,
    };
    let mut networks = context.clients.networks()?;
    networks.disconnect_container(request).await?;
    Ok(ExitCode::SUCCESS)
}
