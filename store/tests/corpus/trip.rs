//! One image through one store in each form: unpacked, mounted, exported, packed, and unpacked again.

use std::fs;
use std::path::Path;
use std::process::Command;

use orlop_proto::store::Compression;
use orlop_store::config::StoreArgs;

use crate::client::{Client, read_blob};
use crate::forms::{Tree, forms, images_are_sound};
use crate::manifest::Manifest;
use crate::service::sha256;

/// Where an image comes from.
pub(crate) enum Source<'a> {
    /// Plain layers, bottom first.
    Layers(&'a [Vec<u8>]),
    /// An archive of `save` or of an OCI layout.
    Archive(&'a Path),
}

impl Source<'_> {
    pub(crate) async fn unpacked(&self, form: StoreArgs) -> (Client, String) {
        let mut client = Client::start_with(form).await;
        let image = match self {
            Self::Layers(layers) => {
                let layers: Vec<_> = layers.iter().map(|l| (l.as_slice(), sha256(l))).collect();
                client.service.image(&layers)
            }
            Self::Archive(path) => client.load(path).await.unwrap(),
        };
        let name = client.unpack(&image).await.unwrap().name;
        (client, name)
    }

    /// With a view named `view`.
    pub(crate) async fn mounted(&self, form: StoreArgs) -> (Client, Tree) {
        let (mut client, name) = self.unpacked(form).await;
        let tree = Tree::of(&client.view("view", &name).await.unwrap());
        (client, tree)
    }
}

/// In every form the mounted tree is `expected`.
pub(crate) async fn is_mounted_as(source: Source<'_>, expected: &Manifest) {
    for form in forms() {
        let (client, tree) = source.mounted(form).await;
        Manifest::of(tree.path()).must_be(expected, &format!("mounted, {:?}", form.layers));
        images_are_sound(&client.service.state(), form);
    }
}

/// In every form the mounted tree is `expected`, both seen through `relaxed`, and all ways back give
/// the mounted tree again, in the same bytes.
pub(crate) async fn becomes(
    source: Source<'_>,
    expected: &Manifest,
    relaxed: impl Fn(Manifest) -> Manifest,
) {
    let mut digests = Vec::new();
    for form in forms() {
        let (mut client, tree) = source.mounted(form).await;
        let mounted = Manifest::of(tree.path());
        let what = format!("mounted, {:?}", form.layers);
        relaxed(mounted.clone()).must_be(&relaxed(expected.clone()), &what);
        digests.push(back(&mut client, &mounted).await);
        images_are_sound(&client.service.state(), form);
    }
    assert!(
        digests.iter().all(|digest| *digest == digests[0]),
        "{digests:?}"
    );
}

/// The export, and the diff of a snapshot into which the export was extracted. Gives both digests.
/// As Docker's, neither speaks of the root directory itself.
async fn back(client: &mut Client, mounted: &Manifest) -> (String, String) {
    let mounted = mounted.clone().without_marks().without_root();
    let exported = client.export("view").await;
    let work = Tree::of(&client.prepare("work", "").await.unwrap());
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), &exported).unwrap();
    extract(file.path(), work.path(), &[]);
    Manifest::of(work.path())
        .without_root()
        .must_be(&mounted, "exported and extracted by GNU tar");

    let diff = client.diff("work", Compression::None).await;
    let again = client.diff("work", Compression::Gzip).await;
    assert_eq!(diff.diff_id, again.diff_id, "two diffs of one tree");
    drop(work);
    let packed = read_blob(client, &diff.descriptor.unwrap().digest);
    let name = client.base(packed).await;
    let unpacked = Tree::of(&client.view("again", &name).await.unwrap());
    Manifest::of(unpacked.path())
        .without_root()
        .must_be(&mounted, "packed and unpacked");
    (sha256(&exported), diff.diff_id)
}

/// What GNU tar makes of an archive.
#[track_caller]
pub(crate) fn gnu_tar(tar: &[u8]) -> Manifest {
    let (file, directory) = (
        tempfile::NamedTempFile::new().unwrap(),
        tempfile::tempdir().unwrap(),
    );
    fs::write(file.path(), tar).unwrap();
    extract(file.path(), directory.path(), &["--acls"]);
    Manifest::of(directory.path())
}

/// As GNU tar does it. With `--acls` it wants access lists in words of its own, without it takes them
/// as attributes like others.
#[track_caller]
pub(crate) fn extract(tar: &Path, directory: &Path, options: &[&str]) {
    let out = Command::new("tar")
        .args(["-xp", "--xattrs", "--xattrs-include=*", "--numeric-owner"])
        .args(options)
        .args(["--warning=no-timestamp", "-f"])
        .arg(tar)
        .arg("-C")
        .arg(directory)
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
}
