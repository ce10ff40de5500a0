//! Where the bytes of a file lie in the image.

use std::io::Read;

use crate::error::Result;
use crate::layers::erofs::blocks::{Blocks, address};
use crate::layers::erofs::format::{BLOCK, BLOCK_BITS};
use crate::layers::tar::TarReader;

/// The end of a file is kept in memory and follows its inode if it is no longer than this: a block of
/// its own would be mostly air. It saves 3 % of a Debian root.
const TAIL_MAX: usize = 1024;
/// The ends of all files of one layer that are kept so; the Debian root has half of it.
pub(super) const TAILS_MAX: usize = 2 << 20;
/// Addresses that the map of one sparse file may have; its chunks are as large as that needs.
const CHUNKS_MAX: u64 = 4096;

/// The bytes of one file.
#[derive(Debug)]
pub(super) struct Data {
    pub(super) size: u64,
    pub(super) place: Place,
}

/// Where they are.
#[derive(Debug)]
pub(super) enum Place {
    /// In blocks from this address on, but for the tail.
    Dense {
        /// Its address.
        block: u32,
        /// What follows the inode.
        tail: Box<[u8]>,
    },
    /// In chunks of this many blocks (log2), of which these are there.
    Sparse {
        /// As in the inode.
        chunk_bits: u8,
        /// In their order.
        runs: Box<[Run]>,
    },
}

/// Chunks in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// The first one's number in the file.
    pub(super) chunk: u64,
    /// How many.
    pub(super) count: u64,
    /// The first one's address.
    pub(super) block: u32,
}

impl Run {
    /// Writes its addresses into the map of its file.
    pub(super) fn write(&self, chunk_bits: u8, map: &mut [u32]) {
        let index = |chunk: u64| usize::try_from(chunk).unwrap_or(usize::MAX);
        let places = map
            .iter_mut()
            .skip(index(self.chunk))
            .take(index(self.count));
        for (number, place) in (0..).zip(places) {
            *place = self.block + (number << chunk_bits);
        }
    }
}

impl Data {
    /// Bytes that stay in memory.
    pub(super) fn memory(&self) -> usize {
        match &self.place {
            Place::Dense { tail, .. } => tail.len(),
            Place::Sparse { runs, .. } => std::mem::size_of_val(&**runs),
        }
    }

    /// Chunks of a sparse file, holes included.
    pub(super) fn chunks(&self) -> u64 {
        match self.place {
            Place::Dense { .. } => 0,
            Place::Sparse { chunk_bits, .. } => self.size.div_ceil(1 << (BLOCK_BITS + chunk_bits)),
        }
    }

    /// Bytes that are not from a tar.
    pub(super) fn of_bytes(blocks: &mut Blocks, bytes: &[u8], inline: bool) -> Result<Self> {
        let block = blocks.address()?;
        let mut tail = Box::default();
        if inline {
            tail = bytes.into();
        } else {
            blocks.append(bytes)?;
            blocks.pad()?;
        }
        Ok(Self {
            size: bytes.len() as u64,
            place: Place::Dense { block, tail },
        })
    }

    /// Reads the body of a member that has `size` bytes. What it keeps in memory is taken from
    /// `tails`.
    pub(super) fn read<R: Read>(
        blocks: &mut Blocks,
        tar: &mut TarReader<R>,
        size: u64,
        tails: &mut usize,
    ) -> Result<Self> {
        let mut body = Body::new(blocks, size);
        while let Some((offset, count)) = body.blocks.read_piece(tar)? {
            body.piece(offset, count)?;
        }
        body.finish(tails)
    }
}

/// A file on its way into the image.
struct Body<'a> {
    blocks: &'a mut Blocks,
    size: u64,
    chunk_bits: u8,
    extents: Vec<Extent>,
}

/// Bytes of the file that follow one another in the image; both begin with a chunk.
struct Extent {
    offset: u64,
    position: u64,
    /// Where the data ends, in the file.
    end: u64,
}

impl<'a> Body<'a> {
    fn new(blocks: &'a mut Blocks, size: u64) -> Self {
        let fits = |bits: &u8| size.div_ceil(1 << (BLOCK_BITS + bits)) <= CHUNKS_MAX;
        let chunk_bits = (0..=31).find(fits).unwrap_or(31);
        Self {
            blocks,
            size,
            chunk_bits,
            extents: Vec::new(),
        }
    }

    fn chunk(&self) -> u64 {
        1 << (BLOCK_BITS + self.chunk_bits)
    }

    /// Chunks without any data are left out; a hole within one becomes a hole of the image file.
    fn piece(&mut self, offset: u64, count: usize) -> Result<()> {
        let chunk = self.chunk();
        let begin = offset - offset % chunk;
        let end = offset + count as u64;
        let position = match self.extents.last_mut() {
            Some(last) if begin <= last.end.next_multiple_of(chunk) => {
                last.end = end;
                last.position + (offset - last.offset)
            }
            last => {
                let start = match last {
                    Some(last) => last.position + (last.end.next_multiple_of(chunk) - last.offset),
                    None => self.blocks.position(),
                };
                self.extents.push(Extent {
                    offset: begin,
                    position: start,
                    end,
                });
                start + (offset - begin)
            }
        };
        if position == self.blocks.position() {
            self.blocks.keep(count);
            return Ok(());
        }
        self.blocks.keep_at(position, count)
    }

    fn finish(self, tails: &mut usize) -> Result<Data> {
        let chunk = self.chunk();
        let size = self.size;
        let place = match self.extents.as_slice() {
            [] if size == 0 => Place::Dense {
                block: 0,
                tail: Box::default(),
            },
            [only] if only.offset == 0 && only.end.next_multiple_of(chunk) >= size => {
                self.blocks.skip_to(only.position + size)?;
                dense(self.blocks, address(only.position)?, size, tails)?
            }
            extents => {
                if let Some(last) = extents.last() {
                    let end = last.end.next_multiple_of(chunk).min(size);
                    self.blocks.skip_to(last.position + (end - last.offset))?;
                    self.blocks.pad()?;
                }
                let runs = extents.iter().map(|extent| extent.run(chunk));
                Place::Sparse {
                    chunk_bits: self.chunk_bits,
                    runs: runs.collect::<Result<_>>()?,
                }
            }
        };
        Ok(Data { size, place })
    }
}

impl Extent {
    fn run(&self, chunk: u64) -> Result<Run> {
        Ok(Run {
            chunk: self.offset / chunk,
            count: (self.end - self.offset).div_ceil(chunk),
            block: address(self.position)?,
        })
    }
}

/// The image ends with the file.
fn dense(blocks: &mut Blocks, block: u32, size: u64, tails: &mut usize) -> Result<Place> {
    let mut tail = Box::default();
    match usize::try_from(size % BLOCK as u64) {
        Ok(bytes) if bytes <= TAIL_MAX.min(*tails) => {
            tail = blocks.take_tail(bytes);
            *tails -= bytes;
        }
        _ => blocks.pad()?,
    }
    Ok(Place::Dense { block, tail })
}
