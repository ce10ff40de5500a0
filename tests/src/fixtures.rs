//! Images to test with: real ones, made of Debian's packages.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tar::{Builder, EntryType, Header};

/// The applets that tests use.
const APPLETS: [&str; 47] = [
    "sh", "ash", "cat", "cp", "echo", "env", "expr", "false", "grep", "head", "hostname", "httpd",
    "timeout", "id", "ifconfig", "ip", "kill", "ln", "ls", "md5sum", "mkdir", "mknod", "mount",
    "mv", "nc", "nslookup", "printf", "ps", "pwd", "readlink", "rm", "sed", "seq", "sleep", "sort",
    "stat", "stty", "tail", "tee", "test", "top", "touch", "true", "umount", "unshare", "wc",
    "wget",
];

/// A root file system of Debian's `busybox-static`, as a tar.
pub fn busybox_rootfs() -> Vec<u8> {
    rootfs_with(&[])
}

/// The same with more files: (path, permission bits, content).
pub fn rootfs_with(files: &[(&str, u32, &[u8])]) -> Vec<u8> {
    rootfs_with_links(&[], files)
}

/// The same with symbolic links, (path, target), some of them where a directory usually is.
pub fn rootfs_with_links(links: &[(&str, &str)], files: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let busybox = fs::read("/bin/busybox").expect("install busybox-static");
    let mut tar = Builder::new(Vec::new());
    let is_link = |path: &str| links.iter().any(|(link, _)| *link == path);
    for directory in [
        "bin", "dev", "etc", "proc", "root", "sys", "tmp", "usr", "var",
    ]
    .into_iter()
    .filter(|directory| !is_link(directory))
    {
        let mode = if directory == "tmp" { 0o1777 } else { 0o755 };
        append(&mut tar, EntryType::Directory, directory, mode, b"");
    }
    append(&mut tar, EntryType::Regular, "bin/busybox", 0o755, &busybox);
    for applet in APPLETS {
        let mut header = header(EntryType::Symlink, 0o777, 0);
        tar.append_link(&mut header, format!("bin/{applet}"), "busybox")
            .unwrap();
    }
    let passwd = b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n";
    append(&mut tar, EntryType::Regular, "etc/passwd", 0o644, passwd);
    let group = b"root:x:0:\nwheel:x:10:root\nuser:x:1000:\n";
    append(&mut tar, EntryType::Regular, "etc/group", 0o644, group);
    for (path, mode, content) in files {
        append(&mut tar, EntryType::Regular, path, *mode, content);
    }
    for (path, target) in links {
        let mut header = header(EntryType::Symlink, 0o777, 0);
        tar.append_link(&mut header, path, target).unwrap();
    }
    tar.into_inner().unwrap()
}

fn append(tar: &mut Builder<Vec<u8>>, kind: EntryType, path: &str, mode: u32, content: &[u8]) {
    let mut header = header(kind, mode, content.len() as u64);
    tar.append_data(&mut header, path, content).unwrap();
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_700_000_000);
    header
}

/// A Debian root file system with Node.js in it, made by `debootstrap` once per machine and kept as a
/// tar below `/var/cache/orlop-tests`.
pub fn debian_node_rootfs() -> Vec<u8> {
    let cache = Path::new("/var/cache/orlop-tests");
    fs::create_dir_all(cache).unwrap();
    let archive = cache.join("debian-bookworm-node.tar");
    if !archive.exists() {
        debootstrap(&archive, "nodejs");
    }
    let mut bytes = Vec::new();
    fs::File::open(archive)
        .unwrap()
        .read_to_end(&mut bytes)
        .unwrap();
    bytes
}

/// The archive with one more, empty file in front: another layer of the same size.
pub fn marked(archive: &[u8], name: &str) -> Vec<u8> {
    let mut mark = header(EntryType::Regular, 0o644, 0);
    mark.set_path(name).unwrap();
    mark.set_cksum();
    [mark.as_bytes(), archive].concat()
}

/// Runs `debootstrap` into a directory and packs it; the archive appears whole or not at all.
fn debootstrap(archive: &Path, include: &str) {
    let work = tempfile::tempdir_in("/var/tmp").unwrap();
    // A mirror may fail once; a third failure is a fact.
    let made = (0..3).find_map(|attempt| {
        let root = work.path().join(format!("root{attempt}"));
        bootstrap(&root, include).then_some(root)
    });
    pack(&made.expect("debootstrap failed three times"), archive);
}

fn bootstrap(root: &Path, include: &str) -> bool {
    let made = Command::new("debootstrap")
        .args([
            "--variant=minbase",
            &format!("--include={include}"),
            "bookworm",
        ])
        .arg(root)
        .stdout(Stdio::null())
        .status();
    made.expect("install debootstrap").success()
}

fn pack(root: &Path, archive: &Path) {
    fs::remove_dir_all(root.join("var/cache/apt/archives")).ok();
    let partial: PathBuf = archive.with_extension("partial");
    let mut tar = Builder::new(fs::File::create(&partial).unwrap());
    tar.follow_symlinks(false);
    for part in [
        "bin", "etc", "home", "lib", "lib32", "lib64", "opt", "root", "sbin", "srv", "usr", "var",
    ] {
        let path = root.join(part);
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => tar.append_dir_all(part, &path).unwrap(),
            Ok(_) => tar.append_path_with_name(&path, part).unwrap(),
            Err(_) => {}
        }
    }
    for part in ["dev", "proc", "run", "sys", "tmp"] {
        tar.append_data(&mut header(EntryType::Directory, 0o755, 0), part, &b""[..])
            .unwrap();
    }
    tar.into_inner().unwrap().sync_all().unwrap();
    fs::rename(partial, archive).unwrap();
}
