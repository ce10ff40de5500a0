//! The health check of a container: the image's, under what the request says of it. Merged by Docker's
//! rules.

use std::time::Duration;

use oci_spec::runtime::Process as SpecProcess;
use orlop_proto::runtime::{CreateRequest, HealthCheck};
use orlop_shim::health as shim;
use serde::Deserialize;

use crate::containers::record::{Process, Record};
use crate::error::{Error, Result};

/// Docker's defaults.
const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_secs(5);
const RETRIES: u32 = 3;
const SHELL: [&str; 2] = ["/bin/sh", "-c"];
/// The shortest time that Docker takes, in nanoseconds.
const SHORTEST: i64 = 1_000_000;
/// What the words of a check may take: the kernel's limit of one argument.
const BYTES_MAX: usize = 128 * 1024;

/// What an image says of its health. Docker's addition to the OCI configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageHealth {
    healthcheck: Option<ImageCheck>,
    shell: Option<Vec<String>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ImageCheck {
    test: Option<Vec<String>>,
    interval: i64,
    timeout: i64,
    start_period: i64,
    start_interval: i64,
    retries: u32,
}

/// Reads it from an image's configuration.
pub fn parse(image: &str, json: &[u8]) -> Result<ImageHealth> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Image {
        config: Option<ImageHealth>,
    }
    let parsed: Image = serde_json::from_slice(json).map_err(|error| Error::BadImage {
        image: image.to_owned(),
        problem: format!("its health check is malformed: {error}"),
    })?;
    Ok(parsed.config.unwrap_or_default())
}

/// The check of a container; `None`: it has none.
pub fn merge(image: &ImageHealth, request: &CreateRequest) -> Result<Option<HealthCheck>> {
    let asked = request.health.clone().unwrap_or_default();
    if asked.disabled {
        return only_disabled(&asked).map(|()| None);
    }
    let merged = HealthCheck {
        shell: image.shell.clone().unwrap_or_default(),
        ..over(image.healthcheck.clone().unwrap_or_default(), asked.clone())
    };
    match merged.test.first().map(String::as_str) {
        None if asked == HealthCheck::default() => return Ok(None),
        None => {
            return Err(invalid(
                "options of one were given, and the image has none: say its command",
            ));
        }
        Some("NONE") => return Ok(None),
        Some(_) => {}
    }
    check(&merged)?;
    if merged.on_failure == "restart" && request.auto_remove {
        return Err(invalid(
            "on failure: restart and removal at the exit exclude one another",
        ));
    }
    Ok(Some(merged))
}

fn only_disabled(asked: &HealthCheck) -> Result<()> {
    let nothing_else = HealthCheck {
        disabled: true,
        ..HealthCheck::default()
    };
    match *asked == nothing_else {
        true => Ok(()),
        false => Err(invalid("no check, and options of one, exclude one another")),
    }
}

/// What is asked for, and the image's where it is not.
fn over(image: ImageCheck, asked: HealthCheck) -> HealthCheck {
    let or = |asked: i64, image: i64| if asked == 0 { image } else { asked };
    HealthCheck {
        test: match asked.test.is_empty() {
            true => image.test.unwrap_or_default(),
            false => asked.test,
        },
        interval: or(asked.interval, image.interval),
        timeout: or(asked.timeout, image.timeout),
        start_period: or(asked.start_period, image.start_period),
        start_interval: or(asked.start_interval, image.start_interval),
        retries: if asked.retries == 0 {
            image.retries
        } else {
            asked.retries
        },
        on_failure: asked.on_failure,
        ..HealthCheck::default()
    }
}

fn check(check: &HealthCheck) -> Result<()> {
    let words = check.test.iter().chain(&check.shell);
    let bytes: usize = words.clone().map(|word| word.len() + 1).sum();
    if bytes > BYTES_MAX || words.clone().any(|word| word.contains('\0')) {
        return Err(invalid("its command is too long, or has a zero byte"));
    }
    let command = command(check);
    if command.first().is_none_or(String::is_empty) || command.last().is_some_and(String::is_empty)
    {
        return Err(invalid(
            "expected CMD and a command, CMD-SHELL and a line, or NONE",
        ));
    }
    for time in [
        check.interval,
        check.timeout,
        check.start_period,
        check.start_interval,
    ] {
        if time != 0 && time < SHORTEST {
            return Err(invalid("its times cannot be less than 1ms"));
        }
    }
    match check.on_failure.as_str() {
        "" | "none" | "kill" | "restart" | "stop" => Ok(()),
        _ => Err(invalid("on failure: expected none, kill, restart or stop")),
    }
}

fn invalid(problem: &str) -> Error {
    Error::invalid("health check", problem)
}

/// The words of the command; none for a form that there is not.
fn command(check: &HealthCheck) -> Vec<String> {
    match check.test.split_first() {
        Some((form, args)) if form == "CMD" => args.to_vec(),
        Some((form, [line])) if form == "CMD-SHELL" => {
            let shell = match check.shell.is_empty() {
                true => SHELL.map(str::to_owned).to_vec(),
                false => check.shell.clone(),
            };
            shell.into_iter().chain([line.clone()]).collect()
        }
        _ => Vec::new(),
    }
}

/// The process of a container's check, before it is made a document; `None`: it has no check.
pub fn process(record: &Record) -> Option<Process> {
    let check = record.config.health.as_ref()?;
    Some(Process {
        args: command(check),
        tty: false,
        window: None,
        ..record.process.clone()
    })
}

/// What the shim is to do.
pub fn for_shim(check: &HealthCheck, process: SpecProcess) -> shim::HealthCheck {
    let or = |nanoseconds: i64, default: Duration| match u64::try_from(nanoseconds) {
        Ok(nanoseconds) if nanoseconds > 0 => Duration::from_nanos(nanoseconds),
        _ => default,
    };
    shim::HealthCheck {
        process,
        interval: or(check.interval, INTERVAL),
        timeout: or(check.timeout, TIMEOUT),
        retries: if check.retries == 0 {
            RETRIES
        } else {
            check.retries
        },
        start_period: or(check.start_period, Duration::ZERO),
        start_interval: or(check.start_interval, START_INTERVAL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: &[u8] = br#"{"config":{"Healthcheck":{"Test":["CMD-SHELL","curl x"],
        "Interval":5000000000,"Retries":7},"Shell":["/bin/ash","-ec"]}}"#;

    fn asked(check: HealthCheck) -> CreateRequest {
        CreateRequest {
            health: Some(check),
            ..CreateRequest::default()
        }
    }

    fn test(words: &[&str]) -> HealthCheck {
        HealthCheck {
            test: words.iter().map(|word| (*word).to_owned()).collect(),
            ..HealthCheck::default()
        }
    }

    #[test]
    fn each_part_that_is_not_asked_for_is_the_images() {
        let image = parse("app", IMAGE).unwrap();
        let own = merge(&image, &CreateRequest::default()).unwrap().unwrap();
        assert_eq!(command(&own), ["/bin/ash", "-ec", "curl x"]);
        let request = asked(HealthCheck {
            retries: 2,
            ..test(&["CMD", "true"])
        });
        let merged = merge(&image, &request).unwrap().unwrap();
        assert_eq!((merged.interval, merged.retries), (5_000_000_000, 2));
        let shim = for_shim(&merged, SpecProcess::default());
        assert_eq!(
            (shim.interval, shim.timeout),
            (Duration::from_secs(5), TIMEOUT)
        );
        assert_eq!(command(&merged), ["true"]);
    }

    #[test]
    fn a_check_can_be_missing_or_switched_off() {
        let image = parse("app", IMAGE).unwrap();
        let bare = parse("app", b"{}").unwrap();
        assert_eq!(merge(&bare, &CreateRequest::default()).unwrap(), None);
        let off = HealthCheck {
            disabled: true,
            ..HealthCheck::default()
        };
        assert_eq!(merge(&image, &asked(off.clone())).unwrap(), None);
        assert_eq!(merge(&image, &asked(test(&["NONE"]))).unwrap(), None);
        let both = HealthCheck { retries: 1, ..off };
        assert!(merge(&image, &asked(both)).is_err());
        let options_of_none = HealthCheck {
            retries: 1,
            ..HealthCheck::default()
        };
        assert!(merge(&bare, &asked(options_of_none)).is_err());
    }

    #[test]
    fn what_can_never_be_checked_is_refused() {
        let image = ImageHealth::default();
        let long = "x".repeat(BYTES_MAX);
        for words in [
            &["CMD"][..],
            &["CMD", ""],
            &["CMD-SHELL"],
            &["CMD-SHELL", ""],
            &["CMD-SHELL", "a", "b"],
            &["true"],
            &["CMD", "a\0b"],
            &["CMD", &long],
        ] {
            assert!(merge(&image, &asked(test(words))).is_err(), "{words:?}");
        }
        for check in [
            HealthCheck {
                interval: 1,
                ..test(&["CMD", "true"])
            },
            HealthCheck {
                timeout: -1,
                ..test(&["CMD", "true"])
            },
            HealthCheck {
                on_failure: "explode".to_owned(),
                ..test(&["CMD", "true"])
            },
        ] {
            assert!(merge(&image, &asked(check)).is_err());
        }
        assert!(parse("app", br#"{"config":{"Healthcheck":{"Retries":-1}}}"#).is_err());
    }
}
