//! Keeps the shim's own program file out of the container's reach.
//!
//! Until its `exec`, a process of a container runs this program, and a hostile image can make that
//! `exec` lead back to `/proc/self/exe`, a handle of our file on the host (CVE-2019-5736). So the shim
//! runs from a read-only clone of the mount its file is on: a write through any such handle fails,
//! and the clone belongs to no mount namespace in which it could be made writable again. A copy in a
//! sealed memory file would cost the copying of a megabyte for every container; this costs one more
//! `exec`, and none at all if the runtime starts the shim from such a clone in the first place.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::fcntl::AtFlags;
use orlop_sys::mount::{self, attributes};
use rustix::fs::{CWD, StatVfsMountFlags};
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::process::DumpableBehavior;

use crate::error::{Error, Result};

const SELF: &str = "/proc/self/exe";

/// Returns in a process that cannot be traced, dumped or read by others, and whose program file
/// cannot be written through it. Of its environment the variables named in `keep` are left.
pub(crate) fn protect(keep: &[&str]) -> Result<()> {
    let undumpable = DumpableBehavior::NotDumpable;
    let set = |behavior| rustix::process::set_dumpable_behavior(behavior);
    set(undumpable).map_err(|errno| Error::Program(errno.into()))?;
    take_name();
    let mounted = rustix::fs::statvfs(SELF).map_err(|errno| Error::Program(errno.into()))?;
    if mounted.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Ok(());
    }
    run_from_clone(keep).map_err(Error::Program)
}

/// A read-only clone of the mount that the file at `path` is on. Who executes the file through it saves
/// the shim an `exec` of its own.
pub fn read_only_clone(path: &Path) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let clone = open_tree(CWD, path, flags)?;
    mount::set(clone.as_fd(), attributes::READ_ONLY, 0, None, false)?;
    Ok(clone)
}

/// The name that lists of processes show: that of a program which is executed through a descriptor is the
/// descriptor's number.
fn take_name() {
    let program = std::env::args_os().next().map(PathBuf::from);
    let name = program.as_deref().and_then(Path::file_name);
    if let Some(name) = name.and_then(|name| CString::new(name.as_bytes()).ok()) {
        rustix::thread::set_name(&name).ok();
    }
}

fn run_from_clone(keep: &[&str]) -> io::Result<()> {
    let clone = read_only_clone(Path::new(SELF))?;
    let args: Vec<CString> = std::env::args_os()
        .map(|arg| CString::new(arg.into_vec()))
        .collect::<std::result::Result<_, _>>()?;
    let kept = std::env::vars_os().filter(|(name, _)| keep.iter().any(|kept| name == kept));
    let kept = kept.map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat());
    let env: Vec<CString> = kept
        .map(CString::new)
        .collect::<std::result::Result<_, _>>()?;
    nix::unistd::execveat(clone.as_fd(), c"", &args, &env, AtFlags::AT_EMPTY_PATH)?;
    Ok(())
}
