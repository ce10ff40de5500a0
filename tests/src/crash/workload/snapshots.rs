//! File trees: unpacked, prepared, written to, committed, told apart, renamed, removed.

use orlop_proto::store::file_op::Op;
use orlop_proto::store::{
    ApplyRequest, CommitRequest, Compression, CopyEntries, DiffRequest, Entry, EntryKind, FileOp,
    PrepareRequest, RemoveSnapshotRequest, RenameSnapshotRequest, UnpackRequest,
};

use super::{Step, Worker};
use crate::crash::journal::{Facts, Tree, acknowledge, begin, present, refuse};
use crate::crash::material::Blob;

/// Trees that a worker has.
const TREES_MAX: usize = 8;

impl Worker {
    pub(super) async fn snapshots(mut self) {
        while {
            let step = self.tree_step().await;
            self.goes_on("grow trees", step)
        } {}
    }

    async fn tree_step(&mut self) -> Step {
        self.own_lease().await?;
        let own = self.own_trees();
        let active: Vec<_> = own
            .iter()
            .filter(|(_, tree)| !tree.committed)
            .cloned()
            .collect();
        let committed: Vec<_> = own
            .iter()
            .filter(|(_, tree)| tree.committed)
            .cloned()
            .collect();
        if own.len() > TREES_MAX {
            return self.fell(&own).await;
        }
        match (self.chance.below(12), self.chance.pick(&active).cloned()) {
            (0, _) => self.unpack().await,
            (1..=3, Some((key, tree))) => self.write_into(&key, tree).await,
            (4 | 5, Some((key, tree))) => self.commit(&key, tree).await,
            (6, Some((key, tree))) => self.rename(&key, tree).await,
            (7, Some((key, _))) => self.remove(&key).await,
            (8, _) => self.fell(&own).await,
            (9, _) => self.diff_one(&committed).await,
            _ => self.prepare(&committed).await,
        }
    }

    fn own_trees(&self) -> Vec<(String, Tree)> {
        let facts = self.journal.facts();
        let keys = present(&facts.trees, &self.name);
        let with_tree = |key: String| Some((key.clone(), facts.trees.get(&key)?.get()?.clone()));
        keys.into_iter().filter_map(with_tree).collect()
    }

    /// The layers of an image; they are held, but shared with others, so that they are facts only for
    /// as long as the worker's lease holds them.
    async fn unpack(&mut self) -> Step {
        let image = self.shelf.image(&mut self.chance);
        self.send(&image).await?;
        let top = image.chain_id();
        let held = self.held_with([format!("snapshot {top}")]);
        let key = format!("{}|{top}", self.name);
        let tree = Tree {
            committed: true,
            files: image.files(),
            ..Tree::default()
        };
        let request = UnpackRequest {
            digest: image.manifest.digest.clone(),
            lease: self.name.clone(),
        };
        self.change(
            |facts| {
                begin(&mut facts.leases, &self.name, Some(held.clone()));
                begin(&mut facts.trees, &key, Some(tree.clone()));
            },
            self.clients.snapshots.clone().unpack(request),
            |facts, _| {
                acknowledge(&mut facts.leases, &self.name, Some(held.clone()));
                acknowledge(&mut facts.trees, &key, Some(tree.clone()));
            },
            |facts| {
                refuse(&mut facts.leases, &self.name);
                refuse(&mut facts.trees, &key);
            },
        )
        .await?;
        let blobs: Vec<String> = image.blobs().into_iter().map(|blob| blob.digest).collect();
        self.release(&blobs).await
    }

    async fn prepare(&mut self, parents: &[(String, Tree)]) -> Step {
        let key = self.fresh();
        let parent = self.chance.pick(parents).cloned();
        let tree = Tree {
            committed: false,
            parent: parent
                .as_ref()
                .map(|(key, _)| real(key))
                .unwrap_or_default(),
            files: parent.map(|(_, tree)| tree.files).unwrap_or_default(),
            diff_id: None,
        };
        let held = self.held_with([format!("snapshot {key}")]);
        let request = PrepareRequest {
            key: key.clone(),
            parent: tree.parent.clone(),
            lease: self.name.clone(),
            ..Default::default()
        };
        self.change(
            |facts| {
                begin(&mut facts.leases, &self.name, Some(held.clone()));
                begin(&mut facts.trees, &key, Some(tree.clone()));
            },
            self.clients.snapshots.clone().prepare(request),
            |facts, _| {
                acknowledge(&mut facts.leases, &self.name, Some(held.clone()));
                acknowledge(&mut facts.trees, &key, Some(tree.clone()));
            },
            |facts| {
                refuse(&mut facts.leases, &self.name);
                refuse(&mut facts.trees, &key);
            },
        )
        .await
        .map(drop)
    }

    async fn write_into(&mut self, key: &str, tree: Tree) -> Step {
        let size = usize::try_from(self.chance.below(40 << 10)).unwrap();
        let blob = Blob::new(self.chance.bytes(size));
        self.put_many(std::slice::from_ref(&blob)).await?;
        let directory = self.chance.below(3);
        let path = format!("w{directory}/{}", self.fresh());
        let mut after = tree;
        after.files.insert(path.clone(), blob.bytes.to_vec());
        let request = ApplyRequest {
            key: key.to_owned(),
            ops: vec![copy_of(&blob, &path)],
        };
        self.change(
            |facts| begin(&mut facts.trees, key, Some(after.clone())),
            self.clients
                .snapshots
                .clone()
                .apply(tokio_stream::once(request)),
            |facts, _| acknowledge(&mut facts.trees, key, Some(after.clone())),
            |facts| refuse(&mut facts.trees, key),
        )
        .await?;
        self.release(&[blob.digest]).await
    }

    async fn commit(&mut self, key: &str, tree: Tree) -> Step {
        let name = self.fresh();
        let held = self.held_with([format!("snapshot {name}")]);
        let after = Tree {
            committed: true,
            ..tree
        };
        let request = CommitRequest {
            key: key.to_owned(),
            name: name.clone(),
            lease: self.name.clone(),
            ..Default::default()
        };
        let snapshots = self.clients.snapshots.clone();
        self.move_to((key, &name), after, held, async move {
            let mut snapshots = snapshots;
            snapshots.commit(request).await
        })
        .await
    }

    async fn rename(&mut self, key: &str, tree: Tree) -> Step {
        let name = self.fresh();
        let request = RenameSnapshotRequest {
            key: key.to_owned(),
            new_key: name.clone(),
        };
        let snapshots = self.clients.snapshots.clone();
        let held = self.held();
        self.move_to((key, &name), tree, held, async move {
            let mut snapshots = snapshots;
            snapshots.rename(request).await
        })
        .await
    }

    /// A request after which a tree is under another key, and never under both or none.
    async fn move_to<T>(
        &self,
        (key, name): (&str, &str),
        after: Tree,
        held: std::collections::BTreeSet<String>,
        request: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Step {
        let this = (key.to_owned(), name.to_owned());
        self.change(
            |facts| {
                begin(&mut facts.leases, &self.name, Some(held.clone()));
                begin(&mut facts.trees, key, None);
                begin(&mut facts.trees, name, Some(after.clone()));
                facts.moves.push(this.clone());
            },
            request,
            |facts, _| {
                acknowledge(&mut facts.leases, &self.name, Some(held.clone()));
                acknowledge(&mut facts.trees, key, None);
                acknowledge(&mut facts.trees, name, Some(after.clone()));
                facts.moves.retain(|other| *other != this);
            },
            |facts| {
                refuse(&mut facts.leases, &self.name);
                refuse(&mut facts.trees, key);
                refuse(&mut facts.trees, name);
                facts.moves.retain(|other| *other != this);
            },
        )
        .await
        .map(drop)
    }

    /// Of trees that were made here: what was unpacked is told from its blob, for as long as that is here.
    async fn diff_one(&mut self, committed: &[(String, Tree)]) -> Step {
        let made: Vec<_> = committed
            .iter()
            .filter(|(key, _)| !key.contains('|'))
            .collect();
        match self.chance.pick(&made).copied().cloned() {
            Some((key, tree)) => self.diff(&key, tree).await,
            None => self.prepare(committed).await,
        }
    }

    /// The tar of a tree's changes is the same for good, in every compression.
    async fn diff(&mut self, key: &str, tree: Tree) -> Step {
        let all = [Compression::None, Compression::Gzip, Compression::Zstd];
        let compression = *self.chance.pick(&all).unwrap();
        let request = DiffRequest {
            key: real(key),
            compression: compression.into(),
            lease: String::new(),
        };
        let answer = self.clients.snapshots.clone().diff(request).await;
        let diff_id = self.sort(answer)?.diff_id;
        if tree.diff_id.as_ref().is_some_and(|known| *known != diff_id) {
            self.journal
                .violate(format!("{key} has another diff id than before"));
        }
        let told = Tree {
            diff_id: Some(diff_id),
            ..tree
        };
        acknowledge(&mut self.journal.facts().trees, key, Some(told));
        Ok(())
    }

    /// Removes trees that nothing is built on, or lets go of shared ones.
    async fn fell(&mut self, own: &[(String, Tree)]) -> Step {
        let is_parent = |key: &str| own.iter().any(|(_, tree)| tree.parent == real(key));
        let leaves: Vec<_> = own.iter().filter(|(key, _)| !is_parent(key)).collect();
        let Some((key, _)) = self.chance.pick(&leaves).copied() else {
            return Ok(());
        };
        if key.contains('|') {
            self.journal.facts().trees.remove(key);
            return self.release(&[format!("snapshot {}", real(key))]).await;
        }
        self.remove(key).await
    }

    async fn remove(&self, key: &str) -> Step {
        let request = RemoveSnapshotRequest {
            key: key.to_owned(),
        };
        self.change(
            |facts: &mut Facts| begin(&mut facts.trees, key, None),
            self.clients.snapshots.clone().remove(request),
            |facts, _| acknowledge(&mut facts.trees, key, None),
            |facts| refuse(&mut facts.trees, key),
        )
        .await?;
        let name = format!("snapshot {key}");
        if self.held().contains(&name) {
            self.release(&[name]).await?;
        }
        Ok(())
    }
}

/// A shared tree is a fact of several workers: its key has the worker's name before it.
pub(in crate::crash) fn real(key: &str) -> String {
    key.split('|').next_back().unwrap_or(key).to_owned()
}

fn copy_of(blob: &Blob, path: &str) -> FileOp {
    let (directory, file) = path.rsplit_once('/').unwrap();
    let entry = Entry {
        path: file.to_owned().into(),
        kind: EntryKind::File.into(),
        mode: 0o644,
        digest: blob.digest.clone(),
        ..Default::default()
    };
    let copy = CopyEntries {
        dest: format!("/{directory}").into(),
        dest_is_dir: true,
        entries: vec![entry],
        ..Default::default()
    };
    FileOp {
        op: Some(Op::CopyEntries(copy)),
    }
}
