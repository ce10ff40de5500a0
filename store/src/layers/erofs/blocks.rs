//! The image file as it grows: bytes one after another through one buffer, and holes between them.

use std::fs::File;
use std::io::{self, Read};
use std::num::NonZero;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::FileExt as _;

use rustix::fs::{Advice, fadvise};

use crate::error::{Result, StoreError};
use crate::layers::apply::write_failed;
use crate::layers::erofs::format::{BLOCK, Superblock};
use crate::layers::tar::TarReader;

/// A multiple of the block, so that what is not written yet begins with a block.
const BUFFER_BYTES: usize = 512 * 1024;
/// After so many bytes the disk begins to write, so that the sync at the end has little left to do.
const WRITE_BACK_BYTES: u64 = 8 << 20;
/// A block's address has 32 bits, and the last value is that of a hole.
const BYTES_MAX: u64 = (u32::MAX as u64 - 1) * BLOCK as u64;

/// Written at the end only, and in the first block at last.
#[derive(Debug)]
pub(super) struct Blocks {
    file: File,
    /// Where the buffer goes: always a block's begin.
    written: u64,
    /// To where the disk was told to write.
    on_its_way: u64,
    buffer: Vec<u8>,
    filled: usize,
}

impl Blocks {
    /// The first block stays free.
    pub(super) fn new(file: File) -> Self {
        Self {
            file,
            written: BLOCK as u64,
            on_its_way: BLOCK as u64,
            buffer: vec![0; BUFFER_BYTES],
            filled: 0,
        }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Bytes of the image by now.
    pub(super) fn position(&self) -> u64 {
        self.written + self.filled as u64
    }

    /// The address of the block that begins here.
    pub(super) fn address(&self) -> Result<u32> {
        address(self.position())
    }

    /// Reads the next piece of a member, as [`TarReader::read_piece`], to the end of the image, where
    /// it stays only if it is [kept](Self::keep).
    pub(super) fn read_piece<R: Read>(
        &mut self,
        tar: &mut TarReader<R>,
    ) -> Result<Option<(u64, usize)>> {
        if self.filled == self.buffer.len() {
            self.flush()?;
        }
        tar.read_piece(&mut self.buffer[self.filled..])
    }

    /// The last piece stays where it was read to.
    pub(super) fn keep(&mut self, bytes: usize) {
        self.filled += bytes;
    }

    /// The last piece goes to `position`, beyond a hole.
    pub(super) fn keep_at(&mut self, position: u64, bytes: usize) -> Result<()> {
        let piece = self.buffer[self.filled..self.filled + bytes].to_vec();
        self.skip_to(position)?;
        self.append(&piece)
    }

    /// Takes back the last bytes of a block that is not full.
    pub(super) fn take_tail(&mut self, bytes: usize) -> Box<[u8]> {
        self.filled -= bytes;
        self.buffer[self.filled..self.filled + bytes].into()
    }

    pub(super) fn append(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            if self.filled == self.buffer.len() {
                self.flush()?;
            }
            let count = bytes.len().min(self.buffer.len() - self.filled);
            self.buffer[self.filled..self.filled + count].copy_from_slice(&bytes[..count]);
            self.filled += count;
            bytes = &bytes[count..];
        }
        Ok(())
    }

    /// Everything from here to `position` is zero. Whole blocks of it are a hole in the file.
    pub(super) fn skip_to(&mut self, position: u64) -> Result<()> {
        let room = self.buffer.len() - self.filled;
        let mut zeros = position.saturating_sub(self.position());
        if zeros > room as u64 {
            self.flush()?;
            let into_block = position % BLOCK as u64;
            self.written = position - into_block;
            zeros = into_block;
        }
        let end = self.filled + usize::try_from(zeros).unwrap_or(room);
        self.buffer[self.filled..end].fill(0);
        self.filled = end;
        Ok(())
    }

    /// Zeros up to the next block.
    pub(super) fn pad(&mut self) -> Result<()> {
        self.skip_to(self.position().next_multiple_of(BLOCK as u64))
    }

    /// Writes the first block; gives back the file and its length.
    pub(super) fn finish(mut self, superblock: &Superblock) -> Result<(File, u64)> {
        self.pad()?;
        self.flush()?;
        let bytes = self.written;
        self.file.set_len(bytes).map_err(failed)?;
        self.file
            .write_all_at(&superblock.encode(), 0)
            .map_err(failed)?;
        Ok((self.file, bytes))
    }

    /// Everything but the first block: when the buffer is full, at the end, and before a hole, which
    /// then begins in a later block.
    fn flush(&mut self) -> Result<()> {
        self.file
            .write_all_at(&self.buffer[..self.filled], self.written)
            .map_err(failed)?;
        self.written += self.filled as u64;
        self.filled = 0;
        self.write_back();
        Ok(())
    }

    /// The advice starts the writing, and drops only pages whose writing has ended (Linux,
    /// `mm/fadvise.c`): those just written stay. It is no more than advice, so that an error is none.
    fn write_back(&mut self) {
        let Some(fresh) = NonZero::new(self.written.saturating_sub(self.on_its_way)) else {
            return;
        };
        if fresh.get() >= WRITE_BACK_BYTES {
            fadvise(&self.file, self.on_its_way, Some(fresh), Advice::DontNeed).ok();
            self.on_its_way = self.written;
        }
    }
}

/// The address of the block at `position`.
pub(super) fn address(position: u64) -> Result<u32> {
    if position > BYTES_MAX {
        return Err(StoreError::LayerTooLarge { limit: BYTES_MAX });
    }
    Ok(u32::try_from(position / BLOCK as u64).unwrap_or(u32::MAX))
}

fn failed(source: io::Error) -> StoreError {
    write_failed(b"the image of a layer", source)
}
