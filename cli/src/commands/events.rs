//! `orlop events`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use orlop_proto::runtime::{Event, WatchEventsRequest};
use serde_json::{Value, json};

use super::filters;
use crate::app::Context;
use crate::error::CliError;
use crate::format::Template;
use crate::ui::{self, text};
use crate::values::time;

const FILTERS: [&str; 7] = [
    "container",
    "event",
    "image",
    "label",
    "network",
    "type",
    "volume",
];

/// Show what happens, as it happens
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orlop events --since 10m --filter event=die")]
pub(crate) struct EventsArgs {
    /// From this time on: 2026-01-02T03:04:05Z, Unix seconds, or 10m
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    since: Option<String>,

    /// Up to this time, and no longer
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    until: Option<String>,

    /// Only those that fit: container, event, image, label, network, type, volume
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,

    /// Template, or json
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
}

/// How an event is shown.
enum Form {
    Line,
    Json,
    Template(Template),
}

/// Runs the command.
pub(super) async fn run(args: EventsArgs, context: &Context) -> Result<ExitCode, CliError> {
    let form = Form::parse(args.format.as_deref())?;
    let now = Timestamp::now();
    let point = |option, text: &Option<String>| -> Result<_, CliError> {
        let parsed = text.as_deref().map(|text| time::parse(option, text, now));
        Ok(parsed.transpose()?.map(ui::time::to_wire))
    };
    let request = WatchEventsRequest {
        since: point("--since", &args.since)?,
        until: point("--until", &args.until)?,
        filters: filters::parse(&args.filter, &FILTERS)?,
    };
    let answers = context.clients.events()?.watch(request).await?;
    let mut events = answers.into_inner();
    while let Some(event) = events.message().await? {
        ui::line(form.show(&event)?)?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Form {
    fn parse(text: Option<&str>) -> Result<Self, CliError> {
        Ok(match text {
            None => Self::Line,
            Some("json" | "{{json .}}") => Self::Json,
            Some(text) => Self::Template(Template::parse(text)?),
        })
    }

    fn show(&self, event: &Event) -> Result<String, CliError> {
        Ok(match self {
            Self::Line => line(event, &TimeZone::system()),
            Self::Json => json(event).to_string(),
            Self::Template(template) => template.render(&fields(event))?,
        })
    }
}

/// Docker's line: time, kind, action, id, and what else is known in parentheses.
fn line(event: &Event, zone: &TimeZone) -> String {
    let attributes: BTreeMap<_, _> = event.attributes.iter().collect();
    let attributes: Vec<String> = attributes.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let attributes = match attributes.is_empty() {
        true => String::new(),
        false => format!(" ({})", attributes.join(", ")),
    };
    let Event {
        kind, action, id, ..
    } = event;
    let time = at(event).to_zoned(zone.clone());
    let form = match time.offset().is_zero() {
        true => "%Y-%m-%dT%H:%M:%S.%9fZ",
        false => "%Y-%m-%dT%H:%M:%S.%9f%:z",
    };
    let shown = format!("{} {kind} {action} {id}{attributes}", time.strftime(form));
    text::escape(&shown)
}

fn at(event: &Event) -> Timestamp {
    ui::time::of(event.time.as_ref()).unwrap_or_default()
}

/// The message of Docker's API.
fn json(event: &Event) -> Value {
    let mut message = json!({
        "Type": event.kind,
        "Action": event.action,
        "Actor": { "ID": event.id, "Attributes": event.attributes },
        "scope": "local",
        "time": at(event).as_second(),
        "timeNano": nanoseconds(event),
    });
    // As Docker's first version of it had them, which only containers still have.
    if let (Value::Object(message), "container") = (&mut message, event.kind.as_str()) {
        message.insert("status".to_owned(), event.action.clone().into());
        message.insert("id".to_owned(), event.id.clone().into());
        message.insert("from".to_owned(), image(event).into());
    }
    message
}

/// The same by the names that templates use.
fn fields(event: &Event) -> Value {
    let of_container = |text: &str| match event.kind.as_str() {
        "container" => text.to_owned(),
        _ => String::new(),
    };
    json!({
        "Type": event.kind,
        "Action": event.action,
        "Actor": { "ID": event.id, "Attributes": event.attributes },
        "Status": of_container(&event.action),
        "ID": of_container(&event.id),
        "From": image(event),
        "Scope": "local",
        "Time": at(event).as_second(),
        "TimeNano": nanoseconds(event),
    })
}

fn image(event: &Event) -> &str {
    let image = event.attributes.get("image");
    image.map(String::as_str).unwrap_or_default()
}

fn nanoseconds(event: &Event) -> i64 {
    i64::try_from(at(event).as_nanosecond()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        let attributes = [("name", "web"), ("image", "nginx"), ("exitCode", "3")];
        Event {
            time: Some(prost_types::Timestamp {
                seconds: 1,
                nanos: 5,
            }),
            kind: "container".to_owned(),
            action: "die".to_owned(),
            id: "ab".to_owned(),
            attributes: attributes.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        }
    }

    #[test]
    fn a_line_is_dockers() {
        assert_eq!(
            line(&event(), &TimeZone::UTC),
            "1970-01-01T00:00:01.000000005Z container die ab (exitCode=3, image=nginx, name=web)"
        );
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        assert!(line(&event(), &zone).starts_with("1970-01-01T02:00:01.000000005+02:00 "));
        let bare = Event {
            attributes: [].into(),
            ..event()
        };
        assert!(line(&bare, &TimeZone::UTC).ends_with(" die ab"));
    }

    #[test]
    fn d15_labels_reach_the_terminal_without_control_characters() {
        let attributes = [("label".to_owned(), "\u{1b}]0;title\u{7}\r".to_owned())].into();
        let shown = line(
            &Event {
                attributes,
                ..event()
            },
            &TimeZone::UTC,
        );
        assert!(!shown.contains(char::is_control), "{shown:?}");
    }

    #[test]
    fn json_and_templates_have_dockers_names() {
        let json = json(&event());
        assert_eq!(json["Actor"]["Attributes"]["exitCode"], "3");
        assert_eq!(json["from"], "nginx");
        assert_eq!(json["timeNano"], 1_000_000_005_i64);
        let form = Form::parse(Some("{{.Status}} {{.Actor.Attributes.name}} {{.TimeNano}}"));
        assert_eq!(form.unwrap().show(&event()).unwrap(), "die web 1000000005");
        assert!(Form::parse(Some("{{.")).is_err());
    }
}
