//! Everything that can go wrong, one variant per cause.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;

use orlop_files::CopyError;
use orlop_proto::error::{Classify, Failure, Kind, reason};
use orlop_shim::protocol;
use rustix::io::Errno;

use crate::containers::state::Status;
use crate::network::NetworkError;

/// What this crate's functions answer.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No container has this id, prefix or name.
    #[error("no such container: {0}")]
    NoContainer(String),
    /// No volume has this name.
    #[error("no such volume: {0}")]
    NoVolume(String),
    /// Several ids begin with this.
    #[error("several containers have an id that begins with {0}: give more of it")]
    AmbiguousPrefix(String),
    /// The container's name belongs to another one.
    #[error(
        "the name {name:?} is in use by container {id}: remove or rename that one, or choose another name"
    )]
    NameTaken {
        /// The name.
        name: String,
        /// Who has it.
        id: String,
    },
    /// A part of the request can never be right.
    #[error("invalid {what}: {problem}")]
    Invalid {
        /// Which part.
        what: &'static str,
        /// What it is and what was expected.
        problem: String,
    },
    /// The image's own configuration is wrong.
    #[error("image {image} cannot be run: {problem}")]
    BadImage {
        /// As it was asked for.
        image: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Nothing of what it wrote is kept. Docker's words.
    #[error("configured logging driver does not support reading")]
    NoLog,
    /// Asked for something that is known and not built.
    #[error("{0} is not built in this version of orlop")]
    NotBuilt(&'static str),
    /// The user has no ranges of ids that containers could have.
    #[error(
        "user {0} has no ids for containers: add a line such as {0}:100000:65536 to both /etc/subuid and /etc/subgid"
    )]
    NoSubordinateIds(String),
    /// Every range is taken by a container that runs.
    #[error(
        "no {0} ids are free for one more container: stop one, or give more in /etc/subuid and /etc/subgid, then start the service again"
    )]
    SubordinateIdsExhausted(u32),
    /// The kernel gave no user namespace.
    #[error(
        "cannot make a user namespace (limits: user.max_user_namespaces; --userns host goes without)"
    )]
    UserNamespace(#[source] io::Error),
    /// The container is in a state in which this cannot be done.
    #[error("container {name} is {}: cannot {action} it", in_words(*status))]
    WrongState {
        /// The container's name.
        name: String,
        /// Its state.
        status: Status,
        /// What was asked.
        action: &'static str,
    },
    /// The container's policy is about to start it again.
    #[error("container {0} is restarting: cannot remove it")]
    Restarting(String),
    /// The container is being removed.
    #[error("container {0} is being removed")]
    BeingRemoved(String),
    /// The command could not be run, and the container was put back.
    #[error("cannot start container {name}: {message}")]
    Start {
        /// The container's name.
        name: String,
        /// Whose fault.
        failure: protocol::Failure,
        /// What the shim says.
        message: String,
    },
    /// One more process could not be run.
    #[error("cannot run a process in container {name}: {message}")]
    Exec {
        /// The container's name.
        name: String,
        /// Whose fault.
        failure: protocol::Failure,
        /// What the shim says.
        message: String,
    },
    /// The container's shim went away, or says what it should not.
    #[error("the shim of container {id} failed while {doing}")]
    Shim {
        /// The container.
        id: String,
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The streams of a process ended before the process did, or its exit code was lost with its shim.
    #[error("lost the streams of a process in container {0}: its shim ended before them")]
    StreamsLost(String),
    /// An attached client did not keep up with the output.
    #[error("the output of container {id} is incomplete: this client read too slowly; {why}")]
    ReadTooSlowly {
        /// The container.
        id: String,
        /// What its shim said.
        why: String,
    },
    /// A watcher of events read too slowly.
    #[error("{0} events were missed, because they were read too slowly")]
    EventsMissed(u64),
    /// A volume is used by a container.
    #[error("volume {name} is in use by container {container}")]
    VolumeInUse {
        /// The volume.
        name: String,
        /// One that uses it.
        container: String,
    },
    /// The source of a bind mount is not there.
    #[error("bind mount source {0} does not exist")]
    NoBindSource(PathBuf),
    /// A file or directory of ours.
    #[error("cannot {action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A limit could not be set.
    #[error("cannot set the limit {value:?} in {path}")]
    Limit {
        /// The control file.
        path: PathBuf,
        /// What was written.
        value: String,
        /// What the system said.
        source: io::Error,
    },
    /// The processes of a container could not be frozen in time; they were thawed again.
    #[error("the processes of the container do not freeze ({0}): one may be waiting for a disk")]
    NotFrozen(PathBuf),
    /// The kernel does not tell of the container's processes.
    #[error("container {0} does not answer: one of its processes may be stuck in the kernel")]
    Stuck(String),
    /// A limit was asked that this host's kernel or cgroups cannot set.
    #[error("this host has no {0} cgroup controller, which a requested limit needs")]
    NoController(&'static str),
    /// A record or a document cannot be read or written as JSON.
    #[error("malformed {0}")]
    Json(PathBuf, #[source] serde_json::Error),
    /// The runtime-spec document could not be put together.
    #[error("cannot make the container's specification")]
    Spec(#[from] oci_spec::OciSpecError),
    /// The index could not be opened, even after it was put aside.
    #[error("cannot open the index {path}")]
    Index {
        /// Where.
        path: PathBuf,
        /// What sled said.
        source: crate::index::IndexError,
    },
    /// The network could not be set up.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// Files could not be copied.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// The store refused or does not answer.
    #[error("{0}")]
    Store(Box<Failure>),
    /// A blocking task was cut off, which only happens when the service ends.
    #[error("the service is shutting down")]
    ShuttingDown,
    /// The service cannot listen.
    #[error(transparent)]
    Listen(#[from] orlop_wire::ListenError),
    /// Serving ended by itself.
    #[error(transparent)]
    Serve(#[from] orlop_wire::ServeError),
}

impl From<orlop_shim::cgroups::Error> for Error {
    fn from(error: orlop_shim::cgroups::Error) -> Self {
        use orlop_shim::cgroups::Error as Cgroups;
        match error {
            Cgroups::File {
                action,
                path,
                source,
            } => Self::File {
                action,
                path,
                source,
            },
            Cgroups::Limit {
                path,
                value,
                source,
            } => Self::Limit {
                path,
                value,
                source,
            },
            Cgroups::NotFrozen(path) => Self::NotFrozen(path),
            Cgroups::NoController(name) => Self::NoController(name),
        }
    }
}

impl Error {
    /// An invalid part of a request.
    pub(crate) fn invalid(what: &'static str, problem: impl Into<String>) -> Self {
        Self::Invalid {
            what,
            problem: problem.into(),
        }
    }

    /// For `map_err` on what the file system answers.
    pub(crate) fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File {
            action,
            path,
            source,
        }
    }
}

/// Runs work that blocks where it may.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.unwrap_or(Err(Error::ShuttingDown))
}

/// A state as a sentence about it goes on; whether it runs is what people look for.
fn in_words(status: Status) -> String {
    match status {
        Status::Running | Status::Paused => status.to_string(),
        other => format!("not running ({other})"),
    }
}

impl Classify for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::NoContainer(_) | Self::NoVolume(_) => Kind::NotFound,
            Self::NameTaken { .. } => Kind::AlreadyExists,
            Self::Invalid { .. } | Self::NoBindSource(_) => Kind::InvalidArgument,
            Self::AmbiguousPrefix(_)
            | Self::BadImage { .. }
            | Self::WrongState { .. }
            | Self::BeingRemoved(_)
            | Self::Restarting(_)
            | Self::VolumeInUse { .. }
            | Self::NotFrozen(_)
            | Self::NoController(_)
            | Self::NoLog
            | Self::NoSubordinateIds(_)
            | Self::UserNamespace(_) => Kind::FailedPrecondition,
            Self::Start { failure, .. } | Self::Exec { failure, .. } => failure_kind(*failure),
            Self::NotBuilt(_) => Kind::Unimplemented,
            Self::Limit { source, .. } => limit_kind(source),
            Self::File { source, .. } => io_kind(source),
            Self::Network(error) => error.kind(),
            Self::Copy(error) => copy_kind(error),
            Self::Store(failure) => failure.kind(),
            Self::ShuttingDown | Self::StreamsLost(_) | Self::Stuck(_) => Kind::Unavailable,
            Self::EventsMissed(_)
            | Self::ReadTooSlowly { .. }
            | Self::SubordinateIdsExhausted(_) => Kind::ResourceExhausted,
            Self::Shim { .. }
            | Self::Json(..)
            | Self::Spec(_)
            | Self::Index { .. }
            | Self::Listen(_)
            | Self::Serve(_) => Kind::Internal,
        }
    }

    fn reason(&self) -> Option<&'static str> {
        match self {
            Self::AmbiguousPrefix(_) => Some(reason::AMBIGUOUS_PREFIX),
            Self::WrongState { status, action, .. } => state_reason(*status, action),
            Self::VolumeInUse { .. } | Self::Restarting(_) => Some(reason::IN_USE),
            Self::StreamsLost(_) | Self::ReadTooSlowly { .. } => Some(reason::OUTPUT_LOST),
            Self::Start { failure, .. } | Self::Exec { failure, .. } => {
                Some(failure_reason(*failure))
            }
            Self::Shim { .. } | Self::BadImage { .. } | Self::NoController(_) => {
                Some(reason::CANNOT_START)
            }
            Self::Network(error) => error.reason(),
            Self::Store(failure) => failure.reason(),
            _ => None,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NoContainer(_) => Some("list containers with `orlop ps --all`".to_owned()),
            Self::NoVolume(_) => Some("list volumes with `orlop volume ls`".to_owned()),
            Self::Restarting(_)
            | Self::WrongState {
                status: Status::Running | Status::Paused,
                action: "remove",
                ..
            } => Some("stop it first, or remove it with --force".to_owned()),
            Self::WrongState {
                status: Status::Paused,
                ..
            } => Some("unpause it first".to_owned()),
            Self::NoBindSource(_) => {
                Some("make the directory first, or use -v, which makes it".to_owned())
            }
            Self::EventsMissed(_) => {
                Some("watch again with --since, which shows what is remembered".to_owned())
            }
            Self::ReadTooSlowly { .. } => Some(
                "the container goes on; `orlop logs` shows what its log keeps of the output"
                    .to_owned(),
            ),
            Self::Network(error) => error.hint(),
            Self::Store(failure) => failure.hint(),
            _ => None,
        }
    }

    fn metadata(&self) -> HashMap<String, String> {
        match self {
            Self::Start { failure, .. } | Self::Exec { failure, .. } => {
                let code = exit_code(*failure).to_string();
                HashMap::from([("exit_code".to_owned(), code)])
            }
            Self::Network(error) => error.metadata(),
            Self::Store(failure) => failure.metadata(),
            _ => HashMap::new(),
        }
    }
}

/// What a shell and Docker answer for a command that could not be run.
pub(crate) fn exit_code(failure: protocol::Failure) -> i32 {
    match failure {
        protocol::Failure::CommandNotFound => 127,
        protocol::Failure::CommandNotExecutable => 126,
        _ => 125,
    }
}

fn failure_kind(failure: protocol::Failure) -> Kind {
    match failure {
        protocol::Failure::Invalid => Kind::InvalidArgument,
        protocol::Failure::System => Kind::Internal,
        _ => Kind::FailedPrecondition,
    }
}

fn failure_reason(failure: protocol::Failure) -> &'static str {
    match failure {
        protocol::Failure::CommandNotFound => reason::COMMAND_NOT_FOUND,
        protocol::Failure::CommandNotExecutable => reason::COMMAND_NOT_EXECUTABLE,
        protocol::Failure::NotRunning => reason::NOT_RUNNING,
        protocol::Failure::Invalid | protocol::Failure::System | protocol::Failure::Behind => {
            reason::CANNOT_START
        }
    }
}

fn state_reason(status: Status, action: &str) -> Option<&'static str> {
    match (status, action) {
        (Status::Running, "start") => Some(reason::ALREADY_RUNNING),
        (Status::Running, "unpause") => Some(reason::NOT_PAUSED),
        (Status::Paused, action) if action != "remove" => Some(reason::PAUSED),
        (Status::Running | Status::Paused, _) => Some(reason::IN_USE),
        _ => Some(reason::NOT_RUNNING),
    }
}

/// What the kernel says to a limit: nonsense, more than this host has, or not now.
fn limit_kind(error: &io::Error) -> Kind {
    match Errno::from_io_error(error) {
        Some(Errno::INVAL | Errno::RANGE | Errno::ACCESS) => Kind::InvalidArgument,
        Some(Errno::BUSY) => Kind::FailedPrecondition,
        _ => io_kind(error),
    }
}

fn copy_kind(error: &CopyError) -> Kind {
    match error {
        CopyError::NotFound(_) => Kind::NotFound,
        CopyError::Refused { .. } | CopyError::Archive(_) => Kind::InvalidArgument,
        CopyError::Stream(_) => Kind::Aborted,
        CopyError::File { source, .. } => match source.kind() {
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
                Kind::FailedPrecondition
            }
            _ => io_kind(source),
        },
    }
}

fn io_kind(error: &io::Error) -> Kind {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Kind::ResourceExhausted,
        io::ErrorKind::InvalidInput => Kind::InvalidArgument,
        _ => Kind::Internal,
    }
}
