//! Group commit of small files in one directory: the bytes of each file, then its name, then the
//! directory, once for all who wait for it.
//!
//! The bytes of a file are synced by who wrote it, at the same time as others sync theirs: then the
//! journal of the file system commits once for all of them. One after another they would cost as many
//! commits, and one sync of the whole file system would wait for everything that others write.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::{sync_directory, temporary_name, write_synced};
use crate::StoreError;

/// Makes changes of the small files of a directory durable; clones share the groups.
#[derive(Clone, Debug)]
pub struct Group {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    state: Mutex<State>,
    done: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Who came since the last sync has begun.
    waiting: Vec<Waiting>,
    /// Somebody syncs for an earlier group.
    leading: bool,
}

type Waiting = Arc<Mutex<Option<Result<(), StoreError>>>>;

impl Group {
    /// For the files of a directory.
    pub fn new(directory: &Path) -> Self {
        Self {
            inner: Arc::new(Inner {
                directory: directory.to_owned(),
                state: Mutex::default(),
                done: Condvar::new(),
            }),
        }
    }

    /// Writes a file whole. When it returns the new content survives the loss of power; before, the
    /// old one does.
    pub fn replace(&self, name: &str, content: &[u8]) -> Result<(), StoreError> {
        let draft = self.inner.directory.join(temporary_name()?);
        let path = self.inner.directory.join(name);
        let written = write_synced(&draft, content).and_then(|()| {
            crate::failpoint::reach("file.group.written");
            fs::rename(&draft, &path).map_err(StoreError::io("write", &path))
        });
        if let Err(error) = written {
            fs::remove_file(&draft).ok();
            return Err(error);
        }
        crate::failpoint::reach("file.group.renamed");
        self.sync_names()
    }

    /// Makes what was written to a file that has its name durable.
    pub fn sync(&self, file: &File) -> Result<(), StoreError> {
        file.sync_data()
            .map_err(StoreError::io("sync a file in", &self.inner.directory))
    }

    /// Removes a file durably. Whether there was one.
    pub fn remove(&self, name: &str) -> Result<bool, StoreError> {
        let path = self.inner.directory.join(name);
        match fs::remove_file(&path) {
            Ok(()) => {
                crate::failpoint::reach("file.group.removed");
                self.sync_names().map(|()| true)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(StoreError::io("remove", &path)(error)),
        }
    }

    /// Makes all names in the directory durable. The first of those who wait does it for all of them;
    /// who comes while it is done is in the next group.
    fn sync_names(&self) -> Result<(), StoreError> {
        let own = Waiting::default();
        let mut state = lock(&self.inner.state);
        state.waiting.push(own.clone());
        loop {
            if let Some(result) = lock(&own).take() {
                return result;
            }
            if state.leading {
                let woken = self.inner.done.wait(state);
                state = woken.unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.leading = true;
            let group = std::mem::take(&mut state.waiting);
            drop(state);
            let result = sync_directory(&self.inner.directory);
            crate::failpoint::reach("file.group.synced");
            for waiting in group {
                *lock(&waiting) = Some(share(&result));
            }
            state = lock(&self.inner.state);
            state.leading = false;
            self.inner.done.notify_all();
        }
    }
}

/// A failed sync fails everybody that it was for, each with the same cause.
fn share(result: &Result<(), StoreError>) -> Result<(), StoreError> {
    match result {
        Ok(()) => Ok(()),
        Err(StoreError::Io {
            action,
            path,
            source,
        }) => Err(StoreError::io(action, path)(
            source
                .raw_os_error()
                .map_or_else(|| source.kind().into(), std::io::Error::from_raw_os_error),
        )),
        Err(other) => Err(StoreError::io("sync", "a directory")(
            std::io::Error::other(other.to_string()),
        )),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_many_write_at_once_is_all_there() {
        let directory = tempfile::tempdir().unwrap();
        let group = Group::new(directory.path());
        std::thread::scope(|scope| {
            for writer in 0..16 {
                let group = &group;
                scope.spawn(move || {
                    let name = format!("f{writer}");
                    for turn in 0..5_u8 {
                        group.replace(&name, &[turn]).unwrap();
                    }
                    if writer % 2 == 0 {
                        assert!(group.remove(&name).unwrap());
                        assert!(!group.remove(&name).unwrap());
                    }
                });
            }
        });
        let names = crate::files::names(directory.path()).unwrap();
        assert_eq!(names.len(), 8);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 8);
        for name in names {
            assert_eq!(fs::read(directory.path().join(name)).unwrap(), [4]);
        }
    }

    #[test]
    fn a_failed_sync_is_an_error_for_who_waits() {
        let directory = tempfile::tempdir().unwrap();
        let group = Group::new(&directory.path().join("gone"));
        assert!(group.replace("f", b"x").is_err());
        assert!(group.sync_names().is_err());
    }
}
