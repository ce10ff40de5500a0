//! `user[:group]`, by number or by a name in the snapshot's own files.

use crate::error::{Result, StoreError};
use crate::layers::root::Root;
use crate::snapshots::read::read_small;

/// Linux' ids are 32 bits, of which other tools take half as negative (rows C2, C3).
const ID_MAX: u64 = i32::MAX as u64;
const NAME_MAX: usize = 256;

/// Finds user and group; `None` when nothing was asked for. A user without a group has, by name, the
/// group of its line in `/etc/passwd`, and by number the group of the same number, as Docker does.
pub fn resolve(root: &Root, spec: &str) -> Result<Option<(u32, u32)>> {
    if spec.is_empty() {
        return Ok(None);
    }
    let (user, group) = match spec.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (spec, None),
    };
    let wrong = |problem: String| StoreError::Owner {
        spec: spec.chars().take(NAME_MAX).collect(),
        problem,
    };
    let (uid, gid) = user_of(root, user).map_err(wrong)?;
    let gid = match group {
        Some(group) => group_of(root, group).map_err(wrong)?,
        None => gid,
    };
    Ok(Some((uid, gid)))
}

fn user_of(root: &Root, user: &str) -> std::result::Result<(u32, u32), String> {
    if let Some(id) = number(user)? {
        return Ok((id, id));
    }
    let line = find(root, b"/etc/passwd", user)?;
    match (field(&line, 2), field(&line, 3)) {
        (Some(uid), Some(gid)) => Ok((uid, gid)),
        _ => Err(format!(
            "the line of user {user} in /etc/passwd is malformed"
        )),
    }
}

fn group_of(root: &Root, group: &str) -> std::result::Result<u32, String> {
    if let Some(id) = number(group)? {
        return Ok(id);
    }
    let line = find(root, b"/etc/group", group)?;
    field(&line, 2).ok_or_else(|| format!("the line of group {group} in /etc/group is malformed"))
}

/// Digits alone are a number and never a name (rows C1, C2).
fn number(text: &str) -> std::result::Result<Option<u32>, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let in_range = text.parse::<u64>().ok().filter(|id| *id <= ID_MAX);
        return match in_range.and_then(|id| u32::try_from(id).ok()) {
            Some(id) => Ok(Some(id)),
            None => Err(format!("the id {text} is larger than {ID_MAX}")),
        };
    }
    let named = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-$@".contains(&byte);
    let first = text.bytes().next();
    let starts = first.is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    if starts && text.len() <= NAME_MAX && text.bytes().all(named) {
        return Ok(None);
    }
    Err("expected user[:group], each a number or a name".to_owned())
}

fn find(root: &Root, path: &[u8], name: &str) -> std::result::Result<Vec<u8>, String> {
    let shown = String::from_utf8_lossy(path).into_owned();
    let file = read_small(root, path).map_err(|error| {
        format!(
            "cannot look up {name} in {shown}: {}",
            orlop_proto::error::chain(&error)
        )
    })?;
    file.split(|byte| *byte == b'\n')
        .find(|line| line.split(|byte| *byte == b':').next() == Some(name.as_bytes()))
        .map(<[u8]>::to_vec)
        .ok_or_else(|| format!("{name} is not in {shown} of the image"))
}

fn field(line: &[u8], index: usize) -> Option<u32> {
    let field = line.split(|byte| *byte == b':').nth(index)?;
    let id: u64 = std::str::from_utf8(field).ok()?.trim().parse().ok()?;
    u32::try_from(id).ok().filter(|id| u64::from(*id) <= ID_MAX)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::snapshots::files;

    fn tree(passwd: &str) -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("etc")).unwrap();
        fs::write(directory.path().join("etc/passwd"), passwd).unwrap();
        fs::write(directory.path().join("etc/group"), "root:x:0:\nweb:x:33:\n").unwrap();
        let root = Root::new(files::open_directory(directory.path()).unwrap());
        (directory, root)
    }

    #[test]
    fn names_and_numbers() {
        let (_directory, root) = tree("root:x:0:0::/:\nweb:x:33:34::/:\n");
        assert_eq!(resolve(&root, "").unwrap(), None);
        assert_eq!(resolve(&root, "web").unwrap(), Some((33, 34)));
        assert_eq!(resolve(&root, "web:web").unwrap(), Some((33, 33)));
        assert_eq!(resolve(&root, "1000").unwrap(), Some((1000, 1000)));
        assert_eq!(resolve(&root, "7:web").unwrap(), Some((7, 33)));
        assert!(resolve(&root, "nobody").is_err());
    }

    #[test]
    fn c1_a_number_is_never_a_name() {
        let (_directory, root) = tree("1000:x:0:0::/:\n");
        assert_eq!(resolve(&root, "1000").unwrap(), Some((1000, 1000)));
    }

    #[test]
    fn c2_c3_odd_numbers_are_errors() {
        let line = |name| format!("{name}:x:0:0::/:\n");
        for odd in [
            "4294967296",
            "99999999999",
            "-1",
            "0x0",
            "1e3",
            " 0",
            "+0",
            "\u{660}",
            "2147483648",
            "4294967295",
            "2147483648:2147483648",
            "0:4294967295",
            ":",
            ":0",
            "a:",
        ] {
            let (_directory, root) = tree(&line(odd));
            assert!(resolve(&root, odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn b26_only_small_regular_files_in_the_root_are_read() {
        let (directory, root) = tree("");
        let passwd = directory.path().join("etc/passwd");
        let outside = tempfile::tempdir().unwrap();
        let canary = outside.path().join("passwd");
        fs::write(&canary, "evil:x:0:0::/:\n").unwrap();
        let refused = || {
            assert!(resolve(&root, "evil").is_err());
            fs::remove_file(&passwd).unwrap();
        };
        refused();
        std::os::unix::fs::symlink(&canary, &passwd).unwrap();
        refused();
        std::os::unix::fs::symlink("/dev/zero", &passwd).unwrap();
        refused();
        let mode = rustix::fs::Mode::from_raw_mode(0o644);
        rustix::fs::mkfifoat(rustix::fs::CWD, &passwd, mode).unwrap();
        refused();
        fs::write(&passwd, vec![b'\n'; (1 << 20) + 1]).unwrap();
        refused();
        fs::create_dir(&passwd).unwrap();
        assert!(resolve(&root, "evil").is_err());
    }
}
