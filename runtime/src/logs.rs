//! What a container wrote, read back from its log: `container.log` and, before it, `container.log.1`
//! and so on.

mod line;
pub(crate) mod size;

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use orlop_shim::config::LOG_FILE;

pub(crate) use line::{Line, Stream};
pub(crate) use size::LogSize;

/// The most files that a log has.
pub(crate) const FILES_MAX: u32 = 100;
/// Read at a time.
const CHUNK_BYTES: usize = 256 * 1024;
/// The longest line that is parsed; a longer one is no line of ours.
const LINE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Which lines are wanted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection {
    /// Those of standard output.
    pub(crate) stdout: bool,
    /// Those of standard error.
    pub(crate) stderr: bool,
    /// The last so many; absent: all.
    pub(crate) tail: Option<u64>,
    /// Not older.
    pub(crate) since: Option<Timestamp>,
    /// Not younger.
    pub(crate) until: Option<Timestamp>,
}

/// Reads a container's log from its beginning (or from the last lines) on. Blocks on the disk only.
#[derive(Debug)]
pub(crate) struct Reader {
    path: PathBuf,
    selection: Selection,
    /// The file being read; `None` before the first one exists.
    file: Option<File>,
    /// Bytes of a line whose end was not read yet.
    partial: Vec<u8>,
    /// Nothing comes into the file that is being read any more: another one follows.
    complete: bool,
}

impl Selection {
    fn takes(&self, line: &Line) -> bool {
        let stream = match line.stream {
            Stream::Stdout => self.stdout,
            Stream::Stderr => self.stderr,
        };
        stream
            && self.since.is_none_or(|since| line.time >= since)
            && self.until.is_none_or(|until| line.time <= until)
    }
}

impl Reader {
    /// Opens a container's log where the selection begins.
    pub(crate) fn open(directory: &Path, selection: Selection) -> io::Result<Self> {
        let mut reader = Self {
            path: directory.join(LOG_FILE),
            selection,
            file: None,
            partial: Vec::new(),
            complete: false,
        };
        match reader.selection.tail {
            Some(lines) => reader.seek_tail(lines)?,
            None => reader.seek_start()?,
        }
        Ok(reader)
    }

    fn seek_start(&mut self) -> io::Result<()> {
        let mut files = files(&self.path)?;
        self.complete = files.len() > 1;
        self.file = files.pop();
        Ok(())
    }

    /// The last lines that the selection takes, across all files.
    fn seek_tail(&mut self, lines: u64) -> io::Result<()> {
        let mut wanted = lines;
        for (number, mut file) in files(&self.path)?.into_iter().enumerate() {
            let (at, found) = tail_position(&mut file, wanted, &self.selection)?;
            file.seek(SeekFrom::Start(at))?;
            self.complete = number > 0;
            self.file = Some(file);
            wanted -= found;
            if wanted == 0 {
                break;
            }
        }
        Ok(())
    }

    /// The lines that were written since the last call, at most some hundred kilobytes of them; none:
    /// the log has no more lines yet.
    pub(crate) fn read(&mut self) -> io::Result<Vec<Line>> {
        loop {
            let bytes = self.chunk()?;
            if bytes == 0 && !self.next_file()? {
                return Ok(Vec::new());
            }
            let lines = self.take_lines();
            if !lines.is_empty() {
                return Ok(lines);
            }
        }
    }

    fn chunk(&mut self) -> io::Result<usize> {
        let Some(file) = &mut self.file else {
            return Ok(0);
        };
        let chunk = u64::try_from(CHUNK_BYTES).unwrap_or(u64::MAX);
        let bytes = file.take(chunk).read_to_end(&mut self.partial)?;
        if self.partial.len() > LINE_BYTES_MAX {
            self.partial.clear();
        }
        Ok(bytes)
    }

    /// At the end of a file: on to the one that follows, if there is one.
    fn next_file(&mut self) -> io::Result<bool> {
        let Some(current) = open(&self.path)? else {
            return Ok(false);
        };
        let same = match &self.file {
            Some(file) => inode(file)? == inode(&current)?,
            None => false,
        };
        if same {
            return Ok(false);
        }
        // The file that was read has been rotated away. What came into it since it was read last is
        // still behind its handle.
        if !self.complete && self.file.is_some() {
            self.complete = true;
            return Ok(true);
        }
        self.follow()?;
        Ok(true)
    }

    /// On to the file that was begun after this one; if this one is gone, to the oldest.
    fn follow(&mut self) -> io::Result<()> {
        let mut files = files(&self.path)?;
        let read = self.file.as_ref().map(inode).transpose()?;
        for (number, file) in files.iter().enumerate() {
            if number > 0 && Some(inode(file)?) == read {
                files.truncate(number);
                break;
            }
        }
        self.complete = files.len() > 1;
        self.file = files.pop();
        self.partial.clear();
        Ok(())
    }

    fn take_lines(&mut self) -> Vec<Line> {
        let Some(end) = self.partial.iter().rposition(|byte| *byte == b'\n') else {
            return Vec::new();
        };
        let rest = self.partial.split_off(end + 1);
        let whole = std::mem::replace(&mut self.partial, rest);
        whole
            .split(|byte| *byte == b'\n')
            .filter_map(Line::parse)
            .filter(|line| self.selection.takes(line))
            .collect()
    }
}

/// The files of a log, the newest first: one that is rotated meanwhile is seen again, not missed.
fn files(path: &Path) -> io::Result<Vec<File>> {
    let mut files: Vec<File> = open(path)?.into_iter().collect();
    let mut missing = 0;
    for number in 1..FILES_MAX {
        match open(&older(path, number))? {
            Some(file) => {
                let before = files.last().map(inode).transpose()?;
                if before != Some(inode(&file)?) {
                    files.push(file);
                }
                missing = 0;
            }
            // One is, while they get other numbers.
            None if missing == 0 => missing = 1,
            None => break,
        }
    }
    Ok(files)
}

fn older(path: &Path, number: u32) -> PathBuf {
    path.with_extension(format!("log.{number}"))
}

/// Not through a symbolic link, and nothing but a regular file.
fn open(path: &Path) -> io::Result<Option<File>> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    match File::options().read(true).custom_flags(flags).open(path) {
        Ok(file) if file.metadata()?.is_file() => Ok(Some(file)),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the log is not a regular file",
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn inode(file: &File) -> io::Result<u64> {
    Ok(file.metadata()?.ino())
}

/// Where the last `wanted` lines begin, and how many there are (at most `wanted`). Reads backwards, so
/// that the last lines of a long log are cheap.
fn tail_position(file: &mut File, wanted: u64, selection: &Selection) -> io::Result<(u64, u64)> {
    let mut at = file.metadata()?.len();
    if wanted == 0 {
        return Ok((at, 0));
    }
    let mut found = 0;
    // Bytes from `at` on whose line begins before `at`.
    let mut head: Vec<u8> = Vec::new();
    while at > 0 {
        let step = at.min(CHUNK_BYTES as u64);
        at -= step;
        file.seek(SeekFrom::Start(at))?;
        let mut block = Vec::new();
        io::Read::by_ref(file).take(step).read_to_end(&mut block)?;
        block.append(&mut head);
        let mut end = block.len();
        while end > 0 {
            let before = block.get(..end - 1).unwrap_or_default();
            let newline = before.iter().rposition(|byte| *byte == b'\n');
            let start = match newline {
                Some(newline) => newline + 1,
                None if at == 0 => 0,
                None => break,
            };
            let line = block.get(start..end).unwrap_or_default();
            if Line::parse(line.trim_ascii_end()).is_some_and(|line| selection.takes(&line)) {
                found += 1;
                if found == wanted {
                    return Ok((at + start as u64, found));
                }
            }
            end = start;
        }
        block.truncate(end);
        if block.len() > LINE_BYTES_MAX {
            block.clear();
        }
        head = block;
    }
    Ok((0, found))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, from: usize, to: usize) {
        let text: String = (from..to)
            .map(|n| {
                let stream = if n % 2 == 0 { "stdout" } else { "stderr" };
                format!(
                    "{{\"log\":\"{n}\\n\",\"stream\":\"{stream}\",\"time\":\"2026-01-01T00:00:{:02}Z\"}}\n",
                    n % 60
                )
            })
            .collect();
        use std::io::Write as _;
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(path)
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn both() -> Selection {
        Selection {
            stdout: true,
            stderr: true,
            ..Selection::default()
        }
    }

    fn drain(reader: &mut Reader) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            let lines = reader.read().unwrap();
            if lines.is_empty() {
                return all;
            }
            all.extend(
                lines
                    .iter()
                    .map(|line| String::from_utf8_lossy(&line.data).trim().to_owned()),
            );
        }
    }

    #[test]
    fn all_lines_of_both_files_come_in_order_and_a_follower_loses_none_at_rotation() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join(LOG_FILE);
        write(&log, 0, 10);
        let mut reader = Reader::open(directory.path(), both()).unwrap();
        assert_eq!(drain(&mut reader).len(), 10);
        write(&log, 10, 12);
        std::fs::rename(&log, older(&log, 1)).unwrap();
        write(&log, 12, 15);
        let rest = drain(&mut reader);
        assert_eq!(rest, ["10", "11", "12", "13", "14"]);
        let mut again = Reader::open(directory.path(), both()).unwrap();
        assert_eq!(drain(&mut again).len(), 15);
    }

    #[test]
    fn the_tail_counts_the_selected_lines_across_both_files() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join(LOG_FILE);
        write(&older(&log, 1), 0, 6);
        write(&log, 6, 8);
        let tail = |lines, stderr| {
            let selection = Selection {
                stderr,
                tail: Some(lines),
                ..both()
            };
            drain(&mut Reader::open(directory.path(), selection).unwrap())
        };
        assert_eq!(tail(3, true), ["5", "6", "7"]);
        assert_eq!(tail(2, false), ["4", "6"]);
        assert_eq!(tail(100, true).len(), 8);
        assert!(tail(0, true).is_empty());
    }

    #[test]
    fn a_log_of_many_files_is_read_in_order_while_it_is_rotated() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join(LOG_FILE);
        let rotate = || {
            for number in (1..4).rev() {
                std::fs::rename(older(&log, number), older(&log, number + 1)).ok();
            }
            std::fs::rename(&log, older(&log, 1)).unwrap();
        };
        let mut follower = Reader::open(directory.path(), both()).unwrap();
        for n in 0..3 {
            write(&log, n, n + 1);
            rotate();
        }
        write(&log, 3, 4);
        assert_eq!(drain(&mut follower), ["0", "1", "2", "3"]);
        for n in 4..6 {
            rotate();
            write(&log, n, n + 1);
        }
        assert_eq!(drain(&mut follower), ["4", "5"]);
        let tail = Selection {
            tail: Some(4),
            ..both()
        };
        let mut tail = Reader::open(directory.path(), tail).unwrap();
        assert_eq!(drain(&mut tail), ["2", "3", "4", "5"]);
    }

    #[test]
    fn the_tail_of_a_log_larger_than_a_chunk_is_exact() {
        let directory = tempfile::tempdir().unwrap();
        write(&directory.path().join(LOG_FILE), 0, 20_000);
        let selection = Selection {
            tail: Some(10_000),
            ..both()
        };
        let lines = drain(&mut Reader::open(directory.path(), selection).unwrap());
        assert_eq!(lines.len(), 10_000);
        assert_eq!(lines.first().unwrap(), "10000");
    }

    #[test]
    fn c15_a_log_that_is_a_symbolic_link_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/passwd", directory.path().join(LOG_FILE)).unwrap();
        assert!(Reader::open(directory.path(), both()).is_err());
    }
}
