//! From a container to here.

use std::io;

use orlop_files::{CopyError, Joined, Kind, Root, Target, Unpacking, unpack};
use orlop_proto::runtime::copy_out_response::Message;
use orlop_proto::runtime::{CopyKind, CopyOutRequest, CopyOutResponse, CopyOutStart};
use tokio::sync::mpsc;

use super::{Options, absolute};
use crate::app::Context;
use crate::clients::Answers;
use crate::error::CliError;
use crate::ui;

/// Chunks that may wait for the disk.
const QUEUE: usize = 4;

/// Copies a file or a directory, or gives its tar to standard output; answers the bytes of the files.
pub(super) async fn copy(
    context: &Context,
    (id, path): (&str, &str),
    destination: &str,
    options: Options,
) -> Result<Option<u64>, CliError> {
    if destination == "-" && ui::stdout_is_terminal() {
        return Err(CliError::ArchiveToTerminal);
    }
    let request = CopyOutRequest {
        id: id.to_owned(),
        path: path.as_bytes().to_vec().into(),
        follow: options.follow,
    };
    let answers = context.clients.containers()?.copy_out(request).await?;
    let mut answers = answers.into_inner();
    let Some(Message::Start(start)) = next(&mut answers).await? else {
        return Err(contract("a copy begins with what it is of"));
    };
    if destination == "-" {
        while let Some(chunk) = data(&mut answers).await? {
            ui::raw(&chunk)?;
        }
        return Ok(None);
    }
    let root = Root::of_host().map_err(crate::error::system("open the root directory"))?;
    let kind = kind_of(&start)?;
    let target = Target::find(root, &absolute(destination)?, kind, &start.name)?;
    let how = Unpacking {
        top: start.name.to_vec(),
        owners: options.archive,
    };
    receive(answers, target.without_links()?, how)
        .await
        .map(Some)
}

/// Unpacks what comes. The archive may be hostile: see [`Target::without_links`].
async fn receive(
    mut answers: Answers<CopyOutResponse>,
    target: Target,
    how: Unpacking,
) -> Result<u64, CliError> {
    let (sender, mut receiver) = mpsc::channel::<io::Result<bytes::Bytes>>(QUEUE);
    let unpacking = tokio::task::spawn_blocking(move || {
        let tar = Joined::new(move || receiver.blocking_recv().transpose());
        unpack(tar, &target, &how)
    });
    let mut failure = None;
    loop {
        let chunk = match data(&mut answers).await {
            Ok(Some(chunk)) => Ok(chunk),
            Ok(None) => break,
            Err(error) => {
                failure = Some(error);
                Err(io::ErrorKind::ConnectionAborted.into())
            }
        };
        if sender.send(chunk).await.is_err() || failure.is_some() {
            break;
        }
    }
    drop(sender);
    let unpacked = unpacking
        .await
        .map_err(|error| CopyError::Stream(error.into()))?;
    match failure {
        Some(failure) => Err(failure),
        None => Ok(unpacked?),
    }
}

async fn next(answers: &mut Answers<CopyOutResponse>) -> Result<Option<Message>, CliError> {
    Ok(answers.message().await?.and_then(|answer| answer.message))
}

async fn data(answers: &mut Answers<CopyOutResponse>) -> Result<Option<bytes::Bytes>, CliError> {
    match next(answers).await? {
        None => Ok(None),
        Some(Message::Data(data)) => Ok(Some(data)),
        Some(Message::Start(_)) => Err(contract("a copy begins once")),
    }
}

fn kind_of(start: &CopyOutStart) -> Result<Kind, CliError> {
    match start.kind() {
        CopyKind::File => Ok(Kind::File),
        CopyKind::Directory => Ok(Kind::Directory),
        CopyKind::Contents => Ok(Kind::Contents),
        _ => Err(contract("a copy of no kind")),
    }
}

fn contract(what: &'static str) -> CliError {
    CliError::Contract {
        service: "runtime",
        what,
    }
}
