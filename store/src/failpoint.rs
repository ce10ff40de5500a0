//! Named moments at which a test can have the process killed, so that every order of a crash is met
//! on purpose and in the very binary that ships.
//!
//! `--failpoint <name>[:<n>]` kills the store with SIGKILL when it reaches the moment for the n-th time
//! (the first by default). Without it a moment costs one load from memory. Whoever chooses the options
//! of the service could as well kill it: this opens no door.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Every moment that there is, in order of its name: what the crash harness goes through.
pub const ALL: &[&str] = &[
    "archive.import.layer_made",
    "archive.import.manifest_made",
    "archive.load.named",
    "archive.load.published",
    "collect.blob.removed",
    "collect.mark.done",
    "collect.snapshot.removed",
    "content.publish.durable",
    "content.publish.gathered",
    "content.publish.renamed",
    "content.publish.synced",
    "content.put_many.published",
    "content.put_many.sealed",
    "content.remove.aside",
    "content.writer.created",
    "content.writer.ended",
    "file.group.removed",
    "file.group.renamed",
    "file.group.synced",
    "file.group.written",
    "file.write.renamed",
    "file.write.synced",
    "image.delete.indexed",
    "image.delete.removed",
    "image.put.begun",
    "image.put.indexed",
    "image.put.read",
    "image.put.written",
    "ingest.commit.discarded",
    "ingest.commit.held",
    "ingest.commit.published",
    "ingest.commit.verified",
    "ingest.open.made",
    "ingest.suspend.begun",
    "ingest.suspend.synced",
    "ingest.write.some",
    "lease.change.appended",
    "lease.change.synced",
    "lease.delete.removed",
    "lease.put.written",
    "snapshot.arrive.begun",
    "snapshot.arrive.made",
    "snapshot.arrive.published",
    "snapshot.arrive.shelved",
    "snapshot.arrive.synced",
    "snapshot.commit.active_removed",
    "snapshot.commit.announced",
    "snapshot.commit.durable",
    "snapshot.commit.filled",
    "snapshot.commit.layer_placed",
    "snapshot.commit.synced",
    "snapshot.describe.renamed",
    "snapshot.describe.synced",
    "snapshot.diff.layer_described",
    "snapshot.diff.packed",
    "snapshot.diff.remembered",
    "snapshot.prepare.drafted",
    "snapshot.prepare.durable",
    "snapshot.prepare.published",
    "snapshot.remove.forgotten",
    "snapshot.remove.layer_unused",
    "snapshot.rename.durable",
    "snapshot.rename.renamed",
    "snapshot.unpack.begun",
    "snapshot.unpack.drafted",
    "snapshot.unpack.filled",
    "snapshot.unpack.layers_published",
    "snapshot.unpack.layers_synced",
    "snapshot.unpack.record_published",
    "snapshot.unpack.synced",
    "trash.throw.renamed",
];

static ARMED: OnceLock<Failpoint> = OnceLock::new();

/// The moment to die at.
#[derive(Debug)]
pub struct Failpoint {
    name: String,
    left: AtomicU64,
}

impl Failpoint {
    /// `<name>[:<n>]`.
    pub fn parse(value: &str) -> Option<Self> {
        let (name, count) = value.split_once(':').unwrap_or((value, "1"));
        let left = AtomicU64::new(count.parse().ok()?);
        let name = name.to_owned();
        (!name.is_empty()).then_some(Self { name, left })
    }

    /// From now on this process dies at it. Only the first call of a process counts.
    pub fn arm(self) {
        tracing::warn!(name = self.name, "will be killed at a failpoint");
        drop(ARMED.set(self));
    }
}

/// Reaches a moment; does not return when it is the one to die at.
pub fn reach(name: &str) {
    debug_assert!(ALL.contains(&name), "{name} is not listed");
    let Some(armed) = ARMED.get().filter(|armed| armed.name == name) else {
        return;
    };
    if armed.left.fetch_sub(1, Ordering::Relaxed) == 1 {
        die();
    }
}

/// SIGKILL: no destructor, no flush, no handler.
fn die() {
    let own = rustix::process::getpid();
    if rustix::process::kill_process(own, rustix::process::Signal::KILL).is_err() {
        std::process::abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    #[test]
    fn a_name_may_have_a_count() {
        let armed = Failpoint::parse("content.publish.renamed:3").unwrap();
        assert_eq!(armed.name, "content.publish.renamed");
        assert_eq!(armed.left.into_inner(), 3);
        assert_eq!(Failpoint::parse("x").unwrap().left.into_inner(), 1);
        assert!(Failpoint::parse("x:y").is_none());
    }

    /// The harness goes through the list: a moment that is not in it is never met.
    #[test]
    fn the_list_is_what_the_sources_reach() {
        let mut reached = BTreeSet::new();
        collect(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
            &mut reached,
        );
        let listed: Vec<_> = ALL.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(listed, reached.into_iter().collect::<Vec<_>>());
    }

    fn collect(directory: &Path, reached: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, reached);
            } else if !path.ends_with("src/failpoint.rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let sites = text.split("failpoint::reach(\"").skip(1);
                reached.extend(sites.filter_map(|site| site.split('"').next().map(str::to_owned)));
            }
        }
    }
}
