//! `orlop import`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use orlop_proto::change;
use orlop_proto::store::import_request::Message;
use orlop_proto::store::{ImportOptions, ImportRequest};
use serde_json::{Map, Value};

use super::{load, pull};
use crate::app::Context;
use crate::error::CliError;
use crate::values::{invalid, quantity};
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
    let mut config = Map::new();
    change::apply(&mut config, &args.change)
        .map_err(|error| invalid("--change", &error.change, error.problem))?;
    for (field, word) in [("Healthcheck", "HEALTHCHECK"), ("OnBuild", "ONBUILD")] {
        if config.contains_key(field) {
            let problem = "this instruction is not built for import";
            return Err(invalid("--change", word, problem));
        }
    }
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
