//! Row A28: the cases of containerd's `TestBreakouts`, by their names there. A whiteout speaks of the
//! layers below and is looked up in its own layer; where that differs from containerd, which applies
//! one layer onto the tree of another, the case says so.

use crate::smith::{Canary, Tar, header};
use crate::tree::{Case, Merged, all_hold, case, over, refused};

fn passwd() -> Tar {
    Tar::new()
        .directory("etc", 0o770)
        .file("/etc/passwd", b"inside")
}

fn unbroken() -> Tar {
    Tar::new().directory("etc", 0o755).directory("dummy", 0o755)
}

fn is_unbroken(merged: &Merged) {
    merged.holds("etc/unbroken", b"unbroken");
}

fn local_is_passwd(merged: &Merged) {
    merged.same("localpasswd", "etc/passwd");
}

fn below_local_is_passwd(merged: &Merged) {
    merged.same("localetc/localpasswd", "etc/passwd");
}

fn mine_is_passwd(merged: &Merged) {
    merged.same("breakouts/mypasswd", "etc/passwd");
}

fn links_are_the_same(merged: &Merged) {
    merged.same("localpasswd", "passwdlink");
    assert_eq!(merged.node("localpasswd").mode & 0o170_000, 0o120_000);
}

fn symlinks() -> Vec<Case> {
    let below = |tar: Tar, name: &str| tar.file(name, b"unbroken");
    vec![
        case(
            "SymlinkAbsolute",
            below(unbroken().symlink("localetc", "/etc"), "/localetc/unbroken"),
            is_unbroken,
        ),
        case(
            "SymlinkUpAndOut",
            below(
                unbroken().symlink("localetc", "/dummy/../etc"),
                "/localetc/unbroken",
            ),
            is_unbroken,
        ),
        case(
            "SymlinkMultipleAbsolute",
            below(
                unbroken()
                    .symlink("/dummy/etc", "/etc")
                    .symlink("localetc", "/dummy/etc"),
                "/dummy/etc/unbroken",
            ),
            is_unbroken,
        ),
        case(
            "SymlinkMultipleRelative",
            below(
                unbroken()
                    .symlink("/dummy/etc", "/etc")
                    .symlink("localetc", "./dummy/etc"),
                "/dummy/etc/unbroken",
            ),
            is_unbroken,
        ),
        case(
            "SymlinkEmptyFile",
            unbroken()
                .file("etc/emptied", b"notempty")
                .symlink("localetc", "/etc")
                .file("/localetc/emptied", b""),
            |merged| merged.holds("etc/emptied", b""),
        ),
    ]
}

fn overrides() -> Vec<Case> {
    vec![
        // The root would become a link: refused here, passed over there.
        refused(
            "SymlinkParentDirectory",
            passwd()
                .symlink("..", "/etc/")
                .hard_link("localpasswd", "/etc/passwd"),
        ),
        refused(
            "SymlinkEmptyFilename",
            passwd()
                .symlink("", "/etc/")
                .hard_link("localpasswd", "/etc/passwd"),
        ),
        case(
            "SymlinkParentRelative",
            passwd()
                .symlink("localetc/sub/..", "/etc/")
                .hard_link("/localetc/localpasswd", "/etc/passwd"),
            |merged| merged.same("etc/localpasswd", "etc/passwd"),
        ),
        case(
            "SymlinkSlashEnded",
            passwd()
                .directory("localetc/", 0o770)
                .hard_link("/localetc/localpasswd", "/etc/passwd"),
            below_local_is_passwd,
        ),
        case(
            "SymlinkOverrideDirectory",
            passwd()
                .directory("localetc", 0o755)
                .symlink("localetc", "/etc")
                .hard_link("/localetc/localpasswd", "/etc/passwd"),
            |merged| merged.same("etc/localpasswd", "etc/passwd"),
        ),
        case(
            "SymlinkOverrideDirectoryRelative",
            passwd()
                .directory("localetc", 0o755)
                .symlink("localetc", "../../etc")
                .hard_link("/localetc/localpasswd", "/etc/passwd"),
            |merged| merged.same("etc/localpasswd", "etc/passwd"),
        ),
        case(
            "DirectoryOverrideSymlink",
            passwd()
                .symlink("localetc", "/etc")
                .directory("localetc/", 0o755)
                .hard_link("/localetc/localpasswd", "/etc/passwd"),
            below_local_is_passwd,
        ),
        case(
            "DirectoryOverrideSymlinkAndHardlink",
            passwd()
                .symlink("localetc", "etc")
                .hard_link("/localetc/localpasswd", "/etc/passwd")
                .directory("/localetc/", 0o755)
                .file("/localetc/localpasswd", b"different"),
            |merged| {
                merged.holds("localetc/localpasswd", b"different");
                merged.holds("etc/passwd", b"inside");
            },
        ),
    ]
}

fn hard_links() -> Vec<Case> {
    let breakouts = |target: &str| {
        passwd()
            .directory("breakouts", 0o755)
            .directory("downandout", 0o755)
            .symlink("breakouts/d1", target)
            .hard_link("breakouts/mypasswd", "/breakouts/d1/passwd")
    };
    let local = |target: &str| {
        passwd()
            .symlink("localetc", target)
            .hard_link("localpasswd", "/localetc/passwd")
    };
    let to_link = |target: &str| {
        passwd()
            .symlink("passwdlink", target)
            .hard_link("localpasswd", "/passwdlink")
    };
    vec![
        case("HardlinkRelative", breakouts("../../etc"), mine_is_passwd),
        case(
            "HardlinkDownAndOut",
            breakouts("../downandout/../../etc"),
            mine_is_passwd,
        ),
        case("HardlinkAbsolute", local("/etc"), local_is_passwd),
        case(
            "HardlinkRelativeLong",
            local("../../../../../../../etc"),
            local_is_passwd,
        ),
        // containerd follows a missing name and `..` by text; the kernel does not.
        refused("HardlinkRelativeUpAndOut", local("upandout/../../../etc")),
        // Row A10: a name that leads out is refused, not bent.
        refused(
            "HardlinkDirectRelative",
            passwd().hard_link("localpasswd", "../../../../../etc/passwd"),
        ),
        case(
            "HardlinkDirectAbsolute",
            passwd().hard_link("localpasswd", "/etc/passwd"),
            local_is_passwd,
        ),
        case(
            "HardlinkSymlinkBeforeCreateTarget",
            Tar::new()
                .directory("etc", 0o770)
                .symlink("localpasswd", "/etc/passwd")
                .hard_link("localpasswd-dup", "localpasswd")
                .file("/etc/passwd", b"after"),
            |merged| merged.same("localpasswd-dup", "localpasswd"),
        ),
        case(
            "HardlinkSymlinkRelative",
            to_link("../../../../../etc/passwd"),
            links_are_the_same,
        ),
        case(
            "HardlinkSymlinkAbsolute",
            to_link("/etc/passwd"),
            links_are_the_same,
        ),
    ]
}

fn whiteouts() -> Vec<Case> {
    let below = || {
        passwd()
            .file("etc/whitedout", b"ahhhh")
            .symlink("localetc", "/etc")
    };
    vec![
        refused("WhiteoutRootParent", Tar::new().file(".wh...", b"")),
        refused("WhiteoutParent", Tar::new().file("etc/.wh...", b"")),
        refused("WhiteoutRoot", Tar::new().file(".wh..", b"")),
        refused(
            "WhiteoutCurrentDirectory",
            Tar::new().file("etc/.wh..", b""),
        ),
        over(
            "WhiteoutSymlink",
            below(),
            Tar::new().file(".wh.localetc", b""),
            |merged| {
                merged.holds("etc/passwd", b"inside");
                assert!(!merged.has("localetc"));
            },
        ),
        // The layer's own `localetc` is a directory that hides the link below.
        over(
            "WhiteoutSymlinkPath",
            below(),
            Tar::new().file("localetc/.wh.whitedout", b""),
            |merged| {
                merged.holds("etc/passwd", b"inside");
                assert!(!merged.has("localetc/whitedout"));
            },
        ),
        over(
            "WhiteoutDirectoryName",
            below(),
            Tar::new().file(".wh.etc/somefile", b"non-empty"),
            |merged| {
                merged.holds("etc/passwd", b"inside");
                merged.holds(".wh.etc/somefile", b"non-empty");
            },
        ),
        over(
            "WhiteoutDeadSymlinkParent",
            passwd().symlink("localetc", "/dne"),
            Tar::new().file("localetc/.wh.etc", b""),
            |merged| merged.holds("etc/passwd", b"inside"),
        ),
        over(
            "WhiteoutRelativePath",
            below(),
            Tar::new().file("dne/../.wh.etc", b""),
            |merged| assert!(!merged.has("etc")),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a28_symlinks_that_break_out_elsewhere() {
    all_hold(symlinks()).await;
    all_hold(overrides()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a28_hard_links_that_break_out_elsewhere() {
    let canary = Canary::new();
    let (file, other) = (
        format!("{}/f", canary.path()),
        format!("{}/d/x", canary.path()),
    );
    let chmod = Tar::new()
        .raw(&header(b'2', other.as_bytes(), &file, 0o777, 0), b"")
        .raw(&header(b'1', b"sketchylink", &other, 0o777, 0), b"");
    let mut cases = hard_links();
    cases.push(case("HardlinkSymlinkChmod", chmod, |merged| {
        assert!(merged.has("sketchylink"))
    }));
    all_hold(cases).await;
    canary.sings();
}

#[tokio::test(flavor = "multi_thread")]
async fn a28_whiteouts_that_break_out_elsewhere() {
    all_hold(whiteouts()).await;
}

/// Beyond containerd's: marks through links, and out of the layer.
#[tokio::test(flavor = "multi_thread")]
async fn a28_a_mark_never_leaves_its_layer() {
    let canary = Canary::new();
    let out = canary.path();
    let through = Tar::new()
        .symlink("d", out)
        .file("d/.wh..wh..opq", b"")
        .file("d/.wh.f", b"")
        .file("d/.wh.d", b"");
    all_hold(vec![
        case(
            "marks through a link to a host directory",
            through,
            |merged| assert!(merged.has("d")),
        ),
        refused("a mark above the root", Tar::new().file("../.wh.x", b"")),
        refused(
            "an opaque mark above the root",
            Tar::new().file("../.wh..wh..opq", b""),
        ),
        refused("a mark without a name", Tar::new().file(".wh.", b"")),
    ])
    .await;
    canary.sings();
}
