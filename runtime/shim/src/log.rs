//! The container's log: Docker's json-file format, one line of JSON per line of output.
//!
//! A line that is not UTF-8 has its broken bytes replaced in `log`, as Docker does, and all of its
//! bytes in one more field, `bin`, in base64: nothing is lost. A line without an end is cut after
//! [`LINE_BYTES_MAX`]. The log never makes the container wait: what cannot be written is counted and
//! given up.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use crate::protocol::Kind;

use crate::error::note;

/// The longest line in one record, as Docker's.
const LINE_BYTES_MAX: usize = 16 * 1024;

#[derive(Serialize)]
struct Record<'a> {
    log: &'a str,
    stream: &'a str,
    time: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    bin: Option<String>,
}

/// An open log.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    file: Option<File>,
    size: u64,
    size_max: u64,
    files: u32,
    partial: [Vec<u8>; 2],
    records: Vec<u8>,
    lost: u64,
}

impl Log {
    /// Opens `path` to append to it; rotated at `size_max` bytes, never if that is 0. So many `files` of
    /// it are kept; with none nothing is.
    pub(crate) fn open(path: PathBuf, size_max: u64, files: u32) -> Self {
        let mut log = Self {
            path,
            file: None,
            size: 0,
            size_max,
            files,
            partial: Default::default(),
            records: Vec::new(),
            lost: 0,
        };
        if files > 0 {
            log.reopen();
        }
        log
    }

    fn reopen(&mut self) {
        let mut options = OpenOptions::new();
        let file = options.create(true).append(true).open(&self.path);
        self.file = file
            .map_err(|error| note(&format!("cannot open the log: {error}")))
            .ok();
        let length = self.file.as_ref().and_then(|file| file.metadata().ok());
        self.size = length.map_or(0, |metadata| metadata.len());
    }

    /// Takes output; complete lines are in the file when this returns.
    pub(crate) fn push(&mut self, kind: Kind, bytes: &[u8]) {
        if self.files == 0 {
            return;
        }
        let slot = usize::from(kind == Kind::Stderr);
        let mut partial = std::mem::take(&mut self.partial[slot]);
        let time = rfc3339(SystemTime::now());
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            for part in piece.chunks(LINE_BYTES_MAX) {
                if partial.len() + part.len() > LINE_BYTES_MAX {
                    self.record(slot, &partial, &time);
                    partial.clear();
                }
                partial.extend(part);
            }
            if partial.ends_with(b"\n") {
                self.record(slot, &partial, &time);
                partial.clear();
            }
        }
        self.partial[slot] = partial;
        self.write();
    }

    /// Writes the lines that have no end.
    pub(crate) fn finish(&mut self) {
        let time = rfc3339(SystemTime::now());
        for slot in 0..2 {
            let partial = std::mem::take(&mut self.partial[slot]);
            if !partial.is_empty() {
                self.record(slot, &partial, &time);
            }
        }
        self.write();
        if self.lost > 0 {
            note(&format!(
                "{} bytes of the log could not be written",
                self.lost
            ));
        }
    }

    fn record(&mut self, slot: usize, line: &[u8], time: &str) {
        let log = String::from_utf8_lossy(line);
        let bin = matches!(log, std::borrow::Cow::Owned(_)).then(|| STANDARD.encode(line));
        let stream = ["stdout", "stderr"][slot];
        let record = Record {
            log: &log,
            stream,
            time,
            bin,
        };
        // A record of strings always has a JSON form, and a vector always takes it.
        drop(serde_json::to_writer(&mut self.records, &record));
        self.records.push(b'\n');
    }

    fn write(&mut self) {
        if self.records.is_empty() {
            return;
        }
        let records = std::mem::take(&mut self.records);
        if self.size_max > 0 && self.size > 0 && self.size + records.len() as u64 > self.size_max {
            self.rotate();
        }
        let written = self.file.as_mut().map(|file| file.write_all(&records));
        if let Some(Ok(())) = written {
            self.size += records.len() as u64;
        } else {
            if self.lost == 0 {
                note("the log cannot be written; output is lost from it");
            }
            self.lost += records.len() as u64;
            // Half a record would make the next one unreadable as well.
            drop(self.file.as_ref().map(|file| file.set_len(self.size)));
        }
        self.records = records;
        self.records.clear();
    }

    /// Every file gets the next number; the oldest one goes.
    fn rotate(&mut self) {
        let mut moved = Ok(());
        for number in (1..self.files).rev() {
            // Early in its life a log has fewer of them; the one that is written is there.
            moved = std::fs::rename(self.file_of(number - 1), self.file_of(number));
        }
        if self.files == 1 {
            moved = std::fs::remove_file(&self.path);
        }
        if let Err(error) = moved {
            note(&format!("cannot rotate the log: {error}"));
        }
        self.reopen();
    }

    /// The one that is written is 0; the older, the higher.
    fn file_of(&self, number: u32) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        if number > 0 {
            path.push(format!(".{number}"));
        }
        path.into()
    }
}

/// A time as RFC 3339 with nanoseconds, in UTC.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let nanos = since.subsec_nanos();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

/// Year, month and day of a count of days since 1970, by eras of 400 years that begin in March
/// (H. Hinnant, "chrono-compatible low-level date algorithms").
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day_of_month = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (year + era * 400 + next, month, day_of_month)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn lines(path: &std::path::Path) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[test]
    fn lines_are_whole_whatever_the_chunks() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("container.log");
        let mut log = Log::open(path.clone(), 0, 2);
        log.push(Kind::Stdout, b"a");
        log.push(Kind::Stderr, b"e\n");
        log.push(Kind::Stdout, b"b\nc\xff\nrest");
        log.finish();
        let lines = lines(&path);
        let texts: Vec<_> = lines
            .iter()
            .map(|line| line["log"].as_str().unwrap())
            .collect();
        assert_eq!(texts, ["e\n", "ab\n", "c\u{fffd}\n", "rest"]);
        assert_eq!(lines[0]["stream"], "stderr");
        assert_eq!(lines[2]["bin"], STANDARD.encode(b"c\xff\n"));
        assert_eq!(lines[1].get("bin"), None);
    }

    #[test]
    fn a_full_log_is_rotated_between_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("container.log");
        let mut log = Log::open(path.clone(), 300, 2);
        for _ in 0..5 {
            log.push(Kind::Stdout, b"0123456789012345678901234567890123456789\n");
        }
        log.finish();
        assert!(lines(&path).len() <= 3);
        assert!(!lines(&dir.path().join("container.log.1")).is_empty());
    }

    #[test]
    fn so_many_files_of_a_log_are_kept() {
        let line = b"0123456789012345678901234567890123456789\n";
        for files in [0, 1, 4] {
            let dir = tempfile::tempdir().unwrap();
            let mut log = Log::open(dir.path().join("container.log"), 1, files);
            for _ in 0..7 {
                log.push(Kind::Stdout, line);
            }
            log.finish();
            let mut names: Vec<_> = std::fs::read_dir(dir.path())
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            let all = [
                "container.log",
                "container.log.1",
                "container.log.2",
                "container.log.3",
            ];
            assert_eq!(names, all[..files as usize]);
        }
    }

    #[test]
    fn times_are_written_as_rfc_3339() {
        let at = |seconds, nanos| rfc3339(UNIX_EPOCH + Duration::new(seconds, nanos));
        assert_eq!(at(0, 1), "1970-01-01T00:00:00.000000001Z");
        assert_eq!(at(951_782_400, 0), "2000-02-29T00:00:00.000000000Z");
        assert_eq!(at(1_795_219_199, 5), "2026-11-20T23:59:59.000000005Z");
    }
}
