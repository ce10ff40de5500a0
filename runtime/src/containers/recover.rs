//! What a start of the service finds: containers that go on running, containers that ended meanwhile,
//! and what a crash left half-made.

use std::fs;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use orlop_shim::config::ExitStatus;
use orlop_shim::protocol::{Reply, Request, VERSION};

use super::health;
use super::monitor::read_exit;
use super::pause::set_frozen;
use super::policy::{self, wants_restart};
use super::record::{self, Record};
use super::state::Status;
use super::{Container, Containers};
use crate::cgroups::freeze;
use crate::error::{Error, Result, blocking};
use crate::files;
use crate::network::Live;
use crate::shim::{self, Connection, unexpected};

/// How long a start of the service waits for each shim.
const PATIENCE: Duration = Duration::from_secs(1);

impl Containers {
    /// Reads every container's directory, finds the shims again and cleans up. Called once, before
    /// anything is served.
    pub(crate) async fn recover(&self) -> Result<()> {
        let (mut found, mut live, mut ended) = (Vec::new(), Vec::new(), Vec::new());
        for container in self.load().await? {
            let record = container.record();
            if let Some(shim) = self.adopt(&container).await {
                self.adopt_volumes(&record);
                live.extend(live_network(&container.record()));
                found.push((container, shim));
            } else if record.is_running() {
                ended.push(container);
            }
        }
        self.parts().network.reconcile(live).await?;
        // Not before: the end of one would take down what is being restored.
        for (container, shim) in found {
            self.monitor(&container, shim);
        }
        for container in ended {
            let exit = read_exit(&container, Duration::ZERO).await;
            self.ended(&container, exit, None).await;
        }
        self.settle().await;
        self.remove_orphan_groups().await
    }

    /// Every container with a record is put into the map; directories without one are removed.
    async fn load(&self) -> Result<Vec<Arc<Container>>> {
        let directory = self.parts().directory.clone();
        let index = self.parts().index.clone();
        let found = blocking(move || read_records(&directory, &index)).await?;
        for id in found.half_made {
            tracing::info!(
                id,
                "removing a container that was never quite made, or quite removed"
            );
            self.discard(&id, &self.parts().directory.join(&id)).await;
        }
        let mut containers = Vec::new();
        for record in found.records {
            if let Some(ids) = record.ids {
                self.parts().subids.keep(&record.id, ids);
            }
            let container = self.container(record, false);
            self.insert(&container);
            containers.push(container);
        }
        Ok(containers)
    }

    /// Finds a container's shim; the connection on which it is waited for. A container that was being
    /// started when the service died is saved as running before its command is let go, and its shim gives
    /// up when the service goes away before that. One that ended, and that its shim was to start again, is
    /// this service's from now on.
    async fn adopt(&self, container: &Arc<Container>) -> Option<Connection> {
        let mut shim = shim::wait(&container.socket).await.ok()?;
        let asked = shim::ask_patiently(&container.socket, &Request::State);
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok(Reply::State { pid: 0, .. })) => {
                // If it is gone by now its exit status tells.
                shim.writer.request(&Request::Take).await.ok();
                return None;
            }
            Ok(Ok(state @ Reply::State { .. })) => self.adopt_as(container, &state).await,
            Ok(Ok(reply)) => adopt_stranger(container, &unexpected(&reply)),
            Ok(Err(error)) if error.kind() == ErrorKind::InvalidData => {
                adopt_stranger(container, &error);
            }
            Ok(Err(_)) => return None,
            Err(_) => self.adopt_late(container),
        }
        Some(shim)
    }

    /// Somebody listens and does not answer. That holds up this container, not the service.
    fn adopt_late(&self, container: &Arc<Container>) {
        tracing::warn!(id = container.id, "the shim does not answer yet");
        publish_running(container);
        let container = Arc::clone(container);
        tokio::spawn(async move {
            let asked = shim::ask_patiently(&container.socket, &Request::State).await;
            if let Ok(state) = asked {
                container
                    .change(|record| {
                        take_in(record, &state);
                    })
                    .await;
            }
        });
    }

    async fn adopt_as(&self, container: &Arc<Container>, state: &Reply) {
        let mut record = Record::clone(&container.record());
        let frozen = freeze::is_frozen(&record.cgroups);
        let paused = frozen && record.state.status == Status::Paused;
        record.state.status = if paused {
            Status::Paused
        } else {
            Status::Running
        };
        let last = take_in(&mut record, state);
        let pid = record.state.pid;
        tracing::info!(id = container.id, pid, "found a running container again");
        tell_version(container, state);
        if let Some(last) = last {
            self.tell_restart(&record, &last);
        }
        if frozen && !paused {
            // Our end cut off a commit, which had it stand still, or a pause that nobody was told of.
            let thawed = set_frozen(container, false).await;
            if let Err(error) = thawed {
                tracing::warn!(%error, id = container.id, "cannot let a container go on");
            }
        }
        container.publish(&Arc::new(record));
    }

    /// However often its shim started it again, this is told once.
    fn tell_restart(&self, record: &Record, last: &ExitStatus) {
        self.tell(record, "die", &[("exitCode", last.code.to_string())]);
        self.tell(record, "start", &[]);
    }

    /// What must not outlive the service that made it, and what must run again.
    async fn settle(&self) {
        for container in self.all() {
            let record = container.record();
            let doomed = record.hidden || (record.config.auto_remove && !record.is_running());
            if doomed {
                if let Err(error) = self.remove(&container, true, true).await {
                    tracing::warn!(%error, id = container.id, "cannot remove a leftover container");
                }
            } else if !record.is_up() && record.state.exits > 0 {
                self.start_again(&container).await;
            }
        }
    }

    /// Policies count for containers that ran. As with Docker, `always` holds even for one that a
    /// person stopped, once the service is started anew; that is what `unless-stopped` is for.
    async fn start_again(&self, container: &Arc<Container>) {
        let record = container.record();
        let policy = record.config.restart.clone().unwrap_or_default();
        if record.state.stopped && policy.name == "always" {
            let cleared = container
                .update(|record| record.state.stopped = false)
                .await;
            if let Err(error) = cleared {
                tracing::warn!(%error, id = container.id, "cannot start a container again");
                return;
            }
        }
        let restarting = wants_restart(&container.record());
        container
            .change(|record| record.state.restarting = restarting)
            .await;
        self.consider_restart(container, &container.record());
    }

    async fn remove_orphan_groups(&self) -> Result<()> {
        let this = self.clone();
        blocking(move || {
            let cgroups = &this.parts().cgroups;
            let running = |id: &str| {
                let map = this.map();
                map.by_id.get(id).is_some_and(|c| c.record().is_running())
            };
            cgroups.remove(&cgroups.orphans(running));
            for record in this.all().iter().map(|container| container.record()) {
                let parent = &record.config.cgroup_parent;
                if !parent.is_empty() && !record.is_running() {
                    cgroups.remove(&cgroups.all_of(&record.id, parent));
                }
            }
            Ok(())
        })
        .await
    }
}

/// What a container that was found running has of the network. Its namespace is opened after its shim
/// said that the process lives.
fn live_network(record: &Record) -> Option<Live> {
    let attachment = record.attachment.clone()?;
    let path = format!("/proc/{}/ns/net", record.state.pid);
    let namespace = attachment.netns.as_ref().map(|_| fs::File::open(path));
    let namespace = namespace.transpose().unwrap_or_else(|error| {
        tracing::warn!(id = record.id, %error, "cannot open a container's network namespace");
        None
    });
    Some(Live {
        id: record.id.clone(),
        attachment,
        namespace: namespace.map(Into::into),
    })
}

/// What a shim of another version cannot do is done from the next start of its container.
fn tell_version(container: &Container, said: &Reply) {
    if let Reply::State { version, .. } = said
        && *version != VERSION
    {
        let told =
            "the shim is of another version; `restart` gives its container the one of this service";
        tracing::warn!(id = container.id, version, own = VERSION, "{told}");
    }
}

/// A shim of a version that this one does not understand goes on, and can be ended.
fn adopt_stranger(container: &Container, error: &io::Error) {
    let told =
        "the shim is not understood, it may be of another version; `rm -f` ends its container";
    tracing::warn!(id = container.id, %error, "{told}");
    publish_running(container);
}

fn publish_running(container: &Container) {
    let mut record = Record::clone(&container.record());
    record.state.status = Status::Running;
    container.publish(&Arc::new(record));
}

/// What the shim says of a container that runs; how it ended last, if the shim started it again since.
fn take_in(record: &mut Record, said: &Reply) -> Option<ExitStatus> {
    let Reply::State {
        pid,
        started_at,
        restarts,
        last,
        ..
    } = said
    else {
        return None;
    };
    record.state.pid = *pid;
    let again = policy::catch_up(&mut record.state, *restarts, *started_at);
    last.clone().filter(|_| again)
}

struct Found {
    records: Vec<Record>,
    half_made: Vec<String>,
}

fn read_records(directory: &std::path::Path, index: &crate::index::Index) -> Result<Found> {
    let mut found = Found {
        records: Vec::new(),
        half_made: Vec::new(),
    };
    let failed = || Error::file("read", directory);
    for entry in fs::read_dir(directory).map_err(failed())? {
        let entry = entry.map_err(failed())?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let path = entry.path();
        let size = fs::metadata(path.join(record::FILE)).map_or(0, |metadata| metadata.len());
        if size == 0 {
            found.half_made.push(name);
            continue;
        }
        match index
            .get(&path, &name)
            .map_or_else(|| Record::load(&path), Ok)
        {
            Ok(mut record) if record.id == name => {
                record.state.health = health::kept(&record, &path);
                found.records.push(record);
            }
            // Kept for a person to look at: it may be a container of a later version.
            Ok(_) => tracing::error!(path = %path.display(), "a record with another id"),
            Err(error) => tracing::error!(
                error = orlop_proto::error::chain(&error),
                "unreadable record"
            ),
        }
    }
    found.records.sort_by_key(|record| record.created);
    Ok(found)
}

/// Makes the directories that containers need.
pub(crate) fn make_directories(
    directory: &std::path::Path,
    sockets: &std::path::Path,
) -> Result<()> {
    for path in [directory, sockets] {
        files::make_directory(path, 0o700).map_err(Error::file("make", path))?;
    }
    Ok(())
}
