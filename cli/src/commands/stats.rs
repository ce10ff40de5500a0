//! `orlop stats`.

use std::process::ExitCode;

use clap::Args;
use orlop_proto::runtime::{ContainerStats, StatsRequest};
use serde_json::{Map, Value};

use crate::app::Context;
use crate::error::CliError;
use crate::format::listing;
use crate::ui::table::Table;
use crate::ui::{self, size, text};

/// What is shown where nothing is known.
const UNKNOWN: &str = "--";
/// To the upper left corner, and away with what was there.
const CLEAR: &[u8] = b"\x1b[H\x1b[J";

/// Show what containers use of CPU, memory, network and disks
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orlop stats --no-stream --format '{{.Name}} {{.MemUsage}}'")]
pub(crate) struct StatsArgs {
    /// Ids or names; none: all that run
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,

    /// Those that do not run too
    #[arg(short, long)]
    all: bool,

    /// Show once, rather than every second
    #[arg(long)]
    no_stream: bool,

    /// Show ids in full
    #[arg(long)]
    no_trunc: bool,

    /// Template, `table TEMPLATE`, or json
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
}

/// Runs the command.
pub(super) async fn run(args: StatsArgs, context: &Context) -> Result<ExitCode, CliError> {
    let request = StatsRequest {
        ids: args.containers.clone(),
        stream: !args.no_stream,
        all: args.all,
    };
    let mut answers = context
        .clients
        .containers()?
        .stats(request)
        .await?
        .into_inner();
    while let Some(answer) = answers.message().await? {
        if !args.no_stream && ui::stdout_is_terminal() {
            ui::raw(CLEAR)?;
        }
        print(&answer.containers, &args)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print(containers: &[ContainerStats], args: &StatsArgs) -> Result<(), CliError> {
    let asked = |stats: &ContainerStats| {
        let fits = |word: &&String| stats.name == **word || stats.id.starts_with(word.as_str());
        args.containers.iter().find(fits)
    };
    let rows: Vec<Row> = containers
        .iter()
        .map(|stats| Row::of(stats, asked(stats), args.no_trunc))
        .collect();
    if let Some(form) = &args.format {
        let rows: Vec<_> = rows.into_iter().map(Row::fields).collect();
        return listing::print(form, &rows);
    }
    let mut table = Table::new([
        "CONTAINER ID",
        "NAME",
        "CPU %",
        "MEM USAGE / LIMIT",
        "MEM %",
        "NET I/O",
        "BLOCK I/O",
        "PIDS",
    ]);
    for row in rows {
        let Row { id, name, .. } = row;
        table.row([
            id,
            name,
            row.cpu,
            row.memory,
            row.percent,
            row.net,
            row.block,
            row.pids,
        ]);
    }
    table.print()
}

/// One container as it is shown.
#[derive(Debug)]
struct Row {
    container: String,
    id: String,
    name: String,
    cpu: String,
    memory: String,
    percent: String,
    net: String,
    block: String,
    pids: String,
}

impl Row {
    fn of(stats: &ContainerStats, asked: Option<&String>, full: bool) -> Self {
        let id = match full {
            true => stats.id.clone(),
            false => text::short_id(&stats.id).to_owned(),
        };
        let known = |text: String| match stats.stuck {
            true => UNKNOWN.to_owned(),
            false => text,
        };
        let pair = |one: String, other: String| known(format!("{one} / {other}"));
        Self {
            container: asked.cloned().unwrap_or_else(|| id.clone()),
            id,
            name: stats.name.clone(),
            cpu: known(format!("{:.2}%", stats.cpu_percent)),
            memory: pair(
                size::binary(stats.memory_bytes),
                size::binary(stats.memory_limit),
            ),
            percent: known(format!("{:.2}%", memory_percent(stats))),
            net: pair(size::short(stats.rx_bytes), size::short(stats.tx_bytes)),
            block: pair(
                size::short(stats.read_bytes),
                size::short(stats.write_bytes),
            ),
            pids: known(stats.pids.to_string()),
        }
    }

    /// As `--format` calls them.
    fn fields(self) -> Map<String, Value> {
        let fields = [
            ("BlockIO", self.block),
            ("CPUPerc", self.cpu),
            ("Container", self.container),
            ("ID", self.id),
            ("MemPerc", self.percent),
            ("MemUsage", self.memory),
            ("Name", self.name),
            ("NetIO", self.net),
            ("PIDs", self.pids),
        ];
        let field = |(name, value): (&str, String)| (name.to_owned(), Value::from(value));
        fields.into_iter().map(field).collect()
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown with two decimals")]
fn memory_percent(stats: &ContainerStats) -> f64 {
    match stats.memory_limit {
        0 => 0.0,
        limit => stats.memory_bytes as f64 / limit as f64 * 100.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_reads_as_dockers_and_a_stuck_container_as_unknown() {
        let stats = ContainerStats {
            id: "0123456789abcdef".to_owned(),
            name: "web".to_owned(),
            cpu_percent: 12.345,
            memory_bytes: 1 << 20,
            memory_limit: 64 << 20,
            pids: 3,
            rx_bytes: 1200,
            ..ContainerStats::default()
        };
        let row = Row::of(&stats, None, false);
        assert_eq!(row.container, "0123456789ab");
        assert_eq!((row.cpu.as_str(), row.pids.as_str()), ("12.35%", "3"));
        assert_eq!(row.memory, "1MiB / 64MiB");
        assert_eq!(row.percent, "1.56%");
        assert_eq!(row.net, "1.2kB / 0B");
        let stuck = ContainerStats {
            stuck: true,
            ..stats
        };
        let row = Row::of(&stuck, Some(&"web".to_owned()), true);
        assert_eq!(row.container, "web");
        assert_eq!((row.cpu.as_str(), row.net.as_str()), ("--", "--"));
        assert_eq!(row.id, "0123456789abcdef");
    }
}
