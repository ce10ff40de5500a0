//! `orlop.registry.v1.Transfer`.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt as _};
use orlop_proto::error::to_status;
use orlop_proto::reference::Reference;
use orlop_proto::registry as pb;
use orlop_proto::registry::transfer_event;
use orlop_proto::types::Credential;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::transfer::{Event, Outcome, Progress, Pull, Push, Transfer};
use crate::{Error, Result};

pub(super) struct Rpc(pub(super) Arc<Transfer>);

type Events = Pin<Box<dyn Stream<Item = Result<pb::TransferEvent, Status>> + Send>>;

#[tonic::async_trait]
impl pb::transfer_server::Transfer for Rpc {
    type PullStream = Events;
    type PushStream = Events;

    async fn pull(&self, request: Request<pb::PullRequest>) -> Result<Response<Events>, Status> {
        let request = request.into_inner();
        let pull = Pull {
            reference: reference(&request.reference)?,
            platform: request.platform,
            credential: credential(request.credential),
            insecure: request.insecure,
        };
        let transfer = Arc::clone(&self.0);
        Ok(run(move |progress| async move {
            transfer.pull(pull, &progress).await
        }))
    }

    async fn push(&self, request: Request<pb::PushRequest>) -> Result<Response<Events>, Status> {
        let request = request.into_inner();
        let push = Push {
            reference: reference(&request.reference)?,
            credential: credential(request.credential),
            insecure: request.insecure,
        };
        let transfer = Arc::clone(&self.0);
        Ok(run(move |progress| async move {
            transfer.push(push, &progress).await
        }))
    }

    async fn login(
        &self,
        request: Request<pb::LoginRequest>,
    ) -> Result<Response<pb::LoginResponse>, Status> {
        let request = request.into_inner();
        let credential = request.credential.unwrap_or_default();
        let token = self.0.login(credential, request.insecure).await;
        let identity_token = token.map_err(|error| to_status(&error))?;
        Ok(Response::new(pb::LoginResponse { identity_token }))
    }
}

fn reference(text: &str) -> Result<Reference, Status> {
    text.parse()
        .map_err(|error| to_status(&Error::Reference(error)))
}

/// A credential without anything to show is none.
fn credential(credential: Option<Credential>) -> Option<Credential> {
    credential.filter(|c| {
        !(c.username.is_empty() && c.password.is_empty() && c.identity_token.is_empty())
    })
}

/// Runs a transfer for as long as somebody listens to it.
fn run<F, W>(work: W) -> Response<Events>
where
    W: FnOnce(Progress) -> F,
    F: Future<Output = Result<Outcome>> + Send + 'static,
{
    let (progress, events) = Progress::channel();
    let working = work(progress.clone());
    tokio::spawn(async move {
        tokio::select! {
            result = working => progress.end(result).await,
            () = progress.abandoned() => tracing::debug!("a transfer was given up by its caller"),
        }
    });
    Response::new(stream(events))
}

fn stream(events: mpsc::Receiver<Event>) -> Events {
    let events = ReceiverStream::new(events).map(|event| match event {
        Event::Progress(progress) => Ok(transfer_event::Event::Progress(progress)),
        Event::End(Ok(outcome)) => Ok(transfer_event::Event::Result(result(outcome))),
        Event::End(Err(error)) => Err(to_status(&error)),
    });
    Box::pin(events.map(|event| event.map(|event| pb::TransferEvent { event: Some(event) })))
}

fn result(outcome: Outcome) -> pb::TransferResult {
    pb::TransferResult {
        name: outcome.name,
        target: Some(outcome.target),
        transferred: outcome.tally.transferred,
        existed: outcome.tally.existed,
        mounted: outcome.tally.mounted,
        bytes: outcome.tally.bytes,
        up_to_date: outcome.up_to_date,
    }
}
