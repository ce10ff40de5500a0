//! The files of leases say what the store knows, and what a lease holds is here.

use std::collections::BTreeSet;

use super::{Kind, MAKING_MAX, Parts, Run, is_old, lasts};
use crate::leases::{self, Lease, Resource};
use crate::quarantine::Suspect;
use crate::{StoreError, content, files};

pub(super) fn check(parts: &Parts, run: &mut Run<'_>) -> Result<(), StoreError> {
    put_aside_at_start(parts, run)?;
    let known = parts.leases.list();
    let ids = known.iter().map(|lease| lease.id.clone());
    let mut names: BTreeSet<String> = ids.collect();
    names.extend(files::names(parts.leases.directory())?);
    for name in names {
        let path = parts.leases.directory().join(&name);
        let lease = || parts.leases.list().into_iter().find(|l| l.id == name);
        // A lease may end, and its file go, at any moment.
        let damaged = || leases::read(&path).is_none() && (path.exists() || lease().is_some());
        if lasts(damaged) {
            let detail = "its file is damaged or gone".to_owned();
            run.found(Kind::DamagedLease, &name, detail, || {
                mend(parts, &name, lease())
            })?;
        } else if is_old(&path, MAKING_MAX) {
            check_held(parts, run, &name)?;
        }
    }
    Ok(())
}

/// The collector waits until a person was told of these.
fn put_aside_at_start(parts: &Parts, run: &mut Run<'_>) -> Result<(), StoreError> {
    for name in parts.quarantine.unseen()? {
        if !name.starts_with("lease-") {
            continue;
        }
        let detail =
            "it was damaged and put aside at a start; until a repair, nothing is collected";
        let subject = format!("quarantine/{name}");
        run.found(Kind::DamagedLease, &subject, detail.to_owned(), || {
            parts.quarantine.acknowledge(&name)
        })?;
    }
    Ok(())
}

/// What the store knows of a lease was read from its file when that was whole.
fn mend(parts: &Parts, name: &str, lease: Option<Lease>) -> Result<(), StoreError> {
    let path = parts.leases.directory().join(name);
    let regular = std::fs::symlink_metadata(&path).map(|metadata| metadata.is_file());
    if matches!(regular, Ok(false)) || lease.is_none() {
        let to = parts.quarantine.put(Suspect::Lease, name, &path)?;
        if let Some(name) = to.file_name() {
            parts.quarantine.acknowledge(&name.to_string_lossy())?;
        }
    }
    match lease {
        Some(lease) => parts.leases.restore(lease),
        None => Ok(()),
    }
}

/// A hold may come before what it holds, so that only an old one without anything counts.
fn check_held(parts: &Parts, run: &mut Run<'_>, id: &str) -> Result<(), StoreError> {
    for resource in parts.leases.resources(id).unwrap_or_default() {
        let Resource::Blob(text) = &resource else {
            continue;
        };
        if content::digest(text).is_ok_and(|digest| parts.content.exists(&digest)) {
            continue;
        }
        let detail = format!("it holds {text}, which is not here");
        run.found(Kind::DanglingLease, id, detail, || {
            parts.leases.release(id, [resource.clone()])
        })?;
    }
    Ok(())
}
