//! Changes of names, told to who watches. A change is told after it is durable and in the turn of its
//! name: the events of one name have the order of its changes.

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::broadcast::{Receiver, Sender, channel};

use super::Image;

/// Events that a reader may be behind.
const BEHIND_MAX: usize = 1024;

/// A change of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The name, and where it points now, or pointed last.
    pub image: Image,
    /// The name is gone.
    pub deleted: bool,
}

/// Where changes are told; clones are the same place.
#[derive(Clone, Debug)]
pub(super) struct Events {
    sender: Sender<Event>,
}

/// A reader of changes.
#[derive(Debug)]
pub struct Watch {
    receiver: Receiver<Event>,
}

/// Why there is nothing more to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchEnd {
    /// The reader was too slow: changes are lost to it.
    Behind,
    /// The store is closed.
    Closed,
}

impl Default for Events {
    fn default() -> Self {
        let (sender, _) = channel(BEHIND_MAX);
        Self { sender }
    }
}

impl Events {
    pub(super) fn watch(&self) -> Watch {
        let receiver = self.sender.subscribe();
        Watch { receiver }
    }

    pub(super) fn tell(&self, image: &Image, deleted: bool) {
        let image = image.clone();
        // Nobody may be watching.
        self.sender.send(Event { image, deleted }).ok();
    }
}

impl Watch {
    /// The next change.
    pub async fn next(&mut self) -> Result<Event, WatchEnd> {
        self.receiver.recv().await.map_err(|error| match error {
            RecvError::Lagged(_) => WatchEnd::Behind,
            RecvError::Closed => WatchEnd::Closed,
        })
    }
}
