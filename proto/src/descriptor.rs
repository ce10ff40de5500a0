//! Between the contract's [`Descriptor`] and `oci-spec`'s.

use std::str::FromStr as _;

use oci_spec::image::{self, DescriptorBuilder, Digest};

use crate::types::{Descriptor, Platform};

/// A descriptor that is not one.
#[derive(Debug, thiserror::Error)]
pub enum DescriptorError {
    /// The digest is not `algorithm:hex` of an algorithm that we know.
    #[error("malformed digest {digest:?}: expected `sha256:` and 64 lowercase hexadecimal digits")]
    Digest {
        /// What was given, cut to a length that can be shown.
        digest: String,
    },
    /// The size is below 0.
    #[error("descriptor of {digest} has the impossible size {size}")]
    Size {
        /// Which descriptor.
        digest: String,
        /// What it claims.
        size: i64,
    },
    /// A field that must be there is not.
    #[error("malformed descriptor of {digest}: {reason}")]
    Field {
        /// Which descriptor.
        digest: String,
        /// What the OCI types say of it.
        reason: String,
    },
}

/// Parses a digest from outside. Only digests that passed here become part of a path or a URL.
///
/// Accepts `sha256`, `sha384` and `sha512` with exactly their number of lowercase hexadecimal
/// digits (OCI image specification, "Digests"; `SECURITY` row G8).
pub fn parse_digest(text: &str) -> Result<Digest, DescriptorError> {
    let malformed = || DescriptorError::Digest {
        digest: text.chars().take(100).collect(),
    };
    let (algorithm, hex) = text.split_once(':').ok_or_else(malformed)?;
    let digits = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return Err(malformed()),
    };
    let lowercase_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if hex.len() != digits || !hex.bytes().all(lowercase_hex) {
        return Err(malformed());
    }
    Digest::from_str(text).map_err(|_| malformed())
}

impl TryFrom<&Descriptor> for image::Descriptor {
    type Error = DescriptorError;

    fn try_from(wire: &Descriptor) -> Result<Self, DescriptorError> {
        let digest = parse_digest(&wire.digest)?;
        let size = u64::try_from(wire.size).map_err(|_| DescriptorError::Size {
            digest: wire.digest.clone(),
            size: wire.size,
        })?;
        let mut builder = DescriptorBuilder::default()
            .media_type(wire.media_type.as_str())
            .digest(digest)
            .size(size);
        if !wire.annotations.is_empty() {
            builder = builder.annotations(wire.annotations.clone());
        }
        builder.build().map_err(|error| DescriptorError::Field {
            digest: wire.digest.clone(),
            reason: error.to_string(),
        })
    }
}

impl From<&image::Descriptor> for Descriptor {
    fn from(oci: &image::Descriptor) -> Self {
        Self {
            media_type: oci.media_type().to_string(),
            digest: oci.digest().to_string(),
            size: i64::try_from(oci.size()).unwrap_or(i64::MAX),
            annotations: oci.annotations().clone().unwrap_or_default(),
            platform: oci.platform().as_ref().map(|platform| Platform {
                os: platform.os().to_string(),
                architecture: platform.architecture().to_string(),
                variant: platform.variant().clone().unwrap_or_default(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g8_only_well_formed_digests_pass() {
        let hex = "a".repeat(64);
        assert!(parse_digest(&format!("sha256:{hex}")).is_ok());
        for bad in [
            "",
            "sha256:",
            "sha256:../../x",
            &format!("sha256:{}", "A".repeat(64)),
            &format!("sha256:{hex}0"),
            &format!("md5:{}", "a".repeat(32)),
            &hex,
            &format!("sha256:{hex}\n"),
        ] {
            assert!(parse_digest(bad).is_err(), "{bad:?}");
        }
    }
}
