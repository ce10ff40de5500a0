//! Every kind of entry that a layer can hold, as GNU tar writes it in each of its formats.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, lchown, symlink};
use std::path::Path;
use std::process::Command;

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, lsetxattr};

use crate::manifest::{Manifest, os};
use crate::trip::{Source, becomes, gnu_tar};

/// `cap_net_raw+ep`, revision 2.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// `u::rw-,u:1000:r--,g::r--,m::r--,o::r--` as the kernel keeps it (`linux/posix_acl_xattr.h`).
const ACL: [u8; 44] = [
    2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 0xe8, 3, 0, 0, 4, 0, 4, 0, 255, 255,
    255, 255, 16, 0, 4, 0, 255, 255, 255, 255, 32, 0, 4, 0, 255, 255, 255, 255,
];

fn set(path: &Path, name: &str, value: &[u8]) {
    lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn time(path: &Path, seconds: i64, nanos: i64) {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanos,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn node(path: &Path, kind: FileType, major: u32, minor: u32) {
    let device = rustix::fs::makedev(major, minor);
    rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o640), device).unwrap();
}

/// Bytes that do not compress, the same each time.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(length).collect()
}

fn files(root: &Path) {
    for size in [0, 1, 511, 512, 513, 4095, 4096, 4097, 70_000, 1 << 20] {
        fs::write(root.join(format!("size-{size}")), noise(size)).unwrap();
    }
    for bits in [
        0o0, 0o400, 0o644, 0o755, 0o1755, 0o2755, 0o4755, 0o6711, 0o7777,
    ] {
        let (file, directory) = (
            root.join(format!("f{bits:o}")),
            root.join(format!("d{bits:o}")),
        );
        fs::write(&file, b"x").unwrap();
        mode(&file, bits);
        fs::create_dir(&directory).unwrap();
        mode(&directory, bits);
    }
    for id in [
        1,
        1000,
        65_534,
        65_536,
        2_097_151,
        2_097_152,
        3_000_000,
        u32::MAX - 1,
    ] {
        let file = root.join(format!("owner-{id}"));
        fs::write(&file, b"x").unwrap();
        lchown(&file, Some(id), Some(id - 1)).unwrap();
    }
    let setuid = root.join("setuid-of-another");
    fs::write(&setuid, b"x").unwrap();
    lchown(&setuid, Some(1000), Some(1000)).unwrap();
    mode(&setuid, 0o6755);
}

/// With `fine`, also what only PAX can say.
fn times(root: &Path, fine: bool) {
    let nanos = if fine { 123_456_789 } else { 0 };
    for seconds in [
        -2_000_000_000,
        -2,
        -1,
        0,
        1,
        0x7fff_ffff,
        0x8000_0000,
        9_000_000_000,
    ] {
        let file = root.join(format!("time{seconds}"));
        fs::write(&file, b"x").unwrap();
        time(&file, seconds, nanos);
    }
    let (directory, link) = (root.join("old-directory"), root.join("old-link"));
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("young"), b"x").unwrap();
    time(&directory, -5, if fine { 1 } else { 0 });
    symlink("nowhere", &link).unwrap();
    time(&link, 12, if fine { 999_999_999 } else { 0 });
}

fn links(root: &Path) {
    fs::write(root.join("one"), b"three names").unwrap();
    fs::create_dir(root.join("far")).unwrap();
    fs::hard_link(root.join("one"), root.join("far/two")).unwrap();
    fs::hard_link(root.join("one"), root.join("a-third")).unwrap();
    for (name, target) in [
        ("relative", "far/two"),
        ("absolute", "/one"),
        ("up", "../../x"),
        ("dot", "."),
    ] {
        symlink(target, root.join(name)).unwrap();
    }
    symlink("t".repeat(100), root.join("link-100")).unwrap();
    symlink("t".repeat(101), root.join("link-101")).unwrap();
    symlink("long/".repeat(800), root.join("link-4000")).unwrap();
    symlink(OsStr::from_bytes(b"\xff\n\\"), root.join("link-bytes")).unwrap();
    fs::hard_link(root.join("relative"), root.join("relative-again")).unwrap();
}

fn specials(root: &Path) {
    node(&root.join("null"), FileType::CharacterDevice, 1, 3);
    node(
        &root.join("large-numbers"),
        FileType::CharacterDevice,
        4095,
        1_048_575,
    );
    node(&root.join("block"), FileType::BlockDevice, 259, 300);
    node(&root.join("pipe"), FileType::Fifo, 0, 0);
    mode(&root.join("pipe"), 0o4611);
    lchown(root.join("block"), Some(7), Some(8)).unwrap();
}

fn attributes(root: &Path) {
    let (file, directory, link) = (
        root.join("xattrs"),
        root.join("xattrs.d"),
        root.join("xattrs.l"),
    );
    fs::write(&file, b"x").unwrap();
    fs::create_dir(&directory).unwrap();
    symlink("xattrs", &link).unwrap();
    set(&file, "user.text", b"value");
    set(&file, "user.empty", b"");
    set(&file, "user.binary", b"a=b\nc\0d\xff");
    set(&file, "user.large", &noise(2000));
    set(&file, "security.capability", &CAPABILITY);
    set(&file, "system.posix_acl_access", &ACL);
    set(&directory, "system.posix_acl_default", &ACL);
    set(&directory, "user.on.a.directory", b"1");
    set(&link, "trusted.on.a.link", b"2");
    let pipe = root.join("xattrs.p");
    node(&pipe, FileType::Fifo, 0, 0);
    set(&pipe, "trusted.on.a.pipe", b"3");
    for number in 0..30 {
        let same = root.join(format!("same-{number}"));
        fs::write(&same, b"").unwrap();
        set(&same, "user.shared", b"by many files");
    }
}

fn sparse(root: &Path) {
    let make = |name: &str, pieces: &[u64], length: u64| {
        let file = File::create(root.join(name)).unwrap();
        for at in pieces {
            file.write_all_at(b"piece", *at).unwrap();
        }
        file.set_len(length).unwrap();
    };
    make("hole", &[], 1 << 20);
    make("hole-first", &[1 << 20], (1 << 20) + 5);
    make("hole-last", &[0], 3 << 20);
    make("hole-between", &[0, 2 << 20], (2 << 20) + 4096);
    make(
        "many-holes",
        &(0..100).map(|n| n * 65_536 + 4096).collect::<Vec<_>>(),
        7 << 20,
    );
    make("odd-end", &[8192], 1_234_567);
}

fn names(root: &Path) {
    for length in [98, 99, 100, 101, 155, 156, 255] {
        fs::write(root.join("n".repeat(length)), b"x").unwrap();
    }
    let deep = root.join(["d".repeat(99).as_str(); 12].join("/"));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("f"), b"deep").unwrap();
    symlink("f", deep.join("l")).unwrap();
    fs::hard_link(deep.join("f"), root.join("short-name-of-deep")).unwrap();
    fs::hard_link(root.join("one"), deep.join("of-one")).unwrap();
    for name in [
        &b"\xff\xfe"[..],
        b"new\nline",
        b"back\\slash",
        b"-dash",
        b" space ",
        b"\x01\x7f",
        "ü".as_bytes(),
        b"a\tb",
        b"%41",
        b"*?[",
        b"...",
        b".wh",
        b"x.wh.y",
        b"=",
        b"con",
        b"\xc3",
    ] {
        fs::write(root.join(os(name)), name).unwrap();
    }
}

pub(crate) fn every_kind(root: &Path, fine: bool) {
    mode(root, 0o751);
    files(root);
    links(root);
    specials(root);
    if fine {
        attributes(root);
    }
    sparse(root);
    names(root);
    times(root, fine);
    time(root, 1_000_000_007, if fine { 5 } else { 0 });
}

pub(crate) fn tar(root: &Path, options: &[&str]) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().unwrap();
    let out = Command::new("tar")
        .args(["-c", "--numeric-owner", "--warning=no-timestamp"])
        .args(options)
        .arg("-f")
        .arg(file.path())
        .arg("-C")
        .arg(root)
        .arg(".")
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    fs::read(file.path()).unwrap()
}

async fn every_kind_in(format: &[&str], fine: bool) {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("root");
    fs::create_dir(&root).unwrap();
    every_kind(&root, fine);
    let layer = tar(&root, format);
    let expected = gnu_tar(&layer);
    if fine {
        expected.must_be(&Manifest::of(&root), "GNU tar itself");
    }
    becomes(Source::Layers(&[layer]), &expected, |manifest| manifest).await;
}

pub(crate) const PAX: [&str; 4] = ["--format=pax", "--xattrs", "--xattrs-include=*", "--acls"];

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_entry_as_pax() {
    every_kind_in(&PAX, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_entry_as_gnu() {
    every_kind_in(&["--format=gnu", "-S"], false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_entry_as_pax_with_each_sparse_format() {
    for version in ["0.0", "0.1", "1.0"] {
        let version = format!("--sparse-version={version}");
        every_kind_in(&[&PAX[..], &["-S", &version]].concat(), true).await;
    }
}
