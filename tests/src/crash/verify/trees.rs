//! Snapshots: every one that must be there is, once, with its files; none has lost its parent.

use std::collections::BTreeMap;

use orlop_proto::store::{
    Compression, DiffRequest, GetMountRequest, ListSnapshotsRequest, ReadFileRequest, SnapshotInfo,
    SnapshotKind, UnpackRequest, UsageRequest,
};

use super::{Outcome, Verifier};
use crate::crash::journal::{Register, Tree, settle};
use crate::crash::material::Image;
use crate::crash::real;

/// Files of a tree that are read each time.
const FILES: usize = 3;

impl Verifier<'_> {
    pub(super) async fn trees(&mut self) -> Outcome {
        let seen = self.listed().await?;
        self.whole(&seen).await?;
        self.moved(&seen);
        let trees = self.journal.facts().trees.clone();
        for (key, register) in &trees {
            let found = seen.get(&real(key));
            let tree = self.found_as(key, register, found);
            if let Some(tree) = &tree {
                if tree.committed && !register.is_certain() {
                    let shared = key.split_once('|').map(|(lease, _)| lease);
                    let lease = shared.unwrap_or_else(|| owner(key));
                    self.adopt(lease, &format!("snapshot {}", real(key)))
                        .await?;
                }
                self.files_of(key, tree).await?;
                self.told_again(key, tree).await?;
            }
            settle(&mut self.journal.facts().trees, key, tree);
            self.verified();
        }
        for key in seen.keys().filter(|key| !key.starts_with("sha256:")) {
            if !trees.contains_key(key) {
                self.violate(format!("snapshot {key} was never made"));
            }
        }
        Ok(())
    }

    async fn listed(&mut self) -> Outcome<BTreeMap<String, SnapshotInfo>> {
        let request = ListSnapshotsRequest {};
        let mut stream = self.clients.snapshots.list(request).await?.into_inner();
        let mut seen = BTreeMap::new();
        while let Some(info) = stream.message().await? {
            seen.insert(info.key.clone(), info);
        }
        Ok(seen)
    }

    /// No snapshot is shown that cannot be used.
    async fn whole(&mut self, seen: &BTreeMap<String, SnapshotInfo>) -> Outcome {
        for (key, info) in seen {
            let parent = seen.get(&info.parent);
            let committed = parent.is_some_and(is_committed);
            if !info.parent.is_empty() && !committed {
                self.violate(format!(
                    "snapshot {key} has lost its parent {}",
                    info.parent
                ));
                continue;
            }
            let request = UsageRequest { key: key.clone() };
            if let Err(status) = self.clients.snapshots.usage(request).await {
                self.violate(format!("snapshot {key} cannot be read: {status:?}"));
            }
        }
        Ok(())
    }

    /// A commit or a rename that was cut short is one or the other.
    fn moved(&self, seen: &BTreeMap<String, SnapshotInfo>) {
        let moves = std::mem::take(&mut self.journal.facts().moves);
        for (from, to) in moves {
            if seen.contains_key(&from) == seen.contains_key(&to) {
                let both = seen.contains_key(&from);
                self.violate(format!("{from} was made into {to}: both there is {both}"));
            }
        }
    }

    /// Which of the allowed trees was found.
    fn found_as(
        &self,
        key: &str,
        register: &Register<Tree>,
        found: Option<&SnapshotInfo>,
    ) -> Option<Tree> {
        let Some(info) = found else {
            if register.is_certain() {
                self.violate(format!("snapshot {key} is lost"));
            }
            return None;
        };
        if register.is_absent() {
            // A layer that others hold too stays.
            if !key.contains('|') {
                self.violate(format!("snapshot {key} is there again"));
            }
            return None;
        }
        let fits = |tree: &&Tree| {
            let shared = key.contains('|');
            tree.committed == is_committed(info) && (shared || tree.parent == info.parent)
        };
        let mut fitting = register.allowed().flatten().filter(fits);
        let Some(first) = fitting.next() else {
            self.violate(format!("snapshot {key} is {info:?}"));
            return None;
        };
        let mut tree = first.clone();
        for other in fitting {
            tree.files
                .retain(|path, content| other.files.get(path) == Some(content));
        }
        // What is written into an active snapshot is durable when it is committed.
        if self.after_power_cut && !tree.committed {
            tree.files.clear();
        }
        Some(tree)
    }

    async fn files_of(&mut self, key: &str, tree: &Tree) -> Outcome {
        if !tree.committed {
            let request = GetMountRequest { key: real(key) };
            let mount = self
                .clients
                .snapshots
                .get_mount(request)
                .await?
                .into_inner();
            let upper = std::path::Path::new(&mount.upper);
            if !upper.is_dir() {
                self.violate(format!("snapshot {key} has no upper directory"));
            }
        }
        let files: Vec<_> = tree.files.iter().collect();
        for _ in 0..FILES.min(files.len()) {
            let (path, content) = self.chance.pick(&files).copied().unwrap();
            self.file_of(key, path, content).await;
        }
        Ok(())
    }

    /// An image gives its files, whether its layers are unpacked now, or were before the blow: while
    /// they arrived, and for nobody yet.
    pub(super) async fn unpacked(&mut self, image: &Image) -> Outcome {
        let request = UnpackRequest {
            digest: image.manifest.digest.clone(),
            lease: String::new(),
        };
        self.clients.snapshots.unpack(request).await?;
        let key = image.chain_id();
        for (path, content) in image.files() {
            self.file_of(&key, &path, &content).await;
        }
        Ok(())
    }

    async fn file_of(&mut self, key: &str, path: &str, content: &[u8]) {
        let request = ReadFileRequest {
            key: real(key),
            path: format!("/{path}").into(),
        };
        match self.clients.snapshots.read_file(request).await {
            Ok(answer) if answer.get_ref().data == *content => {}
            Ok(_) => self.violate(format!("{path} in {key} has wrong bytes")),
            Err(status) => self.violate(format!("{path} in {key} is lost: {status:?}")),
        }
        self.verified();
    }

    /// The whole content of a committed tree, as the digest of its tar.
    async fn told_again(&mut self, key: &str, tree: &Tree) -> Outcome {
        let Some(diff_id) = tree.diff_id.as_ref().filter(|_| self.chance.one_in(2)) else {
            return Ok(());
        };
        let request = DiffRequest {
            key: real(key),
            compression: Compression::None.into(),
            lease: String::new(),
        };
        let answer = self.clients.snapshots.diff(request).await?.into_inner();
        if answer.diff_id != *diff_id {
            self.violate(format!("{key} has another diff id than before"));
        }
        self.verified();
        Ok(())
    }
}

/// The worker whose name a key begins with.
fn owner(key: &str) -> &str {
    key.rsplit_once('-').map_or(key, |(owner, _)| owner)
}

fn is_committed(info: &SnapshotInfo) -> bool {
    info.kind == i32::from(SnapshotKind::Committed)
}
