//! Values between the contract's types and ours.

use jiff::Timestamp;
use oci_spec::image::Descriptor;
use orlop_proto::types;

use crate::StoreError;
use crate::images::{Image, Wanted};

pub(super) fn time(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: time.as_second(),
        nanos: time.subsec_nanosecond(),
    }
}

pub(super) fn signed(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

pub(super) fn descriptor(wire: Option<&types::Descriptor>) -> Result<Descriptor, StoreError> {
    let wire = wire.ok_or(StoreError::Request("a descriptor is missing"))?;
    Ok(Descriptor::try_from(wire)?)
}

pub(super) fn image(image: &Image) -> orlop_proto::store::Image {
    orlop_proto::store::Image {
        name: image.name.clone(),
        target: Some((&image.target).into()),
        updated: Some(time(image.updated)),
    }
}

/// The platform of a request; this host's where it says nothing.
pub(super) fn platform(wire: Option<types::Platform>) -> Wanted {
    let host = Wanted::host();
    let Some(wire) = wire else {
        return host;
    };
    let or = |said: String, default: String| if said.is_empty() { default } else { said };
    Wanted {
        os: or(wire.os, host.os),
        architecture: or(wire.architecture, host.architecture),
        variant: wire.variant,
    }
}
