//! Which bytes of a file an archive holds.

use super::header::number;
use super::pax::decimal;
use super::{BLOCK, malformed};
use crate::error::Result;

/// Fragments of one file; a bound on memory (row A24).
const FRAGMENTS_MAX: usize = 65_536;
/// Bytes of a map in text: two numbers of 20 digits a fragment.
const TEXT_BYTES_MAX: usize = FRAGMENTS_MAX * 42;

/// A sparse file as PAX records declare it.
#[derive(Debug)]
pub(super) struct Declared {
    pub(super) name: Option<Vec<u8>>,
    pub(super) size: u64,
    /// Absent: it stands in front of the data.
    pub(super) map: Option<Vec<(u64, u64)>>,
}

/// The fragments still to be read, in order.
#[derive(Debug)]
pub(super) struct Map {
    fragments: std::vec::IntoIter<(u64, u64)>,
    current: (u64, u64),
    size: u64,
}

impl Map {
    pub(super) fn dense(size: u64) -> Self {
        Self {
            fragments: Vec::new().into_iter(),
            current: (0, size),
            size,
        }
    }

    /// Fragments must be in order, apart, within the file, and as long as what is stored.
    pub(super) fn sparse(fragments: Vec<(u64, u64)>, size: u64, stored: u64) -> Result<Self> {
        let wrong = || malformed("a sparse map that does not fit its file");
        if fragments.len() > FRAGMENTS_MAX {
            return Err(malformed("a sparse file of too many fragments"));
        }
        let (mut end, mut total) = (0_u64, 0_u64);
        for (offset, length) in &fragments {
            if *offset < end {
                return Err(wrong());
            }
            end = offset.checked_add(*length).ok_or_else(wrong)?;
            total = total.checked_add(*length).ok_or_else(wrong)?;
        }
        if end > size || total != stored || i64::try_from(size).is_err() {
            return Err(wrong());
        }
        Ok(Self {
            fragments: fragments.into_iter(),
            current: (0, 0),
            size,
        })
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// At most `length` bytes of the next fragment: offset in the file and count.
    pub(super) fn take(&mut self, length: usize) -> Option<(u64, usize)> {
        while self.current.1 == 0 {
            self.current = self.fragments.next()?;
        }
        let (offset, left) = self.current;
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(length);
        self.current = (offset + count as u64, left - count as u64);
        Some((offset, count))
    }
}

/// GNU's old format: four fragments in the header, 21 in each block after it.
#[derive(Debug)]
pub(super) struct OldMap {
    fragments: Vec<(u64, u64)>,
    size: u64,
    extended: bool,
}

impl OldMap {
    pub(super) fn of(header: &[u8; BLOCK]) -> Result<Self> {
        let mut map = Self {
            fragments: Vec::new(),
            size: unsigned(&header[483..495])?,
            extended: header[482] != 0,
        };
        map.read(&header[386..482])?;
        Ok(map)
    }

    pub(super) fn extended(&self) -> bool {
        self.extended
    }

    pub(super) fn extend(&mut self, block: &[u8; BLOCK]) -> Result<()> {
        self.extended = block[504] != 0;
        if self.fragments.len() > FRAGMENTS_MAX {
            return Err(malformed("a sparse file of too many fragments"));
        }
        self.read(&block[..504])
    }

    fn read(&mut self, fields: &[u8]) -> Result<()> {
        for field in fields.chunks_exact(24) {
            if field[0] == 0 {
                break;
            }
            self.fragments
                .push((unsigned(&field[..12])?, unsigned(&field[12..])?));
        }
        Ok(())
    }

    pub(super) fn finish(self, stored: u64) -> Result<Map> {
        Map::sparse(self.fragments, self.size, stored)
    }
}

fn unsigned(field: &[u8]) -> Result<u64> {
    u64::try_from(number(field)?).map_err(|_| malformed("a sparse map with a number below 0"))
}

/// GNU's PAX format 1.0: decimal numbers, one a line, the count of fragments first.
#[derive(Debug, Default)]
pub(super) struct TextMap {
    text: Vec<u8>,
    lines: usize,
}

impl TextMap {
    pub(super) fn push(&mut self, block: &[u8]) -> Result<()> {
        if self.text.len() > TEXT_BYTES_MAX {
            return Err(malformed("a sparse file of too many fragments"));
        }
        self.lines += block.iter().filter(|byte| **byte == b'\n').count();
        self.text.extend_from_slice(block);
        Ok(())
    }

    fn numbers(&self) -> impl Iterator<Item = Result<u64>> {
        self.text
            .split(|byte| *byte == b'\n')
            .map(|line| decimal(line).ok_or_else(|| malformed("a sparse map that is not one")))
    }

    fn count(&self) -> Result<usize> {
        let count = self.numbers().next().unwrap_or(Ok(0))?;
        usize::try_from(count)
            .ok()
            .filter(|count| *count <= FRAGMENTS_MAX)
            .ok_or_else(|| malformed("a sparse file of too many fragments"))
    }

    pub(super) fn complete(&self) -> Result<bool> {
        Ok(self.lines > 0 && self.lines > self.count()? * 2)
    }

    pub(super) fn pairs(&self) -> Result<Vec<(u64, u64)>> {
        let numbers: Vec<u64> = self
            .numbers()
            .skip(1)
            .take(self.count()? * 2)
            .collect::<Result<_>>()?;
        Ok(numbers
            .chunks_exact(2)
            .map(|pair| (pair[0], pair[1]))
            .collect())
    }
}
