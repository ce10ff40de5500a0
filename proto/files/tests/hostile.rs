//! Archives and trees that are made to hurt whoever takes them.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use orlop_files::{CopyError, Kind, Root, Source, Target, Unpacking, pack, unpack};
use rustix::fs::{CWD, FileType, Mode};
use tar::{Builder, EntryType, Header};

/// A directory to unpack into, beside one that nothing may touch.
struct Ground {
    directory: tempfile::TempDir,
}

impl Ground {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["into", "canary"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        fs::write(directory.path().join("canary/secret"), "untouched").unwrap();
        Self { directory }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn canary(&self) -> String {
        self.path("canary").display().to_string()
    }

    /// Unpacks what is said to be a directory called `top`.
    fn unpack(&self, archive: &[u8]) -> Result<u64, CopyError> {
        let into = self.path("into");
        let root = Root::of_host().unwrap();
        let path = into.as_os_str().as_bytes();
        let target = Target::find(root, path, Kind::Directory, b"top")?;
        let how = Unpacking {
            top: b"top".to_vec(),
            owners: true,
        };
        unpack(archive, &target.without_links()?, &how)
    }

    #[track_caller]
    fn assert_untouched(&self) {
        let secret = fs::read_to_string(self.path("canary/secret")).unwrap();
        assert_eq!(secret, "untouched");
        assert_eq!(fs::metadata(self.path("canary/secret")).unwrap().nlink(), 1);
        assert_eq!(fs::read_dir(self.path("canary")).unwrap().count(), 1);
        let count = fs::read_dir(self.directory.path()).unwrap().count();
        assert_eq!(count, 2, "something is beside the target");
    }
}

/// A member with its names as they are given.
fn member(kind: EntryType, name: &str, link: &str, data: &[u8]) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o755);
    header.set_size(data.len() as u64);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1);
    let old = header.as_old_mut();
    old.name[..name.len()].copy_from_slice(name.as_bytes());
    old.linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_cksum();
    let mut tar = Builder::new(Vec::new());
    tar.append(&header, data).unwrap();
    let mut bytes = tar.into_inner().unwrap();
    bytes.truncate(bytes.len() - 1024);
    bytes
}

fn file(name: &str) -> Vec<u8> {
    member(EntryType::Regular, name, "", b"evil")
}

fn directory(name: &str) -> Vec<u8> {
    member(EntryType::Directory, name, "", b"")
}

#[test]
fn a_directory_that_went_away_after_it_was_found_is_not_made_again() {
    let ground = Ground::new();
    let into = ground.path("into");
    let root = Root::of_host().unwrap();
    let path = into.as_os_str().as_bytes();
    let target = Target::find(root, path, Kind::Contents, b".").unwrap();
    fs::remove_dir(&into).unwrap();
    let how = Unpacking {
        top: b".".to_vec(),
        owners: true,
    };
    for archive in [file("f"), directory("d"), file("a/b/f")] {
        let refused = unpack(archive.as_slice(), &target, &how).unwrap_err();
        assert!(refused.to_string().contains("into"), "{refused}");
        assert!(!into.exists());
    }
}

#[test]
fn a23_an_archive_of_a_hostile_container_stays_below_its_target() {
    type Case = (&'static str, fn(&Ground) -> Vec<Vec<u8>>);
    let cases: [Case; 9] = [
        ("up", |_| vec![file("top/../../canary/secret")]),
        ("up at once", |_| vec![file("../canary/secret")]),
        ("from the root", |ground| {
            vec![file(&format!("{}/new", ground.canary()))]
        }),
        ("through a link", |ground| {
            let link = member(EntryType::Symlink, "top/out", &ground.canary(), b"");
            vec![link, file("top/out/new")]
        }),
        ("through a link in place of the top", |ground| {
            let link = member(EntryType::Symlink, "top", &ground.canary(), b"");
            vec![link, file("top/new")]
        }),
        ("a directory over a link", |ground| {
            let link = member(EntryType::Symlink, "top/out", &ground.canary(), b"");
            vec![link, directory("top/out/")]
        }),
        ("one more name of a file outside", |_| {
            vec![member(EntryType::Link, "top/x", "../canary/secret", b"")]
        }),
        ("one more name of it, through a link", |ground| {
            let link = member(EntryType::Symlink, "top/out", &ground.canary(), b"");
            let hard = member(EntryType::Link, "top/x", "top/out/secret", b"");
            vec![link, hard]
        }),
        ("something else", |_| vec![file("other")]),
    ];
    for (name, members) in cases {
        let ground = Ground::new();
        let archive = members(&ground).concat();
        let error = ground.unpack(&archive).unwrap_err();
        assert!(
            matches!(error, CopyError::Refused { .. }),
            "{name}: {error}"
        );
        ground.assert_untouched();
    }
}

#[test]
fn a_link_is_replaced_and_never_written_through() {
    let ground = Ground::new();
    let secret = format!("{}/secret", ground.canary());
    let link = member(EntryType::Symlink, "top/out", &secret, b"");
    let archive = [directory("top/"), link, file("top/out")].concat();
    ground.unpack(&archive).unwrap();
    ground.assert_untouched();
    assert_eq!(
        fs::read_to_string(ground.path("into/top/out")).unwrap(),
        "evil"
    );
    // One that was there before is the caller's, and no directory.
    let ground = Ground::new();
    symlink(ground.path("canary"), ground.path("into/top")).unwrap();
    let archive = [directory("top/"), file("top/new")].concat();
    let error = ground.unpack(&archive).unwrap_err();
    assert!(error.to_string().contains("non-directory"), "{error}");
    ground.assert_untouched();
}

#[test]
fn devices_and_nameless_tops_are_refused() {
    let ground = Ground::new();
    for kind in [EntryType::Char, EntryType::Block] {
        let archive = [directory("top/"), member(kind, "top/sda", "", b"")].concat();
        let error = ground.unpack(&archive).unwrap_err();
        assert!(error.to_string().contains("device"), "{error}");
    }
    for name in [&b".."[..], b".", b"", b"a/b", b"a\0b"] {
        let path = ground.path("into");
        let path = path.as_os_str().as_bytes();
        let found = Target::find(Root::of_host().unwrap(), path, Kind::File, name);
        assert!(matches!(found, Err(CopyError::Refused { .. })), "{name:?}");
    }
}

/// The device is one of the test's own, in its directory: `1, 3`, as `/dev/null`.
#[test]
fn a_device_that_is_there_stays_a_device() {
    let ground = Ground::new();
    fs::create_dir(ground.path("into/top")).unwrap();
    let device = ground.path("into/top/null");
    let kind = FileType::CharacterDevice;
    let number = rustix::fs::makedev(1, 3);
    rustix::fs::mknodat(CWD, &device, kind, Mode::from_raw_mode(0o666), number).unwrap();
    let link = ground.path("into/link");
    symlink(&device, &link).unwrap();
    for path in [&device, &link] {
        let path = path.as_os_str().as_bytes();
        let found = Target::find(Root::of_host().unwrap(), path, Kind::File, b"null");
        assert!(found.unwrap_err().to_string().contains("device"));
    }
    for member in [
        file("top/null"),
        member(EntryType::Symlink, "top/null", "x", b""),
    ] {
        let error = ground.unpack(&member).unwrap_err();
        assert!(error.to_string().contains("device"), "{error}");
    }
    assert!(
        fs::symlink_metadata(&device)
            .unwrap()
            .file_type()
            .is_char_device()
    );
}

#[test]
fn headers_without_a_bound_or_with_two_meanings_are_errors() {
    let ground = Ground::new();
    let pax = |records: &[u8]| {
        let header = member(EntryType::XHeader, "pax", "", records);
        [directory("top/"), header, file("top/x")].concat()
    };
    let long = vec![b'a'; 2 << 20];
    for (name, archive) in [
        (
            "a long name",
            member(EntryType::GNULongName, "x", "", &long),
        ),
        (
            "too long a path",
            [
                member(EntryType::GNULongName, "x", "", &long[..5000]),
                file("x"),
            ]
            .concat(),
        ),
        ("no record", pax(b"nonsense\n")),
        ("a wrong length", pax(b"99 path=top/y\n")),
        ("two sizes", pax(b"9 size=7\n")),
        ("a sparse file", pax(b"22 GNU.sparse.major=1\n")),
        (
            "an unknown kind",
            member(EntryType::new(b'Z'), "top/x", "", b""),
        ),
        ("no archive", vec![7; 2048]),
        ("half a member", file("top/x")[..514].to_vec()),
    ] {
        let error = ground.unpack(&archive).unwrap_err();
        let expected = matches!(error, CopyError::Archive(_) | CopyError::Stream(_));
        assert!(expected, "{name}: {error:?}");
    }
    ground.assert_untouched();
}

#[test]
fn a_tree_survives_the_way_there_and_back() {
    let ground = Ground::new();
    let top = ground.path("canary/../from");
    fs::create_dir(&top).unwrap();
    let at = |name: &str| top.join(name);
    let deep = at(&"d".repeat(200)).join("e".repeat(200));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("f".repeat(90)), "deep").unwrap();
    fs::write(at("file"), vec![3; 300_000]).unwrap();
    fs::hard_link(at("file"), at("twin")).unwrap();
    symlink("x".repeat(300), at("long")).unwrap();
    symlink("./a//b/", at("odd")).unwrap();
    let raw = OsStr::from_bytes(b"\xff\n");
    fs::write(top.join(raw), "raw").unwrap();
    fs::set_permissions(&deep, fs::Permissions::from_mode(0o500)).unwrap();
    let root = Root::of_host().unwrap();
    let source = Source::find(&root, top.as_os_str().as_bytes(), false).unwrap();
    let mut archive = Vec::new();
    let packed = pack(&source, &|_, _| false, &mut archive).unwrap();
    let to = ground.path("into/new");
    let target = Target::find(root, to.as_os_str().as_bytes(), source.kind, &source.name);
    let how = Unpacking {
        top: source.name.clone(),
        owners: false,
    };
    let target = target.unwrap().without_links().unwrap();
    assert_eq!(unpack(archive.as_slice(), &target, &how).unwrap(), packed);
    assert_eq!(listed(&top), listed(&to));
    assert_eq!(fs::metadata(to.join("twin")).unwrap().nlink(), 2);
    assert_eq!(
        fs::read_link(to.join("odd"))
            .unwrap()
            .into_os_string()
            .into_vec(),
        b"./a//b/"
    );
}

/// Every path with its mode, size, link and time.
fn listed(top: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut todo = vec![top.to_owned()];
    while let Some(directory) = todo.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let (mode, time) = (meta.mode(), meta.mtime());
            let size = if meta.is_dir() { 0 } else { meta.size() };
            let link = fs::read_link(&path).ok();
            let name = path.strip_prefix(top).unwrap();
            found.push(format!("{name:?} {mode:o} {size} {time} {link:?}"));
            if meta.is_dir() {
                todo.push(path);
            }
        }
    }
    found.sort();
    found
}
