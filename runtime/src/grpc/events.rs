//! `Events`.

use orlop_proto::error::unimplemented;
use orlop_proto::runtime as wire;
use orlop_proto::runtime::events_server::Events;
use tonic::{Request, Response, Status};

use super::Answers;

/// What happens.
#[derive(Debug)]
pub(super) struct Service;

#[tonic::async_trait]
impl Events for Service {
    type WatchStream = Answers<wire::Event>;

    async fn watch(
        &self,
        _request: Request<wire::WatchEventsRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Err(unimplemented("Events.Watch"))
    }
}
