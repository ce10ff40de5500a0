//! The plain tar of a layer blob: its compression is told by its first bytes, what comes out is
//! counted, capped and hashed on a thread of its own while another one unpacks.

use std::io::{self, BufRead as _, BufReader, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use sha2::{Digest as _, Sha256};

use crate::error::{Result, StoreError};

/// Bytes of one piece between the two threads, and pieces in flight.
const PIECE_BYTES: usize = 512 * 1024;
const PIECES_IN_FLIGHT: usize = 8;
/// The largest zstd window: 128 MiB, what `zstd` itself accepts without being asked for more.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// Bounds on what one blob may become.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of the plain tar.
    pub plain_bytes: u64,
    /// Plain bytes for each compressed byte, once `ratio_floor` plain bytes were passed. Deflate's
    /// best is 1032; honest layers stay below 100.
    pub ratio: u64,
    /// Plain bytes that are always allowed.
    pub ratio_floor: u64,
    /// Bytes that must stay free on the disk.
    pub disk_reserve: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            plain_bytes: 64 << 30,
            ratio: 500,
            ratio_floor: 2 << 30,
            disk_reserve: 256 << 20,
        }
    }
}

/// How a blob is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Not at all.
    Plain,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

/// Tells the format by the first bytes. Compressions that Docker knows and we do not are errors.
pub fn detect(head: &[u8]) -> Result<Format> {
    let unsupported = |name| Err(StoreError::Compression { name });
    match head {
        [0x1f, 0x8b, 0x08, ..] => Ok(Format::Gzip),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(Format::Zstd),
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Format::Zstd),
        [b'B', b'Z', b'h', ..] => unsupported("bzip2"),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => unsupported("xz"),
        _ => Ok(Format::Plain),
    }
}

/// A reader of the plain bytes of `blob`.
pub fn plain<'a>(blob: impl Read + Send + 'a) -> Result<Box<dyn Read + Send + 'a>> {
    let mut blob = BufReader::with_capacity(PIECE_BYTES, blob);
    let format = detect(blob.fill_buf().map_err(read_failed)?)?;
    Ok(match format {
        Format::Plain => Box::new(blob),
        Format::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(blob)),
        Format::Zstd => {
            let mut decoder =
                zstd::stream::read::Decoder::with_buffer(blob).map_err(read_failed)?;
            decoder
                .window_log_max(ZSTD_WINDOW_LOG_MAX)
                .map_err(read_failed)?;
            Box::new(decoder)
        }
    })
}

fn read_failed(source: io::Error) -> StoreError {
    StoreError::TarRead {
        what: "a blob",
        source,
    }
}

/// What the decompressing thread knows at its end.
#[derive(Debug)]
pub struct Plain {
    /// Digest of all plain bytes, `sha256:…`.
    pub diff_id: String,
    /// Their number.
    pub bytes: u64,
}

/// The consumer's end of the pipeline.
#[derive(Debug)]
pub struct Pieces {
    pieces: Receiver<Vec<u8>>,
    current: Vec<u8>,
    position: usize,
}

/// Starts the thread that decompresses `blob` of `blob_bytes` bytes. The reader ends early when the
/// thread fails: join it before believing an end of file.
pub fn start<'scope>(
    scope: &'scope Scope<'scope, '_>,
    blob: impl Read + Send + 'scope,
    blob_bytes: u64,
    limits: Limits,
) -> (Pieces, ScopedJoinHandle<'scope, Result<Option<Plain>>>) {
    let (sender, pieces) = sync_channel(PIECES_IN_FLIGHT);
    let handle = scope.spawn(move || pump(blob, blob_bytes, limits, &sender));
    let reader = Pieces {
        pieces,
        current: Vec::new(),
        position: 0,
    };
    (reader, handle)
}

/// `None` when nobody listens any more.
fn pump(
    blob: impl Read + Send,
    blob_bytes: u64,
    limits: Limits,
    pieces: &SyncSender<Vec<u8>>,
) -> Result<Option<Plain>> {
    let mut reader = plain(blob)?;
    let mut hash = Sha256::new();
    let mut bytes = 0_u64;
    loop {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        (&mut reader)
            .take(PIECE_BYTES as u64)
            .read_to_end(&mut piece)
            .map_err(read_failed)?;
        if piece.is_empty() {
            break;
        }
        bytes += piece.len() as u64;
        check(bytes, blob_bytes, limits)?;
        hash.update(&piece);
        if pieces.send(piece).is_err() {
            return Ok(None);
        }
    }
    Ok(Some(Plain {
        diff_id: format!("sha256:{}", hex::encode(hash.finalize())),
        bytes,
    }))
}

fn check(plain_bytes: u64, blob_bytes: u64, limits: Limits) -> Result<()> {
    if plain_bytes > limits.plain_bytes {
        return Err(StoreError::LayerTooLarge {
            limit: limits.plain_bytes,
        });
    }
    let allowed = blob_bytes.saturating_mul(limits.ratio);
    if plain_bytes > limits.ratio_floor && plain_bytes > allowed {
        return Err(StoreError::LayerRatio {
            ratio: limits.ratio,
        });
    }
    Ok(())
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position == self.current.len() {
            let Ok(piece) = self.pieces.recv() else {
                return Ok(0);
            };
            self.current = piece;
            self.position = 0;
        }
        let rest = &self.current[self.position..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.position += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn all(blob: &[u8], limits: Limits) -> Result<(Vec<u8>, Plain)> {
        std::thread::scope(|scope| {
            let (mut reader, handle) = start(scope, blob, blob.len() as u64, limits);
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).unwrap();
            handle.join().unwrap().map(|plain| (bytes, plain.unwrap()))
        })
    }

    #[test]
    fn gzip_of_several_members_and_zstd_of_several_frames() {
        let both = [gzip(b"one "), gzip(b"two")].concat();
        assert_eq!(all(&both, Limits::default()).unwrap().0, b"one two");
        let frame = |bytes: &[u8]| zstd::bulk::compress(bytes, 3).unwrap();
        let both = [frame(b"one "), frame(b"two")].concat();
        let (bytes, plain) = all(&both, Limits::default()).unwrap();
        assert_eq!((bytes.as_slice(), plain.bytes), (&b"one two"[..], 7));
    }

    #[test]
    fn i5_caps_on_size_and_ratio() {
        let bomb = gzip(&vec![0; 8 << 20]);
        let limits = Limits::default();
        let capped = Limits {
            plain_bytes: 1 << 20,
            ..limits
        };
        assert!(matches!(
            all(&bomb, capped),
            Err(StoreError::LayerTooLarge { .. })
        ));
        let ratio = Limits {
            ratio: 100,
            ratio_floor: 1 << 20,
            ..limits
        };
        assert!(matches!(
            all(&bomb, ratio),
            Err(StoreError::LayerRatio { .. })
        ));
        assert!(all(&bomb, limits).is_ok());
    }

    #[test]
    fn a3_compressions_that_are_not_built_are_named() {
        let xz = [0xfd, b'7', b'z', b'X', b'Z', 0, 0];
        let error = all(&xz, Limits::default()).unwrap_err();
        assert!(error.to_string().contains("xz"), "{error}");
    }
}
