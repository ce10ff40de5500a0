//! `orlop tag`.

use std::process::ExitCode;

use clap::Args;
use orlop_proto::store::{PutImageRequest, ResolveImageRequest};

use super::pull;
use crate::app::Context;
use crate::error::CliError;

/// Give an image another name
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orlop tag app:latest 127.0.0.1:5000/app:v1")]
pub(crate) struct TagArgs {
    /// The image: a name or an id
    source: String,

    /// Its new name
    target: String,
}

/// Runs the command.
pub(super) async fn run(args: TagArgs, context: &Context) -> Result<ExitCode, CliError> {
    let target = pull::parse(&args.target)?;
    if target.digest().is_some() {
        return Err(CliError::Usage(format!(
            "{}: a new name cannot have a digest",
            args.target
        )));
    }
    let mut images = context.clients.images()?;
    let request = ResolveImageRequest {
        reference: args.source,
        platform: None,
    };
    let image = images.resolve(request).await?.into_inner();
    let request = PutImageRequest {
        name: target.to_string(),
        target: image.target,
        expected: None,
    };
    images.put(request).await?;
    Ok(ExitCode::SUCCESS)
}
