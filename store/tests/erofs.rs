//! Layers as EROFS images: the kernel mounts what is written, and the tree is the one that the
//! directory form has.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use orlop_proto::error::Classify as _;
use orlop_store::StoreError;
use orlop_store::layers::apply::Attributes;
use orlop_store::layers::entry::decide;
use orlop_store::layers::erofs::ImageWriter;
use orlop_store::layers::tar::{TarReader, Time};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsOpenFlags, fsconfig_create, fsconfig_set_string, fsopen};

#[path = "erofs/forms.rs"]
mod forms;
#[path = "support/smith.rs"]
mod smith;
use forms::{Image, Mount, What, compare, good, look};
use smith::{Tar, header, seal};

const DEBIAN: &str = "/var/cache/orlop-tests/debian-bookworm-node.tar";

fn refused(tar: &[u8]) -> StoreError {
    let directory = forms::directory(tar).unwrap_err();
    let image = Image::of(tar).unwrap_err();
    assert_eq!(image.kind(), directory.kind());
    image
}

fn device(flag: u8, name: &str, major: u32, minor: u32) -> [u8; 512] {
    let mut block = header(flag, name.as_bytes(), "", 0o660, 0);
    block[329..336].copy_from_slice(format!("{major:07o}").as_bytes());
    block[337..344].copy_from_slice(format!("{minor:07o}").as_bytes());
    seal(&mut block);
    block
}

#[test]
fn an_empty_layer_is_an_empty_directory() {
    let tree = good(&Tar::new().end());
    assert_eq!(tree.len(), 1);
}

#[test]
fn every_kind_of_entry_arrives() {
    let tar = Tar::new()
        .directory("./", 0o755)
        .directory("d", 0o1777)
        .file("d/empty", b"")
        .file_mode("d/setuid", 0o6755, &[7; 100])
        .file("d/block", &[1; 4096])
        .file("d/tail", &[2; 4096 + 1000])
        .file("d/long tail", &[3; 8192 + 3000])
        .symlink("d/link", "../nowhere")
        .hard_link("hard", "d/tail")
        .hard_link("hard link of a link", "d/link")
        .kind(b'6', "fifo")
        .raw(&device(b'3', "null", 1, 3), b"")
        .raw(&device(b'4', "disk", 0o7777, 0o3777777), b"")
        .raw(&device(b'3', "whiteout by hand", 0, 0), b"")
        .file("d/.wh.gone", b"")
        .file("d/.wh..wh..opq", b"")
        .pax(&[
            ("mtime", b"1500000000.123456789"),
            ("uid", b"4000000000"),
            ("gid", b"70000"),
        ])
        .file("exact", b"x")
        .pax(&[("mtime", b"-1.5")])
        .file("old", b"x")
        .end();
    let tree = good(&tar);
    assert_eq!(tree.len(), 17);
    assert_eq!(
        tree[Path::new("exact")].mtime,
        Some((1_500_000_000, 123_456_789))
    );
    assert_eq!(tree[Path::new("exact")].owner, (4_000_000_000, 70_000));
    assert_eq!(tree[Path::new("hard")].links, 2);
    assert_eq!(tree[Path::new("d/gone")].what, What::Whiteout);
}

#[test]
fn attributes_arrive_as_the_kernel_would_set_them() {
    let capability = [&[1, 0, 0, 2][..], &[0xff; 16]].concat();
    let records: &[(&str, &[u8])] = &[
        ("SCHILY.xattr.user.a", b"1"),
        ("SCHILY.xattr.user.empty", b""),
        ("SCHILY.xattr.trusted.b", b"\0\xff\n"),
        ("SCHILY.xattr.security.capability", &capability),
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ("SCHILY.xattr.user.overlay.redirect", b"/"),
        ("SCHILY.xattr.unknown.c", b"3"),
        ("SCHILY.xattr.trusted.long", &[b'v'; 3000]),
    ];
    let tar = Tar::new()
        .pax(records)
        .file("file", b"x")
        .pax(&records[..3])
        .directory("directory", 0o755)
        .pax(&[("SCHILY.xattr.user.a", b"2"), ("SCHILY.xattr.user.d", b"4")])
        .directory("directory", 0o700)
        .pax(&records[..3])
        .symlink("link", "file")
        .pax(&records[..3])
        .kind(b'6', "fifo")
        .end();
    let tree = good(&tar);
    let names = |path: &str| tree[Path::new(path)].xattrs.len();
    assert_eq!(names("file"), 5);
    assert_eq!(names("directory"), 4);
    assert_eq!((names("link"), names("fifo")), (1, 1));
}

#[test]
fn attributes_that_the_kernel_refuses_are_refused() {
    let of = |name: &str, value: &[u8]| Tar::new().pax(&[(name, value)]).file("f", b"").end();
    refused(&of("SCHILY.xattr.security.capability", b"short"));
    refused(&of("SCHILY.xattr.user.", b"no name"));
    refused(&of(
        &format!("SCHILY.xattr.user.{}", "n".repeat(251)),
        b"long name",
    ));
    refused(&of("SCHILY.xattr.trusted.big", &vec![0; 65_537]));
    refused(&of(
        "SCHILY.xattr.system.posix_acl_access",
        b"\x02\0\0\0not one!",
    ));
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
fn links_of_all_lengths_are_read_back() {
    let mut tar = Tar::new();
    for length in [1, 59, 60, 61, 1000, 4000, 4031, 4032, 4033, 4095] {
        let target = "t".repeat(length);
        let name = format!("l{length}");
        tar = tar
            .pax(&[("linkpath", target.as_bytes())])
            .symlink(&name, "");
        let name = format!("with attributes {length}");
        let records = [
            ("linkpath", target.as_bytes()),
            ("SCHILY.xattr.trusted.a", &[b'v'; 50]),
        ];
        tar = tar.pax(&records).symlink(&name, "");
    }
    let tree = good(&tar.end());
    assert_eq!(tree.len(), 21);
    let long = "t".repeat(4096);
    refused(
        &Tar::new()
            .pax(&[("linkpath", long.as_bytes())])
            .symlink("l", "")
            .end(),
    );
}

#[test]
fn names_are_any_bytes_up_to_255() {
    let mut tar = Tar::new();
    for name in [
        &b"\xff\xfe"[..],
        b"!",
        b"-",
        b".-",
        b".a",
        b"...",
        b"a\nb",
        b"\x01",
        b"/~",
    ] {
        tar = tar.raw(&header(b'0', name, "", 0o644, 0), b"");
    }
    let longest = "n".repeat(255);
    let tree = good(
        &tar.pax(&[("path", longest.as_bytes())])
            .file("", b"x")
            .end(),
    );
    assert_eq!(tree.len(), 11);
    let long = "n".repeat(256);
    for path in [long.clone(), format!("{long}/f"), format!(".wh.{long}")] {
        for flag in [b'0', b'1', b'2', b'5', b'6'] {
            let header = header(flag, b"x", "y", 0o644, 0);
            let tar = Tar::new().file("y", b"").pax(&[("path", path.as_bytes())]);
            let error = refused(&tar.raw(&header, b"").end());
            let StoreError::Tree { source, .. } = error else {
                panic!("{error:?}");
            };
            assert_eq!(source.kind(), std::io::ErrorKind::InvalidFilename);
        }
    }
    let deep = "d/".repeat(2050);
    refused(
        &Tar::new()
            .pax(&[("path", deep.as_bytes())])
            .file("", b"")
            .end(),
    );
}

#[test]
fn a20_links_on_the_way_are_followed_inside_the_root() {
    let tree = good(
        &Tar::new()
            .symlink("var/run", "/run")
            .file("var/run/pid", b"1")
            .symlink("up", "../../../etc/./x/..")
            .file("up/passwd", b"2")
            .symlink("chain", "var/run/..")
            .directory("chain/made", 0o700)
            .hard_link("chain/hard", "up/passwd")
            .file("var/run/.wh.old", b"")
            .file("up/.wh..wh..opq", b"")
            .end(),
    );
    assert_eq!(tree[Path::new("hard")].links, 2);
    assert_eq!(tree[Path::new("run/old")].what, What::Whiteout);
    assert!(
        tree[Path::new("etc")]
            .xattrs
            .contains_key(&b"trusted.overlay.opaque"[..])
    );
}

#[test]
fn what_cannot_be_followed_is_refused() {
    refused(&Tar::new().file("f", b"").file("f/below", b"").end());
    refused(
        &Tar::new()
            .file("f", b"")
            .symlink("l", "f")
            .file("l/below", b"")
            .end(),
    );
    refused(
        &Tar::new()
            .symlink("a", "b")
            .symlink("b", "a")
            .file("a/f", b"")
            .end(),
    );
    refused(&Tar::new().hard_link("h", "missing").end());
    refused(&Tar::new().directory("d", 0o755).hard_link("h", "d").end());
    refused(&Tar::new().file("d/f", b"").hard_link("d", "d/f").end());
    refused(
        &Tar::new()
            .symlink("l", "d")
            .file("d/f", b"")
            .hard_link("l/f", "d/f")
            .end(),
    );
    let chain = |length: usize| {
        let mut tar = Tar::new().directory("l0", 0o755);
        for n in 1..=length {
            tar = tar.symlink(&format!("l{n}"), &format!("l{}", n - 1));
        }
        tar.file(&format!("l{length}/f"), b"").end()
    };
    good(&chain(40));
    refused(&chain(41));
}

#[test]
fn a_later_member_replaces_an_earlier_one() {
    let tree = good(
        &Tar::new()
            .file("f", b"one")
            .hard_link("other", "f")
            .file("f", b"two")
            .directory("d", 0o700)
            .file("d/x/y", b"gone")
            .symlink("d", "e")
            .file("d/z", b"in e")
            .file("e/sub/deep", b"")
            .file("e/sub", b"no directory any more")
            .directory("keeps", 0o700)
            .file("keeps/f", b"")
            .directory("keeps", 0o755)
            .file(".wh.hidden", b"")
            .directory("hidden", 0o755)
            .file(".wh.both", b"")
            .file("both", b"")
            .directory("opaque", 0o755)
            .file(".wh.opaque", b"")
            .end(),
    );
    assert_eq!(tree[Path::new("other")].links, 1);
    assert_eq!(tree[Path::new("opaque")].xattrs.len(), 1);
    assert_eq!(tree[Path::new("hidden")].xattrs.len(), 1);
}

#[test]
fn the_debian_tree_is_the_same_in_both_forms() {
    if Path::new(DEBIAN).exists() {
        let tree = compare(|| Box::new(File::open(DEBIAN).unwrap())).unwrap();
        assert!(tree.len() > 5000);
    }
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

/// What the lists say goes before what the mode says, also when a later member says another mode.
#[test]
fn access_lists_arrive_and_agree_with_the_mode() {
    let list = |entries: &[(u16, u16, u32)]| {
        let mut value = 2_u32.to_le_bytes().to_vec();
        for (tag, permissions, id) in entries {
            value.extend([tag.to_le_bytes(), permissions.to_le_bytes()].concat());
            value.extend(id.to_le_bytes());
        }
        value
    };
    let named = list(&[
        (1, 7, 9),
        (2, 6, 1000),
        (4, 5, 9),
        (8, 1, 5),
        (16, 5, 9),
        (32, 1, 9),
    ]);
    let plain = list(&[(1, 6, 0), (4, 4, 0), (32, 0, 0)]);
    let access = "SCHILY.xattr.system.posix_acl_access";
    let default = "SCHILY.xattr.system.posix_acl_default";
    let tar = Tar::new()
        .pax(&[(access, &named)])
        .file_mode("file", 0o4640, b"x")
        .pax(&[(access, &plain)])
        .file_mode("plain", 0o777, b"x")
        .pax(&[(access, &named)])
        .symlink("link", "file")
        .pax(&[(access, &named)])
        .kind(b'6', "fifo")
        .pax(&[(access, &named), (default, &named)])
        .directory("directory", 0o700)
        .directory("directory", 0o752)
        .pax(&[(access, &named)])
        .directory("taken back", 0o700)
        .pax(&[(access, b"")])
        .directory("taken back", 0o711)
        .end();
    let tree = good(&tar);
    let of = |path: &str| {
        (
            tree[Path::new(path)].mode & 0o7777,
            tree[Path::new(path)].xattrs.len(),
        )
    };
    assert_eq!(of("file"), (0o4751, 1));
    assert_eq!(of("plain"), (0o640, 0));
    assert_eq!(of("link").1, 0);
    assert_eq!(of("directory"), (0o752, 2));
    assert_eq!(of("taken back"), (0o711, 0));
    refused(&Tar::new().pax(&[(default, &named)]).file("f", b"").end());
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

#[test]
fn the_same_tar_gives_the_same_bytes() {
    let tar = |last: &[u8]| {
        let tar = Tar::new().directory("d", 0o755).file("d/f", &[1; 9000]);
        tar.symlink("l", "d")
            .hard_link("h", "d/f")
            .file("z", last)
            .end()
    };
    let bytes = |tar: &[u8]| fs::read(Image::of(tar).unwrap().path()).unwrap();
    let (one, other) = (bytes(&tar(b"1")), bytes(&tar(b"2")));
    assert!(one == bytes(&tar(b"1")));
    let uuid = |image: &[u8]| image[1024 + 0x30..1024 + 0x40].to_vec();
    assert_ne!(uuid(&one), uuid(&other));
}

#[test]
fn implicit_directories_take_what_they_are_told() {
    let tar = Tar::new()
        .file("usr/lib/x/f", b"")
        .directory("usr/lib", 0o755)
        .file("etc/f", b"")
        .end();
    let like = Attributes {
        uid: 5,
        gid: 6,
        mode: 0o2750,
        mtime: Time {
            seconds: 7,
            nanos: 8,
        },
    };
    let describe = |writer: &mut ImageWriter| {
        let paths: [&[u8]; 4] = [b"", b"etc", b"usr", b"usr/lib/x"];
        assert_eq!(writer.implicit(), paths);
        let xattrs = [(b"user.a".to_vec(), b"1".to_vec())];
        writer.describe(b"usr/lib/x", &like, &xattrs).unwrap();
        writer.describe(b"", &like, &[]).unwrap();
        writer.describe(b"nowhere", &like, &[]).unwrap_err();
    };
    let image = Image::with(&*tar, describe).unwrap();
    image.check();
    let tree = look(&image.mount().path());
    for path in ["", "usr/lib/x"] {
        let seen = &tree[Path::new(path)];
        assert_eq!((seen.mode, seen.owner), (0o42750, (5, 6)));
        assert_eq!(seen.mtime, Some((7, 8)));
        assert_eq!(seen.xattrs.len(), usize::from(!path.is_empty()));
    }
    let etc = &tree[Path::new("etc")];
    assert_eq!(
        (etc.mode, etc.owner, etc.mtime),
        (0o40755, (0, 0), Some((0, 0)))
    );
}

#[test]
fn overlayfs_honours_whiteouts_and_opaque_directories_of_images() {
    let below = Tar::new()
        .file("gone", b"")
        .file("stays", b"below")
        .file("opaque/old", b"")
        .file("hidden/old", b"")
        .directory("tree/sub", 0o755)
        .end();
    let above = Tar::new()
        .file(".wh.gone", b"")
        .file("opaque/.wh..wh..opq", b"")
        .file("opaque/new", b"")
        .file(".wh.hidden", b"")
        .directory("hidden", 0o700)
        .file(".wh.tree", b"")
        .end();
    let layers = [above, below].map(|tar| Image::of(&*tar).unwrap().mount());
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    for layer in &layers {
        fsconfig_set_string(&context, "lowerdir+", layer.path()).unwrap();
    }
    fsconfig_create(&context).unwrap();
    let tree = look(&Mount::of(context).path());
    let paths: Vec<&str> = tree.keys().map(|path| path.to_str().unwrap()).collect();
    assert_eq!(paths, ["", "hidden", "opaque", "opaque/new", "stays"]);
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

/// As `lchown(2)` takes it.
#[test]
fn an_owner_of_minus_one_is_no_owner() {
    let records: &[(&str, &[u8])] = &[("uid", b"4294967295"), ("gid", b"4294967295")];
    let tar = Tar::new().pax(records).file("f", b"").end();
    let tree = look(&Image::of(&*tar).unwrap().mount().path());
    assert_eq!(tree[Path::new("f")].owner, (0, 0));
}

/// What a directory hands down to new files on a disk is not in the archive: neither its group nor
/// its default list.
#[test]
fn directories_hand_nothing_down() {
    let list = [
        &[2, 0, 0, 0][..],
        &[1, 0, 7, 0, 0, 0, 0, 0],
        &[4, 0, 7, 0, 0, 0, 0, 0],
    ]
    .concat();
    let list = [&list[..], &[32, 0, 7, 0, 0, 0, 0, 0]].concat();
    let tar = Tar::new()
        .pax(&[
            ("gid", b"50"),
            ("SCHILY.xattr.system.posix_acl_default", &list),
        ])
        .directory("d", 0o2775)
        .file("d/implicit/f", b"")
        .end();
    let tree = look(&Image::of(&*tar).unwrap().mount().path());
    for path in ["d/implicit", "d/implicit/f"] {
        let seen = &tree[Path::new(path)];
        assert_eq!((seen.owner, seen.xattrs.len()), ((0, 0), 0));
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
