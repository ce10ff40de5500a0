//! Layers as EROFS images: the kernel mounts what is written, and the tree is the one that the
//! directory form has.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::fs::{self, File};
use std::path::Path;

use orlop_proto::error::Classify as _;
use orlop_store::StoreError;
use orlop_store::layers::apply::Attributes;
use orlop_store::layers::erofs::ImageWriter;
use orlop_store::layers::tar::Time;
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

/// The tree of a layer in either form.
fn both(tar: &[u8]) -> [forms::Tree; 2] {
    let (directory, _) = forms::directory(tar).unwrap();
    let image = look(&Image::of(tar).unwrap().mount().path());
    [look(directory.path()), image]
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
fn a_directory_keeps_its_times_when_the_link_that_led_to_it_goes() {
    let tree = good(
        &Tar::new()
            .symlink("way", "real")
            .directory("way/there", 0o750)
            .file("way", b"no link any more")
            .file("real/there/f", b"")
            .end(),
    );
    assert!(tree.contains_key(Path::new("real/there/f")));
    good(
        &Tar::new()
            .directory("real/there", 0o750)
            .directory("way/there", 0o700)
            .symlink("way", "real")
            .end(),
    );
}

#[test]
fn links_of_others_in_sticky_directories_are_followed_whatever_the_host_says() {
    let mut link = header(b'2', b"tmp/way", "to", 0o777, 0);
    link[108..115].copy_from_slice(b"0000007");
    seal(&mut link);
    let tree = good(
        &Tar::new()
            .directory("tmp", 0o1777)
            .raw(&link, b"")
            .file("tmp/way/f", b"")
            .hard_link("also", "tmp/way/f")
            .end(),
    );
    assert_eq!(tree[Path::new("tmp/to/f")].links, 2);
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

/// As `lchown(2)` takes it.
#[test]
fn an_owner_of_minus_one_is_no_owner() {
    let records: &[(&str, &[u8])] = &[("uid", b"4294967295"), ("gid", b"4294967295")];
    let tar = Tar::new().pax(records).file("f", b"").end();
    for tree in both(&tar) {
        assert_eq!(tree[Path::new("f")].owner, (0, 0));
    }
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
    for tree in both(&tar) {
        for path in ["d/implicit", "d/implicit/f"] {
            let seen = &tree[Path::new(path)];
            assert_eq!((seen.owner, seen.xattrs.len()), ((0, 0), 0));
        }
    }
}
