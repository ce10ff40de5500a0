//! Each name has a file, each file a name, each name a whole image, and the index says the same.

use std::collections::BTreeSet;

use oci_spec::image::Descriptor;
use orlop_proto::error::chain;

use super::{Kind, Parts, Run, lasts};
use crate::images::catalog::{Catalog, NameFile};
use crate::images::{Expected, Image};
use crate::index::Table;
use crate::quarantine::Suspect;
use crate::{StoreError, files};

pub(super) fn check(parts: &Parts, run: &mut Run<'_>) -> Result<(), StoreError> {
    put_aside_at_start(parts, run)?;
    let catalog = parts.images.catalog();
    let mut all: BTreeSet<String> = catalog.known_files().collect();
    all.extend(files::names(catalog.directory())?);
    for file in all {
        match catalog.read(&file)? {
            NameFile::Image(image) => check_image(parts, run, &image)?,
            NameFile::Gone if !stays_gone(catalog, &file) => {}
            NameFile::Gone => damaged(parts, run, &file, "its file is gone".to_owned())?,
            NameFile::Damaged(detail) => damaged(parts, run, &file, detail)?,
        }
    }
    check_index(parts, run)
}

/// The collector waits until a person was told of these.
fn put_aside_at_start(parts: &Parts, run: &mut Run<'_>) -> Result<(), StoreError> {
    for name in parts.quarantine.unseen()? {
        if !name.starts_with("name-") {
            continue;
        }
        let detail =
            "it was damaged and put aside at a start; until a repair, nothing is collected";
        let subject = format!("quarantine/{name}");
        run.found(Kind::DamagedName, &subject, detail.to_owned(), || {
            parts.quarantine.acknowledge(&name)
        })?;
    }
    Ok(())
}

/// A name may go, and its file before it, at any moment; and come again.
fn stays_gone(catalog: &Catalog, file: &str) -> bool {
    let known = catalog.name_of(file);
    let gone = || matches!(catalog.read(file), Ok(NameFile::Gone));
    known.is_some() && lasts(|| catalog.name_of(file) == known && gone())
}

/// What the index has of a name is as good as its file, if it is of its last change.
fn damaged(parts: &Parts, run: &mut Run<'_>, file: &str, detail: String) -> Result<(), StoreError> {
    let catalog = parts.images.catalog();
    let name = catalog.name_of(file).map(|(name, _)| name);
    let subject = name.clone().unwrap_or_else(|| format!("images/{file}"));
    run.found(Kind::DamagedName, &subject, detail, || {
        let remembered = name.as_ref().and_then(|name| catalog.remembered(name));
        if let Some(Image { name, target, .. }) = remembered {
            return write_again(parts, &name, target);
        }
        let path = catalog.directory().join(file);
        if path.symlink_metadata().is_ok() {
            let to = parts.quarantine.put(Suspect::Name, file, &path)?;
            if let Some(name) = to.file_name() {
                parts.quarantine.acknowledge(&name.to_string_lossy())?;
            }
        }
        if let Some(name) = name {
            catalog.remove(&name);
        }
        Ok(())
    })
}

/// As anybody writes it, so that a change that comes in between is not undone. What is no regular
/// file has to make room first.
fn write_again(parts: &Parts, name: &str, target: Descriptor) -> Result<(), StoreError> {
    let catalog = parts.images.catalog();
    let file = catalog.file_of(name);
    let path = catalog.directory().join(&file);
    if path.is_dir() {
        let to = parts.quarantine.put(Suspect::Name, &file, &path)?;
        if let Some(name) = to.file_name() {
            parts.quarantine.acknowledge(&name.to_string_lossy())?;
        }
    }
    let expected = Expected::Digest(target.digest().to_string());
    parts.images.put(name, target, &expected).map(drop)
}

fn check_image(parts: &Parts, run: &mut Run<'_>, image: &Image) -> Result<(), StoreError> {
    let Err(error) = parts.images.tree(image) else {
        return Ok(());
    };
    // It may have gone since, and its blobs with it.
    if parts.images.get(&image.name).ok().as_ref() != Some(image) {
        return Ok(());
    }
    let kind = match error {
        StoreError::SizeMismatch { .. } => Kind::WrongSize,
        _ => Kind::DanglingName,
    };
    run.tell(kind, &image.name, chain(&error))
}

fn check_index(parts: &Parts, run: &mut Run<'_>) -> Result<(), StoreError> {
    if !parts.index.works() {
        let detail = "it failed; until a repair, files answer".to_owned();
        return run.found(Kind::Index, "index", detail, || {
            parts.index.renew();
            parts.images.catalog().fill();
            Ok(())
        });
    }
    let catalog = parts.images.catalog();
    for name in parts.index.keys(Table::Names) {
        if lasts(|| !catalog.index_agrees(&name)) {
            let detail = "it has something else than the name's file".to_owned();
            run.found(Kind::Index, &name, detail, || catalog.refresh(&name))?;
        }
    }
    Ok(())
}
