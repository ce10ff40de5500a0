//! Everything in `blobs` is a blob, and what its name says.

use std::fs::{self, DirEntry};

use orlop_proto::descriptor::parse_digest;

use super::{Kind, Parts, Run, below};
use crate::StoreError;
use crate::content::ALGORITHMS;
use crate::quarantine::Suspect;

pub(super) fn check(parts: &Parts, run: &mut Run<'_>) -> Result<(), StoreError> {
    let blobs = parts.state.join("blobs");
    for entry in fs::read_dir(&blobs).map_err(StoreError::io("list", &blobs))? {
        let entry = entry.map_err(StoreError::io("list", &blobs))?;
        let name = entry.file_name();
        let algorithm = ALGORITHMS.iter().find(|known| name == **known);
        match algorithm {
            Some(algorithm) => check_algorithm(parts, run, algorithm)?,
            None => foreign(parts, run, &entry)?,
        }
    }
    Ok(())
}

/// The directory is not read into memory: it may have a million entries.
fn check_algorithm(parts: &Parts, run: &mut Run<'_>, algorithm: &str) -> Result<(), StoreError> {
    let directory = parts.state.join("blobs").join(algorithm);
    for entry in fs::read_dir(&directory).map_err(StoreError::io("list", &directory))? {
        let entry = entry.map_err(StoreError::io("list", &directory))?;
        let name = entry.file_name();
        let digest = name
            .to_str()
            .and_then(|hex| parse_digest(&format!("{algorithm}:{hex}")).ok());
        let Some(digest) = digest else {
            foreign(parts, run, &entry)?;
            continue;
        };
        let regular = entry.file_type().is_ok_and(|kind| kind.is_file());
        let verified = match (run.options.rehash, regular) {
            (true, _) => parts.content.verify(&digest),
            (false, true) => continue,
            (false, false) if run.options.repair => parts.content.stat(&digest).map(drop),
            (false, false) => {
                let detail = "it is no regular file".to_owned();
                run.tell(Kind::DamagedBlob, digest.as_ref(), detail)?;
                continue;
            }
        };
        match verified {
            Ok(()) | Err(StoreError::BlobNotFound { .. }) => {}
            Err(StoreError::BlobDamaged { detail, .. }) => {
                let aside = fs::symlink_metadata(parts.content.path(&digest)).is_err();
                run.emit(Kind::DamagedBlob, digest.as_ref(), detail, aside)?;
            }
            Err(error) => {
                let detail = orlop_proto::error::chain(&error);
                run.tell(Kind::DamagedBlob, digest.as_ref(), detail)?;
            }
        }
    }
    Ok(())
}

fn foreign(parts: &Parts, run: &mut Run<'_>, entry: &DirEntry) -> Result<(), StoreError> {
    let path = entry.path();
    let name = entry.file_name().to_string_lossy().into_owned();
    let subject = below(&parts.state, &path);
    run.found(
        Kind::ForeignFile,
        &subject,
        "it is no blob".to_owned(),
        || {
            let put = parts.quarantine.put(Suspect::Foreign, &name, &path);
            put.map(drop)
        },
    )
}
