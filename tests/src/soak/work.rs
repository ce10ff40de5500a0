//! What a worker does: one operation after the other, chosen by dice. Names are taken by trying, never by
//! waiting, so that workers cannot block one another; an operation that gets none is not done.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLockReadGuard, RwLockWriteGuard};

use super::image;
use super::journal::{Acknowledged, Entry, Journal, Place};
use super::report::Tally;
use super::side::Side;
use super::verify;
use crate::http;

/// Names of a store above which more are removed than made.
const NAMES_MAX: usize = 40;
/// Tags of a registry that are used, over and over.
const TAGS: u64 = 24;

/// What all workers share.
#[derive(Debug)]
pub struct Yard {
    /// The two instances.
    pub sides: [Side; 2],
    /// What was acknowledged.
    pub journal: Journal,
    /// What was done, and what went wrong.
    pub tally: Tally,
    /// No new operation begins.
    pub stop: AtomicBool,
}

/// Xorshift: the same numbers for the same seed.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Any seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        (self.roll() >> 11) % end.max(1)
    }

    fn pick<T: Clone>(&mut self, all: &[T]) -> Option<T> {
        let position = self.below(all.len() as u64);
        all.get(usize::try_from(position).ok()?).cloned()
    }
}

type Taken<'a> = RwLockWriteGuard<'a, Option<Acknowledged>>;
type Relied<'a> = RwLockReadGuard<'a, Option<Acknowledged>>;

/// One that works.
pub struct Worker<'a> {
    yard: &'a Yard,
    number: u64,
    made: u64,
    dice: Dice,
}

impl fmt::Debug for Worker<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker {} after {}", self.number, self.made)
    }
}

impl<'a> Worker<'a> {
    /// The worker of a number.
    pub fn new(yard: &'a Yard, number: u64, seed: u64) -> Self {
        let dice = Dice::new(seed.wrapping_mul(1009).wrapping_add(number + 1));
        Self {
            yard,
            number,
            made: 0,
            dice,
        }
    }

    /// Works until told to stop.
    pub fn work(&mut self) {
        while !self.yard.stop.load(Ordering::Relaxed) {
            self.step();
        }
    }

    fn step(&mut self) {
        let side = usize::from(self.dice.below(2) == 1);
        let full = self.yard.journal.of(Place::Store(side)).len() > NAMES_MAX;
        match self.dice.below(100) {
            0..12 if !full => self.load(side),
            12..17 if !full => self.import(side),
            17..30 if !full => self.tag(side),
            0..48 => self.untag(side),
            48..62 => self.push(side),
            62..78 => self.pull(side),
            78..82 => self.remove_tag(side),
            82..92 => self.run(side),
            _ => self.verify(),
        }
    }

    fn new_name(&mut self) -> (String, String) {
        self.made += 1;
        let name = format!("docker.io/soak/w{}:{}", self.number, self.made);
        (name, format!("worker {} made {}\n", self.number, self.made))
    }

    fn load(&mut self, side: usize) {
        let (name, marker) = self.new_name();
        let archive = image::layered(&name, &marker, self.dice.roll() >> 20);
        let entry = self.yard.journal.entry(Place::Store(side), &name);
        let Ok(mut state) = entry.state.try_write() else {
            return;
        };
        let loaded = self.time("load", || {
            self.yard.sides[side].orlop(&["load", "-q"], &archive.bytes)
        });
        if loaded.is_some() {
            let digest = archive.digest;
            *state = Some(Acknowledged { digest, marker });
        }
    }

    fn import(&mut self, side: usize) {
        let (name, marker) = self.new_name();
        let tar = image::flat(&marker);
        let entry = self.yard.journal.entry(Place::Store(side), &name);
        let Ok(mut state) = entry.state.try_write() else {
            return;
        };
        let command = format!("CMD [\"cat\", \"/{}\"]", image::MARKER);
        let side = &self.yard.sides[side];
        let imported = self.time("import", || {
            side.orlop(&["import", "-c", &command, "-", &name], &tar)?;
            side.digest_of(&name)
        });
        *state = imported.map(|digest| Acknowledged { digest, marker });
    }

    fn tag(&mut self, side: usize) {
        let (name, _) = self.new_name();
        let Some(source) = self.some(Place::Store(side)) else {
            return;
        };
        let target = self.yard.journal.entry(Place::Store(side), &name);
        let (Some((image, _held)), Ok(mut state)) = (rely(&source), target.state.try_write())
        else {
            return;
        };
        let tagged = self.time("tag", || {
            self.yard.sides[side].orlop(&["tag", &source.name, &name], b"")
        });
        *state = tagged.map(|_| image);
    }

    fn untag(&mut self, side: usize) {
        let Some(entry) = self.some(Place::Store(side)) else {
            return;
        };
        let Ok(mut state) = entry.state.try_write() else {
            return;
        };
        if state.take().is_some() {
            self.time("untag", || {
                self.yard.sides[side].orlop(&["rmi", &entry.name], b"")
            });
        }
        drop(state);
        self.yard.journal.forget(&entry);
    }

    /// To the registry of either side, by the name that it has there.
    fn push(&mut self, side: usize) {
        let registry = usize::from(self.dice.below(4) == 0) ^ side ^ 1;
        let address = self.yard.sides[registry].instance.registry();
        let number = self.dice.below(TAGS);
        let name = format!("{address}/soak/r{}:t{}", number % 4, number / 4);
        let journal = &self.yard.journal;
        let Some(source) = self.some(Place::Store(side)) else {
            return;
        };
        let local = journal.entry(Place::Store(side), &name);
        let remote = journal.entry(Place::Registry(registry), &name);
        if source.name == name {
            return;
        }
        let (Some((image, _held)), Some(mut here), Some(mut there)) =
            (rely(&source), take(&local), take(&remote))
        else {
            return;
        };
        let side = &self.yard.sides[side];
        *here = None;
        if self
            .time("tag", || side.orlop(&["tag", &source.name, &name], b""))
            .is_none()
        {
            return;
        }
        *here = Some(image.clone());
        *there = None;
        let pushed = self.time("push", || {
            let said = side.orlop(&["push", &name], b"")?;
            match said.contains(&image.digest) {
                true => Ok(()),
                false => Err(format!("push of {name}: not {} in {said}", image.digest)),
            }
        });
        *there = pushed.map(|()| image);
    }

    fn pull(&mut self, side: usize) {
        let registry = usize::from(self.dice.below(4) == 0) ^ side ^ 1;
        let Some(remote) = self.some(Place::Registry(registry)) else {
            return;
        };
        let local = self.yard.journal.entry(Place::Store(side), &remote.name);
        let (Some((image, _held)), Some(mut here)) = (rely(&remote), take(&local)) else {
            return;
        };
        let side = &self.yard.sides[side];
        *here = None;
        let pulled = self.time("pull", || {
            side.orlop(&["pull", "-q", &remote.name], b"")?;
            match side.digest_of(&remote.name)? {
                digest if digest == image.digest => Ok(()),
                digest => Err(format!(
                    "pull of {} gave {digest}, not {}",
                    remote.name, image.digest
                )),
            }
        });
        *here = pulled.map(|()| image);
    }

    fn remove_tag(&mut self, registry: usize) {
        let Some(remote) = self.some(Place::Registry(registry)) else {
            return;
        };
        let Some(mut there) = take(&remote) else {
            return;
        };
        if there.take().is_none() {
            return;
        }
        let address = self.yard.sides[registry].instance.registry();
        self.time("remove tag", || delete(address, &remote.name));
    }

    fn run(&mut self, side: usize) {
        let Some(entry) = self.some(Place::Store(side)) else {
            return;
        };
        if let Some((image, _held)) = rely(&entry) {
            let side = &self.yard.sides[side];
            self.time("run", || verify::runs(side, &entry.name, &image.marker));
        }
    }

    fn verify(&mut self) {
        let Some(entry) = self.dice.pick(&self.yard.journal.all()) else {
            return;
        };
        if let Some((image, _held)) = rely(&entry) {
            self.time("verify", || verify::whole(self.yard, &entry, &image));
        }
    }

    fn some(&mut self, place: Place) -> Option<Arc<Entry>> {
        self.dice.pick(&self.yard.journal.of(place))
    }

    fn time<T>(&self, kind: &'static str, work: impl FnOnce() -> Result<T, String>) -> Option<T> {
        self.yard.tally.time(kind, work)
    }
}

/// The image of a name that stays as it is while the guard lives.
fn rely(entry: &Entry) -> Option<(Acknowledged, Relied<'_>)> {
    let guard = entry.state.try_read().ok()?;
    Some((guard.clone()?, guard))
}

fn take(entry: &Entry) -> Option<Taken<'_>> {
    entry.state.try_write().ok()
}

/// `DELETE` of a tag.
fn delete(address: &str, name: &str) -> Result<(), String> {
    let (repository, tag) = split(address, name).ok_or("a name without a tag")?;
    let request = format!(
        "DELETE /v2/{repository}/manifests/{tag} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    );
    match http::request(address, &request) {
        Some(response) if response.status == 202 => Ok(()),
        Some(response) => Err(format!("DELETE of {name}: {}", response.status)),
        None => Err(format!("DELETE of {name}: no answer")),
    }
}

/// Repository and tag of a name in the registry at an address.
pub(super) fn split<'n>(address: &str, name: &'n str) -> Option<(&'n str, &'n str)> {
    name.strip_prefix(address)?
        .strip_prefix('/')?
        .rsplit_once(':')
}
