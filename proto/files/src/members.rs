//! The members of a tar. The crate parses headers; what follows them and has no bound there is read
//! here: long names, and records in POSIX form.

use std::io::{self, Read};

use tar::{Archive, Entry, EntryType, PaxExtensions};

use crate::PATH_BYTES_MAX;
use crate::error::{CopyError, Result};

/// Bytes of the records before one member.
const RECORDS_MAX: u64 = 1 << 20;

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    File,
    Directory,
    Symlink,
    /// One more name of an earlier member.
    Link,
    Fifo,
    /// A file of a device.
    Device,
}

/// One member, without its bytes.
#[derive(Debug)]
pub(crate) struct Member {
    /// As it was written; hostile.
    pub(crate) path: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) what: What,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds since the epoch.
    pub(crate) mtime: i64,
}

/// What comes before a member and is about it.
#[derive(Debug, Default)]
struct Before {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    mtime: Option<i64>,
    uid: Option<u32>,
    gid: Option<u32>,
    size: Option<u64>,
}

/// Visits each member with its bytes, in order.
pub(crate) fn each(
    tar: impl Read,
    visit: &mut dyn FnMut(&Member, &mut dyn Read) -> Result<()>,
) -> Result<()> {
    let mut archive = Archive::new(tar);
    let mut before = Before::default();
    let entries = archive.entries().map_err(unreadable)?.raw(true);
    for entry in entries {
        let mut entry = entry.map_err(unreadable)?;
        match entry.header().entry_type() {
            EntryType::GNULongName => before.path = Some(name(&mut entry)?),
            EntryType::GNULongLink => before.link = Some(name(&mut entry)?),
            EntryType::XHeader => before.read(&bounded(&mut entry)?)?,
            // It is about the whole archive: who made it, and from what.
            EntryType::XGlobalHeader => drop(bounded(&mut entry)?),
            kind => {
                let member = std::mem::take(&mut before).member(&entry, kind)?;
                visit(&member, &mut entry)?;
            }
        }
    }
    Ok(())
}

impl Before {
    fn read(&mut self, records: &[u8]) -> Result<()> {
        for record in PaxExtensions::new(records) {
            let record = record.map_err(unreadable)?;
            let key = record.key_bytes();
            let value = record.value_bytes();
            match key {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"mtime" => self.mtime = Some(whole_seconds(value)?),
                b"uid" => self.uid = Some(number(value)?),
                b"gid" => self.gid = Some(number(value)?),
                b"size" => self.size = Some(number(value)?),
                key if key.starts_with(b"GNU.sparse.") => return Err(bad("a sparse file")),
                _ => {}
            }
        }
        Ok(())
    }

    fn member<R: Read>(self, entry: &Entry<'_, R>, kind: EntryType) -> Result<Member> {
        let header = entry.header();
        let size = header.entry_size().map_err(unreadable)?;
        // Two sizes are two ways to read all that follows.
        if self.size.is_some_and(|said| said != size) {
            return Err(bad("a member with two sizes"));
        }
        let id = |id: io::Result<u64>| {
            u32::try_from(id.map_err(unreadable)?).map_err(|_| bad("an owner out of range"))
        };
        let path = self
            .path
            .unwrap_or_else(|| header.path_bytes().into_owned());
        let link = header.link_name_bytes().unwrap_or_default().into_owned();
        let mtime = i64::try_from(header.mtime().map_err(unreadable)?);
        let member = Member {
            what: what(kind, &path)?,
            path,
            link: self.link.unwrap_or(link),
            mode: header.mode().map_err(unreadable)? & 0o7777,
            uid: self.uid.map_or_else(|| id(header.uid()), Ok)?,
            gid: self.gid.map_or_else(|| id(header.gid()), Ok)?,
            mtime: self.mtime.unwrap_or(mtime.unwrap_or(0)),
        };
        for name in [&member.path, &member.link] {
            if name.len() > PATH_BYTES_MAX || name.contains(&0) {
                return Err(bad("a name that no file can have"));
            }
        }
        Ok(member)
    }
}

fn what(kind: EntryType, path: &[u8]) -> Result<What> {
    Ok(match kind {
        EntryType::Regular | EntryType::Continuous if path.ends_with(b"/") => What::Directory,
        EntryType::Regular | EntryType::Continuous => What::File,
        EntryType::Directory => What::Directory,
        EntryType::Symlink => What::Symlink,
        EntryType::Link => What::Link,
        EntryType::Fifo => What::Fifo,
        EntryType::Char | EntryType::Block => What::Device,
        _ => return Err(bad("a member of an unknown kind")),
    })
}

fn bounded<R: Read>(entry: &mut Entry<'_, R>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = entry.take(RECORDS_MAX + 1).read_to_end(&mut bytes);
    read.map_err(unreadable)?;
    match bytes.len() as u64 > RECORDS_MAX {
        true => Err(bad("more than 1 MiB of records")),
        false => Ok(bytes),
    }
}

fn name<R: Read>(entry: &mut Entry<'_, R>) -> Result<Vec<u8>> {
    let mut bytes = bounded(entry)?;
    if bytes.last() == Some(&0) {
        bytes.pop();
    }
    Ok(bytes)
}

fn number<T: std::str::FromStr>(value: &[u8]) -> Result<T> {
    let text = std::str::from_utf8(value).ok();
    text.and_then(|text| text.parse().ok())
        .ok_or_else(|| bad("a number that is none"))
}

/// Of `seconds[.fraction]`.
fn whole_seconds(value: &[u8]) -> Result<i64> {
    let end = value.iter().position(|&byte| byte == b'.');
    number(&value[..end.unwrap_or(value.len())])
}

fn bad(what: &str) -> CopyError {
    CopyError::Archive(format!("it has {what}"))
}

/// An error of the system, or of the stream, as against one of the parser.
fn unreadable(source: io::Error) -> CopyError {
    match source.kind() {
        io::ErrorKind::Other | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
            CopyError::Archive(source.to_string())
        }
        _ => CopyError::Stream(source),
    }
}
