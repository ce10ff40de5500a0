//! Images of what is deep, wide, large or mostly holes, and where they stop.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use orlop_store::StoreError;
use orlop_store::layers::entry::decide;
use orlop_store::layers::erofs::ImageWriter;
use orlop_store::layers::tar::TarReader;
use rustix::fs::{Mode, OFlags};

#[path = "erofs/forms.rs"]
mod forms;
#[path = "support/smith.rs"]
mod smith;
use forms::{Image, good, look};
use smith::Tar;

fn byte_at(offset: u64) -> u8 {
    u8::try_from(offset % 251).unwrap() + 1
}

fn sparse(name: &str, size: u64, pieces: &[(u64, u64)]) -> Vec<u8> {
    let mut map = format!("{}\n", pieces.len());
    for (offset, length) in pieces {
        map.push_str(&format!("{offset}\n{length}\n"));
    }
    let mut body = map.into_bytes();
    body.resize(body.len().next_multiple_of(512), 0);
    for (offset, length) in pieces {
        body.extend((*offset..offset + length).map(byte_at));
    }
    Tar::new()
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", name.as_bytes()),
            ("GNU.sparse.realsize", size.to_string().as_bytes()),
        ])
        .file("x", &body)
        .file("after", b"after")
        .end()
}

/// The directory form cannot hold as much: ext4 has a block for the attributes of one file.
#[test]
fn attributes_of_64_kib_fit_into_an_image_until_it_says_no() {
    let value = vec![b'v'; 65_535];
    let names: Vec<String> = (0..4)
        .map(|n| format!("SCHILY.xattr.trusted.n{n}"))
        .collect();
    let records: Vec<(&str, &[u8])> = names.iter().map(|n| (n.as_str(), &*value)).collect();
    let mut three = Tar::new();
    for name in ["a", "b"] {
        three = three.pax(&records[..3]).file(name, b"body");
    }
    let image = Image::of(&*three.end()).unwrap();
    image.check();
    let tree = look(&image.mount().path());
    for name in ["a", "b"] {
        let xattrs = &tree[Path::new(name)].xattrs;
        assert_eq!(xattrs.len(), 3);
        assert!(xattrs.values().all(|found| *found == value));
    }
    let five = [("SCHILY.xattr.user.x", &*value)]
        .into_iter()
        .chain(records);
    let five = Tar::new()
        .pax(&five.collect::<Vec<_>>())
        .file("f", b"")
        .end();
    let error = Image::of(&*five).unwrap_err();
    assert!(
        error.to_string().contains("bytes of extended attributes"),
        "{error}"
    );
}

#[test]
fn a_hundred_thousand_names_in_one_directory() {
    let mut tar = Tar::new().directory("d", 0o755);
    for n in 0..100_000 {
        tar = tar.file(&format!("d/entry number {n}"), b"");
    }
    let image = Image::of(&*tar.end()).unwrap();
    image.check();
    let mount = image.mount();
    let names = fs::read_dir(mount.path().join("d")).unwrap().count();
    assert_eq!(names, 100_000);
    for n in (0..100_000).step_by(997) {
        let path = mount.path().join(format!("d/entry number {n}"));
        assert_eq!(fs::metadata(path).unwrap().nlink(), 1);
    }
    fs::metadata(mount.path().join("d/entry number 100000")).unwrap_err();
}

/// Thirty links, each of which leads a thousand directories down. `fsck.erofs` goes no deeper than a
/// path.
#[test]
fn a_tree_deeper_than_any_stack_is_written_and_replaced() {
    let mut tar = Tar::new();
    let mut path = String::new();
    for n in 0..30 {
        let target = vec![n.to_string(); 1000].join("/");
        let name = format!("{path}l");
        let records = [("path", name.as_bytes()), ("linkpath", target.as_bytes())];
        tar = tar.pax(&records).symlink("", "");
        path.push_str("l/");
    }
    let tar = tar.file(&format!("{path}f"), b"bottom");
    let image = Image::of(&*tar.clone().end()).unwrap();
    let mount = image.mount();
    let mut at = mount.fd().try_clone().unwrap();
    for n in 0..30_000 {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        at = rustix::fs::openat(&at, (n / 1000).to_string(), flags, Mode::empty()).unwrap();
    }
    rustix::fs::statat(&at, "f", rustix::fs::AtFlags::empty()).unwrap();
    let image = Image::of(&*tar.file("0", b"no tree any more").end()).unwrap();
    image.check();
    assert_eq!(look(&image.mount().path()).len(), 3);
}

/// Data in the first and the last of 10 GiB and where two chunks meet, as GNU tar 1.0 says it.
#[test]
fn a_file_over_8_gib_is_read_back_and_its_holes_cost_nothing() {
    let gib: u64 = 1 << 30;
    let size = 10 * gib + 77;
    let pieces = [
        (0, 5000),
        (4 * gib - 100, 200),
        (4 * gib + 9000, 512),
        (9 * gib + 4096, 4096),
        (size - 10, 10),
    ];
    let image = Image::of(&*sparse("big", size, &pieces)).unwrap();
    image.check();
    let disk = fs::metadata(image.path()).unwrap().blocks() * 512;
    assert!(disk < 1 << 20, "{disk} bytes on disk");
    assert!(image.bytes < 64 << 20, "{} bytes long", image.bytes);
    assert_eq!(image.file_bytes, size + 5);
    let mount = image.mount();
    let file = File::open(mount.path().join("big")).unwrap();
    assert_eq!(file.metadata().unwrap().len(), size);
    for (offset, length) in pieces {
        let before = offset.saturating_sub(1000);
        let after = (offset + length + 1000).min(size);
        let mut bytes = vec![9; usize::try_from(after - before).unwrap()];
        file.read_exact_at(&mut bytes, before).unwrap();
        for (at, byte) in (before..).zip(bytes) {
            let inside = pieces.iter().any(|(o, l)| (*o..o + l).contains(&at));
            assert_eq!(byte, if inside { byte_at(at) } else { 0 }, "at {at}");
        }
    }
}

#[test]
fn sparse_files_of_all_shapes_are_the_same_in_both_forms() {
    let shapes: &[(u64, &[(u64, u64)])] = &[
        (0, &[]),
        (1, &[]),
        (1000, &[(10, 10)]),
        (4096, &[]),
        (5000, &[(4500, 500)]),
        (100_000, &[(0, 1), (99_999, 1)]),
        (100_000, &[(8191, 2), (20_000, 30_000)]),
        (1 << 20, &[(0, 4096), (4096, 4096)]),
        (20 << 20, &[(5000, 1), (6000, 3 << 20), (19 << 20, 600_000)]),
        (100 << 20, &[(99 << 20, 1)]),
        (
            40 << 20,
            &[
                (0, 1 << 20),
                ((1 << 20) + 1, 1 << 20),
                (30 << 20, 1),
                ((30 << 20) + 9000, 9000),
            ],
        ),
    ];
    for (size, pieces) in shapes {
        good(&sparse("f", *size, pieces));
    }
}

#[test]
fn i5_the_reserve_of_the_disk_and_the_bound_on_bytes_hold() {
    let write = |bytes_max, disk_reserve| {
        let file = tempfile::tempfile().unwrap();
        let mut writer = ImageWriter::new(file, bytes_max, disk_reserve)?;
        let tar = Tar::new().file("f", &[0; 5000]).file("g", &[0; 5000]).end();
        let mut tar = TarReader::new(&*tar);
        while let Some(member) = tar.next_member()? {
            writer.perform(decide(member)?, &mut tar)?;
        }
        writer.finish().map(drop)
    };
    write(10_000, 0).unwrap();
    let error = write(9_999, 0).unwrap_err();
    assert!(
        matches!(error, StoreError::LayerTooLarge { limit: 9_999 }),
        "{error:?}"
    );
    let error = write(10_000, 1 << 60).unwrap_err();
    assert!(matches!(error, StoreError::DiskReserve { .. }), "{error:?}");
}

/// So many ends of files that most get a block of their own.
#[test]
fn small_files_without_end_are_read_back() {
    let mut tar = Tar::new();
    for n in 0..6000_u32 {
        tar = tar.file(&format!("d{}/f{n}", n % 7), &n.to_le_bytes().repeat(200));
    }
    let image = Image::of(&*tar.end()).unwrap();
    image.check();
    let mount = image.mount();
    for n in (0..6000_u32).step_by(13) {
        let path = mount.path().join(format!("d{}/f{n}", n % 7));
        assert_eq!(fs::read(path).unwrap(), n.to_le_bytes().repeat(200));
    }
}

#[test]
fn ends_of_files_are_whole_beside_attributes_of_all_sizes() {
    let mut tar = Tar::new();
    let sizes = || (2900..9000_usize).step_by(37);
    for size in sizes() {
        let name = size.to_string();
        let value = vec![b'v'; size];
        tar = tar.pax(&[("SCHILY.xattr.trusted.x", &value)]);
        tar = tar.file(&name, &name.as_bytes().repeat(250));
    }
    let image = Image::of(&*tar.end()).unwrap();
    image.check();
    let mount = image.mount();
    for size in sizes() {
        let name = size.to_string();
        let path = mount.path().join(&name);
        assert_eq!(
            fs::read(&path).unwrap(),
            name.as_bytes().repeat(250),
            "{name}"
        );
        let mut value = vec![0; 10_000];
        let length = rustix::fs::lgetxattr(&path, "trusted.x", &mut value).unwrap();
        assert_eq!(length, size);
    }
}

/// Two thousand directories of one member weigh more than their names.
#[test]
fn i5_a_tree_that_needs_too_much_memory_is_refused() {
    let mut writer = ImageWriter::new(tempfile::tempfile().unwrap(), 1 << 40, 0).unwrap();
    for n in 0..1000 {
        let path = format!("{n}{}f", "/d".repeat(2000));
        let bytes = Tar::new()
            .pax(&[("path", path.as_bytes())])
            .file("", b"")
            .cut();
        let mut tar = TarReader::new(&*bytes);
        let member = tar.next_member().unwrap().unwrap();
        let action = decide(member).unwrap();
        if let Err(error) = writer.perform(action, &mut tar) {
            assert!(matches!(error, StoreError::LayerTree { .. }), "{error:?}");
            return;
        }
    }
    panic!("two million directories were taken");
}
