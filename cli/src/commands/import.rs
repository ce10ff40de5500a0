//! `orlop import`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use orlop_proto::store::import_request::Message;
use orlop_proto::store::{ImportOptions, ImportRequest};
use serde_json::{Map, Value, json};

use super::{load, pull};
use crate::app::Context;
use crate::error::CliError;
use crate::values::{invalid, pair, quantity};
use crate::{ui, upload};

/// Make an image of the tar of a root file system
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orlop import rootfs.tar debian:mine")]
pub(crate) struct ImportArgs {
    /// The tar (plain, gzip or zstd), or - for standard input
    file: PathBuf,

    /// Name of the image
    name: Option<String>,

    /// Configure the image: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME, WORKDIR
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,

    /// Text for the image's history
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,

    /// Platform of the image, for example linux/arm64
    #[arg(long, value_name = "OS/ARCHITECTURE")]
    platform: Option<String>,
}

/// Runs the command.
pub(super) async fn run(args: ImportArgs, context: &Context) -> Result<ExitCode, CliError> {
    let name = args.name.as_deref().map(pull::parse).transpose()?;
    let config = config(&args.change)?;
    let options = ImportOptions {
        name: name.map(|name| name.to_string()).unwrap_or_default(),
        config_json: if config.is_empty() {
            String::new()
        } else {
            Value::Object(config).to_string()
        },
        message: args.message.unwrap_or_default(),
        platform: args
            .platform
            .as_deref()
            .map(quantity::platform)
            .transpose()?,
    };
    let source = load::open(Some(&args.file))?;
    let message = |message| ImportRequest {
        message: Some(message),
    };
    let first = message(Message::Options(options));
    let (chunks, failure) = upload::stream(source, Some(first), move |data| {
        message(Message::Data(data))
    });
    let imported = context.clients.archives()?.import(chunks).await;
    failure.check()?;
    ui::line(imported?.into_inner().image_id)?;
    Ok(ExitCode::SUCCESS)
}

/// The image configuration's `config` that the instructions make.
fn config(changes: &[String]) -> Result<Map<String, Value>, CliError> {
    let mut config = Map::new();
    for change in changes {
        let (word, rest) = change
            .trim()
            .split_once(char::is_whitespace)
            .unwrap_or((change, ""));
        let rest = rest.trim();
        if rest.is_empty() {
            return Err(invalid(
                "--change",
                change,
                "expected an instruction and its value",
            ));
        }
        apply(&mut config, &word.to_ascii_uppercase(), rest).ok_or_else(|| {
            invalid(
                "--change",
                change,
                "this instruction is not built for import",
            )
        })?;
    }
    Ok(config)
}

fn apply(config: &mut Map<String, Value>, word: &str, rest: &str) -> Option<()> {
    match word {
        "CMD" => config.insert("Cmd".to_owned(), command(rest)),
        "ENTRYPOINT" => config.insert("Entrypoint".to_owned(), command(rest)),
        "WORKDIR" => config.insert("WorkingDir".to_owned(), json!(rest)),
        "USER" => config.insert("User".to_owned(), json!(rest)),
        "STOPSIGNAL" => config.insert("StopSignal".to_owned(), json!(rest)),
        "ENV" => {
            let entry = match rest.split_once('=') {
                Some((name, value)) => format!("{name}={}", unquoted(value)),
                None => rest
                    .split_once(char::is_whitespace)
                    .map(|(n, v)| format!("{n}={}", v.trim()))?,
            };
            config
                .entry("Env")
                .or_insert_with(|| json!([]))
                .as_array_mut()?
                .push(json!(entry));
            None
        }
        "LABEL" => {
            let (key, value) = pair(rest);
            entry(config, "Labels")?.insert(unquoted(&key), json!(unquoted(&value)));
            None
        }
        "EXPOSE" => {
            for port in rest.split_whitespace() {
                let port = if port.contains('/') {
                    port.to_owned()
                } else {
                    format!("{port}/tcp")
                };
                entry(config, "ExposedPorts")?.insert(port, json!({}));
            }
            None
        }
        "VOLUME" => {
            entry(config, "Volumes")?.insert(rest.to_owned(), json!({}));
            None
        }
        _ => return None,
    };
    Some(())
}

fn entry<'a>(config: &'a mut Map<String, Value>, name: &str) -> Option<&'a mut Map<String, Value>> {
    config
        .entry(name)
        .or_insert_with(|| json!({}))
        .as_object_mut()
}

/// A JSON array as it is; anything else by the shell.
fn command(text: &str) -> Value {
    match serde_json::from_str::<Vec<String>>(text) {
        Ok(words) => json!(words),
        Err(_) => json!(["/bin/sh", "-c", text]),
    }
}

fn unquoted(text: &str) -> String {
    let inner = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'));
    inner.unwrap_or(text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_make_a_configuration() {
        let changes = [
            "CMD [\"sh\"]",
            "env A=\"b c\"",
            "EXPOSE 80 53/udp",
            "LABEL k=v",
            "ENTRYPOINT run it",
        ];
        let made = config(&changes.map(str::to_owned)).unwrap();
        assert_eq!(made["Cmd"], json!(["sh"]));
        assert_eq!(made["Env"], json!(["A=b c"]));
        assert_eq!(made["ExposedPorts"], json!({"80/tcp": {}, "53/udp": {}}));
        assert_eq!(made["Labels"], json!({"k": "v"}));
        assert_eq!(made["Entrypoint"], json!(["/bin/sh", "-c", "run it"]));
        for bad in ["RUN x", "CMD", ""] {
            assert!(config(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
