//! One store that is killed again and again, on its own root, while others are on theirs.

use std::time::{Duration, Instant};

use super::chance::Chance;
use super::disk::Place;
use super::journal::Journal;
use super::material::Shelf;
use super::process::Process;
use super::verify::Verifier;
use super::workload::Load;
use super::{Blow, Plan, Tally};

/// A named moment is waited for so long; the load comes by each of them more often.
const FAILPOINT_PATIENCE: Duration = Duration::from_secs(5);
const KILL_MS_MAX: u64 = 500;
/// A root has a history, but not for ever.
const BLOWS_PER_ROOT: u64 = 50;
/// A kill at the start comes within this time.
const START_MS_MAX: u64 = 30;
/// The n-th time at a named moment.
const OCCURRENCE_MAX: u64 = 4;

/// A lane.
#[derive(Debug)]
pub struct Lane {
    plan: Plan,
    disk: bool,
    chance: Chance,
    shelf: Shelf,
    place: Place,
    journal: Journal,
    process: Process,
    blows: u64,
    tally: Tally,
}

impl Lane {
    /// A lane with a fresh root.
    pub fn new(plan: &Plan, disk: bool, seed: u64) -> Self {
        let place = place(disk);
        let process = Process::spawn(&place, &plan.options);
        Self {
            plan: plan.clone(),
            disk,
            chance: Chance::new(seed),
            shelf: Shelf::make(),
            place,
            journal: Journal::default(),
            process,
            blows: 0,
            tally: Tally::default(),
        }
    }

    /// Deals blows until `next` has none any more, or something does not hold.
    pub async fn run(mut self, mut next: impl FnMut(bool) -> Option<Blow>) -> Tally {
        self.come_up(false).await;
        while let Some(blow) = next(self.disk) {
            let started = Instant::now();
            self.deal(&blow).await;
            let power_cut = matches!(blow, Blow::PowerCut);
            if self.chance.one_in(6) {
                self.kill_at_start().await;
            }
            self.process = Process::spawn(&self.place, &self.plan.options);
            self.come_up(power_cut).await;
            self.tally.spent += started.elapsed();
            if self.harvest(&blow) {
                self.tally.keep(&self.place, &self.journal);
                break;
            }
            if self.blows >= BLOWS_PER_ROOT {
                self.begin_anew().await;
            }
        }
        self.process.kill().await;
        self.count();
        self.tally
    }

    async fn deal(&mut self, blow: &Blow) {
        self.blows += 1;
        match blow {
            Blow::Failpoint(name) => self.die_at(name).await,
            Blow::Kill => self.kill().await,
            Blow::PowerCut => self.cut_power().await,
        }
    }

    fn load(&mut self) -> Load {
        Load::start(
            &self.process.clients,
            &self.journal,
            &self.shelf,
            &mut self.chance,
        )
    }

    async fn die_at(&mut self, name: &str) {
        self.process.kill().await;
        let occurrence = 1 + self.chance.below(OCCURRENCE_MAX);
        let mut options = self.plan.options.clone();
        options.push(format!("--failpoint={name}:{occurrence}"));
        self.process = Process::spawn(&self.place, &options);
        // Some moments come before it serves: then the load finds nothing, and all is as it was.
        self.process.serves().await.ok();
        let load = self.load();
        let reached = self.process.dies_within(FAILPOINT_PATIENCE).await;
        load.falls();
        self.process.kill().await;
        load.ends().await;
        let counts = self.tally.failpoints.entry(name.to_owned()).or_default();
        counts.0 += u64::from(reached);
        counts.1 += 1;
    }

    async fn kill(&mut self) {
        let load = self.load();
        self.some_time().await;
        load.falls();
        self.process.kill().await;
        load.ends().await;
        self.tally.kills += 1;
    }

    async fn cut_power(&mut self) {
        let load = self.load();
        self.some_time().await;
        load.falls();
        load.goes_dark();
        self.place.cut_power();
        self.process.kill().await;
        load.ends().await;
        self.place.restore_power();
        self.tally.power_cuts += 1;
    }

    /// A store that recovers is killed too.
    async fn kill_at_start(&mut self) {
        self.process = Process::spawn(&self.place, &self.plan.options);
        let time = Duration::from_millis(self.chance.below(START_MS_MAX));
        tokio::time::sleep(time).await;
        self.process.kill().await;
        self.tally.start_kills += 1;
    }

    async fn some_time(&mut self) {
        let time = Duration::from_millis(self.chance.below(KILL_MS_MAX));
        tokio::time::sleep(time).await;
    }

    async fn come_up(&mut self, after_power_cut: bool) {
        match self.process.serves().await {
            Ok(time) => self.tally.start_max = self.tally.start_max.max(time),
            Err(problem) => return self.journal.violate(problem),
        }
        let verifier = Verifier {
            clients: self.process.clients.clone(),
            journal: self.journal.clone(),
            place: &self.place,
            after_power_cut,
            chance: self.chance.fork(),
        };
        verifier.run().await;
    }

    /// Whether something did not hold.
    fn harvest(&mut self, blow: &Blow) -> bool {
        let violations = std::mem::take(&mut self.journal.facts().violations);
        let broken = !violations.is_empty();
        let told = |violation| {
            format!(
                "after {blow:?}, blow {} on its root: {violation}",
                self.blows
            )
        };
        self.tally
            .violations
            .extend(violations.into_iter().map(told));
        broken
    }

    async fn begin_anew(&mut self) {
        self.tally.blobs_max = self.tally.blobs_max.max(self.process.blobs().await);
        self.process.kill().await;
        self.count();
        self.journal = Journal::default();
        self.place = place(self.disk);
        self.blows = 0;
        self.process = Process::spawn(&self.place, &self.plan.options);
        self.come_up(false).await;
    }

    fn count(&mut self) {
        let facts = self.journal.facts();
        self.tally.acknowledged += facts.acknowledged;
        self.tally.verified += facts.verified;
    }
}

fn place(disk: bool) -> Place {
    if disk {
        Place::disk()
    } else {
        Place::directory()
    }
}
