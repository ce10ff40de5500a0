//! What waits for a peer: the first bytes in memory, all others in a file without a name.
//!
//! The log cannot stand in for that file: it has whole lines only, is rotated under a reader, and may
//! have lost what the disk did not take.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::buffer::spare_capacity;
use rustix::fs::{CWD, FallocateFlags, Mode, OFlags};

/// Bytes that wait in memory, but for one frame.
pub(crate) const MEMORY_BYTES_MAX: usize = 256 * 1024;
/// Read bytes that the file keeps before it is cut.
const SPENT_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Bytes in order.
#[derive(Debug)]
pub(crate) struct Backlog<'a> {
    /// Where the file is made.
    directory: &'a Path,
    memory: VecDeque<u8>,
    /// What comes after that. Kept once it was needed: who was behind is again soon.
    spill: Option<Spill>,
}

/// A file from which the beginning is cut as it is read.
#[derive(Debug)]
struct Spill {
    file: File,
    /// Where the disk is still in use.
    kept: u64,
    start: u64,
    end: u64,
}

impl<'a> Backlog<'a> {
    /// Nothing yet.
    pub(crate) fn new(directory: &'a Path) -> Self {
        let (memory, spill) = (VecDeque::new(), None);
        Self {
            directory,
            memory,
            spill,
        }
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.memory.is_empty() && !self.has_spilled()
    }

    /// Bytes of memory and disk that it takes.
    pub(crate) fn len(&self) -> u64 {
        let spilled = self
            .spill
            .as_ref()
            .map_or(0, |spill| spill.end - spill.kept);
        self.memory.len() as u64 + spilled
    }

    fn has_spilled(&self) -> bool {
        self.spill.as_ref().is_some_and(Spill::has_bytes)
    }

    /// Adds the parts of a frame: all of it, or on an error nothing.
    pub(crate) fn push(&mut self, parts: [&[u8]; 2]) -> io::Result<()> {
        if !self.has_spilled() && self.memory.len() < MEMORY_BYTES_MAX {
            self.memory.extend(parts[0]);
            self.memory.extend(parts[1]);
            return Ok(());
        }
        let spill = match &mut self.spill {
            Some(spill) => spill,
            None => self.spill.insert(Spill::create(self.directory)?),
        };
        spill.append(parts)
    }

    /// The next bytes, at least one if there are any.
    pub(crate) fn front(&mut self) -> io::Result<&[u8]> {
        let spill = self.spill.as_mut().filter(|spill| spill.has_bytes());
        if let Some(spill) = spill.filter(|_| self.memory.is_empty()) {
            self.memory = spill.take()?;
        }
        Ok(self.memory.as_slices().0)
    }

    /// Forgets so many of the bytes that [`Self::front`] showed.
    pub(crate) fn consume(&mut self, bytes: usize) {
        self.memory.drain(..bytes);
    }
}

impl Spill {
    fn create(directory: &Path) -> io::Result<Self> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = rustix::fs::openat(CWD, directory, flags, Mode::from_raw_mode(0o600))?;
        let (kept, start, end) = (0, 0, 0);
        Ok(Self {
            file: file.into(),
            kept,
            start,
            end,
        })
    }

    fn has_bytes(&self) -> bool {
        self.start < self.end
    }

    fn append(&mut self, parts: [&[u8]; 2]) -> io::Result<()> {
        let mut end = self.end;
        for part in parts {
            self.file.write_all_at(part, end)?;
            end += part.len() as u64;
        }
        self.end = end;
        Ok(())
    }

    /// Takes the next bytes out.
    fn take(&mut self) -> io::Result<VecDeque<u8>> {
        let waiting = usize::try_from(self.end - self.start).unwrap_or(usize::MAX);
        let mut bytes = Vec::with_capacity(waiting.min(MEMORY_BYTES_MAX));
        rustix::io::pread(&self.file, spare_capacity(&mut bytes), self.start)?;
        // Behind the end may be the beginning of what could not be added.
        bytes.truncate(waiting);
        if bytes.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.start += bytes.len() as u64;
        self.cut()?;
        Ok(bytes.into())
    }

    /// Gives the disk back what was read.
    fn cut(&mut self) -> io::Result<()> {
        if !self.has_bytes() {
            (self.kept, self.start, self.end) = (0, 0, 0);
            return self.file.set_len(0);
        }
        let spent = self.start - self.kept;
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if spent >= SPENT_BYTES_MAX
            && rustix::fs::fallocate(&self.file, flags, self.kept, spent).is_ok()
        {
            self.kept = self.start;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes everything.
    fn drain(backlog: &mut Backlog<'_>) -> Vec<u8> {
        let mut all = Vec::new();
        while !backlog.is_empty() {
            let front = backlog.front().unwrap();
            // Less than there is, as sockets do.
            let taken = front.len().min(100_000);
            all.extend(&front[..taken]);
            backlog.consume(taken);
        }
        all
    }

    #[test]
    fn bytes_keep_their_order_through_memory_and_disk() {
        let directory = tempfile::tempdir().unwrap();
        let mut backlog = Backlog::new(directory.path());
        for round in 0..3_u8 {
            let mut expected = Vec::new();
            for number in 0..200_u8 {
                let body = vec![number ^ round; 10_007];
                backlog.push([&[number], &body]).unwrap();
                expected.push(number);
                expected.extend(body);
            }
            assert!(backlog.memory.len() < MEMORY_BYTES_MAX + 10_008);
            assert!(drain(&mut backlog) == expected, "round {round}");
            assert_eq!(backlog.len(), 0);
        }
    }

    #[test]
    fn the_disk_gets_back_what_was_read() {
        let directory = tempfile::tempdir().unwrap();
        let mut backlog = Backlog::new(directory.path());
        let body = vec![b'x'; 1024 * 1024];
        for _ in 0..100 {
            backlog.push([&[], &body]).unwrap();
            while backlog.len() > 4 * body.len() as u64 + SPENT_BYTES_MAX {
                let length = backlog.front().unwrap().len();
                backlog.consume(length);
            }
        }
        use std::os::unix::fs::MetadataExt as _;
        let blocks = backlog.spill.unwrap().file.metadata().unwrap().blocks();
        assert!(blocks * 512 < 16 * 1024 * 1024, "{blocks} blocks");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_the_disk_does_not_take_leaves_no_half_frame() {
        let mut backlog = Backlog::new(Path::new("/proc/self"));
        let body = vec![b'x'; MEMORY_BYTES_MAX];
        backlog.push([b"h", &body]).unwrap();
        assert!(backlog.push([b"h", &body]).is_err());
        assert_eq!(drain(&mut backlog).len(), MEMORY_BYTES_MAX + 1);
    }
}
