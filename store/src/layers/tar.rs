//! Reading tar as Go's `archive/tar` does, because that is what decided the content of every image
//! that exists: ustar, PAX, GNU long names and sparse files.
//!
//! Why not the `tar` crate, which writes our archives and is the fixture of their tests: it reads a
//! PAX header or a GNU long name of any size into memory, passes over malformed PAX records, and
//! knows of sparse files only the old GNU form. Where a layer is hostile, that decides.
//!
//! Strict where parsers disagree (`SECURITY` rows A12 to A16, A24): a malformed PAX record, a bad
//! checksum or an unknown type is an error, PAX sizes win, an extension comes once, and is bounded.

use std::io::{self, Read};

use crate::error::{Result, StoreError};

mod header;
mod pax;
mod sparse;

use header::Header;
pub use header::Kind;
use pax::Records;
use sparse::Map;

/// Bytes of a header and the unit of padding (POSIX.1-1988, ustar).
pub(crate) const BLOCK: usize = 512;
/// The most that one PAX header or GNU long name may hold: as Go's `maxSpecialFileSize`.
const EXTENSION_BYTES_MAX: u64 = 1024 * 1024;
/// Extension headers in front of one entry; honest writers need three.
const EXTENSIONS_MAX: usize = 16;

/// Seconds and nanoseconds since the epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    /// Whole seconds, negative before 1970.
    pub seconds: i64,
    /// 0 to 999,999,999, always forward from `seconds`.
    pub nanos: u32,
}

/// One member of an archive, with its extensions applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// As the archive says it.
    pub path: Vec<u8>,
    /// Of a hard or symbolic link.
    pub link: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last modification.
    pub mtime: Time,
    /// Bytes of the file when extracted, holes included.
    pub size: u64,
    /// Device numbers.
    pub device: (u32, u32),
    /// Extended attributes (`SCHILY.xattr.*`).
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A streaming reader of members.
#[derive(Debug)]
pub struct TarReader<R> {
    inner: R,
    /// Bytes of the current body that are in the archive and not read yet.
    body_left: u64,
    padding: u64,
    /// Where the current member's data lies, when it is sparse.
    map: Option<Map>,
    done: bool,
}

impl<R: Read> TarReader<R> {
    /// Starts at the first header.
    pub fn new(inner: R) -> Self {
        Self {
            inner,
            body_left: 0,
            padding: 0,
            map: None,
            done: false,
        }
    }

    /// The next member; `None` at the end of the archive. What was not read of the last one is
    /// skipped.
    pub fn next_member(&mut self) -> Result<Option<Member>> {
        let mut extensions = Extensions::default();
        for _ in 0..EXTENSIONS_MAX {
            let Some(header) = self.next_header()? else {
                return extensions.none_pending();
            };
            match header.kind()? {
                Kind::PaxNext => {
                    let records = Records::parse(&self.extension(&header)?)?;
                    once(&mut extensions.pax, records)?;
                }
                Kind::PaxGlobal => Records::parse(&self.extension(&header)?)?.only_notes()?,
                Kind::LongName => once(&mut extensions.name, c_string(self.extension(&header)?))?,
                Kind::LongLink => once(&mut extensions.link, c_string(self.extension(&header)?))?,
                kind => return self.member(&header, kind, extensions).map(Some),
            }
        }
        Err(malformed("too many extension headers before one entry"))
    }

    /// The next piece of the current member: where it goes in the file, and how many bytes are in
    /// `buffer`. `None` at the end. Holes are what lies between pieces.
    pub fn read_piece(&mut self, buffer: &mut [u8]) -> Result<Option<(u64, usize)>> {
        let Some(map) = &mut self.map else {
            return Ok(None);
        };
        let Some((offset, length)) = map.take(buffer.len()) else {
            return Ok(None);
        };
        self.inner
            .read_exact(&mut buffer[..length])
            .map_err(|error| read_failed(error, "the body of an entry"))?;
        self.body_left -= length as u64;
        Ok(Some((offset, length)))
    }

    /// Gives back the reader, for reading what follows the archive.
    pub fn into_inner(self) -> R {
        self.inner
    }

    fn next_header(&mut self) -> Result<Option<Header>> {
        self.skip_body()?;
        if self.done {
            return Ok(None);
        }
        let Some(block) = self.block()? else {
            self.done = true;
            return Ok(None);
        };
        if block.iter().any(|byte| *byte != 0) {
            return Header::parse(block).map(Some);
        }
        self.done = true;
        match self.block()? {
            Some(second) if second.iter().any(|byte| *byte != 0) => {
                Err(malformed("one empty block between entries"))
            }
            _ => Ok(None),
        }
    }

    fn skip_body(&mut self) -> Result<()> {
        let skip = self.body_left + self.padding;
        self.map = None;
        self.body_left = 0;
        self.padding = 0;
        let skipped = io::copy(&mut (&mut self.inner).take(skip), &mut io::sink())
            .map_err(|error| read_failed(error, "the body of an entry"))?;
        if skipped < skip {
            return Err(malformed("it ends within an entry"));
        }
        Ok(())
    }

    /// One block; `None` at the end of the input.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.inner.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(malformed("it ends within a header")),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(read_failed(error, "a header")),
            }
        }
        Ok(Some(block))
    }

    fn extension(&mut self, header: &Header) -> Result<Vec<u8>> {
        let size = header.size()?;
        if size > EXTENSION_BYTES_MAX {
            return Err(malformed("an extension header of more than 1 MiB"));
        }
        self.body(size);
        let mut bytes = Vec::new();
        let read = (&mut self.inner)
            .take(size)
            .read_to_end(&mut bytes)
            .map_err(|error| read_failed(error, "an extension header"))?;
        if (read as u64) < size {
            return Err(malformed("it ends within an extension header"));
        }
        self.body_left = 0;
        Ok(bytes)
    }

    fn body(&mut self, size: u64) {
        self.body_left = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
    }

    fn member(&mut self, header: &Header, kind: Kind, extensions: Extensions) -> Result<Member> {
        let mut member = header.member(kind)?;
        let mut stored = header.size()?;
        let records = extensions.pax.unwrap_or_default();
        if let Some(size) = records.size()? {
            stored = size;
        }
        records.apply(&mut member)?;
        if let Some(name) = extensions.name {
            member.path = agreed(records.path(), name)?;
        }
        if let Some(link) = extensions.link {
            member.link = agreed(records.link(), link)?;
        }
        if member.kind != Kind::File && member.kind != Kind::GnuSparse {
            stored = 0;
        }
        self.body(stored);
        let map = self.sparse_map(header, &records, &mut member, stored)?;
        member.size = map.size();
        self.map = Some(map);
        Ok(member)
    }

    fn sparse_map(
        &mut self,
        header: &Header,
        records: &Records,
        member: &mut Member,
        stored: u64,
    ) -> Result<Map> {
        let map = if member.kind == Kind::GnuSparse {
            member.kind = Kind::File;
            let mut map = sparse::OldMap::of(header.block())?;
            while map.extended() {
                let block = self.block()?;
                map.extend(&block.ok_or_else(|| malformed("it ends within a sparse map"))?)?;
            }
            map.finish(stored)?
        } else if let Some(declared) = records.sparse()? {
            if let Some(name) = &declared.name {
                member.path.clone_from(name);
            }
            match declared.map {
                Some(pairs) => Map::sparse(pairs, declared.size, stored)?,
                None => self.sparse_map_of_body(declared.size)?,
            }
        } else {
            Map::dense(stored)
        };
        Ok(map)
    }

    /// GNU's PAX format 1.0 keeps the map in front of the data, padded to whole blocks.
    fn sparse_map_of_body(&mut self, size: u64) -> Result<Map> {
        let mut text = sparse::TextMap::default();
        while !text.complete()? {
            if self.body_left < BLOCK as u64 {
                return Err(malformed("a sparse map that does not end"));
            }
            let block = self.block()?;
            text.push(&block.ok_or_else(|| malformed("it ends within a sparse map"))?)?;
            self.body_left -= BLOCK as u64;
        }
        Map::sparse(text.pairs()?, size, self.body_left)
    }
}

/// What stood in front of an entry.
#[derive(Debug, Default)]
struct Extensions {
    pax: Option<Records>,
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl Extensions {
    fn none_pending(&self) -> Result<Option<Member>> {
        if self.pax.is_none() && self.name.is_none() && self.link.is_none() {
            return Ok(None);
        }
        Err(malformed("an extension header without its entry"))
    }
}

/// Of two, some readers take the first one and some the last.
fn once<T>(place: &mut Option<T>, value: T) -> Result<()> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(malformed("an extension header twice before one entry")),
    }
}

/// A name in GNU's header, beside one in PAX records: Go believes the first, GNU tar and Python the
/// other.
fn agreed(of_pax: Option<&[u8]>, of_gnu: Vec<u8>) -> Result<Vec<u8>> {
    match of_pax {
        Some(name) if name != of_gnu => Err(malformed("two names of one entry")),
        _ => Ok(of_gnu),
    }
}

/// The error of a tar that is not one.
pub(crate) fn malformed(reason: &str) -> StoreError {
    StoreError::Tar {
        reason: reason.to_owned(),
    }
}

fn read_failed(error: io::Error, what: &'static str) -> StoreError {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return malformed(&format!("it ends within {what}"));
    }
    StoreError::TarRead {
        what,
        source: error,
    }
}

fn c_string(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
        bytes.truncate(end);
    }
    bytes
}
