//! From here into a container.

use std::io::{self, Write as _};

use orlop_files::{Chunks, CopyError, Kind, Root, Source, pack};
use orlop_proto::runtime::copy_in_request::Message;
use orlop_proto::runtime::{CopyInRequest, CopyInStart};
use orlop_wire::CHUNK_BYTES;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{Options, absolute, wire_kind};
use crate::app::Context;
use crate::error::CliError;

/// Chunks that may wait for the service.
const QUEUE: usize = 4;

/// Copies a file, a directory, or a tar from standard input; answers the bytes of the files.
pub(super) async fn copy(
    context: &Context,
    source: &str,
    (id, path): (&str, &str),
    options: Options,
) -> Result<u64, CliError> {
    let found = match source {
        "-" => None,
        source => Some(find(source, options)?),
    };
    let start = CopyInStart {
        id: id.to_owned(),
        path: path.as_bytes().to_vec().into(),
        kind: wire_kind(found.as_ref().map_or(Kind::Archive, |found| found.kind)).into(),
        name: found
            .as_ref()
            .map_or_else(Vec::new, |f| f.name.clone())
            .into(),
        archive: options.archive || found.is_none(),
    };
    let (sender, receiver) = mpsc::channel(QUEUE);
    let first = sender.send(message(Message::Start(start))).await;
    first.map_err(|_| CliError::Usage("nothing was sent".to_owned()))?;
    let finite = found.is_some();
    let reading = tokio::task::spawn_blocking(move || send(found.as_ref(), sender));
    let mut client = context.clients.containers()?;
    let answer = client.copy_in(ReceiverStream::new(receiver)).await;
    // Why we stopped in the middle is what the service cannot know. Standard input may never end.
    if finite
        && let Ok(Err(error)) = reading.await
        && !matches!(error, CopyError::Stream(_))
    {
        return Err(error.into());
    }
    Ok(answer?.into_inner().bytes)
}

fn find(source: &str, options: Options) -> Result<Source, CliError> {
    let root = Root::of_host().map_err(crate::error::system("open the root directory"))?;
    Ok(Source::find(&root, &absolute(source)?, options.follow)?)
}

fn message(message: Message) -> CopyInRequest {
    CopyInRequest {
        message: Some(message),
    }
}

fn send(source: Option<&Source>, to: mpsc::Sender<CopyInRequest>) -> Result<(), CopyError> {
    let mut chunks = Chunks::new(CHUNK_BYTES, move |chunk| {
        let sent = to.blocking_send(message(Message::Data(chunk.into())));
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    });
    match source {
        Some(source) => pack(source, &|_, _| false, chunks).map(drop),
        None => {
            let copied = io::copy(&mut io::stdin().lock(), &mut chunks);
            copied
                .and_then(|_| chunks.flush())
                .map_err(CopyError::Stream)
        }
    }
}
