//! Images that other tools write, against what these tools make of them.

use std::fs;
use std::path::Path;
use std::process::Command;

use orlop_proto::store::SnapshotMount;

use crate::docker::Docker;
use crate::forms::Tree;
use crate::kinds::{PAX, every_kind, tar};
use crate::manifest::Manifest;
use crate::trip::{Source, becomes};

#[track_caller]
fn run(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).output();
    let out = out.unwrap_or_else(|error| panic!("install {program}: {error}"));
    assert!(
        out.status.success(),
        "{program} {args:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

/// What the second layer changes of the first.
fn change(root: &Path) {
    for gone in ["one", "d755", "size-511", "null", "link-101"] {
        let path = root.join(gone);
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap()
        } else {
            fs::remove_file(path).unwrap()
        }
    }
    fs::remove_dir_all(root.join("far")).unwrap();
    fs::create_dir(root.join("far")).unwrap();
    fs::write(root.join("far/new"), b"new").unwrap();
    fs::write(root.join("size-512"), b"other bytes").unwrap();
    fs::remove_file(root.join("pipe")).unwrap();
    fs::create_dir(root.join("pipe")).unwrap();
    fs::write(root.join("d700"), b"").unwrap_or_default();
    fs::hard_link(root.join("size-513"), root.join("size-513-again")).unwrap();
}

/// An OCI layout as an archive.
fn archive(layout: &Path) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    let (to, from) = (file.path().to_str().unwrap(), layout.to_str().unwrap());
    run("tar", &["-cf", to, "-C", from, "."]);
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_of_umoci() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let image = format!("{}:v1", path("layout"));
    run("umoci", &["init", "--layout", &path("layout")]);
    run("umoci", &["new", "--image", &image]);
    for layer in [|root: &Path| every_kind(root, true), change] {
        let bundle = tempfile::tempdir_in(directory.path()).unwrap();
        let bundle = bundle.path().join("b").to_str().unwrap().to_owned();
        run("umoci", &["unpack", "--image", &image, &bundle]);
        layer(&Path::new(&bundle).join("rootfs"));
        run("umoci", &["repack", "--image", &image, &bundle]);
    }
    let expected = umoci_makes(Path::new(&path("layout")), "v1");
    let archive = archive(Path::new(&path("layout")));
    becomes(Source::Archive(archive.path()), &expected, |manifest| {
        manifest
    })
    .await;
}

/// What umoci unpacks of an OCI layout.
fn umoci_makes(layout: &Path, tag: &str) -> Manifest {
    let directory = tempfile::tempdir().unwrap();
    let to = directory.path().join("root");
    let image = format!("{}:{tag}", layout.display());
    run(
        "umoci",
        &["raw", "unpack", "--image", &image, to.to_str().unwrap()],
    );
    Manifest::of(&to)
}

/// Go's reader takes an empty value for none, where GNU tar and we keep it. And buildah says nothing
/// of the root directory.
fn without_empty(manifest: Manifest) -> Manifest {
    let mut manifest = manifest.without_root();
    for node in manifest.0.values_mut() {
        node.xattrs.retain(|_, value| !value.is_empty());
    }
    manifest
}

struct Buildah(tempfile::TempDir);

impl Buildah {
    fn run(&self, args: &[&str]) -> String {
        let (root, state) = (self.0.path().join("root"), self.0.path().join("run"));
        let own = [
            "--root",
            root.to_str().unwrap(),
            "--runroot",
            state.to_str().unwrap(),
        ];
        run(
            "buildah",
            &[&own, &["--storage-driver", "vfs"][..], args].concat(),
        )
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_of_buildah() {
    let buildah = Buildah(tempfile::tempdir_in("/var/tmp").unwrap());
    let layout = buildah.0.path().join("layout");
    let mut from = "scratch".to_owned();
    for (number, layer) in [|root: &Path| every_kind(root, true), change]
        .iter()
        .enumerate()
    {
        let container = buildah.run(&["from", &from]);
        let mounted = buildah.run(&["mount", &container]);
        layer(Path::new(&mounted));
        from = format!("made:{number}");
        buildah.run(&["commit", &container, &from]);
    }
    buildah.run(&["push", &from, &format!("oci:{}:v1", layout.display())]);
    let expected = umoci_makes(&layout, "v1");
    let archive = archive(&layout);
    becomes(Source::Archive(archive.path()), &expected, without_empty).await;
    buildah.run(&["rm", "--all"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_of_docker() {
    let docker = Docker::start();
    let context = tempfile::tempdir().unwrap();
    let root = context.path().join("root");
    fs::create_dir(&root).unwrap();
    every_kind(&root, true);
    fs::create_dir(root.join("bin")).unwrap();
    fs::copy("/bin/busybox", root.join("bin/sh")).unwrap();
    fs::write(context.path().join("root.tar"), tar(&root, &PAX)).unwrap();
    fs::remove_dir_all(&root).unwrap();
    let script = "rm -r one d755 null link-101 far && mkdir far && echo new > far/new && rm pipe && \
                  mkdir pipe && ln size-513 size-513-again && chown 5:6 size-512 && chmod 711 /";
    let dockerfile = format!("FROM scratch\nADD root.tar /\nRUN cd / && {script}\n");
    fs::write(context.path().join("Dockerfile"), dockerfile).unwrap();
    let context = context.path().to_str().unwrap();
    docker.run(&["build", "-q", "--network", "none", "-t", "made", context]);
    let saved = docker.directory().join("saved.tar");
    docker.run(&["save", "-o", saved.to_str().unwrap(), "made"]);
    let tree = Tree::of(&SnapshotMount {
        lower: docker.layers("made"),
        ..Default::default()
    });
    let expected = Manifest::of(tree.path());
    becomes(Source::Archive(&saved), &expected, Manifest::without_root).await;
}
