//! `--details`: the labels and variables that were said to belong to a container's log, as Docker's json-file
//! shows them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use orlop_proto::runtime::{Container, InspectRequest};

use crate::app::Context;
use crate::error::CliError;

/// What stands before each line of a container's log; a blank where there are none, as in Docker.
pub(super) async fn of(container: &str, context: &Context) -> Result<String, CliError> {
    let request = InspectRequest {
        id: container.to_owned(),
        size: false,
    };
    let mut containers = context.clients.containers()?;
    let found = containers.inspect(request).await?.into_inner();
    Ok(line(&details(&found)))
}

fn details(container: &Container) -> BTreeMap<&str, &str> {
    let mut details = BTreeMap::new();
    let Some(config) = &container.config else {
        return details;
    };
    for (key, value) in &config.labels {
        if config.log_labels.contains(key) {
            details.insert(key.as_str(), value.as_str());
        }
    }
    let variables = container.process.iter().flat_map(|process| &process.env);
    for (name, value) in variables.filter_map(|variable| variable.split_once('=')) {
        if config.log_env.iter().any(|asked| asked == name) {
            details.insert(name, value);
        }
    }
    details
}

fn line(details: &BTreeMap<&str, &str>) -> String {
    let pairs = details.iter();
    let pairs: Vec<_> = pairs
        .map(|(key, value)| format!("{}={}", escape(key), escape(value)))
        .collect();
    format!("{} ", pairs.join(","))
}

/// As Go's `url.QueryEscape`.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b' ' => escaped.push('+'),
            b'-' | b'_' | b'.' | b'~' => escaped.push(byte.into()),
            byte if byte.is_ascii_alphanumeric() => escaped.push(byte.into()),
            // Writing to a string cannot fail.
            byte => drop(write!(escaped, "%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use orlop_proto::runtime::{CreateRequest, Process};

    use super::*;

    #[test]
    fn what_was_named_is_shown_in_order_and_escaped() {
        let text = |text: &str| text.to_owned();
        let container = Container {
            config: Some(CreateRequest {
                labels: [("b", "x y"), ("other", "1")]
                    .map(|(key, value)| (text(key), text(value)))
                    .into(),
                log_labels: vec![text("b"), text("none")],
                log_env: vec![text("A")],
                ..CreateRequest::default()
            }),
            process: Some(Process {
                env: vec![text("A=1,2=\u{e4}"), text("HOME=/root")],
                ..Process::default()
            }),
            ..Container::default()
        };
        assert_eq!(line(&details(&container)), "A=1%2C2%3D%C3%A4,b=x+y ");
        assert_eq!(line(&details(&Container::default())), " ");
    }
}
