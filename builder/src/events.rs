//! What a client hears while its build goes on.

use std::time::SystemTime;

use bytes::Bytes;
use orlop_proto::builder::build_event::Event;
use orlop_proto::builder::build_response::Message;
use orlop_proto::builder::{
    BuildEvent, BuildWarning, VertexCompleted, VertexFailed, VertexLog, VertexStarted,
};
use orlop_proto::types::Progress;
use tokio::sync::mpsc;

/// Where a build's answers go. When nobody listens any more they go nowhere: the build is being
/// cancelled then.
#[derive(Clone, Debug)]
pub struct Sink(mpsc::Sender<Message>);

impl Sink {
    /// Into this channel.
    pub fn new(sender: mpsc::Sender<Message>) -> Self {
        Self(sender)
    }

    /// Sends an answer.
    pub async fn send(&self, message: Message) {
        self.0.send(message).await.ok();
    }

    async fn event(&self, vertex: &str, event: Event) {
        let event = BuildEvent {
            vertex: vertex.to_owned(),
            time: Some(SystemTime::now().into()),
            event: Some(event),
        };
        self.send(Message::Event(event)).await;
    }

    /// A step began.
    pub async fn started(&self, vertex: &str, name: &str, line: u32) {
        self.event(
            vertex,
            Event::Started(VertexStarted {
                name: name.to_owned(),
                line,
            }),
        )
        .await;
    }

    /// A step ended well.
    pub async fn completed(&self, vertex: &str, cached: bool) {
        self.event(vertex, Event::Completed(VertexCompleted { cached }))
            .await;
    }

    /// A step failed.
    pub async fn failed(&self, vertex: &str, message: &str) {
        self.event(
            vertex,
            Event::Failed(VertexFailed {
                message: message.to_owned(),
            }),
        )
        .await;
    }

    /// A step's command wrote something.
    pub async fn log(&self, vertex: &str, stream: u32, data: Bytes) {
        self.event(vertex, Event::Log(VertexLog { data, stream }))
            .await;
    }

    /// A remark.
    pub async fn warning(&self, line: u32, message: &str) {
        self.event(
            "",
            Event::Warning(BuildWarning {
                line,
                message: message.to_owned(),
            }),
        )
        .await;
    }

    /// Bytes done.
    pub async fn progress(&self, vertex: &str, progress: Progress) {
        self.event(vertex, Event::Progress(progress)).await;
    }
}
