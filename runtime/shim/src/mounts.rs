//! The mounts of the specification: opened on the host's side before the container exists, attached
//! on the container's side by handle, in order.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use crate::config::Cgroup;
use oci_spec::runtime::{LinuxDevice, Mount};
use orlop_sys::mount::{self, Propagation, attributes};
use rustix::fs::{CWD, Mode, OFlags, XattrFlags};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, OpenTreeFlags, open_tree};

use crate::copy_up;
use crate::devices;
use crate::error::{Error, Result};
use crate::rootfs::{self, Kind};
use crate::userns::UserNamespace;

/// `PROC_SUPER_MAGIC`.
pub(crate) const PROC_MAGIC: u64 = 0x9fa0;
/// `TMPFS_MAGIC`.
pub(crate) const TMPFS_MAGIC: u64 = 0x0102_1994;
/// `DEVPTS_SUPER_MAGIC`.
pub(crate) const DEVPTS_MAGIC: u64 = 0x1cd1;

/// The word of mount(8) for a part of a source.
const SUBPATH: &str = "X-mount.subdir";
/// runc's word for a tmpfs that begins with what is at its place, which podman says.
const COPY_UP: &str = "tmpcopyup";

/// The options of one mount, sorted.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Options {
    set: u64,
    clear: u64,
    bind: bool,
    recursive: bool,
    /// Read-only, and so is all that is mounted below.
    read_only_below: bool,
    /// With the owners as the container's user namespace maps them.
    mapped: bool,
    propagation: Option<(Propagation, bool)>,
    data: Vec<(String, Option<String>)>,
}

impl Options {
    /// Sorts the words of the OCI specification and of mount(8).
    pub(crate) fn parse(words: &[String]) -> Self {
        let mut options = Self::default();
        for word in words {
            if !options.attribute(word) && !options.tree(word) {
                let (key, value) = match word.split_once('=') {
                    Some((key, value)) => (key, Some(value.to_owned())),
                    None => (word.as_str(), None),
                };
                options.data.push((key.to_owned(), value));
            }
        }
        options
    }

    fn attribute(&mut self, word: &str) -> bool {
        if matches!(word, "ro" | "rro" | "rw") {
            self.read_only_below = word == "rro";
        }
        self.mapped |= word == "idmap";
        let (set, clear) = match word {
            "defaults" | "idmap" => (0, 0),
            "ro" | "rro" => (attributes::READ_ONLY, 0),
            "rw" => (0, attributes::READ_ONLY),
            "nosuid" => (attributes::NO_SUID, 0),
            "suid" => (0, attributes::NO_SUID),
            "nodev" => (attributes::NO_DEV, 0),
            "dev" => (0, attributes::NO_DEV),
            "noexec" => (attributes::NO_EXEC, 0),
            "exec" => (0, attributes::NO_EXEC),
            "noatime" => (attributes::NO_ATIME, attributes::ATIME_MASK),
            "relatime" => (0, attributes::ATIME_MASK),
            "strictatime" => (attributes::STRICT_ATIME, attributes::ATIME_MASK),
            "nodiratime" => (attributes::NO_DIR_ATIME, 0),
            "nosymfollow" => (attributes::NO_SYMLINK_FOLLOW, 0),
            _ => return false,
        };
        self.set = self.set & !clear | set;
        self.clear = self.clear & !set | clear;
        true
    }

    /// Whether a word is there, which is no option of the file system.
    fn take(&mut self, word: &str) -> bool {
        let before = self.data.len();
        self.data.retain(|(key, _)| key != word);
        self.data.len() < before
    }

    /// The part of the source that is mounted.
    fn subpath(&self) -> Option<&str> {
        let part = self.data.iter().find(|(key, _)| key == SUBPATH);
        part.and_then(|(_, value)| value.as_deref())
    }

    fn tree(&mut self, word: &str) -> bool {
        let (name, recursive) = match word.strip_prefix('r') {
            Some(name) if !matches!(word, "rw" | "ro") => (name, true),
            _ => (word, false),
        };
        let propagation = match name {
            "bind" => {
                self.bind = true;
                self.recursive |= recursive;
                return true;
            }
            "private" => Propagation::Private,
            "slave" => Propagation::Slave,
            "shared" => Propagation::Shared,
            "unbindable" => Propagation::Unbindable,
            _ => return false,
        };
        self.propagation = Some((propagation, recursive));
        true
    }
}

/// Clones the tree that a bind mount shows, with its attributes set. `None` for other mounts.
///
/// On the host's side: the source is a path of the host, given by the operator.
pub(crate) fn open_source(mount: &Mount, user: Option<&UserNamespace>) -> Result<Option<OwnedFd>> {
    let options = Options::parse(mount.options().as_deref().unwrap_or_default());
    if !options.bind && mount.typ().as_deref() != Some("bind") {
        return Ok(None);
    }
    let destination = mount.destination();
    let unknown = |(key, _): &&(String, _)| key != SUBPATH;
    if let Some((option, _)) = options.data.iter().find(unknown) {
        let (destination, option) = (destination.clone(), option.clone());
        return Err(Error::Option {
            destination,
            option,
        });
    }
    let path = mount
        .source()
        .as_deref()
        .ok_or(Error::Missing("the source of a bind mount"))?;
    let tree = clone(path, &options).map_err(|source| Error::Source {
        path: path.join(options.subpath().unwrap_or_default()),
        destination: destination.clone(),
        source,
    })?;
    let fail = |step| {
        move |source| Error::Mount {
            destination: destination.clone(),
            step,
            source,
        }
    };
    dress(&tree, &options).map_err(fail("attributes of the bind mount"))?;
    match user {
        Some(user) if options.mapped => user
            .map(&tree)
            .map_err(fail("map the owners; its file system may be unable to"))?,
        None if options.mapped => return Err(Error::Missing("a user namespace for idmap")),
        _ => {}
    }
    Ok(Some(tree))
}

/// `/dev` with its devices, mapped: who is privileged in a user namespace only makes no devices.
pub(crate) fn open_dev(
    mount: &Mount,
    devices: &[LinuxDevice],
    user: &UserNamespace,
    label: Option<&str>,
) -> Result<OwnedFd> {
    let destination = mount.destination();
    let fail = |step| {
        move |source| Error::Mount {
            destination: destination.clone(),
            step,
            source,
        }
    };
    let options = Options::parse(mount.options().as_deref().unwrap_or_default());
    let made = make(mount, options, label);
    let tree = made.map_err(|errno| fail("make the file system")(errno.into()))?;
    let before = rustix::process::umask(Mode::empty());
    let populated = devices::populate(&tree, devices);
    rustix::process::umask(before);
    populated?;
    user.map(&tree).map_err(fail("map the owners"))?;
    Ok(tree)
}

/// What the kernel shows of itself, attached nowhere; `None` for other mounts.
pub(crate) fn make_kernels(mount: &Mount) -> Result<Option<OwnedFd>> {
    if !matches!(mount.typ().as_deref(), Some("proc" | "sysfs")) {
        return Ok(None);
    }
    let options = Options::parse(mount.options().as_deref().unwrap_or_default());
    let made = make(mount, options, None).map_err(|errno| Error::Mount {
        destination: mount.destination().clone(),
        step: "make the file system",
        source: errno.into(),
    });
    made.map(Some)
}

/// A part of a source is found by handle and stays in it: other containers may write there meanwhile
/// (row B31).
fn clone(path: &Path, options: &Options) -> std::io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags.set(OpenTreeFlags::AT_RECURSIVE, options.recursive);
    let Some(subpath) = options.subpath() else {
        return Ok(open_tree(CWD, path, flags)?);
    };
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let whole = rustix::fs::open(path, directory, Mode::empty())?;
    let part = rootfs::open_in(whole, Path::new(subpath), OFlags::PATH)?;
    Ok(open_tree(part, "", flags | OpenTreeFlags::AT_EMPTY_PATH)?)
}

/// Attributes and propagation of a bind mount. Private, unless asked for otherwise: nothing that
/// happens in the container shows on the host, and the other way round. What is read-only on the host
/// stays so: "rw" asks for no more than the source has.
fn dress(tree: &OwnedFd, options: &Options) -> std::io::Result<()> {
    let recursive = options.recursive;
    let clear = options.clear & !attributes::READ_ONLY;
    let own = options.set & attributes::READ_ONLY;
    mount::set(tree.as_fd(), own, 0, None, options.read_only_below)?;
    let set = options.set & !attributes::READ_ONLY;
    mount::set(tree.as_fd(), set, clear, None, recursive)?;
    let (propagation, deep) = options.propagation.unwrap_or((Propagation::Private, true));
    mount::set(tree.as_fd(), 0, 0, Some(propagation), deep)
}

/// Attaches one mount below `root`, in the container; a file system that is made for it has the SELinux
/// `label`.
pub(crate) fn attach(
    root: BorrowedFd<'_>,
    mount: &Mount,
    tree: Option<&OwnedFd>,
    groups: &Groups<'_>,
    label: Option<&str>,
) -> Result<()> {
    let destination = mount.destination().as_path();
    let kind = match tree {
        Some(tree) if !rootfs::is_directory(tree.as_fd()) => Kind::File,
        _ => Kind::Directory,
    };
    let target = rootfs::ensure(root, destination, kind)?;
    let fail = |step| {
        move |errno: Errno| Error::Mount {
            destination: destination.into(),
            step,
            source: errno.into(),
        }
    };
    if let Some(tree) = tree {
        return rootfs::attach(tree.as_fd(), target.as_fd()).map_err(fail("attach"));
    }
    let kind = mount
        .typ()
        .as_deref()
        .ok_or(Error::Missing("the type of a mount"))?;
    let mut options = Options::parse(mount.options().as_deref().unwrap_or_default());
    match kind {
        "cgroup" | "cgroup2" => attach_cgroups(root, destination, &target, &options, groups),
        "proc" | "sysfs" | "tmpfs" | "devpts" | "mqueue" => {
            let filled = kind == "tmpfs" && options.take(COPY_UP);
            let tree = make(mount, options, label).map_err(fail("make the file system"))?;
            if filled {
                let top = open_top(&tree).map_err(fail("fill"))?;
                copy_up::copy(root, destination, &top)?;
            }
            rootfs::attach(tree.as_fd(), target.as_fd()).map_err(fail("attach"))
        }
        other => Err(Error::Unsupported(format!("a mount of type {other:?}"))),
    }
}

/// A new file system. Those that hold files of the container's get its label, the kernel's own do not.
fn make(mount: &Mount, mut options: Options, label: Option<&str>) -> rustix::io::Result<OwnedFd> {
    let kind = mount.typ().as_deref().unwrap_or_default();
    let source = mount.source().as_deref().unwrap_or(Path::new(kind));
    let bits = MountAttrFlags::from_bits_retain(bits(options.set));
    let context = label.filter(|_| matches!(kind, "tmpfs" | "devpts"));
    let context = context.map(|label| ("context".to_owned(), Some(label.to_owned())));
    options.data.extend(context);
    let tree = rootfs::new_filesystem(kind, source, &options.data, bits)?;
    if let Some(label) = label.filter(|_| kind == "mqueue") {
        // It knows no such option.
        let (top, flags) = (open_top(&tree)?, XattrFlags::empty());
        rustix::fs::fsetxattr(top, "security.selinux", label.as_bytes(), flags)?;
    }
    Ok(tree)
}

fn open_top(tree: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(tree, ".", flags, Mode::empty())
}

/// Mount attributes that `fsmount` takes.
fn bits(set: u64) -> u32 {
    u32::try_from(set).unwrap_or_default()
}

/// What a container sees of its cgroups.
pub(crate) struct Groups<'a> {
    cgroups: &'a [Cgroup],
    /// In the host's cgroup namespace a v1 hierarchy would begin at the host's root: then these are
    /// shown, the container's own directories, opened on the host.
    own: Vec<OwnedFd>,
    /// The unified hierarchy of the host's cgroup namespace, for who may not mount it himself.
    unified: Option<OwnedFd>,
}

impl<'a> Groups<'a> {
    /// For a container with or without a cgroup namespace, and a user namespace, of its own.
    pub(crate) fn open(cgroups: &'a [Cgroup], namespaced: bool, mapped: bool) -> Result<Self> {
        let v1 = cgroups
            .iter()
            .filter(|group| group.controllers.is_some() && !namespaced);
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let open = |group: &Cgroup| {
            open_tree(CWD, &group.path, flags).map_err(|errno| Error::Cgroup {
                path: group.path.clone(),
                source: errno.into(),
            })
        };
        let own = v1.map(open).collect::<Result<_>>()?;
        let v2 = cgroups.iter().find(|group| group.controllers.is_none());
        let v2 = v2.filter(|_| mapped && !namespaced);
        let none = MountAttrFlags::empty();
        let make = |group: &Cgroup| {
            let made = rootfs::new_filesystem("cgroup2", Path::new("cgroup"), &[], none);
            made.map_err(|errno| Error::Cgroup {
                path: group.path.clone(),
                source: errno.into(),
            })
        };
        let unified = v2.map(make).transpose()?;
        Ok(Self {
            cgroups,
            own,
            unified,
        })
    }

    /// What is open.
    pub(crate) fn handles(&self) -> impl Iterator<Item = &OwnedFd> {
        self.own.iter().chain(&self.unified)
    }

    /// The unified hierarchy, attached nowhere.
    fn unified(&self, set: u64) -> std::io::Result<OwnedFd> {
        if let Some(own) = &self.unified {
            mount::set(own.as_fd(), set, 0, None, false)?;
            return own.try_clone();
        }
        let bits = MountAttrFlags::from_bits_retain(bits(set));
        let path = Path::new("cgroup");
        Ok(rootfs::new_filesystem("cgroup2", path, &[], bits)?)
    }

    /// One v1 hierarchy, attached nowhere.
    fn hierarchy(&self, at: usize, controllers: &str, set: u64) -> std::io::Result<OwnedFd> {
        if let Some(own) = self.own.get(at) {
            mount::set(own.as_fd(), set, 0, None, false)?;
            return own.try_clone();
        }
        let words: Vec<String> = controllers.split(',').map(str::to_owned).collect();
        let words = Options::parse(&words).data;
        let bits = MountAttrFlags::from_bits_retain(bits(set));
        Ok(rootfs::new_filesystem(
            "cgroup",
            Path::new("cgroup"),
            &words,
            bits,
        )?)
    }
}

/// The container's own cgroup: the unified hierarchy as such, v1 as a directory of hierarchies.
fn attach_cgroups(
    root: BorrowedFd<'_>,
    destination: &Path,
    target: &OwnedFd,
    options: &Options,
    groups: &Groups<'_>,
) -> Result<()> {
    let fail = |step| {
        move |errno: Errno| Error::Mount {
            destination: destination.into(),
            step,
            source: errno.into(),
        }
    };
    let cgroups = groups.cgroups;
    let bits = MountAttrFlags::from_bits_retain(bits(options.set));
    if cgroups.iter().all(|cgroup| cgroup.controllers.is_none()) {
        let tree = groups.unified(options.set).map_err(|source| Error::Mount {
            destination: destination.into(),
            step: "make the cgroup2 file system",
            source,
        })?;
        return rootfs::attach(tree.as_fd(), target.as_fd()).map_err(fail("attach"));
    }
    let writable = bits - MountAttrFlags::MOUNT_ATTR_RDONLY;
    let mode = [("mode".to_owned(), Some("755".to_owned()))];
    let base = rootfs::new_filesystem("tmpfs", Path::new("tmpfs"), &mode, writable)
        .map_err(fail("make the directory of cgroups"))?;
    rootfs::attach(base.as_fd(), target.as_fd()).map_err(fail("attach"))?;
    let v1 = cgroups
        .iter()
        .filter_map(|cgroup| cgroup.controllers.as_deref());
    for (at, controllers) in v1.enumerate() {
        let name = controllers.strip_prefix("name=").unwrap_or(controllers);
        let target = rootfs::ensure(root, &destination.join(name), Kind::Directory)?;
        let tree = groups.hierarchy(at, controllers, options.set);
        let tree = tree.map_err(|source| Error::Mount {
            destination: destination.into(),
            step: "make the cgroup file system",
            source,
        })?;
        rootfs::attach(tree.as_fd(), target.as_fd()).map_err(fail("attach"))?;
    }
    mount::set(base.as_fd(), options.set, 0, None, false).map_err(|source| Error::Mount {
        destination: destination.into(),
        step: "attributes",
        source,
    })
}

/// A handle of `path`, checked to be a directory of the file system with the number `magic`.
pub(crate) fn open_checked(
    root: BorrowedFd<'_>,
    path: &'static str,
    magic: u64,
    expected: &'static str,
) -> Result<OwnedFd> {
    let wrong = Error::WrongFilesystem { path, expected };
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let Ok(handle) = rootfs::open_plain(root, Path::new(path), flags) else {
        return Err(wrong);
    };
    match rustix::fs::fstatfs(&handle) {
        Ok(stat) if u64::try_from(stat.f_type).is_ok_and(|number| number == magic) => Ok(handle),
        _ => Err(wrong),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Options {
        Options::parse(&words.split(',').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn options_are_sorted_into_attributes_tree_and_data() {
        let options = parse("rbind,ro,nosuid,rslave");
        assert!(options.bind && options.recursive);
        assert_eq!(options.set, attributes::READ_ONLY | attributes::NO_SUID);
        assert_eq!(options.propagation, Some((Propagation::Slave, true)));
        let options = parse("nosuid,strictatime,mode=755,size=65536k,newinstance");
        assert_eq!(options.set, attributes::NO_SUID | attributes::STRICT_ATIME);
        assert_eq!(options.data.len(), 3);
        assert_eq!(options.data[2], ("newinstance".to_owned(), None));
    }

    #[test]
    fn the_last_of_two_opposite_words_counts() {
        assert_eq!(parse("ro,rw").set, 0);
        assert_eq!(parse("rw,ro").set, attributes::READ_ONLY);
        assert_eq!(parse("rw,ro").clear, 0);
        assert!(parse("ro,rro").read_only_below);
        assert!(!parse("rro,ro").read_only_below);
    }
}
