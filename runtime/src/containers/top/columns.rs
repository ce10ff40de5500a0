//! The columns of ps(1) that are known, by the names and titles of procps.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::process::{Host, Process, TICKS};
use crate::error::{Error, Result};

/// Longest user name that is shown in full.
const USER_WIDTH: usize = 8;
const DAY: u64 = 24 * 60 * 60;

/// One column.
#[derive(Debug)]
pub(super) struct Column {
    name: &'static str,
    /// Above it.
    pub(super) title: &'static str,
    /// What it says of a process.
    pub(super) cell: fn(&Process, &Host) -> String,
}

/// What `ps -ef` shows.
const DEFAULT: [&str; 8] = [
    "full_uid", "pid", "ppid", "c", "stime", "tname", "time", "cmd",
];

/// Declares columns: the names that mean the same, the title, and the cell.
macro_rules! columns {
    ($($($name:literal)|+, $title:literal, $cell:expr;)*) => {
        const COLUMNS: &[Column] = &[$($(
            Column { name: $name, title: $title, cell: $cell },
        )+)*];
    };
}

columns! {
    "pid", "PID", |p, _| p.pid.to_string();
    "ppid", "PPID", |p, _| p.ppid.to_string();
    "pgid" | "pgrp", "PGID", |p, _| p.pgid.to_string();
    "sid" | "sess" | "session", "SID", |p, _| p.sid.to_string();
    "uid" | "euid", "UID", |p, _| p.uid.to_string();
    "full_uid", "UID", user;
    "gid" | "egid", "GID", |p, _| p.gid.to_string();
    "user" | "uname" | "euser", "USER", user;
    "args" | "command", "COMMAND", args;
    "cmd", "CMD", args;
    "comm" | "ucomm", "COMMAND", |p, _| p.name.clone();
    "ucmd", "CMD", |p, _| p.name.clone();
    "stat", "STAT", |p, _| stat(p);
    "s" | "state", "S", |p, _| p.state.to_string();
    "tty" | "tt" , "TT", |p, _| tty(p.tty);
    "tname", "TTY", |p, _| tty(p.tty);
    "time" | "cputime", "TIME", |p, _| clock(p.used / TICKS);
    "bsdtime", "TIME", |p, _| minutes(p.used / TICKS);
    "etime", "ELAPSED", |p, host| elapsed(age(p, host));
    "etimes", "ELAPSED", |p, host| age(p, host).to_string();
    "stime" | "start_time", "STIME", |p, host| started(p, host);
    "bsdstart", "START", |p, host| started(p, host);
    "c", "C", |p, host| (thousandths(p, host) / 10).min(99).to_string();
    "pcpu" | "%cpu", "%CPU", |p, host| decimal(thousandths(p, host));
    "pmem" | "%mem", "%MEM", |p, host| {
        decimal(p.resident.saturating_mul(1000).checked_div(host.memory).unwrap_or_default())
    };
    "rss" | "rssize" | "rsz", "RSS", |p, _| p.resident.to_string();
    "vsz" | "vsize", "VSZ", |p, _| (p.size / 1024).to_string();
    "ni" | "nice", "NI", |p, _| p.nice.to_string();
    "nlwp" | "thcount", "NLWP", |p, _| p.threads.to_string();
}

/// The columns with these names; none asked: the default ones.
pub(super) fn of(asked: &[String]) -> Result<Vec<&'static Column>> {
    if asked.is_empty() {
        return DEFAULT.iter().map(|name| column(name)).collect();
    }
    asked.iter().map(|name| column(name)).collect()
}

fn column(asked: &str) -> Result<&'static Column> {
    let found = COLUMNS.iter().find(|column| column.name == asked);
    found.ok_or_else(|| {
        let shown: String = asked.chars().take(64).collect();
        let names: Vec<&str> = COLUMNS.iter().map(|column| column.name).collect();
        Error::invalid(
            "column",
            format!("{shown:?}: there are {}", names.join(", ")),
        )
    })
}

fn user(process: &Process, host: &Host) -> String {
    let name = host.user(process.uid);
    if name.chars().count() <= USER_WIDTH {
        return name;
    }
    let cut: String = name.chars().take(USER_WIDTH - 1).collect();
    format!("{cut}+")
}

/// One that has no arguments shows the kernel's name for it.
fn args(process: &Process, _: &Host) -> String {
    if process.args.is_empty() {
        format!("[{}]", process.name)
    } else {
        process.args.clone()
    }
}

/// The state, and in letters: its priority, the first of its session, threads, the foreground.
fn stat(process: &Process) -> String {
    let mut text = process.state.to_string();
    let letters = [
        (process.nice < 0, '<'),
        (process.nice > 0, 'N'),
        (process.sid == process.pid, 's'),
        (process.threads > 1, 'l'),
        (process.tty != 0 && process.foreground == process.pgid, '+'),
    ];
    text.extend(
        letters
            .iter()
            .filter(|(is, _)| *is)
            .map(|(_, letter)| letter),
    );
    text
}

/// A device number as the kernel packs it (`MKDEV` of 12 and 20 bits).
fn tty(device: u64) -> String {
    let (major, minor) = (
        (device >> 8) & 0xfff,
        (device & 0xff) | ((device >> 12) & 0xfff00),
    );
    match major {
        4 if minor < 64 => format!("tty{minor}"),
        136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
        _ => "?".to_owned(),
    }
}

/// `[DD-]HH:MM:SS`.
fn clock(seconds: u64) -> String {
    let (days, rest) = (seconds / DAY, seconds % DAY);
    let time = format!("{:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60);
    match days {
        0 => time,
        days => format!("{days}-{time}"),
    }
}

/// `M:SS`.
fn minutes(seconds: u64) -> String {
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

/// `[[DD-]HH:]MM:SS`.
fn elapsed(seconds: u64) -> String {
    match seconds {
        0..3600 => format!("{:02}:{:02}", seconds / 60, seconds % 60),
        _ => clock(seconds),
    }
}

/// Seconds since the epoch.
fn start(process: &Process, host: &Host) -> i64 {
    let after_boot = i64::try_from(process.started / TICKS).unwrap_or_default();
    host.booted.saturating_add(after_boot)
}

/// Seconds since its start.
fn age(process: &Process, host: &Host) -> u64 {
    let age = host.now.saturating_sub(start(process, host));
    u64::try_from(age).unwrap_or_default()
}

/// CPU time as a part of its life.
fn thousandths(process: &Process, host: &Host) -> u64 {
    let used = process.used.saturating_mul(1000) / TICKS;
    used.checked_div(age(process, host)).unwrap_or_default()
}

fn decimal(thousandths: u64) -> String {
    format!("{}.{}", thousandths / 10, thousandths % 10)
}

/// `10:51` today, `Nov21` this year, `2025` before, in the host's time zone.
fn started(process: &Process, host: &Host) -> String {
    let zone = TimeZone::system();
    let zoned = |seconds| Timestamp::from_second(seconds).map(|time| time.to_zoned(zone.clone()));
    let (Ok(start), Ok(now)) = (zoned(start(process, host)), zoned(host.now)) else {
        return "?".to_owned();
    };
    let form = if start.year() != now.year() {
        "%Y"
    } else if start.date() != now.date() {
        "%b%d"
    } else {
        "%H:%M"
    };
    start.strftime(form).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_named() {
        let titles = |asked: &[&str]| -> Result<Vec<&str>> {
            let asked: Vec<String> = asked.iter().map(|name| (*name).to_owned()).collect();
            Ok(of(&asked)?.iter().map(|column| column.title).collect())
        };
        assert_eq!(
            titles(&[]).unwrap(),
            ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
        );
        assert_eq!(titles(&["pid", "%cpu"]).unwrap(), ["PID", "%CPU"]);
        let error = titles(&["pid", "foo"]).unwrap_err().to_string();
        assert!(error.contains("\"foo\""), "{error}");
    }

    #[test]
    fn cells_read_as_those_of_ps() {
        assert_eq!(tty(0), "?");
        assert_eq!(tty(34_816), "pts/0");
        assert_eq!(tty(34_823), "pts/7");
        assert_eq!(tty(1025), "tty1");
        assert_eq!(clock(3_661), "01:01:01");
        assert_eq!(clock(90_061), "1-01:01:01");
        assert_eq!(minutes(61), "1:01");
        assert_eq!(elapsed(59), "00:59");
        assert_eq!(elapsed(3_600), "01:00:00");
        assert_eq!(decimal(125), "12.5");
    }

    #[test]
    fn a_process_is_compared_with_its_host() {
        let process = Process {
            pid: 42,
            sid: 42,
            pgid: 42,
            foreground: 42,
            tty: 34_816,
            state: 'S',
            threads: 2,
            used: 500,
            started: 90 * TICKS,
            name: "sh".to_owned(),
            ..Process::default()
        };
        let host = Host {
            booted: 1_000_000_000,
            now: 1_000_000_100,
            ..Host::default()
        };
        assert_eq!(stat(&process), "Ssl+");
        assert_eq!(age(&process, &host), 10);
        assert_eq!(thousandths(&process, &host), 500);
        assert_eq!(args(&process, &host), "[sh]");
        let later = Host {
            now: 1_100_000_000,
            ..host
        };
        assert_eq!(started(&process, &later), "2001");
    }
}
