//! RUN: a one-shot container on the step's snapshot.

use futures_util::StreamExt as _;
use orlop_proto::runtime::create_request::Root;
use orlop_proto::runtime::{CreateRequest, Process};

use super::Task;
use crate::error::{BuildError, Doing as _};
use crate::flight::Log;
use crate::plan::RunOp;
use crate::ports::Output;

pub(super) async fn perform(
    task: &Task,
    run: &RunOp,
    key: &str,
    log: &Log,
) -> Result<(), BuildError> {
    let place = || task.vertex.span.to_string();
    let container = CreateRequest {
        root: Some(Root::Snapshot(key.to_owned())),
        process: Some(Process {
            args: run.args.clone(),
            env: run.env_uncounted.iter().chain(&run.env).cloned().collect(),
            cwd: run.cwd.clone(),
            user: run.user.clone(),
            ..Process::default()
        }),
        network: run.network.clone(),
        ..CreateRequest::default()
    };
    let mut outputs = task
        .ports
        .exec
        .run(container)
        .await
        .doing(|| task.doing())?;
    let mut code = None;
    // To the end of the stream, not only to the exit: by then the snapshot is unmounted.
    while let Some(output) = outputs.next().await {
        match output.doing(|| task.doing())? {
            Output::Data(stream, data) => log.write(stream, data),
            Output::Exited(exited) => code = Some(exited),
        }
    }
    match code {
        Some(0) => Ok(()),
        Some(code) => Err(BuildError::CommandFailed {
            place: place(),
            command: crate::redact::urls(&run.shown),
            code,
        }),
        None => Err(BuildError::NoExit { place: place() }),
    }
}
