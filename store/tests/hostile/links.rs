//! Rows A7, A19 and A22: names and links that lead elsewhere in other unpackers. The cases of A19 have
//! the names of the tests of moby's go-archive.

use crate::smith::{Canary, Tar, header, seal};
use crate::tree::{all_hold, case, refused, unpacked};

#[tokio::test(flavor = "multi_thread")]
async fn a7_no_directory_is_made_through_a_link() {
    let layer = Tar::new()
        .directory("foo", 0o755)
        .symlink("symlink", "..")
        .file("symlink/exploit/foo/bar", b"evil")
        .symlink("higher", "../../../../../../..")
        .directory("higher/var/tmp/a7-exploit", 0o777);
    all_hold(vec![case("the advisory's", layer, |merged| {
        merged.holds("exploit/foo/bar", b"evil");
        assert!(merged.has("var/tmp/a7-exploit"));
    })])
    .await;
    assert!(!std::path::Path::new("/var/tmp/a7-exploit").exists());
}

/// `TestUntarInvalidFilenames`, `TestApplyLayerInvalidFilenames`.
#[tokio::test(flavor = "multi_thread")]
async fn a19_invalid_filenames() {
    let canary = Canary::new();
    let above = format!("..{}/evil", canary.path());
    all_hold(vec![
        refused(
            "dotdot",
            Tar::new()
                .directory("../victim", 0o755)
                .file("../victim/evil", b"evil"),
        ),
        refused("dotdot to a file", Tar::new().file(&above, b"evil")),
        case(
            "slash-dotdot",
            Tar::new().file("/../victim/slash-dotdot", b"x"),
            |merged| {
                merged.holds("victim/slash-dotdot", b"x");
            },
        ),
    ])
    .await;
    canary.sings();
}

/// `TestUntarInvalidHardlink`, `TestApplyLayerInvalidHardlink`.
#[tokio::test(flavor = "multi_thread")]
async fn a19_invalid_hard_links() {
    let canary = Canary::new();
    let out = canary.path();
    let victim = format!("{out}/f");
    let up = format!("../../../../../..{victim}");
    let loophole = || Tar::new().symlink("loophole", out);
    all_hold(vec![
        refused("dotdot", Tar::new().hard_link("dotdot", "../victim/hello")),
        refused("dotdot to the canary", Tar::new().hard_link("dotdot", &up)),
        refused(
            "slash-dotdot",
            Tar::new().hard_link("slash-dotdot", &format!("/{up}")),
        ),
        refused("absolute", Tar::new().hard_link("absolute", &victim)),
        refused(
            "through a link",
            loophole().hard_link("pizza", "loophole/f"),
        ),
        refused(
            "through a hard link to a link",
            loophole()
                .hard_link("again", "loophole")
                .hard_link("pizza", "again/f"),
        ),
        refused(
            "then written",
            loophole()
                .hard_link("pizza", "loophole/f")
                .file("pizza", b"evil"),
        ),
    ])
    .await;
    canary.sings();
}

/// `TestUntarInvalidSymlink`, `TestApplyLayerInvalidSymlink`, `TestUntarSymlinkBreakout`,
/// `TestUnpackRejectsRelativeEscapeBeforeAbsoluteSymlink`: what lies behind a link lies inside.
#[tokio::test(flavor = "multi_thread")]
async fn a19_links_that_lead_out_lead_inside() {
    let canary = Canary::new();
    let (out, up) = (
        canary.path(),
        format!("../../../../../../../..{}", canary.path()),
    );
    for target in [out, up.as_str()] {
        for layer in [
            Tar::new().symlink("dir", target).file("dir/f", b"evil"),
            Tar::new()
                .symlink("dir/loophole", target)
                .file("dir/loophole/f", b"evil"),
            Tar::new()
                .symlink("a", target)
                .symlink("b", "a")
                .symlink("c", "/b")
                .file("c/f", b"evil"),
            Tar::new()
                .symlink("a", target)
                .directory("a/d", 0o777)
                .file("a/d/new", b"evil"),
            Tar::new()
                .symlink("a", target)
                .hard_link("b", "a")
                .file("b/f", b"evil"),
            Tar::new()
                .symlink("f", &format!("{target}/f"))
                .raw(&header(b'6', b"f", "", 0o666, 0), b""),
            Tar::new()
                .symlink("..a", target)
                .file("..a/f", b"evil")
                .file("..a/../..a/g", b"evil"),
        ] {
            for form in crate::forms::forms() {
                unpacked(form, &[layer.clone().end()]).await.map(drop).ok();
                canary.sings();
            }
        }
    }
}

/// `TestUntarParentTraversalContained`, `TestUntarSiblingPrefixContained`: a sibling whose name begins
/// as the root's does is not inside.
#[tokio::test(flavor = "multi_thread")]
async fn a19_a_sibling_with_the_same_prefix_is_outside() {
    for out in ["../fs2/x", "../fsx", "a/../../fs/x", "./../fs", "..", "../"] {
        all_hold(vec![refused("a sibling", Tar::new().file(out, b"evil"))]).await;
        let hard_link = Tar::new().file("f", b"x").hard_link("h", out);
        all_hold(vec![refused("a hard link to a sibling", hard_link)]).await;
    }
    let inside = Tar::new()
        .directory("a", 0o755)
        .file("a/../b", b"x")
        .file("a/./../c", b"y");
    all_hold(vec![case("contained", inside, |merged| {
        merged.holds("b", b"x");
        merged.holds("c", b"y");
    })])
    .await;
}

/// `TestOverlayUntarInvalidWhiteoutNames`.
#[tokio::test(flavor = "multi_thread")]
async fn a19_whiteouts_of_invalid_names() {
    let refuse =
        |name: &'static str| refused(name, Tar::new().directory("d", 0o755).file(name, b""));
    let names = [
        ".wh.",
        ".wh..",
        ".wh...",
        "d/.wh.",
        "d/.wh..",
        "d/.wh...",
        "d/../.wh..",
        "../.wh.x",
    ];
    all_hold(names.into_iter().map(refuse).collect()).await;
}

/// `TestUntarUstarGnuConflict`: a header of GNU's has times where ustar has a prefix.
#[tokio::test(flavor = "multi_thread")]
async fn a19_a_header_of_gnu_has_no_prefix() {
    let mut gnu = header(b'0', b"file", "", 0o644, 1);
    gnu[257..265].copy_from_slice(b"ustar  \0");
    gnu[345..356].copy_from_slice(b"14000000000");
    gnu[357..368].copy_from_slice(b"14000000000");
    seal(&mut gnu);
    let mut ustar = header(b'0', b"name", "", 0o644, 1);
    ustar[345..353].copy_from_slice(b"pre/fix1");
    seal(&mut ustar);
    let layer = Tar::new().raw(&gnu, b"g").raw(&ustar, b"u");
    all_hold(vec![case("both", layer, |merged| {
        merged.holds("file", b"g");
        merged.holds("pre/fix1/name", b"u");
        assert_eq!(merged.manifest.0.len(), 5);
    })])
    .await;
}

/// The same through the archive that ADD extracts.
#[test]
fn a22_an_archive_to_be_added_stays_inside() {
    let canary = Canary::new();
    for name in ["../outside.txt", "../../../../bin/x", "a/../../outside.txt"] {
        let directory = tempfile::tempdir().unwrap();
        let inside = directory.path().join("inside");
        std::fs::create_dir(&inside).unwrap();
        let file = directory.path().join("a.tar");
        let layer = Tar::new()
            .symlink("s", canary.path())
            .file("s/f", b"evil")
            .file(name, b"evil");
        std::fs::write(&file, layer.end()).unwrap();
        let blob = std::fs::File::open(&file).unwrap();
        let root = std::fs::File::open(&inside).unwrap().into();
        let limits = orlop_store::layers::decompress::Limits::default();
        assert!(
            orlop_store::layers::unpack::extract(blob, root, None, limits).is_err(),
            "{name}"
        );
        let mut left = crate::service::names(directory.path());
        left.retain(|name| name != "a.tar" && name != "inside");
        assert!(left.is_empty(), "{left:?}");
    }
    canary.sings();
}

/// What a client extracts has names below its destination only, whatever a layer was called.
#[tokio::test(flavor = "multi_thread")]
async fn a23_an_export_names_nothing_outside() {
    let layer = Tar::new()
        .file("/absolute", b"1")
        .file("a/../b", b"2")
        .file("/../c", b"3")
        .file("..d/...", b"4")
        .file("-rf", b"5")
        .file("\\..\\e", b"6")
        .symlink("up", "../../..")
        .file("up/f", b"7")
        .hard_link("g", "/absolute")
        .end();
    for form in crate::forms::forms() {
        let mut client = crate::client::Client::start_with(form).await;
        let name = client.base(layer.clone()).await;
        client.view("view", &name).await.unwrap();
        let exported = client.export("view").await;
        let mut reader = orlop_store::layers::tar::TarReader::new(exported.as_slice());
        let mut members = 0;
        while let Some(member) = reader.next_member().unwrap() {
            for path in [&member.path, &member.link] {
                let leaves = path.split(|byte| *byte == b'/').any(|part| part == b"..");
                let is_target = member.kind == orlop_store::layers::tar::Kind::Symlink;
                assert!(
                    is_target || !leaves && !path.starts_with(b"/"),
                    "{member:?}"
                );
            }
            members += 1;
        }
        assert_eq!(members, 10, "{:?}", form.layers);
    }
}
