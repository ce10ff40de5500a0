//! `orlop network …`.

pub(super) mod connect;

use std::process::ExitCode;

use clap::Args;
use orlop_proto::runtime::{
    CreateNetworkRequest, Filter, InspectNetworkRequest, ListNetworksRequest, Network,
    PruneNetworksRequest, RemoveNetworkRequest,
};
use serde_json::{Map, Value, json};

use super::each::each;
use super::{filters, inspect, system};
use crate::app::Context;
use crate::error::CliError;
use crate::format::listing;
use crate::ui::table::Table;
use crate::ui::{self, time};
use crate::values::{invalid, pair};

/// Digits of an id that are shown.
const ID_SHOWN: usize = 12;
/// What networks can be filtered by.
const FILTERS: [&str; 6] = ["driver", "id", "label", "name", "scope", "type"];

/// Show networks
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orlop network ls --filter type=custom")]
pub(crate) struct ListArgs {
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,

    /// Print ids in full
    #[arg(long)]
    no_trunc: bool,

    /// Only those that fit: driver, id, label, name, scope, type (custom or builtin)
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,

    /// Template, `table TEMPLATE`, or json
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
}

/// Show everything about networks
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orlop network inspect bridge")]
pub(crate) struct InspectArgs {
    /// Names or ids
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

    /// Give it IPv6 as well
    #[arg(long)]
    ipv6: bool,

    /// Addresses, for example 10.5.0.0/24; once more for IPv6, for example fd00:5::/64
    #[arg(long, value_name = "SUBNET")]
    subnet: Vec<String>,

    /// Address of the host in it; once more for IPv6
    #[arg(long, value_name = "ADDRESS")]
    gateway: Vec<String>,

    /// Where containers' addresses are taken from, for example 10.5.0.128/25; once more for IPv6
    #[arg(long, value_name = "SUBNET")]
    ip_range: Vec<String>,

    /// Keep an address from containers: NAME=ADDRESS
    #[arg(long, value_name = "NAME=ADDRESS")]
    aux_address: Vec<String>,

    /// Say that any container can join, which is so anyhow
    #[arg(long)]
    attachable: bool,

    /// How far it reaches: local
    #[arg(long, default_value = "local", value_name = "SCOPE")]
    scope: String,

    /// Who gives out its addresses: default
    #[arg(long, default_value = "default", value_name = "DRIVER")]
    ipam_driver: String,

    /// Let nothing out of it
    #[arg(long)]
    internal: bool,

    /// Set a label
    #[arg(long, value_name = "KEY[=VALUE]")]
    label: Vec<String>,

    /// Set an option: com.docker.network.driver.mtu and others
    #[arg(short, long, value_name = "OPTION=VALUE")]
    opt: Vec<String>,
}

/// Remove networks
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orlop network rm backend")]
pub(crate) struct RemoveArgs {
    /// Names or ids
    #[arg(required = true, value_name = "NETWORK")]
    names: Vec<String>,
}

/// Remove networks that no container is in
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orlop network prune --force")]
pub(crate) struct PruneArgs {
    /// Do not ask
    #[arg(short, long)]
    force: bool,

    /// Only those that fit: label=KEY[=VALUE]
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
}

/// Makes a network.
pub(super) async fn create(args: CreateArgs, context: &Context) -> Result<ExitCode, CliError> {
    let (subnet, ipv6_subnet) = families("--subnet", args.subnet)?;
    let (gateway, ipv6_gateway) = families("--gateway", args.gateway)?;
    let (ip_range, ipv6_range) = families("--ip-range", args.ip_range)?;
    only("--scope", &args.scope, "local")?;
    only("--ipam-driver", &args.ipam_driver, "default")?;
    let request = CreateNetworkRequest {
        name: args.name,
        driver: args.driver,
        subnet,
        gateway,
        ip_range,
        ipv6: args.ipv6,
        ipv6_subnet,
        ipv6_gateway,
        ipv6_range,
        aux_addresses: args.aux_address.iter().map(|text| pair(text)).collect(),
        attachable: args.attachable,
        options: args.opt.iter().map(|option| pair(option)).collect(),
        internal: args.internal,
        labels: args.label.iter().map(|label| pair(label)).collect(),
    };
    let network = context
        .clients
        .networks()?
        .create(request)
        .await?
        .into_inner();
    ui::line(network.id)?;
    Ok(ExitCode::SUCCESS)
}

/// An option of Docker's of whose values we have one.
fn only(option: &'static str, given: &str, known: &str) -> Result<(), CliError> {
    match given == known {
        true => Ok(()),
        false => Err(invalid(option, given, format!("there is only {known}"))),
    }
}

/// What is given for IPv4, and what for IPv6: once each at most.
fn families(option: &'static str, given: Vec<String>) -> Result<(String, String), CliError> {
    let (mut ipv4, mut ipv6) = (String::new(), String::new());
    for text in given {
        let own = if text.contains(':') {
            &mut ipv6
        } else {
            &mut ipv4
        };
        if !own.is_empty() {
            let problem = "a network has one of IPv4 and one of IPv6";
            return Err(invalid(option, &text, problem));
        }
        *own = text;
    }
    Ok((ipv4, ipv6))
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

/// Removes networks that no container is in.
pub(super) async fn prune(args: PruneArgs, context: &Context) -> Result<ExitCode, CliError> {
    let filters = filters::parse(&args.filter, &["label"])?;
    if !args.force && !system::confirm("This removes all networks that no container is in")? {
        return Ok(ExitCode::SUCCESS);
    }
    let request = PruneNetworksRequest { filters };
    let mut networks = context.clients.networks()?;
    let pruned = networks.prune(request).await?.into_inner();
    if !pruned.names.is_empty() {
        ui::line("Deleted Networks:")?;
        for name in &pruned.names {
            ui::line(ui::text::escape(name))?;
        }
        ui::line("")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows networks.
pub(super) async fn list(args: ListArgs, context: &Context) -> Result<ExitCode, CliError> {
    let filters = filters::parse(&args.filter, &FILTERS)?;
    let mut client = context.clients.networks()?;
    let answer = client.list(ListNetworksRequest {}).await?.into_inner();
    let mut networks = answer.networks;
    networks.retain(|network| fits(network, &filters));
    let id = |network: &Network| match args.no_trunc {
        true => network.id.clone(),
        false => network.id.chars().take(ID_SHOWN).collect(),
    };
    if args.quiet {
        networks
            .iter()
            .try_for_each(|network| ui::line(id(network)))?;
    } else if let Some(form) = &args.format {
        let rows: Vec<_> = networks.iter().map(|n| row(n, id(n))).collect();
        listing::print(form, &rows)?;
    } else {
        let mut table = Table::new(["NETWORK ID", "NAME", "DRIVER", "SCOPE"]);
        for network in networks {
            let id = id(&network);
            table.row([id, network.name, network.driver, "local".to_owned()]);
        }
        table.print()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// As Docker: values of one key are alternatives, keys are conditions; labels are all conditions.
fn fits(network: &Network, filters: &[Filter]) -> bool {
    filters.iter().all(|filter| match filter.key.as_str() {
        "label" => fits_one(network, filter),
        key => {
            let mut same = filters.iter().filter(|other| other.key == key);
            same.any(|filter| fits_one(network, filter))
        }
    })
}

fn fits_one(network: &Network, filter: &Filter) -> bool {
    let value = filter.value.as_str();
    match filter.key.as_str() {
        "driver" => network.driver == value,
        "id" => network.id.starts_with(value),
        "name" => network.name.contains(value),
        "scope" => value == "local",
        "type" => {
            value
                == if network.created.is_some() {
                    "custom"
                } else {
                    "builtin"
                }
        }
        _ => match value.split_once('=') {
            Some((key, value)) => network.labels.get(key).is_some_and(|own| own == value),
            None => network.labels.contains_key(value),
        },
    }
}

/// A network in a list.
fn row(network: &Network, id: String) -> Map<String, Value> {
    let labels = network
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"));
    let facts = json!({
        "ID": id,
        "Name": network.name,
        "Driver": network.driver,
        "Scope": "local",
        "IPv6": (!network.ipv6_subnet.is_empty()).to_string(),
        "Internal": network.internal.to_string(),
        "CreatedAt": time::rfc3339(network.created.as_ref()),
        "Labels": labels.collect::<Vec<_>>().join(","),
        listing::LABELS: network.labels,
    });
    facts.as_object().cloned().unwrap_or_default()
}

/// A network in Docker's shape (Docker Engine API, `NetworkInspect`).
fn facts(network: &Network) -> Value {
    let members: Map<String, Value> = network
        .members
        .iter()
        .map(|member| {
            let ipv6 = match member.ipv6_address.as_str() {
                "" => String::new(),
                address => format!("{address}/{}", member.ipv6_prefix_length),
            };
            let facts = json!({
                "Name": member.name,
                "MacAddress": member.mac,
                "IPv4Address": format!("{}/{}", member.address, member.prefix_length),
                "IPv6Address": ipv6,
            });
            (member.container.clone(), facts)
        })
        .collect();
    json!({
        "Name": network.name,
        "Id": network.id,
        "Created": time::rfc3339(network.created.as_ref()),
        "Scope": "local",
        "Driver": network.driver,
        "EnableIPv6": !network.ipv6_subnet.is_empty(),
        "IPAM": { "Driver": "default", "Config": addresses(network) },
        "Internal": network.internal,
        "Attachable": network.attachable,
        "Ingress": false,
        "Containers": members,
        "Options": network.options,
        "Labels": network.labels,
        "Interface": network.interface,
    })
}

fn addresses(network: &Network) -> Value {
    let ipv4 = [&network.subnet, &network.gateway, &network.ip_range];
    let ipv6 = [
        &network.ipv6_subnet,
        &network.ipv6_gateway,
        &network.ipv6_range,
    ];
    let families = [ipv4, ipv6].into_iter();
    families
        .filter(|[subnet, ..]| !subnet.is_empty())
        .map(|[subnet, gateway, range]| {
            let mut addresses = json!({ "Subnet": subnet, "Gateway": gateway });
            if !range.is_empty() {
                addresses["IPRange"] = range.as_str().into();
            }
            let kept = network.aux_addresses.iter();
            let kept = kept.filter(|(_, address)| address.contains(':') == subnet.contains(':'));
            let kept: Map<_, _> = kept.map(|(n, a)| (n.clone(), json!(a))).collect();
            if !kept.is_empty() {
                addresses["AuxiliaryAddresses"] = Value::Object(kept);
            }
            addresses
        })
        .collect()
}

/// Shows everything about networks.
pub(super) async fn inspect(args: InspectArgs, context: &Context) -> Result<ExitCode, CliError> {
    inspect::show(&args.names, args.format.as_deref(), async |name| {
        let request = InspectNetworkRequest { name };
        let mut client = context.clients.networks()?;
        let network = client.inspect(request).await?.into_inner();
        Ok(facts(&network))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_one_key_are_alternatives_and_labels_conditions() {
        let network = Network {
            name: "front".to_owned(),
            driver: "bridge".to_owned(),
            labels: [("a".to_owned(), "1".to_owned())].into(),
            ..Network::default()
        };
        let passes = |texts: &[&str]| {
            let texts: Vec<_> = texts.iter().map(|text| (*text).to_owned()).collect();
            fits(&network, &filters::parse(&texts, &FILTERS).unwrap())
        };
        assert!(passes(&["name=x", "name=ron", "driver=bridge", "label=a"]));
        assert!(!passes(&["name=front", "driver=host"]));
        assert!(!passes(&["label=a", "label=b"]));
        assert!(!passes(&["type=custom"]));
        assert!(passes(&["type=builtin"]));
    }

    #[test]
    fn each_family_is_given_once() {
        let given = |texts: &[&str]| {
            let texts = texts.iter().map(|text| (*text).to_owned());
            families("--subnet", texts.collect())
        };
        let both = given(&["fd00::/64", "10.5.0.0/24"]).unwrap();
        assert_eq!(both, ("10.5.0.0/24".to_owned(), "fd00::/64".to_owned()));
        assert!(given(&["10.5.0.0/24", "10.6.0.0/24"]).is_err());
        assert!(given(&["fd00::/64", "fd01::/64"]).is_err());
    }
}
