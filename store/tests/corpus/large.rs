//! Layers that are large in one way or another.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::forms::{forms, images_are_sound};
use crate::kinds::{PAX, tar};
use crate::manifest::Manifest;
use crate::smith::Tar;
use crate::trip::{Source, becomes, extract, gnu_tar, is_mounted_as};

const ENTRIES: usize = 100_000;

/// A Debian root, as `tests/src/fixtures.rs` keeps it; a machine without it makes a smaller one.
fn debian() -> PathBuf {
    let cache = Path::new("/var/cache/orlop-tests");
    let whole = cache.join("debian-bookworm-node.tar");
    if whole.exists() {
        return whole;
    }
    let archive = cache.join("debian-bookworm.tar");
    if !archive.exists() {
        fs::create_dir_all(cache).unwrap();
        debootstrap(&archive);
    }
    archive
}

/// The archive appears whole or not at all.
fn debootstrap(archive: &Path) {
    let work = tempfile::tempdir_in("/var/tmp").unwrap();
    let (root, partial) = (work.path().join("root"), archive.with_extension("partial"));
    let made = Command::new("debootstrap")
        .args(["--variant=minbase", "bookworm"])
        .arg(&root)
        .stdout(Stdio::null())
        .status();
    assert!(made.expect("install debootstrap").success());
    let packed = Command::new("tar")
        .args(["--numeric-owner", "--xattrs", "-cf"])
        .arg(&partial)
        .arg("-C")
        .arg(&root)
        .arg(".")
        .status();
    assert!(packed.unwrap().success());
    fs::rename(partial, archive).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_debian_root() {
    let directory = tempfile::tempdir().unwrap();
    let archive = debian();
    extract(&archive, directory.path(), &[]);
    let expected = Manifest::of(directory.path());
    let layer = fs::read(archive).unwrap();
    let untimed = |manifest: Manifest| manifest.untimed(&[""]);
    becomes(Source::Layers(&[layer]), &expected, untimed).await;
}

/// One of each kind of entry in turn; what is made of it is told by its number.
fn member(tar: Tar, number: usize) -> Tar {
    let path = format!("many/{}", name(number));
    match number % 8 {
        0 => tar.file(&path, b"a few bytes"),
        1 => tar.directory(&path, 0o700),
        2 => tar.hard_link(&path, &format!("many/{}", name(0))),
        _ => tar.symlink(&path, "target"),
    }
}

fn name(number: usize) -> String {
    format!("{number:05}-{}", "n".repeat(number % 40))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_entries_in_one_directory() {
    let start = Tar::new().directory("./", 0o755).directory("many", 0o755);
    let layer = [(0..ENTRIES).fold(start, member).end()];
    for form in forms() {
        let (client, tree) = Source::Layers(&layer).mounted(form).await;
        let found = Manifest::of(tree.path());
        assert_eq!(found.0.len(), ENTRIES + 2);
        for number in 0..ENTRIES {
            let node = &found.0[OsStr::new(&format!("many/{}", name(number)))];
            let (kind, size, target) = match number % 8 {
                0 | 2 => (0o100_644, 11, ""),
                1 => (0o040_700, 0, ""),
                _ => (0o120_777, 0, "target"),
            };
            let seen = (node.mode, node.size, node.target.as_os_str());
            assert_eq!(seen, (kind, size, OsStr::new(target)), "{number}");
            assert_eq!(node.same_as.is_some(), number == 0 || number % 8 == 2);
        }
        images_are_sound(&client.service.state(), form);
    }
}

/// Its holes are in the archive as such: in the formats of PAX with numbers of any length, in GNU's
/// own with numbers of base 256.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_more_than_8_gib() {
    let directory = tempfile::tempdir().unwrap();
    let file = File::create(directory.path().join("large")).unwrap();
    for at in [0, 5 << 30, (9 << 30) - 3] {
        file.write_all_at(b"piece", at).unwrap();
    }
    for format in [&["--format=gnu", "-S"][..], &[&PAX[..], &["-S"]].concat()] {
        let layer = tar(directory.path(), format);
        let expected = gnu_tar(&layer);
        is_mounted_as(Source::Layers(&[layer]), &expected).await;
    }
}
