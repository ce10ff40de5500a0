//! Compares a store that has just come up again with what it had acknowledged before.

mod trees;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use orlop_proto::store::resource::Resource as Held;
use orlop_proto::store::{
    AddResourcesRequest, CheckRequest, ListImagesRequest, ListIngestsRequest, ListLeasesRequest,
    ListResourcesRequest, ReadRequest, ResolveImageRequest,
};
use sha2::{Digest as _, Sha256, Sha512};
use tonic::{Code, Status};

use super::chance::Chance;
use super::disk::{Place, files_below};
use super::journal::{ANY, Journal, Register, settle};
use super::process::Clients;
use super::workload::held_as;

/// Findings of `Maintenance.Check` that a crash never explains; the others are garbage that it may
/// leave.
const FINDINGS: [&str; 9] = [
    "damaged-blob",
    "wrong-size",
    "dangling-name",
    "damaged-name",
    "damaged-lease",
    "half-made-snapshot",
    "missing-parent",
    "missing-layer",
    "damaged-layer",
];
/// Larger blobs are compared on the disk, and now and then through the API too.
const READ_BYTES_MAX: usize = 1 << 20;

/// One comparison.
#[derive(Debug)]
pub struct Verifier<'a> {
    /// The store.
    pub clients: Clients,
    /// The facts; they are settled on what is found.
    pub journal: Journal,
    /// Where the files are.
    pub place: &'a Place,
    /// What was never synced may be lost.
    pub after_power_cut: bool,
    /// For what is too much to be looked at each time.
    pub chance: Chance,
}

type Outcome<T = ()> = Result<T, Status>;

impl Verifier<'_> {
    /// Everything; what does not hold is a violation in the journal.
    pub async fn run(mut self) {
        if let Err(status) = self.compare().await {
            self.violate(format!("a look at the store fails: {status:?}"));
        }
    }

    async fn compare(&mut self) -> Outcome {
        let on_disk = self.blobs_on_disk();
        self.leases().await?;
        self.names(&on_disk).await?;
        self.blobs(&on_disk).await?;
        self.ingests().await?;
        self.trees().await?;
        self.nothing_half_made();
        self.findings().await
    }

    fn violate(&self, what: String) {
        self.journal.violate(what);
    }

    fn verified(&self) {
        self.journal.facts().verified += 1;
    }

    /// Every blob that has its name has its bytes.
    fn blobs_on_disk(&self) -> BTreeSet<String> {
        let directory = self.place.root().join("store/blobs");
        let mut found = BTreeSet::new();
        for path in files_below(&directory) {
            let bytes = std::fs::read(&path).unwrap();
            match digest_named(&directory, &path) {
                Some(digest) if is_digest_of(&digest, &bytes) => drop(found.insert(digest)),
                _ => self.violate(format!("{} has wrong bytes", path.display())),
            }
        }
        found
    }

    async fn blobs(&mut self, on_disk: &BTreeSet<String>) -> Outcome {
        let blobs = self.journal.facts().blobs.clone();
        for (key, register) in blobs {
            let digest = key.split(' ').nth(1).unwrap();
            let here = on_disk.contains(digest);
            if !here && register.is_certain() {
                self.violate(format!("blob {key} is lost"));
            }
            let size = register.allowed().flatten().next().copied();
            if here && !register.is_certain() {
                self.adopt(key.split(' ').next().unwrap(), digest).await?;
            }
            settle(&mut self.journal.facts().blobs, &key, size.filter(|_| here));
            self.verified();
            if here && (size.unwrap_or_default() <= READ_BYTES_MAX || self.chance.one_in(8)) {
                let bytes = self.read(digest).await?;
                if !is_digest_of(digest, &bytes) {
                    self.violate(format!("wrong bytes of {digest} are served"));
                }
            }
        }
        Ok(())
    }

    /// Holds what a request without an answer has made, and perhaps not yet held.
    async fn adopt(&mut self, lease: &str, resource: &str) -> Outcome {
        let request = AddResourcesRequest {
            lease: lease.to_owned(),
            resources: vec![held_as(resource)],
        };
        self.clients.leases.add(request).await?;
        let mut facts = self.journal.facts();
        let held = facts
            .leases
            .get(lease)
            .and_then(|lease| lease.get().cloned());
        let mut held = held.unwrap_or_default();
        held.insert(resource.to_owned());
        settle(&mut facts.leases, lease, Some(held));
        Ok(())
    }

    async fn read(&mut self, digest: &str) -> Outcome<Vec<u8>> {
        let request = ReadRequest {
            digest: digest.to_owned(),
            verify: true,
            ..Default::default()
        };
        let mut stream = self.clients.content.read(request).await?.into_inner();
        let mut bytes = Vec::new();
        while let Some(piece) = stream.message().await? {
            bytes.extend_from_slice(&piece.data);
        }
        Ok(bytes)
    }

    async fn names(&mut self, on_disk: &BTreeSet<String>) -> Outcome {
        let request = ListImagesRequest::default();
        let listed = self.clients.images.list(request).await?.into_inner().images;
        let mut seen: BTreeMap<String, String> = BTreeMap::new();
        for image in listed.into_iter().filter_map(|summary| summary.image) {
            seen.insert(image.name, image.target.unwrap_or_default().digest);
        }
        for (name, digest) in &seen {
            self.complete(name, digest, on_disk).await?;
        }
        let mut names = self.journal.facts().names.clone();
        for name in seen.keys() {
            names.entry(name.clone()).or_insert_with(Register::absent);
        }
        for (name, register) in names {
            let digest = seen.get(&name);
            let fits = |allowed: Option<&String>| {
                allowed == digest || (digest.is_some() && allowed.is_some_and(|any| any == ANY))
            };
            if !register.allowed().any(fits) {
                self.violate(format!("{name} points at {digest:?}: {register:?}"));
            }
            settle(&mut self.journal.facts().names, &name, digest.cloned());
            self.verified();
        }
        let mut facts = self.journal.facts();
        facts
            .images
            .retain(|digest, _| seen.values().any(|target| target == digest));
        Ok(())
    }

    /// A name's whole tree is here.
    async fn complete(&mut self, name: &str, digest: &str, on_disk: &BTreeSet<String>) -> Outcome {
        let image = self.journal.facts().images.get(digest).cloned();
        for blob in image.iter().flat_map(|image| image.blobs()) {
            if !on_disk.contains(&blob.digest) {
                self.violate(format!("{name} has lost {}", blob.digest));
            }
        }
        let request = ResolveImageRequest {
            reference: name.to_owned(),
            ..Default::default()
        };
        let resolved = self.clients.images.resolve(request).await?.into_inner();
        if !is_digest_of(digest, &resolved.manifest_json) {
            self.violate(format!("{name} resolves to a wrong manifest"));
        }
        match image.filter(|_| self.chance.one_in(4)) {
            Some(image) => self.unpacked(&image).await,
            None => Ok(()),
        }
    }

    async fn ingests(&mut self) -> Outcome {
        let request = ListIngestsRequest {};
        let mut stream = self
            .clients
            .content
            .list_ingests(request)
            .await?
            .into_inner();
        let mut seen = BTreeMap::new();
        while let Some(ingest) = stream.message().await? {
            seen.insert(ingest.ingest_id, usize::try_from(ingest.offset).unwrap());
        }
        let ingests = self.journal.facts().ingests.clone();
        for (id, register) in ingests {
            let offset = seen.get(&id).copied();
            let least = register
                .allowed()
                .flatten()
                .map(|(offset, _)| *offset)
                .min();
            let blob = register
                .allowed()
                .flatten()
                .map(|(_, blob)| blob.clone())
                .next();
            let lost = register.is_certain() && offset < least;
            let size = blob.as_ref().map(|blob| blob.bytes.len());
            if lost || (register.is_certain() && offset.is_some() && offset > size) {
                self.violate(format!("ingest {id} is at {offset:?}, not at {least:?}"));
            }
            let left = offset.and_then(|offset| Some((offset, blob?)));
            settle(&mut self.journal.facts().ingests, &id, left);
            self.verified();
        }
        Ok(())
    }

    /// A lease holds at least what it must, and at most what it may.
    async fn leases(&mut self) -> Outcome {
        let request = ListLeasesRequest {};
        let mut stream = self.clients.leases.list(request).await?.into_inner();
        let mut seen = BTreeMap::new();
        while let Some(lease) = stream.message().await? {
            let held = self.held_by(&lease.id).await?;
            seen.insert(lease.id, held);
        }
        let leases = self.journal.facts().leases.clone();
        for id in seen.keys().filter(|id| !leases.contains_key(*id)) {
            self.violate(format!("lease {id} was never made"));
        }
        for (id, register) in leases {
            let held = seen.remove(&id);
            if let Some(problem) = problem_of(&register, held.as_ref()) {
                self.violate(format!("lease {id}: {problem}"));
            }
            settle(&mut self.journal.facts().leases, &id, held);
            self.verified();
        }
        Ok(())
    }

    async fn held_by(&mut self, lease: &str) -> Outcome<BTreeSet<String>> {
        let request = ListResourcesRequest {
            lease: lease.to_owned(),
        };
        let stream = self.clients.leases.list_resources(request).await?;
        let mut stream = stream.into_inner();
        let mut held = BTreeSet::new();
        while let Some(resource) = stream.message().await? {
            held.extend(resource.resource.map(|resource| match resource {
                Held::Blob(digest) => digest,
                Held::Snapshot(key) => format!("snapshot {key}"),
            }));
        }
        Ok(held)
    }

    /// What a crash left unfinished is gone when the store serves.
    fn nothing_half_made(&self) {
        for part in ["tmp", "blobs", "images", "leases", "layers", "snapshots"] {
            let directory = self.place.root().join("store").join(part);
            for entry in std::fs::read_dir(&directory)
                .into_iter()
                .flatten()
                .flatten()
            {
                if entry.file_name().to_string_lossy().starts_with(".tmp") {
                    self.violate(format!("{} is left", entry.path().display()));
                }
            }
        }
    }

    async fn findings(&mut self) -> Outcome {
        // Each layer is compared with what its blob makes.
        let request = CheckRequest {
            rehash: self.chance.one_in(4),
            ..Default::default()
        };
        let mut stream = match self.clients.maintenance.check(request).await {
            Ok(stream) => stream.into_inner(),
            Err(status) if status.code() == Code::Unimplemented => return Ok(()),
            Err(status) => return Err(status),
        };
        while let Some(finding) = stream.message().await? {
            if FINDINGS.contains(&finding.kind.as_str()) {
                self.violate(format!("the check finds {finding:?}"));
            }
        }
        Ok(())
    }
}

fn problem_of(
    register: &Register<BTreeSet<String>>,
    held: Option<&BTreeSet<String>>,
) -> Option<String> {
    let Some(held) = held else {
        return register.is_certain().then(|| "is lost".to_owned());
    };
    let sets: Vec<_> = register.allowed().flatten().collect();
    if sets.is_empty() {
        return Some("is there again".to_owned());
    }
    let must = |resource: &&String| sets.iter().all(|set| set.contains(*resource));
    let lost: Vec<_> = sets[0]
        .iter()
        .filter(must)
        .filter(|resource| !held.contains(*resource))
        .collect();
    let may = |resource: &&String| sets.iter().any(|set| set.contains(*resource));
    let extra: Vec<_> = held.iter().filter(|resource| !may(resource)).collect();
    (!lost.is_empty() || !extra.is_empty())
        .then(|| format!("has lost {lost:?}, and holds {extra:?} besides"))
}

/// `blobs/<algorithm>/…/<hex>`.
fn digest_named(blobs: &Path, path: &Path) -> Option<String> {
    let algorithm = path.strip_prefix(blobs).ok()?.iter().next()?.to_str()?;
    Some(format!("{algorithm}:{}", path.file_name()?.to_str()?))
}

/// Whether a digest names these bytes.
pub fn is_digest_of(digest: &str, bytes: &[u8]) -> bool {
    match digest.split_once(':') {
        Some(("sha256", digest)) => hex::encode(Sha256::digest(bytes)) == digest,
        Some(("sha512", digest)) => hex::encode(Sha512::digest(bytes)) == digest,
        _ => false,
    }
}
