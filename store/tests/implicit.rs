//! Directories that a layer leaves implicit: they look as in the layers below, and a layer that has some
//! belongs to its stack.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;

use jiff::Timestamp;
use orlop_store::snapshots::collect::Names;
use orlop_store::snapshots::images::ImageLayer;

#[path = "support/client.rs"]
mod client;
#[path = "support/service.rs"]
mod service;
#[path = "support/smith.rs"]
mod smith;

use client::Client;
use service::{Service, sha256};
use smith::Tar;

/// A base whose `/data` is the given mode, and a layer with a file in it that says nothing of it.
fn image(service: &Service, mode: u32) -> String {
    let base = Tar::new().directory("data", mode).file("a", b"a").end();
    let layer = Tar::new()
        .file("data/new/file", b"x")
        .file("other/file", b"y")
        .end();
    let layers = [base, layer].map(|tar| {
        let diff_id = sha256(&tar);
        (tar, diff_id)
    });
    let layers: Vec<_> = layers
        .iter()
        .map(|(tar, diff_id)| (tar.as_slice(), diff_id.clone()))
        .collect();
    service.image(&layers)
}

/// The tree of the topmost layer of an image.
async fn top_of(client: &mut Client, image: &str, key: &str) -> PathBuf {
    let parent = client.unpack(image).await.unwrap().name;
    let mount = client.prepare(key, &parent).await.unwrap();
    PathBuf::from(&mount.lower[0])
}

fn mode(path: &std::path::Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

#[tokio::test]
async fn an_implicit_directory_looks_as_in_the_layer_below() {
    let mut client = Client::start().await;
    let image = image(&client.service, 0o1770);
    let top = top_of(&mut client, &image, "k").await;
    assert_eq!(mode(&top.join("data")), 0o1770);
    for (path, expected) in [("data/new", 0o755), ("other", 0o755)] {
        assert_eq!(mode(&top.join(path)), expected, "{path}");
        assert_eq!(top.join(path).metadata().unwrap().mtime(), 0, "{path}");
    }
}

#[tokio::test]
async fn the_same_layer_over_another_base_is_another_layer() {
    let mut client = Client::start().await;
    let (open, closed) = (image(&client.service, 0o755), image(&client.service, 0o700));
    let open = top_of(&mut client, &open, "open").await;
    let closed = top_of(&mut client, &closed, "closed").await;
    assert_ne!(open, closed);
    assert_eq!(mode(&open.join("data")), 0o755);
    assert_eq!(mode(&closed.join("data")), 0o700);
}

#[tokio::test]
async fn the_root_is_the_topmost_that_was_described() {
    let mut client = Client::start().await;
    let base = Tar::new().directory("./", 0o711).end();
    let layer = Tar::new().directory("d", 0o700).end();
    let (base_id, layer_id) = (sha256(&base), sha256(&layer));
    let image = client
        .service
        .image(&[(&base, base_id), (&layer, layer_id)]);
    let parent = client.unpack(&image).await.unwrap().name;
    let mount = client.prepare("k", &parent).await.unwrap();
    assert_eq!(mode(std::path::Path::new(&mount.upper)), 0o711);
}

/// Such a layer has its name before its snapshot has: until then nothing is seen to use it.
#[tokio::test]
async fn a_collection_leaves_a_layer_whose_snapshot_is_about_to_be() {
    let service = Service::start().await;
    let snapshots = &service.store.snapshots;
    for round in 0..20 {
        let tar = Tar::new().file("d/f", round.to_string().as_bytes()).end();
        let layer = ImageLayer {
            digest: service.put(&tar),
            diff_id: sha256(&tar),
        };
        let live = Names::from_iter([layer.diff_id.as_str().into()]);
        let name = std::thread::scope(|scope| {
            let unpacking = scope.spawn(|| snapshots.unpack(&[layer], "").unwrap().name);
            while !unpacking.is_finished() {
                snapshots.collect(&live, Timestamp::MAX, false).unwrap();
            }
            unpacking.join().unwrap()
        });
        let layer = snapshots.stat(&name).unwrap().layer.unwrap();
        assert!(service.state().join("layers").join(layer).is_dir());
    }
}
