//! What a build is made of: the Dockerfile, and the directory of its context.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::Path;

use bytes::Bytes;
use orlop_proto::dockerignore::Matcher;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};

use crate::error::{CliError, file, system};

/// The largest Dockerfile and `.dockerignore`.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
const DOCKERFILE: &str = "Dockerfile";
const IGNORE: &str = ".dockerignore";
/// Where a tar archive says that it is one.
const TAR_MAGIC: std::ops::Range<usize> = 257..262;

/// A Dockerfile and a context.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) dockerfile: Bytes,
    /// For messages.
    pub(super) dockerfile_name: String,
    /// Says which context of this client it is; empty without one.
    pub(super) id: String,
    /// The context's directory.
    pub(super) root: Option<OwnedFd>,
    pub(super) ignore: Matcher,
}

impl Source {
    /// Opens what the arguments name.
    pub(super) fn open(context: &Path, dockerfile: Option<&Path>) -> Result<Self, CliError> {
        let text = context.to_string_lossy();
        if text == "-" {
            return Self::from_stdin(dockerfile);
        }
        if text.contains("://") || text.starts_with("git@") {
            // The address may hold a password, so it is not repeated (`SECURITY` row E11).
            return Err(CliError::Context(
                "a context at an address is not built in this version; give a directory".to_owned(),
            ));
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, context, flags, Mode::empty())
            .map_err(|error| file("open the context", context)(error.into()))?;
        let (contents, name) = match dockerfile {
            None => (default_dockerfile(&root, context)?, DOCKERFILE.to_owned()),
            Some(path) if path == Path::new("-") => {
                (stdin()?, "Dockerfile on standard input".to_owned())
            }
            Some(path) => {
                let opened = File::open(path).map_err(file("open the Dockerfile", path))?;
                (read(opened, path)?, path.to_string_lossy().into_owned())
            }
        };
        let ignore = ignore(&root, context, dockerfile)?;
        Ok(Self {
            dockerfile: contents.into(),
            dockerfile_name: name,
            id: id(context)?,
            root: Some(root),
            ignore,
        })
    }

    fn from_stdin(dockerfile: Option<&Path>) -> Result<Self, CliError> {
        if dockerfile.is_some() {
            return Err(CliError::Context(
                "with - for the context, the Dockerfile is standard input: leave out --file"
                    .to_owned(),
            ));
        }
        let contents = stdin()?;
        let compressed =
            contents.starts_with(b"\x1f\x8b") || contents.starts_with(b"\x28\xb5\x2f\xfd");
        if compressed || contents.get(TAR_MAGIC) == Some(b"ustar") {
            return Err(CliError::Context(
                "a tar archive as the context is not built in this version; unpack it and give the directory"
                    .to_owned(),
            ));
        }
        Ok(Self {
            dockerfile: contents.into(),
            dockerfile_name: DOCKERFILE.to_owned(),
            id: String::new(),
            root: None,
            ignore: Matcher::default(),
        })
    }
}

fn stdin() -> Result<Vec<u8>, CliError> {
    let input = rustix::io::dup(rustix::stdio::stdin()).map_err(system("read standard input"))?;
    read(File::from(input), Path::new("standard input"))
}

fn read(opened: File, path: &Path) -> Result<Vec<u8>, CliError> {
    let mut contents = Vec::new();
    let read = opened.take(FILE_BYTES_MAX + 1).read_to_end(&mut contents);
    read.map_err(file("read", path))?;
    if contents.len() as u64 > FILE_BYTES_MAX {
        return Err(CliError::Context(format!(
            "{} is larger than 4 MiB",
            path.display()
        )));
    }
    Ok(contents)
}

/// Opens a file of the context; a link that leads out of it is refused (`SECURITY` row D9).
fn open_inside(root: &OwnedFd, name: &str) -> rustix::io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, name, flags, Mode::empty(), resolve).map(File::from)
}

fn default_dockerfile(root: &OwnedFd, context: &Path) -> Result<Vec<u8>, CliError> {
    let path = context.join(DOCKERFILE);
    let opened = open_inside(root, DOCKERFILE)
        .map_err(|error| file("open the Dockerfile", &path)(error.into()))?;
    read(opened, &path)
}

/// `<Dockerfile>.dockerignore` beside the Dockerfile, else the context's own.
fn ignore(root: &OwnedFd, context: &Path, dockerfile: Option<&Path>) -> Result<Matcher, CliError> {
    let beside = match dockerfile {
        None => context.join(DOCKERFILE),
        Some(path) => path.to_path_buf(),
    };
    let mut beside = beside.into_os_string();
    beside.push(IGNORE);
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let own = rustix::fs::openat(CWD, Path::new(&beside), flags, Mode::empty());
    let (opened, path) = match own {
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => {
            (open_inside(root, IGNORE), context.join(IGNORE))
        }
        opened => (opened.map(File::from), beside.into()),
    };
    let opened = match opened {
        Err(rustix::io::Errno::NOENT) => return Ok(Matcher::default()),
        opened => opened.map_err(|error| file("open", &path)(error.into()))?,
    };
    let text = read(opened, &path)?;
    Matcher::parse(&String::from_utf8_lossy(&text))
        .map_err(|error| CliError::Context(format!("{}: {error}", path.display())))
}

/// The host and the directory: equal contexts of one client have equal ids.
fn id(context: &Path) -> Result<String, CliError> {
    let directory = std::fs::canonicalize(context).map_err(file("resolve", context))?;
    let host = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    Ok(format!("{host}:{}", directory.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn d9_an_ignore_file_that_leads_out_is_refused_and_not_shown() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "[s3cret").unwrap();
        let context = tempfile::tempdir().unwrap();
        std::fs::write(context.path().join("Dockerfile"), "FROM scratch\n").unwrap();
        symlink(outside.path().join("secret"), context.path().join(IGNORE)).unwrap();
        let error = Source::open(context.path(), None).unwrap_err();
        let told = orlop_proto::error::chain(&error);
        assert!(told.contains(IGNORE) && !told.contains("s3cret"), "{told}");
    }

    #[test]
    fn the_ignore_file_of_the_dockerfile_wins() {
        let context = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("Dockerfile", "FROM scratch\n"),
            (".dockerignore", "a\n"),
            ("Dockerfile.dockerignore", "b\n"),
        ] {
            std::fs::write(context.path().join(name), text).unwrap();
        }
        let source = Source::open(context.path(), None).unwrap();
        assert!(source.ignore.ignored(b"b") && !source.ignore.ignored(b"a"));
        assert_eq!(source.dockerfile, "FROM scratch\n");
        assert!(Source::open(&context.path().join("nope"), None).is_err());
        assert!(Source::open(Path::new("https://example.com/x.git"), None).is_err());
    }
}
