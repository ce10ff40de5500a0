//! One layer blob into one directory, verified.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

use crate::error::{Result, StoreError};
use crate::layers::apply::{Applier, check_space};
use crate::layers::decompress::{Limits, Pieces, Plain, start};
use crate::layers::entry::{Action, decide};
use crate::layers::root::Root;
use crate::layers::tar::{Member, TarReader};

/// What an unpacked layer is.
#[derive(Debug)]
pub struct Unpacked {
    /// Digest of the plain tar.
    pub diff_id: String,
    /// Bytes of the plain tar.
    pub bytes: u64,
    /// Bytes of the files in it, holes included.
    pub file_bytes: u64,
    /// Members of the tar.
    pub members: u64,
}

/// What was done with the members of an archive.
#[derive(Clone, Copy, Debug, Default)]
struct Applied {
    members: u64,
    made: u64,
    file_bytes: u64,
}

/// Unpacks a layer: whiteouts become marks of overlayfs. On error the directory holds whatever was
/// made by then; the caller removes it.
pub fn unpack(blob: File, directory: OwnedFd, limits: Limits) -> Result<Unpacked> {
    let root = Root::new(directory);
    check_space(root.fd(), limits.disk_reserve)?;
    let mut applied = Applied::default();
    let plain = stream(blob, limits, |pieces| {
        let applier = Applier::new(&root, limits.plain_bytes, limits.disk_reserve);
        applied = apply(pieces, applier, decide)?;
        Ok(())
    })?;
    Ok(Unpacked {
        diff_id: plain.diff_id,
        bytes: plain.bytes,
        file_bytes: applied.file_bytes,
        members: applied.members,
    })
}

/// Extracts an archive that is no layer below a directory; gives the number of things made.
pub fn extract(
    blob: File,
    directory: OwnedFd,
    owner: Option<(u32, u32)>,
    limits: Limits,
) -> Result<u64> {
    let root = Root::new(directory);
    let mut made = 0;
    stream(blob, limits, |pieces| {
        let applier = Applier::new(&root, limits.plain_bytes, limits.disk_reserve);
        let applier = applier.owned_by(owner);
        made = apply(pieces, applier, crate::layers::entry::decide_plain)?.made;
        Ok(())
    })?;
    Ok(made)
}

/// Runs `consume` beside the thread that decompresses and hashes.
fn stream(blob: File, limits: Limits, consume: impl FnOnce(Pieces) -> Result<()>) -> Result<Plain> {
    let size = blob
        .metadata()
        .map_err(|source| StoreError::TarRead {
            what: "a blob",
            source,
        })?
        .len();
    std::thread::scope(|scope| {
        let (pieces, pump) = start(scope, blob, size, limits);
        let consumed = consume(pieces);
        let pumped = pump.join().map_err(|_| StoreError::TarRead {
            what: "a blob",
            source: io::Error::other("the decompressing thread stopped"),
        })?;
        // A fault of the blob also cuts the archive short: it is the cause.
        let plain = pumped?;
        consumed?;
        plain.ok_or_else(|| crate::layers::tar::malformed("its end was not reached"))
    })
}

/// Reads to the end of the input, past the end of the archive: all of it belongs to the diff id.
fn apply(
    pieces: Pieces,
    mut applier: Applier<'_>,
    decide: impl Fn(Member) -> Result<Action>,
) -> Result<Applied> {
    let mut tar = TarReader::new(pieces);
    let mut members = 0;
    while let Some(member) = tar.next_member()? {
        members += 1;
        applier.perform(decide(member)?, &mut tar)?;
    }
    let file_bytes = applier.file_bytes();
    let made = applier.finish()?;
    drain(tar.into_inner())?;
    Ok(Applied {
        members,
        made,
        file_bytes,
    })
}

fn drain(mut rest: impl Read) -> Result<()> {
    io::copy(&mut rest, &mut io::sink()).map_err(|source| StoreError::TarRead {
        what: "what follows a tar",
        source,
    })?;
    Ok(())
}
