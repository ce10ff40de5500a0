//! Rows A11 and A26: somebody swaps directories for links while a tree is made or removed.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use orlop_store::layers::decompress::Limits;
use orlop_store::layers::unpack::extract;
use rustix::fs::{RenameFlags, renameat_with};

use crate::client::Client;
use crate::forms::forms;
use crate::smith::{Canary, Tar};

/// Row A11 asks for so many.
const SWAPS: u64 = 20_000;
const ROUNDS_MAX: u64 = 20_000;

/// Swaps `d` and `link` as long as it is asked to, whether they are there or not.
fn swap(root: impl AsFd, going: &AtomicBool, swaps: &AtomicU64) {
    while going.load(Ordering::Relaxed) {
        let swapped = renameat_with(&root, "d", &root, "link", RenameFlags::EXCHANGE);
        swaps.fetch_add(u64::from(swapped.is_ok()), Ordering::Relaxed);
    }
}

/// Makes things in `d` in all ways.
fn busy_layer() -> Vec<u8> {
    let tar = (0..20).fold(Tar::new(), |tar, number| {
        let name = |kind: &str| format!("d/{kind}{number}");
        tar.file_mode(&name("f"), 0o4777, b"evil")
            .directory(&name("sub/deep"), 0o777)
            .symlink(&name("s"), "f")
            .hard_link(&name("h"), &name("f"))
            .file("d/f", b"evil")
            .directory("d/d", 0o777)
            .file("d/.wh.f", b"")
    });
    tar.end()
}

#[test]
fn a11_a_directory_that_is_swapped_for_a_link_while_unpacking() {
    let canary = Canary::new();
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let layer = root.join("layer.tar");
    fs::write(&layer, busy_layer()).unwrap();
    let (going, swaps) = (AtomicBool::new(true), AtomicU64::new(0));
    let tree = root.join("tree");
    fs::create_dir(&tree).unwrap();
    fs::create_dir(tree.join("d")).unwrap();
    std::os::unix::fs::symlink(canary.path(), tree.join("link")).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| swap(File::open(&tree).unwrap(), &going, &swaps));
        for round in 0..ROUNDS_MAX {
            if swaps.load(Ordering::Relaxed) > SWAPS && round > 20 {
                break;
            }
            let to = File::open(&tree).unwrap().into();
            let outcome = extract(File::open(&layer).unwrap(), to, None, Limits::default());
            drop(outcome);
        }
        going.store(false, Ordering::Relaxed);
    });
    canary.sings();
    assert!(
        swaps.load(Ordering::Relaxed) > SWAPS,
        "{swaps:?} swaps are no race"
    );
}

fn fill(upper: &Path, canary: &Canary) {
    for number in 0..40 {
        let deep = upper.join(format!("d/{number}/deep/er"));
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("f"), b"x").unwrap();
    }
    std::os::unix::fs::symlink(canary.path(), upper.join("link")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a26_a_directory_that_is_swapped_for_a_link_while_removing() {
    let canary = Canary::new();
    for form in forms() {
        let mut client = Client::start_with(form).await;
        let (going, swaps) = (AtomicBool::new(true), AtomicU64::new(0));
        for round in 0..60 {
            let key = format!("work-{round}");
            let mount = client.prepare(&key, "").await.unwrap();
            let upper = Path::new(&mount.upper);
            fill(upper, &canary);
            let handle = File::open(upper).unwrap();
            going.store(true, Ordering::Relaxed);
            tokio::task::block_in_place(|| {
                std::thread::scope(|scope| {
                    scope.spawn(|| swap(&handle, &going, &swaps));
                    let runtime = tokio::runtime::Handle::current();
                    let removed = runtime.block_on(client.remove(&key));
                    // What is swapped all the time may stay in the trash until the next start.
                    std::thread::sleep(Duration::from_millis(20));
                    going.store(false, Ordering::Relaxed);
                    removed.unwrap();
                });
            });
            canary.sings();
        }
        assert!(
            swaps.load(Ordering::Relaxed) > 100,
            "{swaps:?} swaps are no race"
        );
    }
}
