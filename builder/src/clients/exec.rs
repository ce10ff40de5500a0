//! The runtime and the registry as ports.

use futures_util::FutureExt as _;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use orlop_proto::error::Failure;
use orlop_proto::registry::PullRequest;
use orlop_proto::registry::transfer_client::TransferClient;
use orlop_proto::registry::transfer_event::Event;
use orlop_proto::runtime::attach_response::Message;
use orlop_proto::runtime::containers_client::ContainersClient;
use orlop_proto::runtime::{CreateRequest, RunRequest};
use orlop_proto::types::Progress;
use orlop_wire::MESSAGE_BYTES_MAX;
use tonic::transport::Channel;

use crate::ports::{Exec, Output, Pull, Reply};

#[derive(Debug)]
pub(super) struct Runtime(ContainersClient<Channel>);

impl Runtime {
    pub(super) fn new(channel: Channel) -> Self {
        Self(ContainersClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX))
    }
}

impl Exec for Runtime {
    fn run(&self, create: CreateRequest) -> Reply<'_, BoxStream<'static, Result<Output, Failure>>> {
        let mut client = self.0.clone();
        async move {
            let request = RunRequest {
                create: Some(create),
            };
            let stream = client.run(request).await?.into_inner();
            let outputs = stream.filter_map(async |message| match message {
                Err(status) => Some(Err(Failure::from(status))),
                Ok(response) => match response.message? {
                    Message::Attached(_) => None,
                    Message::Stdout(data) => Some(Ok(Output::Data(1, data))),
                    Message::Stderr(data) => Some(Ok(Output::Data(2, data))),
                    Message::Exited(exited) => Some(Ok(Output::Exited(exited.code))),
                },
            });
            Ok(outputs.boxed())
        }
        .boxed()
    }
}

#[derive(Debug)]
pub(super) struct Registry(TransferClient<Channel>);

impl Registry {
    pub(super) fn new(channel: Channel) -> Self {
        Self(TransferClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX))
    }
}

impl Pull for Registry {
    fn pull(
        &self,
        request: PullRequest,
    ) -> Reply<'_, BoxStream<'static, Result<Progress, Failure>>> {
        let mut client = self.0.clone();
        async move {
            let stream = client.pull(request).await?.into_inner();
            let progress = stream.filter_map(async |message| match message {
                Err(status) => Some(Err(Failure::from(status))),
                Ok(event) => match event.event? {
                    Event::Progress(progress) => Some(Ok(progress)),
                    Event::Result(_) => None,
                },
            });
            Ok(progress.boxed())
        }
        .boxed()
    }
}
