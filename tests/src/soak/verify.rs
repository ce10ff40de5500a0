//! What must hold of an image that was acknowledged: every byte by digest, and that it runs.

use serde_json::Value;

use super::image::digest;
use super::journal::{Acknowledged, Entry, Place};
use super::side::Side;
use super::work::{Yard, split};
use crate::http;

/// Verifies all that the journal has. Nobody works any more.
pub fn everything(yard: &Yard) {
    for entry in yard.journal.all() {
        let state = entry.state.try_read().expect("nobody works any more");
        let Some(image) = state.as_ref() else {
            continue;
        };
        yard.tally
            .time("last verify", || whole(yard, &entry, image));
        yard.tally.time("last run", || match entry.place {
            Place::Store(side) => runs(&yard.sides[side], &entry.name, &image.marker),
            Place::Registry(registry) => pulled_and_run(yard, registry, &entry.name, image),
        });
    }
}

/// Its name points at its digest; manifest, configuration and layers are there and have the bytes of their
/// digests.
pub fn whole(yard: &Yard, entry: &Entry, image: &Acknowledged) -> Result<(), String> {
    let checked = match entry.place {
        Place::Store(side) => in_store(&yard.sides[side], &entry.name, image),
        Place::Registry(side) => in_registry(&yard.sides[side], &entry.name, image),
    };
    checked.map_err(|error| format!("{} at {:?}: {error}", entry.name, entry.place))
}

/// `orlop run` prints the marker.
pub fn runs(side: &Side, name: &str, marker: &str) -> Result<(), String> {
    let printed = side.orlop(&["run", "--rm", "--pull", "never", name], b"")?;
    if printed == marker {
        return Ok(());
    }
    Err(format!("{name} printed {printed:?}, not {marker:?}"))
}

fn in_store(side: &Side, name: &str, image: &Acknowledged) -> Result<(), String> {
    let points = side.digest_of(name)?;
    if points != image.digest {
        return Err(format!("it points at {points}, not {}", image.digest));
    }
    let read = |digest: &str| {
        side.blob(digest)
            .map_err(|error| format!("{digest}: {error}"))
    };
    blobs(&image.digest, read, read)
}

fn in_registry(side: &Side, name: &str, image: &Acknowledged) -> Result<(), String> {
    let address = side.instance.registry();
    let (repository, tag) = split(address, name).ok_or("a name without a tag")?;
    let get = |path: String| {
        let response = http::get(address, &path).ok_or(format!("{path}: no answer"))?;
        match response.status {
            200 => Ok(response.body),
            status => Err(format!("{path}: {status}")),
        }
    };
    let manifest = |_: &str| get(format!("/v2/{repository}/manifests/{tag}"));
    let blob = |digest: &str| get(format!("/v2/{repository}/blobs/{digest}"));
    blobs(&image.digest, manifest, blob)
}

fn blobs(
    top: &str,
    manifest: impl Fn(&str) -> Result<Vec<u8>, String>,
    blob: impl Fn(&str) -> Result<Vec<u8>, String>,
) -> Result<(), String> {
    let bytes = same(top, manifest(top)?)?;
    let document: Value = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    let layers = document["layers"].as_array().cloned().unwrap_or_default();
    for link in layers.iter().chain([&document["config"]]) {
        let digest = link["digest"].as_str().unwrap_or_default();
        same(digest, blob(digest)?)?;
    }
    Ok(())
}

fn same(expected: &str, bytes: Vec<u8>) -> Result<Vec<u8>, String> {
    let actual = digest(&bytes);
    if actual == expected {
        return Ok(bytes);
    }
    Err(format!("{expected}: its bytes have {actual}"))
}

/// The other side has it under no name that it needs: it pulls it, runs it and forgets it.
fn pulled_and_run(
    yard: &Yard,
    registry: usize,
    name: &str,
    image: &Acknowledged,
) -> Result<(), String> {
    let side = &yard.sides[1 - registry];
    side.orlop(&["pull", "-q", name], b"")?;
    runs(side, name, &image.marker)
}
