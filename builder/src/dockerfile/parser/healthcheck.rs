//! HEALTHCHECK, the one instruction with times.

use std::time::Duration;

use super::{Command, Parsed, Source, exec};
use crate::dockerfile::Healthcheck;

const FLAGS: [&str; 5] = [
    "--interval",
    "--timeout",
    "--start-period",
    "--start-interval",
    "--retries",
];

pub(super) fn parse(source: &Source<'_>) -> Parsed<Healthcheck> {
    let word = source.rest.split_whitespace().next().unwrap_or_default();
    let rest = source.rest[word.len()..].trim();
    if word.eq_ignore_ascii_case("NONE") && rest.is_empty() {
        return Ok(Healthcheck::None);
    }
    if !word.eq_ignore_ascii_case("CMD") || rest.is_empty() {
        return Err(source.error(
            word,
            "expected HEALTHCHECK [flags] CMD command, or HEALTHCHECK NONE",
        ));
    }
    let mut times: [Option<Duration>; 4] = [None; 4];
    let mut retries = None;
    for flag in &source.flags {
        let value = source.value(flag)?;
        match FLAGS.iter().position(|known| known[2..] == *flag.name) {
            Some(4) => {
                let number = value
                    .parse()
                    .map_err(|_| source.error(&value, "expected a number"))?;
                retries = Some(number);
            }
            Some(index) => {
                let time = duration(&value);
                let expected = "expected a duration such as 30s, 1m30s or 500ms";
                times[index] = Some(time.ok_or_else(|| source.error(&value, expected))?);
            }
            None => return Err(source.unknown_flag(flag, &FLAGS)),
        }
    }
    let [interval, timeout, start_period, start_interval] = times;
    let command = exec(rest).map_or_else(|| Command::Shell(rest.to_owned()), Command::Exec);
    Ok(Healthcheck::Command {
        command,
        interval,
        timeout,
        start_period,
        start_interval,
        retries,
    })
}

/// Go's duration: numbers with units, at least 1 ms (Docker's lower bound) or 0.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = 0.0f64;
    if text == "0" {
        return Some(Duration::ZERO);
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        let after = &rest[end..];
        let end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let seconds = match &after[..end] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total += number * seconds;
        rest = &after[end..];
    }
    let time = Duration::try_from_secs_f64(total)
        .ok()
        .filter(|_| !text.is_empty())?;
    (time.is_zero() || time >= Duration::from_millis(1)).then_some(time)
}
