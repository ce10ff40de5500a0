//! `--health-…` and `--no-healthcheck`.

use clap::Args;
use orlop_proto::runtime::HealthCheck;

use super::{invalid, time};
use crate::error::CliError;

// The options of a health check. (No doc comment: it would become a description.)
#[derive(Debug, Args)]
pub(crate) struct HealthOptions {
    /// Command whose exit code 0 means healthy
    #[arg(long, value_name = "COMMAND", allow_hyphen_values = true)]
    health_cmd: Option<String>,

    /// Time between checks [default: 30s]
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    health_interval: Option<String>,

    /// Time after which a check is killed and has failed [default: 30s]
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    health_timeout: Option<String>,

    /// Failures in a row that make the container unhealthy [default: 3]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    health_retries: Option<u32>,

    /// Time after the start in which failures do not count
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    health_start_period: Option<String>,

    /// Time between checks in that time [default: 5s]
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    health_start_interval: Option<String>,

    /// With an unhealthy container: none, kill, restart or stop
    #[arg(long, value_name = "ACTION", value_parser = ["none", "kill", "restart", "stop"])]
    health_on_failure: Option<String>,

    /// Do not check, whatever the image says
    #[arg(long)]
    no_healthcheck: bool,
}

/// The check that the options describe; `None`: the image's.
pub(crate) fn parse(options: &HealthOptions) -> Result<Option<HealthCheck>, CliError> {
    let command = options.health_cmd.as_ref();
    let test = command.map(|line| vec!["CMD-SHELL".to_owned(), line.clone()]);
    let check = HealthCheck {
        disabled: options.no_healthcheck,
        test: test.unwrap_or_default(),
        interval: nanoseconds("--health-interval", options.health_interval.as_ref())?,
        timeout: nanoseconds("--health-timeout", options.health_timeout.as_ref())?,
        retries: options.health_retries.unwrap_or_default(),
        start_period: nanoseconds(
            "--health-start-period",
            options.health_start_period.as_ref(),
        )?,
        start_interval: nanoseconds(
            "--health-start-interval",
            options.health_start_interval.as_ref(),
        )?,
        on_failure: options.health_on_failure.clone().unwrap_or_default(),
        ..HealthCheck::default()
    };
    if check == HealthCheck::default() {
        return Ok(None);
    }
    let alone = HealthCheck {
        disabled: true,
        ..HealthCheck::default()
    };
    if check.disabled && check != alone {
        return Err(CliError::Usage(
            "--no-healthcheck and the --health-… options exclude one another".to_owned(),
        ));
    }
    Ok(Some(check))
}

fn nanoseconds(option: &'static str, text: Option<&String>) -> Result<i64, CliError> {
    let Some(text) = text else { return Ok(0) };
    let duration = time::duration(text).map(|duration| duration.as_nanos());
    let known = duration.and_then(|nanoseconds| i64::try_from(nanoseconds).ok());
    known
        .filter(|nanoseconds| *nanoseconds >= 0)
        .ok_or_else(|| invalid(option, text, "expected a length of time, such as 1m30s"))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Command {
        #[command(flatten)]
        health: HealthOptions,
    }

    fn check(words: &[&str]) -> Result<Option<HealthCheck>, CliError> {
        let words = ["run"].iter().chain(words);
        parse(&Command::try_parse_from(words).unwrap().health)
    }

    #[test]
    fn a_check_is_a_line_for_the_shell_and_times() {
        let check = check(&["--health-cmd", "test -e /up", "--health-interval=1m30s"]);
        let check = check.unwrap().unwrap();
        assert_eq!(check.test, ["CMD-SHELL", "test -e /up"]);
        assert_eq!(check.interval, 90_000_000_000);
    }

    #[test]
    fn no_check_is_not_the_same_as_none_said() {
        assert_eq!(check(&[]).unwrap(), None);
        assert!(check(&["--no-healthcheck"]).unwrap().unwrap().disabled);
        assert!(check(&["--no-healthcheck", "--health-retries=2"]).is_err());
        assert!(check(&["--health-timeout=-1s"]).is_err());
        assert!(check(&["--health-timeout=soon"]).is_err());
    }
}
