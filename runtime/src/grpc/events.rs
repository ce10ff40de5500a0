//! `Events`: what is remembered, then what happens.

use std::sync::Arc;

use futures_util::StreamExt as _;
use jiff::Timestamp;
use orlop_proto::runtime as wire;
use orlop_proto::runtime::events_server::Events as Rpc;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::attach::BACKLOG;
use super::{Answers, convert, status};
use crate::error::{Error, Result};
use crate::events::filter::Filters;
use crate::events::{Event, Events, Watch};

type Sender = mpsc::Sender<Result<wire::Event, Status>>;

/// What happens.
#[derive(Debug)]
pub(super) struct Service(pub(super) Events);

/// Which events are wanted.
struct Wanted {
    /// Not older; with neither this nor `until` nothing of the past is wanted.
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    filters: Filters,
}

#[tonic::async_trait]
impl Rpc for Service {
    type WatchStream = Answers<wire::Event>;

    async fn watch(
        &self,
        request: Request<wire::WatchEventsRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let request = request.into_inner();
        let wanted = Wanted {
            since: request.since.as_ref().and_then(convert::time),
            until: request.until.as_ref().and_then(convert::time),
            filters: Filters::parse(&request.filters).map_err(status)?,
        };
        let (to_client, from_service) = mpsc::channel(BACKLOG);
        tokio::spawn(forward(self.0.watch(), wanted, to_client));
        Ok(Response::new(ReceiverStream::new(from_service).boxed()))
    }
}

/// To the client, until the end that it asked for, or its own.
async fn forward(watch: Watch, wanted: Wanted, to: Sender) {
    let Watch { past, mut live } = watch;
    for event in past.iter().filter(|event| wanted.takes_past(event)) {
        if to.send(Ok(message(event))).await.is_err() {
            return;
        }
    }
    let over = at(wanted.until);
    tokio::pin!(over);
    loop {
        let event = tokio::select! {
            biased;
            () = to.closed() => return,
            event = live.recv() => event,
            () = &mut over => return,
        };
        let answer = match event {
            Ok(event) if wanted.ends_before(&event) => return,
            Ok(event) if wanted.filters.fits(&event) => Ok(message(&event)),
            Ok(_) => continue,
            Err(RecvError::Lagged(missed)) => Err(status(Error::EventsMissed(missed))),
            Err(RecvError::Closed) => return,
        };
        let last = answer.is_err();
        if to.send(answer).await.is_err() || last {
            return;
        }
    }
}

/// Resolves at a time; never without one.
async fn at(time: Option<Timestamp>) {
    match time {
        None => std::future::pending().await,
        Some(time) => {
            let left = time.duration_since(Timestamp::now());
            // A time in the past is now.
            tokio::time::sleep(left.try_into().unwrap_or_default()).await;
        }
    }
}

impl Wanted {
    fn ends_before(&self, event: &Event) -> bool {
        self.until.is_some_and(|until| event.time > until)
    }

    fn takes_past(&self, event: &Event) -> bool {
        let asked = self.since.is_some() || self.until.is_some();
        let recent = self.since.is_none_or(|since| event.time >= since);
        asked && recent && !self.ends_before(event) && self.filters.fits(event)
    }
}

fn message(event: &Arc<Event>) -> wire::Event {
    wire::Event {
        time: Some(convert::timestamp(event.time)),
        kind: event.kind.as_str().to_owned(),
        action: event.action.clone(),
        id: event.id.clone(),
        attributes: event.attributes.clone().into_iter().collect(),
    }
}
