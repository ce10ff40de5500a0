//! One layer of an image by itself: unpacked, then completed at its place in a stack.

use std::io::Read;

use orlop_proto::descriptor::parse_digest;

use crate::error::{Result, StoreError};
use crate::layers::making::{Made, Making};
use crate::layers::root::Root;
use crate::layers::shelf::{Draft, LayerMeta};
use crate::layers::unpack::{Unpacked, unpack};
use crate::snapshots::images::ImageLayer;
use crate::snapshots::{Snapshots, files, implicit};

/// A layer that is unpacked but for what it takes from the layers below.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) draft: Draft,
    making: Making,
    unpacked: Unpacked,
}

/// Where one layer of an image comes from.
#[derive(Debug)]
pub(super) enum Source {
    /// It is on the shelf under this id.
    Here(String),
    /// It is finished, and gets its name with the others.
    New(Draft, Made),
}

impl Part {
    /// Whether it takes attributes from the layers below.
    pub(super) fn is_implicit(&self) -> Result<bool> {
        Ok(!self.making.implicit()?.is_empty())
    }
}

impl Snapshots {
    /// Unpacks the blob of a layer.
    pub(super) fn unpack_one(&self, layer: &ImageLayer) -> Result<Part> {
        let _span = tracing::debug_span!("unpack", layer = layer.digest).entered();
        let blob = self.inner.content.open(&parse_digest(&layer.digest)?)?;
        self.unpack_stream(blob, &layer.digest, &layer.diff_id)
    }

    /// Unpacks what is read; `digest` is for the error. Row H5: what comes out must be what the
    /// configuration says.
    pub(super) fn unpack_stream(
        &self,
        blob: impl Read + Send,
        digest: &str,
        diff_id: &str,
    ) -> Result<Part> {
        let inner = &self.inner;
        let draft = inner.shelf.draft()?;
        let unpacked = inner.shelf.start(&draft, inner.limits).and_then(|making| {
            let mut making = making;
            crate::failpoint::reach("snapshot.unpack.drafted");
            let facts = unpack(blob, &mut making, inner.limits)?;
            crate::failpoint::reach("snapshot.unpack.filled");
            if facts.diff_id != diff_id {
                return Err(StoreError::DiffId {
                    digest: digest.to_owned(),
                    expected: diff_id.to_owned(),
                    actual: facts.diff_id,
                });
            }
            Ok((making, facts))
        });
        match unpacked {
            Ok((making, unpacked)) => Ok(Part {
                draft,
                making,
                unpacked,
            }),
            Err(error) => {
                draft.discard(&inner.trash)?;
                Err(error)
            }
        }
    }

    /// Completes a layer at its place in a stack: `name` is its chain id, `below` what is under it.
    pub(super) fn finish_part(&self, part: Part, name: &str, below: &[Source]) -> Result<Source> {
        let Part {
            mut draft,
            making,
            unpacked,
        } = part;
        let finished = self.finish_making(making, &unpacked, name, below);
        let described = finished.and_then(|(made, meta)| draft.describe(meta).map(|()| made));
        match described {
            Ok(made) => Ok(Source::New(draft, made)),
            Err(error) => {
                draft.discard(&self.inner.trash)?;
                Err(error)
            }
        }
    }

    fn finish_making(
        &self,
        mut making: Making,
        unpacked: &Unpacked,
        name: &str,
        below: &[Source],
    ) -> Result<(Made, LayerMeta)> {
        let mut meta = meta_of(&making, unpacked);
        if !making.implicit()?.is_empty() {
            meta.chain = Some(name.to_owned());
            let roots = below.iter().rev().map(|source| self.root_of(source));
            implicit::describe(&mut making, &roots.collect::<Result<Vec<_>>>()?)?;
        }
        Ok((making.finish()?, meta))
    }

    fn root_of(&self, source: &Source) -> Result<Root> {
        match source {
            Source::Here(id) => files::open_directory(&self.inner.shelf.tree(id)?).map(Root::new),
            Source::New(draft, made) => draft.open(made),
        }
    }

    /// Gives up what was finished.
    pub(super) fn discard_sources(&self, sources: Vec<Source>) -> Result<()> {
        for source in sources {
            if let Source::New(draft, _) = source {
                draft.discard(&self.inner.trash)?;
            }
        }
        Ok(())
    }
}

impl Source {
    /// Whether it is a new layer of this diff id that fits into any stack.
    pub(super) fn is_shared_as(&self, diff_id: &str) -> bool {
        match self {
            Self::Here(_) => false,
            Self::New(draft, _) => {
                let meta = draft.meta();
                meta.chain.is_none() && meta.diff_id.as_deref() == Some(diff_id)
            }
        }
    }
}

fn meta_of(making: &Making, unpacked: &Unpacked) -> LayerMeta {
    LayerMeta {
        diff_id: Some(unpacked.diff_id.clone()),
        bytes: Some(making.file_bytes()),
        empty: unpacked.members == 0,
        chain: None,
        rootless: !making.root_described(),
        image: matches!(making, Making::Image(_)),
    }
}
