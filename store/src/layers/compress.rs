//! Compression on all cores with output that depends on the input alone.
//!
//! The input is cut into chunks of a fixed size that are compressed apart: for gzip into deflate
//! blocks that end on a byte boundary, in one member as `pigz` does it; for zstd into frames.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use flate2::{Compress, Compression, Crc, FlushCompress, Status};

/// Part of the format of what we write: another size gives other digests.
const CHUNK_BYTES: usize = 1 << 20;
const GZIP_LEVEL: u32 = 6;
const ZSTD_LEVEL: i32 = 3;
/// More threads than this wait for the disk.
const THREADS_MAX: usize = 8;
/// RFC 1952: deflate, no flags, no time, no hint, operating system unknown.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// An empty final block of deflate with fixed codes.
const DEFLATE_END: [u8; 2] = [0x03, 0x00];

/// How a layer blob is compressed.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// Not at all.
    None,
    /// gzip, level 6.
    Gzip,
    /// zstd, level 3.
    Zstd,
}

impl Codec {
    /// The media type of a layer of this compression (OCI image specification, "Media types").
    pub fn media_type(self) -> &'static str {
        match self {
            Self::None => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

type Job = (Vec<u8>, SyncSender<io::Result<Vec<u8>>>);

/// Compresses what is written to it into `inner`.
#[derive(Debug)]
pub struct Compressor<W> {
    inner: W,
    codec: Codec,
    chunk: Vec<u8>,
    crc: Crc,
    pool: Option<Pool>,
    started: bool,
}

#[derive(Debug)]
struct Pool {
    jobs: SyncSender<Job>,
    /// What is being compressed, oldest first.
    pending: std::collections::VecDeque<Receiver<io::Result<Vec<u8>>>>,
    threads: Vec<JoinHandle<()>>,
}

impl<W: Write> Compressor<W> {
    /// Nothing is started before the first whole chunk.
    pub fn new(inner: W, codec: Codec) -> Self {
        Self {
            inner,
            codec,
            chunk: Vec::new(),
            crc: Crc::new(),
            pool: None,
            started: false,
        }
    }

    /// Writes what is left and the end, and gives back the writer.
    pub fn finish(mut self) -> io::Result<W> {
        let last = std::mem::take(&mut self.chunk);
        self.submit(last)?;
        while self.receive()? {}
        if let Some(pool) = self.pool.take() {
            pool.join()?;
        }
        if self.codec == Codec::Gzip {
            self.inner.write_all(&DEFLATE_END)?;
            self.inner.write_all(&self.crc.sum().to_le_bytes())?;
            self.inner.write_all(&self.crc.amount().to_le_bytes())?;
        }
        Ok(self.inner)
    }

    fn start(&mut self) -> io::Result<()> {
        if !self.started && self.codec == Codec::Gzip {
            self.inner.write_all(&GZIP_HEADER)?;
        }
        self.started = true;
        Ok(())
    }

    fn submit(&mut self, chunk: Vec<u8>) -> io::Result<()> {
        self.start()?;
        if self.codec == Codec::Gzip {
            self.crc.update(&chunk);
        }
        if self.pool.is_none() && chunk.len() < CHUNK_BYTES {
            return self.inner.write_all(&compress(self.codec, &chunk)?);
        }
        let codec = self.codec;
        let pool = match &mut self.pool {
            Some(pool) => pool,
            empty => empty.insert(Pool::start(codec)?),
        };
        pool.submit(chunk)?;
        if pool.pending.len() > 2 * pool.threads.len() {
            self.receive()?;
        }
        Ok(())
    }

    /// Writes the oldest result; whether there was one.
    fn receive(&mut self) -> io::Result<bool> {
        let Some(oldest) = self.pool.as_mut().and_then(|pool| pool.pending.pop_front()) else {
            return Ok(false);
        };
        let compressed = oldest.recv().map_err(|_| stopped())??;
        self.inner.write_all(&compressed)?;
        Ok(true)
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.codec == Codec::None {
            self.inner.write_all(bytes)?;
            return Ok(bytes.len());
        }
        let count = bytes.len().min(CHUNK_BYTES - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..count]);
        if self.chunk.len() == CHUNK_BYTES {
            let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK_BYTES));
            self.submit(chunk)?;
        }
        Ok(count)
    }

    /// Chunks are fixed: nothing is pushed out early.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Pool {
    fn start(codec: Codec) -> io::Result<Self> {
        let count = std::thread::available_parallelism()?.get().min(THREADS_MAX);
        let (jobs, receiver) = sync_channel::<Job>(count);
        let receiver = Arc::new(Mutex::new(receiver));
        let threads = (0..count)
            .map(|_| {
                let receiver = Arc::clone(&receiver);
                std::thread::Builder::new()
                    .name("compress".to_owned())
                    .spawn(move || work(codec, &receiver))
            })
            .collect::<io::Result<_>>()?;
        Ok(Self {
            jobs,
            pending: std::collections::VecDeque::new(),
            threads,
        })
    }

    fn submit(&mut self, chunk: Vec<u8>) -> io::Result<()> {
        let (result, receiver) = sync_channel(1);
        self.jobs.send((chunk, result)).map_err(|_| stopped())?;
        self.pending.push_back(receiver);
        Ok(())
    }

    fn join(self) -> io::Result<()> {
        drop(self.jobs);
        for thread in self.threads {
            thread.join().map_err(|_| stopped())?;
        }
        Ok(())
    }
}

fn work(codec: Codec, jobs: &Mutex<Receiver<Job>>) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((chunk, result)) = job else {
            return;
        };
        if result.send(compress(codec, &chunk)).is_err() {
            tracing::debug!("a layer's compression was abandoned");
        }
    }
}

fn stopped() -> io::Error {
    io::Error::other("a compressing thread stopped")
}

fn compress(codec: Codec, chunk: &[u8]) -> io::Result<Vec<u8>> {
    match codec {
        Codec::None => Ok(chunk.to_vec()),
        Codec::Gzip => deflate(chunk),
        Codec::Zstd => zstd::bulk::compress(chunk, ZSTD_LEVEL),
    }
}

/// Blocks that end on a byte boundary, none of them final.
fn deflate(chunk: &[u8]) -> io::Result<Vec<u8>> {
    let mut compress = Compress::new(Compression::new(GZIP_LEVEL), false);
    let mut out = Vec::with_capacity(chunk.len() / 2 + 64);
    loop {
        let read = usize::try_from(compress.total_in()).unwrap_or(chunk.len());
        out.reserve(64 * 1024);
        let status = compress
            .compress_vec(&chunk[read..], &mut out, FlushCompress::Sync)
            .map_err(io::Error::other)?;
        let all_read = compress.total_in() == chunk.len() as u64;
        if all_read && (out.len() < out.capacity() || status == Status::BufError) {
            return Ok(out);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn sample(length: usize) -> Vec<u8> {
        let mut state = 7_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0] & 0x1f
        };
        (0..length).map(|_| next()).collect()
    }

    fn compressed(bytes: &[u8], codec: Codec, step: usize) -> Vec<u8> {
        let mut compressor = Compressor::new(Vec::new(), codec);
        for piece in bytes.chunks(step) {
            compressor.write_all(piece).unwrap();
        }
        compressor.finish().unwrap()
    }

    #[test]
    fn gzip_is_one_member_and_the_same_however_it_is_written() {
        for length in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, 5 * CHUNK_BYTES + 17] {
            let bytes = sample(length);
            let blob = compressed(&bytes, Codec::Gzip, 70_001);
            let mut out = Vec::new();
            flate2::read::GzDecoder::new(blob.as_slice())
                .read_to_end(&mut out)
                .unwrap();
            assert!(out == bytes, "{length}");
            assert!(blob == compressed(&bytes, Codec::Gzip, 999), "{length}");
        }
    }

    #[test]
    fn zstd_and_none_come_back() {
        let bytes = sample(3 * CHUNK_BYTES + 5);
        let blob = compressed(&bytes, Codec::Zstd, 4096);
        assert!(zstd::stream::decode_all(blob.as_slice()).unwrap() == bytes);
        assert!(compressed(&bytes, Codec::None, 4096) == bytes);
    }
}
