//! What can go wrong in the store, and what it is on the wire.

use std::io;
use std::path::{Path, PathBuf};

use orlop_proto::descriptor::DescriptorError;
use orlop_proto::dockerignore::PatternError;
use orlop_proto::error::{Classify, Kind, reason};
use orlop_proto::reference::ReferenceError;
use rustix::io::Errno;

use crate::manifest::ManifestError;

/// One variant per cause.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The system refused something on a path of ours.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process has this state directory open.
    #[error("another store uses {} already", path.display())]
    Locked {
        /// The state directory.
        path: PathBuf,
    },
    /// A file of the store's own that cannot be understood.
    #[error("damaged file {}", path.display())]
    DamagedFile {
        /// Which.
        path: PathBuf,
        /// What the parser said.
        source: serde_json::Error,
    },

    /// An ingest, lease or snapshot id that is not one.
    #[error(
        "malformed {what} id {id:?}: expected 1 to 128 characters of [A-Za-z0-9._:-], the first one \
         alphanumeric"
    )]
    MalformedId {
        /// `ingest`, `lease`, `snapshot`.
        what: &'static str,
        /// What was given, cut.
        id: String,
    },
    /// A request that lacks or misplaces something.
    #[error("malformed request: {0}")]
    Request(&'static str),
    /// A malformed digest or descriptor.
    #[error(transparent)]
    Descriptor(#[from] DescriptorError),
    /// A malformed reference.
    #[error(transparent)]
    Reference(#[from] ReferenceError),

    /// No such blob.
    #[error("no such blob: {digest}")]
    BlobNotFound {
        /// Its digest.
        digest: String,
    },
    /// Layers are to be kept as images, and the kernel cannot mount one.
    #[error("layers cannot be kept as EROFS images here")]
    NoImages {
        /// What the kernel said.
        source: Box<Self>,
    },
    /// The bytes of a blob on disk are not what its name says.
    #[error("blob {digest} is damaged on disk: {detail}")]
    BlobDamaged {
        /// Its digest.
        digest: String,
        /// What is wrong.
        detail: String,
    },
    /// A blob that must be read into memory, and is too large for that.
    #[error("blob {digest} has {size} bytes, more than the {max} that are read into memory")]
    BlobTooLarge {
        /// Its digest.
        digest: String,
        /// Its size, bytes.
        size: u64,
        /// The limit, bytes.
        max: u64,
    },
    /// A range beyond the end of a blob.
    #[error("blob {digest} has {size} bytes; a range from {offset} is beyond its end")]
    RangeBeyondEnd {
        /// Its digest.
        digest: String,
        /// Its size, bytes.
        size: u64,
        /// The first byte asked for.
        offset: i64,
    },
    /// Bytes that are not what the writer said they are.
    #[error("the bytes have digest {actual}, not {expected} as was said")]
    DigestMismatch {
        /// What was said.
        expected: String,
        /// What the bytes have.
        actual: String,
    },
    /// Not as many bytes as was said.
    #[error("{what} has {actual} bytes, not {expected} as was said")]
    SizeMismatch {
        /// Which bytes.
        what: String,
        /// What was said.
        expected: i64,
        /// What there is.
        actual: u64,
    },
    /// Something that still needs the blob.
    #[error("blob {digest} is in use by {holder}")]
    BlobInUse {
        /// Its digest.
        digest: String,
        /// For example ``image docker.io/library/a:latest``.
        holder: String,
    },
    /// Paths are for callers on this host.
    #[error("the path of a blob is told only to callers on the Unix socket of the same host")]
    NotLocal,

    /// No such ingest.
    #[error("no such ingest: {id}")]
    IngestNotFound {
        /// Its id.
        id: String,
    },
    /// Another writer has the ingest.
    #[error("ingest {id} has another writer now")]
    IngestBusy {
        /// Its id.
        id: String,
    },
    /// A writer that does not go on where the earlier one ended.
    #[error("ingest {id} goes on at offset {durable}, not at {offset}")]
    WrongOffset {
        /// Its id.
        id: String,
        /// What the writer said.
        offset: i64,
        /// Where the durable bytes end.
        durable: u64,
    },
    /// The disk is nearly full.
    #[error("the disk has {free} bytes left, of which {reserve} are kept in reserve")]
    DiskReserve {
        /// Bytes free for us.
        free: u64,
        /// Bytes of the reserve.
        reserve: u64,
    },

    /// No such image.
    #[error("no such image: {name}")]
    ImageNotFound {
        /// What was asked for.
        name: String,
    },
    /// The image is here, but not for this platform.
    #[error("image {name} has no manifest here for platform {platform}")]
    PlatformNotFound {
        /// The image.
        name: String,
        /// `os/architecture[/variant]`.
        platform: String,
    },
    /// A prefix that fits several image ids.
    #[error("image id {prefix} is ambiguous: it fits {count} images")]
    AmbiguousImage {
        /// What was typed.
        prefix: String,
        /// How many it fits.
        count: usize,
    },
    /// A compare-and-swap that lost.
    #[error("image {name} {actual}, not {expected} as was expected")]
    ImageMoved {
        /// Its name.
        name: String,
        /// `is absent`, or `points at sha256:…`.
        actual: String,
        /// What the caller expected.
        expected: String,
    },
    /// A blob of an image's tree that is not here.
    #[error("image {name} is not complete: {digest} is not in the store")]
    ChildMissing {
        /// The image.
        name: String,
        /// The missing blob.
        digest: String,
    },
    /// A manifest, an index or a configuration that is not one.
    #[error("{subject} is not acceptable")]
    Manifest {
        /// Its digest, or its name in an archive.
        subject: String,
        /// Why.
        source: ManifestError,
    },

    /// No such lease.
    #[error("no such lease: {id}")]
    LeaseNotFound {
        /// Its id.
        id: String,
    },

    /// An archive that is not one, or breaks a limit.
    #[error("malformed archive: {0}")]
    Archive(String),
    /// An entry of an archive that is not acceptable.
    #[error("malformed archive: {entry:?}: {problem}")]
    ArchiveEntry {
        /// The entry's path, cut.
        entry: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The client stopped sending or receiving.
    #[error("the client went away")]
    ClientGone,

    /// A layer or archive whose tar is not one.
    #[error("malformed tar: {reason}")]
    Tar {
        /// What is wrong.
        reason: String,
    },
    /// The bytes of a layer or archive do not come, or do not decompress.
    #[error("cannot read {what}")]
    TarRead {
        /// What was read.
        what: &'static str,
        /// What the system or the decompressor said.
        source: io::Error,
    },
    /// A compression that is known and not built.
    #[error("the archive is compressed with {name}, which orlop does not read: use gzip or zstd")]
    Compression {
        /// Which.
        name: &'static str,
    },
    /// A layer or archive beyond the cap on plain bytes.
    #[error("the archive has more than {limit} bytes when it is decompressed")]
    LayerTooLarge {
        /// The cap, bytes.
        limit: u64,
    },
    /// A decompression bomb.
    #[error("the archive has more than {ratio} bytes for each compressed one")]
    LayerRatio {
        /// The cap.
        ratio: u64,
    },
    /// A layer that is not what the image's configuration says.
    #[error("layer {digest} has diff id {actual}, not {expected} as the configuration says")]
    DiffId {
        /// Of the blob.
        digest: String,
        /// What the configuration says.
        expected: String,
        /// What the plain tar has.
        actual: String,
    },
    /// The system refused something within a tree.
    #[error("cannot {action} {path:?}")]
    Tree {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what, within its tree.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// No such snapshot.
    #[error("no such snapshot: {key}")]
    SnapshotNotFound {
        /// Its key or name.
        key: String,
    },
    /// The key or name is taken.
    #[error("snapshot {key} exists already")]
    SnapshotExists {
        /// Its key or name.
        key: String,
    },
    /// Something is built on the snapshot.
    #[error("snapshot {key} is in use: {child} is built on it")]
    SnapshotInUse {
        /// Its key or name.
        key: String,
        /// What needs it.
        child: String,
    },
    /// A snapshot of the wrong kind for the request.
    #[error("snapshot {key} is {is}; it must be {needed}")]
    SnapshotKind {
        /// Its key or name.
        key: String,
        /// `active`, `a view`, `committed`.
        is: &'static str,
        /// The same.
        needed: &'static str,
    },
    /// No such path in a snapshot.
    #[error("no such file or directory in snapshot {key}: {path}")]
    PathNotFound {
        /// The snapshot.
        key: String,
        /// The path, or the pattern that nothing fits.
        path: String,
    },
    /// A path that is not what the operation needs.
    #[error("{path}: {problem}")]
    Path {
        /// Within the snapshot.
        path: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A file that is too large to be answered in one message.
    #[error("{path} has {size} bytes, more than the {max} that are read at once")]
    FileTooLarge {
        /// Within the snapshot.
        path: String,
        /// Bytes.
        size: u64,
        /// Bytes.
        max: u64,
    },
    /// An owner that is not one, or is not known in the snapshot.
    #[error("owner {spec:?}: {problem}")]
    Owner {
        /// What was given.
        spec: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A layer with more names than its tree may have in memory.
    #[error("the layer's names, links and attributes need more than {limit} bytes of memory")]
    LayerTree {
        /// The cap, bytes.
        limit: usize,
    },
    /// A reader of changes that did not keep up.
    #[error("the watch is too far behind: changes of names are lost to it")]
    WatchBehind,
    /// The disk has few files left to make.
    #[error("the disk has {free} inodes left, of which {reserve} are kept in reserve")]
    InodeReserve {
        /// Inodes free for us.
        free: u64,
        /// Inodes of the reserve.
        reserve: u64,
    },
    /// The file of a name was damaged while the store runs.
    #[error("the file of the image name {name} is damaged: {detail}")]
    NameDamaged {
        /// The name.
        name: String,
        /// What is wrong.
        detail: String,
    },
    /// A pattern of paths that is not one.
    #[error(transparent)]
    Pattern(#[from] PatternError),
}

/// What fallible functions of this crate answer.
pub type Result<T> = std::result::Result<T, StoreError>;

impl StoreError {
    /// Makes the error of a system call on a path: `.map_err(StoreError::io("open", path))`.
    pub fn io<E: Into<io::Error>>(
        action: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::Io {
            action,
            path: path.as_ref().to_owned(),
            source: source.into(),
        }
    }
}

impl Classify for StoreError {
    fn kind(&self) -> Kind {
        match self {
            Self::Io { source, .. } => io_kind(source),
            Self::Locked { .. } => Kind::Unavailable,
            Self::DamagedFile { .. } => Kind::Internal,
            Self::MalformedId { .. }
            | Self::Request(_)
            | Self::Descriptor(_)
            | Self::Reference(_)
            | Self::DigestMismatch { .. }
            | Self::SizeMismatch { .. }
            | Self::BlobTooLarge { .. }
            | Self::Manifest { .. }
            | Self::Archive(_)
            | Self::ArchiveEntry { .. }
            | Self::Tar { .. }
            | Self::TarRead { .. }
            | Self::Compression { .. }
            | Self::LayerTooLarge { .. }
            | Self::LayerTree { .. }
            | Self::LayerRatio { .. }
            | Self::DiffId { .. }
            | Self::Path { .. }
            | Self::Owner { .. }
            | Self::Pattern(_) => Kind::InvalidArgument,
            Self::Tree { source, .. } => tree_kind(source),
            Self::SnapshotExists { .. } => Kind::AlreadyExists,
            Self::FileTooLarge { .. } => Kind::OutOfRange,
            Self::BlobNotFound { .. }
            | Self::IngestNotFound { .. }
            | Self::ImageNotFound { .. }
            | Self::PlatformNotFound { .. }
            | Self::LeaseNotFound { .. }
            | Self::SnapshotNotFound { .. }
            | Self::PathNotFound { .. } => Kind::NotFound,
            Self::BlobDamaged { .. } | Self::NameDamaged { .. } => Kind::DataLoss,
            Self::RangeBeyondEnd { .. } | Self::WrongOffset { .. } => Kind::OutOfRange,
            Self::BlobInUse { .. }
            | Self::NotLocal
            | Self::NoImages { .. }
            | Self::AmbiguousImage { .. }
            | Self::ChildMissing { .. }
            | Self::SnapshotInUse { .. }
            | Self::SnapshotKind { .. } => Kind::FailedPrecondition,
            Self::IngestBusy { .. } | Self::ImageMoved { .. } | Self::WatchBehind => Kind::Aborted,
            Self::DiskReserve { .. } | Self::InodeReserve { .. } => Kind::ResourceExhausted,
            Self::ClientGone => Kind::Cancelled,
        }
    }

    fn reason(&self) -> Option<&'static str> {
        match self {
            Self::AmbiguousImage { .. } => Some(reason::AMBIGUOUS_PREFIX),
            Self::ImageNotFound { .. } | Self::PlatformNotFound { .. } => {
                Some(reason::IMAGE_NOT_FOUND)
            }
            Self::BlobInUse { .. } | Self::SnapshotInUse { .. } => Some(reason::IN_USE),
            Self::DigestMismatch { .. }
            | Self::SizeMismatch { .. }
            | Self::BlobDamaged { .. }
            | Self::DiffId { .. } => Some(reason::DIGEST_MISMATCH),
            _ => None,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::ImageNotFound { name } => Some(format!("fetch it with `orlop pull {name}`")),
            Self::AmbiguousImage { .. } => Some("type more digits of the id".to_owned()),
            Self::DiskReserve { .. } => {
                Some("free space with `orlop system prune`, or give the disk more room".to_owned())
            }
            Self::NoImages { .. } => Some(
                "Linux 6.12 or later with CONFIG_EROFS_FS_BACKED_BY_FILE is needed, and root; or \
                 choose `--layers directory`"
                    .to_owned(),
            ),
            Self::WatchBehind => Some("list the images, and watch again".to_owned()),
            Self::InodeReserve { .. } => Some("free inodes with `orlop system prune`".to_owned()),
            Self::BlobDamaged { digest, .. } => Some(format!(
                "it was put aside and counts as missing: pull or push {digest} again"
            )),
            Self::Io { path, source, .. } => disk_hint(path, source),
            Self::Tree { path, source, .. } => disk_hint(Path::new(path), source),
            Self::WrongOffset { durable, .. } => Some(format!("go on at offset {durable}")),
            _ => None,
        }
    }
}

/// A full or failing disk is the operator's to solve; a name that is too long the caller's; everything
/// else that a system call says about our own files is a fault.
fn io_kind(error: &io::Error) -> Kind {
    match error.kind() {
        io::ErrorKind::InvalidFilename => Kind::InvalidArgument,
        _ => disk_kind(error).unwrap_or(Kind::Internal),
    }
}

/// What the state of the disk is on the wire: nothing about the request is wrong, and it succeeds as
/// soon as the disk is well again.
fn disk_kind(error: &io::Error) -> Option<Kind> {
    const FAILING: [Errno; 5] = [
        Errno::IO,
        Errno::ROFS,
        Errno::UCLEAN,
        Errno::NODEV,
        Errno::SHUTDOWN,
    ];
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some(Kind::ResourceExhausted),
        _ => {
            let code = error.raw_os_error()?;
            let failing = FAILING.iter().any(|errno| errno.raw_os_error() == code);
            failing.then_some(Kind::Unavailable)
        }
    }
}

/// Says of a disk that refused a write which of its two supplies is used up.
fn disk_hint(path: &Path, error: &io::Error) -> Option<String> {
    let hint = match disk_kind(error)? {
        Kind::ResourceExhausted if error.kind() == io::ErrorKind::QuotaExceeded => {
            "the quota is used up: raise it, or free space with `orlop system prune`"
        }
        Kind::ResourceExhausted if lacks_inodes(path) => {
            "the disk has no inodes left: free some with `orlop system prune`"
        }
        Kind::ResourceExhausted => {
            "the disk has no bytes left: free some with `orlop system prune`, or give it more room"
        }
        _ => {
            "the disk is read-only or failing: the store answers reads only until it is well again; \
             see the kernel's log"
        }
    };
    Some(hint.to_owned())
}

fn lacks_inodes(path: &Path) -> bool {
    let disk = path
        .ancestors()
        .find_map(|path| rustix::fs::statvfs(path).ok());
    disk.is_some_and(|disk| disk.f_files > 0 && disk.f_favail == 0)
}

/// Within a tree, names and links come from outside: what cannot be done with them is the input's
/// fault.
fn tree_kind(error: &io::Error) -> Kind {
    match error.kind() {
        io::ErrorKind::NotFound
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::IsADirectory
        | io::ErrorKind::InvalidFilename
        | io::ErrorKind::InvalidInput
        | io::ErrorKind::ArgumentListTooLong
        | io::ErrorKind::TooManyLinks => Kind::InvalidArgument,
        _ if [Errno::LOOP, Errno::RANGE]
            .iter()
            .any(|errno| error.raw_os_error() == Some(errno.raw_os_error())) =>
        {
            Kind::InvalidArgument
        }
        _ => disk_kind(error).unwrap_or(Kind::Internal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_of_the_disk_is_no_fault_of_ours() {
        let kind = |code| StoreError::io("write", "/x")(io::Error::from_raw_os_error(code)).kind();
        assert_eq!(kind(28), Kind::ResourceExhausted, "ENOSPC");
        assert_eq!(kind(122), Kind::ResourceExhausted, "EDQUOT");
        assert_eq!(kind(5), Kind::Unavailable, "EIO");
        assert_eq!(kind(30), Kind::Unavailable, "EROFS");
        assert_eq!(kind(36), Kind::InvalidArgument, "ENAMETOOLONG");
        assert_eq!(kind(13), Kind::Internal, "EACCES");
    }
}
