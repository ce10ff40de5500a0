//! Volumes: directories that outlive containers, `ROOT/runtime/volumes/<name>/{volume.json,_data}`.
//! The files are the truth; a directory without `volume.json` is half-made or half-removed.

pub(crate) mod driver;
mod files;
pub(crate) mod filter;
mod mounted;
mod usage;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use self::driver::Options;
use self::mounted::Users;
use crate::containers::names;
use crate::error::{Error, Result};
use crate::events::{Events, Kind};
use crate::files::{self as disk, Durability};

const FILE: &str = "volume.json";
const DATA: &str = "_data";
const DIRECTORY_MODE: u32 = 0o700;
/// What a volume's root looks like before an image's content is copied into it.
const DATA_MODE: u32 = 0o755;

/// The volumes of this instance.
#[derive(Clone, Debug)]
pub(crate) struct Volumes {
    directory: PathBuf,
    events: Events,
    /// Of volumes that are mounted.
    users: Users,
}

/// One volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Volume {
    /// Unique.
    pub(crate) name: String,
    /// When it was made.
    pub(crate) created: Timestamp,
    /// As given at creation.
    pub(crate) labels: HashMap<String, String>,
    /// Made for one container, without a name of its own.
    pub(crate) anonymous: bool,
    /// Where its files are, if elsewhere.
    #[serde(default)]
    pub(crate) options: Options,
}

impl Volumes {
    /// Opens the directory and removes what a crash left half-made or half-removed.
    pub(crate) fn open(directory: PathBuf, events: Events) -> Result<Self> {
        disk::make_directory(&directory, DIRECTORY_MODE)
            .map_err(Error::file("make", &directory))?;
        let volumes = Self {
            directory,
            events,
            users: Users::default(),
        };
        for name in volumes.entries()? {
            let path = volumes.directory.join(&name);
            if !path.join(FILE).exists() {
                disk::remove_tree(&path).map_err(Error::file("remove", path))?;
            }
        }
        Ok(volumes)
    }

    /// Where a volume's files are, now.
    pub(crate) fn data(&self, volume: &Volume) -> Result<PathBuf> {
        match volume.options.device() {
            Some(device) => driver::resolve(device),
            None => Ok(self.own(&volume.name)),
        }
    }

    /// Where a person finds a volume's files.
    pub(crate) fn place(&self, volume: &Volume) -> PathBuf {
        let own = || self.own(&volume.name);
        volume.options.device().map_or_else(own, Path::to_owned)
    }

    /// A container is about to run with a volume, which is mounted if it has to be. Blocks.
    pub(crate) fn join(&self, name: &str, container: &str) -> Result<()> {
        match self.get(name)?.options.filesystem() {
            Some(fs) => self.users.join(name, container, &fs, &self.own(name)),
            None => Ok(()),
        }
    }

    /// A container that runs already has a volume.
    pub(crate) fn adopt(&self, name: &str, container: &str) {
        self.users.adopt(name, container);
    }

    /// A container does not run any more; what was mounted for it is unmounted. Idempotent. Blocks.
    pub(crate) fn leave(&self, name: &str, container: &str) -> Result<()> {
        match self.get(name)?.options.filesystem() {
            Some(_) => self.users.leave(name, container, &self.own(name)),
            None => Ok(()),
        }
    }

    fn own(&self, name: &str) -> PathBuf {
        self.directory.join(name).join(DATA)
    }

    /// Makes a volume; one that is there is answered as it is. An empty name: one is made up.
    pub(crate) fn create(
        &self,
        name: &str,
        labels: HashMap<String, String>,
        options: Options,
        anonymous: bool,
    ) -> Result<Volume> {
        let name = match name {
            "" => names::new_id()?,
            name => name.to_owned(),
        };
        names::check("volume name", &name, 1)?;
        match self.get(&name) {
            Err(Error::NoVolume(_)) => {}
            Ok(found) => {
                found.options.check_same(&name, &options)?;
                return Ok(found);
            }
            Err(error) => return Err(error),
        }
        let volume = Volume {
            name,
            created: Timestamp::now(),
            labels,
            anonymous,
            options,
        };
        self.write(&volume)?;
        self.tell("create", &volume.name);
        Ok(volume)
    }

    fn tell(&self, action: &str, name: &str) {
        let driver = ("driver".to_owned(), "local".to_owned());
        self.events
            .tell(Kind::Volume, action, name, [driver].into());
    }

    fn write(&self, volume: &Volume) -> Result<()> {
        let directory = self.directory.join(&volume.name);
        let data = directory.join(DATA);
        disk::make_directory(&directory, DIRECTORY_MODE)
            .map_err(Error::file("make", &directory))?;
        disk::make_directory(&data, DATA_MODE).map_err(Error::file("make", &data))?;
        let path = directory.join(FILE);
        let json = serde_json::to_vec(volume).map_err(|e| Error::Json(path.clone(), e))?;
        // A volume of one container is no more durable than that container's own record.
        let durability = if volume.anonymous {
            Durability::Process
        } else {
            Durability::Power
        };
        disk::replace(&path, &json, durability).map_err(Error::file("write", path))?;
        if durability == Durability::Power {
            disk::sync_directory(&self.directory).map_err(Error::file("sync", &self.directory))?;
        }
        Ok(())
    }

    /// One volume by its name.
    pub(crate) fn get(&self, name: &str) -> Result<Volume> {
        names::check("volume name", name, 1)?;
        let path = self.directory.join(name).join(FILE);
        match fs::read(&path) {
            Ok(json) => serde_json::from_slice(&json).map_err(|e| Error::Json(path, e)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(Error::NoVolume(name.to_owned()))
            }
            Err(error) => Err(Error::file("read", path)(error)),
        }
    }

    /// All volumes, by name.
    pub(crate) fn list(&self) -> Result<Vec<Volume>> {
        let mut volumes = Vec::new();
        for name in self.entries()? {
            match self.get(&name) {
                Ok(volume) => volumes.push(volume),
                // Removed since the directory was read.
                Err(Error::NoVolume(_)) => {}
                Err(error) => return Err(error),
            }
        }
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(volumes)
    }

    /// Removes a volume and its files. The caller knows that no container uses it.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        self.get(name)?;
        let directory = self.directory.join(name);
        let record = directory.join(FILE);
        disk::remove_file(&record).map_err(Error::file("remove", record))?;
        disk::sync_directory(&directory).map_err(Error::file("sync", &directory))?;
        disk::remove_tree(&directory).map_err(Error::file("remove", directory))?;
        self.tell("destroy", name);
        Ok(())
    }

    /// Bytes of a volume's files. Blocks.
    pub(crate) fn bytes(&self, volume: &Volume) -> u64 {
        self.data(volume).map_or(0, |data| usage::bytes(&data))
    }

    fn entries(&self) -> Result<Vec<String>> {
        let failed = || Error::file("read", &self.directory);
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(failed())? {
            let entry = entry.map_err(failed())?;
            names.extend(entry.file_name().into_string());
        }
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_made_once_and_found_again() {
        let root = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(root.path().join("volumes"), Events::new()).unwrap();
        let labels = HashMap::from([("a".to_owned(), "b".to_owned())]);
        let made = volumes
            .create("data", labels, Options::default(), false)
            .unwrap();
        fs::write(volumes.own("data").join("f"), b"four").unwrap();
        let again = volumes
            .create("data", HashMap::new(), Options::default(), false)
            .unwrap();
        assert_eq!(made, again);
        let reopened = Volumes::open(root.path().join("volumes"), Events::new()).unwrap();
        assert_eq!(reopened.list().unwrap(), std::slice::from_ref(&made));
        assert_eq!(reopened.bytes(&made), 4);
        reopened.remove("data").unwrap();
        assert!(matches!(reopened.get("data"), Err(Error::NoVolume(_))));
        assert!(!root.path().join("volumes/data").exists());
    }

    #[test]
    fn the_files_of_a_volume_elsewhere_outlive_it() {
        let root = tempfile::tempdir().unwrap();
        let device = root.path().join("device");
        fs::create_dir(&device).unwrap();
        fs::write(device.join("f"), b"kept").unwrap();
        let volumes = Volumes::open(root.path().join("volumes"), Events::new()).unwrap();
        let device_option = device.to_str().unwrap().to_owned();
        let options = [
            ("o".to_owned(), "bind".to_owned()),
            ("device".to_owned(), device_option),
        ];
        let options = Options::parse(options).unwrap();
        let made = volumes
            .create("data", HashMap::new(), options, false)
            .unwrap();
        assert_eq!(volumes.get("data").unwrap(), made);
        assert_eq!(volumes.bytes(&made), 4);
        volumes.remove("data").unwrap();
        assert_eq!(fs::read(device.join("f")).unwrap(), b"kept");
    }

    #[test]
    fn what_a_crash_left_half_made_is_removed_at_open() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("half/_data")).unwrap();
        let volumes = Volumes::open(root.path().to_owned(), Events::new()).unwrap();
        assert!(volumes.list().unwrap().is_empty());
        assert!(!root.path().join("half").exists());
    }

    #[test]
    fn c16_a_volume_name_cannot_leave_the_directory() {
        let root = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(root.path().join("volumes"), Events::new()).unwrap();
        for bad in ["..", ".", "a/b", "../x", "/etc"] {
            assert!(
                volumes
                    .create(bad, HashMap::new(), Options::default(), false)
                    .is_err(),
                "{bad}"
            );
            assert!(volumes.remove(bad).is_err(), "{bad}");
        }
    }
}
