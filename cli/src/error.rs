//! What can go wrong in the command line, and the exit code of each.

use std::io;
use std::path::PathBuf;

use orlop_files::CopyError;
use orlop_proto::error::{Failure, Kind, reason};
use orlop_proto::reference::ReferenceError;

use crate::docker_config::DockerConfigError;
use crate::format::TemplateError;

/// Docker's exit code for errors of its own, as against the container's.
const OURS: u8 = 125;
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;
const FAILURE: u8 = 1;
/// 128 + SIGPIPE: what a shell reports of a program whose reader went away.
const BROKEN_PIPE: u8 = 141;

/// Every cause of a failed command.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// The arguments cannot be understood.
    #[error("{0}")]
    Usage(String),
    /// The name of an image is malformed.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// An option's value cannot be understood.
    #[error("invalid value {value:?} for {option}: {reason}")]
    Value {
        option: &'static str,
        value: String,
        reason: String,
    },
    /// A service answered with an error.
    #[error(transparent)]
    Service(Box<Failure>),
    /// No service answers where one was configured.
    #[error("cannot connect to the {service} service at {endpoint}")]
    Unreachable {
        service: &'static str,
        endpoint: String,
        source: io::Error,
    },
    /// A service does not come up.
    #[error("the {service} service does not start: {reason}")]
    Start {
        service: &'static str,
        reason: String,
        log: Vec<String>,
    },
    /// A service does not end.
    #[error("the {service} service (process {pid}) did not end within {seconds} s")]
    StillRunning {
        service: &'static str,
        pid: i32,
        seconds: u64,
    },
    /// The stream of a container or a build ended without its last message.
    #[error("the connection to the {service} service was lost; {consequence}")]
    Lost {
        service: &'static str,
        consequence: &'static str,
    },
    /// The service broke the contract.
    #[error("the {service} service answered what it may not: {what}")]
    Contract {
        service: &'static str,
        what: &'static str,
    },
    /// `port` asked for one that is not published.
    #[error("no public port {port} of {container}")]
    NotPublished { container: String, port: String },
    /// An archive to be written to a terminal.
    #[error("refusing to write an archive to a terminal: use --output, or redirect")]
    ArchiveToTerminal,
    /// `--output` names a device, a pipe or a directory.
    #[error("{} is not a regular file: it is not replaced", .0.display())]
    NotRegular(PathBuf),
    /// `inspect` found nothing of that name.
    #[error("no such object: {0}")]
    NoSuchObject(String),
    /// A file or a system call of ours.
    #[error("cannot {action} {}", path.display())]
    File {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// A system call without a file.
    #[error("cannot {action}")]
    System {
        action: &'static str,
        source: io::Error,
    },
    /// Standard output cannot be written.
    #[error("cannot write the output")]
    Output(#[source] io::Error),
    /// `--format`.
    #[error("invalid template: {0}")]
    Template(#[from] TemplateError),
    /// Docker's `config.json` and credential helpers.
    #[error(transparent)]
    Credentials(#[from] DockerConfigError),
    /// The build context or its `.dockerignore`.
    #[error("build context: {0}")]
    Context(String),
    /// Files could not be copied.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// Any of the above where Docker's exit codes keep ours apart from the container's.
    #[error("{0}")]
    Container(Box<Self>),
}

impl CliError {
    /// The exit code of the command.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Value { .. } => OURS,
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => BROKEN_PIPE,
            Self::Container(inner) => match inner.reason() {
                reason::COMMAND_NOT_EXECUTABLE => NOT_EXECUTABLE,
                reason::COMMAND_NOT_FOUND => NOT_FOUND,
                _ if matches!(**inner, Self::Output(_)) => inner.exit_code(),
                _ => OURS,
            },
            _ => match self.reason() {
                reason::COMMAND_NOT_EXECUTABLE => NOT_EXECUTABLE,
                reason::COMMAND_NOT_FOUND => NOT_FOUND,
                _ => FAILURE,
            },
        }
    }

    /// The stable word of a service's error, or empty.
    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::Service(failure) => &failure.reason,
            Self::Container(inner) => inner.reason(),
            _ => "",
        }
    }

    /// The kind of a service's error.
    pub(crate) fn kind(&self) -> Option<Kind> {
        match self {
            Self::Service(failure) => Some(failure.kind),
            Self::Container(inner) => inner.kind(),
            _ => None,
        }
    }

    /// Whether a service said that the image is not here.
    pub(crate) fn is_image_missing(&self) -> bool {
        self.kind() == Some(Kind::NotFound) && self.reason() == reason::IMAGE_NOT_FOUND
    }

    /// What the user can do next, a line each.
    pub(crate) fn hints(&self) -> Vec<String> {
        match self {
            Self::Service(failure) => failure.hints.clone(),
            Self::Container(inner) => inner.hints(),
            Self::Start { log, .. } => log.clone(),
            Self::Unreachable { .. } => vec![
                "an endpoint was configured, so services are not started automatically".to_owned(),
            ],
            _ => Vec::new(),
        }
    }

    /// Whether nobody is there to read a message.
    pub(crate) fn is_silent(&self) -> bool {
        match self {
            Self::Output(error) => error.kind() == io::ErrorKind::BrokenPipe,
            Self::Container(inner) => inner.is_silent(),
            _ => false,
        }
    }

    /// Marks an error of `run`, whose exit code must not be taken for the container's.
    pub(crate) fn of_container(self) -> Self {
        match self {
            Self::Container(_) => self,
            other => Self::Container(Box::new(other)),
        }
    }
}

/// For `map_err` on calls that touch a path.
pub(crate) fn file(
    action: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(io::Error) -> CliError {
    let path = path.into();
    move |source| CliError::File {
        action,
        path,
        source,
    }
}

/// For `map_err` on other system calls.
pub(crate) fn system<E: Into<io::Error>>(action: &'static str) -> impl FnOnce(E) -> CliError {
    move |source| CliError::System {
        action,
        source: source.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(kind: Kind, reason: &str) -> CliError {
        CliError::Service(Box::new(Failure {
            kind,
            message: "m".to_owned(),
            reason: reason.to_owned(),
            hints: vec!["h".to_owned()],
            metadata: std::collections::HashMap::default(),
        }))
    }

    #[test]
    fn exit_codes_are_dockers() {
        let broken = || CliError::Output(io::ErrorKind::BrokenPipe.into());
        let table = [
            (CliError::Usage("x".to_owned()), 125),
            (failure(Kind::NotFound, ""), 1),
            (failure(Kind::NotFound, "").of_container(), 125),
            (
                failure(Kind::FailedPrecondition, reason::COMMAND_NOT_FOUND),
                127,
            ),
            (
                failure(Kind::FailedPrecondition, reason::COMMAND_NOT_FOUND).of_container(),
                127,
            ),
            (
                failure(Kind::FailedPrecondition, reason::COMMAND_NOT_EXECUTABLE).of_container(),
                126,
            ),
            (
                failure(Kind::FailedPrecondition, reason::CANNOT_START).of_container(),
                125,
            ),
            (broken(), 141),
            (broken().of_container(), 141),
        ];
        for (error, code) in table {
            assert_eq!(error.exit_code(), code, "{error:?}");
        }
    }

    #[test]
    fn hints_pass_through() {
        assert_eq!(failure(Kind::NotFound, "").of_container().hints(), ["h"]);
    }
}
