//! Small files that are the truth about something: written whole, atomically and durably.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use jiff::Timestamp;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, utimensat};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::StoreError;
pub use group::Group;

mod group;

/// Prefix of the names of files that are not finished. No name from outside begins with a dot.
pub const TEMPORARY: &str = ".tmp-";
/// No record of ours is larger: 16 MiB.
const RECORD_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Makes a directory and its parents, for us alone.
pub fn make_directory(path: &Path) -> Result<(), StoreError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(StoreError::io("create", path))
}

/// Writes `directory/name`: to a temporary name, synced, renamed, the directory synced. After it
/// returns the file survives loss of power; before, the old content does.
pub fn write(directory: &Path, name: &str, content: &[u8]) -> Result<(), StoreError> {
    let temporary = directory.join(temporary_name()?);
    let written = write_synced(&temporary, content).and_then(|()| {
        let path = directory.join(name);
        crate::failpoint::reach("file.write.synced");
        fs::rename(&temporary, &path).map_err(StoreError::io("write", &path))
    });
    if let Err(error) = written {
        fs::remove_file(&temporary).ok();
        return Err(error);
    }
    crate::failpoint::reach("file.write.renamed");
    sync_directory(directory)
}

/// [`write`] of a value as JSON.
pub fn write_json<T: Serialize>(directory: &Path, name: &str, value: &T) -> Result<(), StoreError> {
    let json = serde_json::to_vec(value).map_err(|source| StoreError::DamagedFile {
        path: directory.join(name),
        source,
    })?;
    write(directory, name, &json)
}

/// Reads what [`write_json`] wrote; `None` when there is no such file.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StoreError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io("open", path)(error)),
    };
    let mut bytes = Vec::new();
    file.take(RECORD_BYTES_MAX)
        .read_to_end(&mut bytes)
        .map_err(StoreError::io("read", path))?;
    let value = serde_json::from_slice(&bytes).map_err(|source| StoreError::DamagedFile {
        path: path.to_owned(),
        source,
    })?;
    Ok(Some(value))
}

/// Removes a file durably. Whether there was one.
pub fn remove(directory: &Path, name: &str) -> Result<bool, StoreError> {
    let path = directory.join(name);
    match fs::remove_file(&path) {
        Ok(()) => sync_directory(directory).map(|()| true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(StoreError::io("remove", &path)(error)),
    }
}

/// The names in a directory, without what is not finished, sorted.
pub fn names(directory: &Path) -> Result<Vec<String>, StoreError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(StoreError::io("list", directory))? {
        let entry = entry.map_err(StoreError::io("list", directory))?;
        if let Ok(name) = entry.file_name().into_string()
            && !name.starts_with('.')
        {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Removes what a crash left unfinished in a directory.
pub fn remove_unfinished(directory: &Path) -> Result<(), StoreError> {
    for entry in fs::read_dir(directory).map_err(StoreError::io("list", directory))? {
        let entry = entry.map_err(StoreError::io("list", directory))?;
        if entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(TEMPORARY.as_bytes())
        {
            let path = entry.path();
            fs::remove_file(&path).map_err(StoreError::io("remove", &path))?;
        }
    }
    Ok(())
}

/// Notes in a file's time of modification that it is used now. Not synced; a missing file is fine.
pub fn touch(path: &Path) {
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_NOW,
        },
    };
    if let Err(error) = utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW) {
        tracing::debug!(path = %path.display(), %error, "the use of a file is not noted");
    }
}

/// When a file was last written, or its use noted.
pub fn touched(path: &Path) -> Option<Timestamp> {
    let modified = fs::symlink_metadata(path).ok()?.modified().ok()?;
    Timestamp::try_from(modified).ok()
}

/// Clears what the disk may have behind the end of a file: bytes of a growth that was lost with the
/// power, and that the next one would bring back before its own bytes are written. Not synced.
pub fn clear_behind_end(path: &Path) -> Result<(), StoreError> {
    let clear = |file: File| {
        let size = file.metadata()?.len();
        file.set_len(size + 1)?;
        file.set_len(size)
    };
    let file = OpenOptions::new().write(true).open(path);
    file.and_then(clear)
        .map_err(StoreError::io("clear the end of", path))
}

/// Makes the names in a directory durable, or the bytes of a file.
pub fn sync_directory(directory: &Path) -> Result<(), StoreError> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(StoreError::io("sync", directory))
}

/// A fresh name for something unfinished.
pub fn temporary_name() -> Result<String, StoreError> {
    let mut random = [0; 12];
    getrandom::fill(&mut random).map_err(|error| {
        StoreError::io("read", "the random source")(std::io::Error::other(error.to_string()))
    })?;
    Ok(format!("{TEMPORARY}{}", hex::encode(random)))
}

fn write_synced(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(StoreError::io("create", path))?;
    file.write_all(content)
        .and_then(|()| file.sync_data())
        .map_err(StoreError::io("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_round_trips_and_leaves_nothing_unfinished() {
        let directory = tempfile::tempdir().unwrap();
        write_json(directory.path(), "a", &vec![1, 2]).unwrap();
        write_json(directory.path(), "a", &vec![3]).unwrap();
        let read: Option<Vec<u8>> = read_json(&directory.path().join("a")).unwrap();
        assert_eq!(read, Some(vec![3]));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        assert!(remove(directory.path(), "a").unwrap());
        assert!(!remove(directory.path(), "a").unwrap());
    }
}
