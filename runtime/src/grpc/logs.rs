//! `Logs`: what a container wrote, and goes on writing.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use jiff::Timestamp;
use orlop_proto::runtime as wire;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::attach::BACKLOG;
use super::{Answers, convert, status};
use crate::containers::Container;
use crate::error::{Error, Result, blocking};
use crate::logs::{Line, Reader, Selection};

/// How often a follower looks for more. A person does not see the difference, and an idle container
/// costs one read of nothing.
const POLL: Duration = Duration::from_millis(50);

/// Reads a log without blocking the caller's thread.
pub(super) struct Follower {
    container: Arc<Container>,
    reader: Option<Reader>,
}

/// Streams a log.
pub(super) async fn stream(
    container: Arc<Container>,
    request: wire::LogsRequest,
) -> Result<Answers<wire::LogsResponse>> {
    if container.record().config.log_driver == "none" {
        return Err(Error::NoLog);
    }
    let neither = !request.stdout && !request.stderr;
    let selection = Selection {
        stdout: request.stdout || neither,
        stderr: request.stderr || neither,
        tail: request.tail,
        since: request.since.as_ref().and_then(convert::time),
        until: request.until.as_ref().and_then(convert::time),
    };
    let until = match request.follow {
        true => selection.until.unwrap_or(Timestamp::MAX),
        false => Timestamp::MIN,
    };
    let follower = Follower::open(container, selection).await?;
    let (to_client, from_service) = mpsc::channel(BACKLOG);
    tokio::spawn(async move {
        if let Err(error) = follower.forward(&to_client, until).await {
            to_client.send(Err(status(error))).await.ok();
        }
    });
    Ok(ReceiverStream::new(from_service).boxed())
}

impl Follower {
    /// Opens a container's log where the selection begins.
    pub(super) async fn open(container: Arc<Container>, selection: Selection) -> Result<Self> {
        let directory = container.directory.clone();
        let reader = blocking(move || {
            Reader::open(&directory, selection).map_err(Error::file("read the log in", directory))
        });
        Ok(Self {
            container,
            reader: Some(reader.await?),
        })
    }

    /// The lines that were written since the last call.
    pub(super) async fn read(&mut self) -> Result<Vec<Line>> {
        let Some(mut reader) = self.reader.take() else {
            return Ok(Vec::new());
        };
        let directory = self.container.directory.clone();
        let (reader, lines) = blocking(move || {
            let lines = reader.read();
            let lines = lines.map_err(Error::file("read the log in", directory))?;
            Ok((reader, lines))
        })
        .await?;
        self.reader = Some(reader);
        Ok(lines)
    }

    /// Everything there is, and what comes up to a time, to the client.
    async fn forward(
        mut self,
        to: &mpsc::Sender<Result<wire::LogsResponse, Status>>,
        until: Timestamp,
    ) -> Result<()> {
        loop {
            // Looked at before the log: what is read afterwards is all there will be.
            let ended = !self.container.record().is_running() || self.container.is_removed();
            let over = ended || Timestamp::now() > until;
            let lines = self.read().await?;
            if lines.is_empty() {
                if over {
                    return Ok(());
                }
                tokio::select! {
                    () = to.closed() => return Ok(()),
                    () = tokio::time::sleep(POLL) => {}
                }
            }
            for line in lines {
                if to.send(Ok(convert::log_line(line))).await.is_err() {
                    return Ok(());
                }
            }
        }
    }
}
