//! The plain tar of a layer blob: its compression is told by its first bytes. One thread decompresses
//! and caps, another hashes, and the caller's unpacks; what travels between them are a few buffers that go
//! round.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Scope, ScopedJoinHandle};

use flate2::Crc;
use sha2::{Digest as _, Sha256};

use super::gunzip::{Gunzip, Members, Step, Trailer};
use crate::error::{Result, StoreError};

/// Bytes of one buffer between the threads, and how many go round: one with each thread, one on each
/// way. Ten layers at once are 15 MiB.
const PIECE_BYTES: usize = 256 * 1024;
const PIECES: usize = 6;
/// Members of gzip that end in one piece: a piece of more is handed on early.
const MEMBERS_MAX: usize = 1024;
/// What tells the format: the longest magic number.
const HEAD_BYTES: usize = 6;
/// Compressed bytes read at once.
const INPUT_BYTES: usize = 128 * 1024;
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
    Ok(match Source::open(blob)? {
        Source::Gzip(members) => Box::new(Gunzip::new(members.into_inner())),
        Source::Other(reader) => reader,
    })
}

fn read_failed(source: io::Error) -> StoreError {
    StoreError::TarRead {
        what: "a blob",
        source,
    }
}

/// A blob, its first bytes apart.
type Input<R> = BufReader<io::Chain<io::Cursor<Vec<u8>>, R>>;

/// Where plain bytes come from. gzip has checksums that another thread compares.
enum Source<'a, R> {
    Gzip(Box<Members<Input<R>>>),
    Other(Box<dyn Read + Send + 'a>),
}

impl<'a, R: Read + Send + 'a> Source<'a, R> {
    fn open(mut blob: R) -> Result<Self> {
        let mut head = Vec::with_capacity(HEAD_BYTES);
        (&mut blob)
            .take(HEAD_BYTES as u64)
            .read_to_end(&mut head)
            .map_err(read_failed)?;
        let format = detect(&head)?;
        let blob = BufReader::with_capacity(INPUT_BYTES, io::Cursor::new(head).chain(blob));
        Ok(match format {
            Format::Plain => Self::Other(Box::new(blob)),
            Format::Gzip => Self::Gzip(Box::new(Members::new(blob))),
            Format::Zstd => {
                let mut decoder =
                    zstd::stream::read::Decoder::with_buffer(blob).map_err(read_failed)?;
                decoder
                    .window_log_max(ZSTD_WINDOW_LOG_MAX)
                    .map_err(read_failed)?;
                Self::Other(Box::new(decoder))
            }
        })
    }

    /// Fills a piece; an empty one is the end.
    fn fill(&mut self, piece: &mut Piece) -> io::Result<()> {
        piece.clear();
        while piece.filled < PIECE_BYTES && piece.members.len() < MEMBERS_MAX {
            let rest = &mut piece.bytes[piece.filled..];
            let (count, trailer) = match self {
                Self::Gzip(members) => match members.step(rest)? {
                    Step::Bytes(count) => (count, None),
                    Step::Last(count, trailer) => (count, Some(trailer)),
                    Step::End => return Ok(()),
                },
                Self::Other(reader) => match reader.read(rest) {
                    Ok(0) => return Ok(()),
                    Ok(count) => (count, None),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => (0, None),
                    Err(error) => return Err(error),
                },
            };
            piece.filled += count;
            let end = piece.filled;
            piece.members.extend(trailer.map(|trailer| (end, trailer)));
        }
        Ok(())
    }
}

/// Some bytes on their way, and where members of gzip end in them.
#[derive(Debug, Default)]
struct Piece {
    bytes: Vec<u8>,
    filled: usize,
    members: Vec<(usize, Trailer)>,
}

impl Piece {
    fn clear(&mut self) {
        self.bytes.resize(PIECE_BYTES, 0);
        self.filled = 0;
        self.members.clear();
    }

    fn is_empty(&self) -> bool {
        self.filled == 0 && self.members.is_empty()
    }
}

/// What is known of a blob at its end.
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
    pieces: Receiver<Piece>,
    spare: Sender<Piece>,
    current: Piece,
    position: usize,
}

/// Starts the threads that decompress and hash `blob`. The reader ends early when one of them fails: join
/// before believing an end of file. `None` is joined when nobody listened to the end.
pub fn start<'scope>(
    scope: &'scope Scope<'scope, '_>,
    blob: impl Read + Send + 'scope,
    limits: Limits,
) -> (Pieces, ScopedJoinHandle<'scope, Result<Option<Plain>>>) {
    // As many pieces as there ever are: no channel needs a bound of its own.
    let (spare, empty) = channel();
    let (full, to_hash) = channel();
    let (hashed, pieces) = channel();
    for _ in 0..PIECES {
        // The other end is below.
        spare.send(Piece::default()).ok();
    }
    let decompressing = scope.spawn(move || decompress(blob, limits, &empty, &full));
    let hashing = scope.spawn(move || {
        let plain = hash(&to_hash, &hashed)?;
        // If nobody listens, the other thread learns it here.
        drop(to_hash);
        let whole = decompressing.join().map_err(|_| stopped())??;
        Ok(plain.filter(|_| whole))
    });
    let reader = Pieces {
        pieces,
        spare,
        current: Piece::default(),
        position: 0,
    };
    (reader, hashing)
}

/// Whether it came to the end: not when nobody listens any more.
fn decompress(
    blob: impl Read + Send,
    limits: Limits,
    empty: &Receiver<Piece>,
    full: &Sender<Piece>,
) -> Result<bool> {
    let counter = Arc::new(AtomicU64::new(0));
    let mut source = Source::open(Counted {
        inner: blob,
        count: Arc::clone(&counter),
    })?;
    let mut bytes = 0_u64;
    for mut piece in empty {
        source.fill(&mut piece).map_err(read_failed)?;
        if piece.is_empty() {
            return Ok(true);
        }
        bytes += piece.filled as u64;
        check(bytes, counter.load(Ordering::Relaxed), limits)?;
        if full.send(piece).is_err() {
            break;
        }
    }
    Ok(false)
}

/// `None` when nobody listens any more.
fn hash(pieces: &Receiver<Piece>, hashed: &Sender<Piece>) -> Result<Option<Plain>> {
    let mut sha = Sha256::new();
    let mut crc = Crc::new();
    let mut bytes = 0;
    for piece in pieces {
        sha.update(&piece.bytes[..piece.filled]);
        check_members(&piece, &mut crc).map_err(read_failed)?;
        bytes += piece.filled as u64;
        if hashed.send(piece).is_err() {
            return Ok(None);
        }
    }
    Ok(Some(Plain {
        diff_id: format!("sha256:{}", hex::encode(sha.finalize())),
        bytes,
    }))
}

fn check_members(piece: &Piece, crc: &mut Crc) -> io::Result<()> {
    let mut start = 0;
    for (end, trailer) in &piece.members {
        crc.update(&piece.bytes[start..*end]);
        trailer.check(crc)?;
        crc.reset();
        start = *end;
    }
    crc.update(&piece.bytes[start..piece.filled]);
    Ok(())
}

fn stopped() -> StoreError {
    read_failed(io::Error::other("the decompressing thread stopped"))
}

/// Counts what is read.
struct Counted<R> {
    inner: R,
    count: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.count.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
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

impl BufRead for Pieces {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.position == self.current.filled {
            let Ok(next) = self.pieces.recv() else {
                return Ok(&[]);
            };
            let done = std::mem::replace(&mut self.current, next);
            self.position = 0;
            // Nobody needs it when all is decompressed.
            self.spare.send(done).ok();
        }
        Ok(&self.current.bytes[self.position..self.current.filled])
    }

    fn consume(&mut self, count: usize) {
        self.position += count;
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = self.fill_buf()?;
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.consume(count);
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
        all_of(blob, limits)
    }

    fn all_of(blob: impl Read + Send, limits: Limits) -> Result<(Vec<u8>, Plain)> {
        std::thread::scope(|scope| {
            let (mut reader, handle) = start(scope, blob, limits);
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
    fn a_stream_of_single_bytes_and_of_more_members_than_a_piece_holds() {
        let blob = gzip(b"x").repeat(3 * MEMBERS_MAX);
        let (bytes, _) = all(&blob, Limits::default()).unwrap();
        assert_eq!(bytes, b"x".repeat(3 * MEMBERS_MAX));
        let frame = zstd::bulk::compress(b"one by one", 3).unwrap();
        for blob in [gzip(b"one by one"), frame] {
            let (bytes, _) = all_of(OneByOne(&blob), Limits::default()).unwrap();
            assert_eq!(bytes, b"one by one");
        }
    }

    /// Gives a byte for each call.
    struct OneByOne<'a>(&'a [u8]);

    impl Read for OneByOne<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let most = buffer.len().min(1);
            self.0.read(&mut buffer[..most])
        }
    }

    #[test]
    fn a_wrong_checksum_in_the_middle_is_an_error() {
        let mut blob = [gzip(&vec![1; 3 * PIECE_BYTES]), gzip(b"more")].concat();
        let end = gzip(&vec![1; 3 * PIECE_BYTES]).len();
        blob[end - 5] ^= 1;
        assert!(matches!(
            all(&blob, Limits::default()),
            Err(StoreError::TarRead { .. })
        ));
    }

    #[test]
    fn who_stops_listening_stops_the_threads() {
        let blob = gzip(&vec![0; 64 * PIECE_BYTES]);
        let joined = std::thread::scope(|scope| {
            let (reader, handle) = start(scope, blob.as_slice(), Limits::default());
            drop(reader);
            handle.join().unwrap()
        });
        assert!(joined.unwrap().is_none());
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
