//! One block of 512 bytes as a header.

use super::{BLOCK, Member, Time, malformed};
use crate::error::Result;

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// Another name of a file that came before.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
    /// A file in GNU's old sparse format; never seen outside this module's parent.
    GnuSparse,
    /// PAX records for the next member; never seen outside.
    PaxNext,
    /// PAX records for all that follow; never seen outside.
    PaxGlobal,
    /// GNU's long name; never seen outside.
    LongName,
    /// GNU's long link target; never seen outside.
    LongLink,
}

/// A header whose checksum is right.
#[derive(Debug)]
pub(super) struct Header {
    block: [u8; BLOCK],
}

impl Header {
    pub(super) fn parse(block: [u8; BLOCK]) -> Result<Self> {
        let header = Self { block };
        let stated = header.number(148, 8)?;
        let (unsigned, signed) = header.sums();
        if stated != unsigned && stated != signed {
            return Err(malformed("a header with a wrong checksum"));
        }
        Ok(header)
    }

    pub(super) fn block(&self) -> &[u8; BLOCK] {
        &self.block
    }

    /// Old writers summed signed bytes.
    fn sums(&self) -> (i64, i64) {
        let sum = |value: fn(u8) -> i64| {
            self.block
                .iter()
                .enumerate()
                .map(|(i, byte)| value(if (148..156).contains(&i) { b' ' } else { *byte }))
                .sum()
        };
        (sum(i64::from), sum(|byte| i64::from(byte.cast_signed())))
    }

    pub(super) fn kind(&self) -> Result<Kind> {
        Ok(match self.block[156] {
            0 if self.name().ends_with(b"/") => Kind::Directory,
            0 | b'0' | b'7' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharDevice,
            b'4' => Kind::BlockDevice,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            b'x' => Kind::PaxNext,
            b'g' => Kind::PaxGlobal,
            b'L' => Kind::LongName,
            b'K' => Kind::LongLink,
            b'S' => Kind::GnuSparse,
            other => {
                let name = String::from_utf8_lossy(&self.name()).into_owned();
                let shown = other.escape_ascii();
                return Err(malformed(&format!(
                    "entry {name:?} has the unknown type '{shown}'"
                )));
            }
        })
    }

    pub(super) fn size(&self) -> Result<u64> {
        u64::try_from(self.number(124, 12)?).map_err(|_| malformed("a size below 0"))
    }

    pub(super) fn member(&self, kind: Kind) -> Result<Member> {
        Ok(Member {
            path: self.name(),
            link: self.text(157, 100).to_vec(),
            kind,
            mode: self.bits(100, 8)? & 0o7777,
            uid: self.bits(108, 8)?,
            gid: self.bits(116, 8)?,
            mtime: Time {
                seconds: self.number(136, 12)?,
                nanos: 0,
            },
            size: 0,
            device: self.device(kind)?,
            xattrs: Vec::new(),
        })
    }

    fn device(&self, kind: Kind) -> Result<(u32, u32)> {
        match kind {
            Kind::CharDevice | Kind::BlockDevice => Ok((self.bits(329, 8)?, self.bits(337, 8)?)),
            _ => Ok((0, 0)),
        }
    }

    /// With ustar's prefix; GNU's header has other things in that place.
    fn name(&self) -> Vec<u8> {
        let name = self.text(0, 100);
        let prefix = self.text(345, 155);
        if &self.block[257..263] != b"ustar\0" || prefix.is_empty() {
            return name.to_vec();
        }
        [prefix, b"/", name].concat()
    }

    fn text(&self, start: usize, length: usize) -> &[u8] {
        let field = &self.block[start..start + length];
        let end = field.iter().position(|byte| *byte == 0).unwrap_or(length);
        &field[..end]
    }

    fn bits(&self, start: usize, length: usize) -> Result<u32> {
        u32::try_from(self.number(start, length)?)
            .map_err(|_| malformed("an owner, a mode or a device number out of range"))
    }

    fn number(&self, start: usize, length: usize) -> Result<i64> {
        number(&self.block[start..start + length])
    }
}

/// Octal digits between spaces and NULs, or GNU's base 256 when the first bit is set.
pub(super) fn number(field: &[u8]) -> Result<i64> {
    let wrong = || malformed("a number in a header is not one");
    match field.first() {
        Some(first) if first & 0x80 != 0 => base256(field).ok_or_else(wrong),
        _ => octal(field).ok_or_else(wrong),
    }
}

fn octal(field: &[u8]) -> Option<i64> {
    let is_padding = |byte: &u8| *byte == b' ' || *byte == 0;
    let start = field
        .iter()
        .position(|b| !is_padding(b))
        .unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits.iter().position(is_padding).unwrap_or(digits.len());
    digits[..end].iter().try_fold(0_i64, |value, byte| {
        let digit = (b'0'..=b'7')
            .contains(byte)
            .then(|| i64::from(byte - b'0'))?;
        value.checked_mul(8)?.checked_add(digit)
    })
}

/// Two's complement, big endian, with the marker bit taken out.
fn base256(field: &[u8]) -> Option<i64> {
    let negative = field[0] & 0x40 != 0;
    let first = if negative {
        field[0] | 0x80
    } else {
        field[0] & 0x7f
    };
    let start = if negative { -1_i128 } else { 0 };
    let value = std::iter::once(first)
        .chain(field[1..].iter().copied())
        .try_fold(start, |value, byte| {
            value.checked_mul(256)?.checked_add(i128::from(byte))
        })?;
    i64::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_all_their_forms() {
        assert_eq!(number(b"0000644\0").unwrap(), 0o644);
        assert_eq!(number(b" 644 \0\0\0").unwrap(), 0o644);
        assert_eq!(number(b"\0\0\0\0").unwrap(), 0);
        assert_eq!(number(&[0x80, 0, 0, 2, 0, 0, 0, 0]).unwrap(), 2 << 32);
        assert_eq!(number(&[0xff; 12]).unwrap(), -1);
        assert!(number(b"12x\0").is_err());
        assert!(number(&[0x80, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).is_err());
    }
}
