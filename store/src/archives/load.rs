//! `load`: an OCI layout, a docker-archive, or both in one tar.

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write as _};

use oci_spec::image::{Descriptor, Digest, ImageIndex, ImageManifestBuilder};
use orlop_proto::reference::Reference;

use super::Archives;
use super::layout::{
    DOCUMENT_BYTES_MAX, DockerImage, INDEX, MANIFEST, NAME_ANNOTATION, REF_ANNOTATION, blob_digest,
    config_digest, entry_error,
};
use crate::StoreError;
use crate::content::{Content, Hasher, Sealed};
use crate::images::{Expected, Image};
use crate::layers::decompress::{Format, detect, plain};
use crate::layers::tar::{Kind, Member, TarReader};
use crate::manifest::{self, Document, OCI_CONFIG, OCI_MANIFEST, parse_config};

/// Entries of an archive; an image has at most a few hundred.
const ENTRIES_MAX: usize = 100_000;
/// The longest path in an archive.
const PATH_BYTES_MAX: usize = 4096;
/// Symbolic links that are followed from one path (old docker-archives link equal layers).
const LINKS_MAX: usize = 8;
const PIECE_BYTES: usize = 256 * 1024;

/// What an archive held.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Images that have a name now.
    pub images: Vec<Image>,
    /// Manifests that the archive gave no name.
    pub unnamed: Vec<Digest>,
}

/// The members of an archive, complete and not yet published.
#[derive(Debug, Default)]
struct Members {
    documents: HashMap<String, Vec<u8>>,
    blobs: BTreeMap<String, Sealed>,
    links: HashMap<String, String>,
}

/// An image to be named.
#[derive(Debug)]
struct Found {
    target: Descriptor,
    names: Vec<String>,
}

impl Archives {
    /// Reads an archive (plain, gzip or zstd) and names its images. On error nothing is named.
    pub fn load(&self, archive: impl Read + Send) -> Result<Loaded, StoreError> {
        let mut members = Members::default();
        let mut reader = plain(archive)?.take(self.limits.plain_bytes);
        members.read(&self.content, &mut reader)?;
        let found = members.images(&self.content)?;
        for image in &found {
            for name in &image.names {
                name.parse::<Reference>()?;
            }
        }
        self.content
            .publish(members.blobs.into_values().collect())?;
        crate::failpoint::reach("archive.load.published");
        let mut loaded = Loaded::default();
        for image in found {
            crate::images::Tree::read(&self.content, "of the archive", &image.target)?;
            if image.names.is_empty() {
                loaded.unnamed.push(image.target.digest().clone());
            }
            for name in image.names {
                let put = self
                    .images
                    .put(&name, image.target.clone(), &Expected::Any)?;
                loaded.images.push(put);
                crate::failpoint::reach("archive.load.named");
            }
        }
        Ok(loaded)
    }
}

impl Members {
    fn read(&mut self, content: &Content, reader: &mut dyn Read) -> Result<(), StoreError> {
        let mut tar = TarReader::new(reader);
        let mut entries = 0;
        while let Some(member) = tar.next_member()? {
            entries += 1;
            let path = clean(&member.path)?;
            if entries > ENTRIES_MAX {
                return Err(StoreError::Archive(
                    "it has more than 100,000 entries".to_owned(),
                ));
            }
            match member.kind {
                Kind::File => self.file(content, path, &member, &mut tar)?,
                Kind::Symlink => drop(
                    self.links
                        .insert(path.clone(), target(&path, &member.link)?),
                ),
                Kind::HardLink => drop(self.links.insert(path, clean(&member.link)?)),
                _ => {}
            }
        }
        Ok(())
    }

    fn file<R: Read>(
        &mut self,
        content: &Content,
        path: String,
        member: &Member,
        tar: &mut TarReader<R>,
    ) -> Result<(), StoreError> {
        if path == INDEX || path == MANIFEST {
            if member.size > DOCUMENT_BYTES_MAX {
                return Err(entry_error(&path, "it has more than 1 MiB"));
            }
            let mut bytes = Vec::new();
            copy(tar, |piece| {
                bytes.extend_from_slice(piece);
                Ok(())
            })?;
            self.documents.insert(path, bytes);
            return Ok(());
        }
        if is_needless(&path) {
            return Ok(());
        }
        let expected = blob_digest(&path).transpose()?;
        let mut writer = content.writer()?;
        if let Some(expected) = &expected {
            writer = writer.with_hasher(Hasher::new(expected.algorithm())?);
        }
        copy(tar, |piece| {
            writer
                .write_all(piece)
                .map_err(StoreError::io("write", &path))
        })?;
        let sealed = writer.seal(expected.as_ref().map(|digest| (digest, member.size)))?;
        self.blobs.insert(path, sealed);
        Ok(())
    }

    /// The images, each checked against the members. An OCI layout's word on a manifest counts more
    /// than a docker-archive's: it has the manifest that was pushed.
    fn images(&mut self, content: &Content) -> Result<Vec<Found>, StoreError> {
        let docker = match self.documents.get(MANIFEST) {
            Some(json) => parse::<Vec<DockerImage>>(MANIFEST, json)?,
            None => Vec::new(),
        };
        for image in &docker {
            let digest = config_digest(&image.config)?;
            let blob = self.blob(&image.config)?;
            if *blob.digest() != digest {
                return Err(StoreError::DigestMismatch {
                    expected: digest.to_string(),
                    actual: blob.digest().to_string(),
                });
            }
        }
        match self.documents.get(INDEX) {
            Some(json) => self.of_index(&parse(INDEX, json)?, &docker),
            None if docker.is_empty() => Err(StoreError::Archive(
                "it has neither an index.json nor a manifest.json: expected what `orlop save`, \
                 `docker save` or an OCI layout holds"
                    .to_owned(),
            )),
            None => docker
                .iter()
                .map(|image| self.of_docker(content, image))
                .collect(),
        }
    }

    fn of_index(
        &self,
        index: &ImageIndex,
        docker: &[DockerImage],
    ) -> Result<Vec<Found>, StoreError> {
        let mut found = Vec::new();
        for entry in index.manifests() {
            let digest = crate::content::digest(entry.digest().as_ref())?;
            let path = format!("blobs/{}/{}", digest.algorithm(), digest.digest());
            let document = self.document(&path, entry)?;
            let mut names: Vec<String> = annotated_name(entry).into_iter().collect();
            if let (Document::Manifest(manifest), true) = (&document, names.is_empty()) {
                let config = manifest.config().digest();
                let same = docker.iter().filter(|image| {
                    config_digest(&image.config).is_ok_and(|digest| digest == *config)
                });
                names.extend(same.flat_map(|image| image.repo_tags.iter().flatten().cloned()));
            }
            let target = Descriptor::new(entry.media_type().clone(), entry.size(), digest);
            found.push(Found { target, names });
        }
        // One manifest may be listed once for each of its names.
        Ok(found)
    }

    fn document(&self, path: &str, entry: &Descriptor) -> Result<Document, StoreError> {
        let blob = self.blob(path)?;
        if blob.size() != entry.size() {
            return Err(StoreError::SizeMismatch {
                what: path.to_owned(),
                expected: i64::try_from(entry.size()).unwrap_or(i64::MAX),
                actual: blob.size(),
            });
        }
        let bytes = blob.read_all(manifest::DOCUMENT_BYTES_MAX)?;
        Document::parse(&bytes, entry.media_type().as_ref()).map_err(|source| {
            StoreError::Manifest {
                subject: path.to_owned(),
                source,
            }
        })
    }

    /// A docker-archive has no manifest: it is made, its layers as they are given.
    fn of_docker(&mut self, content: &Content, image: &DockerImage) -> Result<Found, StoreError> {
        let config = self.blob(&image.config)?;
        let config_json = config.read_all(manifest::DOCUMENT_BYTES_MAX)?;
        let layers = image.layers.as_deref().unwrap_or_default().iter();
        let layers: Vec<_> = layers
            .map(|path| self.layer(path))
            .collect::<Result<_, _>>()?;
        let made = ImageManifestBuilder::default()
            .schema_version(2u32)
            .media_type(OCI_MANIFEST)
            .config(Descriptor::new(
                OCI_CONFIG.into(),
                config.size(),
                config.digest().clone(),
            ))
            .layers(layers)
            .build()
            .map_err(|error| StoreError::Archive(error.to_string()))?;
        parse_config(&config_json, &made).map_err(|source| StoreError::Manifest {
            subject: image.config.clone(),
            source,
        })?;
        let json = made
            .to_string()
            .map_err(|error| StoreError::Archive(error.to_string()))?;
        let digest = Content::digest_of(json.as_bytes())?;
        let sealed = content.seal_bytes(json.as_bytes(), &digest)?;
        let target = Descriptor::new(OCI_MANIFEST.into(), sealed.size(), digest);
        self.blobs
            .insert(format!("made/{}", target.digest()), sealed);
        Ok(Found {
            target,
            names: image.repo_tags.clone().unwrap_or_default(),
        })
    }

    fn layer(&self, path: &str) -> Result<Descriptor, StoreError> {
        let blob = self.blob(path)?;
        let mut head = Vec::new();
        std::fs::File::open(blob.path())
            .and_then(|file| file.take(8).read_to_end(&mut head))
            .map_err(StoreError::io("read", blob.path()))?;
        let media_type = match detect(&head)? {
            Format::Plain => "application/vnd.oci.image.layer.v1.tar",
            Format::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Format::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        };
        Ok(Descriptor::new(
            media_type.into(),
            blob.size(),
            blob.digest().clone(),
        ))
    }

    fn blob(&self, path: &str) -> Result<&Sealed, StoreError> {
        let mut path = clean(path.as_bytes())?;
        for _ in 0..LINKS_MAX {
            if let Some(blob) = self.blobs.get(&path) {
                return Ok(blob);
            }
            match self.links.get(&path) {
                Some(target) => path.clone_from(target),
                None => break,
            }
        }
        Err(entry_error(
            &path,
            "it is named, and the archive does not have it",
        ))
    }
}

fn copy<R: Read>(
    tar: &mut TarReader<R>,
    mut sink: impl FnMut(&[u8]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut buffer = vec![0; PIECE_BYTES];
    let mut position = 0;
    while let Some((offset, count)) = tar.read_piece(&mut buffer)? {
        if offset != position {
            return Err(StoreError::Archive("it has a sparse file".to_owned()));
        }
        position += count as u64;
        sink(buffer.get(..count).unwrap_or_default())?;
    }
    Ok(())
}

/// What old docker-archives have beside the images.
fn is_needless(path: &str) -> bool {
    let last = path.rsplit('/').next().unwrap_or_default();
    path == "oci-layout"
        || path == "repositories"
        || (path.contains('/') && matches!(last, "json" | "VERSION"))
}

/// A path of an archive in its one form: relative, without `.` and `..`.
fn clean(path: &[u8]) -> Result<String, StoreError> {
    let shown = String::from_utf8_lossy(path);
    let text = std::str::from_utf8(path).map_err(|_| entry_error(&shown, "it is not UTF-8"))?;
    let bad = |problem: &str| Err(entry_error(text, problem));
    if text.len() > PATH_BYTES_MAX {
        return bad("its path is too long");
    }
    if text.starts_with('/') || text.contains('\0') {
        return bad("its path must be relative");
    }
    let mut parts = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => return bad("its path leads out of the archive"),
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

/// Where a symbolic link points, from the directory that it is in. The links of docker-archives are
/// `../<id>/layer.tar`.
fn target(path: &str, link: &[u8]) -> Result<String, StoreError> {
    let link = std::str::from_utf8(link).map_err(|_| entry_error(path, "its link is not UTF-8"))?;
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                if parts.pop().is_none() {
                    return Err(entry_error(path, "its link leads out of the archive"));
                }
            }
            part => parts.push(part),
        }
    }
    clean(parts.join("/").as_bytes())
}

fn parse<T: serde::de::DeserializeOwned>(path: &str, json: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(json).map_err(|error| entry_error(path, error.to_string()))
}

/// A bare tag is no name: it says nothing of the repository.
fn annotated_name(entry: &Descriptor) -> Option<String> {
    let annotations = entry.annotations().as_ref()?;
    let reference = || {
        annotations
            .get(REF_ANNOTATION)
            .filter(|name| name.contains(['/', ':']))
    };
    annotations.get(NAME_ANNOTATION).or_else(reference).cloned()
}
