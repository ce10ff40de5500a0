//! PAX extended header records: `"%d %s=%s\n"` (POSIX.1-2001, pax).

use super::sparse::Declared;
use super::{Member, Time, malformed};
use crate::error::Result;

const XATTR: &[u8] = b"SCHILY.xattr.";

/// The records of one extended header, in their order; a later one of the same key wins.
#[derive(Debug, Default)]
pub(super) struct Records(Vec<(Vec<u8>, Vec<u8>)>);

impl Records {
    /// Anything that is not exactly a sequence of records is an error (row A14).
    pub(super) fn parse(mut rest: &[u8]) -> Result<Self> {
        let mut records = Vec::new();
        while !rest.is_empty() {
            let (record, after) = split(rest).ok_or_else(|| malformed("a malformed PAX record"))?;
            records.push(record);
            rest = after;
        }
        Ok(Self(records))
    }

    /// Global records mean nothing to Go, and to others they change every entry that follows: what
    /// would change its name or length is refused.
    pub(super) fn only_notes(&self) -> Result<()> {
        let steers = |key: &[u8]| {
            matches!(key, b"path" | b"linkpath" | b"size") || key.starts_with(b"GNU.sparse.")
        };
        if self.0.iter().any(|(key, _)| steers(key)) {
            return Err(malformed("a global PAX header that names or measures"));
        }
        Ok(())
    }

    pub(super) fn path(&self) -> Option<&[u8]> {
        self.get("path")
    }

    pub(super) fn link(&self) -> Option<&[u8]> {
        self.get("linkpath")
    }

    /// An empty value takes a record back.
    fn get(&self, key: &str) -> Option<&[u8]> {
        self.0
            .iter()
            .rev()
            .find(|(k, _)| k == key.as_bytes())
            .map(|(_, value)| value.as_slice())
            .filter(|value| !value.is_empty())
    }

    fn decimal(&self, key: &str) -> Result<Option<u64>> {
        self.get(key)
            .map(|value| {
                decimal(value).ok_or_else(|| malformed(&format!("PAX {key} is no number")))
            })
            .transpose()
    }

    pub(super) fn size(&self) -> Result<Option<u64>> {
        self.decimal("size")
    }

    pub(super) fn apply(&self, member: &mut Member) -> Result<()> {
        if let Some(path) = self.path() {
            member.path = path.to_vec();
        }
        if let Some(link) = self.link() {
            member.link = link.to_vec();
        }
        if let Some(uid) = self.id("uid")? {
            member.uid = uid;
        }
        if let Some(gid) = self.id("gid")? {
            member.gid = gid;
        }
        if let Some(mtime) = self.get("mtime") {
            member.mtime = time(mtime).ok_or_else(|| malformed("PAX mtime is no time"))?;
        }
        member.xattrs = self.xattrs();
        Ok(())
    }

    fn id(&self, key: &str) -> Result<Option<u32>> {
        self.decimal(key)?
            .map(|id| u32::try_from(id).map_err(|_| malformed(&format!("PAX {key} is too large"))))
            .transpose()
    }

    fn xattrs(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut xattrs: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for (key, value) in &self.0 {
            let Some(name) = key.strip_prefix(XATTR) else {
                continue;
            };
            xattrs.retain(|(known, _)| known != name);
            xattrs.push((name.to_vec(), value.clone()));
        }
        xattrs
    }

    /// GNU's sparse formats 0.0, 0.1 and 1.0.
    pub(super) fn sparse(&self) -> Result<Option<Declared>> {
        let name = self.get("GNU.sparse.name").map(<[u8]>::to_vec);
        if let (Some(b"1"), Some(b"0")) =
            (self.get("GNU.sparse.major"), self.get("GNU.sparse.minor"))
        {
            let size = self.decimal("GNU.sparse.realsize")?;
            let size = size.ok_or_else(|| malformed("a sparse file without its size"))?;
            return Ok(Some(Declared {
                name,
                size,
                map: None,
            }));
        }
        let Some(size) = self.decimal("GNU.sparse.size")? else {
            return Ok(None);
        };
        let map = match self.get("GNU.sparse.map") {
            Some(text) => pairs(text.split(|byte| *byte == b','))?,
            None => self.pairs_of_records()?,
        };
        Ok(Some(Declared {
            name,
            size,
            map: Some(map),
        }))
    }

    fn pairs_of_records(&self) -> Result<Vec<(u64, u64)>> {
        let is_part = |key: &[u8]| key == b"GNU.sparse.offset" || key == b"GNU.sparse.numbytes";
        pairs(
            self.0
                .iter()
                .filter(|(key, _)| is_part(key))
                .map(|(_, value)| value.as_slice()),
        )
    }
}

fn pairs<'a>(numbers: impl Iterator<Item = &'a [u8]>) -> Result<Vec<(u64, u64)>> {
    let wrong = || malformed("a sparse map that is not one");
    let numbers: Option<Vec<u64>> = numbers.filter(|n| !n.is_empty()).map(decimal).collect();
    let numbers = numbers.ok_or_else(wrong)?;
    if numbers.len() % 2 != 0 {
        return Err(wrong());
    }
    Ok(numbers
        .chunks_exact(2)
        .map(|pair| (pair[0], pair[1]))
        .collect())
}

type Record = (Vec<u8>, Vec<u8>);

fn split(bytes: &[u8]) -> Option<(Record, &[u8])> {
    let space = bytes.iter().take(20).position(|byte| *byte == b' ')?;
    let length = usize::try_from(decimal(&bytes[..space])?).ok()?;
    let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    let (key, value) = (&record[..equals], &record[equals + 1..]);
    let text = key == b"path" || key == b"linkpath" || key == b"GNU.sparse.name";
    if key.is_empty() || key.contains(&0) || (text && value.contains(&0)) {
        return None;
    }
    Some(((key.to_vec(), value.to_vec()), &bytes[length..]))
}

pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// `[-]seconds[.fraction]`; digits beyond nanoseconds are dropped.
fn time(text: &[u8]) -> Option<Time> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut parts = text.splitn(2, |byte| *byte == b'.');
    let seconds = i64::try_from(decimal(parts.next()?)?).ok()?;
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let nanos = (0..9).fold(0_u32, |nanos, i| {
        nanos * 10 + fraction.get(i).map_or(0, |digit| u32::from(digit - b'0'))
    });
    Some(match (negative, nanos) {
        (false, _) => Time { seconds, nanos },
        (true, 0) => Time {
            seconds: -seconds,
            nanos,
        },
        (true, _) => Time {
            seconds: -seconds - 1,
            nanos: 1_000_000_000 - nanos,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a14_malformed_records_are_errors() {
        for bad in [
            &b"11 path=x\n"[..],
            b"9 path=x\nyy",
            b"8 path=x\n",
            b"6 path\n",
            b"9 path=x ",
            b"path=x\n",
            b"99999999999999999999999 a=b\n",
            b"-6 a=b\n",
            b"10 path=\0x\n",
            b"5 =b\n",
            b"0 a=b\n",
        ] {
            assert!(
                Records::parse(bad).is_err(),
                "{:?}",
                bad.escape_ascii().to_string()
            );
        }
        assert!(Records::parse(b"9 path=x\n").is_ok());
    }

    #[test]
    fn times_before_1970_and_below_a_second() {
        let at = |seconds, nanos| Some(Time { seconds, nanos });
        assert_eq!(time(b"1.5"), at(1, 500_000_000));
        assert_eq!(time(b"-1.25"), at(-2, 750_000_000));
        assert_eq!(time(b"-3"), at(-3, 0));
        assert_eq!(time(b"7.1234567899"), at(7, 123_456_789));
        assert_eq!(time(b"1.x"), None);
        assert_eq!(time(b""), None);
    }
}
