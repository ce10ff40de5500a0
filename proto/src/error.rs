//! The one table of error kinds: what a service's errors become on the wire, and what a client reads
//! back. No other file names a `tonic::Code` when it makes an error.
//!
//! A service's own error type implements [`Classify`]; its gRPC layer calls [`to_status`]. A client
//! calls [`Failure::from`] on the status that it got. Details travel as `google.rpc.ErrorInfo`
//! (reason and metadata) and `google.rpc.Help` (what to do next), so that any gRPC client can read
//! them.

use std::collections::HashMap;
use std::fmt;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// `domain` of every `google.rpc.ErrorInfo` that we send.
const DOMAIN: &str = "orlop";

/// The closed set of error kinds. Each is one gRPC code; add a kind only when a caller would act
/// differently on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request can never succeed as it stands.
    InvalidArgument,
    /// The thing named does not exist.
    NotFound,
    /// The name is taken.
    AlreadyExists,
    /// The system is not in the state that the request needs; [`Classify::reason`] says which.
    FailedPrecondition,
    /// Somebody else won a race; try again from the start.
    Aborted,
    /// An offset or a size beyond what there is.
    OutOfRange,
    /// Who asks is known and may not.
    PermissionDenied,
    /// Who asks is not known.
    Unauthenticated,
    /// Disk, inodes, memory or a limit of ours is used up.
    ResourceExhausted,
    /// Bytes are not what their digest says.
    DataLoss,
    /// Known, but not built (yet).
    Unimplemented,
    /// Something needed does not answer; try again later.
    Unavailable,
    /// The caller went away or said stop.
    Cancelled,
    /// It took longer than the caller or we allow.
    DeadlineExceeded,
    /// A fault of ours.
    Internal,
}

/// The table. Order and content are compared by the tests, both ways.
const TABLE: [(Kind, Code); 15] = [
    (Kind::InvalidArgument, Code::InvalidArgument),
    (Kind::NotFound, Code::NotFound),
    (Kind::AlreadyExists, Code::AlreadyExists),
    (Kind::FailedPrecondition, Code::FailedPrecondition),
    (Kind::Aborted, Code::Aborted),
    (Kind::OutOfRange, Code::OutOfRange),
    (Kind::PermissionDenied, Code::PermissionDenied),
    (Kind::Unauthenticated, Code::Unauthenticated),
    (Kind::ResourceExhausted, Code::ResourceExhausted),
    (Kind::DataLoss, Code::DataLoss),
    (Kind::Unimplemented, Code::Unimplemented),
    (Kind::Unavailable, Code::Unavailable),
    (Kind::Cancelled, Code::Cancelled),
    (Kind::DeadlineExceeded, Code::DeadlineExceeded),
    (Kind::Internal, Code::Internal),
];

/// Reasons that clients act upon: stable words in `google.rpc.ErrorInfo`.
pub mod reason {
    /// A prefix fits several containers or images.
    pub const AMBIGUOUS_PREFIX: &str = "AMBIGUOUS_PREFIX";
    /// The container does not run.
    pub const NOT_RUNNING: &str = "NOT_RUNNING";
    /// The container runs already.
    pub const ALREADY_RUNNING: &str = "ALREADY_RUNNING";
    /// The container is paused: it must be unpaused first.
    pub const PAUSED: &str = "PAUSED";
    /// The container runs and is not paused.
    pub const NOT_PAUSED: &str = "NOT_PAUSED";
    /// A container, an image or a volume is in use.
    pub const IN_USE: &str = "IN_USE";
    /// A host port is taken.
    pub const PORT_IN_USE: &str = "PORT_IN_USE";
    /// The command is not in the image: exit code 127.
    pub const COMMAND_NOT_FOUND: &str = "COMMAND_NOT_FOUND";
    /// The command cannot be executed: exit code 126.
    pub const COMMAND_NOT_EXECUTABLE: &str = "COMMAND_NOT_EXECUTABLE";
    /// The container cannot be started.
    pub const CANNOT_START: &str = "CANNOT_START";
    /// The output of a process that a client gets has an end before the process's.
    pub const OUTPUT_LOST: &str = "OUTPUT_LOST";
    /// A RUN command of a build ended with another code than 0.
    pub const COMMAND_FAILED: &str = "COMMAND_FAILED";
    /// A mistake in a Dockerfile.
    pub const DOCKERFILE_ERROR: &str = "DOCKERFILE_ERROR";
    /// A remote that does not speak the distribution protocol.
    pub const NOT_A_REGISTRY: &str = "NOT_A_REGISTRY";
    /// Bytes that do not match their digest.
    pub const DIGEST_MISMATCH: &str = "DIGEST_MISMATCH";
    /// The image is not in the store.
    pub const IMAGE_NOT_FOUND: &str = "IMAGE_NOT_FOUND";
}

/// What the gRPC layer asks of a service's error type.
pub trait Classify: std::error::Error {
    /// Which row of the table it is.
    fn kind(&self) -> Kind;

    /// A stable word from [`reason`], where clients act on more than the kind.
    fn reason(&self) -> Option<&'static str> {
        None
    }

    /// What the user can do next.
    fn hint(&self) -> Option<String> {
        None
    }

    /// Facts for programs, for example `exit_code`.
    fn metadata(&self) -> HashMap<String, String> {
        HashMap::new()
    }
}

/// The error as it travels: its whole chain of causes as the message, kind, reason, hint, metadata.
pub fn to_status(error: &impl Classify) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(error.reason().unwrap_or_default(), DOMAIN, error.metadata());
    if let Some(hint) = error.hint() {
        details.add_help_link(hint, "");
    }
    Status::with_error_details(error.kind().code(), chain(error), details)
}

/// The answer of an rpc that is in the contract and not built.
pub fn unimplemented(rpc: &str) -> Status {
    Status::unimplemented(format!("{rpc} is not built in this version of orlop"))
}

/// An error and its causes in one line, each said once.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// What a client knows of an error that a service answered.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The row of the table.
    pub kind: Kind,
    /// One sentence for a person, with the name, path or digest in it.
    pub message: String,
    /// A word from [`reason`], or empty.
    pub reason: String,
    /// What to do next, if the service knows.
    pub hints: Vec<String>,
    /// Facts for programs.
    pub metadata: HashMap<String, String>,
}

// === impl Kind ===

impl Kind {
    /// The gRPC code of this kind.
    pub fn code(self) -> Code {
        TABLE
            .iter()
            .find(|(kind, _)| *kind == self)
            .map_or(Code::Unknown, |(_, code)| *code)
    }

    /// The kind of a gRPC code; codes that we never send are faults.
    pub fn of(code: Code) -> Self {
        TABLE
            .iter()
            .find(|(_, c)| *c == code)
            .map_or(Self::Internal, |(kind, _)| *kind)
    }
}

// === impl Failure ===

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info();
        Self {
            kind: Kind::of(status.code()),
            message: status.message().to_owned(),
            reason: info.map(|i| i.reason.clone()).unwrap_or_default(),
            hints: details
                .help()
                .map(|help| {
                    help.links
                        .iter()
                        .map(|link| link.description.clone())
                        .collect()
                })
                .unwrap_or_default(),
            metadata: info.map(|i| i.metadata.clone()).unwrap_or_default(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// A failure of one service passes through another unchanged.
impl Classify for Failure {
    fn kind(&self) -> Kind {
        self.kind
    }

    fn reason(&self) -> Option<&'static str> {
        REASONS.iter().copied().find(|known| *known == self.reason)
    }

    fn hint(&self) -> Option<String> {
        self.hints.first().cloned()
    }

    fn metadata(&self) -> HashMap<String, String> {
        self.metadata.clone()
    }
}

const REASONS: [&str; 14] = [
    reason::AMBIGUOUS_PREFIX,
    reason::NOT_RUNNING,
    reason::ALREADY_RUNNING,
    reason::IN_USE,
    reason::PORT_IN_USE,
    reason::COMMAND_NOT_FOUND,
    reason::COMMAND_NOT_EXECUTABLE,
    reason::CANNOT_START,
    reason::OUTPUT_LOST,
    reason::COMMAND_FAILED,
    reason::DOCKERFILE_ERROR,
    reason::NOT_A_REGISTRY,
    reason::DIGEST_MISMATCH,
    reason::IMAGE_NOT_FOUND,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("no such container: web")]
    struct NoContainer;

    impl Classify for NoContainer {
        fn kind(&self) -> Kind {
            Kind::NotFound
        }
        fn reason(&self) -> Option<&'static str> {
            Some(reason::NOT_RUNNING)
        }
        fn hint(&self) -> Option<String> {
            Some("list them with `orlop ps -a`".to_owned())
        }
    }

    #[test]
    fn every_kind_has_one_code_and_comes_back() {
        for (kind, code) in TABLE {
            assert_eq!(kind.code(), code);
            assert_eq!(Kind::of(code), kind);
        }
    }

    #[test]
    fn reason_and_hint_survive_the_wire() {
        let failure = Failure::from(to_status(&NoContainer));
        assert_eq!(failure.kind, Kind::NotFound);
        assert_eq!(failure.message, "no such container: web");
        assert_eq!(failure.reason, reason::NOT_RUNNING);
        assert_eq!(failure.hints, ["list them with `orlop ps -a`"]);
    }
}
