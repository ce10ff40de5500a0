//! What a filter lets through: our default profile as data, and profiles of a specification.
//!
//! The default follows the floor that Docker, Podman and containerd have in common: system calls by
//! name, some only with a capability, `clone` without new namespaces, `socket` without the families
//! whose kernel code is reachable by nobody else, `personality` with harmless values. What the kernel
//! got after this table was written answers ENOSYS, so that programs fall back; what is known and not
//! listed answers EPERM.

use std::collections::{BTreeMap, HashSet};

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompOperator, LinuxSyscall,
};
use orlop_sys::syscalls::{SYSCALLS, number};
use rustix::thread::CapabilitySet;

use crate::capabilities::Sets;
use crate::error::{Error, Result};

/// `SECCOMP_RET_*` of `linux/seccomp.h`.
pub(super) const ALLOW: u32 = 0x7fff_0000;
const KILL_PROCESS: u32 = 0x8000_0000;
const KILL_THREAD: u32 = 0;
const TRAP: u32 = 0x0003_0000;
const ERRNO: u32 = 0x0005_0000;
const TRACE: u32 = 0x7ff0_0000;
const LOG: u32 = 0x7ffc_0000;
/// Errors are the low half of an action; the kernel takes at most this one.
pub(super) const ERRNO_MAX: u32 = 4095;
pub(super) const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// Without any capability.
#[rustfmt::skip]
const ALLOWED: &[&str] = &[
    "accept", "accept4", "access", "adjtimex", "alarm", "bind", "brk", "cachestat", "capget",
    "capset", "chdir", "chmod", "chown", "clock_adjtime", "clock_getres", "clock_gettime",
    "clock_nanosleep", "close", "close_range", "connect", "copy_file_range", "creat", "dup",
    "dup2", "dup3", "epoll_create", "epoll_create1", "epoll_ctl", "epoll_ctl_old", "epoll_pwait",
    "epoll_pwait2", "epoll_wait", "epoll_wait_old", "eventfd", "eventfd2", "execve", "execveat",
    "exit", "exit_group", "faccessat", "faccessat2", "fadvise64", "fallocate", "fanotify_mark",
    "fchdir", "fchmod", "fchmodat", "fchmodat2", "fchown", "fchownat", "fcntl", "fdatasync",
    "fgetxattr", "flistxattr", "flock", "fork", "fremovexattr", "fsetxattr", "fstat", "fstatfs",
    "fsync", "ftruncate", "futex", "futex_requeue", "futex_wait", "futex_waitv", "futex_wake",
    "futimesat", "getcpu", "getcwd", "getdents", "getdents64", "getegid", "geteuid", "getgid",
    "getgroups", "getitimer", "getpeername", "getpgid", "getpgrp", "getpid", "getppid",
    "getpriority", "getrandom", "getresgid", "getresuid", "getrlimit", "get_robust_list",
    "getrusage", "getsid", "getsockname", "getsockopt", "get_thread_area", "gettid",
    "gettimeofday", "getuid", "getxattr", "getxattrat", "inotify_add_watch", "inotify_init",
    "inotify_init1", "inotify_rm_watch", "io_cancel", "ioctl", "io_destroy", "io_getevents",
    "io_pgetevents", "ioprio_get", "ioprio_set", "io_setup", "io_submit", "kill",
    "landlock_add_rule", "landlock_create_ruleset", "landlock_restrict_self", "lchown",
    "lgetxattr", "link", "linkat", "listen", "listmount", "listxattr", "listxattrat",
    "llistxattr", "lremovexattr", "lseek", "lsetxattr", "lstat", "madvise", "map_shadow_stack",
    "membarrier", "memfd_create", "memfd_secret", "mincore", "mkdir", "mkdirat", "mknod",
    "mknodat", "mlock", "mlock2", "mlockall", "mmap", "mprotect", "mq_getsetattr", "mq_notify",
    "mq_open", "mq_timedreceive", "mq_timedsend", "mq_unlink", "mremap", "mseal", "msgctl",
    "msgget", "msgrcv", "msgsnd", "msync", "munlock", "munlockall", "munmap",
    "name_to_handle_at", "nanosleep", "newfstatat", "open", "openat", "openat2", "pause",
    "pidfd_open", "pidfd_send_signal", "pipe", "pipe2", "pkey_alloc", "pkey_free",
    "pkey_mprotect", "poll", "ppoll", "prctl", "pread64", "preadv", "preadv2", "prlimit64",
    "process_mrelease", "process_vm_readv", "process_vm_writev", "pselect6", "ptrace",
    "pwrite64", "pwritev", "pwritev2", "read", "readahead", "readlink", "readlinkat", "readv",
    "recvfrom", "recvmmsg", "recvmsg", "remap_file_pages", "removexattr", "removexattrat",
    "rename", "renameat", "renameat2", "restart_syscall", "rmdir", "rseq", "rt_sigaction",
    "rt_sigpending", "rt_sigprocmask", "rt_sigqueueinfo", "rt_sigreturn", "rt_sigsuspend",
    "rt_sigtimedwait", "rt_tgsigqueueinfo", "sched_getaffinity", "sched_getattr",
    "sched_getparam", "sched_get_priority_max", "sched_get_priority_min", "sched_getscheduler",
    "sched_rr_get_interval", "sched_setaffinity", "sched_setattr", "sched_setparam",
    "sched_setscheduler", "sched_yield", "seccomp", "select", "semctl", "semget", "semop",
    "semtimedop", "sendfile", "sendmmsg", "sendmsg", "sendto", "setfsgid", "setfsuid", "setgid",
    "setgroups", "setitimer", "setpgid", "setpriority", "setregid", "setresgid", "setresuid",
    "setreuid", "setrlimit", "set_robust_list", "setsid", "setsockopt", "set_thread_area",
    "set_tid_address", "setuid", "setxattr", "setxattrat", "shmat", "shmctl", "shmdt", "shmget",
    "shutdown", "sigaltstack", "signalfd", "signalfd4", "socketpair", "splice", "stat", "statfs",
    "statmount", "statx", "symlink", "symlinkat", "sync", "sync_file_range", "syncfs", "sysinfo",
    "tee", "tgkill", "time", "timer_create", "timer_delete", "timer_getoverrun", "timer_gettime",
    "timer_settime", "timerfd_create", "timerfd_gettime", "timerfd_settime", "times", "tkill",
    "truncate", "umask", "uname", "unlink", "unlinkat", "uretprobe", "utime", "utimensat",
    "utimes", "vfork", "vmsplice", "wait4", "waitid", "write", "writev", "arch_prctl",
    "modify_ldt",
];

/// With a capability.
#[rustfmt::skip]
const WITH: &[(CapabilitySet, &[&str])] = &[
    (CapabilitySet::DAC_READ_SEARCH, &["open_by_handle_at"]),
    (CapabilitySet::SYS_ADMIN, &[
        "bpf", "clone", "clone3", "fanotify_init", "fsconfig", "fsmount", "fsopen", "fspick",
        "lookup_dcookie", "lsm_get_self_attr", "lsm_list_modules", "lsm_set_self_attr", "mount",
        "mount_setattr", "move_mount", "open_tree", "open_tree_attr", "perf_event_open", "pivot_root",
        "quotactl", "quotactl_fd", "setdomainname", "sethostname", "setns", "syslog", "umount2",
        "unshare",
    ]),
    (CapabilitySet::SYS_BOOT, &["reboot"]),
    (CapabilitySet::SYS_CHROOT, &["chroot"]),
    (CapabilitySet::SYS_MODULE, &["delete_module", "init_module", "finit_module"]),
    (CapabilitySet::SYS_PACCT, &["acct"]),
    (CapabilitySet::SYS_PTRACE, &["kcmp", "pidfd_getfd", "process_madvise"]),
    (CapabilitySet::SYS_RAWIO, &["iopl", "ioperm"]),
    (CapabilitySet::SYS_TIME, &["settimeofday", "clock_settime"]),
    (CapabilitySet::SYS_TTY_CONFIG, &["vhangup"]),
    (CapabilitySet::SYS_NICE, &["get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"]),
    (CapabilitySet::SYSLOG, &["syslog"]),
    (CapabilitySet::BPF, &["bpf"]),
    (CapabilitySet::PERFMON, &["perf_event_open"]),
];

/// `CLONE_NEW*` but time, which `clone` does not know.
const CLONE_NEW: u64 = 0x7e02_0000;
/// `socket` families that are let through: the local, internet, netlink, packet and other ones in
/// use; not AF_ALG (38) and AF_VSOCK (40), nor those that only ever mattered for their holes.
const FAMILIES: &[u64] = &[
    13, 14, 15, 16, 17, 18, 21, 22, 24, 26, 27, 28, 29, 30, 31, 32, 33, 35, 36, 39, 41, 42, 43, 44,
    45,
];
/// All families below this one are let through.
const FAMILIES_BELOW: u64 = 12;
/// `personality`: Linux, 32-bit Linux, each also with the old uname, and the question.
const PERSONALITIES: &[u64] = &[0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// How an argument is compared with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    AtMost,
    Greater,
    AtLeast,
    /// Equal under this mask.
    Masked(u64),
}

/// One condition on one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    /// 0 to 5.
    pub(super) argument: u32,
    pub(super) comparison: Comparison,
    pub(super) value: u64,
}

/// Conditions that must all hold, and the action if they do.
pub(super) type Rule = (Vec<Condition>, u32);

/// What is known of one system call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rules {
    Always(u32),
    Conditional(Vec<Rule>),
}

/// A whole filter, before it is compiled.
#[derive(Debug)]
pub(super) struct Profile {
    pub(super) rules: BTreeMap<u32, Rules>,
    /// For system calls of another architecture.
    pub(super) foreign: u32,
    /// For system calls that this table knows.
    known: u32,
    /// For all others.
    unknown: u32,
    numbers: HashSet<u32>,
}

impl Profile {
    fn new(known: u32, unknown: u32, foreign: u32) -> Self {
        let numbers = SYSCALLS.iter().map(|entry| entry.1).collect();
        Self {
            rules: BTreeMap::new(),
            foreign,
            known,
            unknown,
            numbers,
        }
    }

    /// The answer for a system call without rules.
    pub(super) fn otherwise(&self, number: u32) -> u32 {
        if self.numbers.contains(&number) {
            self.known
        } else {
            self.unknown
        }
    }

    /// The highest number that this profile or the table knows.
    pub(super) fn last(&self) -> u32 {
        let table = SYSCALLS.last().map_or(0, |entry| entry.1);
        self.rules
            .keys()
            .next_back()
            .map_or(table, |&number| number.max(table))
    }

    fn allow(&mut self, name: &str, conditions: Vec<Condition>) {
        if let Some(number) = number(name) {
            self.add(number, conditions, ALLOW);
        }
    }

    fn add(&mut self, number: u32, conditions: Vec<Condition>, action: u32) {
        if conditions.is_empty() {
            self.rules.insert(number, Rules::Always(action));
            return;
        }
        let rules = self
            .rules
            .entry(number)
            .or_insert_with(|| Rules::Conditional(Vec::new()));
        if let Rules::Conditional(rules) = rules {
            rules.push((conditions, action));
        }
    }
}

/// The default profile for a process with `capabilities`.
pub(super) fn built_in(capabilities: &Sets) -> Profile {
    let (eperm, enosys) = (ERRNO | EPERM, ERRNO | ENOSYS);
    let mut profile = Profile::new(eperm, enosys, enosys);
    let allowed: HashSet<&str> = ALLOWED.iter().copied().collect();
    for (_, number) in SYSCALLS.iter().filter(|entry| allowed.contains(entry.0)) {
        profile.rules.insert(*number, Rules::Always(ALLOW));
    }
    let is = |comparison, value| {
        vec![Condition {
            argument: 0,
            comparison,
            value,
        }]
    };
    profile.allow("socket", is(Comparison::Less, FAMILIES_BELOW));
    for &family in FAMILIES {
        profile.allow("socket", is(Comparison::Equal, family));
    }
    for &value in PERSONALITIES {
        profile.allow("personality", is(Comparison::Equal, value));
    }
    profile.allow("clone", is(Comparison::Masked(CLONE_NEW), 0));
    if let Some(number) = number("clone3") {
        // Its flags are behind a pointer, where no filter can look; ENOSYS makes libc use `clone`.
        profile.add(number, Vec::new(), enosys);
    }
    for (_, names) in WITH.iter().filter(|(needed, _)| capabilities.has(*needed)) {
        names
            .iter()
            .for_each(|name| profile.allow(name, Vec::new()));
    }
    profile
}

/// A profile of the OCI specification.
pub(super) fn from_spec(spec: &LinuxSeccomp) -> Result<Profile> {
    let otherwise = action(spec.default_action(), spec.default_errno_ret())?;
    let native = if cfg!(target_arch = "x86_64") {
        Arch::ScmpArchX86_64
    } else {
        Arch::ScmpArchAarch64
    };
    if let Some(listed) = spec
        .architectures()
        .as_ref()
        .filter(|listed| !listed.is_empty())
        && !listed.contains(&native)
    {
        return Err(Error::SeccompProfile(format!("it is not for {native:?}")));
    }
    if spec.listener_path().is_some() {
        return Err(Error::Unsupported(
            "a listener of seccomp notifications".to_owned(),
        ));
    }
    let mut profile = Profile::new(otherwise, otherwise, ERRNO | ENOSYS);
    for syscall in spec.syscalls().iter().flatten() {
        add_from_spec(&mut profile, syscall)?;
    }
    Ok(profile)
}

fn add_from_spec(profile: &mut Profile, syscall: &LinuxSyscall) -> Result<()> {
    let action = action(syscall.action(), syscall.errno_ret())?;
    let mut conditions = Vec::new();
    for arg in syscall.args().iter().flatten() {
        let index = u32::try_from(arg.index()).ok().filter(|index| *index < 6);
        let argument = index.ok_or_else(|| {
            Error::SeccompProfile(format!("there is no argument {}", arg.index()))
        })?;
        let (comparison, value) = match arg.op() {
            LinuxSeccompOperator::ScmpCmpNe => (Comparison::NotEqual, arg.value()),
            LinuxSeccompOperator::ScmpCmpLt => (Comparison::Less, arg.value()),
            LinuxSeccompOperator::ScmpCmpLe => (Comparison::AtMost, arg.value()),
            LinuxSeccompOperator::ScmpCmpEq => (Comparison::Equal, arg.value()),
            LinuxSeccompOperator::ScmpCmpGe => (Comparison::AtLeast, arg.value()),
            LinuxSeccompOperator::ScmpCmpGt => (Comparison::Greater, arg.value()),
            LinuxSeccompOperator::ScmpCmpMaskedEq => {
                let value = arg.value_two().unwrap_or_default();
                (Comparison::Masked(arg.value()), value & arg.value())
            }
        };
        conditions.push(Condition {
            argument,
            comparison,
            value,
        });
    }
    // Names of other architectures and newer kernels are passed over, as every runtime does.
    for number in syscall.names().iter().filter_map(|name| number(name)) {
        profile.add(number, conditions.clone(), action);
    }
    Ok(())
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<u32> {
    let errno = errno.unwrap_or(EPERM);
    if errno > ERRNO_MAX {
        return Err(Error::SeccompProfile(format!(
            "{errno} is not an error number"
        )));
    }
    Ok(match action {
        LinuxSeccompAction::ScmpActAllow => ALLOW,
        LinuxSeccompAction::ScmpActErrno => ERRNO | errno,
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => KILL_THREAD,
        LinuxSeccompAction::ScmpActKillProcess => KILL_PROCESS,
        LinuxSeccompAction::ScmpActTrap => TRAP,
        LinuxSeccompAction::ScmpActTrace => TRACE | errno,
        LinuxSeccompAction::ScmpActLog => LOG,
        LinuxSeccompAction::ScmpActNotify => {
            return Err(Error::Unsupported(
                "the seccomp action \"notify\"".to_owned(),
            ));
        }
    })
}
