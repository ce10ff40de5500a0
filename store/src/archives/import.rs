//! `import`: an image of one layer from the tar of a root file system.

use std::io::{self, BufRead as _, BufReader, Read, Write};

use jiff::Timestamp;
use oci_spec::image::{
    Arch, Config, Descriptor, Digest, HistoryBuilder, ImageConfigurationBuilder,
    ImageManifestBuilder, Os, RootFsBuilder,
};

use super::Archives;
use crate::StoreError;
use crate::content::{BlobWriter, Hasher};
use crate::images::{Expected, Tree, Wanted};
use crate::layers::compress::{Codec, Compressor};
use crate::layers::decompress::{Format, Limits, detect, plain};
use crate::layers::tar::TarReader;
use crate::manifest::{OCI_CONFIG, OCI_MANIFEST};

const BUFFER_BYTES: usize = 256 * 1024;

/// What the image shall be.
#[derive(Clone, Debug)]
pub struct ImportOptions {
    /// Empty: no name.
    pub name: String,
    /// The configuration's `config` object as JSON; empty for none.
    pub config_json: String,
    /// The comment in the history.
    pub message: String,
    /// The platform of what is in the tar.
    pub platform: Wanted,
}

/// The image that was made.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The configuration's digest.
    pub image_id: Digest,
    /// The manifest.
    pub target: Descriptor,
}

/// A layer that was made.
struct Layer {
    digest: Digest,
    size: u64,
    diff_id: Digest,
    media_type: &'static str,
}

impl Archives {
    /// Reads a tar (plain, gzip or zstd) in one pass and bounded memory: verified to be a tar, hashed,
    /// compressed unless it is already.
    pub fn import(
        &self,
        archive: impl Read + Send,
        options: &ImportOptions,
    ) -> Result<Imported, StoreError> {
        let config = match options.config_json.as_str() {
            "" => Config::default(),
            json => serde_json::from_str(json)
                .map_err(|error| StoreError::Archive(format!("its configuration: {error}")))?,
        };
        let layer = self.layer(archive)?;
        crate::failpoint::reach("archive.import.layer_made");
        let image = configuration(options, config, &layer)?;
        let image_id = self.content.put_bytes(image.as_bytes())?;
        let manifest = manifest(&image_id, image.len() as u64, &layer)?;
        let digest = self.content.put_bytes(manifest.as_bytes())?;
        let target = Descriptor::new(OCI_MANIFEST.into(), manifest.len() as u64, digest);
        crate::failpoint::reach("archive.import.manifest_made");
        if options.name.is_empty() {
            Tree::read(&self.content, "of the archive", &target)?;
        } else {
            self.images
                .put(&options.name, target.clone(), &Expected::Any)?;
        }
        Ok(Imported { image_id, target })
    }

    fn layer(&self, archive: impl Read + Send) -> Result<Layer, StoreError> {
        let mut archive = BufReader::with_capacity(BUFFER_BYTES, archive);
        let format = detect(archive.fill_buf().map_err(read_failed)?)?;
        let blob = self.content.writer()?;
        if format == Format::Plain {
            let compressed = Compressor::new(blob, Codec::Gzip);
            let mut plain = Plain::new(archive, compressed, self.limits);
            check_tar(&mut plain)?;
            let (compressed, diff_id) = plain.finish()?;
            let blob = compressed
                .finish()
                .map_err(StoreError::io("write", "a layer"))?;
            return commit(blob, diff_id, Codec::Gzip);
        }
        let mut tee = Tee {
            inner: archive,
            copy: blob,
        };
        let diff_id = {
            let mut plain = Plain::new(plain(&mut tee)?, io::sink(), self.limits);
            check_tar(&mut plain)?;
            plain.finish()?.1
        };
        io::copy(&mut tee, &mut io::sink()).map_err(read_failed)?;
        let codec = if format == Format::Gzip {
            Codec::Gzip
        } else {
            Codec::Zstd
        };
        commit(tee.copy, diff_id, codec)
    }
}

fn commit(blob: BlobWriter, diff_id: Digest, codec: Codec) -> Result<Layer, StoreError> {
    let (digest, size) = blob.commit(None)?;
    Ok(Layer {
        digest,
        size,
        diff_id,
        media_type: codec.media_type(),
    })
}

/// Reads a whole tar, and what follows it.
fn check_tar<R: Read, W: Write>(plain: &mut Plain<R, W>) -> Result<(), StoreError> {
    let mut tar = TarReader::new(&mut *plain);
    let mut entries = 0_u64;
    while tar.next_member()?.is_some() {
        entries += 1;
    }
    if entries == 0 && plain.bytes == 0 {
        return Err(StoreError::Archive(
            "it is empty: expected the tar of a file tree".to_owned(),
        ));
    }
    io::copy(plain, &mut io::sink())
        .map_err(read_failed)
        .map(drop)
}

/// An error of the system is of our own disk; every other one is of what the client sends.
fn read_failed(source: io::Error) -> StoreError {
    match source.raw_os_error() {
        Some(_) => StoreError::io("write", "a layer")(source),
        None => StoreError::TarRead {
            what: "an archive",
            source,
        },
    }
}

/// The plain tar: hashed, counted, bounded, and copied.
struct Plain<R, W> {
    inner: R,
    copy: W,
    hasher: Hasher,
    bytes: u64,
    limits: Limits,
}

impl<R: Read, W: Write> Plain<R, W> {
    fn new(inner: R, copy: W, limits: Limits) -> Self {
        Self {
            inner,
            copy,
            hasher: Hasher::sha256(),
            bytes: 0,
            limits,
        }
    }

    fn finish(self) -> Result<(W, Digest), StoreError> {
        Ok((self.copy, self.hasher.finish()?))
    }
}

impl<R: Read, W: Write> Read for Plain<R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        let bytes = &buffer[..count];
        self.hasher.update(bytes);
        self.copy.write_all(bytes)?;
        self.bytes += count as u64;
        if self.bytes > self.limits.plain_bytes {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "the plain tar is too large",
            ));
        }
        Ok(count)
    }
}

/// Copies what is read.
struct Tee<R, W> {
    inner: R,
    copy: W,
}

impl<R: Read, W: Write> Read for Tee<R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.copy.write_all(&buffer[..count])?;
        Ok(count)
    }
}

fn configuration(
    options: &ImportOptions,
    config: Config,
    layer: &Layer,
) -> Result<String, StoreError> {
    let built = |error: oci_spec::OciSpecError| StoreError::Archive(error.to_string());
    let created = Timestamp::now().to_string();
    let history = HistoryBuilder::default()
        .created(created.clone())
        .comment(options.message.clone())
        .build()
        .map_err(built)?;
    let rootfs = RootFsBuilder::default()
        .typ("layers")
        .diff_ids(vec![layer.diff_id.to_string()])
        .build()
        .map_err(built)?;
    let mut image = ImageConfigurationBuilder::default()
        .created(created)
        .os(Os::from(options.platform.os.as_str()))
        .architecture(Arch::from(options.platform.architecture.as_str()))
        .config(config)
        .rootfs(rootfs)
        .history(vec![history]);
    if !options.platform.variant.is_empty() {
        image = image.variant(options.platform.variant.clone());
    }
    image
        .build()
        .and_then(|image| image.to_string())
        .map_err(built)
}

fn manifest(image_id: &Digest, size: u64, layer: &Layer) -> Result<String, StoreError> {
    ImageManifestBuilder::default()
        .schema_version(2u32)
        .media_type(OCI_MANIFEST)
        .config(Descriptor::new(OCI_CONFIG.into(), size, image_id.clone()))
        .layers(vec![Descriptor::new(
            layer.media_type.into(),
            layer.size,
            layer.digest.clone(),
        )])
        .build()
        .and_then(|manifest| manifest.to_string())
        .map_err(|error| StoreError::Archive(error.to_string()))
}
