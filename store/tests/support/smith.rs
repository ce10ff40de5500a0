//! Makes tars by hand, good and bad ones, and watches that nothing outside is touched.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "test code")]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// A tar in the making.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tar {
    bytes: Vec<u8>,
}

impl Tar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn file(self, name: &str, body: &[u8]) -> Self {
        self.raw(&header(b'0', name.as_bytes(), "", 0o644, body.len()), body)
    }

    pub(crate) fn file_mode(self, name: &str, mode: u32, body: &[u8]) -> Self {
        self.raw(&header(b'0', name.as_bytes(), "", mode, body.len()), body)
    }

    pub(crate) fn directory(self, name: &str, mode: u32) -> Self {
        self.raw(&header(b'5', name.as_bytes(), "", mode, 0), b"")
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.raw(&header(b'2', name.as_bytes(), target, 0o777, 0), b"")
    }

    pub(crate) fn hard_link(self, name: &str, target: &str) -> Self {
        self.raw(&header(b'1', name.as_bytes(), target, 0o644, 0), b"")
    }

    pub(crate) fn kind(self, flag: u8, name: &str) -> Self {
        self.raw(&header(flag, name.as_bytes(), "x", 0o644, 0), b"")
    }

    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut body = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length = (rest..).find(|n| *n == rest + n.to_string().len()).unwrap();
            body.extend_from_slice(format!("{length} {key}=").as_bytes());
            body.extend_from_slice(value);
            body.push(b'\n');
        }
        self.raw(&header(b'x', b"PaxHeaders/x", "", 0o644, body.len()), &body)
    }

    pub(crate) fn raw(mut self, header: &[u8; 512], body: &[u8]) -> Self {
        self.bytes.extend_from_slice(header);
        self.bytes.extend_from_slice(body);
        let padding = body.len().wrapping_neg() % 512;
        self.bytes.extend(std::iter::repeat_n(0, padding));
        self
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(&[0; 1024]);
        self.bytes
    }

    pub(crate) fn cut(self) -> Vec<u8> {
        self.bytes
    }
}

/// A ustar header with the checksum right.
pub(crate) fn header(flag: u8, name: &[u8], link: &str, mode: u32, size: usize) -> [u8; 512] {
    let mut block = [0; 512];
    block[..name.len()].copy_from_slice(name);
    block[100..107].copy_from_slice(format!("{mode:07o}").as_bytes());
    block[108..115].copy_from_slice(b"0000000");
    block[116..123].copy_from_slice(b"0000000");
    block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    block[136..147].copy_from_slice(b"14000000000");
    block[156] = flag;
    block[157..157 + link.len()].copy_from_slice(link.as_bytes());
    block[257..265].copy_from_slice(b"ustar\x0000");
    seal(&mut block);
    block
}

/// Sets the checksum.
pub(crate) fn seal(block: &mut [u8; 512]) {
    block[148..156].copy_from_slice(b"        ");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// A directory outside of every tree that must be the same after.
#[derive(Debug)]
pub(crate) struct Canary {
    directory: tempfile::TempDir,
    before: Vec<Seen>,
}

#[derive(Debug, PartialEq, Eq)]
struct Seen {
    path: PathBuf,
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
    links: u64,
    bytes: Vec<u8>,
}

impl Canary {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("f"), b"canary").unwrap();
        fs::create_dir(directory.path().join("d")).unwrap();
        fs::set_permissions(
            directory.path().join("d"),
            fs::Permissions::from_mode(0o711),
        )
        .unwrap();
        let before = look(directory.path());
        Self { directory, before }
    }

    pub(crate) fn path(&self) -> &str {
        self.directory.path().to_str().unwrap()
    }

    pub(crate) fn sings(&self) {
        assert_eq!(
            look(self.directory.path()),
            self.before,
            "something outside was touched"
        );
    }
}

fn look(root: &Path) -> Vec<Seen> {
    let mut seen = Vec::new();
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        if meta.is_dir() {
            todo.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        }
        seen.push(Seen {
            mode: meta.mode(),
            owner: (meta.uid(), meta.gid()),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            links: meta.nlink(),
            bytes: if meta.is_file() {
                fs::read(&path).unwrap()
            } else {
                Vec::new()
            },
            path,
        });
    }
    seen.sort_by(|a, b| a.path.cmp(&b.path));
    seen
}
