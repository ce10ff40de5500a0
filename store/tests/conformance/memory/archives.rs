//! `Archives` in memory.

use std::collections::BTreeMap;
use std::io::Read as _;

use bytes::Bytes;
use oci_spec::image::{Descriptor, ImageIndex};
use orlop_proto::reference::Reference;
use orlop_proto::store as pb;
use orlop_proto::store::import_request::Message;
use serde_json::{Value, json};
use tonic::{Request, Status, Streaming};

use super::content::digest_like;
use super::documents::Wanted;
use super::tars::{clean, plain};
use super::tree::{Path, text};
use super::{Answer, Answers, Memory, State, answer, answers, invalid};
use crate::words::{CONFIG, LAYER, MANIFEST};

const NAME_ANNOTATION: &str = "io.containerd.image.name";
const DOCUMENT_BYTES_MAX: usize = 1 << 20;

/// The members of an archive by their paths.
type Members = BTreeMap<String, Bytes>;

fn malformed(error: impl std::fmt::Display) -> Status {
    invalid(format!("malformed archive: {error}"))
}

fn members(archive: &[u8]) -> Result<Members, Status> {
    let tar = plain(archive)?;
    let mut members = Members::new();
    let mut links = Vec::new();
    for entry in tar::Archive::new(tar.as_slice())
        .entries()
        .map_err(malformed)?
    {
        let mut entry = entry.map_err(malformed)?;
        let raw = entry.path_bytes().into_owned();
        if raw.starts_with(b"/") || raw.split(|byte| *byte == b'/').any(|name| name == b"..") {
            return Err(malformed("a path leads out of the archive"));
        }
        let path = clean(&raw)?;
        let mut data = Vec::new();
        entry.read_to_end(&mut data).map_err(malformed)?;
        let link = entry.link_name_bytes().unwrap_or_default().into_owned();
        match entry.header().entry_type() {
            tar::EntryType::Symlink => links.push((path.clone(), beside(&path, &link)?)),
            kind if kind.is_file() => drop(members.insert(shown(&path)?, data.into())),
            _ => {}
        }
    }
    for (path, target) in links {
        if let Some(bytes) = members.get(&shown(&target)?).cloned() {
            members.insert(shown(&path)?, bytes);
        }
    }
    members
        .iter()
        .try_for_each(|(path, bytes)| check(path, bytes))?;
    Ok(members)
}

fn shown(path: &Path) -> Result<String, Status> {
    String::from_utf8(text(path)).map_err(malformed)
}

/// Where a link of an archive points.
fn beside(path: &Path, link: &[u8]) -> Result<Path, Status> {
    let parent = path.split_last().map_or(&[][..], |(_, parent)| parent);
    clean(&[parent.join(&b'/').as_slice(), link].join(&b'/'))
}

/// A blob's path is its digest; a list of images is small.
fn check(path: &str, bytes: &Bytes) -> Result<(), Status> {
    let list = path == "index.json" || path == "manifest.json";
    if list && bytes.len() > DOCUMENT_BYTES_MAX {
        return Err(malformed("a list of images with more than 1 MiB"));
    }
    let Some((algorithm, hex)) = path.strip_prefix("blobs/").and_then(|p| p.split_once('/')) else {
        return Ok(());
    };
    let digest = format!("{algorithm}:{hex}");
    super::content::check_digest(&digest)?;
    match digest_like(&digest, bytes) == digest {
        true => Ok(()),
        false => Err(malformed(format!("{path} is not what its name says"))),
    }
}

fn member<'a>(members: &'a Members, path: &str) -> Result<&'a Bytes, Status> {
    let bytes = members.get(path);
    bytes.ok_or_else(|| malformed(format!("{path} is named and missing")))
}

/// An image of an archive, and the names that it gets.
type Found = (Descriptor, Vec<String>);

/// Those of an OCI layout.
fn of_index(index: &ImageIndex, docker: &[(String, Vec<String>)], members: &Members) -> Vec<Found> {
    let names_of = |entry: &Descriptor| {
        let annotations = entry.annotations().clone().unwrap_or_default();
        if let Some(name) = annotations.get(NAME_ANNOTATION) {
            return vec![name.clone()];
        }
        let path = format!("blobs/sha256/{}", entry.digest().digest());
        let manifest = members
            .get(&path)
            .and_then(|json| serde_json::from_slice(json).ok());
        let config = manifest.map(|json: Value| json["config"]["digest"].clone());
        let same = docker
            .iter()
            .filter(|(digest, _)| config == Some(json!(digest)));
        same.flat_map(|(_, tags)| tags.clone()).collect()
    };
    let entries = index.manifests().iter();
    entries
        .map(|entry| {
            let media_type = entry.media_type().clone();
            let target = Descriptor::new(media_type, entry.size(), entry.digest().clone());
            (target, names_of(entry))
        })
        .collect()
}

/// The digest of a docker-archive's configuration, which its name must be.
fn config_digest(image: &Value, members: &Members) -> Result<String, Status> {
    let path = image["Config"].as_str().unwrap_or_default();
    let hex = path.strip_prefix("blobs/sha256/").unwrap_or(path);
    let hex = hex.strip_suffix(".json").unwrap_or(hex);
    let digest = format!("sha256:{}", hex.strip_prefix("sha256:").unwrap_or(hex));
    super::content::check_digest(&digest)?;
    match digest_like("sha256", member(members, path)?) == digest {
        true => Ok(digest),
        false => Err(malformed("a configuration is not what its name says")),
    }
}

fn strings(value: &Value) -> Vec<String> {
    let all = value.as_array().into_iter().flatten();
    all.filter_map(Value::as_str).map(str::to_owned).collect()
}

impl State {
    fn load(&mut self, archive: &[u8]) -> Result<pb::LoadResponse, Status> {
        let members = members(archive)?;
        let before = self.blobs.clone();
        let loaded = self.load_members(&members);
        if loaded.is_err() {
            self.blobs = before;
        }
        loaded
    }

    fn load_members(&mut self, members: &Members) -> Result<pb::LoadResponse, Status> {
        let images: Vec<Value> = match members.get("manifest.json") {
            Some(json) => serde_json::from_slice(json).map_err(malformed)?,
            None => Vec::new(),
        };
        let mut docker = Vec::new();
        for image in &images {
            docker.push((config_digest(image, members)?, strings(&image["RepoTags"])));
        }
        for bytes in members.values() {
            self.keep_made(bytes.to_vec());
        }
        let found = match members.get("index.json") {
            Some(json) => {
                let index = serde_json::from_slice(json).map_err(malformed)?;
                of_index(&index, &docker, members)
            }
            None if docker.is_empty() => return Err(malformed("it names no images")),
            None => self.of_docker(&images, docker, members)?,
        };
        for (target, names) in &found {
            self.tree(target)
                .map_err(|status| invalid(status.message()))?;
            for name in names {
                name.parse::<Reference>().map_err(malformed)?;
            }
        }
        let mut response = pb::LoadResponse::default();
        for (target, names) in found {
            if names.is_empty() {
                response.unnamed.push(target.digest().to_string());
            }
            for name in names {
                response
                    .images
                    .push(self.name(&name, target.clone(), None)?);
            }
        }
        Ok(response)
    }

    /// Those of a docker-archive, which has no manifests: they are made.
    fn of_docker(
        &mut self,
        images: &[Value],
        docker: Vec<(String, Vec<String>)>,
        members: &Members,
    ) -> Result<Vec<Found>, Status> {
        let mut found = Vec::new();
        for (image, (config, tags)) in images.iter().zip(docker) {
            let mut layers = Vec::new();
            for path in strings(&image["Layers"]) {
                let bytes = member(members, &path)?;
                let digest = digest_like("sha256", bytes);
                layers.push(json!({"mediaType": LAYER, "digest": digest, "size": bytes.len()}));
            }
            let size = self.blob(&config)?.bytes.len();
            let target = self.manifest(&config, size, &layers)?;
            found.push((target, tags));
        }
        Ok(found)
    }

    fn manifest(
        &mut self,
        config: &str,
        size: usize,
        layers: &[Value],
    ) -> Result<Descriptor, Status> {
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": config, "size": size},
            "layers": layers,
        });
        let digest = self.keep_made(manifest.to_string().into_bytes());
        self.target(&digest)
    }

    fn save(&mut self, references: &[String]) -> Result<Vec<u8>, Status> {
        let mut members = Members::new();
        let mut entries = Vec::new();
        for reference in references {
            let resolved = self.resolve(reference, &Wanted::or_host(None))?;
            let target = resolved.target.unwrap_or_default();
            let tree = self.tree(&self.target(&target.digest)?)?;
            for digest in tree.blobs {
                let path = format!("blobs/{}", digest.replace(':', "/"));
                members.insert(path, self.blob(&digest)?.bytes.clone());
            }
            let mut entry = json!({
                "mediaType": target.media_type, "digest": target.digest, "size": target.size,
            });
            if !resolved.name.is_empty() {
                entry["annotations"] = json!({NAME_ANNOTATION: resolved.name});
            }
            entries.push(entry);
        }
        if entries.is_empty() {
            return Err(invalid("there is no image to save"));
        }
        let index = json!({"schemaVersion": 2, "manifests": entries}).to_string();
        members.insert("index.json".to_owned(), index.into());
        let mut tar = tar::Builder::new(Vec::new());
        for (path, bytes) in &members {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o444);
            tar.append_data(&mut header, path, bytes.as_ref())
                .map_err(malformed)?;
        }
        tar.into_inner().map_err(malformed)
    }

    fn import(
        &mut self,
        options: &pb::ImportOptions,
        archive: Vec<u8>,
    ) -> Result<pb::ImportResponse, Status> {
        let of_config = match options.config_json.as_str() {
            "" => json!({}),
            text => serde_json::from_str(text).map_err(malformed)?,
        };
        let tar = plain(&archive)?;
        let mut root = super::tree::Tree::default();
        let how = super::tars::Extraction {
            dest: Path::new(),
            whiteouts: true,
            owner: None,
            serial: 0,
        };
        if tar.is_empty() {
            return Err(malformed("it is empty"));
        }
        super::tars::extract(&mut root, &tar, &how)?;
        let platform = Wanted::or_host(options.platform.clone()).0;
        let config = json!({
            "architecture": platform.architecture,
            "os": platform.os,
            "config": of_config,
            "history": [{"comment": options.message}],
            "rootfs": {"type": "layers", "diff_ids": [digest_like("sha256", &tar)]},
        });
        let config = config.to_string().into_bytes();
        let (layer_size, config_size) = (archive.len(), config.len());
        let suffix = match archive.first() {
            Some(0x1f) => "+gzip",
            Some(0x28) => "+zstd",
            _ => "",
        };
        let (layer, image_id) = (self.keep_made(archive), self.keep_made(config));
        let media_type = format!("{LAYER}{suffix}");
        let layer = json!({"mediaType": media_type, "digest": layer, "size": layer_size});
        let target = self.manifest(&image_id, config_size, &[layer])?;
        self.tree(&target)?;
        if !options.name.is_empty() {
            self.name(&options.name, target.clone(), None)?;
        }
        Ok(pb::ImportResponse {
            image_id,
            target: Some((&target).into()),
        })
    }
}

#[tonic::async_trait]
impl pb::archives_server::Archives for Memory {
    type SaveStream = Answers<pb::SaveResponse>;

    async fn load(&self, request: Request<Streaming<pb::LoadRequest>>) -> Answer<pb::LoadResponse> {
        let mut messages = request.into_inner();
        let mut archive = Vec::new();
        while let Some(message) = messages.message().await? {
            archive.extend_from_slice(&message.data);
        }
        answer(self.lock().load(&archive)?)
    }

    async fn save(&self, request: Request<pb::SaveRequest>) -> Answer<Self::SaveStream> {
        let tar = self.lock().save(&request.into_inner().references)?;
        let pieces = tar.chunks(1 << 20).map(|piece| pb::SaveResponse {
            data: piece.to_vec().into(),
        });
        answers(pieces.collect::<Vec<_>>())
    }

    async fn import(
        &self,
        request: Request<Streaming<pb::ImportRequest>>,
    ) -> Answer<pb::ImportResponse> {
        let mut messages = request.into_inner();
        let first = messages.message().await?.and_then(|first| first.message);
        let Some(Message::Options(options)) = first else {
            return Err(invalid("the first message of an import has its options"));
        };
        let mut archive = Vec::new();
        while let Some(message) = messages.message().await? {
            match message.message {
                Some(Message::Data(data)) => archive.extend_from_slice(&data),
                _ => return Err(invalid("options come first, and once")),
            }
        }
        answer(self.lock().import(&options, archive)?)
    }
}
