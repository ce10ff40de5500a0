//! Equal steps are done once, also by builds that go on at the same time. A step's work lives as long
//! as somebody waits for it: when the last build that wants it is cancelled, the work is dropped, and
//! with it the process it runs.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::cache::Record;
use crate::error::BuildError;
use crate::events::Sink;

/// What a late listener can still hear of a step's output.
const LOG_BYTES_MAX: usize = 1024 * 1024;
/// What a chunk takes beside its own bytes, about: a command may write them one by one.
const CHUNK_BYTES: usize = 128;

/// The result of a step, and whether it was found rather than made.
pub type Outcome = Result<(Record, bool), BuildError>;

/// The steps that are being done.
#[derive(Clone, Debug, Default)]
pub struct Flights(Arc<Mutex<HashMap<String, Weak<Flight>>>>);

#[derive(Debug)]
struct Flight {
    log: Log,
    work: Mutex<Option<AbortHandle>>,
}

impl Drop for Flight {
    fn drop(&mut self) {
        let work = self.work.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(work) = work.take() {
            work.abort();
        }
    }
}

/// Where a step's work leaves what it has to say.
#[derive(Clone, Debug)]
pub struct Log(Arc<watch::Sender<Said>>);

#[derive(Debug, Default)]
struct Said {
    chunks: VecDeque<(u32, Bytes)>,
    bytes: usize,
    /// Chunks that are no longer in `chunks`.
    dropped: usize,
    outcome: Option<Outcome>,
}

fn weight(data: &Bytes) -> usize {
    CHUNK_BYTES + data.len()
}

impl Log {
    /// The command wrote something.
    pub fn write(&self, stream: u32, data: Bytes) {
        self.0.send_modify(|said| {
            said.bytes += weight(&data);
            said.chunks.push_back((stream, data));
            while said.bytes > LOG_BYTES_MAX && said.chunks.len() > 1 {
                let oldest = said.chunks.pop_front();
                said.bytes -= oldest.map_or(0, |(_, data)| weight(&data));
                said.dropped += 1;
            }
        });
    }
}

impl Flights {
    /// Joins the work with this name, or begins it; hears it out.
    pub async fn join<W, F>(&self, name: &str, events: &Sink, vertex: &str, work: W) -> Outcome
    where
        W: FnOnce(Log) -> F,
        F: Future<Output = Outcome> + Send + 'static,
    {
        let flight = self.enter(name, work);
        let mut said = flight.log.0.subscribe();
        let mut heard = 0;
        loop {
            let (news, outcome) = {
                let said = said.borrow_and_update();
                let skip = heard.max(said.dropped) - said.dropped;
                let news: Vec<(u32, Bytes)> = said.chunks.iter().skip(skip).cloned().collect();
                heard = said.dropped + said.chunks.len();
                (news, said.outcome.clone())
            };
            for (stream, data) in news {
                events.log(vertex, stream, data).await;
            }
            if let Some(outcome) = outcome {
                return outcome;
            }
            if said.changed().await.is_err() {
                return Err(BuildError::Cancelled);
            }
        }
    }

    fn enter<W, F>(&self, name: &str, work: W) -> Arc<Flight>
    where
        W: FnOnce(Log) -> F,
        F: Future<Output = Outcome> + Send + 'static,
    {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        flights.retain(|_, flight| flight.strong_count() > 0);
        if let Some(flight) = flights.get(name).and_then(Weak::upgrade) {
            return flight;
        }
        let log = Log(Arc::new(watch::channel(Said::default()).0));
        let doing = work(log.clone());
        let said = log.0.clone();
        let landed = Arc::downgrade(&self.0);
        let own_name = name.to_owned();
        let task = tokio::spawn(async move {
            let outcome = doing.await;
            // A later build looks at the cache, not at this.
            if let Some(flights) = landed.upgrade() {
                flights
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .remove(&own_name);
            }
            said.send_modify(|said| said.outcome = Some(outcome));
        });
        let flight = Arc::new(Flight {
            log,
            work: Mutex::new(Some(task.abort_handle())),
        });
        flights.insert(name.to_owned(), Arc::downgrade(&flight));
        flight
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_that_comes_byte_by_byte_is_bounded_too() {
        let log = Log(Arc::new(watch::channel(Said::default()).0));
        let most = LOG_BYTES_MAX / CHUNK_BYTES;
        for _ in 0..=most {
            log.write(1, Bytes::from_static(b"."));
        }
        let said = log.0.borrow();
        assert!(said.chunks.len() < most);
        assert_eq!(said.chunks.len() + said.dropped, most + 1);
    }
}
