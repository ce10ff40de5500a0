//! Processes: `clone3` as a fork into new namespaces, and what a child needs between fork and exec.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::checked;

/// `CLONE_NEW*` flags of `clone3`.
pub mod namespaces {
    /// User and group ids, and who is privileged.
    pub const USER: u64 = libc::CLONE_NEWUSER as u64;
    /// Mounts.
    pub const MOUNT: u64 = libc::CLONE_NEWNS as u64;
    /// Host name.
    pub const UTS: u64 = libc::CLONE_NEWUTS as u64;
    /// System V IPC and POSIX message queues.
    pub const IPC: u64 = libc::CLONE_NEWIPC as u64;
    /// Process ids.
    pub const PID: u64 = libc::CLONE_NEWPID as u64;
    /// Network.
    pub const NETWORK: u64 = libc::CLONE_NEWNET as u64;
    /// Control groups.
    pub const CGROUP: u64 = libc::CLONE_NEWCGROUP as u64;
    /// Monotonic and boot clocks.
    pub const TIME: u64 = 0x80;
}

/// Where a [`fork`] returned.
#[derive(Debug)]
pub enum Fork {
    /// In the new process.
    Child,
    /// In the old one.
    Parent {
        /// The new process, as the caller's pid namespace numbers it.
        pid: i32,
        /// A handle of the new process, close-on-exec.
        pidfd: OwnedFd,
    },
}

/// `struct clone_args` up to `cgroup` (Linux 5.7).
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Set in a process that [`fork`] made, which has one thread, and keeps to it: this program starts none.
static FORKED: AtomicBool = AtomicBool::new(false);

/// Forks into the namespaces of `flags` and, where given, straight into a v2 cgroup.
///
/// Refused with `EBUSY` in a process with more than one thread: the child of such a process may find
/// locks held by threads that it does not have.
pub fn fork(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Fork> {
    let mut args = CloneArgs {
        flags,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if let Some(cgroup) = cgroup {
        args.flags |= 0x2_0000_0000; // CLONE_INTO_CGROUP
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    clone(args)
}

/// Forks a sibling into the namespaces of `flags`: it is a child of the caller's parent, which reaps it.
pub fn fork_sibling(flags: u64) -> io::Result<Fork> {
    clone(CloneArgs {
        flags: flags | libc::CLONE_PARENT as u64, // whose exit signal is that of the caller
        ..CloneArgs::default()
    })
}

fn clone(mut args: CloneArgs) -> io::Result<Fork> {
    let forked = FORKED.load(Ordering::Relaxed);
    if !forked && std::fs::read_dir("/proc/self/task")?.take(2).count() != 1 {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    let mut pidfd: RawFd = -1;
    args.flags |= libc::CLONE_PIDFD as u64;
    args.pidfd = &raw mut pidfd as u64;
    let size = size_of::<CloneArgs>();
    // SAFETY: no CLONE_VM, hence the child has its own copy of everything; the process has one thread,
    // so no lock is held by a thread that the child lacks; `args` and `pidfd` outlive the call.
    let pid = checked(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size) })?;
    if pid == 0 {
        FORKED.store(true, Ordering::Relaxed);
        return Ok(Fork::Child);
    }
    // SAFETY: CLONE_PIDFD stored a new descriptor that nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    let pid = i32::try_from(pid).map_err(io::Error::other)?;
    Ok(Fork::Parent { pid, pidfd })
}

/// Marks every descriptor from `first` on close-on-exec.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: changes a flag of descriptors only; no pointer is passed.
    checked(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 4u32) }).map(drop)
}

/// Closes the descriptors of the process from 3 on, but those in `keep`. The caller must be about to
/// leave (exec, exit): owners of the closed descriptors must neither use nor drop them any more.
pub fn close_others(keep: &mut [RawFd]) -> io::Result<()> {
    keep.sort_unstable();
    let mut first: u32 = 3;
    for &fd in keep.iter() {
        let fd = u32::try_from(fd).map_err(io::Error::other)?;
        if fd > first {
            close_range(first, fd - 1)?;
        }
        first = first.max(fd + 1);
    }
    close_range(first, u32::MAX)
}

fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: no pointer is passed; see `close_others` for the descriptors' owners.
    checked(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0u32) }).map(drop)
}

/// Every signal back to its default action, and none blocked: both survive an exec.
pub fn reset_signals() -> io::Result<()> {
    for signal in 1..=64 {
        if signal != libc::SIGKILL && signal != libc::SIGSTOP {
            // SAFETY: SIG_DFL installs no handler. EINVAL for the two that libc keeps to itself.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
    }
    let none: u64 = 0;
    let (set, old) = (&raw const none, std::ptr::null_mut::<u64>());
    // SAFETY: `none` is a kernel signal set of eight bytes; the old one is not asked for.
    checked(unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            set,
            old,
            8usize,
        )
    })
    .map(drop)
}

/// Ignores SIGHUP and SIGPIPE.
pub fn ignore_hangups() {
    for signal in [libc::SIGHUP, libc::SIGPIPE] {
        // SAFETY: SIG_IGN installs no handler.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Joins a new, anonymous session keyring, so that no key of the caller is reachable.
pub fn new_session_keyring() -> io::Result<()> {
    let (join, name) = (1, std::ptr::null::<libc::c_char>()); // KEYCTL_JOIN_SESSION_KEYRING
    // SAFETY: a null name asks for an anonymous keyring.
    checked(unsafe { libc::syscall(libc::SYS_keyctl, join, name) }).map(drop)
}

/// Leaves the mount, cgroup, … namespaces of the process for new ones; `flags` of [`namespaces`].
pub fn unshare(flags: u64) -> io::Result<()> {
    // SAFETY: CLONE_NEW* flags replace namespaces; they unshare neither descriptors nor memory.
    let result = unsafe { libc::syscall(libc::SYS_unshare, flags & 0x7e02_0080) };
    checked(result).map(drop)
}

/// Joins the namespace behind `fd` (a file of `/proc/PID/ns`), or those of a pidfd named by `flags`.
pub fn join_namespaces(fd: BorrowedFd<'_>, flags: u64) -> io::Result<()> {
    // SAFETY: no pointer is passed; `fd` is open for the duration of the call.
    checked(unsafe { libc::syscall(libc::SYS_setns, fd.as_raw_fd(), flags) }).map(drop)
}

/// Calls the process `name` in lists of processes, in the place of its program and arguments.
pub fn rename(name: &str) -> io::Result<()> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    // arg_start and arg_end: fields 48 and 49 of proc(5); the first after the name is field 3.
    let mut fields = fields.split_whitespace().skip(45);
    let mut next = || fields.next().and_then(|field| field.parse::<usize>().ok());
    let (Some(start), Some(end)) = (next(), next()) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let room = end.saturating_sub(start).saturating_sub(1);
    if start == 0 || room < name.len() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut text = name.as_bytes().to_vec();
    text.resize(room, 0);
    let place = std::ptr::with_exposed_provenance_mut::<u8>(start);
    // SAFETY: the kernel says that the arguments of this process are there, writable, on its own stack;
    // no reference to them exists: Rust copies arguments when it is asked for them.
    unsafe { std::ptr::copy_nonoverlapping(text.as_ptr(), place, room) };
    rustix::thread::set_name(&std::ffi::CString::new(name)?)?;
    Ok(())
}

/// Drops one capability from the bounding set; `EINVAL` for a number the kernel does not know.
pub fn drop_bounding(capability: u32) -> io::Result<()> {
    let number = libc::c_ulong::from(capability);
    // SAFETY: PR_CAPBSET_DROP takes a number only.
    checked(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) }.into()).map(drop)
}

/// The last exit of a child: no destructors, no flushing of buffers copied from the parent.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit ends the process and touches no memory of it.
    unsafe { libc::_exit(code) }
}

/// Sends the signal with this number, a realtime one too, to the process behind `pidfd`.
pub fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let (info, flags) = (std::ptr::null::<libc::siginfo_t>(), 0u32);
    let fd = pidfd.as_raw_fd();
    // SAFETY: a null `info` stands for that of kill(2).
    checked(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, info, flags) })
        .map(drop)
}

/// Sends the signal with this number to a process, never to a group or to everything.
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    if pid <= 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: no pointer is passed.
    checked(unsafe { libc::kill(pid, signal) }.into()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_is_not_forked() {
        let (hold, wait) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || wait.recv().is_err());
        let error = fork(0, None).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBUSY));
        drop(hold);
        assert!(other.join().unwrap());
    }

    #[test]
    fn no_group_of_processes_is_ever_signalled() {
        for pid in [0, -1, -1000] {
            assert!(kill(pid, 0).is_err(), "{pid}");
        }
        let own = i32::try_from(std::process::id()).unwrap();
        kill(own, 0).unwrap();
    }
}
