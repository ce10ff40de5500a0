//! Options of the driver `local`: a volume whose files are elsewhere, on the host or in a file system of
//! their own.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use rustix::mount::MountAttrFlags;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::spec::validate;

/// What `o` of a tmpfs may say.
const TMPFS_KEYS: [&str; 6] = ["size", "nr_blocks", "nr_inodes", "mode", "uid", "gid"];
/// What `o` of NFS may say (nfs(5)), beside `addr`; what mount.nfs alone understands is none of it.
const NFS_KEYS: [&str; 21] = [
    "port",
    "vers",
    "nfsvers",
    "minorversion",
    "proto",
    "rsize",
    "wsize",
    "bsize",
    "timeo",
    "retrans",
    "acregmin",
    "acregmax",
    "acdirmin",
    "acdirmax",
    "actimeo",
    "sec",
    "lookupcache",
    "local_lock",
    "mountport",
    "mountproto",
    "mountvers",
];
const NFS_FLAGS: [&str; 19] = [
    "soft",
    "softerr",
    "hard",
    "ac",
    "noac",
    "lock",
    "nolock",
    "cto",
    "nocto",
    "acl",
    "noacl",
    "rdirplus",
    "nordirplus",
    "sharecache",
    "nosharecache",
    "resvport",
    "noresvport",
    "fsc",
    "posix",
];
const VALUE_BYTES_MAX: usize = 64;
const SOURCE_BYTES_MAX: usize = 1024;

/// A file system that is mounted for containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filesystem {
    /// `tmpfs`, `nfs` or `nfs4`.
    pub(super) kind: String,
    /// What is mounted.
    pub(super) source: String,
    /// Host whose address the kernel is to be told.
    pub(super) address: Option<String>,
    /// Of the mount.
    pub(super) attributes: MountAttrFlags,
    /// Of the file system; without a value: a flag.
    pub(super) options: Vec<(String, Option<String>)>,
}

/// As mount(8) takes them: `type`, `device` and `o`. None: the files are the volume's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Options(BTreeMap<String, String>);

impl Options {
    /// Refuses what would not be done: nothing here reaches the kernel as text.
    pub(crate) fn parse(options: impl IntoIterator<Item = (String, String)>) -> Result<Self> {
        let options = Self(options.into_iter().collect());
        if options.0.is_empty() {
            return Ok(options);
        }
        let known = |key: &&String| !matches!(key.as_str(), "type" | "device" | "o");
        if let Some(key) = options.0.keys().find(known) {
            return Err(refused(key, "expected type, device and o"));
        }
        if options.is_mounted() {
            options.read_filesystem()?;
            return Ok(options);
        }
        options.check_type()?;
        validate::absolute("volume device", options.get("device"))?;
        let mut bind = false;
        for word in options.words() {
            match word {
                "bind" | "rbind" => bind = true,
                "ro" | "rw" => {}
                other => return Err(refused(other, "expected bind, rbind, ro or rw")),
            }
        }
        match bind {
            true => Ok(options),
            false => Err(refused("o", "type=none needs bind or rbind")),
        }
    }

    fn check_type(&self) -> Result<()> {
        match self.get("type") {
            "none" | "bind" | "" => Ok(()),
            other => {
                let problem = "expected none (with o=bind), tmpfs, nfs or nfs4";
                Err(refused(&format!("type={other}"), problem))
            }
        }
    }

    /// It has a file system of its own.
    fn is_mounted(&self) -> bool {
        matches!(self.get("type"), "tmpfs" | "nfs" | "nfs4")
    }

    /// The file system that the volume is; absent: it is a directory.
    pub(super) fn filesystem(&self) -> Option<Filesystem> {
        self.is_mounted()
            .then(|| self.read_filesystem().ok())
            .flatten()
    }

    fn read_filesystem(&self) -> Result<Filesystem> {
        let (kind, source) = (self.get("type"), self.get("device"));
        if source.is_empty() || source.len() > SOURCE_BYTES_MAX {
            return Err(refused(
                "device",
                "expected what to mount, of at most 1024 bytes",
            ));
        }
        if kind != "tmpfs" && !source.contains(":/") {
            return Err(refused(source, "expected HOST:/PATH or :/PATH"));
        }
        let mut fs = Filesystem {
            kind: kind.to_owned(),
            source: source.to_owned(),
            address: None,
            attributes: MountAttrFlags::MOUNT_ATTR_NODEV,
            options: Vec::new(),
        };
        for word in self.words() {
            fs.add(word)?;
        }
        match kind != "tmpfs" && fs.address.is_none() {
            true => Err(refused("o", "NFS needs addr=HOST")),
            false => Ok(fs),
        }
    }

    fn get(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }

    fn words(&self) -> impl Iterator<Item = &str> {
        self.get("o").split(',').filter(|word| !word.is_empty())
    }

    /// Where the files are.
    pub(super) fn device(&self) -> Option<&Path> {
        let device = self.0.get("device").filter(|_| !self.is_mounted());
        device.map(Path::new)
    }

    /// Nobody writes through this volume: of `ro` and `rw` the last one counts.
    pub(crate) fn is_read_only(&self) -> bool {
        let access = self.words().filter(|word| matches!(*word, "ro" | "rw"));
        access.last() == Some("ro")
    }

    /// What is mounted below the device is in the volume, too.
    pub(crate) fn is_deep(&self) -> bool {
        self.0.is_empty() || self.is_mounted() || self.words().any(|word| word == "rbind")
    }

    /// As they were given.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &String)> {
        self.0.iter()
    }

    /// Of two volumes of one name.
    pub(super) fn check_same(&self, name: &str, asked: &Self) -> Result<()> {
        if asked.0.is_empty() || self == asked {
            return Ok(());
        }
        let mut own = String::new();
        for (key, value) in &self.0 {
            // Writing to a string cannot fail.
            write!(own, " {key}={value}").ok();
        }
        let problem = format!("the volume {name} is there with other options:{own}");
        Err(Error::invalid("volume option", problem))
    }
}

impl Filesystem {
    /// One word of `o`. Nothing that is not known reaches the kernel.
    fn add(&mut self, word: &str) -> Result<()> {
        let unknown = || refused(word, "not an option of volumes of this type");
        if let Some((key, value)) = word.split_once('=') {
            let plain = |c: char| c.is_ascii_alphanumeric() || "._:%-".contains(c);
            if value.is_empty() || value.len() > VALUE_BYTES_MAX || !value.chars().all(plain) {
                return Err(refused(word, "a value that cannot be"));
            }
            let is_nfs = self.kind != "tmpfs";
            match (key, is_nfs) {
                ("addr", true) => self.address = Some(value.to_owned()),
                (key, true) if NFS_KEYS.contains(&key) => self.option(key, Some(value)),
                (key, false) if TMPFS_KEYS.contains(&key) => self.option(key, Some(value)),
                _ => return Err(unknown()),
            }
            return Ok(());
        }
        match word {
            // What reads and writes is the container's mount of it.
            "ro" | "rw" | "nodev" => {}
            "nosuid" => self.attributes |= MountAttrFlags::MOUNT_ATTR_NOSUID,
            "noexec" => self.attributes |= MountAttrFlags::MOUNT_ATTR_NOEXEC,
            "noatime" => self.attributes |= MountAttrFlags::MOUNT_ATTR_NOATIME,
            flag if self.kind != "tmpfs" && NFS_FLAGS.contains(&flag) => self.option(flag, None),
            _ => return Err(unknown()),
        }
        Ok(())
    }

    fn option(&mut self, key: &str, value: Option<&str>) {
        self.options
            .push((key.to_owned(), value.map(str::to_owned)));
    }
}

/// The device as the host has it now, without links.
pub(super) fn resolve(device: &Path) -> Result<PathBuf> {
    std::fs::canonicalize(device).map_err(Error::file("find the device of a volume", device))
}

fn refused(what: &str, problem: &str) -> Error {
    let shown: String = what.chars().take(64).collect();
    Error::invalid("volume option", format!("{shown}: {problem}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[(&str, &str)]) -> Result<Options> {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        Options::parse(options.iter().map(owned))
    }

    #[test]
    fn a_directory_of_the_host_can_be_a_volume() {
        let bind = [("type", "none"), ("o", "bind,ro"), ("device", "/srv/data")];
        let bind = parse(&bind).unwrap();
        assert_eq!(bind.device(), Some(Path::new("/srv/data")));
        assert!(bind.is_read_only() && !bind.is_deep());
        let own = parse(&[]).unwrap();
        assert!(own.device().is_none() && own.is_deep() && !own.is_read_only());
        let last = parse(&[("o", "ro,rbind,rw"), ("device", "/d")]).unwrap();
        assert!(last.is_deep() && !last.is_read_only());
    }

    #[test]
    fn what_is_not_built_or_hostile_is_refused_by_name() {
        let (none, device) = (("type", "none"), ("device", "/srv"));
        for (options, told) in [
            (
                vec![("type", "nfs"), device, ("o", "addr=10.0.0.1")],
                "/srv",
            ),
            (vec![("type", "nfs"), ("device", ":/srv")], "addr"),
            (
                vec![("type", "nfs"), ("device", ":/s"), ("o", "addr=a/b")],
                "a/b",
            ),
            (vec![("type", "nfs"), ("device", ":/s"), ("o", "bg")], "bg"),
            (vec![("type", "tmpfs")], "device"),
            (
                vec![("type", "tmpfs"), ("device", "t"), ("o", "soft")],
                "soft",
            ),
            (
                vec![("type", "tmpfs"), ("device", "t"), ("o", "size=")],
                "size",
            ),
            (vec![("type", "ext4"), ("device", "/dev/sda")], "type=ext4"),
            (vec![none, device, ("o", "bind,suid")], "suid"),
            (vec![none, device, ("o", "bind,lowerdir=/etc")], "lowerdir"),
            (vec![none, device], "bind"),
            (vec![none, ("o", "bind")], "device"),
            (
                vec![none, ("o", "bind"), ("device", "/srv/../etc")],
                "device",
            ),
            (vec![none, ("o", "bind"), ("device", "srv")], "device"),
            (vec![("size", "1g")], "size"),
        ] {
            let error = parse(&options).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn a_file_system_has_the_kernels_options_and_the_mounts() {
        let tmpfs = parse(&[
            ("type", "tmpfs"),
            ("device", "tmpfs"),
            ("o", "size=100m,uid=1000,noexec,ro"),
        ]);
        let tmpfs = tmpfs.unwrap();
        assert!(tmpfs.device().is_none() && tmpfs.is_read_only());
        let fs = tmpfs.filesystem().unwrap();
        let option = |key: &str, value: &str| (key.to_owned(), Some(value.to_owned()));
        assert_eq!(fs.options, [option("size", "100m"), option("uid", "1000")]);
        assert!(fs.attributes.contains(MountAttrFlags::MOUNT_ATTR_NOEXEC));
        let nfs = parse(&[
            ("type", "nfs4"),
            ("device", ":/export"),
            ("o", "addr=files.example,soft,timeo=30"),
        ]);
        let fs = nfs.unwrap().filesystem().unwrap();
        assert_eq!((fs.kind.as_str(), fs.source.as_str()), ("nfs4", ":/export"));
        assert_eq!(fs.address.as_deref(), Some("files.example"));
        assert_eq!(
            fs.options,
            [("soft".to_owned(), None), option("timeo", "30")]
        );
    }

    #[test]
    fn a_volume_does_not_change_its_options() {
        let own = parse(&[("o", "bind"), ("device", "/a")]).unwrap();
        own.check_same("v", &parse(&[]).unwrap()).unwrap();
        own.check_same("v", &own).unwrap();
        let other = parse(&[("o", "bind"), ("device", "/b")]).unwrap();
        let error = own.check_same("v", &other).unwrap_err().to_string();
        assert!(error.contains("device=/a"), "{error}");
    }
}
