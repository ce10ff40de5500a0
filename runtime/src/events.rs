//! What happened: the last events, and those who wait for the next ones. Both have a bound; nothing
//! that happens ever waits for somebody who watches.

pub(crate) mod filter;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

/// Events that are remembered; Docker keeps 256.
const HISTORY_MAX: usize = 1024;
/// What they may take together: labels of containers can be long.
const HISTORY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How far a watcher may fall behind before it misses events, and is told so.
const LAG_MAX: usize = 1024;

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// A container.
    Container,
    /// A network.
    Network,
    /// A volume.
    Volume,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Event {
    /// When; no event is older than the one before it.
    pub(crate) time: Timestamp,
    /// What it is about.
    pub(crate) kind: Kind,
    /// Docker's word for what happened: `create`, `die`, `exec_start: sh -c true`.
    pub(crate) action: String,
    /// Of the container; of networks and volumes the name.
    pub(crate) id: String,
    /// Name, image, labels, and what belongs to the action.
    pub(crate) attributes: BTreeMap<String, String>,
}

/// The events of this instance; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Events(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    /// When the last event was.
    last: Timestamp,
    history: History,
    /// `None` once the service ends.
    live: Option<broadcast::Sender<Arc<Event>>>,
}

/// Events as JSON, in one piece: thousands of small ones, which outlive what was allocated beside them,
/// would each keep a page of memory from being given back.
#[derive(Debug, Default)]
struct History {
    bytes: VecDeque<u8>,
    /// The bytes of each event, oldest first.
    lengths: VecDeque<usize>,
}

/// What a watcher gets: what is remembered, then what happens.
#[derive(Debug)]
pub(crate) struct Watch {
    /// From before the call, oldest first.
    pub(crate) past: Vec<Arc<Event>>,
    /// From then on, without a gap.
    pub(crate) live: broadcast::Receiver<Arc<Event>>,
}

impl Kind {
    /// Docker's word for it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Network => "network",
            Self::Volume => "volume",
        }
    }
}

impl Events {
    /// Nothing has happened yet.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Inner {
            last: Timestamp::MIN,
            history: History::default(),
            live: Some(broadcast::Sender::new(LAG_MAX)),
        })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something happened, now.
    pub(crate) fn tell(
        &self,
        kind: Kind,
        action: &str,
        id: &str,
        attributes: BTreeMap<String, String>,
    ) {
        let mut inner = self.inner();
        // The host's clock may be set back.
        inner.last = inner.last.max(Timestamp::now());
        let event = Arc::new(Event {
            time: inner.last,
            kind,
            action: action.to_owned(),
            id: id.to_owned(),
            attributes,
        });
        inner.history.push(&event);
        if let Some(live) = &inner.live {
            // Nobody watches: then nobody is told.
            live.send(event).ok();
        }
    }

    /// What is remembered and what comes; an event is in one of them, and in one only.
    pub(crate) fn watch(&self) -> Watch {
        let inner = self.inner();
        Watch {
            past: inner.history.events(),
            live: inner.subscribe(),
        }
    }

    /// What comes.
    pub(crate) fn live(&self) -> broadcast::Receiver<Arc<Event>> {
        self.inner().subscribe()
    }

    /// Ends all watches, so that they do not hold up the end of the service.
    pub(crate) fn close(&self) {
        self.inner().live = None;
    }
}

impl Inner {
    fn subscribe(&self) -> broadcast::Receiver<Arc<Event>> {
        let ended = || broadcast::channel(1).1;
        let live = self.live.as_ref();
        live.map_or_else(ended, broadcast::Sender::subscribe)
    }
}

impl History {
    fn push(&mut self, event: &Event) {
        // A map of texts is always JSON.
        let json = serde_json::to_vec(event).unwrap_or_default();
        self.lengths.push_back(json.len());
        self.bytes.extend(json);
        while self.lengths.len() > HISTORY_MAX || self.bytes.len() > HISTORY_BYTES_MAX {
            let Some(oldest) = self.lengths.pop_front() else {
                return;
            };
            self.bytes.drain(..oldest);
        }
    }

    fn events(&self) -> Vec<Arc<Event>> {
        let mut bytes = self.bytes.iter().copied();
        let texts = self.lengths.iter().map(|&length| {
            let text: Vec<u8> = bytes.by_ref().take(length).collect();
            text
        });
        let events = texts.filter_map(|text| serde_json::from_slice(&text).ok());
        events.map(Arc::new).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_forgotten_by_number_and_by_size() {
        let events = Events::new();
        for number in 0..HISTORY_MAX + 5 {
            events.tell(Kind::Volume, "create", &number.to_string(), BTreeMap::new());
        }
        let past = events.watch().past;
        assert_eq!(past.len(), HISTORY_MAX);
        assert_eq!(past.first().unwrap().id, "5");
        let label = "x".repeat(HISTORY_BYTES_MAX / 2);
        for id in ["a", "b", "c"] {
            let attributes = BTreeMap::from([("label".to_owned(), label.clone())]);
            events.tell(Kind::Container, "create", id, attributes);
        }
        assert_eq!(
            events.watch().past.len(),
            1,
            "two do not fit beside each other"
        );
    }

    #[test]
    fn an_event_is_in_the_past_or_live_and_never_both() {
        let events = Events::new();
        events.tell(Kind::Volume, "create", "before", BTreeMap::new());
        let mut watch = events.watch();
        events.tell(Kind::Volume, "create", "after", BTreeMap::new());
        assert_eq!(watch.past.len(), 1);
        assert_eq!(watch.past.first().unwrap().id, "before");
        assert_eq!(watch.live.try_recv().unwrap().id, "after");
        assert!(watch.live.try_recv().is_err());
    }

    #[test]
    fn the_end_of_the_service_ends_what_is_watched_and_what_will_be() {
        let events = Events::new();
        let mut watch = events.watch();
        events.tell(Kind::Volume, "create", "last", BTreeMap::new());
        events.close();
        events.tell(Kind::Volume, "create", "too late", BTreeMap::new());
        assert_eq!(watch.live.try_recv().unwrap().id, "last");
        for mut watch in [watch, events.watch()] {
            let ended = watch.live.try_recv().unwrap_err();
            assert_eq!(ended, broadcast::error::TryRecvError::Closed);
        }
    }

    #[test]
    fn a_watcher_that_does_not_read_holds_up_nobody_and_knows_what_it_missed() {
        let events = Events::new();
        let mut watch = events.watch();
        for number in 0..LAG_MAX + 7 {
            events.tell(Kind::Volume, "create", &number.to_string(), BTreeMap::new());
        }
        let missed = watch.live.try_recv().unwrap_err();
        assert_eq!(missed, broadcast::error::TryRecvError::Lagged(7));
    }
}
