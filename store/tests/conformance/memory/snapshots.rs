//! `Snapshots` in memory.

use std::collections::HashMap;

use orlop_proto::error::{Kind, reason};
use orlop_proto::store as pb;
use orlop_proto::store::{Compression, SnapshotKind};
use orlop_store::layers::chain::chain_ids;
use tonic::{Request, Status, Streaming};

use super::content::digest_like;
use super::documents::Wanted;
use super::tars::{Extraction, compress, extract, pack, plain};
use super::tree::{self, Node, Path, Tree, text};
use super::{Answer, Answers, Memory, State, answer, answers, check_id, invalid, missing, now};
use super::{refuse, refuse_for, signed};

const FILE_BYTES_MAX: usize = 1 << 20;

#[derive(Clone)]
pub(super) struct Snapshot {
    pub(super) info: pb::SnapshotInfo,
    pub(super) tree: Tree,
    /// The tree of the parent.
    lower: Tree,
    /// The plain tar of the changes, once known.
    layer: Option<Vec<u8>>,
}

impl Snapshot {
    pub(super) fn kind(&self) -> SnapshotKind {
        self.info.kind()
    }

    /// Bytes of its own files.
    pub(super) fn bytes(&self) -> i64 {
        let changed = self.tree.changes(&self.lower);
        let sizes = changed
            .values()
            .map(|node| match node.map(|node| &node.kind) {
                Some(tree::Kind::File(bytes)) => signed(bytes.len()),
                _ => 0,
            });
        sizes.sum()
    }
}

fn wrong(key: &str, needed: &str) -> Status {
    refuse(
        Kind::FailedPrecondition,
        format!("snapshot {key} is not {needed}"),
    )
}

impl State {
    pub(super) fn snapshot(&self, key: &str) -> Result<&Snapshot, Status> {
        let snapshot = self.snapshots.get(key);
        snapshot.ok_or_else(|| missing("snapshot", key))
    }

    /// A snapshot that must be active.
    pub(super) fn active(&mut self, key: &str) -> Result<&mut Snapshot, Status> {
        let snapshot = self.snapshots.get_mut(key);
        let snapshot = snapshot.ok_or_else(|| missing("snapshot", key))?;
        match snapshot.kind() {
            SnapshotKind::Active => Ok(snapshot),
            _ => Err(wrong(key, "active")),
        }
    }

    fn check_free(&self, key: &str) -> Result<(), Status> {
        check_id(key)?;
        match self.snapshots.contains_key(key) {
            false => Ok(()),
            true => Err(refuse(
                Kind::AlreadyExists,
                format!("snapshot {key} exists"),
            )),
        }
    }

    fn child_of(&self, key: &str) -> Option<&str> {
        let mut all = self.snapshots.values();
        let child = all.find(|snapshot| snapshot.info.parent == key)?;
        Some(&child.info.key)
    }

    pub(super) fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    fn create(
        &mut self,
        request: pb::PrepareRequest,
        kind: SnapshotKind,
    ) -> Result<pb::SnapshotMount, Status> {
        self.check_free(&request.key)?;
        let lower = match request.parent.as_str() {
            "" => Tree::default(),
            parent => {
                let parent = self.snapshot(parent)?;
                if parent.kind() != SnapshotKind::Committed {
                    return Err(wrong(&request.parent, "committed"));
                }
                parent.tree.clone()
            }
        };
        self.check_lease(&request.lease)?;
        self.hold_snapshot(&request.lease, &request.key);
        let snapshot = Snapshot {
            info: info(&request.key, kind, &request.parent, request.labels),
            tree: lower.clone(),
            lower,
            layer: None,
        };
        self.snapshots.insert(request.key.clone(), snapshot);
        Ok(mount(request.key))
    }

    fn commit(&mut self, request: pb::CommitRequest) -> Result<pb::SnapshotInfo, Status> {
        check_id(&request.name)?;
        let parent = self.active(&request.key)?.info.parent.clone();
        self.check_free(&request.name)?;
        self.check_lease(&request.lease)?;
        self.hold_snapshot(&request.lease, &request.name);
        let Some(mut snapshot) = self.snapshots.remove(&request.key) else {
            return Err(missing("snapshot", &request.key));
        };
        let kind = SnapshotKind::Committed;
        snapshot.info = info(&request.name, kind, &parent, request.labels);
        self.snapshots.insert(request.name, snapshot.clone());
        Ok(snapshot.info)
    }

    /// Bytes of the files of an unpacked layer.
    pub(super) fn layer_bytes(&self, diff_id: &str) -> Option<i64> {
        let mut all = self.snapshots.values();
        let found = all.find(|snapshot| snapshot.info.diff_id == diff_id);
        found.map(Snapshot::bytes)
    }

    fn unpack(&mut self, request: &pb::UnpackRequest) -> Result<pb::UnpackResponse, Status> {
        let target = self.target(&request.digest)?;
        let single = self.pick(&target, &Wanted::or_host(None));
        // Without the image of this platform: what lacks, or is wrong with it.
        let Some(single) = single else {
            self.tree(&target)
                .map_err(|status| match Kind::of(status.code()) {
                    Kind::FailedPrecondition => missing("blob below", &request.digest),
                    _ => status,
                })?;
            return Err(missing("image for this platform", &request.digest));
        };
        let config = single.config.ok_or_else(|| invalid("not an image"))?;
        let diff_ids = config.rootfs().diff_ids();
        let names = chain_ids(diff_ids);
        self.check_lease(&request.lease)?;
        let mut made = Vec::new();
        let (mut response, mut lower, mut below) = (
            pb::UnpackResponse::default(),
            Tree::default(),
            String::new(),
        );
        let layers = single.manifest.layers().iter().zip(diff_ids).zip(&names);
        for ((layer, diff_id), name) in layers {
            if let Some(snapshot) = self.snapshots.get(name) {
                response.existed += 1;
                lower = snapshot.tree.clone();
            } else {
                let known = self
                    .snapshots
                    .values()
                    .any(|known| known.info.diff_id == *diff_id);
                response.existed += u32::from(known);
                response.unpacked += u32::from(!known);
                let tar = plain(&self.blob(layer.digest().as_ref())?.bytes)?;
                if digest_like("sha256", &tar) != *diff_id {
                    let reason = reason::DIGEST_MISMATCH;
                    return Err(refuse_for(Kind::InvalidArgument, reason, "another diff id"));
                }
                let snapshot = self.layer(name, &below, diff_id, lower, tar)?;
                lower = snapshot.tree.clone();
                made.push((name.clone(), snapshot));
            }
            below.clone_from(name);
        }
        self.snapshots.extend(made);
        self.hold_snapshot(&request.lease, &below);
        response.name = below;
        Ok(response)
    }

    fn layer(
        &mut self,
        name: &str,
        parent: &str,
        diff_id: &str,
        lower: Tree,
        tar: Vec<u8>,
    ) -> Result<Snapshot, Status> {
        let how = Extraction {
            dest: Path::new(),
            whiteouts: true,
            owner: None,
            serial: self.next_serial(),
        };
        let mut tree = lower.clone();
        extract(&mut tree, &tar, &how)?;
        let mut info = info(name, SnapshotKind::Committed, parent, HashMap::new());
        diff_id.clone_into(&mut info.diff_id);
        Ok(Snapshot {
            info,
            tree,
            lower,
            layer: Some(tar),
        })
    }

    fn diff(&mut self, request: &pb::DiffRequest) -> Result<pb::DiffResponse, Status> {
        let compression = Compression::try_from(request.compression);
        let compression = compression.map_err(|_| invalid("an unknown compression"))?;
        let snapshot = self.snapshot(&request.key)?;
        if snapshot.kind() == SnapshotKind::View {
            return Err(wrong(&request.key, "active or committed"));
        }
        let tar = match &snapshot.layer {
            Some(tar) => tar.clone(),
            None => pack(snapshot.tree.changes(&snapshot.lower).into_iter())?,
        };
        self.check_lease(&request.lease)?;
        let diff_id = digest_like("sha256", &tar);
        let blob = compress(&tar, compression)?;
        let (size, digest) = (signed(blob.len()), self.keep_made(blob));
        self.hold_blob(&request.lease, &digest);
        let empty = tar.iter().all(|byte| *byte == 0);
        if let Some(snapshot) = self.snapshots.get_mut(&request.key)
            && snapshot.kind() == SnapshotKind::Committed
        {
            snapshot.info.diff_id.clone_from(&diff_id);
            snapshot.layer = Some(tar);
        }
        let suffix = match compression {
            Compression::None => "",
            Compression::Zstd => "+zstd",
            Compression::Gzip | Compression::Unspecified => "+gzip",
        };
        let descriptor = orlop_proto::types::Descriptor {
            media_type: format!("application/vnd.oci.image.layer.v1.tar{suffix}"),
            digest,
            size,
            ..Default::default()
        };
        Ok(pb::DiffResponse {
            descriptor: Some(descriptor),
            diff_id,
            empty,
        })
    }

    fn rename(&mut self, request: &pb::RenameSnapshotRequest) -> Result<pb::SnapshotInfo, Status> {
        check_id(&request.new_key)?;
        if self.snapshot(&request.key)?.kind() == SnapshotKind::Committed {
            return Err(wrong(&request.key, "active or a view"));
        }
        self.check_free(&request.new_key)?;
        let Some(mut snapshot) = self.snapshots.remove(&request.key) else {
            return Err(missing("snapshot", &request.key));
        };
        snapshot.info.key.clone_from(&request.new_key);
        self.snapshots
            .insert(request.new_key.clone(), snapshot.clone());
        Ok(snapshot.info)
    }
}

fn info(
    key: &str,
    kind: SnapshotKind,
    parent: &str,
    labels: HashMap<String, String>,
) -> pb::SnapshotInfo {
    pb::SnapshotInfo {
        key: key.to_owned(),
        kind: kind.into(),
        parent: parent.to_owned(),
        created: Some(now()),
        labels,
        diff_id: String::new(),
    }
}

/// There is nothing to be mounted.
fn mount(key: String) -> pb::SnapshotMount {
    pb::SnapshotMount {
        key,
        ..Default::default()
    }
}

fn change(path: &Path, node: Option<&Node>, lower: &Tree) -> pb::Change {
    let kind = match (node.is_some(), lower.0.contains_key(path)) {
        (false, _) => pb::ChangeKind::Deleted,
        (true, false) => pb::ChangeKind::Added,
        (true, true) => pb::ChangeKind::Modified,
    };
    pb::Change {
        path: [b"/", text(path).as_slice()].concat().into(),
        kind: kind.into(),
    }
}

#[tonic::async_trait]
impl pb::snapshots_server::Snapshots for Memory {
    type ChangesStream = Answers<pb::Change>;
    type ListStream = Answers<pb::SnapshotInfo>;
    type ExportStream = Answers<pb::ExportSnapshotResponse>;

    async fn unpack(&self, request: Request<pb::UnpackRequest>) -> Answer<pb::UnpackResponse> {
        answer(self.lock().unpack(&request.into_inner())?)
    }

    async fn prepare(&self, request: Request<pb::PrepareRequest>) -> Answer<pb::SnapshotMount> {
        let kind = SnapshotKind::Active;
        answer(self.lock().create(request.into_inner(), kind)?)
    }

    async fn view(&self, request: Request<pb::PrepareRequest>) -> Answer<pb::SnapshotMount> {
        let kind = SnapshotKind::View;
        answer(self.lock().create(request.into_inner(), kind)?)
    }

    async fn get_mount(&self, request: Request<pb::GetMountRequest>) -> Answer<pb::SnapshotMount> {
        let key = request.into_inner().key;
        match self.lock().snapshot(&key)?.kind() {
            SnapshotKind::Committed => Err(wrong(&key, "active or a view")),
            _ => answer(mount(key)),
        }
    }

    async fn commit(&self, request: Request<pb::CommitRequest>) -> Answer<pb::SnapshotInfo> {
        answer(self.lock().commit(request.into_inner())?)
    }

    async fn diff(&self, request: Request<pb::DiffRequest>) -> Answer<pb::DiffResponse> {
        answer(self.lock().diff(&request.into_inner())?)
    }

    async fn changes(&self, request: Request<pb::ChangesRequest>) -> Answer<Self::ChangesStream> {
        let state = self.lock();
        let snapshot = state.snapshot(&request.into_inner().key)?;
        let changes = snapshot.tree.changes(&snapshot.lower);
        let changes = changes
            .iter()
            .map(|(path, node)| change(path, *node, &snapshot.lower));
        answers(changes.collect::<Vec<_>>())
    }

    async fn apply(
        &self,
        request: Request<Streaming<pb::ApplyRequest>>,
    ) -> Answer<pb::ApplyResponse> {
        let mut messages = request.into_inner();
        let mut key = None;
        let mut entries = 0;
        while let Some(message) = messages.message().await? {
            let key = key.get_or_insert(message.key);
            let mut state = self.lock();
            state.active(key)?;
            for operation in &message.ops {
                entries += state.perform(key, operation)?;
            }
        }
        match key {
            Some(_) => answer(pb::ApplyResponse { entries }),
            None => Err(invalid("the first message is missing")),
        }
    }

    async fn read_file(
        &self,
        request: Request<pb::ReadFileRequest>,
    ) -> Answer<pb::ReadFileResponse> {
        let request = request.into_inner();
        let state = self.lock();
        let tree = &state.snapshot(&request.key)?.tree;
        let at = tree.resolve(&Path::new(), &request.path, true)?;
        let node = tree.0.get(&at);
        match node.map(|node| &node.kind) {
            None if !at.is_empty() => Err(missing("file", &String::from_utf8_lossy(&request.path))),
            Some(tree::Kind::File(bytes)) if bytes.len() > FILE_BYTES_MAX => {
                Err(refuse(Kind::OutOfRange, "the file is larger than 1 MiB"))
            }
            Some(tree::Kind::File(bytes)) => answer(pb::ReadFileResponse {
                data: bytes.clone(),
            }),
            _ => Err(invalid("not a regular file")),
        }
    }

    async fn stat(&self, request: Request<pb::StatSnapshotRequest>) -> Answer<pb::SnapshotInfo> {
        let state = self.lock();
        answer(state.snapshot(&request.into_inner().key)?.info.clone())
    }

    async fn list(&self, _: Request<pb::ListSnapshotsRequest>) -> Answer<Self::ListStream> {
        let state = self.lock();
        let infos = state
            .snapshots
            .values()
            .map(|snapshot| snapshot.info.clone());
        answers(infos.collect::<Vec<_>>())
    }

    async fn usage(&self, request: Request<pb::UsageRequest>) -> Answer<pb::UsageResponse> {
        let state = self.lock();
        let snapshot = state.snapshot(&request.into_inner().key)?;
        let changes = snapshot.tree.changes(&snapshot.lower);
        let present = changes.values().filter(|node| node.is_some()).count();
        // And the root.
        let own = usize::from(snapshot.kind() != SnapshotKind::View);
        answer(pb::UsageResponse {
            bytes: snapshot.bytes(),
            inodes: signed(present + own),
        })
    }

    async fn rename(
        &self,
        request: Request<pb::RenameSnapshotRequest>,
    ) -> Answer<pb::SnapshotInfo> {
        answer(self.lock().rename(&request.into_inner())?)
    }

    async fn remove(
        &self,
        request: Request<pb::RemoveSnapshotRequest>,
    ) -> Answer<pb::RemoveSnapshotResponse> {
        let key = request.into_inner().key;
        let mut state = self.lock();
        if state.snapshots.contains_key(&key)
            && let Some(child) = state.child_of(&key)
        {
            let message = format!("{child} is built on snapshot {key}");
            return Err(refuse_for(
                Kind::FailedPrecondition,
                reason::IN_USE,
                message,
            ));
        }
        state.snapshots.remove(&key);
        answer(pb::RemoveSnapshotResponse {})
    }

    async fn export(
        &self,
        request: Request<pb::ExportSnapshotRequest>,
    ) -> Answer<Self::ExportStream> {
        let state = self.lock();
        let tree = &state.snapshot(&request.into_inner().key)?.tree;
        let tar = pack(tree.0.iter().map(|(path, node)| (path.clone(), Some(node))))?;
        let pieces = tar.chunks(1 << 20).map(|piece| pb::ExportSnapshotResponse {
            data: piece.to_vec().into(),
        });
        answers(pieces.collect::<Vec<_>>())
    }
}
