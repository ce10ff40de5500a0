//! Uploads that nobody will go on with.

use jiff::{SignedDuration, Timestamp};

use super::{Kind, Parts, Run, below};
use crate::quarantine::Suspect;
use crate::{StoreError, files, ids};

/// Who stopped an upload may come back to it on the same day.
const ABANDONED_AFTER: SignedDuration = SignedDuration::from_hours(24);

pub(super) fn check(parts: &Parts, run: &mut Run<'_>) -> Result<(), StoreError> {
    for ingest in parts.content.list_ingests()? {
        if Timestamp::now().duration_since(ingest.updated) < ABANDONED_AFTER {
            continue;
        }
        let detail = format!(
            "{} bytes, untouched since {}",
            ingest.offset, ingest.updated
        );
        run.found(Kind::OrphanIngest, &ingest.id, detail, || {
            parts.content.abort_ingest(&ingest.id)
        })?;
    }
    let directory = parts.state.join("ingest");
    for name in files::names(&directory)? {
        let path = directory.join(&name);
        if ids::check("ingest", &name).is_ok() && path.is_dir() {
            continue;
        }
        let detail = "it is no ingest".to_owned();
        run.found(
            Kind::ForeignFile,
            &below(&parts.state, &path),
            detail,
            || {
                let put = parts.quarantine.put(Suspect::Foreign, &name, &path);
                put.map(drop)
            },
        )?;
    }
    Ok(())
}
