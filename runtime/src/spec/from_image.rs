//! What an image's configuration contributes. It says how its program wants to run; it never says how
//! it is confined (rows C13, C14).

use std::collections::HashMap;

use oci_spec::image::{Config, ImageConfiguration};
use orlop_proto::runtime::{CreateRequest, Process as Asked};

use super::validate;
use crate::containers::record::Process;
use crate::error::{Error, Result};

/// Docker's, where the image has none.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Labels and annotations with this prefix are ours to give.
pub(super) const RESERVED_LABELS: &str = "org.orlop.";
const SIGTERM: i32 = 15;

/// An image's configuration and a request, made one.
#[derive(Clone, Debug, PartialEq)]
pub struct Merged {
    /// What runs.
    pub process: Process,
    /// `80/tcp`, sorted.
    pub exposed: Vec<String>,
    /// Paths at which the image wants volumes, sorted.
    pub volumes: Vec<String>,
    /// The image's labels under the request's.
    pub labels: HashMap<String, String>,
    /// What Stop sends.
    pub stop_signal: i32,
    /// For the person who asked.
    pub warnings: Vec<String>,
}

/// Reads an image's configuration.
pub fn parse(image: &str, json: &[u8]) -> Result<Config> {
    let parsed: ImageConfiguration =
        serde_json::from_slice(json).map_err(|error| Error::BadImage {
            image: image.to_owned(),
            problem: format!("its configuration is malformed: {error}"),
        })?;
    Ok(parsed.config().clone().unwrap_or_default())
}

/// Merges by Docker's rules and judges the result.
pub fn merge(config: &Config, request: &CreateRequest) -> Result<Merged> {
    let asked = request.process.clone().unwrap_or_default();
    let mut warnings = Vec::new();
    let labels = labels(config, request, &mut warnings);
    let process = Process {
        args: command(config, request),
        env: environment(config.env().as_deref().unwrap_or_default(), &asked),
        cwd: first(&asked.cwd, config.working_dir().as_deref(), "/"),
        user: first(&asked.user, config.user().as_deref(), ""),
        tty: asked.tty,
        window: window(&asked),
    };
    validate::process(&process)?;
    let mut volumes: Vec<String> = config.volumes().clone().unwrap_or_default();
    volumes.iter_mut().try_for_each(|path| {
        validate::target(path)?;
        *path = validate::normalize(path);
        Ok::<_, Error>(())
    })?;
    volumes.sort();
    volumes.dedup();
    let mut exposed: Vec<String> = config
        .exposed_ports()
        .iter()
        .flatten()
        .chain(&request.expose)
        .filter_map(|port| exposed_port(port))
        .collect();
    exposed.sort();
    exposed.dedup();
    Ok(Merged {
        process,
        exposed,
        volumes,
        labels,
        stop_signal: stop_signal(request, config.stop_signal().as_deref())?,
        warnings,
    })
}

/// What runs on a snapshot of the caller's, with no image behind it.
pub fn bare(request: &CreateRequest) -> Result<Merged> {
    merge(
        &Config::default(),
        &CreateRequest {
            command: request
                .process
                .as_ref()
                .map(|process| process.args.clone())
                .unwrap_or_default(),
            ..request.clone()
        },
    )
}

/// The process of an exec: the container's variables and directory under the request's.
pub fn exec(container: &Process, asked: &Asked) -> Result<Process> {
    let process = Process {
        args: asked.args.clone(),
        env: environment(&container.env, asked),
        cwd: first(&asked.cwd, Some(&container.cwd), "/"),
        user: first(&asked.user, Some(&container.user), ""),
        tty: asked.tty,
        window: window(asked),
    };
    validate::process(&process)?;
    Ok(process)
}

fn first(asked: &str, image: Option<&str>, default: &str) -> String {
    [asked, image.unwrap_or_default(), default]
        .into_iter()
        .find(|text| !text.is_empty())
        .unwrap_or_default()
        .to_owned()
}

/// ENTRYPOINT then CMD; an entrypoint of the request's discards the image's CMD.
fn command(config: &Config, request: &CreateRequest) -> Vec<String> {
    let image = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    let (mut args, image_command) = if request.entrypoint_set {
        (request.entrypoint.clone(), Vec::new())
    } else {
        (image(config.entrypoint()), image(config.cmd()))
    };
    if request.command.is_empty() {
        args.extend(image_command);
    } else {
        args.extend(request.command.clone());
    }
    args
}

/// Later ones win; entries without a name or without `=` are dropped, so that nothing is ever taken
/// from the service's own environment (row C11).
fn environment(base: &[String], asked: &Asked) -> Vec<String> {
    let mut merged: Vec<String> = Vec::new();
    let terminal = asked.tty.then(|| "TERM=xterm".to_owned());
    let defaults = [PATH.to_owned()].into_iter().chain(terminal);
    for entry in defaults
        .chain(base.iter().cloned())
        .chain(asked.env.iter().cloned())
    {
        let Some((name, _)) = entry.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            continue;
        };
        let same = |other: &String| {
            other
                .split_once('=')
                .is_some_and(|(existing, _)| existing == name)
        };
        match merged.iter().position(same) {
            Some(at) => {
                if let Some(slot) = merged.get_mut(at) {
                    *slot = entry;
                }
            }
            None => merged.push(entry),
        }
    }
    merged
}

fn labels(
    config: &Config,
    request: &CreateRequest,
    warnings: &mut Vec<String>,
) -> HashMap<String, String> {
    let mut labels = HashMap::new();
    for (key, value) in config.labels().iter().flatten() {
        if key.starts_with(RESERVED_LABELS) {
            warnings.push(format!("label {key:?} of the image is reserved: dropped"));
        } else {
            labels.insert(key.clone(), value.clone());
        }
    }
    labels.extend(request.labels.clone());
    labels
}

fn window(asked: &Asked) -> Option<(u16, u16)> {
    let size = asked.size.as_ref()?;
    let rows = u16::try_from(size.rows).ok()?;
    let columns = u16::try_from(size.columns).ok()?;
    Some((rows, columns))
}

/// `80`, `80/tcp`; anything else is no port.
pub(super) fn exposed_port(text: &str) -> Option<String> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let number: u16 = port.parse().ok().filter(|number| *number > 0)?;
    matches!(protocol, "tcp" | "udp").then(|| format!("{number}/{protocol}"))
}

/// The request's must be a signal; the image's may be anything, and then it is SIGTERM.
fn stop_signal(request: &CreateRequest, image: Option<&str>) -> Result<i32> {
    if !request.stop_signal.is_empty() {
        return signal(&request.stop_signal);
    }
    let parsed = image
        .filter(|text| !text.is_empty())
        .and_then(|text| signal(text).ok());
    Ok(parsed.unwrap_or(SIGTERM))
}

/// A signal by number, or by name with or without `SIG`: `9`, `KILL`, `SIGRTMIN+3`.
pub fn signal(text: &str) -> Result<i32> {
    const RTMIN: i32 = 34;
    const RTMAX: i32 = 64;
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = |rest: &str, base: i32| match rest {
        "" => Some(base),
        rest => rest.parse::<i32>().ok().map(|offset| base + offset),
    };
    let number = if let Ok(number) = upper.parse::<i32>() {
        Some(number)
    } else if let Some(rest) = name.strip_prefix("RTMIN") {
        real_time(rest, RTMIN)
    } else if let Some(rest) = name.strip_prefix("RTMAX") {
        real_time(rest, RTMAX)
    } else {
        format!("SIG{name}")
            .parse::<nix::sys::signal::Signal>()
            .ok()
            .map(|signal| signal as i32)
    };
    number
        .filter(|number| (1..=RTMAX).contains(number))
        .ok_or_else(|| {
            let shown: String = text.chars().take(32).collect();
            Error::invalid("signal", format!("{shown:?}: expected a name or a number"))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: &str) -> Config {
        let whole = format!(
            r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":[]}},"config":{json}}}"#
        );
        parse("test", whole.as_bytes()).unwrap()
    }

    fn ask(command: &[&str]) -> CreateRequest {
        CreateRequest {
            command: command.iter().map(|s| (*s).to_owned()).collect(),
            ..CreateRequest::default()
        }
    }

    #[test]
    fn command_and_entrypoint_follow_dockers_table() {
        let image = config(r#"{"Entrypoint":["/e"],"Cmd":["c"]}"#);
        assert_eq!(command(&image, &ask(&[])), ["/e", "c"]);
        assert_eq!(command(&image, &ask(&["x"])), ["/e", "x"]);
        let mut own = ask(&[]);
        own.entrypoint_set = true;
        own.entrypoint = vec!["/o".to_owned()];
        assert_eq!(command(&image, &own), ["/o"]);
        own.entrypoint.clear();
        own.command = vec!["sh".to_owned()];
        assert_eq!(command(&image, &own), ["sh"]);
    }

    #[test]
    fn c11_malformed_variables_of_an_image_are_dropped() {
        let image = config(r#"{"Env":["CANARY","=x","*","","A=1","A=2","E="],"Cmd":["c"]}"#);
        let merged = merge(&image, &ask(&[])).unwrap();
        assert_eq!(merged.process.env, [PATH, "A=2", "E="]);
    }

    #[test]
    fn c13_security_of_an_image_is_ignored() {
        let image = config(
            r#"{"Cmd":["c"],"SecurityOpt":["seccomp=unconfined"],"Privileged":true,"CapAdd":["ALL"],
                "Labels":{"a":"b"}}"#,
        );
        let with = merge(&image, &ask(&[])).unwrap();
        let without = merge(&config(r#"{"Cmd":["c"],"Labels":{"a":"b"}}"#), &ask(&[])).unwrap();
        assert_eq!(with, without);
    }

    #[test]
    fn c14_reserved_labels_of_an_image_are_dropped_with_a_warning() {
        let image = config(r#"{"Cmd":["c"],"Labels":{"org.orlop.seccomp":"unconfined","a":"b"}}"#);
        let merged = merge(&image, &ask(&[])).unwrap();
        assert_eq!(
            merged.labels,
            HashMap::from([("a".to_owned(), "b".to_owned())])
        );
        assert_eq!(merged.warnings.len(), 1);
    }

    #[test]
    fn b4_an_image_with_a_volume_over_proc_is_refused() {
        for path in ["/", "/proc", "/proc/x", "/sys", "/dev", "relative"] {
            let image = config(&format!(r#"{{"Cmd":["c"],"Volumes":{{"{path}":{{}}}}}}"#));
            assert!(merge(&image, &ask(&[])).is_err(), "{path}");
        }
    }

    #[test]
    fn an_image_without_a_command_says_so() {
        let error = merge(&config("{}"), &ask(&[])).unwrap_err();
        assert!(error.to_string().contains("command"), "{error}");
        let relative = config(r#"{"Cmd":["c"],"WorkingDir":"tmp"}"#);
        assert!(merge(&relative, &ask(&[])).is_err());
    }

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, number) in [
            ("9", 9),
            ("KILL", 9),
            ("SIGTERM", 15),
            ("sigint", 2),
            ("RTMIN+3", 37),
            ("SIGRTMAX-1", 63),
        ] {
            assert_eq!(signal(text).unwrap(), number, "{text}");
        }
        for bad in ["", "0", "-1", "65", "SIGNOPE", "9x", "RTMIN+99"] {
            assert!(signal(bad).is_err(), "{bad}");
        }
    }
}
