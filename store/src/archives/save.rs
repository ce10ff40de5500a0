//! `save`: one tar that is both an OCI layout and a docker-archive.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read as _, Write};

use oci_spec::image::{Descriptor, Digest, ImageIndexBuilder};
use orlop_proto::reference::Reference;

use super::Archives;
use super::layout::{
    DockerImage, INDEX, MANIFEST, NAME_ANNOTATION, OCI_LAYOUT, OCI_LAYOUT_JSON, REF_ANNOTATION,
};
use crate::StoreError;
use crate::images::{Resolved, Tree, Wanted};
use crate::manifest::{Document, OCI_INDEX};

/// Of every entry: blobs are not written to.
const MODE: u32 = 0o444;

impl Archives {
    /// Writes images. The same images give the same bytes.
    pub fn save(&self, references: &[String], out: impl Write) -> Result<(), StoreError> {
        if references.is_empty() {
            return Err(StoreError::Request("there is no image to save"));
        }
        let host = Wanted::host();
        let mut blobs = BTreeMap::new();
        let mut entries = Vec::new();
        let mut docker: BTreeMap<String, DockerImage> = BTreeMap::new();
        for reference in references {
            let resolved = self.images.resolve(reference, &host)?;
            let tree = Tree::read(&self.content, reference, &resolved.target)?;
            blobs.extend(tree.blobs.into_iter().map(|digest| (path(&digest), digest)));
            entries.push(entry(&resolved)?);
            add_docker(&mut docker, &resolved)?;
        }
        self.write(out, blobs, entries, docker.into_values().collect())
            .map(drop)
    }

    fn write(
        &self,
        out: impl Write,
        blobs: BTreeMap<String, Digest>,
        entries: Vec<Descriptor>,
        docker: Vec<DockerImage>,
    ) -> Result<(), StoreError> {
        let index = ImageIndexBuilder::default()
            .schema_version(2u32)
            .media_type(OCI_INDEX)
            .manifests(entries)
            .build()
            .map_err(|error| StoreError::Archive(error.to_string()))?;
        // By way of a value, whose keys are in order: annotations are not.
        let index = serde_json::to_value(index)
            .map_err(|error| StoreError::Archive(error.to_string()))?
            .to_string();
        let docker =
            serde_json::to_vec(&docker).map_err(|error| StoreError::Archive(error.to_string()))?;
        let mut tar = tar::Builder::new(out);
        append(
            &mut tar,
            OCI_LAYOUT,
            OCI_LAYOUT_JSON.len() as u64,
            OCI_LAYOUT_JSON,
        )?;
        for (path, digest) in blobs {
            let file = self.content.open(&digest)?;
            let size = self.content.stat(&digest)?.size;
            append(&mut tar, &path, size, file.take(size))?;
        }
        append(&mut tar, INDEX, index.len() as u64, index.as_bytes())?;
        append(&mut tar, MANIFEST, docker.len() as u64, docker.as_slice())?;
        let mut out = tar.into_inner().map_err(gone)?;
        out.flush().map_err(gone)
    }
}

fn append<W: Write>(
    tar: &mut tar::Builder<W>,
    path: &str,
    size: u64,
    data: impl io::Read,
) -> Result<(), StoreError> {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(MODE);
    header.set_mtime(0);
    tar.append_data(&mut header, path, data).map_err(gone)
}

/// Our own files were opened before: what fails is the client's end.
fn gone(error: io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::BrokenPipe => StoreError::ClientGone,
        _ => StoreError::io("write", "an archive")(error),
    }
}

fn path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.digest())
}

fn entry(resolved: &Resolved) -> Result<Descriptor, StoreError> {
    let mut entry = resolved.target.clone();
    if !resolved.name.is_empty() {
        let reference = resolved.name.parse::<Reference>()?;
        let tag = reference.tag().unwrap_or(&resolved.name).to_owned();
        let annotations = [
            (NAME_ANNOTATION, resolved.name.clone()),
            (REF_ANNOTATION, tag),
        ];
        let annotations = annotations.map(|(key, value)| (key.to_owned(), value));
        entry.set_annotations(Some(annotations.into()));
    }
    Ok(entry)
}

fn add_docker(
    docker: &mut BTreeMap<String, DockerImage>,
    resolved: &Resolved,
) -> Result<(), StoreError> {
    let parsed =
        Document::parse(&resolved.manifest_json, "").map_err(|source| StoreError::Manifest {
            subject: resolved.manifest.digest().to_string(),
            source,
        })?;
    let Document::Manifest(manifest) = parsed else {
        return Ok(());
    };
    let config = path(resolved.config.digest());
    let image = docker.entry(config.clone()).or_insert_with(|| DockerImage {
        config,
        repo_tags: None,
        layers: Some(
            manifest
                .layers()
                .iter()
                .map(|layer| path(layer.digest()))
                .collect(),
        ),
    });
    if let Ok(reference) = resolved.name.parse::<Reference>()
        && reference.tag().is_some()
    {
        let tags: BTreeSet<String> = image.repo_tags.take().into_iter().flatten().collect();
        let mut tags = tags;
        tags.insert(reference.familiar());
        image.repo_tags = Some(tags.into_iter().collect());
    }
    Ok(())
}
