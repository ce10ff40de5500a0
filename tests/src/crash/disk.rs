//! Where a store is put: a directory, or a disk whose power can be cut.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{UnmountFlags, unmount};
use tempfile::TempDir;

const DISK_BYTES: u64 = 1 << 30;

/// A place for a store. Dropping it unmounts and removes everything.
#[derive(Debug)]
pub struct Place {
    directory: TempDir,
    disk: bool,
}

impl Place {
    /// A directory on the disk of the host.
    pub fn directory() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("orlop-crash-")
            .tempdir_in("/var/tmp")
            .unwrap();
        let place = Self {
            directory,
            disk: false,
        };
        std::fs::create_dir(place.root()).unwrap();
        place
    }

    /// An ext4 file system of its own, in a file.
    pub fn disk() -> Self {
        let mut place = Self::directory();
        let image = place.image();
        File::create(&image).unwrap().set_len(DISK_BYTES).unwrap();
        run(Command::new("mkfs.ext4")
            .args(["-q", "-F", "-E", "lazy_itable_init=1"])
            .arg(&image));
        place.disk = true;
        place.mount();
        place
    }

    /// The root of the instance.
    pub fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    /// Where sockets and logs are: not on the disk.
    pub fn run_dir(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    /// From now on every operation on the disk fails, and what was not synced is lost.
    pub fn cut_power(&self) {
        let root = File::open(self.root()).unwrap();
        orlop_sys::fs::cut_power(root.as_fd()).unwrap();
    }

    /// Switches the machine on again: nobody uses the disk any more, its journal is replayed.
    pub fn restore_power(&self) {
        self.unmount();
        crate::eventually("the disk has power", || {
            self.mount();
            let powered = self.has_power();
            if !powered {
                self.unmount();
            }
            powered
        });
    }

    /// While another mount namespace still has the disk, what is mounted again is the one without power.
    fn has_power(&self) -> bool {
        let probe = self.root().join("probe");
        let synced = File::create(&probe).is_ok_and(|file| file.sync_all().is_ok());
        synced && std::fs::remove_file(&probe).is_ok()
    }

    /// With the layers that a killed store left mounted. Its files are closed a moment after it is gone.
    fn unmount(&self) {
        crate::eventually("the disk can be unmounted", || {
            let status = Command::new("umount").arg("-R").arg(self.root()).output();
            status.is_ok_and(|output| output.status.success())
        });
    }

    fn mount(&self) {
        run(Command::new("mount")
            .args(["-o", "loop"])
            .arg(self.image())
            .arg(self.root()));
    }

    fn image(&self) -> PathBuf {
        self.directory.path().join("disk")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for mount in mounts_below(self.directory.path()) {
            if let Err(error) = unmount(&mount, UnmountFlags::DETACH) {
                eprintln!("{} stays mounted: {error}", mount.display());
            }
        }
    }
}

/// Where something is mounted below a directory, the innermost first.
fn mounts_below(directory: &Path) -> Vec<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let places = table.lines().filter_map(|line| line.split(' ').nth(4));
    let mut below: Vec<PathBuf> = places.map(PathBuf::from).collect();
    below.retain(|place| place.starts_with(directory));
    below.reverse();
    below
}

/// All files below a directory.
pub fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
