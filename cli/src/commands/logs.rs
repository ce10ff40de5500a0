//! `orlop logs`.

mod details;

use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;
use orlop_proto::runtime::{LogsRequest, LogsResponse, StreamKind};

use crate::app::Context;
use crate::error::CliError;
use crate::ui;
use crate::values::{invalid, time};

/// Print what a container wrote
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orlop logs --follow --tail 100 web")]
pub(crate) struct LogsArgs {
    /// Id or name
    container: String,

    /// Go on until the container exits
    #[arg(short, long)]
    follow: bool,

    /// Last lines only, or `all`
    #[arg(short = 'n', long, default_value = "all", value_name = "LINES")]
    tail: String,

    /// From this time on: 2026-01-02T03:04:05Z, Unix seconds, or 10m
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    since: Option<String>,

    /// Up to this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    until: Option<String>,

    /// Put the time before each line
    #[arg(short, long)]
    timestamps: bool,

    /// Put what --log-opt named at the container's creation before each line
    #[arg(long)]
    details: bool,
}

/// Runs the command.
pub(super) async fn run(args: LogsArgs, context: &Context) -> Result<ExitCode, CliError> {
    let request = request(&args)?;
    let mut lines = context
        .clients
        .containers()?
        .logs(request)
        .await?
        .into_inner();
    let mut stamps = Stamps {
        times: args.timestamps,
        details: match args.details {
            true => details::of(&args.container, context).await?,
            false => String::new(),
        },
        within: [false; 2],
    };
    while let Some(chunk) = lines.message().await? {
        let data = if args.timestamps || args.details {
            stamps.add(&chunk).into()
        } else {
            chunk.data.clone()
        };
        match chunk.stream() {
            StreamKind::Stderr => ui::raw_error(&data)?,
            StreamKind::Stdout | StreamKind::Unspecified => ui::raw(&data)?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn request(args: &LogsArgs) -> Result<LogsRequest, CliError> {
    let now = Timestamp::now();
    let point = |option, text: &Option<String>| -> Result<_, CliError> {
        let parsed = text.as_deref().map(|text| time::parse(option, text, now));
        Ok(parsed.transpose()?.map(ui::time::to_wire))
    };
    Ok(LogsRequest {
        id: args.container.clone(),
        follow: args.follow,
        stdout: true,
        stderr: true,
        tail: tail(&args.tail)?,
        since: point("--since", &args.since)?,
        until: point("--until", &args.until)?,
    })
}

fn tail(text: &str) -> Result<Option<u64>, CliError> {
    match text {
        "all" | "-1" => Ok(None),
        number => number
            .parse()
            .map(Some)
            .map_err(|_| invalid("--tail", text, "expected a number of lines, or all")),
    }
}

/// Puts times and details at the beginnings of lines, which may be spread over several chunks.
#[derive(Debug, Default)]
struct Stamps {
    times: bool,
    details: String,
    /// Whether the last chunk of standard output and of standard error ended within a line.
    within: [bool; 2],
}

impl Stamps {
    fn add(&mut self, chunk: &LogsResponse) -> Vec<u8> {
        let mut stamp = self.details.clone();
        if self.times {
            stamp = format!("{} {stamp}", ui::time::rfc3339(chunk.time.as_ref()));
        }
        let within = &mut self.within[usize::from(chunk.stream() == StreamKind::Stderr)];
        let mut out = Vec::with_capacity(chunk.data.len() + stamp.len());
        for line in chunk.data.split_inclusive(|byte| *byte == b'\n') {
            if !*within {
                out.extend_from_slice(stamp.as_bytes());
            }
            out.extend_from_slice(line);
            *within = !line.ends_with(b"\n");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_gets_one_time() {
        let chunk = |data: &'static str| LogsResponse {
            stream: StreamKind::Stdout.into(),
            data: data.into(),
            time: Some(prost_types::Timestamp::default()),
        };
        let mut stamps = Stamps {
            times: true,
            ..Stamps::default()
        };
        let stamp = "1970-01-01T00:00:00.000000000Z";
        assert_eq!(
            stamps.add(&chunk("a\nb")),
            format!("{stamp} a\n{stamp} b").into_bytes()
        );
        assert_eq!(stamps.add(&chunk("c\n")), b"c\n");
        stamps.details = "a=b ".to_owned();
        let line = format!("{stamp} a=b d\n");
        assert_eq!(stamps.add(&chunk("d\n")), line.into_bytes());
    }

    #[test]
    fn tail_is_a_number_or_all() {
        assert_eq!(tail("all").unwrap(), None);
        assert_eq!(tail("5").unwrap(), Some(5));
        assert!(tail("x").is_err());
    }
}
