//! `orlop ps`.

use std::borrow::Cow;
use std::process::ExitCode;

use clap::Args;
use orlop_proto::runtime::{
    Container, ContainerSize, ContainerState, ContainerStatus, ListContainersRequest, MountKind,
    PortBinding,
};
use serde_json::{Map, Value, json};

use super::{filters, port};
use crate::app::Context;
use crate::error::CliError;
use crate::format::listing::{self, LABELS};
use crate::inspect::container::status_word;
use crate::ui::table::Table;
use crate::ui::{self, size, text, time};

/// Docker's width of the column COMMAND.
const COMMAND_WIDTH: usize = 20;

const FILTERS: [&str; 9] = [
    "name", "id", "status", "label", "ancestor", "exited", "volume", "network", "health",
];

/// Show containers
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orlop ps --all --format '{{.Names}} {{.Status}}'")]
pub(crate) struct PsArgs {
    /// Those that do not run too
    #[arg(short, long)]
    all: bool,

    /// Print ids only
    #[arg(short, long)]
    quiet: bool,

    /// Show ids and commands in full
    #[arg(long)]
    no_trunc: bool,

    /// The newest so many, whatever their state
    #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 0)]
    last: u32,

    /// The newest, whatever its state
    #[arg(short, long)]
    latest: bool,

    /// Count what they take of the disk
    #[arg(short, long)]
    size: bool,

    /// Only those that fit: name, id, status, label, ancestor, exited, volume, network, health
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,

    /// Template, `table TEMPLATE`, or json
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
}

/// Runs the command.
pub(super) async fn run(args: PsArgs, context: &Context) -> Result<ExitCode, CliError> {
    let request = ListContainersRequest {
        all: args.all,
        filters: filters::parse(&args.filter, &FILTERS)?,
        limit: if args.latest { 1 } else { args.last },
        size: args.size || is_size_shown(args.format.as_deref()),
    };
    let containers = context
        .clients
        .containers()?
        .list(request)
        .await?
        .into_inner()
        .containers;
    if args.quiet {
        for container in &containers {
            ui::line(id(container, args.no_trunc))?;
        }
    } else if let Some(form) = &args.format {
        let rows: Vec<_> = containers.iter().map(|c| row(c, args.no_trunc)).collect();
        listing::print(form, &rows)?;
    } else {
        print(&containers, &args)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Docker's rule: a template that asks for sizes needs no `--size`.
fn is_size_shown(template: Option<&str>) -> bool {
    template.is_some_and(|template| template.contains(".Size"))
}

fn print(containers: &[Container], args: &PsArgs) -> Result<(), CliError> {
    let full = args.no_trunc;
    let mut titles = vec![
        "CONTAINER ID",
        "IMAGE",
        "COMMAND",
        "CREATED",
        "STATUS",
        "PORTS",
        "NAMES",
    ];
    if args.size {
        titles.push("SIZE");
    }
    let mut table = Table::new(titles);
    for container in containers {
        let mut row = vec![
            id(container, full).to_owned(),
            container.image.clone(),
            command(container, full),
            time::ago(container.created.as_ref()),
            status(container.state.as_ref()),
            ports(container),
            container.name.clone(),
        ];
        if args.size {
            row.push(size(container));
        }
        table.row(row);
    }
    table.print()
}

/// `12kB (virtual 4.26MB)`: its own bytes, and with those of the image.
fn size(container: &Container) -> String {
    let Some(ContainerSize { writable, total }) = container.size else {
        return "N/A".to_owned();
    };
    let (writable, total) = (size::short(writable), size::short(total));
    format!("{writable} (virtual {total})")
}

fn id(container: &Container, full: bool) -> &str {
    if full {
        &container.id
    } else {
        text::short_id(&container.id)
    }
}

/// The command in quotes, cut as Docker cuts it; arguments with blanks in quotes of their own.
fn command(container: &Container, full: bool) -> String {
    let process = container.process.as_ref();
    let args = process.map_or(&[][..], |process| &process.args);
    let quoted: Vec<_> = args.iter().map(|arg| quoted(arg)).collect();
    let line = quoted.join(" ");
    let shown = if full {
        line
    } else {
        text::ellipsis(&line, COMMAND_WIDTH)
    };
    format!("\"{shown}\"")
}

fn quoted(arg: &str) -> Cow<'_, str> {
    if arg.contains(' ') {
        format!("'{arg}'").into()
    } else {
        arg.into()
    }
}

/// `Up 5 minutes`, `Exited (0) 2 hours ago`, `Created`.
fn status(state: Option<&ContainerState>) -> String {
    let state = state.cloned().unwrap_or_default();
    let since = |at: &Option<prost_types::Timestamp>| {
        time::of(at.as_ref()).map_or_else(|| "some time".to_owned(), time::since)
    };
    match state.status() {
        ContainerStatus::Running => format!("Up {}{}", since(&state.started), health(&state)),
        ContainerStatus::Paused => format!("Up {} (Paused)", since(&state.started)),
        ContainerStatus::Exited => {
            format!(
                "Exited ({}) {} ago",
                state.exit_code,
                since(&state.finished)
            )
        }
        ContainerStatus::Restarting => {
            let code = state.exit_code;
            format!("Restarting ({code}) {} ago", since(&state.finished))
        }
        ContainerStatus::Created => "Created".to_owned(),
        ContainerStatus::Dead => "Dead".to_owned(),
        ContainerStatus::Unspecified => "Unknown".to_owned(),
    }
}

/// ` (healthy)`, ` (health: starting)`; nothing without a check.
fn health(state: &ContainerState) -> String {
    match state.health.as_ref().map(|health| health.status.as_str()) {
        None => String::new(),
        Some("starting") => " (health: starting)".to_owned(),
        Some(status) => format!(" ({status})"),
    }
}

/// `0.0.0.0:8080->80/tcp, 90/tcp`; ranges that go together are joined.
fn ports(container: &Container) -> String {
    let running = container.state.as_ref().is_some_and(|state| {
        matches!(
            state.status(),
            ContainerStatus::Running | ContainerStatus::Paused
        )
    });
    if !running {
        return String::new();
    }
    let mut bound: Vec<&PortBinding> = container.ports.iter().collect();
    bound.sort_by_key(|b| {
        (
            b.protocol.clone(),
            b.host_address.clone(),
            b.container_port,
            b.host_port,
        )
    });
    let mut shown: Vec<String> = Vec::new();
    let mut rest = &bound[..];
    while let Some(first) = rest.first() {
        let run = rest
            .windows(2)
            .take_while(|pair| follows(pair[0], pair[1]))
            .count();
        shown.push(span(first, rest[run]));
        rest = &rest[run + 1..];
    }
    for exposed in &container.exposed {
        if !container
            .ports
            .iter()
            .any(|binding| port::inside(binding) == *exposed)
        {
            shown.push(exposed.clone());
        }
    }
    shown.join(", ")
}

fn follows(a: &PortBinding, b: &PortBinding) -> bool {
    a.protocol == b.protocol
        && a.host_address == b.host_address
        && a.container_port + 1 == b.container_port
        && a.host_port + 1 == b.host_port
}

fn span(first: &PortBinding, last: &PortBinding) -> String {
    if first == last {
        return format!("{}->{}", port::outside(first), port::inside(first));
    }
    let (inside, protocol) = (first.container_port, port::inside(last));
    format!(
        "{}-{}->{inside}-{protocol}",
        port::outside(first),
        last.host_port
    )
}

fn row(container: &Container, full: bool) -> Map<String, Value> {
    let config = container.config.clone().unwrap_or_default();
    let labels: Vec<String> = config
        .labels
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    let mounts: Vec<&str> = container
        .mounts
        .iter()
        .map(|mount| mount.source.as_str())
        .collect();
    let volumes = container
        .mounts
        .iter()
        .filter(|mount| mount.kind() == MountKind::Volume)
        .count();
    let networks: Vec<&str> = container
        .endpoints
        .iter()
        .map(|e| e.network.as_str())
        .collect();
    let state = container
        .state
        .as_ref()
        .map_or(ContainerStatus::Unspecified, ContainerState::status);
    let created = time::of(container.created.as_ref());
    let facts = json!({
        "ID": id(container, full),
        "Image": container.image,
        "Command": command(container, full),
        "CreatedAt": created.map_or("N/A".to_owned(), |t| t.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string()),
        "RunningFor": time::ago(container.created.as_ref()),
        "Ports": ports(container),
        "State": status_word(state),
        "Status": status(container.state.as_ref()),
        "Names": container.name,
        "Labels": labels.join(","),
        "Mounts": mounts.join(","),
        "LocalVolumes": volumes.to_string(),
        "Networks": networks.join(","),
        "Size": size(container),
        LABELS: config.labels,
    });
    facts.as_object().cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(container_port: u32, host_port: u32) -> PortBinding {
        PortBinding {
            container_port,
            host_port,
            ..PortBinding::default()
        }
    }

    #[test]
    fn ports_in_a_row_are_joined() {
        let container = Container {
            state: Some(ContainerState {
                status: ContainerStatus::Running.into(),
                ..ContainerState::default()
            }),
            ports: vec![binding(80, 8080), binding(81, 8081), binding(443, 9000)],
            exposed: vec!["80/tcp".to_owned(), "99/udp".to_owned()],
            ..Container::default()
        };
        assert_eq!(
            ports(&container),
            "0.0.0.0:8080-8081->80-81/tcp, 0.0.0.0:9000->443/tcp, 99/udp"
        );
    }

    #[test]
    fn commands_are_quoted_and_cut() {
        let container = Container {
            process: Some(orlop_proto::runtime::Process {
                args: vec![
                    "sh".to_owned(),
                    "-c".to_owned(),
                    "sleep 1000000000".to_owned(),
                ],
                ..Default::default()
            }),
            ..Container::default()
        };
        assert_eq!(command(&container, false), "\"sh -c 'sleep 100000…\"");
        assert_eq!(command(&container, true), "\"sh -c 'sleep 1000000000'\"");
    }

    #[test]
    fn a_status_has_its_exit_code() {
        let state = ContainerState {
            status: ContainerStatus::Exited.into(),
            exit_code: 3,
            ..ContainerState::default()
        };
        assert_eq!(status(Some(&state)), "Exited (3) some time ago");
    }

    #[test]
    fn a_status_has_its_health() {
        let up = |health: &str| ContainerState {
            status: ContainerStatus::Running.into(),
            health: Some(orlop_proto::runtime::Health {
                status: health.to_owned(),
                ..Default::default()
            }),
            ..ContainerState::default()
        };
        assert_eq!(status(Some(&up("healthy"))), "Up some time (healthy)");
        let starting = "Up some time (health: starting)";
        assert_eq!(status(Some(&up("starting"))), starting);
    }
}
