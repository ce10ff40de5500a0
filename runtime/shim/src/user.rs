//! Who the process is: `user[:group]`, looked up in the container's own account files.
//!
//! Numbers are never names: a string of digits is taken as a number or refused, so that no line of
//! an image's `/etc/passwd` can turn the user "1000" into root.

use std::io::Read;
use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::fs::{FileType, OFlags};

use crate::error::{Error, Result};
use crate::rootfs;

/// The largest account file that is read.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Groups of one process, as the kernel's own limit.
const GROUPS_MAX: usize = 65536;

/// The identity of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Supplementary groups; the primary group is always among them.
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

/// The container's account files, as text.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    pub(crate) passwd: String,
    pub(crate) group: String,
}

impl Accounts {
    /// Reads both files below `root`. A file that is missing is empty.
    pub(crate) fn read(root: BorrowedFd<'_>) -> Result<Self> {
        Ok(Self {
            passwd: read(root, "/etc/passwd")?,
            group: read(root, "/etc/group")?,
        })
    }

    /// Resolves `user[:group]`; empty means root. `more` are groups by number.
    pub(crate) fn resolve(&self, wanted: &str, more: &[u32]) -> Result<Identity> {
        let (user, group) = match wanted.split_once(':') {
            Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
            None => (wanted, None),
        };
        let number = parse_number(if user.is_empty() { "0" } else { user })?;
        let line = self
            .passwd
            .lines()
            .filter_map(Entry::parse)
            .find(|entry| match number {
                Some(uid) => entry.id == uid,
                None => entry.name == user,
            });
        let uid = match (number, &line) {
            (Some(uid), _) => uid,
            (None, Some(entry)) => entry.id,
            (None, None) => return Err(Error::UserUnknown(user.to_owned())),
        };
        let gid = match group {
            Some(group) => self.group_number(group)?,
            None => line.as_ref().map_or(0, |entry| entry.gid),
        };
        let mut groups = vec![gid];
        if let (None, Some(entry)) = (group, &line) {
            groups.extend(self.groups_of(entry.name));
        }
        groups.extend(more);
        groups.sort_unstable();
        groups.dedup();
        groups.truncate(GROUPS_MAX);
        let home = line
            .map(|entry| entry.home)
            .filter(|home| home.starts_with('/'));
        let home = home.unwrap_or("/").to_owned();
        Ok(Identity {
            uid,
            gid,
            groups,
            home,
        })
    }

    /// The number of a group, given by name or number.
    pub(crate) fn group_number(&self, group: &str) -> Result<u32> {
        if let Some(gid) = parse_number(group)? {
            return Ok(gid);
        }
        let mut entries = self.group.lines().filter_map(group_entry);
        let found = entries.find(|(name, ..)| *name == group);
        found
            .map(|(_, gid, _)| gid)
            .ok_or_else(|| Error::GroupUnknown(group.to_owned()))
    }

    fn groups_of<'a>(&'a self, user: &'a str) -> impl Iterator<Item = u32> + 'a {
        let entries = self.group.lines().filter_map(group_entry);
        entries.filter_map(move |(_, gid, members)| {
            members
                .split(',')
                .any(|member| member == user)
                .then_some(gid)
        })
    }
}

struct Entry<'a> {
    name: &'a str,
    id: u32,
    gid: u32,
    home: &'a str,
}

impl<'a> Entry<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let id = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = fields.nth(1).unwrap_or("/");
        Some(Self {
            name,
            id,
            gid,
            home,
        })
    }
}

fn group_entry(line: &str) -> Option<(&str, u32, &str)> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    let gid = fields.nth(1)?.parse().ok()?;
    Some((name, gid, fields.next().unwrap_or("")))
}

/// The number that `text` is, `None` if it is a name, an error if it is neither: what begins with a
/// digit or a sign is no name.
fn parse_number(text: &str) -> Result<Option<u32>> {
    let wrong = || Error::UserNumber(text.to_owned());
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        let number = text.parse().ok().filter(|number| *number < 1 << 31);
        return number.map(Some).ok_or_else(wrong);
    }
    let name = text.bytes().enumerate().all(|(at, byte)| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'_' => true,
        b'0'..=b'9' | b'.' | b'-' | b'@' | b'$' => at > 0,
        _ => false,
    });
    if name { Ok(None) } else { Err(wrong()) }
}

/// Reads a file of the image: links stay inside, nothing but a regular file is opened for good.
fn read(root: BorrowedFd<'_>, path: &'static str) -> Result<String> {
    let fail = |source| Error::Accounts { path, source };
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match rootfs::open_in(root, Path::new(path), OFlags::PATH) {
        Ok(handle) => handle,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(fail(error)),
    };
    let invalid = |what| fail(std::io::Error::new(std::io::ErrorKind::InvalidData, what));
    let stat = rustix::fs::fstat(&file).map_err(|errno| fail(errno.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(invalid("not a regular file"));
    }
    let opened = rootfs::open_in(root, Path::new(path), flags).map_err(fail)?;
    let again = rustix::fs::fstat(&opened).map_err(|errno| fail(errno.into()))?;
    if (again.st_dev, again.st_ino) != (stat.st_dev, stat.st_ino) {
        return Err(invalid("it changed while it was opened"));
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::from(opened);
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(fail)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(invalid("larger than 1 MiB"));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts {
            passwd: "root:x:0:0:root:/root:/bin/sh\n1000:x:0:0::/evil:/bin/sh\n\
                     web:x:33:33::/var/www:/bin/sh\nbroken\n"
                .to_owned(),
            group: "root:x:0:\nwheel:x:10:root\nweb:x:33:\nlog:x:40:web,root\n".to_owned(),
        }
    }

    #[test]
    fn c1_a_number_is_never_looked_up_as_a_name() {
        let identity = accounts().resolve("1000", &[]).unwrap();
        assert_eq!((identity.uid, identity.gid), (1000, 0));
        assert_eq!(identity.home, "/");
    }

    #[test]
    fn c2_numbers_out_of_range_and_odd_spellings_are_refused() {
        let wrong =
            "4294967296 99999999999 -1 0x0 1e3 +0 ٠ 2147483648 4294967295 0:-1 0:4294967295";
        for user in wrong.split(' ').chain([" 0", "0 ", "a b", "root:0x0"]) {
            assert!(accounts().resolve(user, &[]).is_err(), "{user:?}");
        }
    }

    #[test]
    fn c3_the_first_number_beyond_the_signed_range_is_refused() {
        assert!(accounts().resolve("2147483648:2147483648", &[]).is_err());
        assert_eq!(
            accounts().resolve("2147483647", &[]).unwrap().uid,
            2_147_483_647
        );
    }

    #[test]
    fn c8_the_primary_group_is_always_among_the_groups() {
        let resolve = |user| accounts().resolve(user, &[]).unwrap();
        assert_eq!(resolve("").groups, [0, 10, 40]);
        assert_eq!(resolve("1234").groups, [0]);
        assert_eq!(resolve("1234:1234").groups, [1234]);
        assert_eq!(resolve("web").groups, [33, 40]);
        assert_eq!(resolve("web:log").groups, [40]);
        assert_eq!(resolve("web:log").gid, 40);
        assert_eq!(resolve("33").groups, [33, 40]);
    }

    #[test]
    fn unknown_names_are_named() {
        let error = accounts().resolve("nobody", &[]).unwrap_err();
        assert!(error.to_string().contains("nobody"));
        assert!(accounts().resolve("root:staff", &[]).is_err());
    }
}
