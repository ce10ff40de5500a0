//! What `/proc` says of one process, and of the host it runs on (proc(5)).

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read as _;

use jiff::Timestamp;

/// Ticks a second of all times in `/proc`: part of the kernel's interface on every architecture.
pub(super) const TICKS: u64 = 100;
/// Of arguments, what a person still reads.
const ARGUMENTS_MAX: u64 = 4096;
/// Larger than any host's list of users that is kept in a file.
const PASSWD_MAX: u64 = 4 * 1024 * 1024;

/// One process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: i32,
    pub(super) ppid: i32,
    pub(super) pgid: i32,
    pub(super) sid: i32,
    /// Foreground process group of its terminal.
    pub(super) foreground: i32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Device number of its terminal; 0: none.
    pub(super) tty: u64,
    /// `R`, `S`, `D`, …
    pub(super) state: char,
    pub(super) nice: i32,
    pub(super) threads: u64,
    /// CPU time, in ticks.
    pub(super) used: u64,
    /// Start after boot, in ticks.
    pub(super) started: u64,
    /// Bytes of address space.
    pub(super) size: u64,
    /// KiB in memory.
    pub(super) resident: u64,
    /// The name that the kernel has for it.
    pub(super) name: String,
    /// Its arguments with spaces between; empty for one that has none.
    pub(super) args: String,
}

/// What the numbers of a process are compared with.
#[derive(Clone, Debug, Default)]
pub(super) struct Host {
    /// Names of users.
    pub(super) users: HashMap<u32, String>,
    /// Seconds since the epoch.
    pub(super) booted: i64,
    /// Seconds since the epoch.
    pub(super) now: i64,
    /// KiB.
    pub(super) memory: u64,
}

impl Process {
    /// `None`: it is gone.
    pub(super) fn read(pid: i32) -> Option<Self> {
        let file = |name: &str| format!("/proc/{pid}/{name}");
        let stat = fs::read_to_string(file("stat")).ok()?;
        let status = fs::read_to_string(file("status")).ok()?;
        let mut args = Vec::new();
        let cmdline = File::open(file("cmdline")).ok()?.take(ARGUMENTS_MAX);
        // One that just ended has none.
        { cmdline }.read_to_end(&mut args).ok();
        Self::parse(&stat, &status, &args)
    }

    fn parse(stat: &str, status: &str, cmdline: &[u8]) -> Option<Self> {
        // The name may hold anything, brackets and line breaks too.
        let (pid, rest) = stat.split_once(" (")?;
        let (name, rest) = rest.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let signed = |field: usize| fields.get(field)?.parse::<i32>().ok();
        let number = |field: usize| fields.get(field)?.parse::<u64>().ok();
        let line = |key: &str| status.lines().find_map(|line| line.strip_prefix(key));
        let id = |key| line(key)?.split_whitespace().nth(1)?.parse().ok();
        let resident = line("VmRSS:").and_then(|text| text.split_whitespace().next()?.parse().ok());
        Some(Self {
            pid: pid.parse().ok()?,
            name: name.to_owned(),
            state: fields.first()?.chars().next()?,
            ppid: signed(1)?,
            pgid: signed(2)?,
            sid: signed(3)?,
            tty: u64::try_from(signed(4)?).unwrap_or_default(),
            foreground: signed(5)?,
            used: number(11)?.saturating_add(number(12)?),
            nice: signed(16)?,
            threads: number(17)?,
            started: number(19)?,
            size: number(20)?,
            uid: id("Uid:")?,
            gid: id("Gid:")?,
            resident: resident.unwrap_or_default(),
            args: join(cmdline),
        })
    }
}

fn join(cmdline: &[u8]) -> String {
    let text = String::from_utf8_lossy(cmdline);
    text.trim_end_matches('\0').replace('\0', " ")
}

impl Host {
    /// As it is now. What cannot be read is 0.
    pub(super) fn read() -> Self {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let booted = stat.lines().find_map(|line| line.strip_prefix("btime "));
        let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let memory = info.lines().find_map(|line| line.strip_prefix("MemTotal:"));
        let memory = memory.and_then(|text| text.split_whitespace().next()?.parse().ok());
        Self {
            users: users(),
            booted: booted
                .and_then(|text| text.parse().ok())
                .unwrap_or_default(),
            now: Timestamp::now().as_second(),
            memory: memory.unwrap_or_default(),
        }
    }

    /// The host's name for a user, or the number.
    pub(super) fn user(&self, uid: u32) -> String {
        let name = self.users.get(&uid);
        name.cloned().unwrap_or_else(|| uid.to_string())
    }
}

/// The host's own users; the container's may be called otherwise, as with Docker.
fn users() -> HashMap<u32, String> {
    let mut text = String::new();
    if let Ok(file) = File::open("/etc/passwd") {
        file.take(PASSWD_MAX).read_to_string(&mut text).ok();
    }
    let user = |line: &str| {
        let mut parts = line.split(':');
        let name = parts.next()?.to_owned();
        Some((parts.nth(1)?.parse().ok()?, name))
    };
    // The first name of a number counts.
    text.lines().rev().filter_map(user).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "42 (a) (b\n) S 7 42 40 34816 42 4194304 90 0 0 0 150 50 0 0 20 5 3 0 1000 \
                        2048000 300 18446744073709551615 1 1 0 0";
    const STATUS: &str =
        "Name:\ta\nUid:\t1000\t1001\t1000\t1000\nGid:\t5\t6\t5\t5\nVmRSS:\t  120 kB\n";

    #[test]
    fn a_process_may_be_called_anything() {
        let process = Process::parse(STAT, STATUS, b"sh\0-c\0sleep 1\0").unwrap();
        assert_eq!((process.pid, process.ppid, process.sid), (42, 7, 40));
        assert_eq!(process.name, "a) (b\n");
        assert_eq!((process.uid, process.gid), (1001, 6));
        assert_eq!((process.used, process.started), (200, 1000));
        assert_eq!((process.nice, process.threads), (5, 3));
        assert_eq!((process.size, process.resident), (2_048_000, 120));
        assert_eq!(process.args, "sh -c sleep 1");
        assert_eq!(Process::parse("42 (cut", STATUS, b""), None);
        assert_eq!(Process::parse("42 (x) S 1", STATUS, b""), None);
    }

    #[test]
    fn this_process_is_found() {
        let own = i32::try_from(std::process::id()).unwrap();
        let process = Process::read(own).unwrap();
        assert_eq!(process.pid, own);
        assert!(process.resident > 0 && process.threads > 0);
        assert_eq!(Process::read(i32::MAX), None);
        assert_eq!(Host::read().user(0), "root");
    }
}
