//! What a person sees of a transfer.

use std::time::{Duration, Instant};

use orlop_proto::types;
use tokio::sync::mpsc;

use super::Outcome;
use crate::Result;

/// How often the bytes of one blob are told: more often than that nobody sees.
const STEP: Duration = Duration::from_millis(100);
/// A caller that does not read for that many events misses steps, never states.
const EVENTS: usize = 256;

/// An event of a transfer.
#[derive(Debug)]
pub enum Event {
    /// Something went on.
    Progress(types::Progress),
    /// The end.
    End(Result<Outcome>),
}

/// Where events go.
#[derive(Clone, Debug)]
pub struct Progress(mpsc::Sender<Event>);

/// The bytes of one piece of work.
#[derive(Debug)]
pub(super) struct Steps {
    progress: Progress,
    event: types::Progress,
    told: Instant,
}

impl Progress {
    /// Events, and where they come out.
    pub fn channel() -> (Self, mpsc::Receiver<Event>) {
        let (sender, receiver) = mpsc::channel(EVENTS);
        (Self(sender), receiver)
    }

    /// Resolves when nobody listens any more.
    pub async fn abandoned(&self) {
        self.0.closed().await;
    }

    /// Tells the end.
    pub async fn end(&self, result: Result<Outcome>) {
        self.send(Event::End(result)).await;
    }

    /// Tells a state.
    pub(super) async fn state(&self, id: &str, status: &str, total: u64, detail: String) {
        self.send(Event::Progress(types::Progress {
            id: id.to_owned(),
            status: status.to_owned(),
            current: total,
            total,
            detail,
        }))
        .await;
    }

    /// Begins to count the bytes of something.
    pub(super) fn steps(&self, id: &str, status: &str, total: u64) -> Steps {
        Steps {
            progress: self.clone(),
            event: types::Progress {
                id: id.to_owned(),
                status: status.to_owned(),
                current: 0,
                total,
                detail: String::new(),
            },
            told: Instant::now(),
        }
    }

    async fn send(&self, event: Event) {
        // A listener that has gone ends the transfer by itself, see `abandoned`.
        self.0.send(event).await.ok();
    }
}

impl Steps {
    /// Tells how far it is, if that was not told just now.
    pub(super) fn at(&mut self, current: u64) {
        if self.told.elapsed() < STEP && self.event.current > 0 {
            return;
        }
        self.event.current = current;
        self.told = Instant::now();
        let event = Event::Progress(self.event.clone());
        self.progress.0.try_send(event).ok();
    }
}
