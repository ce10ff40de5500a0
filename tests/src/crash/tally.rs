//! What a run of the harness found, in numbers.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::disk::Place;
use super::failpoints;
use super::journal::Journal;

/// The lines of a store's log that are kept of a violation.
const LOG_LINES: usize = 30;

/// Sums of a run.
#[derive(Debug, Default)]
pub struct Tally {
    /// Named moments: times died at, times waited for.
    pub failpoints: BTreeMap<String, (u64, u64)>,
    /// `kill -9` at any time.
    pub kills: u64,
    /// `kill -9` of a store that was starting.
    pub start_kills: u64,
    /// Losses of power.
    pub power_cuts: u64,
    /// Requests that were acknowledged.
    pub acknowledged: u64,
    /// Facts that were compared after blows.
    pub verified: u64,
    /// The longest start after a blow.
    pub start_max: Duration,
    /// The most blobs of a root, where it was asked.
    pub blobs_max: u64,
    /// Of all lanes together.
    pub spent: Duration,
    /// By the clock.
    pub took: Duration,
    /// What did not hold.
    pub violations: Vec<String>,
}

impl Tally {
    /// Adds what another lane has.
    pub fn add(&mut self, other: Self) {
        for (name, (reached, tried)) in other.failpoints {
            let counts = self.failpoints.entry(name).or_default();
            counts.0 += reached;
            counts.1 += tried;
        }
        self.kills += other.kills;
        self.start_kills += other.start_kills;
        self.power_cuts += other.power_cuts;
        self.acknowledged += other.acknowledged;
        self.verified += other.verified;
        self.start_max = self.start_max.max(other.start_max);
        self.blobs_max = self.blobs_max.max(other.blobs_max);
        self.spent += other.spent;
        self.violations.extend(other.violations);
    }

    /// Named moments that no store died at.
    pub fn missed(&self) -> Vec<String> {
        let reached = |name: &String| self.failpoints.get(name).is_some_and(|counts| counts.0 > 0);
        let tried = |name: &String| self.failpoints.contains_key(name);
        let names = failpoints().into_iter();
        names.filter(|name| tried(name) && !reached(name)).collect()
    }

    /// All `kill -9`, wherever they came.
    pub fn all_kills(&self) -> u64 {
        let named: u64 = self.failpoints.values().map(|counts| counts.0).sum();
        self.kills + self.start_kills + named
    }

    /// Keeps the end of the store's log with a violation.
    pub(super) fn keep(&mut self, place: &Place, journal: &Journal) {
        let log = std::fs::read_to_string(place.run_dir().join("store.log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        let end = lines.len().saturating_sub(LOG_LINES);
        let facts = journal.facts().verified;
        let text = format!("after {facts} facts; its log:\n{}", lines[end..].join("\n"));
        self.violations.push(text);
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(to, "{:<36} {:>6} {:>6}", "named moment", "died", "tried")?;
        for (name, (reached, tried)) in &self.failpoints {
            writeln!(to, "{name:<36} {reached:>6} {tried:>6}")?;
        }
        writeln!(to, "kill -9 at any time                  {:>6}", self.kills)?;
        writeln!(
            to,
            "kill -9 at the start                 {:>6}",
            self.start_kills
        )?;
        writeln!(
            to,
            "kill -9 in all                       {:>6}",
            self.all_kills()
        )?;
        writeln!(
            to,
            "power cuts                           {:>6}",
            self.power_cuts
        )?;
        writeln!(
            to,
            "acknowledged requests                {:>6}",
            self.acknowledged
        )?;
        writeln!(
            to,
            "facts verified                       {:>6}",
            self.verified
        )?;
        writeln!(
            to,
            "longest start                        {:>6} ms",
            self.start_max.as_millis()
        )?;
        writeln!(
            to,
            "most blobs of a root                 {:>6}",
            self.blobs_max
        )?;
        writeln!(
            to,
            "time                                 {:>6} s",
            self.took.as_secs()
        )?;
        writeln!(
            to,
            "violations                           {:>6}",
            self.violations.len()
        )?;
        self.violations
            .iter()
            .try_for_each(|violation| writeln!(to, "\n{violation}"))
    }
}
