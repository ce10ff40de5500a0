//! What file operations must not do to the host.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

use orlop_proto::error::Kind;
use orlop_proto::store::file_op::Op;
use orlop_proto::store::{CopyEntries, Extract, Mkdir, RemovePath};

#[path = "support/client.rs"]
mod client;
#[path = "support/service.rs"]
mod service;
#[path = "support/smith.rs"]
mod smith;
use client::{Client, bytes, emptied, file, kind};
use smith::{Canary, Tar};

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
