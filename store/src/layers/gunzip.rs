//! gzip (RFC 1952): members one after another, to the end of the input. The checksum of what comes out
//! is the caller's to compare, who may have another thread for it.

use std::io::{self, BufRead, Read};

use flate2::{Crc, Decompress, FlushDecompress, Status};

/// The longest name or comment in a header; honest ones are the names of files.
const TEXT_BYTES_MAX: usize = 64 * 1024;
/// Flags of a header (RFC 1952, 2.3.1).
const HEADER_CRC: u8 = 1 << 1;
const EXTRA: u8 = 1 << 2;
const NAME: u8 = 1 << 3;
const COMMENT: u8 = 1 << 4;
const RESERVED: u8 = 0b1110_0000;

/// Decompresses members.
#[derive(Debug)]
pub(super) struct Members<R> {
    input: R,
    inflate: Decompress,
    inside: bool,
}

/// What came out of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// So many bytes.
    Bytes(usize),
    /// So many bytes (0 as well), the last ones of a member.
    Last(usize, Trailer),
    /// Nothing: the input is at its end.
    End,
}

/// What a member says of its plain bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trailer {
    crc: u32,
    /// Modulo 2³².
    size: u32,
}

impl Trailer {
    /// Compares it with the bytes that came out.
    pub(super) fn check(self, crc: &Crc) -> io::Result<()> {
        if (crc.sum(), crc.amount()) == (self.crc, self.size) {
            return Ok(());
        }
        Err(corrupt("the checksum of a gzip member does not match"))
    }
}

impl<R: BufRead> Members<R> {
    pub(super) fn new(input: R) -> Self {
        Self {
            input,
            inflate: Decompress::new(false),
            inside: false,
        }
    }

    /// The input, for whoever has made no step yet.
    pub(super) fn into_inner(self) -> R {
        self.input
    }

    /// Decompresses into `out`, which is not empty.
    pub(super) fn step(&mut self, out: &mut [u8]) -> io::Result<Step> {
        if !self.inside {
            if self.input.fill_buf()?.is_empty() {
                return Ok(Step::End);
            }
            self.header()?;
            self.inflate.reset(false);
            self.inside = true;
        }
        loop {
            let (consumed, made, status) = self.inflate(out)?;
            if status == Status::StreamEnd {
                self.inside = false;
                return Ok(Step::Last(made, self.trailer()?));
            }
            if made > 0 {
                return Ok(Step::Bytes(made));
            }
            if consumed == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn inflate(&mut self, out: &mut [u8]) -> io::Result<(usize, usize, Status)> {
        let input = self.input.fill_buf()?;
        let (before_in, before_out) = (self.inflate.total_in(), self.inflate.total_out());
        let status = self
            .inflate
            .decompress(input, out, FlushDecompress::None)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let count = |now: u64, before| usize::try_from(now - before).unwrap_or(usize::MAX);
        let consumed = count(self.inflate.total_in(), before_in);
        self.input.consume(consumed);
        Ok((
            consumed,
            count(self.inflate.total_out(), before_out),
            status,
        ))
    }

    fn header(&mut self) -> io::Result<()> {
        let mut crc = Crc::new();
        let [0x1f, 0x8b, 8, flags, ..] = self.take::<10>(&mut crc)? else {
            return Err(corrupt("what follows a gzip member is none"));
        };
        if flags & RESERVED != 0 {
            return Err(corrupt("a gzip header has unknown flags"));
        }
        if flags & EXTRA != 0 {
            for _ in 0..u16::from_le_bytes(self.take(&mut crc)?) {
                self.take::<1>(&mut crc)?;
            }
        }
        for text in [NAME, COMMENT] {
            if flags & text != 0 {
                self.skip_text(&mut crc)?;
            }
        }
        let [low, high, ..] = crc.sum().to_le_bytes();
        if flags & HEADER_CRC != 0 && self.take(&mut crc)? != [low, high] {
            return Err(corrupt("the checksum of a gzip header does not match"));
        }
        Ok(())
    }

    fn skip_text(&mut self, crc: &mut Crc) -> io::Result<()> {
        for _ in 0..TEXT_BYTES_MAX {
            if self.take(crc)? == [0] {
                return Ok(());
            }
        }
        Err(corrupt("a gzip header has a name without end"))
    }

    fn trailer(&mut self) -> io::Result<Trailer> {
        let mut unused = Crc::new();
        Ok(Trailer {
            crc: u32::from_le_bytes(self.take(&mut unused)?),
            size: u32::from_le_bytes(self.take(&mut unused)?),
        })
    }

    fn take<const N: usize>(&mut self, crc: &mut Crc) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes)?;
        crc.update(&bytes);
        Ok(bytes)
    }
}

fn corrupt(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// The plain bytes, with the checksums compared on the way.
#[derive(Debug)]
pub(super) struct Gunzip<R> {
    members: Members<R>,
    crc: Crc,
}

impl<R: BufRead> Gunzip<R> {
    pub(super) fn new(input: R) -> Self {
        Self {
            members: Members::new(input),
            crc: Crc::new(),
        }
    }
}

impl<R: BufRead> Read for Gunzip<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        loop {
            match self.members.step(out)? {
                Step::End => return Ok(0),
                Step::Bytes(count) => {
                    self.crc.update(&out[..count]);
                    return Ok(count);
                }
                Step::Last(count, trailer) => {
                    self.crc.update(&out[..count]);
                    trailer.check(&self.crc)?;
                    self.crc.reset();
                    if count > 0 {
                        return Ok(count);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, GzBuilder};

    use super::*;

    /// A member whose header has every field.
    fn member(plain: &[u8]) -> Vec<u8> {
        let builder = GzBuilder::new()
            .filename("a name")
            .comment("words")
            .extra(vec![7; 300]);
        let mut encoder = builder.write(Vec::new(), Compression::fast());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    /// The same with a checksum of the header.
    fn with_header_crc(mut member: Vec<u8>) -> Vec<u8> {
        member[3] |= HEADER_CRC;
        let end = 10 + 2 + 300 + "a name".len() + 1 + "words".len() + 1;
        let mut crc = Crc::new();
        crc.update(&member[..end]);
        let [low, high, ..] = crc.sum().to_le_bytes();
        member.splice(end..end, [low, high]);
        member
    }

    fn gunzip(input: &[u8]) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        // A small buffer: every field is cut somewhere.
        let input = io::BufReader::with_capacity(7, input);
        Gunzip::new(input).read_to_end(&mut plain)?;
        Ok(plain)
    }

    #[test]
    fn members_with_every_header_field_and_without_bytes() {
        let all = [
            member(b"one "),
            member(b""),
            with_header_crc(member(b"two")),
        ];
        assert_eq!(gunzip(&all.concat()).unwrap(), b"one two");
    }

    #[test]
    fn a_member_cut_anywhere_is_an_error() {
        let whole = with_header_crc(member(b"some text"));
        for end in 1..whole.len() {
            assert!(gunzip(&whole[..end]).is_err(), "{end} bytes");
        }
    }

    #[test]
    fn a_byte_that_is_wrong_anywhere_is_an_error_or_of_no_meaning() {
        let whole = with_header_crc(member(b"some text, some text"));
        for at in 0..whole.len() {
            let mut wrong = whole.clone();
            wrong[at] ^= 0x10;
            if let Ok(plain) = gunzip(&wrong) {
                assert_eq!(plain, b"some text, some text", "byte {at}");
            }
        }
    }

    #[test]
    fn what_follows_the_last_member_is_an_error() {
        for garbage in [&b"\0"[..], b"some garbage", &[0x1f, 0x8b]] {
            assert!(gunzip(&[&member(b"x"), garbage].concat()).is_err());
        }
    }

    #[test]
    fn a_name_without_end_is_an_error() {
        let mut endless = vec![0x1f, 0x8b, 8, NAME, 0, 0, 0, 0, 0, 0];
        endless.resize(1 << 20, b'x');
        let error = gunzip(&endless).unwrap_err();
        assert!(error.to_string().contains("without end"), "{error}");
    }
}
