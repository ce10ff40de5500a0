//! `orlop inspect`: containers, images, volumes and networks by any of their names.

use std::process::ExitCode;

use clap::Args;
use orlop_proto::error::Kind;
use orlop_proto::runtime::InspectRequest;
use orlop_proto::store::ResolveImageRequest;
use serde_json::Value;

use crate::app::Context;
use crate::error::CliError;
use crate::format::Template;
use crate::inspect::{container, image};
use crate::ui;

/// Show everything about containers and images
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orlop inspect --format '{{.State.Status}}' web")]
pub(crate) struct InspectArgs {
    /// Ids or names
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,

    /// Template, or json
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,

    /// Count what containers take
    #[arg(short, long)]
    size: bool,

    /// Only this kind of thing
    #[arg(long = "type", value_parser = ["container", "image"], value_name = "TYPE")]
    kind: Option<String>,
}

/// Runs the command.
pub(super) async fn run(args: InspectArgs, context: &Context) -> Result<ExitCode, CliError> {
    match args.kind.as_deref() {
        Some("container") => return containers(args, context).await,
        Some("image") => return images(args, context).await,
        _ => {}
    }
    show(&args.names, args.format.as_deref(), async |name| {
        match one_container(name.clone(), args.size, context).await {
            Err(error) if error.kind() == Some(Kind::NotFound) => {}
            found => return found,
        }
        match one_image(name.clone(), context).await {
            Err(error) if matches!(error.kind(), Some(Kind::NotFound | Kind::InvalidArgument)) => {
                Err(CliError::NoSuchObject(name))
            }
            found => found,
        }
    })
    .await
}

/// `orlop container inspect`.
pub(super) async fn containers(args: InspectArgs, context: &Context) -> Result<ExitCode, CliError> {
    show(&args.names, args.format.as_deref(), async |name| {
        one_container(name, args.size, context).await
    })
    .await
}

/// `orlop image inspect`.
pub(super) async fn images(args: InspectArgs, context: &Context) -> Result<ExitCode, CliError> {
    show(&args.names, args.format.as_deref(), async |name| {
        one_image(name, context).await
    })
    .await
}

async fn one_container(name: String, size: bool, context: &Context) -> Result<Value, CliError> {
    let request = InspectRequest { id: name, size };
    let found = context
        .clients
        .containers()?
        .inspect(request)
        .await?
        .into_inner();
    Ok(container::describe(&found))
}

async fn one_image(name: String, context: &Context) -> Result<Value, CliError> {
    let mut images = context.clients.images()?;
    let request = ResolveImageRequest {
        reference: name,
        platform: None,
    };
    let found = images.resolve(request).await?.into_inner();
    let id = found
        .config
        .as_ref()
        .map(|config| config.digest.clone())
        .unwrap_or_default();
    let prefix = found.names.first().cloned().unwrap_or_default();
    let request = orlop_proto::store::ListImagesRequest {
        prefix,
        ..Default::default()
    };
    let listed = images.list(request).await?.into_inner().images;
    let size = listed
        .iter()
        .find(|summary| summary.image_id == id)
        .map_or(0, |summary| summary.size);
    image::describe(&found, size)
}

/// Shows what `find` finds for each name: as a JSON array, or each by the template.
pub(super) async fn show(
    names: &[String],
    form: Option<&str>,
    find: impl AsyncFn(String) -> Result<Value, CliError>,
) -> Result<ExitCode, CliError> {
    let form = form.filter(|form| *form != "json" || names.is_empty());
    let template = form.map(Template::parse).transpose()?;
    let mut code = ExitCode::SUCCESS;
    let mut found = Vec::new();
    let mut failures = Vec::new();
    for name in names {
        match find(name.clone()).await {
            Ok(value) => found.push(value),
            Err(error) => failures.push(error),
        }
    }
    match template {
        Some(template) => {
            for value in &found {
                ui::line(template.render(value)?)?;
            }
        }
        None => ui::line(pretty(&Value::Array(found)))?,
    }
    for error in failures {
        ui::report(&error);
        code = ExitCode::from(error.exit_code());
    }
    Ok(code)
}

/// JSON as Docker indents it. Strings in JSON have their control characters escaped already.
fn pretty(value: &Value) -> String {
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    match serde::Serialize::serialize(value, &mut serializer) {
        Ok(()) => String::from_utf8(out).unwrap_or_default(),
        Err(_) => value.to_string(),
    }
}
