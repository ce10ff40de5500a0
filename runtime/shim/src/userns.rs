//! A user namespace of the container's own: root in it is nobody in particular on the host.
//!
//! What the container has on disk keeps the container's own ids, so that it is the same in every range:
//! the layers, its own files and its volumes are mounts that show them as the namespace maps them.
//! Overlay acts with the identity of whoever mounted it, which therefore has to be one that those mounts
//! know: the namespace's root, with the privileges of the host's.
//!
//! The service makes the namespace, together with that of the network, before this shim begins; of a
//! specification that names none one is made here, and the root file system is as its bundle has it.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::unistd::{setfsgid, setfsuid};
use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType, Spec};
use orlop_sys::mount::{self, Propagation};
use orlop_sys::process::{self as sys, namespaces};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use crate::channel::Report;
use crate::child::Child;
use crate::config::RootMount;
use crate::error::{Error, Result};
use crate::rootfs;

/// The option for [`hold`].
pub const HOLD: &str = "--hold-namespaces";

/// The namespace, and who is root in it.
#[derive(Debug)]
pub(crate) struct UserNamespace {
    path: PathBuf,
    file: File,
    uid: u32,
    gid: u32,
}

impl UserNamespace {
    /// That of the specification, if it has one.
    pub(crate) fn open(linux: &Linux) -> Result<Option<Self>> {
        let mut all = linux.namespaces().iter().flatten();
        let Some(own) = all.find(|namespace| namespace.typ() == LinuxNamespaceType::User) else {
            return Ok(None);
        };
        let new = PathBuf::from("(new)");
        let path = own.path().clone().unwrap_or(new);
        let file = match own.path() {
            Some(path) => File::open(path).map_err(join_error(path))?,
            None => make(linux)?,
        };
        Ok(Some(Self {
            path,
            file,
            uid: root_of(linux.uid_mappings().as_deref())?,
            gid: root_of(linux.gid_mappings().as_deref())?,
        }))
    }

    /// Joins it, with every capability in it, none on the host, and no id that it knows.
    pub(crate) fn join(&self) -> Result<()> {
        sys::join_namespaces(self.file.as_fd(), namespaces::USER).map_err(join_error(&self.path))
    }

    /// Shows the owners of `tree`, which was never attached, as the namespace maps them.
    pub(crate) fn map(&self, tree: &OwnedFd) -> io::Result<()> {
        mount::map_ids(tree.as_fd(), self.file.as_fd())
    }

    /// Does `work` on files as the namespace's root, with the privileges of the host's.
    pub(crate) fn act<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let setup = |source| Error::Setup {
            step: "the identity of the container's root",
            source,
        };
        let before = (setfsuid(self.uid.into()), setfsgid(self.gid.into()));
        let result = raise_capabilities().map_err(setup).and_then(|()| work());
        setfsgid(before.1);
        setfsuid(before.0);
        raise_capabilities().map_err(setup)?;
        result
    }

    /// As [`rootfs::assemble`], of mapped layers. A child does it: kernels before 6.15 make an overlay of
    /// attached mounts only, and these are to be attached nowhere else. `place` is any directory.
    pub(crate) fn assemble(&self, root: &RootMount, place: &Path) -> Result<OwnedFd> {
        let tree = Child::fetch(namespaces::MOUNT, || self.act(|| self.stack(root, place)))?;
        tree.ok_or(Error::Missing("a root file system"))
    }

    fn stack(&self, root: &RootMount, place: &Path) -> Result<OwnedFd> {
        let fail = |step| move |source| Error::Root { step, source };
        let host = rootfs::root_handle()?;
        mount::set(host.as_fd(), 0, 0, Some(Propagation::Slave), true)
            .map_err(fail("propagation of the old root"))?;
        let layer = |path: &Path| {
            self.attach_mapped(path, place).map_err(fail(
                "map the owners in a layer; `--userns host` goes without",
            ))
        };
        let lower = root.lower.iter().map(|path| layer(path));
        let lower: Vec<OwnedFd> = lower.collect::<Result<_>>()?;
        // One mount for both, as overlay wants it.
        let (Some(parent), Some(upper)) = (root.upper.parent(), root.upper.file_name()) else {
            return Err(Error::Missing("an upper directory"));
        };
        let work = root.work.strip_prefix(parent);
        let work = work.map_err(|_| Error::Missing("a work directory beside the upper one"))?;
        let own = layer(parent)?;
        rootfs::assemble(&RootMount {
            lower: lower.iter().map(|fd| below(fd, "")).collect(),
            upper: below(&own, upper),
            work: below(&own, work),
        })
    }

    /// The directory at `path` as a mapped mount, attached over `place` in this process's namespace.
    fn attach_mapped(&self, path: &Path, place: &Path) -> io::Result<OwnedFd> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = open_tree(CWD, path, flags)?;
        self.map(&tree)?;
        move_mount(
            &tree,
            "",
            CWD,
            place,
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
        )?;
        Ok(tree)
    }

    /// The directory of a volume, mapped.
    pub(crate) fn open_mapped(&self, path: &Path) -> io::Result<OwnedFd> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = open_tree(CWD, path, flags | OpenTreeFlags::AT_SYMLINK_NOFOLLOW)?;
        self.map(&tree)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&tree, ".", flags, Mode::empty())?)
    }
}

/// A new namespace with the specification's mappings. A child is in it meanwhile.
fn make(linux: &Linux) -> Result<File> {
    let mut child = Child::spawn(namespaces::USER, &[], None, |channel| {
        channel
            .report(&Report::Ready, None)
            .map_err(Error::Silent)?;
        channel.wait_go();
        sys::exit_now(0)
    })?;
    let mapped = child
        .ready(|_| Ok(()))
        .and_then(|_| map_child(child.pid, linux));
    child.abandon();
    mapped
}

fn map_child(pid: i32, linux: &Linux) -> Result<File> {
    let process = PathBuf::from(format!("/proc/{pid}"));
    for (file, mappings) in [
        ("uid_map", linux.uid_mappings()),
        ("gid_map", linux.gid_mappings()),
    ] {
        let mut lines = String::new();
        for mapping in mappings.iter().flatten() {
            let (inside, outside) = (mapping.container_id(), mapping.host_id());
            lines += &format!("{inside} {outside} {}\n", mapping.size());
        }
        std::fs::write(process.join(file), lines).map_err(Error::Namespaces)?;
    }
    File::open(process.join("ns/user")).map_err(Error::Namespaces)
}

/// Holds new namespaces of users and of the network, which the service opens meanwhile: a process with
/// threads, as the service is, makes no user namespace.
pub(crate) fn hold() -> Result<()> {
    use std::io::{Read as _, Write as _};
    sys::unshare(namespaces::USER | namespaces::NETWORK).map_err(Error::Namespaces)?;
    let setup = |source| Error::Setup {
        step: "the holder of namespaces",
        source,
    };
    io::stdout().write_all(b"\n").map_err(setup)?;
    io::stdout().flush().map_err(setup)?;
    io::stdin().read_to_end(&mut Vec::new()).map_err(setup)?;
    Ok(())
}

/// Whether the specification's container has a user namespace that is not the host's.
pub(crate) fn has_own(spec: &Spec) -> bool {
    let linux = spec.linux().as_ref();
    let all = linux.and_then(|linux| linux.namespaces().as_deref());
    let mut all = all.unwrap_or_default().iter();
    all.any(|namespace| namespace.typ() == LinuxNamespaceType::User)
}

/// Becomes root of the user namespace that the process has joined.
pub(crate) fn become_root() -> Result<()> {
    use rustix::thread::{Gid, Uid};
    let fail = |step| {
        move |errno: rustix::io::Errno| Error::Become {
            uid: 0,
            step,
            source: errno.into(),
        }
    };
    let (user, group) = (Uid::ROOT, Gid::ROOT);
    rustix::thread::set_thread_groups(&[]).map_err(fail("groups"))?;
    rustix::thread::set_thread_res_gid(group, group, group).map_err(fail("group"))?;
    rustix::thread::set_thread_res_uid(user, user, user).map_err(fail("user"))
}

/// A change of the identity for files takes privileges over files away, or gives them back.
fn raise_capabilities() -> io::Result<()> {
    let mut sets = rustix::thread::capabilities(None)?;
    sets.effective = sets.permitted;
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

/// A path of what a mount shows, for the kernel.
fn below(mount: &OwnedFd, path: impl AsRef<OsStr>) -> PathBuf {
    let mount = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
    match path.as_ref() {
        path if path.is_empty() => mount,
        path => mount.join(path),
    }
}

fn join_error(path: &Path) -> impl Fn(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::Join {
        path: path.clone(),
        source,
    }
}

/// The host's number of the namespace's root.
fn root_of(mappings: Option<&[LinuxIdMapping]>) -> Result<u32> {
    let mut mappings = mappings.unwrap_or_default().iter();
    let first = mappings.find(|mapping| mapping.container_id() == 0 && mapping.size() > 0);
    first
        .map(LinuxIdMapping::host_id)
        .ok_or(Error::Missing("a mapping of the user namespace's root"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::LinuxIdMappingBuilder;

    #[test]
    fn the_root_of_a_namespace_is_where_zero_is_mapped_to() {
        let mapping = |inside: u32, outside: u32, size: u32| {
            let mapping = LinuxIdMappingBuilder::default()
                .container_id(inside)
                .host_id(outside);
            mapping.size(size).build().unwrap()
        };
        let maps = [mapping(1, 5000, 10), mapping(0, 100_000, 1)];
        assert_eq!(root_of(Some(&maps)).unwrap(), 100_000);
        assert!(root_of(Some(&maps[..1])).is_err());
        assert!(root_of(Some(&[mapping(0, 7, 0)])).is_err());
        assert!(root_of(None).is_err());
    }
}
