//! Layers that are large in one way or another.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::kinds::{PAX, tar};
use crate::manifest::Manifest;
use crate::smith::{Tar, header};
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
        let partial = tempfile::NamedTempFile::new_in(cache).unwrap();
        let made = Command::new("debootstrap")
            .args(["--variant=minbase", "bookworm"])
            .args([
                Path::new("/dev/null"),
                Path::new("http://deb.debian.org/debian"),
            ])
            .status();
        assert!(made.expect("install debootstrap").success());
        partial.persist(&archive).unwrap();
    }
    archive
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

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_entries_in_one_directory() {
    let mut tar = Tar::new().directory("./", 0o755).directory("many", 0o755);
    for number in 0..ENTRIES {
        let name = format!("many/{number:05}-{}", "n".repeat(number % 40));
        tar = match number % 4 {
            0 => tar.raw(&header(b'2', name.as_bytes(), "target", 0o777, 0), b""),
            1 => tar.file(&name, b"a few bytes"),
            2 => tar.directory(&name, 0o700),
            _ => tar.hard_link(&name, "many/00001-n"),
        };
    }
    let layer = tar.end();
    let expected = gnu_tar(&layer);
    is_mounted_as(Source::Layers(&[layer]), &expected).await;
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
