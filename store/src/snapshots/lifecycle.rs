//! Prepare, view, commit, remove.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Mode, Uid};

use crate::error::{Result, StoreError};
use crate::layers::shelf::LayerMeta;
use crate::leases::Resource;
use crate::snapshots::files;
use crate::snapshots::record::{Kind, Record, Records};
use crate::snapshots::{Inner, Snapshots, layer_turn, not_found};

/// What a new snapshot is to be.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Its key or name.
    pub key: String,
    /// A committed snapshot; empty for none.
    pub parent: String,
    /// The lease that holds it; empty for none.
    pub lease: String,
    /// The caller's own words.
    pub labels: HashMap<String, String>,
}

impl Snapshots {
    /// A new active snapshot.
    pub fn prepare(&self, wanted: Wanted) -> Result<Record> {
        self.create(wanted, Kind::Active)
    }

    /// A new view.
    pub fn view(&self, wanted: Wanted) -> Result<Record> {
        self.create(wanted, Kind::View)
    }

    fn create(&self, wanted: Wanted, kind: Kind) -> Result<Record> {
        crate::ids::check("snapshot", &wanted.key)?;
        let inner = &self.inner;
        let parent = (!wanted.parent.is_empty()).then_some(wanted.parent);
        let mut things = vec![wanted.key.clone()];
        things.extend(parent.clone());
        let _turn = inner.turns.take(things);
        inner.records.check_free(&wanted.key)?;
        self.want(parent.as_deref());
        if let Some(parent) = &parent {
            let below = inner.records.get(parent)?;
            if below.kind != Kind::Committed {
                return Err(below.wrong_kind("committed, to be a parent"));
            }
        }
        self.hold(&wanted.lease, &wanted.key)?;
        let record = Record::new(&wanted.key, kind, parent, wanted.labels);
        let (draft, meta) = inner.records.draft(&record)?;
        crate::failpoint::reach("snapshot.prepare.drafted");
        let synced = || {
            let failed = files::failed("sync", inner.records.directory());
            meta.sync_all().map_err(failed)
        };
        let published = self
            .root_like_parent(&record, &draft)
            .and_then(|()| synced())
            // The sync before has committed the journal for this one as well.
            .and_then(|()| inner.leases.settle(&wanted.lease))
            .and_then(|()| inner.records.publish(&draft, record.clone()));
        if let Err(error) = published {
            inner.trash.throw(&draft)?;
            return Err(error);
        }
        crate::failpoint::reach("snapshot.prepare.published");
        files::sync_directory(inner.records.directory())?;
        crate::failpoint::reach("snapshot.prepare.durable");
        Ok(record)
    }

    /// The root directory of an overlay is that of its topmost layer: a new one must look like the
    /// one that it covers, which is the topmost that some archive described.
    fn root_like_parent(&self, record: &Record, draft: &Path) -> Result<()> {
        if record.kind != Kind::Active || record.parent.is_none() {
            return Ok(());
        }
        let Some(top) = self.root_giver(record.parent.as_deref())? else {
            return Ok(());
        };
        let upper = Records::upper_of_draft(draft);
        let fail =
            |errno: rustix::io::Errno| files::failed("set the owner of", draft)(errno.into());
        let from = rustix::fs::fstat(files::open_directory(&top)?).map_err(fail)?;
        let to = files::open_directory(&upper)?;
        let (owner, group) = (Uid::from_raw(from.st_uid), Gid::from_raw(from.st_gid));
        rustix::fs::fchown(&to, Some(owner), Some(group)).map_err(fail)?;
        rustix::fs::fchmod(&to, Mode::from_raw_mode(from.st_mode & 0o7777)).map_err(fail)
    }

    fn root_giver(&self, parent: Option<&str>) -> Result<Option<PathBuf>> {
        let inner = &self.inner;
        let chain = inner.records.chain(parent)?;
        let layers: Vec<&str> = chain
            .iter()
            .filter_map(|one| one.layer.as_deref())
            .collect();
        let describes = |id: &&&str| inner.shelf.meta(id).is_none_or(|meta| !meta.rootless);
        let giver = layers.iter().find(describes).or(layers.first());
        giver.map(|id| inner.shelf.tree(id)).transpose()
    }

    /// Turns an active snapshot into a committed one: its upper directory becomes a layer by rename.
    ///
    /// That rename is the commit: the layer's and the snapshot's descriptions are durable before it.
    /// Killed before, a store opens with the active snapshot; killed after, with the committed one.
    pub fn commit(&self, key: &str, wanted: Wanted) -> Result<Record> {
        crate::ids::check("snapshot", &wanted.key)?;
        let inner = &self.inner;
        let layer = format!("tree-{}", files::random_name()?);
        let things = vec![key.to_owned(), wanted.key.clone(), layer_turn(&layer)];
        let _turn = inner.turns.take(things);
        let active = inner.records.get(key)?;
        if active.kind != Kind::Active {
            return Err(active.wrong_kind("active"));
        }
        inner.records.check_free(&wanted.key)?;
        self.hold(&wanted.lease, &wanted.key)?;
        let mut record = Record::new(&wanted.key, Kind::Committed, active.parent, wanted.labels);
        record.layer = Some(layer.clone());

        if let Err(error) = inner.move_tree(key, &record, &layer) {
            inner.trash.throw(&inner.records.place(&record.key))?;
            inner.shelf.remove(&layer, &inner.trash)?;
            return Err(error);
        }
        crate::failpoint::reach("snapshot.commit.filled");
        inner.records.admit(record.clone());
        files::sync_directory(&inner.shelf.directory().join(&layer))?;
        crate::failpoint::reach("snapshot.commit.durable");
        inner.records.remove(key, &inner.trash)?;
        files::sync_directory(inner.records.directory())?;
        inner.leases.settle(&wanted.lease)?;
        crate::failpoint::reach("snapshot.commit.active_removed");
        Ok(record)
    }

    /// Gives an active snapshot or a view another key.
    pub fn rename(&self, key: &str, new_key: &str) -> Result<Record> {
        crate::ids::check("snapshot", new_key)?;
        let inner = &self.inner;
        let _turn = inner.turns.take(vec![key.to_owned(), new_key.to_owned()]);
        let record = inner.records.get(key)?;
        if record.kind == Kind::Committed {
            return Err(record.wrong_kind("active or a view"));
        }
        inner.records.rename(record, new_key)
    }

    /// Removes a snapshot, durably; an unknown one is success.
    pub fn remove(&self, key: &str) -> Result<()> {
        let _turn = self.inner.turns.take(vec![key.to_owned()]);
        self.remove_in_turn(key)?;
        files::sync_directory(self.inner.records.directory())
    }

    pub(crate) fn remove_in_turn(&self, key: &str) -> Result<()> {
        let inner = &self.inner;
        let Ok(record) = inner.records.get(key) else {
            return Ok(());
        };
        if let Some(child) = inner.records.child_of(key) {
            return Err(StoreError::SnapshotInUse {
                key: key.to_owned(),
                child,
            });
        }
        inner.records.remove(key, &inner.trash)?;
        crate::failpoint::reach("snapshot.remove.forgotten");
        match record.layer {
            Some(layer) => inner.remove_layer_unless_used(&layer),
            None => Ok(()),
        }
    }

    /// A snapshot that must be active.
    pub(crate) fn active(&self, key: &str) -> Result<Record> {
        let record = self.inner.records.get(key).map_err(|_| not_found(key))?;
        if record.kind != Kind::Active {
            return Err(record.wrong_kind("active"));
        }
        Ok(record)
    }

    pub(crate) fn hold(&self, lease: &str, key: &str) -> Result<()> {
        if lease.is_empty() {
            return Ok(());
        }
        self.inner
            .leases
            .hold(lease, Resource::Snapshot(key.to_owned()))
    }
}

impl Inner {
    /// From the active snapshot `key` to the committed one of the record; all or nothing.
    fn move_tree(&self, key: &str, record: &Record, layer: &str) -> Result<()> {
        let mut tree = self.shelf.draft()?;
        tree.describe(LayerMeta::default())?;
        self.shelf.place(&tree, layer)?;
        crate::failpoint::reach("snapshot.commit.layer_placed");
        let (draft, _) = self.records.draft(record)?;
        self.records.announce(&draft, record)?;
        crate::failpoint::reach("snapshot.commit.announced");
        files::sync_file_system(self.records.directory())?;
        crate::failpoint::reach("snapshot.commit.synced");
        let upper = self.records.work_of(key).0;
        self.shelf.fill(tree, layer, &upper)
    }

    /// In the turn of the layer, so that nobody who just found it loses it.
    pub(super) fn remove_layer_unless_used(&self, layer: &str) -> Result<()> {
        let _turn = self.turns.take(vec![layer_turn(layer)]);
        if self.records.uses_layer(layer) {
            return Ok(());
        }
        crate::failpoint::reach("snapshot.remove.layer_unused");
        self.shelf.remove(layer, &self.trash)
    }
}
