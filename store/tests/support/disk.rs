//! A small ext4 of its own: a file, mounted by a loop device for as long as the value lives.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;
use std::process::Command;

/// A mounted file system; taken off at the end of a test, whatever its outcome.
pub(crate) struct Disk {
    directory: tempfile::TempDir,
}

impl Disk {
    /// `options`: of `mkfs.ext4`.
    pub(crate) fn new(mib: u64, options: &[&str]) -> Self {
        // Not on a tmpfs: an image in memory is not what is tested.
        let directory = tempfile::tempdir_in("/var/tmp").unwrap();
        let disk = Self { directory };
        let image = fs::File::create(disk.image()).unwrap();
        image.set_len(mib * 1024 * 1024).unwrap();
        let mut make = Command::new("mkfs.ext4");
        make.args(["-q", "-F", "-m", "0"]).args(options);
        done(make.arg(disk.image()));
        disk.mount();
        disk
    }

    /// Where it is mounted.
    pub(crate) fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    /// From now on every path below it is read-only, as after an error; what is open stays open, which is
    /// why the kernel would refuse to do it to the file system itself.
    pub(crate) fn cover_read_only(&self) {
        let mut bind = Command::new("mount");
        done(bind.arg("--bind").args([self.root(), self.root()]));
        let mut cover = Command::new("mount");
        done(cover.args(["-o", "remount,bind,ro"]).arg(self.root()));
    }

    /// The end of [`Self::cover_read_only`].
    pub(crate) fn uncover(&self) {
        done(Command::new("umount").arg("-l").arg(self.root()));
    }

    /// From now on the device gives and takes nothing: `EXT4_IOC_SHUTDOWN` without a flush.
    pub(crate) fn shut_down(&self) {
        let mut shutdown = Command::new("xfs_io");
        done(shutdown.args(["-x", "-c", "shutdown"]).arg(self.root()));
    }

    /// The bytes that reached the device, in another machine: the journal is replayed.
    pub(crate) fn after_the_power_came_back(&self) -> Self {
        let directory = tempfile::tempdir_in("/var/tmp").unwrap();
        let disk = Self { directory };
        fs::copy(self.image(), disk.image()).unwrap();
        disk.mount();
        disk
    }

    fn image(&self) -> PathBuf {
        self.directory.path().join("image")
    }

    fn mount(&self) {
        fs::create_dir(self.root()).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-o", "loop"]).arg(self.image());
        done(mount.arg(self.root()));
    }

    /// Uses up all bytes but so many.
    pub(crate) fn fill(&self, but: u64) -> PathBuf {
        let disk = rustix::fs::statvfs(self.root()).unwrap();
        // Its own tables need some.
        let bytes = (disk.f_bavail * disk.f_frsize).saturating_sub(but.max(500_000));
        let ballast = self.root().join("ballast");
        let mut file = fs::File::create(&ballast).unwrap();
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes).unwrap();
        if but == 0 {
            file.seek(SeekFrom::End(0)).unwrap();
            while file.write_all(&[0; 4096]).is_ok() {}
            file.sync_all().ok();
        }
        ballast
    }
}

impl Drop for Disk {
    /// The loop device goes with the last user of the mount.
    fn drop(&mut self) {
        let unmount = || Command::new("umount").arg("-l").arg(self.root()).output();
        while unmount().is_ok_and(|output| output.status.success()) {}
    }
}

fn done(command: &mut Command) {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {said}");
}
