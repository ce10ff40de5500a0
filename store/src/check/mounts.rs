//! Mounts below the store's directory that nothing explains.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use rustix::mount::{UnmountFlags, unmount};

use super::{Kind, Parts, Run, below};
use crate::StoreError;

const TABLE: &str = "/proc/self/mountinfo";
/// Some ten thousand mounts.
const TABLE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Where only the store mounts.
const OURS: [&str; 2] = ["layers", "mounts"];

pub(super) fn check(parts: &Parts, run: &mut Run<'_>) -> Result<(), StoreError> {
    let state = parts
        .state
        .canonicalize()
        .map_err(StoreError::io("examine", &parts.state))?;
    for point in mount_points()? {
        if !point.starts_with(&state) || point == state {
            continue;
        }
        let subject = below(&state, &point);
        if parts.snapshots.explains_mount(Path::new(&subject)) {
            continue;
        }
        let detail = "no layer explains this mount".to_owned();
        if OURS
            .iter()
            .any(|place| Path::new(&subject).starts_with(place))
        {
            run.found(Kind::StaleMount, &subject, detail, || {
                unmount(&point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
                    .map_err(StoreError::io("unmount", &point))
            })?;
        } else {
            run.tell(Kind::StaleMount, &subject, detail)?;
        }
    }
    Ok(())
}

fn mount_points() -> Result<Vec<PathBuf>, StoreError> {
    let mut table = Vec::new();
    File::open(TABLE)
        .and_then(|file| file.take(TABLE_BYTES_MAX).read_to_end(&mut table))
        .map_err(StoreError::io("read", TABLE))?;
    let lines = table.split(|byte| *byte == b'\n');
    Ok(lines.filter_map(mount_point).collect())
}

/// The fifth field of a line, in which white space is written in octal (`proc_pid_mountinfo(5)`).
fn mount_point(line: &[u8]) -> Option<PathBuf> {
    let field = line.split(|byte| *byte == b' ').nth(4)?;
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|_| *first == b'\\');
        let escaped = octal
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        path.push(escaped.unwrap_or(*first));
        rest = tail.get(if escaped.is_some() { 3 } else { 0 }..)?;
    }
    Some(PathBuf::from(OsString::from_vec(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_in_a_path_is_octal() {
        let line = br"36 35 98:0 /mnt1 /mnt\0402\134x rw,noatime - ext3 /dev/root rw";
        assert_eq!(mount_point(line), Some(PathBuf::from(r"/mnt 2\x")));
        assert_eq!(mount_point(b""), None);
    }
}
