//! From a manifest or an index to the layers of one image.

use oci_spec::image::{Descriptor, Digest, MediaType};

use crate::content::Content;
use crate::error::{Result, StoreError};
use crate::images::resolve::{Wanted, pick};
use crate::manifest::ManifestError;
use crate::snapshots::Snapshots;
use crate::snapshots::images::{ImageLayer, Unpacked};

impl Snapshots {
    /// Makes the layers of the image that a digest names mountable.
    pub fn unpack_image(&self, digest: &Digest, lease: &str) -> Result<Unpacked> {
        let done = self.unpack(&image_layers(&self.inner.content, digest)?, lease)?;
        self.inner.leases.settle(lease)?;
        Ok(done)
    }
}

/// The layers of the image that a digest names, bottom first; of an index, this host's platform.
pub fn image_layers(content: &Content, digest: &Digest) -> Result<Vec<ImageLayer>> {
    let size = content.stat(digest)?.size;
    let target = Descriptor::new(MediaType::Other(String::new()), size, digest.clone());
    let name = digest.to_string();
    let wanted = Wanted::host();
    let Some((manifest, config)) = pick(content, &name, &target, &wanted)? else {
        return Err(StoreError::PlatformNotFound {
            name,
            platform: wanted.to_string(),
        });
    };
    let config = config.ok_or_else(|| StoreError::Manifest {
        subject: name,
        source: ManifestError::Rule("it is not the manifest of an image".to_owned()),
    })?;
    let layers = manifest.layers().iter().zip(config.rootfs().diff_ids());
    Ok(layers
        .map(|(layer, diff_id)| ImageLayer {
            digest: layer.digest().to_string(),
            diff_id: diff_id.clone(),
        })
        .collect())
}
