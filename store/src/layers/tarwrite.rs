//! Writing tar so that the same tree gives the same bytes on any host: ustar headers, PAX records for
//! what these cannot say, no names of users, no access or change times.

use std::io::{self, Write};

use crate::layers::tar::{BLOCK, Kind, Member};

/// The largest number in a field of 8 and of 12 bytes, in octal with a NUL.
const OCTAL7_MAX: u64 = 0o7_777_777;
const OCTAL11_MAX: u64 = 0o77_777_777_777;
const NAME_MAX: usize = 100;
const PREFIX_MAX: usize = 155;

/// Writes one member after another.
#[derive(Debug)]
pub struct TarWriter<W> {
    inner: W,
    padding: usize,
}

impl<W: Write> TarWriter<W> {
    /// Starts an archive.
    pub fn new(inner: W) -> Self {
        Self { inner, padding: 0 }
    }

    /// Writes the header; exactly `member.size` bytes of a file must follow through [`Self::body`].
    pub fn header(&mut self, member: &Member) -> io::Result<()> {
        self.pad()?;
        let records = records(member);
        if !records.is_empty() {
            let mut extension = Header::new(b'x', b"PaxHeaders.0/x", records.len() as u64);
            extension.octal(100, 8, 0o644);
            self.inner.write_all(&extension.finish())?;
            self.inner.write_all(&records)?;
            self.padding = padding(records.len() as u64);
            self.pad()?;
        }
        self.inner.write_all(&header(member))?;
        self.padding = padding(body_size(member));
        Ok(())
    }

    /// Bytes of the last member.
    pub fn body(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.inner.write_all(bytes)
    }

    /// Writes the end of the archive and gives back the writer.
    pub fn finish(mut self) -> io::Result<W> {
        self.pad()?;
        self.inner.write_all(&[0; 2 * BLOCK])?;
        Ok(self.inner)
    }

    fn pad(&mut self) -> io::Result<()> {
        self.inner.write_all(&[0; BLOCK][..self.padding])?;
        self.padding = 0;
        Ok(())
    }
}

fn body_size(member: &Member) -> u64 {
    if member.kind == Kind::File {
        member.size
    } else {
        0
    }
}

fn padding(size: u64) -> usize {
    let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
    (BLOCK - over) % BLOCK
}

fn type_flag(kind: Kind) -> u8 {
    match kind {
        Kind::HardLink => b'1',
        Kind::Symlink => b'2',
        Kind::CharDevice => b'3',
        Kind::BlockDevice => b'4',
        Kind::Directory => b'5',
        Kind::Fifo => b'6',
        _ => b'0',
    }
}

/// Where a path can be cut into ustar's prefix and name.
fn cut(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if !path.is_ascii() {
        return None;
    }
    if path.len() <= NAME_MAX {
        return Some((b"", path));
    }
    let cut_at =
        |i: &usize| path[*i] == b'/' && path.len() - i - 1 <= NAME_MAX && *i + 1 < path.len();
    let slash = (1..path.len().min(PREFIX_MAX + 1)).rev().find(cut_at)?;
    Some((&path[..slash], &path[slash + 1..]))
}

fn records(member: &Member) -> Vec<u8> {
    let mut records = Vec::new();
    if cut(&member.path).is_none() {
        record(&mut records, b"path", &member.path);
    }
    if member.link.len() > NAME_MAX || !member.link.is_ascii() {
        record(&mut records, b"linkpath", &member.link);
    }
    if body_size(member) > OCTAL11_MAX {
        record(&mut records, b"size", member.size.to_string().as_bytes());
    }
    for (key, id) in [("uid", member.uid), ("gid", member.gid)] {
        if u64::from(id) > OCTAL7_MAX {
            record(&mut records, key.as_bytes(), id.to_string().as_bytes());
        }
    }
    if let Some(time) = time(member) {
        record(&mut records, b"mtime", time.as_bytes());
    }
    let mut xattrs: Vec<_> = member.xattrs.iter().collect();
    xattrs.sort_unstable();
    for (name, value) in xattrs {
        record(
            &mut records,
            &[b"SCHILY.xattr.", name.as_slice()].concat(),
            value,
        );
    }
    records
}

/// Only what the header cannot say: fractions, and seconds before 1970 or after 2242.
fn time(member: &Member) -> Option<String> {
    let (seconds, nanos) = (member.mtime.seconds, member.mtime.nanos);
    let fits = u64::try_from(seconds).is_ok_and(|seconds| seconds <= OCTAL11_MAX);
    if nanos == 0 {
        return (!fits).then(|| seconds.to_string());
    }
    let (sign, whole, nanos) = if seconds < 0 {
        ("-", -(seconds + 1), 1_000_000_000 - nanos)
    } else {
        ("", seconds, nanos)
    };
    let digits = format!("{nanos:09}");
    Some(format!("{sign}{whole}.{}", digits.trim_end_matches('0')))
}

/// The length counts its own digits.
fn record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + rest.to_string().len();
    if length.to_string().len() != rest.to_string().len() {
        length = rest + length.to_string().len();
    }
    out.extend_from_slice(format!("{length} ").as_bytes());
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

fn header(member: &Member) -> [u8; BLOCK] {
    let ascii: Vec<u8>;
    let (prefix, name) = match cut(&member.path) {
        Some(parts) => parts,
        None => {
            ascii = lossy(&member.path);
            (&b""[..], ascii.as_slice())
        }
    };
    let mut header = Header::new(type_flag(member.kind), name, body_size(member));
    header.bytes(345, 155, prefix);
    header.bytes(157, 100, &lossy(&member.link));
    header.octal(100, 8, u64::from(member.mode));
    header.octal(108, 8, u64::from(member.uid));
    header.octal(116, 8, u64::from(member.gid));
    header.octal(136, 12, u64::try_from(member.mtime.seconds).unwrap_or(0));
    if matches!(member.kind, Kind::CharDevice | Kind::BlockDevice) {
        header.octal(329, 8, u64::from(member.device.0));
        header.octal(337, 8, u64::from(member.device.1));
    }
    header.finish()
}

/// What stands in a header whose PAX record says the truth.
fn lossy(text: &[u8]) -> Vec<u8> {
    let ascii = |byte: &u8| if byte.is_ascii() { *byte } else { b'_' };
    text.iter().map(ascii).take(NAME_MAX).collect()
}

struct Header([u8; BLOCK]);

impl Header {
    fn new(flag: u8, name: &[u8], size: u64) -> Self {
        let mut header = Self([0; BLOCK]);
        header.bytes(0, NAME_MAX, name);
        for (start, length) in [(100, 8), (108, 8), (116, 8), (136, 12)] {
            header.octal(start, length, 0);
        }
        header.octal(124, 12, size);
        header.0[156] = flag;
        header.bytes(257, 8, b"ustar\x0000");
        header
    }

    fn bytes(&mut self, start: usize, length: usize, value: &[u8]) {
        let count = value.len().min(length);
        self.0[start..start + count].copy_from_slice(&value[..count]);
    }

    /// A number that does not fit is said by a PAX record; here it is 0.
    fn octal(&mut self, start: usize, length: usize, value: u64) {
        let width = length - 1;
        let text = format!("{value:0width$o}");
        let text = if text.len() > width {
            "0".repeat(width)
        } else {
            text
        };
        self.bytes(start, length, text.as_bytes());
    }

    fn finish(mut self) -> [u8; BLOCK] {
        self.bytes(148, 8, b"        ");
        let sum: u64 = self.0.iter().map(|byte| u64::from(*byte)).sum();
        self.bytes(148, 8, format!("{sum:06o}\0 ").as_bytes());
        self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::layers::tar::{TarReader, Time};

    fn bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(1_u8..=255, 1..max)
    }

    fn any_member() -> impl Strategy<Value = Member> {
        let owners = (any::<u32>(), any::<u32>(), 0_u32..0o10000);
        let time = (-(1_i64 << 40)..(1_i64 << 40), 0_u32..1_000_000_000);
        (
            bytes(300),
            bytes(300),
            owners,
            time,
            prop::collection::vec(any::<u8>(), 0..2000),
        )
            .prop_map(
                |(path, link, (uid, gid, mode), (seconds, nanos), value)| Member {
                    path,
                    link,
                    kind: Kind::Symlink,
                    mode,
                    uid,
                    gid,
                    mtime: Time { seconds, nanos },
                    size: 0,
                    device: (0, 0),
                    xattrs: vec![(b"user.x".to_vec(), value)],
                },
            )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(member in any_member()) {
            let mut writer = TarWriter::new(Vec::new());
            writer.header(&member).unwrap();
            let archive = writer.finish().unwrap();
            let mut reader = TarReader::new(archive.as_slice());
            prop_assert_eq!(reader.next_member().unwrap(), Some(member));
            prop_assert_eq!(reader.next_member().unwrap(), None);
        }

        #[test]
        fn the_reader_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
            let mut reader = TarReader::new(bytes.as_slice());
            while let Ok(Some(_)) = reader.next_member() {}
        }
    }
}
