//! `Snapshots.Apply`: what COPY, ADD and WORKDIR need.

use std::collections::BTreeMap;

use orlop_proto::error::Kind;
use orlop_proto::store as pb;
use orlop_proto::store::file_op::Op;

use crate::calls::{at, bytes, file, kind, owner};
use crate::reach::Subject;
use crate::smith::Tar;
use crate::words::{gzip, listing, zstd};

conforms! {
    copies_follow_dockers_rules,
    what_is_excluded_is_left_out,
    links_are_followed_or_kept,
    copies_have_the_owner_and_mode_that_are_asked_for,
    entries_are_placed_or_refused,
    directories_are_made_with_their_parents,
    an_archive_is_extracted,
    a_path_is_removed_with_all_below_it,
    owners_are_looked_up_in_the_snapshot,
    operations_come_in_order_and_stop_at_the_first_error,
    callers_on_one_snapshot_take_turns,
    applying_needs_an_active_snapshot,
}

fn tree() -> Vec<u8> {
    Tar::new()
        .directory("etc", 0o755)
        .file("etc/passwd", b"root:x:0:0::/:\nweb:x:33:34::/:\n")
        .file("etc/group", b"web:x:35:\n")
        .directory("usr", 0o755)
        .directory("usr/lib", 0o750)
        .symlink("lib", "usr/lib")
        .file("usr/lib/a.js", b"a")
        .file("usr/lib/b.js", b"b")
        .file_mode("usr/lib/c.txt", 0o600, b"c")
        .directory("usr/lib/deep", 0o711)
        .directory("usr/lib/deep/er", 0o755)
        .file("usr/lib/deep/d.txt", b"d")
        .file("usr/lib/deep/er/e.js", b"e")
        .symlink("usr/lib/deep/up", "../a.js")
        .symlink("link", "/usr/lib/a.js")
        .end()
}

/// An active snapshot over a tree, and the name of the tree.
async fn work(store: &Subject) -> String {
    let base = store.base(&tree()).await;
    store.prepare("w", &base).await.unwrap();
    base
}

fn copy(from: &str, sources: &[&str], dest: &str) -> pb::CopySnapshot {
    pb::CopySnapshot {
        from: from.to_owned(),
        sources: sources.iter().map(|source| bytes(source)).collect(),
        dest: bytes(dest),
        dest_is_dir: dest.ends_with('/'),
        ..Default::default()
    }
}

async fn apply_copies(store: &Subject, copies: Vec<pb::CopySnapshot>) -> u64 {
    let ops = copies.into_iter().map(Op::CopySnapshot).collect();
    store.apply("w", ops).await.unwrap()
}

async fn entries(store: &Subject, below: &str) -> BTreeMap<String, String> {
    let tree = listing(&store.export("w").await.unwrap());
    let entries = tree.into_iter().filter_map(|(path, facts)| {
        let path = path.strip_prefix(below)?.strip_prefix('/')?.to_owned();
        Some((path, facts))
    });
    entries.collect()
}

async fn names(store: &Subject, below: &str) -> Vec<String> {
    entries(store, below).await.into_keys().collect()
}

async fn copies_follow_dockers_rules(store: Subject) {
    let base = work(&store).await;
    let copies = vec![
        copy(&base, &["/lib/*.js"], "/js/"),
        copy(&base, &["lib"], "/all"),
        copy(&base, &["/lib/"], "/same"),
        copy(&base, &["/lib/a.js"], "/renamed"),
        copy(&base, &["/lib/c.txt"], "/js"),
        copy(&base, &["/lib/a.js"], "/made/on/the/way"),
        copy(&base, &["/lib/[c-d].txt", "etc/passwd"], "/several/"),
        copy(&base, &["/u*/l?b/deep/d.txt"], "/through/"),
        copy(&base, &["/usr/lib/deep"], "/lib"),
    ];
    assert!(apply_copies(&store, copies).await >= 20);
    assert_eq!(names(&store, "js").await, ["a.js", "b.js", "c.txt"]);
    let whole = [
        "a.js",
        "b.js",
        "c.txt",
        "deep",
        "deep/d.txt",
        "deep/er",
        "deep/er/e.js",
        "deep/up",
    ];
    for all in ["all", "same"] {
        assert_eq!(names(&store, all).await, whole);
    }
    assert_eq!(entries(&store, "all").await, entries(&store, "same").await);
    for (path, content) in [
        ("renamed", "a"),
        ("made/on/the/way", "a"),
        ("several/c.txt", "c"),
        ("through/d.txt", "d"),
        // A destination's link is followed, and what the directory had stays.
        ("usr/lib/er/e.js", "e"),
        ("usr/lib/d.txt", "d"),
        ("usr/lib/a.js", "a"),
    ] {
        assert_eq!(
            store.read("w", path).await.unwrap(),
            content.as_bytes(),
            "{path}"
        );
    }
    for sources in [
        &["/lib/*.rs"][..],
        &["/nothing"],
        &["/lib/a.js", "/nothing"],
        &["/lib/a.js/x"],
    ] {
        let none = Op::CopySnapshot(copy(&base, sources, "/x/"));
        assert_eq!(
            kind(store.apply("w", vec![none]).await),
            Kind::NotFound,
            "{sources:?}"
        );
    }
    let nobody = Op::CopySnapshot(copy("nobody", &["/"], "/x/"));
    assert_eq!(kind(store.apply("w", vec![nobody]).await), Kind::NotFound);
    // A file over a directory, and the other way round.
    for (source, dest) in [("/lib/a.js", "/over/"), ("/lib", "/renamed")] {
        let over = pb::Mkdir {
            path: bytes("/over/a.js"),
            ..Default::default()
        };
        let copy = Op::CopySnapshot(copy(&base, &[source], dest));
        let answer = store.apply("w", vec![Op::Mkdir(over), copy]).await;
        assert_eq!(kind(answer), Kind::InvalidArgument, "{source}");
    }
}

async fn what_is_excluded_is_left_out(store: Subject) {
    let base = work(&store).await;
    let without = |patterns: &[&str], sources: &[&str], dest: &str| pb::CopySnapshot {
        exclude: patterns.iter().map(|&pattern| pattern.to_owned()).collect(),
        ..copy(&base, sources, dest)
    };
    let copies = vec![
        without(&["*.js"], &["/lib"], "/top"),
        without(&["**/*.js"], &["/lib"], "/everywhere"),
        without(&["deep"], &["/lib"], "/shallow"),
        without(&["/deep/", "*.txt"], &["/lib"], "/slashes"),
        without(&["*", "!deep/er/*.js"], &["/lib"], "/back"),
        without(&["*.js", "!a.js"], &["/lib/*.js"], "/files/"),
        without(&["*.js"], &["/lib/a.js"], "/nothing/"),
    ];
    apply_copies(&store, copies).await;
    let deep = ["deep", "deep/d.txt", "deep/er"];
    let after_deep = ["deep/er/e.js", "deep/up"];
    let top = [&["c.txt"][..], &deep, &after_deep].concat();
    assert_eq!(names(&store, "top").await, top);
    let everywhere = [&["c.txt"][..], &deep, &["deep/up"]].concat();
    assert_eq!(names(&store, "everywhere").await, everywhere);
    assert_eq!(names(&store, "shallow").await, ["a.js", "b.js", "c.txt"]);
    assert_eq!(names(&store, "slashes").await, ["a.js", "b.js"]);
    assert_eq!(names(&store, "files").await, ["a.js"]);
    assert!(names(&store, "nothing").await.is_empty());
    // The directories above what was taken back in are made as they are in the source.
    let back = entries(&store, "back").await;
    let source = entries(&store, "shallow/..").await;
    assert!(source.is_empty());
    assert_eq!(
        back.keys().collect::<Vec<_>>(),
        ["deep", "deep/er", "deep/er/e.js"]
    );
    assert!(
        back["deep"].starts_with("Directory 711 "),
        "{}",
        back["deep"]
    );
    for bad in ["[", "a\\", "!"] {
        let copy = Op::CopySnapshot(without(&[bad], &["/lib"], "/bad"));
        assert_eq!(
            kind(store.apply("w", vec![copy]).await),
            Kind::InvalidArgument,
            "{bad}"
        );
    }
}

async fn links_are_followed_or_kept(store: Subject) {
    let base = work(&store).await;
    let keeping = |sources: &[&str], dest: &str| pb::CopySnapshot {
        keep_links: true,
        ..copy(&base, sources, dest)
    };
    let copies = vec![
        copy(&base, &["/link"], "/followed/"),
        keeping(&["/link"], "/kept/"),
        keeping(&["/link"], "/renamed"),
        keeping(&["/lib"], "/directory/"),
        keeping(&["/l*"], "/both/"),
        keeping(&["/lib/a.js"], "/through/"),
    ];
    apply_copies(&store, copies).await;
    let is_link = |facts: &String| facts.starts_with("Symlink");
    assert!(!is_link(&entries(&store, "followed").await["link"]));
    assert!(is_link(&entries(&store, "kept").await["link"]));
    assert!(is_link(&entries(&store, "directory").await["lib"]));
    let both = entries(&store, "both").await;
    assert!(both.len() == 2 && both.values().all(is_link));
    assert!(!is_link(&entries(&store, "through").await["a.js"]));
    let tree = listing(&store.export("w").await.unwrap());
    assert!(is_link(&tree["renamed"]) && tree["renamed"].contains("/usr/lib/a.js"));
    assert_eq!(store.read("w", "renamed").await.unwrap(), b"a");
}

async fn copies_have_the_owner_and_mode_that_are_asked_for(store: Subject) {
    let base = work(&store).await;
    let copies = vec![
        copy(&base, &["/lib/c.txt"], "/plain/"),
        pb::CopySnapshot {
            owner: owner("web:web"),
            mode: Some(0o4711),
            ..copy(&base, &["/lib"], "/owned")
        },
    ];
    apply_copies(&store, copies).await;
    let plain = entries(&store, "plain").await;
    assert!(plain["c.txt"].starts_with("Regular 600 0:0 "), "{plain:?}");
    let owned = entries(&store, "owned").await;
    assert!(
        owned["c.txt"].starts_with("Regular 4711 33:35 "),
        "{owned:?}"
    );
    assert!(
        owned["deep/er"].starts_with("Directory 4711 33:35 "),
        "{owned:?}"
    );
    assert!(owned["deep/up"].contains(" 33:35 "), "{owned:?}");
}

async fn entries_are_placed_or_refused(store: Subject) {
    work(&store).await;
    let blob = store.blob(b"blob").await;
    let entries = |dest: &str, dest_is_dir, entries| {
        Op::CopyEntries(pb::CopyEntries {
            dest: bytes(dest),
            dest_is_dir,
            entries,
            owner: None,
            mode: Some(0o600),
        })
    };
    let link = pb::Entry {
        path: bytes("link"),
        kind: pb::EntryKind::Symlink.into(),
        link_target: bytes("/etc"),
        ..Default::default()
    };
    let ops = vec![
        entries("/lib", false, vec![file("into", &blob, 0o644)]),
        entries("/one", false, vec![file("ignored", &blob, 0o644)]),
        entries("/links", true, vec![link.clone()]),
        entries("/links", true, vec![link]),
        entries("/", true, vec![file("at-the-top", &blob, 0o644)]),
    ];
    assert!(store.apply("w", ops).await.unwrap() >= 5);
    for path in ["usr/lib/into", "one", "at-the-top"] {
        assert_eq!(store.read("w", path).await.unwrap(), b"blob", "{path}");
    }
    assert_eq!(
        store.read("w", "links/link/group").await.unwrap(),
        b"web:x:35:\n"
    );
    let placed = listing(&store.export("w").await.unwrap());
    assert!(
        placed["one"].starts_with("Regular 600 0:0 1000 "),
        "{}",
        placed["one"]
    );
    for path in ["../x", "/x", "a/../b", "", "a\0b", "a//b", "."] {
        let bad = entries("/x", true, vec![file(path, &blob, 0o644)]);
        assert_eq!(
            kind(store.apply("w", vec![bad]).await),
            Kind::InvalidArgument,
            "{path:?}"
        );
    }
    let over = entries("/usr", true, vec![file("lib", &blob, 0o644)]);
    assert_eq!(
        kind(store.apply("w", vec![over]).await),
        Kind::InvalidArgument
    );
    let absent = crate::words::digest(b"absent");
    let absent = entries("/x", true, vec![file("f", &absent, 0o644)]);
    assert_eq!(kind(store.apply("w", vec![absent]).await), Kind::NotFound);
    let odd = entries(
        "/x",
        true,
        vec![pb::Entry {
            path: bytes("f"),
            ..Default::default()
        }],
    );
    assert_eq!(
        kind(store.apply("w", vec![odd]).await),
        Kind::InvalidArgument
    );
}

async fn directories_are_made_with_their_parents(store: Subject) {
    work(&store).await;
    let mkdir = |path: &str, mode| {
        Op::Mkdir(pb::Mkdir {
            path: bytes(path),
            mode,
            owner: owner("7:web"),
            mtime: at(5),
        })
    };
    let ops = vec![
        mkdir("/a/b/c", 0),
        mkdir("/a/b/c", 0o700),
        mkdir("/m", 0o1777),
        mkdir("/lib/in", 0),
    ];
    assert_eq!(store.apply("w", ops).await.unwrap(), 5);
    let tree = listing(&store.export("w").await.unwrap());
    assert!(
        tree["a/b"].starts_with("Directory 755 0:0 5 "),
        "{}",
        tree["a/b"]
    );
    assert!(
        tree["a/b/c"].starts_with("Directory 755 7:35 5 "),
        "{}",
        tree["a/b/c"]
    );
    assert!(
        tree["m"].starts_with("Directory 1777 7:35 5 "),
        "{}",
        tree["m"]
    );
    assert!(tree.contains_key("usr/lib/in"));
    for bad in ["/etc/passwd", "/etc/passwd/below", "a\0b"] {
        assert_eq!(
            kind(store.apply("w", vec![mkdir(bad, 0)]).await),
            Kind::InvalidArgument,
            "{bad:?}"
        );
    }
}

async fn an_archive_is_extracted(store: Subject) {
    work(&store).await;
    let tar = Tar::new()
        .directory("d", 0o700)
        .file("d/f", b"1")
        .file(".wh.f", b"no whiteout here")
        .end();
    let extract = |digest: &str, dest: &str, spec: &str| {
        Op::Extract(pb::Extract {
            digest: digest.to_owned(),
            dest: bytes(dest),
            owner: owner(spec),
        })
    };
    for (n, blob) in [tar.clone(), gzip(&tar), zstd(&tar)].iter().enumerate() {
        let digest = store.blob(blob).await;
        let dest = format!("/x{n}");
        let made = store
            .apply("w", vec![extract(&digest, &dest, "web")])
            .await
            .unwrap();
        assert_eq!(made, 3);
        let entries = entries(&store, &dest[1..]).await;
        assert_eq!(entries.keys().collect::<Vec<_>>(), [".wh.f", "d", "d/f"]);
        assert!(
            entries["d"].starts_with("Directory 700 33:34 "),
            "{}",
            entries["d"]
        );
    }
    let digest = store.blob(&tar).await;
    store
        .apply("w", vec![extract(&digest, "/lib", "")])
        .await
        .unwrap();
    assert_eq!(store.read("w", "usr/lib/d/f").await.unwrap(), b"1");
    let bad = store.blob(&Tar::new().file("../x", b"").end()).await;
    assert_eq!(
        kind(store.apply("w", vec![extract(&bad, "/y", "")]).await),
        Kind::InvalidArgument
    );
    let absent = crate::words::digest(b"absent");
    assert_eq!(
        kind(store.apply("w", vec![extract(&absent, "/y", "")]).await),
        Kind::NotFound
    );
}

async fn a_path_is_removed_with_all_below_it(store: Subject) {
    work(&store).await;
    let remove = |path: &str| vec![Op::Remove(pb::RemovePath { path: bytes(path) })];
    for path in [
        "/lib/deep",
        "/link",
        "/not/there",
        "/etc/passwd/below",
        "/link",
    ] {
        store.apply("w", remove(path)).await.unwrap();
    }
    assert_eq!(names(&store, "usr/lib").await, ["a.js", "b.js", "c.txt"]);
    store.apply("w", remove("/lib")).await.unwrap();
    assert_eq!(store.read("w", "usr/lib/a.js").await.unwrap(), b"a");
    for bad in ["/", "", ".", "..", "/usr/..", "a\0b"] {
        assert_eq!(
            kind(store.apply("w", remove(bad)).await),
            Kind::InvalidArgument,
            "{bad:?}"
        );
    }
}

async fn owners_are_looked_up_in_the_snapshot(store: Subject) {
    work(&store).await;
    let mkdir = |n: usize, spec: &str| {
        Op::Mkdir(pb::Mkdir {
            path: bytes(&format!("/m/{n}")),
            owner: owner(spec),
            ..Default::default()
        })
    };
    let good = [
        ("", "0:0"),
        ("web", "33:34"),
        ("web:web", "33:35"),
        ("7", "7:7"),
        ("7:web", "7:35"),
        ("web:9", "33:9"),
    ];
    for (n, (spec, expected)) in good.into_iter().enumerate() {
        store.apply("w", vec![mkdir(n, spec)]).await.unwrap();
        let facts = &entries(&store, "m").await[&n.to_string()];
        assert!(facts.contains(&format!(" {expected} ")), "{spec}: {facts}");
    }
    for spec in [
        "4294967296",
        "-1",
        "nobody",
        "web:nobody",
        ":",
        "2147483648",
    ] {
        let answer = store.apply("w", vec![mkdir(99, spec)]).await;
        assert_eq!(kind(answer), Kind::InvalidArgument, "{spec}");
    }
    // The file of the snapshot itself, as it is by now.
    let blob = store.blob(b"new:x:77:78::/:\n").await;
    let copy = pb::CopyEntries {
        dest: bytes("/etc/passwd"),
        entries: vec![file("passwd", &blob, 0o644)],
        ..Default::default()
    };
    store
        .apply("w", vec![Op::CopyEntries(copy), mkdir(98, "new")])
        .await
        .unwrap();
    assert!(entries(&store, "m").await["98"].contains(" 77:78 "));
}

async fn operations_come_in_order_and_stop_at_the_first_error(store: Subject) {
    work(&store).await;
    let mkdir = |path: &str| {
        Op::Mkdir(pb::Mkdir {
            path: bytes(path),
            ..Default::default()
        })
    };
    let remove = |path: &str| Op::Remove(pb::RemovePath { path: bytes(path) });
    let ops = vec![
        mkdir("/a"),
        remove("/a"),
        mkdir("/b"),
        remove("/"),
        mkdir("/c"),
    ];
    assert_eq!(kind(store.apply("w", ops).await), Kind::InvalidArgument);
    let tree = listing(&store.export("w").await.unwrap());
    assert!(!tree.contains_key("a") && tree.contains_key("b") && !tree.contains_key("c"));

    // Several messages; only the first one names the snapshot.
    let message = |key: &str, op: Op| pb::ApplyRequest {
        key: key.to_owned(),
        ops: vec![pb::FileOp { op: Some(op) }],
    };
    let messages = vec![message("w", mkdir("/d")), message("", mkdir("/d/e"))];
    let answer = store
        .snapshots()
        .apply(tokio_stream::iter(messages))
        .await
        .unwrap();
    assert_eq!(answer.into_inner().entries, 2);
    let nothing = pb::ApplyRequest {
        key: "w".to_owned(),
        ops: vec![pb::FileOp { op: None }],
    };
    let answer = store.snapshots().apply(tokio_stream::once(nothing)).await;
    assert_eq!(kind(answer), Kind::InvalidArgument);
}

async fn callers_on_one_snapshot_take_turns(store: Subject) {
    work(&store).await;
    let calls = (0..8).map(|n| {
        let store = store.clone();
        tokio::spawn(async move {
            let mkdir = |name: &str| {
                Op::Mkdir(pb::Mkdir {
                    path: bytes(&format!("/turns/{name}")),
                    ..Default::default()
                })
            };
            let own = n.to_string();
            store.apply("w", vec![mkdir("same"), mkdir(&own)]).await
        })
    });
    let mut made = 0;
    for call in calls.collect::<Vec<_>>() {
        made += call.await.unwrap().unwrap();
    }
    // `/turns`, `same` and eight of their own.
    assert_eq!((made, names(&store, "turns").await.len()), (10, 9));
}

async fn applying_needs_an_active_snapshot(store: Subject) {
    let base = work(&store).await;
    assert_eq!(
        kind(store.apply(&base, Vec::new()).await),
        Kind::FailedPrecondition
    );
    assert_eq!(
        kind(store.apply("nobody", Vec::new()).await),
        Kind::NotFound
    );
    assert_eq!(store.apply("w", Vec::new()).await.unwrap(), 0);
    let none = store.snapshots().apply(tokio_stream::empty()).await;
    assert_eq!(kind(none), Kind::InvalidArgument);
}
