//! `orlop volume …`.

mod archive;

use std::process::ExitCode;

use clap::Args;
use orlop_proto::error::Kind;
use orlop_proto::runtime::{
    CreateVolumeRequest, Filter, InspectVolumeRequest, ListVolumesRequest, PruneVolumesRequest,
    RemoveVolumeRequest, Volume,
};
use serde_json::{Map, Value, json};

pub(super) use archive::{ExportArgs, ImportArgs, export, import};

use super::each::each;
use super::{filters, inspect, system};
use crate::app::Context;
use crate::error::CliError;
use crate::format::listing;
use crate::ui::table::Table;
use crate::ui::{self, size, time};
use crate::values::{invalid, pair};

/// What volumes can be filtered by.
const FILTERS: [&str; 4] = ["name", "label", "dangling", "driver"];

/// Make a volume
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orlop volume create data")]
pub(crate) struct CreateArgs {
    /// Its name; one is made up without it
    name: Option<String>,

    /// Set a label
    #[arg(long, value_name = "KEY[=VALUE]")]
    label: Vec<String>,

    /// Kind of volume: local
    #[arg(short, long, default_value = "local", value_name = "DRIVER")]
    driver: String,

    /// A directory of the host in place of one of its own: type=none, o=bind[,ro], device=PATH
    #[arg(short, long, value_name = "OPTION=VALUE")]
    opt: Vec<String>,
}

/// Show volumes
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orlop volume ls --quiet")]
pub(crate) struct ListArgs {
    /// Print names only
    #[arg(short, long)]
    quiet: bool,

    /// Only those that fit: name, label, dangling, driver
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,

    /// Template, `table TEMPLATE`, or json
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
}

/// Show everything about volumes
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orlop volume inspect --format '{{.Mountpoint}}' data")]
pub(crate) struct InspectArgs {
    /// Names
    #[arg(required = true, value_name = "VOLUME")]
    names: Vec<String>,

    /// Template, or json
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
}

/// Remove volumes and their files
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orlop volume rm data")]
pub(crate) struct RemoveArgs {
    /// Names
    #[arg(required = true, value_name = "VOLUME")]
    names: Vec<String>,

    /// A missing one is no error
    #[arg(short, long)]
    force: bool,
}

/// Remove volumes that no container uses
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orlop volume prune --force")]
pub(crate) struct PruneArgs {
    /// Named volumes too, not only anonymous ones
    #[arg(short, long)]
    all: bool,

    /// Do not ask
    #[arg(short, long)]
    force: bool,

    /// Only those that fit: label=KEY[=VALUE], label!=KEY[=VALUE], all=true
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
}

/// Makes a volume.
pub(super) async fn create(args: CreateArgs, context: &Context) -> Result<ExitCode, CliError> {
    if args.driver != "local" {
        let reason = "there is the driver local only";
        return Err(invalid("--driver", &args.driver, reason));
    }
    let request = CreateVolumeRequest {
        name: args.name.unwrap_or_default(),
        labels: args.label.iter().map(|label| pair(label)).collect(),
        options: args.opt.iter().map(|option| pair(option)).collect(),
    };
    let volume = context
        .clients
        .volumes()?
        .create(request)
        .await?
        .into_inner();
    ui::line(volume.name)?;
    Ok(ExitCode::SUCCESS)
}

/// Shows volumes.
pub(super) async fn list(args: ListArgs, context: &Context) -> Result<ExitCode, CliError> {
    let request = ListVolumesRequest {
        filters: filters::parse(&args.filter, &FILTERS)?,
        usage: false,
    };
    let volumes = context
        .clients
        .volumes()?
        .list(request)
        .await?
        .into_inner()
        .volumes;
    if args.quiet {
        volumes
            .iter()
            .try_for_each(|volume| ui::line(ui::text::escape(&volume.name)))?;
    } else if let Some(form) = &args.format {
        let rows: Vec<_> = volumes.iter().map(facts).collect();
        listing::print(form, &rows)?;
    } else {
        let mut table = Table::new(["DRIVER", "VOLUME NAME"]);
        for volume in volumes {
            table.row(["local".to_owned(), volume.name]);
        }
        table.print()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// As templates see it.
pub(super) fn facts(volume: &Volume) -> Map<String, Value> {
    let options = (!volume.options.is_empty()).then_some(&volume.options);
    let facts = json!({
        "Name": volume.name,
        "Driver": "local",
        "Mountpoint": volume.path,
        "Labels": volume.labels,
        "Options": options,
        "Scope": "local",
        "CreatedAt": time::rfc3339(volume.created.as_ref()),
    });
    facts.as_object().cloned().unwrap_or_default()
}

/// Shows everything about volumes.
pub(super) async fn inspect(args: InspectArgs, context: &Context) -> Result<ExitCode, CliError> {
    inspect::show(&args.names, args.format.as_deref(), async |name| {
        let request = InspectVolumeRequest { name };
        let volume = context
            .clients
            .volumes()?
            .inspect(request)
            .await?
            .into_inner();
        Ok(Value::Object(facts(&volume)))
    })
    .await
}

/// Removes volumes.
pub(super) async fn remove(args: RemoveArgs, context: &Context) -> Result<ExitCode, CliError> {
    each(&args.names, async |name| {
        let request = RemoveVolumeRequest {
            name: name.clone(),
            force: args.force,
        };
        let removed = context
            .clients
            .volumes()?
            .remove(request)
            .await
            .map_err(CliError::from);
        match removed {
            Err(error) if args.force && error.kind() == Some(Kind::NotFound) => {}
            removed => drop(removed?),
        }
        ui::line(&name)
    })
    .await
}

/// Removes volumes that no container uses.
pub(super) async fn prune(args: PruneArgs, context: &Context) -> Result<ExitCode, CliError> {
    let mut filters = filters::parse(&args.filter, &["label", "label!", "all"])?;
    let all = |filter: &Filter| filter.key == "all" && matches!(&*filter.value, "1" | "true");
    let all = args.all || filters.iter().any(all);
    filters.retain(|filter| filter.key != "all");
    let which = if all { "all" } else { "anonymous" };
    if !args.force
        && !system::confirm(&format!(
            "This removes {which} volumes that no container uses"
        ))?
    {
        return Ok(ExitCode::SUCCESS);
    }
    let request = PruneVolumesRequest { all, filters };
    let pruned = context
        .clients
        .volumes()?
        .prune(request)
        .await?
        .into_inner();
    for name in &pruned.names {
        ui::line(ui::text::escape(name))?;
    }
    ui::line(format!(
        "Total reclaimed space: {}",
        size::human(pruned.bytes)
    ))?;
    Ok(ExitCode::SUCCESS)
}
