//! `orlop top`.

use std::process::ExitCode;

use clap::Args;
use orlop_proto::runtime::TopRequest;

use crate::app::Context;
use crate::error::CliError;
use crate::ui::table::Table;

/// What `ps aux` shows.
const AUX: [&str; 11] = [
    "user", "pid", "%cpu", "%mem", "vsz", "rss", "tname", "stat", "bsdstart", "bsdtime", "command",
];
/// What `ps -e` shows.
const SHORT: [&str; 4] = ["pid", "tname", "time", "ucmd"];
/// Docker's least width of a column.
const WIDTH_MIN: usize = 20;

/// Show the processes of a container
#[derive(Debug, Args)]
#[command(
    override_usage = "orlop top CONTAINER [PS OPTIONS]",
    after_help = "Example:\n  orlop top web -o pid,user,rss,args"
)]
pub(crate) struct TopArgs {
    /// Id or name
    container: String,

    /// -ef, -e, -f, aux, or -o with the names of columns
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "PS OPTIONS"
    )]
    options: Vec<String>,
}

/// Runs the command.
pub(super) async fn run(args: TopArgs, context: &Context) -> Result<ExitCode, CliError> {
    let request = TopRequest {
        id: args.container,
        columns: columns(&args.options)?,
    };
    let top = context.clients.containers()?.top(request).await?;
    let top = top.into_inner();
    let mut table = Table::of_width(WIDTH_MIN);
    table.row(top.titles);
    for process in top.processes {
        table.row(process.fields);
    }
    table.print()?;
    Ok(ExitCode::SUCCESS)
}

/// The columns that options of ps(1) ask for; none: the default ones.
fn columns(options: &[String]) -> Result<Vec<String>, CliError> {
    let mut columns = Vec::new();
    let (mut full, mut every) = (false, false);
    let mut rest = options.iter().map(String::as_str);
    while let Some(option) = rest.next() {
        match option {
            "-ef" | "-fe" | "-f" => full = true,
            "-e" | "-A" => every = true,
            "aux" | "-aux" => columns.extend(AUX.map(str::to_owned)),
            "o" | "-o" | "-eo" | "--format" => {
                let list = rest.next().ok_or_else(|| {
                    CliError::Usage(format!("{option} needs the names of columns"))
                })?;
                columns.extend(list.split([',', ' ']).map(str::to_owned));
            }
            other => match other.strip_prefix("-o").or(other.strip_prefix("-eo")) {
                Some(list) => columns.extend(list.split(',').map(str::to_owned)),
                None => {
                    return Err(CliError::Usage(format!(
                        "{other}: of the options of ps there are -ef, aux and -o COLUMNS"
                    )));
                }
            },
        }
    }
    if every && !full && columns.is_empty() {
        columns.extend(SHORT.map(str::to_owned));
    }
    Ok(columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(options: &[&str]) -> Result<Vec<String>, CliError> {
        let options: Vec<String> = options.iter().map(|word| (*word).to_owned()).collect();
        columns(&options)
    }

    #[test]
    fn options_of_ps_become_columns() {
        assert_eq!(of(&[]).unwrap(), [""; 0]);
        assert_eq!(of(&["-ef"]).unwrap(), [""; 0]);
        assert_eq!(of(&["-e", "-f"]).unwrap(), [""; 0]);
        assert_eq!(of(&["-e"]).unwrap(), SHORT);
        assert_eq!(of(&["aux"]).unwrap(), AUX);
        for words in [
            &["-o", "pid,user"][..],
            &["o", "pid,user"],
            &["-eo", "pid,user"],
            &["-opid,user"],
            &["-o", "pid", "-o", "user"],
        ] {
            assert_eq!(of(words).unwrap(), ["pid", "user"], "{words:?}");
        }
    }

    #[test]
    fn an_option_that_is_not_known_is_named() {
        for (words, named) in [
            (&["-Z"][..], "-Z"),
            (&["-o"], "-o"),
            (&["--sort=pid"], "--sort"),
        ] {
            let error = of(words).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
