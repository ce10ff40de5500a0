//! Access control lists as attributes: what the kernel takes, and what it makes of the mode.

use rustix::io::Errno;

/// The attribute with the list that decides.
pub(super) const ACCESS: &[u8] = b"system.posix_acl_access";
/// The attribute of a directory with the list that new files in it get.
pub(super) const DEFAULT: &[u8] = b"system.posix_acl_default";

/// The only version that there is (`linux/posix_acl_xattr.h`).
const VERSION: u32 = 2;
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;
/// The id of an entry that names nobody.
const NOBODY: u32 = u32::MAX;

/// Entries in the order that the kernel demands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Acl(Vec<Entry>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    tag: u16,
    permissions: u16,
    id: u32,
}

impl Acl {
    /// `None` is the empty list, which takes back an earlier one.
    pub(super) fn parse(value: &[u8]) -> rustix::io::Result<Option<Self>> {
        if value.is_empty() {
            return Ok(None);
        }
        let (version, entries) = value.split_first_chunk::<4>().ok_or(Errno::INVAL)?;
        if u32::from_le_bytes(*version) != VERSION {
            return Err(Errno::OPNOTSUPP);
        }
        let (entries, rest) = entries.as_chunks::<8>();
        if !rest.is_empty() {
            return Err(Errno::INVAL);
        }
        let acl = Self(entries.iter().map(Entry::decode).collect());
        if acl.0.is_empty() {
            return Ok(None);
        }
        acl.check()?;
        Ok(Some(acl))
    }

    /// One owner, named users, one group, named groups, a mask if anybody is named, all others.
    fn check(&self) -> rustix::io::Result<()> {
        let (mut last, mut needs_mask) = (0, false);
        for entry in &self.0 {
            let follows = match entry.tag {
                USER_OBJ => last == 0,
                USER | GROUP_OBJ => last == USER_OBJ || last == USER,
                GROUP | MASK => last == GROUP_OBJ || last == GROUP,
                OTHER if needs_mask => last == MASK,
                OTHER => matches!(last, GROUP_OBJ | MASK),
                _ => false,
            };
            let named = matches!(entry.tag, USER | GROUP);
            if !follows || entry.permissions > 7 || (named && entry.id == NOBODY) {
                return Err(Errno::INVAL);
            }
            needs_mask |= named;
            last = entry.tag;
        }
        if last == OTHER {
            Ok(())
        } else {
            Err(Errno::INVAL)
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut value = VERSION.to_le_bytes().to_vec();
        for entry in &self.0 {
            value.extend_from_slice(&entry.tag.to_le_bytes());
            value.extend_from_slice(&entry.permissions.to_le_bytes());
            value.extend_from_slice(&entry.id.to_le_bytes());
        }
        value
    }

    /// The mode of a file that gets this list, and whether the mode alone says as much.
    pub(super) fn mode(&self, mode: u32) -> (u32, bool) {
        let group = self.find(MASK).or(self.find(GROUP_OBJ));
        let bits = |permissions: Option<u16>| u32::from(permissions.unwrap_or(0));
        let own = bits(self.find(USER_OBJ)) << 6 | bits(group) << 3 | bits(self.find(OTHER));
        let plain = |entry: &Entry| matches!(entry.tag, USER_OBJ | GROUP_OBJ | OTHER);
        ((mode & !0o777) | own, self.0.iter().all(plain))
    }

    /// What `chmod` makes of the list.
    pub(super) fn chmod(&mut self, mode: u32) {
        let group = if self.find(MASK).is_some() {
            MASK
        } else {
            GROUP_OBJ
        };
        for entry in &mut self.0 {
            let shift = match entry.tag {
                USER_OBJ => 6,
                OTHER => 0,
                tag if tag == group => 3,
                _ => continue,
            };
            entry.permissions = u16::try_from(mode >> shift & 7).unwrap_or(0);
        }
    }

    fn find(&self, tag: u16) -> Option<u16> {
        let entry = self.0.iter().find(|entry| entry.tag == tag);
        entry.map(|entry| entry.permissions)
    }
}

impl Entry {
    fn decode(bytes: &[u8; 8]) -> Self {
        let [t0, t1, p0, p1, id @ ..] = *bytes;
        let tag = u16::from_le_bytes([t0, t1]);
        let named = matches!(tag, USER | GROUP);
        Self {
            tag,
            permissions: u16::from_le_bytes([p0, p1]),
            id: if named {
                u32::from_le_bytes(id)
            } else {
                NOBODY
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let entry = |&(tag, permissions, id)| Entry {
            tag,
            permissions,
            id,
        };
        Acl(entries.iter().map(entry).collect()).encode()
    }

    #[test]
    fn the_mode_follows_the_list_and_the_list_follows_chmod() {
        let value = acl(&[
            (USER_OBJ, 6, NOBODY),
            (USER, 7, 5),
            (GROUP_OBJ, 4, NOBODY),
            (MASK, 5, NOBODY),
            (OTHER, 1, NOBODY),
        ]);
        let mut list = Acl::parse(&value).unwrap().unwrap();
        assert_eq!(list.encode(), value);
        assert_eq!(list.mode(0o4777), (0o4651, false));
        list.chmod(0o720);
        assert_eq!(list.mode(0), (0o720, false));
        let plain = acl(&[(USER_OBJ, 6, 1), (GROUP_OBJ, 4, 2), (OTHER, 0, 3)]);
        let plain = Acl::parse(&plain).unwrap().unwrap();
        assert_eq!(plain.mode(0), (0o640, true));
    }

    #[test]
    fn lists_out_of_order_are_refused() {
        let good = [
            (USER_OBJ, 6, 0),
            (USER, 6, 7),
            (GROUP_OBJ, 4, 0),
            (MASK, 7, 0),
            (OTHER, 0, 0),
        ];
        Acl::parse(&acl(&good)).unwrap();
        for left_out in 0..good.len() {
            let mut entries = good.to_vec();
            entries.remove(left_out);
            assert_eq!(Acl::parse(&acl(&entries)).is_ok(), left_out == 1);
        }
        let mut twice = good.to_vec();
        twice.insert(0, good[0]);
        assert_eq!(Acl::parse(&acl(&twice)), Err(Errno::INVAL));
        assert_eq!(Acl::parse(&acl(&good)[..20]), Err(Errno::INVAL));
        assert_eq!(Acl::parse(b"version"), Err(Errno::OPNOTSUPP));
        assert_eq!(Acl::parse(b""), Ok(None));
    }
}
