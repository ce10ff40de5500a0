//! Instructions that change an image's configuration, as `commit --change` and `import --change` take
//! them: one line of a Dockerfile each, of those that touch no file.

use std::time::Duration;

use serde_json::{Map, Value, json};

mod words;

use words::{pairs, words};

/// The most that one request may have; Docker's own files have a few dozen.
const CHANGES_MAX: usize = 256;
const CHANGE_BYTES_MAX: usize = 64 * 1024;
/// Ports of one EXPOSE.
const PORTS_MAX: usize = 65_536;
/// Instructions that ONBUILD may not hold.
const NOT_LATER: [&str; 3] = ["ONBUILD", "FROM", "MAINTAINER"];

/// Why a change cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid change {change:?}: {problem}")]
pub struct ChangeError {
    /// As it was given.
    pub change: String,
    /// What is wrong with it.
    pub problem: String,
}

type Result<T, E = String> = std::result::Result<T, E>;

/// Applies changes in order to the `config` object of an image's configuration.
pub fn apply(config: &mut Map<String, Value>, changes: &[String]) -> Result<(), ChangeError> {
    if changes.len() > CHANGES_MAX {
        return Err(ChangeError {
            change: format!("{} of them", changes.len()),
            problem: format!("at most {CHANGES_MAX} are accepted"),
        });
    }
    let mut command_given = false;
    for change in changes {
        one(config, change, &mut command_given).map_err(|problem| ChangeError {
            change: change.chars().take(128).collect(),
            problem,
        })?;
    }
    Ok(())
}

fn one(config: &mut Map<String, Value>, change: &str, command_given: &mut bool) -> Result<()> {
    if change.len() > CHANGE_BYTES_MAX {
        return Err(format!("at most {CHANGE_BYTES_MAX} bytes are accepted"));
    }
    let change = change.trim();
    let (word, rest) = change
        .split_once(char::is_whitespace)
        .unwrap_or((change, ""));
    let (word, rest) = (word.to_ascii_uppercase(), rest.trim());
    if rest.is_empty() {
        return Err("expected an instruction and its value".to_owned());
    }
    match word.as_str() {
        "CMD" => {
            *command_given = true;
            set(config, "Cmd", command(config, rest))
        }
        "ENTRYPOINT" => {
            // A command of the image's was meant for its entry point.
            if !*command_given {
                config.remove("Cmd");
            }
            set(config, "Entrypoint", command(config, rest))
        }
        "ENV" => env(config, rest),
        "EXPOSE" => expose(config, rest),
        "HEALTHCHECK" => healthcheck(config, rest),
        "LABEL" => {
            let labels = pairs(rest, &variables(config))?;
            let labels = labels.into_iter().map(|(key, value)| (key, json!(value)));
            object(config, "Labels").extend(labels);
            Ok(())
        }
        "ONBUILD" => onbuild(config, rest),
        "STOPSIGNAL" => text(config, "StopSignal", rest),
        "USER" => text(config, "User", rest),
        "VOLUME" => volume(config, rest),
        "WORKDIR" => workdir(config, rest),
        _ => Err(format!("{word} is not a valid change command")),
    }
}

fn set(config: &mut Map<String, Value>, field: &str, value: Value) -> Result<()> {
    config.insert(field.to_owned(), value);
    Ok(())
}

/// One word.
fn text(config: &mut Map<String, Value>, field: &str, rest: &str) -> Result<()> {
    match words(rest, &variables(config))?.as_slice() {
        [word] => set(config, field, json!(word)),
        _ => Err("expected one value".to_owned()),
    }
}

/// A JSON array as it is; anything else by the shell.
fn command(config: &Map<String, Value>, text: &str) -> Value {
    if let Ok(args) = serde_json::from_str::<Vec<String>>(text) {
        return json!(args);
    }
    let mut args = list(config, "Shell");
    if args.is_empty() {
        args = vec!["/bin/sh".to_owned(), "-c".to_owned()];
    }
    args.push(text.to_owned());
    json!(args)
}

fn env(config: &mut Map<String, Value>, rest: &str) -> Result<()> {
    let given = pairs(rest, &variables(config))?;
    let mut lines = list(config, "Env");
    for (name, value) in given {
        let prefix = format!("{name}=");
        let line = format!("{prefix}{value}");
        match lines.iter_mut().find(|line| line.starts_with(&prefix)) {
            Some(known) => *known = line,
            None => lines.push(line),
        }
    }
    set(config, "Env", json!(lines))
}

fn expose(config: &mut Map<String, Value>, rest: &str) -> Result<()> {
    for word in words(rest, &variables(config))? {
        let (ports, protocol) = word.split_once('/').unwrap_or((&word, "tcp"));
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
        let protocol = protocol.to_ascii_lowercase();
        let (Some(first), Some(last)) = (number(first), number(last)) else {
            return Err(format!("{word}: expected PORT[-PORT][/PROTOCOL]"));
        };
        if first > last || !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
            return Err(format!("{word}: expected PORT[-PORT][/tcp|udp|sctp]"));
        }
        let ports = object(config, "ExposedPorts");
        ports.extend((first..=last).map(|port| (format!("{port}/{protocol}"), json!({}))));
        if ports.len() > PORTS_MAX {
            return Err("too many ports".to_owned());
        }
    }
    Ok(())
}

fn volume(config: &mut Map<String, Value>, rest: &str) -> Result<()> {
    let paths = match serde_json::from_str::<Vec<String>>(rest) {
        Ok(paths) => paths,
        Err(_) => words(rest, &variables(config))?,
    };
    for path in paths {
        if path.trim().is_empty() {
            return Err("a volume must have a path".to_owned());
        }
        object(config, "Volumes").insert(path, json!({}));
    }
    Ok(())
}

/// A relative directory is below the one before it.
fn workdir(config: &mut Map<String, Value>, rest: &str) -> Result<()> {
    let before = config.get("WorkingDir").and_then(Value::as_str);
    let before = before.unwrap_or_default().trim_end_matches('/').to_owned();
    text(config, "WorkingDir", rest)?;
    let given = config.get("WorkingDir").and_then(Value::as_str);
    match given {
        Some(path) if !path.starts_with('/') => {
            let path = format!("{before}/{path}");
            set(config, "WorkingDir", json!(path))
        }
        _ => Ok(()),
    }
}

fn onbuild(config: &mut Map<String, Value>, rest: &str) -> Result<()> {
    let word = rest.split_whitespace().next().unwrap_or_default();
    if NOT_LATER.contains(&word.to_ascii_uppercase().as_str()) {
        return Err(format!("{word} is not allowed as an ONBUILD trigger"));
    }
    let mut triggers = list(config, "OnBuild");
    triggers.push(rest.to_owned());
    set(config, "OnBuild", json!(triggers))
}

fn healthcheck(config: &mut Map<String, Value>, rest: &str) -> Result<()> {
    if rest.eq_ignore_ascii_case("NONE") {
        return set(config, "Healthcheck", json!({"Test": ["NONE"]}));
    }
    let mut check = Map::new();
    let mut rest = rest;
    while let Some(flag) = rest.strip_prefix("--") {
        let (flag, after) = flag.split_once(char::is_whitespace).unwrap_or((flag, ""));
        let (name, value) = flag.split_once('=').unwrap_or((flag, ""));
        let (field, value) = health_flag(name, value)?;
        check.insert(field.to_owned(), value);
        rest = after.trim_start();
    }
    let (word, given) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let given = given.trim();
    if !word.eq_ignore_ascii_case("CMD") || given.is_empty() {
        return Err("expected HEALTHCHECK [flags] CMD command, or HEALTHCHECK NONE".to_owned());
    }
    let test = match serde_json::from_str::<Vec<String>>(given) {
        Ok(args) => [vec!["CMD".to_owned()], args].concat(),
        Err(_) => vec!["CMD-SHELL".to_owned(), given.to_owned()],
    };
    check.insert("Test".to_owned(), json!(test));
    set(config, "Healthcheck", Value::Object(check))
}

/// The field of a flag, with times in nanoseconds.
fn health_flag(name: &str, value: &str) -> Result<(&'static str, Value)> {
    let field = match name {
        "interval" => "Interval",
        "timeout" => "Timeout",
        "start-period" => "StartPeriod",
        "start-interval" => "StartInterval",
        "retries" => {
            let number = value.parse::<u32>();
            let number = number.map_err(|_| "--retries: expected a number".to_owned())?;
            return Ok(("Retries", json!(number)));
        }
        _ => return Err(format!("unknown flag --{name}")),
    };
    let expected = || format!("--{name}: expected a duration such as 30s or 1m30s");
    let nanos = duration(value).ok_or_else(expected)?.as_nanos();
    let nanos = i64::try_from(nanos).map_err(|_| expected())?;
    Ok((field, json!(nanos)))
}

/// Go's duration: numbers with units, without a fraction.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..end].parse().ok()?;
        let after = &rest[end..];
        let end = after
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(after.len());
        let unit = match &after[..end] {
            "h" => Duration::from_secs(3600),
            "m" => Duration::from_secs(60),
            "s" => Duration::from_secs(1),
            "ms" => Duration::from_millis(1),
            _ => return None,
        };
        total = total.checked_add(unit.checked_mul(u32::try_from(number).ok()?)?)?;
        rest = &after[end..];
    }
    (!text.is_empty()).then_some(total)
}

/// The list of texts in a field.
fn list(config: &Map<String, Value>, field: &str) -> Vec<String> {
    let items = config.get(field).and_then(Value::as_array);
    let texts = items.into_iter().flatten().filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}

/// The image's variables, for `$NAME`.
fn variables(config: &Map<String, Value>) -> Vec<(String, String)> {
    let split = |line: String| {
        line.split_once('=')
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
    };
    list(config, "Env").into_iter().filter_map(split).collect()
}

fn object<'a>(config: &'a mut Map<String, Value>, field: &str) -> &'a mut Map<String, Value> {
    let entry = config.entry(field).or_insert_with(|| json!({}));
    if !entry.is_object() {
        *entry = json!({});
    }
    match entry {
        Value::Object(object) => object,
        _ => unreachable!("it was made an object"),
    }
}

#[cfg(test)]
mod tests;
