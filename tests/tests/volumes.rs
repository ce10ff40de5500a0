//! Volumes and mounts as people ask for them: every key of `--mount`, volumes of other containers,
//! lists, archives.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use orlop_tests::{Instance, eventually};

/// A directory of the host with a tmpfs mounted on `sub` in it.
struct Nested(tempfile::TempDir);

impl Nested {
    fn new() -> Self {
        let nested = Self(tempfile::tempdir().unwrap());
        fs::create_dir(nested.sub()).unwrap();
        let none = None::<&str>;
        mount(
            Some("none"),
            &nested.sub(),
            Some("tmpfs"),
            MsFlags::empty(),
            none,
        )
        .unwrap();
        fs::write(nested.sub().join("f"), b"below").unwrap();
        nested
    }

    fn sub(&self) -> PathBuf {
        self.0.path().join("sub")
    }

    fn bind(&self, keys: &str) -> String {
        format!("type=bind,src={},dst=/mnt{keys}", self.0.path().display())
    }
}

impl Drop for Nested {
    fn drop(&mut self) {
        umount2(&self.sub(), MntFlags::MNT_DETACH).ok();
    }
}

#[test]
fn a_read_only_bind_is_read_only_in_depth_unless_asked_otherwise() {
    let (orlop, host) = (Instance::with_busybox(), Nested::new());
    let writes =
        "touch /mnt/new 2>/dev/null && echo top; touch /mnt/sub/new 2>/dev/null && echo sub; true";
    let strict = ",ro,bind-propagation=rprivate,bind-recursive=readonly";
    for (keys, written) in [
        ("", "top\nsub\n"),
        (",readonly", ""),
        (",ro=true,bind-recursive=enabled", ""),
        (strict, ""),
        (",ro,bind-recursive=writable", "sub\n"),
        (",ro,bind-recursive=disabled", ""),
    ] {
        let mount = host.bind(keys);
        let outcome = orlop.shell(&["--mount", &mount], writes);
        assert_eq!(outcome.success().stdout(), written, "{keys}");
    }
    for keys in [",bind-recursive=disabled", ",bind-nonrecursive"] {
        let mount = host.bind(keys);
        orlop
            .shell(&["--mount", &mount], "ls /mnt/sub")
            .success()
            .stdout_is("");
    }
    let volume = format!("{}:/mnt:ro", host.0.path().display());
    orlop
        .shell(&["-v", &volume], "touch /mnt/sub/new")
        .exits(1)
        .stderr_has("Read-only");
}

#[test]
fn a_key_that_means_nothing_is_named() {
    let orlop = Instance::stopped();
    for (mount, told) in [
        ("type=volume,dst=/x,tmpfs-size=1m", "tmpfs-size"),
        (
            "type=tmpfs,dst=/x,bind-propagation=rslave",
            "bind-propagation",
        ),
        ("type=bind,src=/a,dst=/x,volume-subpath=y", "volume-subpath"),
        ("dst=/x,volume-driver=rexray", "local"),
        ("dst=/x,bogus=1", "bogus"),
        (
            "type=bind,src=/a,dst=/x,bind-recursive=writable",
            "readonly",
        ),
    ] {
        let outcome = orlop.run(&["run", "--mount", mount, "busybox"]);
        assert_ne!(outcome.code(), 0, "{mount}");
        drop(outcome.stderr_has(told));
    }
}

#[test]
fn a_part_of_a_volume_can_be_mounted() {
    let orlop = Instance::with_busybox();
    let make =
        "mkdir -p /v/a/b && echo deep > /v/a/b/f && echo file > /v/single && ln -s a/b /v/in";
    orlop.shell(&["-v", "data:/v"], make).success();
    let part = |subpath: &str| format!("src=data,dst=/part,volume-subpath={subpath}");
    orlop
        .shell(
            &["--mount", &part("a/b")],
            "cat /part/f; echo new > /part/g",
        )
        .success()
        .stdout_is("deep\n");
    orlop
        .shell(&["--mount", &part("in")], "cat /part/g")
        .success()
        .stdout_is("new\n");
    orlop
        .shell(&["--mount", &part("single")], "cat /part")
        .success()
        .stdout_is("file\n");
    orlop
        .shell(&["--mount", &part("none")], "true")
        .exits(125)
        .stderr_has("none");
    orlop
        .shell(&["--mount", &part("../..")], "true")
        .exits(125)
        .stderr_has("..");
    // Of a container that does not run, the same part is copied.
    let mount = part("a/b");
    orlop
        .run(&["create", "--name", "idle", "--mount", &mount, "busybox"])
        .success();
    let copied = orlop.run(&["cp", "idle:/part/f", "-"]).success();
    let mut tar = tar::Archive::new(copied.bytes());
    assert_eq!(tar.entries().unwrap().count(), 1);
}

#[test]
fn b31_a_part_of_a_volume_that_is_a_link_stays_in_the_volume() {
    let orlop = Instance::with_busybox();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("canary"), b"host").unwrap();
    let outside = outside.path().display();
    let make = format!(
        "ln -s / /v/root; ln -s {outside} /v/host; ln -s ../../../.. /v/up; echo own > /v/f"
    );
    orlop.shell(&["-v", "data:/v"], &make).success();
    for link in ["root", "up"] {
        let mount = format!("src=data,dst=/part,volume-subpath={link}");
        orlop
            .shell(
                &["--mount", &mount],
                "cat /part/f; ls /part/etc 2>/dev/null; true",
            )
            .success()
            .stdout_is("own\n");
    }
    orlop
        .shell(
            &["--mount", "src=data,dst=/part,volume-subpath=host"],
            "true",
        )
        .exits(125);
}

#[test]
fn b31_a_part_that_is_swapped_for_a_link_never_shows_the_host() {
    let orlop = Instance::with_busybox();
    orlop
        .shell(&["-v", "data:/v"], "mkdir /v/dir; ln -s / /v/link")
        .success();
    let swap = "cd /v; while true; do ln -sfn / x; rm x; mkdir x; rmdir x; done 2>/dev/null";
    orlop.run_script_with("swap", &["-v", "data:/v"], swap);
    for _ in 0..15 {
        let seen = orlop.shell(
            &["--mount", "src=data,dst=/part,volume-subpath=x"],
            "ls /part",
        );
        if seen.code() == 0 {
            drop(seen.stdout_lacks("proc").stdout_lacks("root"));
        }
    }
    orlop.run(&["rm", "-f", "swap"]).success();
}

#[test]
fn volumes_come_from_another_container() {
    let orlop = Instance::with_busybox();
    let host = tempfile::tempdir().unwrap();
    let bind = format!("{}:/host", host.path().display());
    orlop
        .run(&[
            "run",
            "--name",
            "one",
            "-v",
            "/anonymous",
            "-v",
            "data:/data",
            "-v",
            &bind,
            "--tmpfs",
            "/tmpfs",
            "busybox",
            "sh",
            "-c",
            "echo a > /anonymous/f; echo d > /data/f; echo h > /host/f",
        ])
        .success();
    let cat = "cat /anonymous/f /data/f /host/f; mount | grep -c ' /tmpfs ' ; true";
    orlop
        .shell(&["--volumes-from", "one"], cat)
        .success()
        .stdout_is("a\nd\nh\n0\n");
    orlop
        .shell(&["--volumes-from", "one:ro"], "touch /data/new")
        .exits(1)
        .stderr_has("Read-only");
    // The anonymous volume is still there: `--rm` takes what no other container uses.
    orlop
        .shell(
            &["--volumes-from", "one:rw", "-v", "other:/data"],
            "cat /anonymous/f; ls /data",
        )
        .success()
        .stdout_is("a\n");
    orlop
        .shell(&["--volumes-from", "nobody"], "true")
        .exits(125)
        .stderr_has("nobody");
    orlop
        .shell(&["--volumes-from", "one:z"], "true")
        .exits(125)
        .stderr_has("one:z");
    // A creation that fails takes nothing from the other container.
    let missing = "type=bind,src=/nowhere/at/all,dst=/x";
    orlop
        .shell(&["--volumes-from", "one", "--mount", missing], "true")
        .exits(125);
    let format = "{{range .Mounts}}{{if eq .Destination \"/anonymous\"}}{{.Name}}{{end}}{{end}}";
    let anonymous = orlop.inspect("one", format);
    let kept = orlop
        .root()
        .join("runtime/volumes")
        .join(&anonymous)
        .join("_data/f");
    assert_eq!(fs::read_to_string(&kept).unwrap(), "a\n");
    orlop.run(&["rm", "-v", "one"]).success();
    assert!(!kept.exists());
    assert!(host.path().join("f").exists());
}

#[test]
fn d11_a_volume_is_filled_from_the_image_only_when_it_is_new() {
    let orlop = Instance::with_busybox();
    let make = [
        "busybox",
        "sh",
        "-c",
        "mkdir /seed; echo image > /seed/f; chmod 750 /seed",
    ];
    orlop
        .run(&[&["run", "--name", "made"][..], &make].concat())
        .success();
    orlop.run(&["commit", "made", "seeded"]).success();
    let show = |options: &[&str]| {
        let command = ["seeded", "sh", "-c", "cat /seed/f; stat -c %a /seed"];
        orlop
            .run(&[&["run", "--rm"], options, &command].concat())
            .stdout()
    };
    assert_eq!(show(&["-v", "full:/seed"]), "image\n750\n");
    orlop
        .shell(&["-v", "full:/v"], "echo changed > /v/f")
        .success();
    assert_eq!(show(&["-v", "full:/seed"]), "changed\n750\n");
    assert_eq!(show(&["-v", "empty:/seed:nocopy"]), "755\n");
    orlop
        .shell(&["-v", "other:/v"], "echo own > /v/mine")
        .success();
    assert_eq!(show(&["-v", "other:/seed"]), "755\n");
}

#[test]
fn volumes_are_listed_and_pruned_by_filters() {
    let orlop = Instance::with_busybox();
    orlop
        .run(&["volume", "create", "--label", "tier=db", "pgdata"])
        .success();
    orlop
        .run(&["volume", "create", "--label", "keep", "cache"])
        .success();
    orlop
        .run(&["create", "--name", "user", "-v", "used:/v", "busybox"])
        .success();
    let ls = |filters: &[&str]| {
        let filters = filters.iter().flat_map(|filter| ["--filter", filter]);
        let args: Vec<&str> = ["volume", "ls", "-q"].into_iter().chain(filters).collect();
        orlop.run(&args).success().stdout()
    };
    assert_eq!(ls(&["name=data"]), "pgdata\n");
    assert_eq!(ls(&["label=tier=db"]), "pgdata\n");
    assert_eq!(ls(&["dangling=true"]), "cache\npgdata\n");
    assert_eq!(ls(&["dangling=false"]), "used\n");
    assert_eq!(ls(&["driver=local", "name=a"]), "cache\npgdata\n");
    assert_eq!(ls(&["driver=nfs"]), "");
    let label = "type=volume,src=labelled,dst=/v,volume-label=a=b";
    orlop.shell(&["--mount", label], "true").success();
    assert_eq!(ls(&["label=a"]), "labelled\n");
    orlop
        .run(&["volume", "ls", "--filter", "size=1"])
        .exits(125)
        .stderr_has("size");
    orlop
        .run(&["volume", "prune", "-f", "-a", "--filter", "label!=keep"])
        .success()
        .stdout_has("pgdata")
        .stdout_has("labelled");
    assert_eq!(ls(&[]), "cache\nused\n");
    orlop.run(&["volume", "rm", "-f", "nobody"]).success();
    orlop
        .run(&["volume", "rm", "used"])
        .exits(1)
        .stderr_has("user");
}

#[test]
fn what_volumes_hold_is_told() {
    let orlop = Instance::with_busybox();
    orlop
        .shell(&["-v", "data:/v"], "head -c 100000 /dev/zero > /v/f")
        .success();
    orlop
        .run(&["create", "--name", "user", "-v", "data:/v", "busybox"])
        .success();
    let told = orlop.run(&["system", "df", "-v"]).success().stdout();
    let line = told.lines().find(|line| line.starts_with("data")).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[..2], ["data", "1"], "{line}");
    assert!(words[2].starts_with("100"), "{line}");
    orlop
        .run(&["system", "df"])
        .success()
        .stdout_lacks("VOLUME NAME");
}

#[test]
fn a_volume_goes_to_a_tar_and_back() {
    let orlop = Instance::with_busybox();
    let make = "mkdir /v/d; echo kept > /v/d/f; chown 7:8 /v/d/f; ln -s d/f /v/link";
    orlop.shell(&["-v", "data:/v"], make).success();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("data.tar");
    let path = file.to_str().unwrap();
    orlop
        .run(&["volume", "export", "-o", path, "data"])
        .success();
    let piped = orlop.run(&["volume", "export", "data"]).success();
    assert_eq!(piped.bytes(), fs::read(&file).unwrap());
    orlop
        .run(&["volume", "import", "copy", path])
        .exits(1)
        .stderr_has("copy");
    orlop.run(&["volume", "create", "copy"]).success();
    orlop.run(&["volume", "import", "copy", path]).success();
    orlop
        .shell(&["-v", "copy:/v"], "cat /v/link; stat -c %u:%g /v/d/f")
        .success()
        .stdout_is("kept\n7:8\n");
    orlop.run(&["volume", "create", "third"]).success();
    orlop
        .run_with_input(&["volume", "import", "third", "-"], piped.bytes())
        .success();
    let third = orlop.root().join("runtime/volumes/third/_data/d/f");
    assert_eq!(fs::read_to_string(third).unwrap(), "kept\n");
    let cut = &piped.bytes()[..700];
    orlop
        .run_with_input(&["volume", "import", "third", "-"], cut)
        .exits(1);
    assert!(!Path::new("none.tar").exists());
    orlop
        .run(&["volume", "export", "-o", "none.tar", "nobody"])
        .exits(1)
        .stderr_has("nobody");
    assert!(!Path::new("none.tar").exists());
}

#[test]
fn a_hostile_archive_leaves_the_host_alone() {
    let orlop = Instance::with_busybox();
    let outside = tempfile::tempdir().unwrap();
    orlop.run(&["volume", "create", "data"]).success();
    let data = orlop.root().join("runtime/volumes/data/_data");
    symlink(outside.path(), data.join("out")).unwrap();
    for name in ["out/f", "../../f", "/out/f", "/inside"] {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(4);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        tar.append(&header, &b"evil"[..]).unwrap();
        let tar = tar.into_inner().unwrap();
        drop(orlop.run_with_input(&["volume", "import", "data", "-"], &tar));
    }
    assert!(fs::read_dir(outside.path()).unwrap().next().is_none());
    assert!(!orlop.root().join("runtime/volumes/f").exists());
    assert!(data.join("inside").exists() && !Path::new("/inside").exists());
}

#[test]
fn a_volume_can_be_a_directory_of_the_host() {
    let orlop = Instance::with_busybox();
    let host = tempfile::tempdir().unwrap();
    let device = format!("device={}", host.path().display());
    let create = |name: &str, o: &str| {
        let options = ["--opt", "type=none", "--opt", o, "--opt", &device, name];
        let create = ["volume", "create", "--driver", "local"];
        orlop.run(&[&create[..], &options].concat())
    };
    create("data", "o=bind").success().stdout_is("data\n");
    orlop
        .shell(&["-v", "data:/v"], "echo written > /v/f")
        .success();
    assert_eq!(
        fs::read_to_string(host.path().join("f")).unwrap(),
        "written\n"
    );
    create("fixed", "o=bind,ro").success();
    orlop
        .shell(&["-v", "fixed:/v"], "cat /v/f; touch /v/g")
        .exits(1)
        .stdout_is("written\n")
        .stderr_has("Read-only");
    create("data", "o=bind,ro")
        .exits(1)
        .stderr_has("other options");
    create("bad", "o=bind,suid").exits(1).stderr_has("suid");
    let format = "{{.Options.o}} {{.Driver}}";
    orlop
        .run(&["volume", "inspect", "-f", format, "fixed"])
        .success()
        .stdout_is("bind,ro local\n");
    let mount =
        format!("src=inline,dst=/v,volume-opt=type=none,volume-opt=o=bind,volume-opt={device}");
    orlop
        .shell(&["--mount", &mount], "cat /v/f")
        .success()
        .stdout_is("written\n");
    for (args, told) in [
        (["--driver", "rexray"], "local"),
        (["--opt", "type=ext4"], "type=ext4"),
        (["--opt", "size=1g"], "size"),
    ] {
        let outcome = orlop.run(&[&["volume", "create"][..], &args, &["x"]].concat());
        assert_ne!(outcome.code(), 0);
        drop(outcome.stderr_has(told));
    }
    orlop
        .run(&["volume", "rm", "data", "fixed", "inline"])
        .success();
    assert!(
        host.path().join("f").exists(),
        "the host's files are not the volume's"
    );
}

#[test]
fn nothing_runs_from_a_tmpfs_unless_asked_to() {
    let orlop = Instance::with_busybox();
    let script = "cp /bin/busybox /t/busybox && /t/busybox echo ran";
    orlop.shell(&["--tmpfs", "/t"], script).exits(126);
    orlop
        .shell(&["--mount", "type=tmpfs,dst=/t"], script)
        .exits(126);
    orlop
        .shell(&["--tmpfs", "/t:exec"], script)
        .success()
        .stdout_is("ran\n");
}

#[test]
fn a_volume_of_memory_is_mounted_while_containers_use_it() {
    let orlop = Instance::with_busybox();
    let mut create = vec![
        "volume",
        "create",
        "--opt",
        "type=tmpfs",
        "--opt",
        "device=tmpfs",
    ];
    create.extend(["--opt", "o=size=1m,uid=1000,noexec", "fast"]);
    orlop.run(&create).success();
    let place = orlop.run(&["volume", "inspect", "-f", "{{.Mountpoint}}", "fast"]);
    let place = place.success().line();
    let is_mounted = || {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        mounts.contains(&format!(" {place} tmpfs "))
    };
    assert!(!is_mounted());
    let start = |name: &'static str| {
        let mut args = vec!["run", "-d", "--name", name, "-v", "fast:/fast"];
        args.extend(["busybox", "sleep", "1000"]);
        orlop.run(&args).success();
    };
    let inside =
        |name: &'static str, script: &'static str| orlop.run(&["exec", name, "sh", "-c", script]);
    start("first");
    start("second");
    assert!(is_mounted());
    inside("first", "echo shared > /fast/f").success();
    inside("second", "cat /fast/f").stdout_is("shared\n");
    inside("second", "stat -c %u /fast").stdout_is("1000\n");
    inside("second", "mount | grep ' /fast ' | grep noexec").success();
    let full = inside("second", "dd if=/dev/zero of=/fast/g bs=1k count=2000");
    assert_ne!(full.code(), 0, "more fits than was asked for");
    orlop.run(&["rm", "-f", "first"]).success();
    orlop.kill_service("runtime");
    inside("second", "cat /fast/f").stdout_is("shared\n");
    orlop.run(&["rm", "-f", "second"]).success();
    eventually("the last one unmounts it", || !is_mounted());
    start("third");
    inside("third", "ls /fast").success().stdout_is("");
    orlop.run(&["rm", "-f", "third"]).success();
    eventually("it is unmounted", || !is_mounted());
    // For a copy it is mounted, too, and its memory is gone with the copy.
    let mut create = vec!["create", "--name", "idle", "-v", "fast:/fast"];
    create.extend(["busybox", "true"]);
    orlop.run(&create).success();
    orlop.run(&["cp", "/etc/passwd", "idle:/fast/f"]).success();
    assert!(!is_mounted());
    let tar = orlop.run(&["volume", "export", "fast"]).success();
    assert!(!is_mounted() && !tar.stdout().contains("root:"));
    let hidden = std::fs::read_dir(&place).unwrap().count();
    assert_eq!(hidden, 0, "something was written below the mount");
    orlop.run(&["rm", "idle"]).success();
    orlop.run(&["volume", "rm", "fast"]).success();
}

#[test]
fn a_file_system_that_cannot_be_mounted_says_why() {
    let orlop = Instance::with_busybox();
    let create = |name: &'static str, options: &[&'static str]| {
        let mut args = vec!["volume", "create", name];
        args.extend(options.iter().flat_map(|option| ["--opt", option]));
        orlop.run(&args).success();
    };
    // One address that answers nobody, on a kernel that may not know NFS at all.
    create(
        "far",
        &[
            "type=nfs4",
            "device=:/srv",
            "o=addr=127.0.0.1,port=1,soft,retrans=0",
        ],
    );
    create("odd", &["type=tmpfs", "device=tmpfs", "o=size=lots"]);
    for (name, told) in [("far", "type=nfs4"), ("odd", "size")] {
        let volume = format!("{name}:/v");
        orlop
            .run(&["run", "--rm", "-v", &volume, "busybox", "true"])
            .exits(125)
            .stderr_has(told);
    }
}
