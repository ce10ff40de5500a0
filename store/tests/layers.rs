//! Unpacking hostile and odd layers: nothing leaves the tree, and the tree is what Docker makes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::fs::{self, File};
use std::io::{Seek as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;

use orlop_store::StoreError;
use orlop_store::layers::apply::Applier;
use orlop_store::layers::compress::{Codec, Compressor};
use orlop_store::layers::decompress::Limits;
use orlop_store::layers::making::Making;
use orlop_store::layers::pack::{Hashing, pack};
use orlop_store::layers::root::Root;
use orlop_store::layers::unpack::{Unpacked, unpack};

#[path = "support/smith.rs"]
mod smith;
use smith::{Canary, Tar, header, seal};

struct Tree {
    directory: tempfile::TempDir,
    result: Result<Unpacked, StoreError>,
}

impl Tree {
    fn of(blob: &[u8]) -> Self {
        Self::with(blob, Limits::default())
    }

    fn with(blob: &[u8], limits: Limits) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("fs")).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(blob).unwrap();
        file.rewind().unwrap();
        let root = File::open(directory.path().join("fs")).unwrap();
        let result = into_tree(file, Root::new(root.into()), limits);
        Self { directory, result }
    }

    fn good(self) -> Self {
        if let Err(error) = &self.result {
            panic!("{}", orlop_proto::error::chain(error));
        }
        self
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join("fs").join(path)
    }

    fn read(&self, path: &str) -> Vec<u8> {
        fs::read(self.path(path)).unwrap()
    }

    fn pack(&self) -> (Vec<u8>, String) {
        let root = File::open(self.path("")).unwrap();
        let (hashing, _) = pack(root.as_fd(), None, Hashing::new(Vec::new())).unwrap();
        hashing.finish()
    }
}

fn into_tree(blob: File, root: Root, limits: Limits) -> Result<Unpacked, StoreError> {
    let applier = Applier::new(root, limits.plain_bytes, limits.disk_reserve);
    let mut making = Making::Tree(applier);
    let unpacked = unpack(blob, &mut making, limits)?;
    making.finish()?;
    Ok(unpacked)
}

#[test]
fn a1_symlink_then_file_below_it_stays_inside() {
    let canary = Canary::new();
    let blob = Tar::new()
        .symlink("x", canary.path())
        .file("x/f", b"evil")
        .file("x/new/deep", b"evil")
        .end();
    let tree = Tree::of(&blob).good();
    canary.sings();
    let inside = canary.path().trim_start_matches('/');
    assert_eq!(tree.read(&format!("{inside}/f")), b"evil");
    assert_eq!(tree.read(&format!("{inside}/new/deep")), b"evil");
}

#[test]
fn a2_absolute_symlinks_lead_to_the_root_of_the_tree() {
    let canary = Canary::new();
    let blob = Tar::new()
        .symlink("a", "/")
        .file(&format!("a{}/f", canary.path()), b"evil")
        .symlink("up", "../../../../../../../..")
        .file(&format!("up{}/d/g", canary.path()), b"evil")
        .end();
    let tree = Tree::of(&blob).good();
    canary.sings();
    let inside = canary.path().trim_start_matches('/');
    assert_eq!(tree.read(&format!("{inside}/f")), b"evil");
    assert_eq!(tree.read(&format!("{inside}/d/g")), b"evil");
}

#[test]
fn a5_i5_a_bomb_in_the_padding_is_capped() {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder
        .write_all(&Tar::new().file("f", b"x").end())
        .unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..256 {
        encoder.write_all(&zeros).unwrap();
    }
    let blob = encoder.finish().unwrap();
    let limits = Limits {
        plain_bytes: 128 << 20,
        ..Limits::default()
    };
    assert!(matches!(
        Tree::with(&blob, limits).result,
        Err(StoreError::LayerTooLarge { .. })
    ));
    let limits = Limits {
        ratio: 100,
        ratio_floor: 64 << 20,
        ..Limits::default()
    };
    assert!(matches!(
        Tree::with(&blob, limits).result,
        Err(StoreError::LayerRatio { .. })
    ));
    let unpacked = Tree::of(&blob).good().result.unwrap();
    assert_eq!(unpacked.bytes, 2048 + (256 << 20));
}

#[test]
fn a6_a_file_over_a_link_replaces_the_link() {
    let canary = Canary::new();
    let file = format!("{}/f", canary.path());
    let blob = Tar::new()
        .symlink("f", &file)
        .file("f", b"evil")
        .file("g", b"first")
        .hard_link("h", "g")
        .file("h", b"second")
        .end();
    let tree = Tree::of(&blob).good();
    canary.sings();
    assert_eq!(tree.read("f"), b"evil");
    assert_eq!(tree.read("g"), b"first");
    assert_eq!(tree.read("h"), b"second");

    let blob = Tar::new().hard_link("f", &file).file("f", b"evil").end();
    assert!(Tree::of(&blob).result.is_err());
    let blob = Tar::new()
        .hard_link("f", &format!("../../../../../..{file}"))
        .end();
    assert!(Tree::of(&blob).result.is_err());
    canary.sings();
}

#[test]
fn a8_a_mode_never_follows_a_link() {
    let canary = Canary::new();
    let blob = Tar::new()
        .symlink("s", &format!("{}/f", canary.path()))
        .raw(&header(b'1', b"h", "s", 0o777, 0), b"")
        .raw(
            &header(b'2', b"s2", &format!("{}/d", canary.path()), 0o4777, 0),
            b"",
        )
        .end();
    let tree = Tree::of(&blob).good();
    canary.sings();
    assert!(fs::symlink_metadata(tree.path("h")).unwrap().is_symlink());
}

#[test]
fn a9_the_root_is_never_replaced() {
    let canary = Canary::new();
    for name in [".", "/", "./", "a/.."] {
        for flag in [b'0', b'1', b'2', b'3', b'6'] {
            let blob = Tar::new()
                .raw(&header(flag, name.as_bytes(), canary.path(), 0o644, 0), b"")
                .file("f", b"evil")
                .end();
            let tree = Tree::of(&blob);
            assert!(tree.result.is_err(), "{name} {flag}");
            assert!(fs::symlink_metadata(tree.path("")).unwrap().is_dir());
        }
    }
    canary.sings();
    let tree = Tree::of(&Tar::new().directory("./", 0o750).end()).good();
    assert_eq!(fs::metadata(tree.path("")).unwrap().mode() & 0o7777, 0o750);
}

#[test]
fn a10_names_that_lead_out_are_refused() {
    let canary = Canary::new();
    let out = format!("../../../../../../../..{}", canary.path());
    for name in [
        "../evil".to_owned(),
        "a/../../evil".to_owned(),
        format!("{out}/f"),
    ] {
        let tree = Tree::of(&Tar::new().file(&name, b"evil").end());
        assert!(matches!(tree.result, Err(StoreError::Tar { .. })), "{name}");
        assert!(!tree.directory.path().join("evil").exists());
    }
    let whiteout = Tar::new().file("../.wh.fs", b"").end();
    assert!(Tree::of(&whiteout).result.is_err());
    canary.sings();
}

#[test]
fn a12_a16_the_size_of_pax_wins_over_that_of_ustar() {
    let inner = Tar::new().file("evil", b"evil").end();
    let size = inner.len().to_string();
    for stated in [0, 512] {
        let blob = Tar::new()
            .pax(&[("size", size.as_bytes())])
            .raw(&header(b'0', b"outer", "", 0o644, stated), &inner)
            .file("after", b"ok")
            .end();
        let tree = Tree::of(&blob).good();
        assert!(!tree.path("evil").exists());
        assert_eq!(tree.read("outer"), inner);
        assert_eq!(tree.read("after"), b"ok");
    }
}

#[test]
fn a13_a_directory_that_became_a_link_is_looked_up_again() {
    let canary = Canary::new();
    let blob = Tar::new()
        .directory("d", 0o755)
        .file("d/a", b"a")
        .symlink("d", canary.path())
        .file("d/f", b"evil")
        .end();
    let tree = Tree::of(&blob).good();
    canary.sings();
    assert!(fs::symlink_metadata(tree.path("d")).unwrap().is_symlink());
}

#[test]
fn a14_malformed_pax_records_are_errors() {
    for records in [&b"x\n"[..], b"12 path=abc", b"6 path\n", b"30 path=abc\n"] {
        let blob = Tar::new()
            .raw(&header(b'x', b"x", "", 0o644, records.len()), records)
            .file("f", b"")
            .end();
        assert!(
            matches!(Tree::of(&blob).result, Err(StoreError::Tar { .. })),
            "{records:?}"
        );
    }
}

#[test]
fn a17_a_directory_over_a_link_becomes_a_directory() {
    let canary = Canary::new();
    let blob = Tar::new()
        .symlink("d", &format!("{}/d", canary.path()))
        .directory("d", 0o777)
        .end();
    let tree = Tree::of(&blob).good();
    canary.sings();
    let meta = fs::symlink_metadata(tree.path("d")).unwrap();
    assert!(meta.is_dir());
    assert_eq!(meta.mode() & 0o7777, 0o777);
}

#[test]
fn a20_links_within_the_root_work() {
    let blob = Tar::new()
        .directory("run", 0o755)
        .directory("var", 0o755)
        .symlink("var/run", "/run")
        .file("var/run/pid", b"1")
        .hard_link("link", "var/run/pid")
        .hard_link("absolute", "/run/pid")
        .symlink("dangling", "/made/later")
        .file("dangling/f", b"2")
        .end();
    let tree = Tree::of(&blob).good();
    assert_eq!(tree.read("run/pid"), b"1");
    assert_eq!(tree.read("link"), b"1");
    assert_eq!(tree.read("absolute"), b"1");
    assert_eq!(fs::metadata(tree.path("run/pid")).unwrap().nlink(), 3);
    assert_eq!(tree.read("made/later/f"), b"2");
}

#[test]
fn a24_headers_do_not_decide_how_much_memory_is_taken() {
    let long = Tar::new()
        .raw(&header(b'L', b"x", "", 0o644, 1 << 30), b"")
        .cut();
    assert!(matches!(
        Tree::of(&long).result,
        Err(StoreError::Tar { .. })
    ));
    let map = b"1000000000\n";
    let blob = Tar::new()
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"s"),
            ("GNU.sparse.realsize", b"4096"),
        ])
        .file("f", map)
        .end();
    assert!(Tree::of(&blob).result.is_err());
    let mut huge = header(b'0', b"f", "", 0o644, 0);
    huge[124..136].copy_from_slice(b"77777777777\0");
    seal(&mut huge);
    assert!(Tree::of(&Tar::new().raw(&huge, b"").end()).result.is_err());
}

#[test]
fn i5_the_reserve_of_the_disk_is_kept() {
    let limits = Limits {
        disk_reserve: u64::MAX / 2,
        ..Limits::default()
    };
    let tree = Tree::with(&Tar::new().file("f", b"x").end(), limits);
    assert!(matches!(tree.result, Err(StoreError::DiskReserve { .. })));
    assert_eq!(tree.path("f").metadata().unwrap().len(), 0);
}

#[test]
fn whiteouts_become_marks_of_overlayfs() {
    let blob = Tar::new()
        .file(".wh.gone", b"")
        .file("d/.wh..wh..opq", b"")
        .file("kept", b"x")
        .file(".wh.kept", b"")
        .file(".wh.again", b"")
        .directory("again", 0o755)
        .end();
    let tree = Tree::of(&blob).good();
    let gone = fs::symlink_metadata(tree.path("gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    assert_eq!(tree.read("kept"), b"x");
    for opaque in ["d", "again"] {
        let mut value = [0; 8];
        let count =
            rustix::fs::getxattr(tree.path(opaque), "trusted.overlay.opaque", &mut value).unwrap();
        assert_eq!(&value[..count], b"y");
    }
}

#[test]
fn an_archive_cannot_steer_overlayfs() {
    let blob = Tar::new()
        .pax(&[
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.user.fine", b"v\0w"),
            ("SCHILY.xattr.security.capability", &CAPABILITY),
        ])
        .file_mode("f", 0o4755, b"x")
        .end();
    let tree = Tree::of(&blob).good();
    let mut value = [0; 64];
    let count = rustix::fs::getxattr(tree.path("f"), "user.fine", &mut value).unwrap();
    assert_eq!(&value[..count], b"v\0w");
    let count = rustix::fs::getxattr(tree.path("f"), "security.capability", &mut value).unwrap();
    assert_eq!(&value[..count], CAPABILITY);
    assert!(rustix::fs::getxattr(tree.path("f"), "trusted.overlay.redirect", &mut value).is_err());
    assert_eq!(
        fs::metadata(tree.path("f")).unwrap().mode() & 0o7777,
        0o4755
    );
}

/// `cap_net_raw+ep`, revision 2.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

#[test]
fn bytes_after_the_archive_belong_to_the_diff_id() {
    let tar = Tar::new().file("f", b"x").end();
    let longer = [tar.as_slice(), &[0; 10_240], b"trailer"].concat();
    let plain = Tree::of(&tar).good().result.unwrap().diff_id;
    let trailed = Tree::of(&longer).good().result.unwrap();
    assert_ne!(plain, trailed.diff_id);
    assert_eq!(
        trailed.diff_id,
        Hashing::new(std::io::sink()).after(&longer)
    );
}

trait After {
    fn after(self, bytes: &[u8]) -> String;
}

impl After for Hashing<std::io::Sink> {
    fn after(mut self, bytes: &[u8]) -> String {
        self.write_all(bytes).unwrap();
        self.finish().1
    }
}

#[test]
fn cut_and_garbled_layers_are_errors() {
    let tar = Tar::new().file("f", &[7; 5000]).file("g", b"x").end();
    let mut compressor = Compressor::new(Vec::new(), Codec::Gzip);
    compressor.write_all(&tar).unwrap();
    let gzip = compressor.finish().unwrap();
    assert!(Tree::of(&gzip).result.is_ok());
    assert!(Tree::of(&tar[..3000]).result.is_err());
    assert!(Tree::of(&tar[..5700]).result.is_err());
    assert!(Tree::of(&gzip[..gzip.len() - 3]).result.is_err());
    let mut garbled = tar.clone();
    garbled[0] ^= 1;
    assert!(Tree::of(&garbled).result.is_err());
    assert!(Tree::of(b"not a tar at all").result.is_err());
    assert!(Tree::of(b"").result.is_ok());
}

#[test]
fn pythons_tarfile_reads_the_same_as_we_do() {
    let directory = tempfile::tempdir().unwrap();
    let script = r#"
import tarfile, io, sys
def add(t, name, data=b"", **more):
    i = tarfile.TarInfo(name); i.size = len(data)
    for k, v in more.items(): setattr(i, k, v)
    t.addfile(i, io.BytesIO(data))
for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT):
    with tarfile.open(f"{sys.argv[1]}/{form}.tar", "w", format=form) as t:
        add(t, "d", type=tarfile.DIRTYPE, mode=0o1777)
        add(t, "d/" + "n" * 90, b"long")
        if form != tarfile.USTAR_FORMAT:
            add(t, "d/" + "x" * 200, b"longer")
            add(t, "d/\u00fc", b"umlaut", uid=3000000, gid=4000000)
            add(t, "l", type=tarfile.SYMTYPE, mode=0o777, linkname="t" * 200)
        add(t, "h", type=tarfile.LNKTYPE, linkname="d/" + "n" * 90)
        add(t, "p", type=tarfile.FIFOTYPE, mode=0o600)
        add(t, "c", type=tarfile.CHRTYPE, devmajor=1, devminor=3)
        if form == tarfile.PAX_FORMAT:
            add(t, "frac", b"", mtime=1234.5, pax_headers={"SCHILY.xattr.user.a": "b"})
        add(t, "last", b"end", mtime=99)
"#;
    let made = std::process::Command::new("python3")
        .arg("-c")
        .arg(script)
        .arg(directory.path())
        .status();
    assert!(made.unwrap().success());
    for form in 0..=2 {
        let tar = directory.path().join(format!("{form}.tar"));
        let tree = Tree::of(&fs::read(&tar).unwrap()).good();
        assert_eq!(tree.read("last"), b"end");
        assert_eq!(tree.read("h"), b"long");
        assert_eq!(
            fs::metadata(tree.path("d")).unwrap().mode() & 0o7777,
            0o1777
        );
        assert!(
            fs::symlink_metadata(tree.path("p"))
                .unwrap()
                .file_type()
                .is_fifo()
        );
        assert_eq!(fs::metadata(tree.path("c")).unwrap().rdev(), 0x103);
        if form != 0 {
            assert_eq!(tree.read(&format!("d/{}", "x".repeat(200))), b"longer");
            assert_eq!(fs::metadata(tree.path("d/ü")).unwrap().uid(), 3_000_000);
            assert_eq!(
                fs::read_link(tree.path("l")).unwrap().as_os_str().len(),
                200
            );
        }
        let ours = directory.path().join("ours.tar");
        fs::write(&ours, tree.pack().0).unwrap();
        assert_eq!(python_lists(&tar), python_lists(&ours), "format {form}");
    }
}

/// Everything that Python sees in an archive, sorted.
fn python_lists(tar: &std::path::Path) -> String {
    let script = r#"
import tarfile, sys
t = tarfile.open(sys.argv[1])
rows = []
for i in t:
    row = [i.name, i.mode, i.uid, i.gid, float(i.mtime), i.devmajor if i.ischr() else 0,
           i.devminor if i.ischr() else 0]
    if i.isreg() or i.islnk():
        row += [t.extractfile(i).read()]
    else:
        row += [i.type, i.linkname]
    rows.append(row if not i.islnk() else row[:1] + row[-1:])
    if i.name in ("h", "d/" + "n" * 90): rows[-1] = [i.name, row[-1]]
print(sorted(map(str, rows)))
"#;
    let out = std::process::Command::new("python3")
        .arg("-c")
        .arg(script)
        .arg(tar)
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn sparse_files_of_gnu_tar_have_their_holes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let file = File::create(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"middle", 1 << 20).unwrap();
    file.set_len(3 << 20).unwrap();
    let expected = fs::read(&path).unwrap();
    for format in [
        &["--format=gnu"][..],
        &["--format=pax"],
        &["--format=pax", "--sparse-version=0.1"],
        &["--format=pax", "--sparse-version=0.0"],
    ] {
        let tar = directory.path().join("s.tar");
        let status = std::process::Command::new("tar")
            .args(format)
            .arg("-S")
            .arg("-cf")
            .arg(&tar)
            .arg("-C")
            .arg(directory.path())
            .arg("s")
            .status()
            .unwrap();
        assert!(status.success());
        let blob = fs::read(&tar).unwrap();
        assert!(blob.len() < 1 << 19);
        let tree = Tree::of(&blob).good();
        assert!(tree.read("s") == expected, "{format:?}");
        assert!(fs::metadata(tree.path("s")).unwrap().blocks() < 1024);
    }
}

mod round_trip {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Node {
        File(Vec<u8>, u32),
        Link(Vec<u8>),
        Directory(u32),
        Again,
    }

    fn name() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop::sample::select(b"abXY \xff\n*".to_vec());
        prop::collection::vec(byte, 1..12)
    }

    fn node() -> impl Strategy<Value = Node> {
        prop_oneof![
            (prop::collection::vec(any::<u8>(), 0..3000), 0_u32..0o10000)
                .prop_map(|(bytes, mode)| Node::File(bytes, mode)),
            name().prop_map(Node::Link),
            (0_u32..0o2000).prop_map(Node::Directory),
            Just(Node::Again),
        ]
    }

    fn build(root: &std::path::Path, nodes: &[(Vec<u8>, usize, Node)]) {
        let mut directories = vec![root.to_owned()];
        let mut files: Vec<PathBuf> = Vec::new();
        for (name, place, node) in nodes {
            let path = directories[place % directories.len()].join(OsStr::from_bytes(name));
            if fs::symlink_metadata(&path).is_ok() {
                continue;
            }
            match node {
                Node::File(bytes, mode) => {
                    fs::write(&path, bytes).unwrap();
                    fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
                    files.push(path);
                }
                Node::Link(target) => {
                    std::os::unix::fs::symlink(OsStr::from_bytes(target), &path).unwrap();
                }
                Node::Directory(mode) => {
                    fs::create_dir(&path).unwrap();
                    fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
                    directories.push(path);
                }
                Node::Again => {
                    if let Some(first) = files.first() {
                        fs::hard_link(first, &path).unwrap();
                    }
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn a_tree_packed_and_unpacked_packs_to_the_same(
            nodes in prop::collection::vec((name(), any::<usize>(), node()), 0..30)
        ) {
            let source = tempfile::tempdir().unwrap();
            build(source.path(), &nodes);
            let root = File::open(source.path()).unwrap();
            let (hashing, _) = pack(root.as_fd(), None, Hashing::new(Vec::new())).unwrap();
            let (tar, diff_id) = hashing.finish();
            let tree = Tree::of(&tar).good();
            let (again, diff_id_again) = tree.pack();
            prop_assert!(tar == again);
            prop_assert_eq!(&diff_id, &diff_id_again);
            prop_assert_eq!(&diff_id, &tree.result.unwrap().diff_id);
        }
    }
}
