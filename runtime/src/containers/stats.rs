//! What containers use, measured again and again. A container that is stuck in the kernel is told as such,
//! and holds up nobody.

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use tokio::task::JoinHandle;

use super::Containers;
use super::record::Record;
use crate::cgroups::usage::{Usage, usage};
use crate::error::Result;

/// Containers that are measured at the same time.
const AT_ONCE: usize = 16;
/// How long the kernel may take to tell what one container uses.
const PATIENCE: Duration = Duration::from_secs(1);

/// Which containers are measured.
#[derive(Clone, Debug)]
pub(crate) enum Measured {
    /// These, by their ids.
    These(Vec<String>),
    /// All that run.
    Running,
    /// All.
    All,
}

/// One container.
#[derive(Clone, Debug)]
pub(crate) struct Stats {
    /// Whose.
    pub(crate) record: Arc<Record>,
    /// Of one CPU, since the measurement before.
    pub(crate) cpu_percent: f64,
    /// `None`: it did not answer in time.
    pub(crate) sample: Option<Sample>,
}

/// What was measured at a moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    at: Instant,
    /// Counters of the groups.
    pub(crate) usage: Usage,
    /// Bytes received.
    pub(crate) rx: u64,
    /// Bytes sent.
    pub(crate) tx: u64,
}

/// Measures the same containers each time, and compares with the time before.
#[derive(Debug)]
pub(crate) struct Meter {
    containers: Containers,
    measured: Measured,
    before: HashMap<String, Sample>,
    /// Measurements that did not end in time; none is begun anew before they do.
    stuck: HashMap<String, JoinHandle<Sample>>,
}

impl Containers {
    /// A meter; every name must be a container's.
    pub(crate) fn meter(&self, names: &[String], all: bool) -> Result<Meter> {
        let ids: Result<Vec<String>> = names
            .iter()
            .map(|name| Ok(self.find(name)?.id.clone()))
            .collect();
        let measured = match ids? {
            ids if !ids.is_empty() => Measured::These(ids),
            _ if all => Measured::All,
            _ => Measured::Running,
        };
        Ok(Meter {
            containers: self.clone(),
            measured,
            before: HashMap::new(),
            stuck: HashMap::new(),
        })
    }

    fn measured(&self, measured: &Measured) -> Vec<Arc<Record>> {
        match measured {
            Measured::These(ids) => ids
                .iter()
                .filter_map(|id| Some(self.find(id).ok()?.record()))
                .collect(),
            Measured::Running => {
                let mut records = self.records();
                records.retain(|record| record.is_running());
                records
            }
            Measured::All => self.records(),
        }
    }
}

impl Meter {
    /// What they use now; those that were removed meanwhile are left out.
    pub(crate) async fn measure(&mut self) -> Vec<Stats> {
        let records = self.containers.measured(&self.measured);
        let work: Vec<_> = records
            .into_iter()
            .map(|record| (self.stuck.remove(&record.id), record))
            .collect();
        let measuring = stream::iter(work).map(|(late, record)| one(record, late));
        let measured: Vec<_> = measuring.buffered(AT_ONCE).collect().await;
        measured
            .into_iter()
            .map(|(record, sample, late)| {
                let late = late.map(|late| (record.id.clone(), late));
                self.stuck.extend(late);
                self.compare(record, sample)
            })
            .collect()
    }

    /// Whether all that were asked for are gone.
    pub(crate) fn is_over(&self) -> bool {
        match &self.measured {
            Measured::These(_) => self.containers.measured(&self.measured).is_empty(),
            Measured::Running | Measured::All => false,
        }
    }

    fn compare(&mut self, record: Arc<Record>, sample: Option<Sample>) -> Stats {
        let before = match sample {
            Some(sample) => self.before.insert(record.id.clone(), sample),
            None => None,
        };
        let percent = sample.zip(before).map(|(now, before)| now.percent(&before));
        Stats {
            record,
            cpu_percent: percent.unwrap_or_default(),
            sample,
        }
    }
}

/// Measures one container, or waits for a measurement that was late; it is handed back if it still is.
async fn one(
    record: Arc<Record>,
    late: Option<JoinHandle<Sample>>,
) -> (Arc<Record>, Option<Sample>, Option<JoinHandle<Sample>>) {
    let own = Arc::clone(&record);
    let measuring = late.unwrap_or_else(|| tokio::task::spawn_blocking(move || Sample::of(&own)));
    let (sample, late) = in_time(measuring).await;
    (record, sample, late)
}

/// What was measured, or who still measures.
async fn in_time(
    mut measuring: JoinHandle<Sample>,
) -> (Option<Sample>, Option<JoinHandle<Sample>>) {
    match tokio::time::timeout(PATIENCE, &mut measuring).await {
        Ok(measured) => (measured.ok(), None),
        Err(_) => (None, Some(measuring)),
    }
}

impl Sample {
    fn of(record: &Record) -> Self {
        let (rx, tx) = traffic(record);
        Self {
            at: Instant::now(),
            usage: usage(&record.cgroups),
            rx,
            tx,
        }
    }

    /// Of one CPU; a container that was started anew counts from nothing.
    #[expect(clippy::cast_precision_loss, reason = "shown with two decimals")]
    fn percent(&self, before: &Self) -> f64 {
        let used = self.usage.cpu_nanos.saturating_sub(before.usage.cpu_nanos);
        let passed = self.at.duration_since(before.at).as_nanos();
        if passed == 0 {
            return 0.0;
        }
        used as f64 / passed as f64 * 100.0
    }
}

/// Bytes received and sent by a container that has a network of its own, in which its first process is.
fn traffic(record: &Record) -> (u64, u64) {
    if record.state.pid <= 0 || record.config.network == "host" {
        return (0, 0);
    }
    let path = format!("/proc/{}/net/dev", record.state.pid);
    sum(&fs::read_to_string(path).unwrap_or_default())
}

/// All interfaces but the loopback, from `/proc/net/dev` (proc(5)).
fn sum(text: &str) -> (u64, u64) {
    let mut total = (0u64, 0u64);
    for (name, counters) in text.lines().filter_map(|line| line.split_once(':')) {
        if name.trim() == "lo" {
            continue;
        }
        let counters: Vec<u64> = counters
            .split_whitespace()
            .map(|word| word.parse().unwrap_or_default())
            .collect();
        let counter = |index: usize| counters.get(index).copied().unwrap_or_default();
        total.0 = total.0.saturating_add(counter(0));
        total.1 = total.1.saturating_add(counter(8));
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_is_of_all_interfaces_but_the_loopback() {
        let text = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo
    lo:     500       5    0    0    0     0          0         0      500       5    0    0    0
  eth0:    1000       9    0    0    0     0          0         0      200       3    0    0    0
  eth1:       1       1    0    0    0     0          0         0        2       1    0    0    0
";
        assert_eq!(sum(text), (1001, 202));
        assert_eq!(sum(""), (0, 0));
    }

    /// A file of a container that is stuck is one whose reader waits.
    #[tokio::test]
    async fn a_stuck_container_is_waited_for_with_patience_and_asked_once() {
        let (unstick, stuck) = std::sync::mpsc::channel();
        let measuring = tokio::task::spawn_blocking(move || {
            stuck.recv().unwrap();
            Sample {
                at: Instant::now(),
                usage: Usage::default(),
                rx: 7,
                tx: 0,
            }
        });
        let (sample, late) = in_time(measuring).await;
        assert!(sample.is_none());
        let late = late.unwrap();
        unstick.send(()).unwrap();
        let (sample, late) = in_time(late).await;
        assert_eq!(sample.map(|sample| sample.rx), Some(7));
        assert!(late.is_none());
    }

    #[test]
    fn a_percentage_is_of_one_cpu_and_never_negative() {
        let at = Instant::now();
        let sample = |milliseconds, cpu_nanos| Sample {
            at: at + Duration::from_millis(milliseconds),
            usage: Usage {
                cpu_nanos,
                ..Usage::default()
            },
            rx: 0,
            tx: 0,
        };
        let percent = sample(1000, 1_500_000_000).percent(&sample(0, 0));
        assert!((percent - 150.0).abs() < 1e-6, "{percent}");
        let restarted = sample(1000, 5).percent(&sample(0, 1_000_000));
        assert!(restarted.abs() < f64::EPSILON, "{restarted}");
    }
}
