//! File operations on active snapshots, through a socket.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

use orlop_proto::error::Kind;
use orlop_proto::store::file_op::Op;
use orlop_proto::store::{CopyEntries, CopySnapshot, Entry, EntryKind, Extract, Mkdir, RemovePath};

#[path = "support/client.rs"]
mod client;
#[path = "support/service.rs"]
mod service;
#[path = "support/smith.rs"]
mod smith;
use client::{Client, bytes, emptied, file, kind, owner, passwd};
use smith::{Canary, Tar};

#[tokio::test(flavor = "multi_thread")]
async fn copies_follow_dockers_rules() {
    let mut client = Client::start().await;
    let base = client.base(passwd().end()).await;
    client.prepare("w", &base).await.unwrap();
    let copy = |sources: &[&str], dest: &str, dest_is_dir| {
        Op::CopySnapshot(CopySnapshot {
            from: base.clone(),
            sources: sources.iter().map(|source| bytes(source)).collect(),
            dest: bytes(dest),
            dest_is_dir,
            owner: None,
            mode: None,
            exclude: Vec::new(),
            keep_links: false,
        })
    };
    let ops = vec![
        copy(&["/lib/*.js"], "/js/", true),
        copy(&["lib"], "/all", false),
        copy(&["/lib/a.js"], "/renamed", false),
        copy(&["/lib/a.js"], "/js", false),
        copy(&["/lib/[c-d].txt", "etc/passwd"], "/several", true),
    ];
    assert!(client.apply("w", ops).await.unwrap() >= 9);
    for (path, content) in [
        ("js/a.js", "a"),
        ("js/b.js", "b"),
        ("all/c.txt", "c"),
        ("renamed", "a"),
        ("several/c.txt", "c"),
    ] {
        assert_eq!(
            client.read("w", path).await.unwrap(),
            content.as_bytes(),
            "{path}"
        );
    }
    assert_eq!(kind(client.read("w", "js/c.txt").await), Kind::NotFound);
    let none = vec![copy(&["/lib/*.rs"], "/x/", true)];
    assert_eq!(kind(client.apply("w", none).await), Kind::NotFound);
    let none = vec![copy(&["/nothing"], "/x/", true)];
    assert_eq!(kind(client.apply("w", none).await), Kind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_are_placed_or_refused() {
    let mut client = Client::start().await;
    let base = client.base(passwd().end()).await;
    client.prepare("w", &base).await.unwrap();
    let blob = client.service.put(b"blob");
    let entries = |dest: &str, dest_is_dir, entries| {
        Op::CopyEntries(CopyEntries {
            dest: bytes(dest),
            dest_is_dir,
            entries,
            owner: None,
            mode: Some(0o600),
        })
    };
    let link = Entry {
        path: bytes("link"),
        kind: EntryKind::Symlink.into(),
        link_target: bytes("/etc"),
        ..Default::default()
    };
    let ops = vec![
        entries("/lib", false, vec![file("into", &blob, 0o644)]),
        entries("/one", false, vec![file("ignored", &blob, 0o644)]),
        entries("/links", true, vec![link]),
    ];
    client.apply("w", ops).await.unwrap();
    assert_eq!(client.read("w", "usr/lib/into").await.unwrap(), b"blob");
    assert_eq!(client.read("w", "one").await.unwrap(), b"blob");
    assert_eq!(
        client.read("w", "links/link/group").await.unwrap(),
        b"web:x:35:\n"
    );
    let bad = |path| vec![entries("/x", true, vec![file(path, &blob, 0o644)])];
    for path in ["../x", "/x", "a/../b", "", "a\0b"] {
        assert_eq!(
            kind(client.apply("w", bad(path)).await),
            Kind::InvalidArgument,
            "{path:?}"
        );
    }
    let over = vec![entries("/usr", true, vec![file("lib", &blob, 0o644)])];
    assert_eq!(kind(client.apply("w", over).await), Kind::InvalidArgument);
    assert_eq!(
        kind(client.apply(&base, Vec::new()).await),
        Kind::FailedPrecondition
    );
    assert_eq!(
        kind(client.apply("nobody", Vec::new()).await),
        Kind::NotFound
    );
    for spec in ["4294967296", "-1", "nobody", "web:nobody"] {
        let mkdir = Mkdir {
            path: bytes("/m"),
            owner: owner(spec),
            ..Default::default()
        };
        let refused = client.apply("w", vec![Op::Mkdir(mkdir)]).await;
        assert_eq!(kind(refused), Kind::InvalidArgument, "{spec}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a2_operations_never_leave_the_snapshot() {
    let canary = Canary::new();
    let mut client = Client::start().await;
    let base = Tar::new()
        .symlink("out", canary.path())
        .symlink("up", &format!("../../../../../..{}", canary.path()))
        .symlink("file", &format!("{}/f", canary.path()))
        .end();
    let base = client.base(base).await;
    client.prepare("w", &base).await.unwrap();
    let blob = client.service.put(b"evil");
    let tar = Tar::new()
        .symlink("a", "/")
        .file(&format!("a{}/f", canary.path()), b"evil")
        .end();
    let tar = client.service.put(&tar);
    let entries = |dest: &str, dest_is_dir| {
        Op::CopyEntries(CopyEntries {
            dest: bytes(dest),
            dest_is_dir,
            entries: vec![file("f", &blob, 0o777)],
            ..Default::default()
        })
    };
    let ops = vec![
        entries("/out", true),
        entries("/up/d", true),
        entries("/file", false),
        entries(&format!("/../../..{}", canary.path()), true),
        Op::Mkdir(Mkdir {
            path: bytes("/out/made"),
            mode: 0o777,
            ..Default::default()
        }),
        Op::Extract(Extract {
            digest: tar,
            dest: bytes("/up"),
            owner: None,
        }),
        Op::Remove(RemovePath {
            path: bytes("/up/f"),
        }),
        Op::Remove(RemovePath {
            path: bytes("/out/d"),
        }),
        Op::Remove(RemovePath {
            path: bytes("/out"),
        }),
    ];
    client.apply("w", ops).await.unwrap();
    canary.sings();
    assert_eq!(kind(client.read("w", "/file").await), Kind::NotFound);
    client.remove("w").await.unwrap();
    emptied(&client.service.state().join("trash")).await;
    canary.sings();
}
