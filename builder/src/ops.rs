//! What the vertices of a plan do: prepare a snapshot, change it, commit it.

mod copy;
mod run;
pub mod source;

use std::sync::Arc;

use bytes::Bytes;
use orlop_proto::store::{CopySnapshot, FileOp, Mkdir, Owner, file_op};

use crate::cache::{self, Cache, LEASE, Record};
use crate::error::Doing as _;
use crate::flight::{Log, Outcome};
use crate::plan::{Op, Place, Vertex};
use crate::ports::Ports;

/// Everything one step needs.
#[derive(Clone, Debug)]
pub struct Task {
    /// The other services.
    pub ports: Ports,
    /// Where the result is remembered.
    pub cache: Cache,
    /// The step.
    pub vertex: Arc<Vertex>,
    /// The snapshot below it; empty for none.
    pub parent: String,
    /// For COPY --from: the snapshot to copy from.
    pub from: String,
    /// The build's lease.
    pub lease: String,
    /// Do it though it was done before.
    pub again: bool,
}

/// An active snapshot, removed when the step that fills it fails or is dropped.
struct Prepared {
    ports: Ports,
    key: Option<String>,
}

impl Drop for Prepared {
    fn drop(&mut self) {
        let (Some(key), ports) = (self.key.take(), self.ports.clone()) else {
            return;
        };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = ports.layers.remove(&key).await {
                    tracing::warn!(%key, %error, "cannot remove the snapshot of a step that failed");
                }
            });
        }
    }
}

/// Does a step, unless somebody did it since this build looked.
pub async fn perform(task: Task, log: Log) -> Outcome {
    if !task.again
        && let Some(record) = task.cache.get(&task.vertex.key)?
        && record.parent == task.parent
        && task
            .ports
            .layers
            .exists(&record.snapshot)
            .await
            .doing(|| task.doing())?
    {
        return Ok((record, true));
    }
    let key = crate::random_id("step");
    let layers = &task.ports.layers;
    layers
        .prepare(&key, &task.parent, &task.lease)
        .await
        .doing(|| task.doing())?;
    let mut prepared = Prepared {
        ports: task.ports.clone(),
        key: Some(key.clone()),
    };
    match &task.vertex.op {
        Op::Run(run) => run::perform(&task, run, &key, &log).await?,
        Op::Copy(copy) => copy::perform(&task, copy, &key).await?,
        Op::CopyFrom { sources, place, .. } => {
            let op = copy_snapshot(&task.from, sources, place);
            layers.apply(&key, vec![op]).await.doing(|| task.doing())?;
        }
        Op::Mkdir(path) => {
            let op = mkdir(path.clone().into());
            layers.apply(&key, vec![op]).await.doing(|| task.doing())?;
        }
    }
    let snapshot = crate::random_id(&format!("build-{}", &task.vertex.key[..16]));
    layers
        .commit(&key, &snapshot, LEASE)
        .await
        .doing(|| task.doing())?;
    prepared.key = None;
    let now = cache::now();
    let record = Record {
        key: task.vertex.key.clone(),
        bytes: layers.usage(&snapshot).await.unwrap_or(0),
        snapshot,
        parent: task.parent.clone(),
        description: task.vertex.name.clone(),
        created: now,
        last_used: now,
        layer: None,
    };
    task.cache.put(&record)?;
    Ok((record, false))
}

impl Task {
    fn doing(&self) -> String {
        format!("{}: {}", self.vertex.span, self.vertex.name)
    }
}

fn operation(op: file_op::Op) -> FileOp {
    FileOp { op: Some(op) }
}

fn mkdir(path: Bytes) -> FileOp {
    operation(file_op::Op::Mkdir(Mkdir {
        path,
        ..Mkdir::default()
    }))
}

/// No owner given means root; the message is then left out.
fn owner(place: &Place) -> Option<Owner> {
    let spec = place.owner.clone();
    (!spec.is_empty()).then_some(Owner { spec })
}

fn copy_snapshot(from: &str, sources: &[String], place: &Place) -> FileOp {
    operation(file_op::Op::CopySnapshot(CopySnapshot {
        from: from.to_owned(),
        sources: sources.iter().map(|source| source.clone().into()).collect(),
        dest: place.dest.clone().into(),
        dest_is_dir: place.dest_is_dir,
        owner: owner(place),
        mode: place.mode,
        exclude: Vec::new(),
        keep_links: false,
    }))
}
