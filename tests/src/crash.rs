//! The crash harness: a store under load is killed at every named moment and at any other, and its disk
//! loses power; after each blow all that it had acknowledged is compared with what it has.
//!
//! - [`journal`]: the facts. [`workload`]: who makes them. [`verify`]: who compares.
//! - [`disk`]: a directory, or a disk whose power can be cut. [`process`]: the store itself.
//! - [`lane`]: one root with its blows. [`material`], [`chance`]: bytes and numbers from a seed.

pub mod chance;
pub mod disk;
pub mod journal;
pub mod lane;
pub mod material;
pub mod process;
mod tally;
pub mod verify;
pub mod workload;

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use chance::Chance;
use lane::Lane;
pub use tally::Tally;
use workload::real;

/// The sources of the store's named moments: the list in it is what is gone through.
const FAILPOINTS: &str = include_str!("../../store/src/failpoint.rs");
/// A named moment that the load did not come by is waited for again so many times.
const TRIES: u64 = 4;

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Times that every named moment is to be died at.
    pub rounds: u64,
    /// `kill -9` at any time.
    pub kills: u64,
    /// Losses of power at any time.
    pub power_cuts: u64,
    /// No blow begins after this time.
    pub time: Duration,
    /// What all chance comes from.
    pub seed: u64,
    /// Stores at once.
    pub lanes: u64,
    /// More options of the store, for example `--layers=directory`.
    pub options: Vec<String>,
}

/// One way to end a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blow {
    /// At a named moment.
    Failpoint(String),
    /// At any moment.
    Kill,
    /// With its disk.
    PowerCut,
}

/// Blows that are still to be dealt.
#[derive(Debug)]
struct Blows {
    kills: VecDeque<Blow>,
    power_cuts: u64,
    until: Instant,
}

/// The names of all moments that the store can be killed at.
pub fn failpoints() -> Vec<String> {
    let list = FAILPOINTS.split("ALL: &[&str] = &[").nth(1).unwrap();
    let list = list.split("];").next().unwrap();
    let names = list.split('"').skip(1).step_by(2);
    names.map(str::to_owned).collect()
}

/// Does what a plan says.
pub fn run(plan: &Plan) -> Tally {
    let mut chance = Chance::new(plan.seed);
    let blows = Mutex::new(Blows::new(plan, &mut chance));
    let started = Instant::now();
    let mut tally = Tally::default();
    std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..plan.lanes)
            .map(|number| {
                let seed = chance.number();
                let disk = plan.power_cuts > 0 && number % 2 == 0;
                let blows = &blows;
                scope.spawn(move || run_lane(plan, disk, seed, blows))
            })
            .collect();
        for lane in lanes {
            tally.add(lane.join().unwrap());
        }
    });
    tally.took = started.elapsed();
    retry(plan, &mut chance, tally)
}

/// What no lane came by is waited for once more, by itself.
fn retry(plan: &Plan, chance: &mut Chance, mut tally: Tally) -> Tally {
    let missed = tally.missed();
    let missed = missed
        .iter()
        .flat_map(|name| vec![name.clone(); usize::try_from(TRIES).unwrap()]);
    let blows = Blows {
        kills: missed.map(Blow::Failpoint).collect(),
        power_cuts: 0,
        until: Instant::now() + plan.time,
    };
    if blows.kills.is_empty() || !tally.violations.is_empty() {
        return tally;
    }
    tally.add(run_lane(plan, false, chance.number(), &Mutex::new(blows)));
    tally
}

fn run_lane(plan: &Plan, disk: bool, seed: u64, blows: &Mutex<Blows>) -> Tally {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let lane = Lane::new(plan, disk, seed);
        lane.run(|disk| blows.lock().unwrap().next(disk)).await
    })
}

impl Blows {
    fn new(plan: &Plan, chance: &mut Chance) -> Self {
        let named = (0..plan.rounds)
            .flat_map(|_| failpoints())
            .map(Blow::Failpoint);
        let any = (0..plan.kills).map(|_| Blow::Kill);
        let mut kills: Vec<Blow> = named.chain(any).collect();
        for end in (1..kills.len()).rev() {
            let other = chance.below(u64::try_from(end).unwrap() + 1);
            kills.swap(end, usize::try_from(other).unwrap());
        }
        Self {
            kills: kills.into(),
            power_cuts: plan.power_cuts,
            until: Instant::now() + plan.time,
        }
    }

    /// A lane with a disk loses power as often as it is killed, until one of them is done.
    fn next(&mut self, disk: bool) -> Option<Blow> {
        if Instant::now() > self.until {
            return None;
        }
        let kills = u64::try_from(self.kills.len()).unwrap();
        let turn = kills == 0 || (kills + self.power_cuts).is_multiple_of(2);
        if disk && self.power_cuts > 0 && turn {
            self.power_cuts -= 1;
            return Some(Blow::PowerCut);
        }
        self.kills.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_named_moments_are_found_in_the_source() {
        let names = failpoints();
        assert!(names.len() > 50, "{names:?}");
        assert!(names.contains(&"content.publish.renamed".to_owned()));
        assert!(names.iter().all(|name| name.split('.').count() == 3));
    }
}
