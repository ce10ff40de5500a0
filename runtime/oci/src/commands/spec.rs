//! `spec`.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;

use oci_spec::runtime::Spec;

use crate::bundle::SPEC_FILE;
use crate::error::{Error, Result};

/// Writes a specification that runs `sh`; one that is there stays.
pub(super) fn spec(bundle: &Path) -> Result<()> {
    let path = bundle.join(SPEC_FILE);
    let file = OpenOptions::new().write(true).create_new(true).open(&path);
    let written = file.and_then(|file| {
        serde_json::to_writer_pretty(file, &Spec::default()).map_err(io::Error::from)
    });
    written.map_err(Error::file("write", path))
}
