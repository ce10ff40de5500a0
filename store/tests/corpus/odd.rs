//! Layers that no careful tool writes: one semantic, which is Docker's, in both forms.

use std::fs;
use std::path::Path;
use std::process::Command;

use orlop_proto::store::SnapshotMount;

use crate::docker::Docker;
use crate::forms::{Tree, forms};
use crate::manifest::Manifest;
use crate::service::sha256;
use crate::smith::{Tar, header};

/// An archive as `docker save` writes it.
fn saved(layers: &[Vec<u8>]) -> Vec<u8> {
    let config = config(layers);
    let name = format!("{}.json", &sha256(config.as_bytes())[7..]);
    let files: Vec<_> = (0..layers.len())
        .map(|number| format!("{number}.tar"))
        .collect();
    let manifest = serde_json::json!([{ "Config": name, "RepoTags": ["odd:1"], "Layers": files }]);
    let mut tar = Tar::new().file(&name, config.as_bytes());
    for (file, layer) in files.iter().zip(layers) {
        tar = tar.file(file, layer);
    }
    tar.file("manifest.json", manifest.to_string().as_bytes())
        .end()
}

/// Docker's tree of these layers, `None` if it refuses them.
fn docker_makes(docker: &Docker, layers: &[Vec<u8>]) -> Option<Manifest> {
    let file = docker.directory().join("odd.tar");
    fs::write(&file, saved(layers)).unwrap();
    docker.try_run(&["load", "-q", "-i", file.to_str().unwrap()])?;
    let tree = Tree::of(&SnapshotMount {
        lower: docker.layers("odd:1"),
        ..Default::default()
    });
    let manifest = Manifest::of(tree.path());
    drop(tree);
    docker.run(&["rmi", "odd:1"]);
    Some(manifest)
}

/// umoci's tree, `None` if it refuses them.
fn umoci_makes(layers: &[Vec<u8>]) -> Option<Manifest> {
    let directory = tempfile::tempdir().unwrap();
    let (layout, root) = (
        directory.path().join("layout"),
        directory.path().join("root"),
    );
    write_layout(&layout, layers);
    let image = format!("{}:odd", layout.display());
    let command = ["raw", "unpack", "--image", &image, root.to_str().unwrap()];
    let out = Command::new("umoci").args(command).output().unwrap();
    out.status.success().then(|| Manifest::of(&root))
}

fn write_layout(layout: &Path, layers: &[Vec<u8>]) {
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |kind: &str, bytes: &[u8]| {
        let digest = sha256(bytes);
        fs::write(blobs.join(&digest[7..]), bytes).unwrap();
        let media_type = format!("application/vnd.oci.image.{kind}");
        serde_json::json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    };
    let tars: Vec<_> = layers
        .iter()
        .map(|layer| put("layer.v1.tar", layer))
        .collect();
    let config = put("config.v1+json", config(layers).as_bytes());
    let manifest = serde_json::json!({ "schemaVersion": 2, "config": config, "layers": tars });
    let mut manifest = put("manifest.v1+json", manifest.to_string().as_bytes());
    manifest["annotations"] = serde_json::json!({ "org.opencontainers.image.ref.name": "odd" });
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [manifest] });
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
    fs::write(
        layout.join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )
    .unwrap();
}

fn config(layers: &[Vec<u8>]) -> String {
    let diff_ids: Vec<_> = layers.iter().map(|layer| sha256(layer)).collect();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    config.to_string()
}

fn base() -> Vec<u8> {
    Tar::new()
        .directory("d", 0o755)
        .file("d/a", b"lower a")
        .file("d/b", b"lower b")
        .directory("d/e", 0o711)
        .file("d/e/f", b"lower f")
        .directory("real", 0o755)
        .file("real/x", b"lower x")
        .symlink("link", "real")
        .symlink("absolute", "/real")
        .file("file", b"lower file")
        .end()
}

/// A name, and the layer that is put over [`base`].
fn twice() -> Vec<(&'static str, Tar)> {
    let tar = Tar::new;
    vec![
        (
            "a file twice",
            tar()
                .file("f", b"1")
                .file("f", b"two")
                .file_mode("f", 0o600, b"last"),
        ),
        (
            "a file, then a directory",
            tar()
                .file("n", b"1")
                .directory("n", 0o750)
                .file("n/in", b"2"),
        ),
        (
            "a directory, then a file",
            tar()
                .directory("n", 0o755)
                .file("n/in", b"1")
                .file("n", b"2"),
        ),
        (
            "a directory twice",
            tar()
                .directory("n", 0o700)
                .file("n/in", b"1")
                .directory("n", 0o711),
        ),
        (
            "a link, then a file",
            tar().symlink("s", "file").file("s", b"2"),
        ),
        (
            "a link, then a directory",
            tar()
                .symlink("s", "/real")
                .directory("s", 0o755)
                .file("s/y", b"2"),
        ),
        (
            "a file, then a link",
            tar().file("s", b"1").symlink("s", "elsewhere"),
        ),
        (
            "a link twice",
            tar().symlink("s", "one").symlink("s", "two"),
        ),
        (
            "a hard link, then a file",
            tar().file("g", b"1").hard_link("h", "g").file("h", b"2"),
        ),
        (
            "the file of a hard link again",
            tar().file("g", b"1").hard_link("h", "g").file("g", b"2"),
        ),
        (
            "a hard link twice",
            tar()
                .file("g", b"1")
                .hard_link("h", "g")
                .hard_link("h", "g"),
        ),
    ]
}

/// The same of layers in which no name comes twice.
fn cases() -> Vec<(&'static str, Tar)> {
    [links(), names(), marks()].into_iter().flatten().collect()
}

fn links() -> Vec<(&'static str, Tar)> {
    let tar = Tar::new;
    vec![
        (
            "a hard link to a link",
            tar().symlink("s", "away").hard_link("t", "s"),
        ),
        ("hard links to a device and a pipe", specials()),
    ]
}

fn names() -> Vec<(&'static str, Tar)> {
    let tar = Tar::new;
    vec![
        (
            "below a link of the layer",
            tar()
                .directory("n", 0o755)
                .symlink("s", "n")
                .file("s/in", b"1"),
        ),
        (
            "below an absolute link",
            tar()
                .directory("n", 0o755)
                .symlink("s", "/n")
                .file("s/in", b"1"),
        ),
        (
            "below a link that leads up",
            tar()
                .directory("n", 0o755)
                .directory("m", 0o755)
                .symlink("m/s", "../../../n")
                .file("m/s/in", b"1"),
        ),
        (
            "a hard link through a link",
            tar()
                .directory("n", 0o755)
                .file("n/f", b"1")
                .symlink("s", "/n")
                .hard_link("h", "s/f")
                .hard_link("i", "/n/f"),
        ),
        ("below a file", tar().file("n", b"1").file("n/in", b"2")),
        (
            "dots in names",
            tar()
                .directory("./n/", 0o755)
                .file("./n/./a", b"1")
                .file("n//b", b"2")
                .file("n/x/../c", b"3")
                .file("/n/d", b"4"),
        ),
        (
            "dots that lead above an absolute name",
            tar().file("/../../in", b"1"),
        ),
        ("a hard link to nothing", tar().hard_link("h", "nothing")),
        (
            "a hard link to a directory",
            tar().directory("n", 0o755).hard_link("h", "n"),
        ),
        (
            "a hard link to a file of the layer below",
            tar().hard_link("h", "file"),
        ),
    ]
}

fn marks() -> Vec<(&'static str, Tar)> {
    let tar = Tar::new;
    vec![
        (
            "a whiteout",
            tar()
                .file(".wh.file", b"")
                .directory("d", 0o755)
                .file("d/.wh.a", b""),
        ),
        (
            "a whiteout of a directory",
            tar().directory("d", 0o755).file("d/.wh.e", b""),
        ),
        ("a whiteout of nothing", tar().file(".wh.nothing", b"")),
        (
            "a whiteout, then a file",
            tar().file(".wh.file", b"").file("file", b"upper"),
        ),
        (
            "an opaque directory",
            tar()
                .directory("d", 0o755)
                .file("d/.wh..wh..opq", b"")
                .file("d/new", b"1"),
        ),
        (
            "an opaque mark after the files",
            tar()
                .directory("d", 0o755)
                .file("d/new", b"1")
                .file("d/.wh..wh..opq", b""),
        ),
        (
            "files of aufs",
            tar()
                .file(".wh..wh.plnk", b"")
                .directory(".wh..wh.orph", 0o700)
                .file("f", b"1"),
        ),
        (
            "a directory over a link",
            tar().directory("link", 0o755).file("link/y", b"1"),
        ),
        ("a file over a directory", tar().file("real", b"1")),
        (
            "a directory over a file",
            tar().directory("file", 0o755).file("file/y", b"1"),
        ),
    ]
}

fn specials() -> Tar {
    let mut null = header(b'3', b"null", "", 0o666, 0);
    null[329..336].copy_from_slice(b"0000001");
    null[337..344].copy_from_slice(b"0000003");
    crate::smith::seal(&mut null);
    let mut link = header(b'1', b"null-again", "null", 0o666, 0);
    crate::smith::seal(&mut link);
    Tar::new()
        .raw(&null, b"")
        .raw(&link, b"")
        .raw(&header(b'6', b"pipe", "", 0o644, 0), b"")
        .hard_link("pipe-again", "pipe")
}

/// Nobody stated the time of the root.
fn seen(manifest: Manifest) -> Manifest {
    manifest.without_root()
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_layers_become_what_docker_makes_of_them() {
    let docker = Docker::start();
    let theirs = |layers: &[Vec<u8>]| docker_makes(&docker, layers);
    all_become(cases(), theirs).await;
}

/// Docker refuses these, whose origins it could not write again; containerd and umoci do not.
#[tokio::test(flavor = "multi_thread")]
async fn names_that_come_twice_become_what_umoci_makes_of_them() {
    all_become(twice(), umoci_makes).await;
}

async fn all_become(
    cases: Vec<(&'static str, Tar)>,
    theirs: impl Fn(&[Vec<u8>]) -> Option<Manifest>,
) {
    let mut differences = Vec::new();
    for (what, layer) in cases {
        let layers = [base(), layer.end()];
        let theirs = theirs(&layers);
        for form in forms() {
            let (ours, what) = (
                ours(form, &layers).await,
                format!("{what}, {:?}", form.layers),
            );
            match (&theirs, ours) {
                (Some(theirs), Some(ours)) => seen(ours).must_be(&seen(theirs.clone()), &what),
                (None, None) => {}
                (theirs, _) => differences.push((what, theirs.is_some())),
            }
        }
    }
    assert!(
        differences.is_empty(),
        "accepted by them or only by us: {differences:#?}"
    );
}

async fn ours(form: orlop_store::config::StoreArgs, layers: &[Vec<u8>]) -> Option<Manifest> {
    let mut client = crate::client::Client::start_with(form).await;
    let pairs: Vec<_> = layers
        .iter()
        .map(|layer| (layer.as_slice(), sha256(layer)))
        .collect();
    let image = client.service.image(&pairs);
    let name = client.unpack(&image).await.ok()?.name;
    let tree = Tree::of(&client.view("view", &name).await.unwrap());
    Some(Manifest::of(tree.path()))
}
