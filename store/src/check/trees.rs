//! Snapshots and layers.

use super::{Kind, MAKING_MAX, Parts, Run};
use crate::StoreError;
use crate::snapshots::faults::Fault;

pub(super) fn check(parts: &Parts, run: &mut Run<'_>) -> Result<(), StoreError> {
    let snapshots = &parts.snapshots;
    let mut faults = snapshots.faults(MAKING_MAX)?;
    if run.options.rehash {
        faults.extend(snapshots.layers_of_another_size()?);
        faults.extend(snapshots.layers_unlike_their_blobs()?);
    }
    for fault in faults {
        let kind = kind_of(&fault);
        let detail = fault.to_string();
        if fault.can_be_mended() {
            run.found(kind, fault.subject(), detail, || {
                snapshots.mend(&fault, &parts.quarantine)
            })?;
        } else {
            run.tell(kind, fault.subject(), detail)?;
        }
    }
    Ok(())
}

fn kind_of(fault: &Fault) -> Kind {
    match fault {
        Fault::Stranger { .. } | Fault::Description { .. } | Fault::Directories { .. } => {
            Kind::HalfMadeSnapshot
        }
        Fault::Parent { .. } => Kind::MissingParent,
        Fault::Layer { .. } => Kind::MissingLayer,
        Fault::LayerDescription { .. } | Fault::LayerSize { .. } | Fault::LayerBytes { .. } => {
            Kind::DamagedLayer
        }
        Fault::Unused { .. } | Fault::LayerStranger { .. } => Kind::OrphanLayer,
    }
}
