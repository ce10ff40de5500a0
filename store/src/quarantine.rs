//! What was found damaged, kept for whoever wants to know what happened to it: `quarantine/<kind>-<name>`.
//! Nothing here is ever served, and nothing here is ever deleted by the store.
//!
//! A damaged name or lease may have held things that nothing else holds. While one is here that no
//! person has been told of, nothing is collected; `quarantine/seen` has those that were.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::{StoreError, files};

/// Those that a check with repair has told of.
const SEEN: &str = "seen";
/// A file's name has at most 255 bytes; the rest is for the kind and a number.
const NAME_BYTES_MAX: usize = 220;
/// So many things of one name are kept apart.
const COPIES_MAX: u32 = 10_000;

/// What kind of thing is put aside; the first part of its name there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suspect {
    /// A blob: `<algorithm>-<hex>`.
    Blob,
    /// The file of an image's name.
    Name,
    /// The file of a lease.
    Lease,
    /// The directory of a snapshot.
    Snapshot,
    /// The directory of a layer.
    Layer,
    /// A file that is not the store's.
    Foreign,
}

/// The directory; clones share it.
#[derive(Clone, Debug)]
pub struct Quarantine {
    directory: PathBuf,
}

impl Quarantine {
    /// Of the store at a state directory. It is made when it is first needed.
    pub fn at(state: &Path) -> Self {
        Self {
            directory: state.join("quarantine"),
        }
    }

    /// Of the store that a directory of records belongs to.
    pub fn beside(directory: &Path) -> Self {
        Self::at(directory.parent().unwrap_or(directory))
    }

    /// Moves a thing aside, whatever it is, and says where it is now. Durable.
    pub fn put(&self, suspect: Suspect, name: &str, from: &Path) -> Result<PathBuf, StoreError> {
        files::make_directory(&self.directory)?;
        let to = move_to_free(from, &self.directory, &place_name(suspect, name))?;
        files::sync_directory(&self.directory)?;
        if let Some(parent) = from.parent() {
            files::sync_directory(parent)?;
        }
        tracing::error!(from = %from.display(), to = %to.display(), "put aside: it is damaged");
        Ok(to)
    }

    /// Damaged names and leases that no check with repair has told of yet, by their names here.
    pub fn unseen(&self) -> Result<Vec<String>, StoreError> {
        if !self.directory.exists() {
            return Ok(Vec::new());
        }
        let mut names = files::names(&self.directory)?;
        names.retain(|name| holds(name));
        Ok(names)
    }

    /// Notes that a person was told of one: it holds up the collection no longer.
    pub fn acknowledge(&self, name: &str) -> Result<(), StoreError> {
        let seen = self.directory.join(SEEN);
        files::make_directory(&seen)?;
        move_to_free(&self.directory.join(name), &seen, name)?;
        files::sync_directory(&seen)?;
        files::sync_directory(&self.directory)
    }
}

impl Suspect {
    fn prefix(self) -> &'static str {
        match self {
            Self::Blob => "",
            Self::Name => "name-",
            Self::Lease => "lease-",
            Self::Snapshot => "snapshot-",
            Self::Layer => "layer-",
            Self::Foreign => "foreign-",
        }
    }
}

/// Whether a thing of this name may have held others.
fn holds(name: &str) -> bool {
    [Suspect::Name, Suspect::Lease]
        .iter()
        .any(|suspect| name.starts_with(suspect.prefix()))
}

fn place_name(suspect: Suspect, name: &str) -> String {
    let mut name = name.replace(['/', '\0'], "%");
    let end = (0..=NAME_BYTES_MAX.min(name.len()))
        .rev()
        .find(|end| name.is_char_boundary(*end));
    name.truncate(end.unwrap_or_default());
    format!("{}{name}", suspect.prefix())
}

/// A number makes the name a new one, where it is taken.
fn move_to_free(from: &Path, directory: &Path, name: &str) -> Result<PathBuf, StoreError> {
    for copy in 0..COPIES_MAX {
        let to = match copy {
            0 => directory.join(name),
            copy => directory.join(format!("{name}.{copy}")),
        };
        match renameat_with(CWD, from, CWD, &to, RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(to),
            Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(StoreError::io("put aside", from)(error)),
        }
    }
    let full = io::Error::from(io::ErrorKind::AlreadyExists);
    Err(StoreError::io("put aside", from)(full))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn two_things_of_one_name_are_kept_apart_and_only_holders_hold() {
        let state = tempfile::tempdir().unwrap();
        let quarantine = Quarantine::at(state.path());
        assert!(quarantine.unseen().unwrap().is_empty());
        let put = |suspect, name| {
            let from = state.path().join("x");
            fs::write(&from, b"x").unwrap();
            quarantine.put(suspect, name, &from).unwrap()
        };
        let first = put(Suspect::Lease, "l");
        assert_ne!(first, put(Suspect::Lease, "l"));
        put(Suspect::Blob, "sha256-00");
        put(Suspect::Name, &"ä/".repeat(300));
        assert_eq!(quarantine.unseen().unwrap().len(), 3);
        for name in quarantine.unseen().unwrap() {
            quarantine.acknowledge(&name).unwrap();
        }
        assert!(quarantine.unseen().unwrap().is_empty());
        assert!(state.path().join("quarantine/sha256-00").exists());
    }
}
