//! `orlop system check`: nothing to find on a host in use, damage found, repaired, and healed.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::fs;
use std::path::PathBuf;

use orlop_tests::Instance;

/// The largest blob: the layer of the one image.
fn layer(orlop: &Instance) -> PathBuf {
    let blobs = orlop.root().join("store/blobs/sha256");
    let entries = fs::read_dir(blobs).unwrap();
    let sized = entries.map(|entry| {
        let entry = entry.unwrap();
        (entry.metadata().unwrap().len(), entry.path())
    });
    sized.max().unwrap().1
}

#[test]
fn a_check_finds_damage_and_nothing_else() {
    let orlop = Instance::with_busybox();
    orlop
        .run(&["run", "--name", "box", "busybox", "touch", "/x"])
        .success();
    for args in [&["--rehash"][..], &["--rehash", "--repair"]] {
        let command = ["system", "check"].iter().chain(args).copied();
        orlop
            .run(&command.collect::<Vec<_>>())
            .success()
            .stdout_is("nothing found\n");
    }

    let blob = layer(&orlop);
    let digest = format!("sha256:{}", blob.file_name().unwrap().to_str().unwrap());
    let mut bytes = fs::read(&blob).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&blob, bytes).unwrap();
    let archive = orlop.root().join("busybox.tar");
    orlop
        .run(&["save", "-o", archive.to_str().unwrap(), "busybox"])
        .exits(1)
        .stderr_has(&digest);
    orlop
        .run(&["system", "check"])
        .exits(1)
        .stdout_has("dangling-name: docker.io/library/busybox:latest")
        .stdout_has(&digest)
        .stdout_has("1 left, 0 repaired");
    let foreign = orlop.root().join("store/blobs/mine");
    fs::write(&foreign, b"mine").unwrap();
    orlop
        .run(&["system", "check", "--repair"])
        .exits(1)
        .stdout_has("foreign-file: blobs/mine")
        .stdout_has("1 left, 1 repaired");
    assert!(!foreign.exists());

    orlop.import_busybox("busybox");
    orlop
        .run(&["system", "check", "--rehash"])
        .success()
        .stdout_is("nothing found\n");
    orlop
        .run(&["run", "--rm", "busybox", "echo", "works"])
        .success()
        .stdout_is("works\n");
}
