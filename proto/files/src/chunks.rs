//! Between blocking readers and writers and the messages of a stream.

use std::io::{self, Read, Write};

/// Writes in chunks of one size to a function.
#[derive(Debug)]
pub struct Chunks<F> {
    size: usize,
    pending: Vec<u8>,
    send: F,
}

impl<F: FnMut(Vec<u8>) -> io::Result<()>> Chunks<F> {
    /// `send` blocks until there is room for one more chunk.
    pub fn new(size: usize, send: F) -> Self {
        Self {
            size,
            pending: Vec::with_capacity(size),
            send,
        }
    }
}

impl<F: FnMut(Vec<u8>) -> io::Result<()>> Write for Chunks<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(self.size - self.pending.len());
        self.pending.extend_from_slice(&bytes[..count]);
        if self.pending.len() == self.size {
            self.flush()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let next = Vec::with_capacity(self.size);
        (self.send)(std::mem::replace(&mut self.pending, next))
    }
}

/// Reads what a function gives, chunk by chunk.
#[derive(Debug)]
pub struct Joined<C, F> {
    current: io::Cursor<C>,
    next: F,
}

impl<C: AsRef<[u8]> + Default, F: FnMut() -> io::Result<Option<C>>> Joined<C, F> {
    /// `next` blocks until there is a chunk; `None` is the end.
    pub fn new(next: F) -> Self {
        Self {
            current: io::Cursor::new(C::default()),
            next,
        }
    }
}

impl<C: AsRef<[u8]> + Default, F: FnMut() -> io::Result<Option<C>>> Read for Joined<C, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let count = self.current.read(buffer)?;
            if count > 0 {
                return Ok(count);
            }
            match (self.next)()? {
                Some(chunk) => self.current = io::Cursor::new(chunk),
                None => return Ok(0),
            }
        }
    }
}
