//! The layers of an image: each blob unpacked once, all at once, and named by its chain id.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io::Read;
use std::sync::{Mutex, PoisonError};

use orlop_proto::descriptor::parse_digest;

use crate::error::{Result, StoreError};
use crate::layers::chain::chain_ids;
use crate::layers::compress::Codec;
use crate::layers::decompress::{Format, detect};
use crate::layers::making::Made;
use crate::layers::shelf::Shelf;
use crate::snapshots::parts::{Part, Source};
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
        self.want(names.iter().map(String::as_str));
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
        let parts = self.unpack_all(&self.missing(layers, &names))?;
        let sources = self.settle(layers, &names, parts)?;
        let is_new = |source: &&Source| matches!(source, Source::New(..));
        done.unpacked = count(sources.iter().filter(is_new).count());
        done.existed -= done.unpacked;
        self.publish_all(layers, &names, sources)?;
        Ok(done)
    }

    /// Bytes of the files of an unpacked layer; `None` when it is not unpacked.
    pub fn layer_bytes(&self, diff_id: &str) -> Option<u64> {
        self.inner.shelf.meta_of(diff_id)?.bytes
    }

    /// A turn at all layers and names, so that several callers share the work, and that no layer is
    /// taken for an unused one before its snapshot has a name. Which id a new layer gets, its archive
    /// decides.
    fn turn_of(&self, layers: &[ImageLayer], names: &[String]) -> Turn<'_> {
        loop {
            let found = || {
                let pairs = layers.iter().zip(names);
                pairs.filter_map(|(layer, name)| self.inner.shelf.find(&layer.diff_id, name))
            };
            let ids: HashSet<String> = layers
                .iter()
                .map(|layer| layer.diff_id.replace(':', "-"))
                .chain(names.iter().map(|name| Shelf::id_in(name)))
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
    fn missing(&self, layers: &[ImageLayer], names: &[String]) -> Vec<ImageLayer> {
        let mut seen = HashSet::new();
        let here = |layer: &ImageLayer, name: &str| self.inner.shelf.find(&layer.diff_id, name);
        layers
            .iter()
            .zip(names)
            .filter(|(layer, name)| here(layer, name).is_none())
            .filter(|(layer, _)| seen.insert(layer.diff_id.as_str()))
            .map(|(layer, _)| layer.clone())
            .collect()
    }

    /// As many at once as there are cores.
    fn unpack_all(&self, missing: &[ImageLayer]) -> Result<HashMap<String, Part>> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let todo: Mutex<VecDeque<&ImageLayer>> = Mutex::new(missing.iter().collect());
        let done = Mutex::new(HashMap::new());
        let failure = Mutex::new(None);
        let rpc = tracing::Span::current();
        let work = || rpc.in_scope(|| self.unpack_while(&todo, &done, &failure));
        std::thread::scope(|scope| {
            for _ in 0..cores.min(missing.len()) {
                scope.spawn(work);
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
        done: &Mutex<HashMap<String, Part>>,
        failure: &Mutex<Option<StoreError>>,
    ) {
        loop {
            let next = lock(todo).pop_front();
            let Some(layer) = next else {
                return;
            };
            match self.unpack_one(layer) {
                Ok(part) => drop(lock(done).insert(layer.diff_id.clone(), part)),
                Err(error) => {
                    lock(todo).clear();
                    lock(failure).get_or_insert(error);
                }
            }
        }
    }

    fn discard(&self, parts: HashMap<String, Part>) -> Result<()> {
        for part in parts.into_values() {
            part.draft.discard(&self.inner.trash)?;
        }
        Ok(())
    }

    /// Finishes the parts, bottom first: a layer may take attributes from those below it.
    fn settle(
        &self,
        layers: &[ImageLayer],
        names: &[String],
        mut parts: HashMap<String, Part>,
    ) -> Result<Vec<Source>> {
        let mut sources = Vec::new();
        for (layer, name) in layers.iter().zip(names) {
            match self.settle_one(layer, name, &mut parts, &sources) {
                Ok(source) => sources.push(source),
                Err(error) => {
                    self.discard(parts)?;
                    self.discard_sources(sources)?;
                    return Err(error);
                }
            }
        }
        Ok(sources)
    }

    fn settle_one(
        &self,
        layer: &ImageLayer,
        name: &str,
        parts: &mut HashMap<String, Part>,
        below: &[Source],
    ) -> Result<Source> {
        if let Some(part) = parts.remove(&layer.diff_id) {
            return self.finish_part(part, name, below);
        }
        let again = |source: &&Source| source.is_shared_as(&layer.diff_id);
        if let Some(Source::New(draft, _)) = below.iter().find(again) {
            return Ok(Source::Here(Shelf::id_of(draft.meta()).unwrap_or_default()));
        }
        match self.inner.shelf.find(&layer.diff_id, name) {
            Some(id) => Ok(Source::Here(id)),
            // The image has it twice, and it is another layer each time.
            None => self.finish_part(self.unpack_one(layer)?, name, below),
        }
    }

    /// Trees before the names that point at them, all durable before the first gets its name.
    fn publish_all(
        &self,
        layers: &[ImageLayer],
        names: &[String],
        sources: Vec<Source>,
    ) -> Result<()> {
        let inner = &self.inner;
        let mut records = Vec::new();
        for (position, (layer, source)) in layers.iter().zip(&sources).enumerate() {
            let name = &names[position];
            if inner.records.get(name).is_ok() {
                continue;
            }
            let below = position.checked_sub(1).map(|below| names[below].clone());
            let record = self.record_of(layer, name, below, source)?;
            let (draft, description) = inner.records.draft(&record)?;
            description
                .sync_data()
                .map_err(files::failed("sync", &draft))?;
            files::sync_directory(&draft)?;
            records.push((draft, record));
        }
        let _span = tracing::debug_span!("publish", layers = layers.len()).entered();
        crate::failpoint::reach("snapshot.unpack.begun");
        sync(&sources)?;
        crate::failpoint::reach("snapshot.unpack.synced");
        for source in sources {
            if let Source::New(draft, _) = source {
                let id = Shelf::id_of(draft.meta()).unwrap_or_default();
                inner.shelf.publish(draft, &id)?;
            }
        }
        crate::failpoint::reach("snapshot.unpack.layers_published");
        files::sync_directory(inner.shelf.directory())?;
        crate::failpoint::reach("snapshot.unpack.layers_synced");
        for (draft, record) in records {
            inner.records.publish(&draft, record)?;
            crate::failpoint::reach("snapshot.unpack.record_published");
        }
        files::sync_directory(inner.records.directory())
    }

    fn record_of(
        &self,
        layer: &ImageLayer,
        name: &str,
        below: Option<String>,
        source: &Source,
    ) -> Result<Record> {
        let (id, meta) = match source {
            Source::Here(id) => (Some(id.clone()), self.inner.shelf.meta(id)),
            Source::New(draft, _) => (Shelf::id_of(draft.meta()), Some(draft.meta().clone())),
        };
        let empty = meta.is_some_and(|meta| meta.empty);
        let mut record = Record::new(name, Kind::Committed, below, HashMap::new());
        record.layer = id;
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

/// One sync of the file system is enough for all trees.
fn sync(sources: &[Source]) -> Result<()> {
    let new = sources.iter().filter_map(|source| match source {
        Source::New(draft, made) => Some((draft, made)),
        Source::Here(_) => None,
    });
    let (trees, images): (Vec<_>, Vec<_>) = new.partition(|(_, made)| matches!(made, Made::Tree));
    let mut each = images.iter().chain(trees.first());
    each.try_for_each(|(draft, made)| draft.sync(made))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
