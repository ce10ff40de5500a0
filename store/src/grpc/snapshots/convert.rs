//! Between the contract's messages and the store's own types.

use std::path::Path;

use orlop_proto::store::file_op::Op;
use orlop_proto::store::{
    Change, ChangeKind, Compression, DiffResponse, EntryKind, FileOp, Owner, SnapshotInfo,
    SnapshotKind, SnapshotMount,
};
use orlop_proto::types::Descriptor;
use prost_types::Timestamp;

use crate::error::{Result, StoreError};
use crate::layers::compress::Codec;
use crate::layers::tar::Time;
use crate::snapshots::apply::{Content, Entry, Operation};
use crate::snapshots::copy::SnapshotCopy;
use crate::snapshots::diff;
use crate::snapshots::overlay::Stack;
use crate::snapshots::record::{Kind, Packed, Record};

pub(super) fn info(record: Record) -> SnapshotInfo {
    let kind = match record.kind {
        Kind::Active => SnapshotKind::Active,
        Kind::View => SnapshotKind::View,
        Kind::Committed => SnapshotKind::Committed,
    };
    SnapshotInfo {
        key: record.key,
        kind: kind.into(),
        parent: record.parent.unwrap_or_default(),
        created: Some(Timestamp {
            seconds: record.created.as_second(),
            nanos: record.created.subsec_nanosecond(),
        }),
        labels: record.labels,
        diff_id: record.diff_id.unwrap_or_default(),
    }
}

/// Paths of the store are UTF-8 if its root is; of another root they are shown with substitutes.
pub(super) fn mount(record: &Record, stack: Stack) -> SnapshotMount {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let (upper, work) = stack.upper.unwrap_or_default();
    SnapshotMount {
        key: record.key.clone(),
        lower: stack.lower.iter().map(|path| text(path)).collect(),
        upper: text(&upper),
        work: text(&work),
    }
}

pub(super) fn codec(compression: i32) -> Result<Codec> {
    match Compression::try_from(compression) {
        Ok(Compression::Unspecified | Compression::Gzip) => Ok(Codec::Gzip),
        Ok(Compression::None) => Ok(Codec::None),
        Ok(Compression::Zstd) => Ok(Codec::Zstd),
        Err(_) => Err(StoreError::Request("an unknown compression")),
    }
}

pub(super) fn diff(packed: Packed, diff_id: String, codec: Codec) -> DiffResponse {
    DiffResponse {
        descriptor: Some(Descriptor {
            media_type: codec.media_type().to_owned(),
            digest: packed.digest,
            size: i64::try_from(packed.size).unwrap_or(i64::MAX),
            ..Descriptor::default()
        }),
        diff_id,
        empty: packed.empty,
    }
}

pub(super) fn change(change: diff::Change) -> Change {
    let kind = match change.kind {
        diff::ChangeKind::Modified => ChangeKind::Modified,
        diff::ChangeKind::Added => ChangeKind::Added,
        diff::ChangeKind::Deleted => ChangeKind::Deleted,
    };
    Change {
        path: change.path.into(),
        kind: kind.into(),
    }
}

pub(super) fn operation(operation: FileOp) -> Result<Operation> {
    let missing = StoreError::Request("a file operation without its kind");
    Ok(match operation.op.ok_or(missing)? {
        Op::Mkdir(mkdir) => Operation::Mkdir {
            path: mkdir.path.into(),
            mode: mkdir.mode,
            owner: owner(mkdir.owner),
            mtime: mkdir.mtime.as_ref().map(time).transpose()?,
        },
        Op::CopyEntries(copy) => Operation::CopyEntries {
            dest: copy.dest.into(),
            dest_is_dir: copy.dest_is_dir,
            entries: copy.entries.into_iter().map(entry).collect::<Result<_>>()?,
            owner: owner(copy.owner),
            mode: copy.mode,
        },
        Op::CopySnapshot(copy) => Operation::CopySnapshot(SnapshotCopy {
            from: copy.from,
            sources: copy.sources.into_iter().map(Into::into).collect(),
            dest: copy.dest.into(),
            dest_is_dir: copy.dest_is_dir,
            owner: owner(copy.owner),
            mode: copy.mode,
            exclude: copy.exclude,
            keep_links: copy.keep_links,
        }),
        Op::Extract(extract) => Operation::Extract {
            digest: extract.digest,
            dest: extract.dest.into(),
            owner: owner(extract.owner),
        },
        Op::Remove(remove) => Operation::Remove {
            path: remove.path.into(),
        },
    })
}

fn owner(owner: Option<Owner>) -> String {
    owner.map(|owner| owner.spec).unwrap_or_default()
}

fn entry(entry: orlop_proto::store::Entry) -> Result<Entry> {
    let content = match EntryKind::try_from(entry.kind) {
        Ok(EntryKind::File) => Content::File(entry.digest),
        Ok(EntryKind::Directory) => Content::Directory,
        Ok(EntryKind::Symlink) => Content::Symlink(entry.link_target.into()),
        _ => return Err(StoreError::Request("an entry of an unknown kind")),
    };
    Ok(Entry {
        path: entry.path.into(),
        content,
        mode: entry.mode,
        mtime: entry.mtime.as_ref().map_or(Ok(Time::default()), time)?,
    })
}

fn time(time: &Timestamp) -> Result<Time> {
    let nanos = u32::try_from(time.nanos)
        .ok()
        .filter(|nanos| *nanos < 1_000_000_000);
    Ok(Time {
        seconds: time.seconds,
        nanos: nanos.ok_or(StoreError::Request("a time with wrong nanoseconds"))?,
    })
}
