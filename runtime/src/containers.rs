//! The containers of this instance: a map in memory, each with its record on disk, one file per thing
//! that is done to them. Lists and inspections read the map alone and never wait for a container.

mod acting;
pub(crate) mod commit;
pub(crate) mod copy;
pub(crate) mod create;
pub(crate) mod diff;
mod events;
pub(crate) mod filter;
mod health;
mod links;
pub(crate) mod monitor;
pub(crate) mod names;
pub(crate) mod networks;
pub(crate) mod pause;
mod policy;
pub mod record;
pub(crate) mod recover;
pub(crate) mod remove;
pub(crate) mod rename;
pub(crate) mod run;
mod shared;
pub(crate) mod size;
pub(crate) mod start;
pub mod state;
pub(crate) mod stats;
pub(crate) mod stop;
pub(crate) mod streams;
pub(crate) mod top;
pub(crate) mod tree;
pub(crate) mod update;
mod volumes;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError, RwLockReadGuard, RwLockWriteGuard};

use orlop_shim::config::LOG_FILE;
use tokio::sync::{Mutex, RwLock, watch};

use crate::cgroups::Cgroups;
use crate::clients::Store;
use crate::error::{Error, Result, blocking};
use crate::events::Events;
use crate::index::Index;
use crate::network::Network;
use crate::runtimes::Runtimes;
use crate::shim::Program;
use crate::subids::SubIds;
use crate::volumes::Volumes;
use record::Record;

/// Hexadecimal digits of an id.
const ID_LENGTH: usize = 64;
/// Digits of the id in the name of a shim's socket: its path must stay short.
const SOCKET_DIGITS: usize = 24;

/// All containers; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Containers(Arc<Inner>);

/// What containers are made with.
#[derive(Debug)]
pub(crate) struct Parts {
    /// `ROOT/runtime/containers`.
    pub(crate) directory: PathBuf,
    /// Where the shims' sockets are.
    pub(crate) sockets: PathBuf,
    /// The shim's program.
    pub(crate) shim: Program,
    /// Other OCI runtimes.
    pub(crate) runtimes: Runtimes,
    /// Nobody gains privileges.
    pub(crate) no_new_privileges: bool,
    /// Whose ids a container has that does not say: a `userns` of a request.
    pub(crate) userns: String,
    /// Ids for user namespaces.
    pub(crate) subids: SubIds,
    /// Bytes at which a log is rotated.
    pub(crate) log_bytes_max: u64,
    /// Images and snapshots.
    pub(crate) store: Store,
    /// Namespaces and ports.
    pub(crate) network: Arc<Network>,
    /// Named and anonymous volumes.
    pub(crate) volumes: Volumes,
    /// Limits.
    pub(crate) cgroups: Cgroups,
    /// What can be rebuilt.
    pub(crate) index: Index,
    /// Who is told what happens.
    pub(crate) events: Events,
}

#[derive(Debug)]
struct Inner {
    parts: Parts,
    map: std::sync::RwLock<Map>,
    /// Held from the choice of a container's volumes until it is in the map, and while a volume is
    /// removed, so that no volume goes away under a container that is being made.
    volumes: Mutex<()>,
    /// One change of a name at a time.
    renaming: Mutex<()>,
}

#[derive(Debug, Default)]
struct Map {
    by_id: BTreeMap<String, Arc<Container>>,
    /// Name → id; a name is in here before its container is in the map.
    names: HashMap<String, String>,
}

impl Map {
    /// Gives a free name to an id.
    fn take_name(&mut self, name: &str, id: &str) -> Result<()> {
        if let Some(owner) = self.names.get(name) {
            return Err(Error::NameTaken {
                name: name.to_owned(),
                id: owner.chars().take(12).collect(),
            });
        }
        self.names.insert(name.to_owned(), id.to_owned());
        Ok(())
    }
}

/// One container in memory.
#[derive(Debug)]
pub(crate) struct Container {
    /// 64 hexadecimal digits.
    pub(crate) id: String,
    /// Its files.
    pub(crate) directory: PathBuf,
    /// Where its shim listens.
    pub(crate) socket: PathBuf,
    /// One start, stop, restart or removal at a time.
    gate: Mutex<()>,
    /// Held while what an earlier run left is taken down.
    teardown: Arc<Mutex<()>>,
    /// One change of the record at a time.
    writing: Mutex<()>,
    /// Shared by those who put a process into it, held alone by who freezes it.
    entering: RwLock<()>,
    /// Its snapshot's mount is known from this life of the service.
    mounted: AtomicBool,
    view: watch::Sender<View>,
}

/// What others see of a container.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// As it is now.
    pub(crate) record: Arc<Record>,
    /// It is gone.
    pub(crate) removed: bool,
}

impl Containers {
    /// No containers yet; see [`recover`].
    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(Inner {
            parts,
            map: std::sync::RwLock::default(),
            volumes: Mutex::new(()),
            renaming: Mutex::new(()),
        }))
    }

    fn parts(&self) -> &Parts {
        &self.0.parts
    }

    fn map(&self) -> RwLockReadGuard<'_, Map> {
        self.0.map.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn map_mut(&self) -> RwLockWriteGuard<'_, Map> {
        self.0.map.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The container that a person means: by id, by name, or by a unique prefix of its id.
    pub(crate) fn find(&self, text: &str) -> Result<Arc<Container>> {
        let map = self.map();
        if let Some(container) = map.by_id.get(text) {
            return Ok(Arc::clone(container));
        }
        let named = map.names.get(text).and_then(|id| map.by_id.get(id));
        if let Some(container) = named {
            return Ok(Arc::clone(container));
        }
        let none = || Error::NoContainer(text.chars().take(128).collect());
        if text.is_empty() || text.len() > ID_LENGTH {
            return Err(none());
        }
        let mut fitting = map
            .by_id
            .range(text.to_owned()..)
            .take_while(|(id, _)| id.starts_with(text))
            .filter(|(_, container)| !container.record().hidden);
        let (_, first) = fitting.next().ok_or_else(none)?;
        match fitting.next() {
            Some(_) => Err(Error::AmbiguousPrefix(text.to_owned())),
            None => Ok(Arc::clone(first)),
        }
    }

    /// Every container, hidden ones too.
    pub(crate) fn all(&self) -> Vec<Arc<Container>> {
        self.map().by_id.values().cloned().collect()
    }

    /// Every container's record but the hidden ones', newest first.
    pub(crate) fn records(&self) -> Vec<Arc<Record>> {
        let mut records: Vec<Arc<Record>> = self.map().by_id.values().map(|c| c.record()).collect();
        records.retain(|record| !record.hidden);
        records.sort_by(|a, b| (b.created, &b.id).cmp(&(a.created, &a.id)));
        records
    }

    /// Where a container's log is.
    pub(crate) fn log_path(&self, id: &str) -> String {
        let path = self.parts().directory.join(id).join(LOG_FILE);
        path.to_string_lossy().into_owned()
    }

    /// The network.
    pub(crate) fn network(&self) -> Arc<Network> {
        Arc::clone(&self.parts().network)
    }

    /// Who is told what happens.
    pub(crate) fn events(&self) -> &Events {
        &self.parts().events
    }

    /// Gives back what was prepared for containers to come, at the end of the service. Containers that
    /// run keep what they have, except those that live only as long as a call.
    pub(crate) async fn release(&self) {
        for container in self.all() {
            if container.record().hidden
                && let Err(error) = self.remove(&container, true, true).await
            {
                let error = orlop_proto::error::chain(&error);
                tracing::warn!(
                    id = container.id,
                    error,
                    "cannot remove a one-shot container"
                );
            }
        }
        if let Err(error) = self.parts().network.release_pool().await {
            let error = orlop_proto::error::chain(&error);
            tracing::warn!(
                error,
                "cannot give back what was prepared for containers to come"
            );
        }
        self.parts().cgroups.release();
    }

    /// The volumes of this instance.
    pub(crate) fn volumes(&self) -> &Volumes {
        &self.parts().volumes
    }

    /// The container that uses a volume.
    pub(crate) fn user_of_volume(&self, name: &str) -> Option<String> {
        let map = self.map();
        let user = map.by_id.values().map(|c| c.record()).find(|record| {
            let mut volumes = record.mounts.iter().filter_map(record::Mount::volume);
            volumes.any(|own| own == name)
        });
        user.map(|record| record.title().to_owned())
    }

    /// How many containers use each volume that is used.
    pub(crate) fn users_of_volumes(&self) -> HashMap<String, u32> {
        let mut users: HashMap<String, u32> = HashMap::new();
        for container in self.all() {
            let record = container.record();
            let names = record.mounts.iter().filter_map(record::Mount::volume);
            for name in names.collect::<BTreeSet<_>>() {
                *users.entry(name.to_owned()).or_default() += 1;
            }
        }
        users
    }

    /// Removes a volume that no container uses.
    pub(crate) async fn remove_volume(&self, name: String, force: bool) -> Result<()> {
        let _guard = self.0.volumes.lock().await;
        if let Some(container) = self.user_of_volume(&name) {
            return Err(Error::VolumeInUse { name, container });
        }
        let volumes = self.volumes().clone();
        let removed = blocking(move || volumes.remove(&name)).await;
        match removed {
            Err(Error::NoVolume(_)) if force => Ok(()),
            result => result,
        }
    }

    fn container(&self, record: Record, mounted: bool) -> Arc<Container> {
        let digits = record.id.get(..SOCKET_DIGITS).unwrap_or(&record.id);
        Arc::new(Container {
            id: record.id.clone(),
            directory: self.parts().directory.join(&record.id),
            socket: self.parts().sockets.join(digits),
            gate: Mutex::new(()),
            teardown: Arc::new(Mutex::new(())),
            writing: Mutex::new(()),
            entering: RwLock::new(()),
            mounted: AtomicBool::new(mounted),
            view: watch::Sender::new(View {
                record: Arc::new(record),
                removed: false,
            }),
        })
    }

    fn insert(&self, container: &Arc<Container>) {
        let mut map = self.map_mut();
        let record = container.record();
        if !record.name.is_empty() {
            map.names.insert(record.name.clone(), record.id.clone());
        }
        map.by_id
            .insert(container.id.clone(), Arc::clone(container));
    }

    /// Takes a container out of the map; its name is free again.
    fn forget(&self, container: &Container) {
        let mut map = self.map_mut();
        map.by_id.remove(&container.id);
        map.names.retain(|_, id| *id != container.id);
        drop(map);
        container.view.send_modify(|view| view.removed = true);
    }
}

impl Container {
    /// As it is now.
    pub(crate) fn record(&self) -> Arc<Record> {
        Arc::clone(&self.view.borrow().record)
    }

    /// On the host, one of the files of `/etc` that it has in place of the image's.
    fn etc_file(&self, target: &str) -> PathBuf {
        self.directory.join(target.trim_start_matches("/etc/"))
    }

    /// To be told of changes.
    pub(crate) fn watch(&self) -> watch::Receiver<View> {
        self.view.subscribe()
    }

    /// It is gone, or about to be.
    pub(crate) fn is_removed(&self) -> bool {
        self.view.borrow().removed
    }

    /// Changes the record on disk, then in memory; in memory alone once the container is removed.
    async fn update(&self, change: impl FnOnce(&mut Record) + Send) -> Result<Arc<Record>> {
        let _writing = self.writing.lock().await;
        let mut record = Record::clone(&self.record());
        change(&mut record);
        let record = Arc::new(record);
        if !self.is_removed() {
            self.save(&record).await?;
        }
        self.publish(&record);
        Ok(record)
    }

    /// Changes what is kept in memory alone.
    async fn change(&self, change: impl FnOnce(&mut Record) + Send) {
        let _writing = self.writing.lock().await;
        let mut record = Record::clone(&self.record());
        change(&mut record);
        self.publish(&Arc::new(record));
    }

    async fn save(&self, record: &Arc<Record>) -> Result<()> {
        let (record, directory) = (Arc::clone(record), self.directory.clone());
        blocking(move || record.save(&directory)).await
    }

    fn publish(&self, record: &Arc<Record>) {
        self.view
            .send_modify(|view| view.record = Arc::clone(record));
    }

    /// Waits until the view fits.
    pub(crate) async fn until(&self, fits: impl FnMut(&View) -> bool + Send) -> View {
        let mut watch = self.watch();
        let seen = watch.wait_for(fits).await.map(|view| view.clone());
        // The sender lives in `self`.
        seen.unwrap_or_else(|_| self.view.borrow().clone())
    }

    fn shim_failed(&self, doing: &'static str) -> impl Fn(std::io::Error) -> Error {
        let id = self.id.clone();
        move |source| Error::Shim {
            id: id.clone(),
            doing,
            source,
        }
    }
}
