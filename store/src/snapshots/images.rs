//! The layers of an image: each blob unpacked once, all at once, and named by its chain id.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io::Read as _;
use std::sync::{Mutex, PoisonError};

use orlop_proto::descriptor::parse_digest;

use crate::error::{Result, StoreError};
use crate::layers::chain::chain_ids;
use crate::layers::compress::Codec;
use crate::layers::decompress::{Format, detect};
use crate::layers::shelf::{Draft, LayerMeta, Shelf};
use crate::layers::unpack::unpack;
use crate::snapshots::record::{Kind, Packed, Record};
use crate::snapshots::{Snapshots, Turn, files, layer_turn};

/// One layer of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageLayer {
    /// Digest of the blob.
    pub digest: String,
    /// Digest of the plain tar, as the configuration says.
    pub diff_id: String,
}

/// What unpacking an image did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// The snapshot of the topmost layer; empty without layers.
    pub name: String,
    /// Layers unpacked now.
    pub unpacked: u32,
    /// Layers that were here.
    pub existed: u32,
}

impl Snapshots {
    /// Makes the layers of an image mountable, bottom first. On error nothing is left behind.
    pub fn unpack(&self, layers: &[ImageLayer], lease: &str) -> Result<Unpacked> {
        let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
        let names = chain_ids(&diff_ids);
        let Some(top) = names.last() else {
            return Ok(Unpacked::default());
        };
        self.hold(lease, top)?;
        self.inner.unwanted().retain(|name| !names.contains(name));
        let count = |layers: usize| u32::try_from(layers).unwrap_or(u32::MAX);
        let mut done = Unpacked {
            name: top.clone(),
            unpacked: 0,
            existed: count(layers.len()),
        };
        if self.inner.records.get(top).is_ok() && self.parents_of(top).is_ok() {
            return Ok(done);
        }
        let _turn = self.turn_of(layers, &names);
        let missing = self.missing(layers);
        let drafts = self.unpack_all(&missing)?;
        done.unpacked = count(drafts.len());
        done.existed -= done.unpacked;
        self.publish_all(layers, &names, drafts)?;
        Ok(done)
    }

    /// Bytes of the files of an unpacked layer; `None` when it is not unpacked.
    pub fn layer_bytes(&self, diff_id: &str) -> Option<u64> {
        self.inner.shelf.meta_of(diff_id)?.bytes
    }

    /// A turn at all layers and names, so that several callers share the work.
    fn turn_of(&self, layers: &[ImageLayer], names: &[String]) -> Turn<'_> {
        loop {
            let found = || {
                layers
                    .iter()
                    .filter_map(|layer| self.inner.shelf.find(&layer.diff_id))
            };
            let ids: HashSet<String> = layers
                .iter()
                .map(|layer| Shelf::id_of(&layer.diff_id))
                .chain(found())
                .collect();
            let things = ids.iter().map(|id| layer_turn(id));
            let turn = self
                .inner
                .turns
                .take(things.chain(names.iter().cloned()).collect());
            if found().all(|id| ids.contains(&id)) {
                return turn;
            }
        }
    }

    /// Each once, even if the image has it twice.
    fn missing(&self, layers: &[ImageLayer]) -> Vec<ImageLayer> {
        let mut seen = HashSet::new();
        layers
            .iter()
            .filter(|layer| self.inner.shelf.find(&layer.diff_id).is_none())
            .filter(|layer| seen.insert(layer.diff_id.as_str()))
            .cloned()
            .collect()
    }

    /// As many at once as there are cores.
    fn unpack_all(&self, missing: &[ImageLayer]) -> Result<HashMap<String, Draft>> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let todo: Mutex<VecDeque<&ImageLayer>> = Mutex::new(missing.iter().collect());
        let done = Mutex::new(HashMap::new());
        let failure = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..cores.min(missing.len()) {
                scope.spawn(|| self.unpack_while(&todo, &done, &failure));
            }
        });
        let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            None => Ok(done),
            Some(error) => {
                self.discard(done)?;
                Err(error)
            }
        }
    }

    fn unpack_while(
        &self,
        todo: &Mutex<VecDeque<&ImageLayer>>,
        done: &Mutex<HashMap<String, Draft>>,
        failure: &Mutex<Option<StoreError>>,
    ) {
        loop {
            let next = lock(todo).pop_front();
            let Some(layer) = next else {
                return;
            };
            match self.unpack_one(layer) {
                Ok(draft) => drop(lock(done).insert(layer.diff_id.clone(), draft)),
                Err(error) => {
                    lock(todo).clear();
                    lock(failure).get_or_insert(error);
                }
            }
        }
    }

    fn discard(&self, drafts: HashMap<String, Draft>) -> Result<()> {
        for draft in drafts.into_values() {
            draft.discard(&self.inner.trash)?;
        }
        Ok(())
    }

    fn unpack_one(&self, layer: &ImageLayer) -> Result<Draft> {
        let mut draft = self.inner.shelf.draft()?;
        let unpacked = self.unpack_into(layer, &mut draft);
        match unpacked {
            Ok(()) => Ok(draft),
            Err(error) => {
                draft.discard(&self.inner.trash)?;
                Err(error)
            }
        }
    }

    /// Row H5: what came out must be what the configuration says.
    fn unpack_into(&self, layer: &ImageLayer, draft: &mut Draft) -> Result<()> {
        let blob = self.inner.content.open(&parse_digest(&layer.digest)?)?;
        let tree = files::open_directory(&draft.make_tree()?)?;
        let unpacked = unpack(blob, tree, self.inner.limits)?;
        if unpacked.diff_id != layer.diff_id {
            return Err(StoreError::DiffId {
                digest: layer.digest.clone(),
                expected: layer.diff_id.clone(),
                actual: unpacked.diff_id,
            });
        }
        draft.describe(LayerMeta {
            diff_id: Some(unpacked.diff_id),
            bytes: Some(unpacked.file_bytes),
            empty: unpacked.members == 0,
        })
    }

    /// Trees before the names that point at them; one sync for all before, one after.
    fn publish_all(
        &self,
        layers: &[ImageLayer],
        names: &[String],
        mut drafts: HashMap<String, Draft>,
    ) -> Result<()> {
        let inner = &self.inner;
        let mut records = Vec::new();
        for (position, layer) in layers.iter().enumerate() {
            let name = &names[position];
            if inner.records.get(name).is_ok() {
                continue;
            }
            let below = position.checked_sub(1).map(|below| names[below].clone());
            let known = drafts.get(&layer.diff_id).map(|draft| draft.meta().clone());
            let known = known.or_else(|| inner.shelf.meta_of(&layer.diff_id));
            let empty = known.is_some_and(|meta| meta.empty);
            let record = self.record_of(layer, name, below, empty)?;
            let (draft, _) = inner.records.draft(&record)?;
            records.push((draft, record));
        }
        files::sync_file_system(inner.records.directory())?;
        for layer in layers {
            if let Some(draft) = drafts.remove(&layer.diff_id) {
                let id = Shelf::id_of(&layer.diff_id);
                inner.shelf.publish(draft, &id)?;
            }
        }
        files::sync_directory(inner.shelf.directory())?;
        for (draft, record) in records {
            inner.records.publish(&draft, record)?;
        }
        files::sync_directory(inner.records.directory())
    }

    fn record_of(
        &self,
        layer: &ImageLayer,
        name: &str,
        below: Option<String>,
        empty: bool,
    ) -> Result<Record> {
        let found = self.inner.shelf.find(&layer.diff_id);
        let mut record = Record::new(name, Kind::Committed, below, HashMap::new());
        record.layer = Some(found.unwrap_or_else(|| Shelf::id_of(&layer.diff_id)));
        record.diff_id = Some(layer.diff_id.clone());
        record.blobs = self.blob_of(layer, empty)?;
        Ok(record)
    }

    /// The blob that the layer came from is the answer to a later diff.
    fn blob_of(&self, layer: &ImageLayer, empty: bool) -> Result<BTreeMap<Codec, Packed>> {
        let mut blob = self.inner.content.open(&parse_digest(&layer.digest)?)?;
        let failed = |source| StoreError::TarRead {
            what: "a blob",
            source,
        };
        let size = blob.metadata().map_err(failed)?.len();
        let mut head = Vec::new();
        (&mut blob).take(6).read_to_end(&mut head).map_err(failed)?;
        let codec = match detect(&head)? {
            Format::Plain => Codec::None,
            Format::Gzip => Codec::Gzip,
            Format::Zstd => Codec::Zstd,
        };
        let packed = Packed {
            digest: layer.digest.clone(),
            size,
            empty,
        };
        Ok(BTreeMap::from([(codec, packed)]))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
