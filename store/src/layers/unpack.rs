//! One archive into one layer, or below one directory; what it is comes out with it.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::time::Instant;

use crate::error::{Result, StoreError};
use crate::layers::apply::Applier;
use crate::layers::decompress::{Limits, Pieces, Plain, start};
use crate::layers::entry::{Action, decide, decide_plain};
use crate::layers::making::Making;
use crate::layers::root::Root;
use crate::layers::tar::{Member, TarReader};
use crate::metrics::METRICS;

/// What an unpacked layer is.
#[derive(Debug)]
pub struct Unpacked {
    /// Digest of the plain tar.
    pub diff_id: String,
    /// Bytes of the plain tar.
    pub bytes: u64,
    /// Members of the tar.
    pub members: u64,
}

/// Unpacks a layer: whiteouts become marks of overlayfs. On error `making` holds whatever was made by
/// then; the caller throws it away.
pub fn unpack(blob: impl Read + Send, making: &mut Making, limits: Limits) -> Result<Unpacked> {
    let began = Instant::now();
    let mut members = 0;
    let plain = stream(blob, limits, |pieces| {
        members = each(pieces, decide, &mut |action, tar| {
            making.perform(action, tar)
        })?;
        Ok(())
    })?;
    let seconds = began.elapsed().as_secs_f64();
    METRICS.unpack_seconds.observe(seconds);
    METRICS.unpacked_bytes.inc_by(plain.bytes);
    Ok(Unpacked {
        diff_id: plain.diff_id,
        bytes: plain.bytes,
        members,
    })
}

/// Extracts an archive that is no layer below a directory; gives the number of things made.
pub fn extract(
    blob: impl Read + Send,
    directory: OwnedFd,
    owner: Option<(u32, u32)>,
    limits: Limits,
) -> Result<u64> {
    let root = Root::new(directory);
    let mut applier = Applier::new(root, limits.plain_bytes, limits.disk_reserve).owned_by(owner);
    stream(blob, limits, |pieces| {
        each(pieces, decide_plain, &mut |action, tar| {
            applier.perform(action, tar)
        })
        .map(drop)
    })?;
    applier.finish()
}

/// Runs `consume` beside the threads that decompress and hash.
fn stream(
    blob: impl Read + Send,
    limits: Limits,
    consume: impl FnOnce(Pieces) -> Result<()>,
) -> Result<Plain> {
    std::thread::scope(|scope| {
        let (pieces, pump) = start(scope, blob, limits);
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

/// Performs every member, and reads on to the end of the input, past the end of the archive: all of it
/// belongs to the diff id. Gives the number of members.
fn each(
    pieces: Pieces,
    decide: impl Fn(Member) -> Result<Action>,
    perform: &mut dyn FnMut(Action, &mut TarReader<Pieces>) -> Result<()>,
) -> Result<u64> {
    let mut tar = TarReader::new(pieces);
    let mut members = 0;
    while let Some(member) = tar.next_member()? {
        members += 1;
        perform(decide(member)?, &mut tar)?;
    }
    drain(tar.into_inner())?;
    Ok(members)
}

fn drain(mut rest: impl Read) -> Result<()> {
    io::copy(&mut rest, &mut io::sink()).map_err(|source| StoreError::TarRead {
        what: "what follows a tar",
        source,
    })?;
    Ok(())
}
