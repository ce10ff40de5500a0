//! `orlop.builder.v1.Build`.

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use orlop_proto::builder::{BuildRequest, BuildResponse, build_server};
use orlop_proto::error::{Failure, to_status};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::{Request, Response, Status, Streaming};

use crate::build::Builder;
use crate::error::BuildError;
use crate::events::Sink;

/// Events that wait for a slow client; then the build waits.
const EVENTS_WAITING: usize = 256;

#[derive(Debug)]
pub(super) struct Build(pub(super) Builder);

/// A build that is going on; it is cancelled with the call.
struct Running(Option<JoinHandle<Result<(), BuildError>>>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.abort();
        }
    }
}

impl Running {
    /// How it ended; told once.
    async fn end(&mut self) -> Option<Status> {
        let task = self.0.take()?;
        match task.await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => {
                tracing::info!(error = orlop_proto::error::chain(&error), "a build failed");
                Some(to_status(&error))
            }
            Err(fault) if fault.is_cancelled() => Some(to_status(&BuildError::Cancelled)),
            Err(fault) => {
                tracing::error!(%fault, "a build ended by a fault");
                Some(Status::internal(
                    "the build ended by a fault of the builder",
                ))
            }
        }
    }
}

#[tonic::async_trait]
impl build_server::Build for Build {
    type BuildStream = BoxStream<'static, Result<BuildResponse, Status>>;

    async fn build(
        &self,
        request: Request<Streaming<BuildRequest>>,
    ) -> Result<Response<Self::BuildStream>, Status> {
        let incoming = request
            .into_inner()
            .filter_map(async |message| match message {
                Ok(message) => message.message.map(Ok),
                Err(status) => Some(Err(Failure::from(status))),
            });
        let (sender, receiver) = mpsc::channel(EVENTS_WAITING);
        let builder = self.0.clone();
        let incoming = incoming.boxed();
        let task = tokio::spawn(async move { builder.build(incoming, Sink::new(sender)).await });
        let state = (receiver, Running(Some(task)));
        let answers = stream::unfold(state, |(mut receiver, mut running)| async move {
            if let Some(message) = receiver.recv().await {
                let response = BuildResponse {
                    message: Some(message),
                };
                return Some((Ok(response), (receiver, running)));
            }
            let status = running.end().await?;
            Some((Err(status), (receiver, running)))
        });
        Ok(Response::new(answers.boxed()))
    }
}
