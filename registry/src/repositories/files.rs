//! The registry's truth: small files, each written whole, synced, and then named. The directory is
//! the service's own (mode 0700) and every name in it was validated, so plain paths are safe.
//!
//! ```text
//! repositories/<name, `/` as `+`>/{blobs,manifests,tags,uploads}/<digest, tag or upload>
//! tmp/<random>
//! ```

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use orlop_proto::descriptor::parse_digest;

use crate::names::{Repository, Tag, random_name};
use crate::{Error, Result};

/// Larger than any record: a manifest of the largest size is mostly annotations at worst.
const RECORD_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// What a file is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The repository has this blob; empty.
    Blobs,
    /// A manifest's record, JSON.
    Manifests,
    /// What a tag points at, a digest.
    Tags,
    /// An upload that was begun; empty.
    Uploads,
}

const KINDS: [Kind; 4] = [Kind::Blobs, Kind::Manifests, Kind::Tags, Kind::Uploads];

/// The files.
#[derive(Debug)]
pub struct Files {
    repositories: PathBuf,
    temporary: PathBuf,
}

impl Files {
    /// Opens, or makes, the directories, and clears what a crash left half-written.
    pub fn open(root: &Path) -> Result<Self> {
        let files = Self {
            repositories: root.join("repositories"),
            temporary: root.join("tmp"),
        };
        match fs::remove_dir_all(&files.temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io(&files.temporary)(error));
            }
            _ => {}
        }
        for directory in [&files.repositories, &files.temporary] {
            make_directory(directory)?;
        }
        Ok(files)
    }

    /// Writes one file; returns when it will survive a loss of power.
    pub(super) fn put(
        &self,
        repository: &Repository,
        kind: Kind,
        name: &str,
        content: &[u8],
    ) -> Result<()> {
        let directory = self.directory(repository, kind);
        make_directory(&directory)?;
        let temporary = self.temporary()?;
        let path = directory.join(name);
        File::create_new(&temporary)
            .and_then(|mut file| {
                file.write_all(content)?;
                file.sync_all()
            })
            .and_then(|()| fs::rename(&temporary, &path))
            .map_err(Error::io(&path))?;
        sync(&directory)
    }

    /// Removes one file; whether it was there.
    pub(super) fn remove(&self, repository: &Repository, kind: Kind, name: &str) -> Result<bool> {
        let directory = self.directory(repository, kind);
        let path = directory.join(name);
        match fs::remove_file(&path) {
            Ok(()) => sync(&directory).map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io(path)(error)),
        }
    }

    /// Whether a file is there.
    pub(super) fn exists(&self, repository: &Repository, kind: Kind, name: &str) -> bool {
        self.directory(repository, kind).join(name).is_file()
    }

    /// Removes everything of a repository: out of sight at once, then piece by piece.
    pub(super) fn remove_repository(&self, repository: &Repository) -> Result<()> {
        let path = self.repositories.join(repository.file_name());
        let aside = self.temporary()?;
        fs::rename(&path, &aside).map_err(Error::io(&path))?;
        sync(&self.repositories)?;
        fs::remove_dir_all(&aside).map_err(Error::io(aside))
    }

    /// Tells every file: repository, kind, name, content. Stray files are passed over.
    pub(super) fn scan(
        &self,
        mut tell: impl FnMut(&Repository, Kind, &str, &str) -> Result<()>,
    ) -> Result<()> {
        for entry in entries(&self.repositories)? {
            let Some(repository) = Repository::from_file_name(&entry) else {
                continue;
            };
            for kind in KINDS {
                for name in entries(&self.directory(&repository, kind))? {
                    if !is_name(kind, &name) {
                        continue;
                    }
                    let content = match kind {
                        Kind::Manifests | Kind::Tags => {
                            read(&self.directory(&repository, kind).join(&name))?
                        }
                        Kind::Blobs | Kind::Uploads => String::new(),
                    };
                    tell(&repository, kind, &name, &content)?;
                }
            }
        }
        Ok(())
    }

    fn directory(&self, repository: &Repository, kind: Kind) -> PathBuf {
        let kind = match kind {
            Kind::Blobs => "blobs",
            Kind::Manifests => "manifests",
            Kind::Tags => "tags",
            Kind::Uploads => "uploads",
        };
        self.repositories.join(repository.file_name()).join(kind)
    }

    fn temporary(&self) -> Result<PathBuf> {
        Ok(self.temporary.join(random_name()?))
    }
}

fn is_name(kind: Kind, name: &str) -> bool {
    match kind {
        Kind::Blobs | Kind::Manifests => parse_digest(name).is_ok(),
        Kind::Tags => name.parse::<Tag>().is_ok(),
        Kind::Uploads => true,
    }
}

fn read(path: &Path) -> Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(RECORD_BYTES_MAX).read_to_string(&mut text))
        .map_err(Error::io(path))?;
    Ok(text)
}

/// The names in a directory; none when there is no such directory.
fn entries(path: &Path) -> Result<Vec<String>> {
    let directory = match fs::read_dir(path) {
        Ok(directory) => directory,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io(path)(error)),
    };
    let mut names = Vec::new();
    for entry in directory {
        let entry = entry.map_err(Error::io(path))?;
        names.extend(entry.file_name().into_string().ok());
    }
    Ok(names)
}

/// Makes a directory and its missing parents, each durable.
fn make_directory(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_directory(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(Error::io(path)(error)),
        _ => path.parent().map_or(Ok(()), sync),
    }
}

fn sync(directory: &Path) -> Result<()> {
    File::open(directory)
        .and_then(|file| file.sync_all())
        .map_err(Error::io(directory))
}
