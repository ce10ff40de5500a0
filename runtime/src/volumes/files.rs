//! A volume's files as a tar, out and in. Containers may write there meanwhile: everything is found by
//! handle, below the volume.

use std::io::{Read, Write};

use orlop_files::{Kind, Root, Source, Target, Unpacking, pack, unpack};
use rustix::fs::{Mode, OFlags};

use super::Volumes;
use crate::error::{Error, Result};

/// Who uses a volume while it is packed or unpacked; no container has such an id.
const ARCHIVE: &str = "archive";

impl Volumes {
    /// Packs everything in a volume. Blocks.
    pub(crate) fn export(&self, name: &str, out: impl Write) -> Result<()> {
        self.with_files(name, |root| {
            let source = Source::find(&root, b".", false)?;
            pack(&source, &|_, _| false, out)?;
            Ok(())
        })
    }

    /// Unpacks into a volume; answers the bytes of the files. Blocks. What was made before an error stays.
    pub(crate) fn import(&self, name: &str, tar: impl Read) -> Result<u64> {
        if self.get(name)?.options.is_read_only() {
            let problem = format!("the volume {name} is read-only");
            return Err(Error::invalid("volume", problem));
        }
        self.with_files(name, |root| {
            let target = Target::find(root, b".", Kind::Archive, b"")?;
            let how = Unpacking {
                top: b".".to_vec(),
                owners: true,
            };
            Ok(unpack(tar, &target, &how)?)
        })
    }

    /// Mounted meanwhile, if it has to be.
    fn with_files<T>(&self, name: &str, work: impl FnOnce(Root) -> Result<T>) -> Result<T> {
        self.join(name, ARCHIVE)?;
        let done = self.root(name).and_then(work);
        self.leave(name, ARCHIVE)?;
        done
    }

    fn root(&self, name: &str) -> Result<Root> {
        let volume = self.get(name)?;
        let path = self.data(&volume)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::open(&path, flags, Mode::empty());
        let directory = directory.map_err(|errno| Error::file("open", path)(errno.into()))?;
        Ok(Root::of_container(directory))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::events::Events;

    fn volumes(root: &tempfile::TempDir, names: &[&str]) -> Volumes {
        let volumes = Volumes::open(root.path().join("volumes"), Events::new()).unwrap();
        for name in names {
            volumes
                .create(name, Default::default(), Default::default(), false)
                .unwrap();
        }
        volumes
    }

    fn archive(link: Option<&str>, path: &[u8]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        if let Some(to) = link {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            header.set_mode(0o777);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            tar.append_link(&mut header, "out", to).unwrap();
        }
        let mut header = tar::Header::new_gnu();
        header.set_size(4);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.as_old_mut().name[..path.len()].copy_from_slice(path);
        header.set_cksum();
        tar.append(&header, &b"evil"[..]).unwrap();
        tar.into_inner().unwrap()
    }

    #[test]
    fn a_volume_goes_out_and_in_again() {
        let root = tempfile::tempdir().unwrap();
        let volumes = volumes(&root, &["from", "to"]);
        fs::create_dir(volumes.own("from").join("d")).unwrap();
        let file = volumes.own("from").join("d/f");
        fs::write(&file, b"kept").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        symlink("/etc/passwd", volumes.own("from").join("link")).unwrap();
        fs::write(volumes.own("to").join("own"), b"stays").unwrap();
        let mut tar = Vec::new();
        volumes.export("from", &mut tar).unwrap();
        assert_eq!(volumes.import("to", tar.as_slice()).unwrap(), 4);
        let to = volumes.own("to");
        assert_eq!(fs::read(to.join("d/f")).unwrap(), b"kept");
        let mode = fs::metadata(to.join("d/f")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        assert_eq!(
            fs::read_link(to.join("link")).unwrap().to_str(),
            Some("/etc/passwd")
        );
        assert!(to.join("own").exists());
        assert!(matches!(
            volumes.export("none", Vec::new()),
            Err(Error::NoVolume(_))
        ));
    }

    #[test]
    fn d8_an_export_never_has_what_a_link_points_at() {
        let root = tempfile::tempdir().unwrap();
        let volumes = volumes(&root, &["data"]);
        let outside = root.path().join("secret");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("f"), b"CANARY").unwrap();
        let data = volumes.own("data");
        fs::create_dir(data.join("real")).unwrap();
        fs::write(data.join("real/f"), b"inside").unwrap();
        symlink(&outside, data.join("link")).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (a, b) = (data.join("real"), data.join("link"));
                while !done.load(Ordering::Relaxed) {
                    let here = rustix::fs::CWD;
                    let swap = rustix::fs::RenameFlags::EXCHANGE;
                    rustix::fs::renameat_with(here, &a, here, &b, swap).unwrap();
                }
            });
            for _ in 0..500 {
                let mut tar = Vec::new();
                // A directory that is a link a moment later is an error, and that is fine.
                drop(volumes.export("data", &mut tar));
                let leaked = tar.windows(6).any(|bytes| bytes == b"CANARY");
                if leaked {
                    done.store(true, Ordering::Relaxed);
                }
                assert!(!leaked);
            }
            done.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn an_archive_writes_nothing_outside_of_the_volume() {
        let root = tempfile::tempdir().unwrap();
        let volumes = volumes(&root, &["data"]);
        let outside = root.path().join("outside");
        fs::create_dir(&outside).unwrap();
        let up = archive(None, b"../../../outside/f");
        assert!(volumes.import("data", up.as_slice()).is_err());
        let through = archive(outside.to_str(), b"out/f");
        drop(volumes.import("data", through.as_slice()));
        assert!(fs::read_dir(&outside).unwrap().next().is_none());
        let from_top = archive(None, b"/etc/orlop-canary");
        volumes.import("data", from_top.as_slice()).unwrap();
        assert!(volumes.own("data").join("etc/orlop-canary").exists());
        assert!(!std::path::Path::new("/etc/orlop-canary").exists());
    }
}
