//! Why a copy failed.

use std::io;

use rustix::io::Errno;

/// What this crate's functions answer.
pub type Result<T, E = CopyError> = std::result::Result<T, E>;

/// One variant per kind of cause.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A path that is not there.
    #[error("no such file or directory: {0}")]
    NotFound(String),
    /// Source and destination do not fit, or a file is of a kind that is not copied.
    #[error("{path}: {problem}")]
    Refused {
        /// Which.
        path: String,
        /// Why.
        problem: &'static str,
    },
    /// The archive is no archive, or holds what no archive of ours may.
    #[error("invalid archive: {0}")]
    Archive(String),
    /// The archive stopped in its middle, or nobody takes it any more.
    #[error("the copy was cut off")]
    Stream(#[source] io::Error),
    /// A file could not be read or written.
    #[error("cannot {action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}

pub(crate) fn text(path: &[u8]) -> String {
    match path {
        b"" => "/".to_owned(),
        path => String::from_utf8_lossy(path).into_owned(),
    }
}

pub(crate) fn refused(path: &[u8], problem: &'static str) -> CopyError {
    CopyError::Refused {
        path: text(path),
        problem,
    }
}

/// For `map_err` on what the kernel answers.
pub(crate) fn failed(action: &'static str, path: &[u8]) -> impl Fn(Errno) -> CopyError {
    let path = text(path);
    move |errno| match errno {
        Errno::NOENT => CopyError::NotFound(path.clone()),
        Errno::LOOP => CopyError::Refused {
            path: path.clone(),
            problem: "a symbolic link is in the way",
        },
        errno => CopyError::File {
            action,
            path: path.clone(),
            source: errno.into(),
        },
    }
}
