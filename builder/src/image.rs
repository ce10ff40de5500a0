//! An image's configuration while a stage goes on, and base images as they were found.
//!
//! The configuration is kept as its JSON object: Docker's fields that the OCI specification does not
//! have (`Healthcheck`, `OnBuild`, `Shell`), and whatever a base image brings along, must survive.

use oci_spec::image::{Descriptor, ImageConfiguration, ImageManifest};
use orlop_proto::store::ResolvedImage;
use serde_json::{Map, Value, json};

use crate::error::BuildError;

/// What BuildKit gives to an image that has no PATH of its own.
const PATH_DEFAULT: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Docker's default shell.
const SHELL_DEFAULT: [&str; 2] = ["/bin/sh", "-c"];

/// The `config` object of an image configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config(pub Map<String, Value>);

/// An image that a stage begins with or copies from.
#[derive(Clone, Debug)]
pub struct Base {
    /// Its normal name.
    pub name: String,
    /// Digest of its manifest.
    pub manifest: String,
    /// The whole configuration document.
    pub document: Map<String, Value>,
    /// Its layers.
    pub layers: Vec<Descriptor>,
    /// Their diff ids.
    pub diff_ids: Vec<String>,
    /// Whether it was pulled for this build.
    pub pulled: bool,
}

// === impl Base ===

impl Base {
    /// Reads what the store resolved. A document that contradicts itself is refused here, before
    /// anything is built on it.
    pub fn read(image: &ResolvedImage, asked: &str, pulled: bool) -> Result<Self, BuildError> {
        let fail = |problem: String| BuildError::Base {
            image: asked.to_owned(),
            problem,
        };
        let manifest: ImageManifest = serde_json::from_slice(&image.manifest_json)
            .map_err(|e| fail(format!("its manifest is malformed: {e}")))?;
        let config: ImageConfiguration = serde_json::from_slice(&image.config_json)
            .map_err(|e| fail(format!("its configuration is malformed: {e}")))?;
        let document: Map<String, Value> = serde_json::from_slice(&image.config_json)
            .map_err(|e| fail(format!("its configuration is malformed: {e}")))?;
        let layers = manifest.layers().clone();
        let diff_ids = config.rootfs().diff_ids().clone();
        if config.rootfs().typ() != "layers" || diff_ids.len() != layers.len() {
            let (a, b) = (diff_ids.len(), layers.len());
            return Err(fail(format!(
                "its configuration lists {a} layers, its manifest {b}"
            )));
        }
        let history = config.history().as_deref().unwrap_or_default();
        let made = history
            .iter()
            .filter(|entry| !entry.empty_layer().unwrap_or(false))
            .count();
        if !history.is_empty() && made != layers.len() {
            let count = layers.len();
            return Err(fail(format!(
                "its history tells of {made} layers, there are {count}"
            )));
        }
        let manifest = image
            .manifest
            .as_ref()
            .map(|m| m.digest.clone())
            .unwrap_or_default();
        Ok(Self {
            name: asked.to_owned(),
            manifest,
            document,
            layers,
            diff_ids,
            pulled,
        })
    }

    /// The `config` object.
    pub fn config(&self) -> Config {
        Config(
            self.document
                .get("config")
                .and_then(Value::as_object)
                .cloned()
                .unwrap_or_default(),
        )
    }

    /// History entries; made up where the image has none, since ours must count its layers too.
    pub fn history(&self) -> Vec<Value> {
        match self.document.get("history").and_then(Value::as_array) {
            Some(history) if !history.is_empty() => history.clone(),
            _ => self
                .layers
                .iter()
                .map(|_| json!({"comment": "layer of the base image"}))
                .collect(),
        }
    }

    /// A field of the document that is a text.
    pub fn text(&self, field: &str) -> Option<&str> {
        self.document
            .get(field)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
    }
}

// === impl Config ===

impl Config {
    /// Of an image that begins with nothing.
    pub fn scratch() -> Self {
        let mut config = Self(Map::new());
        config.set("Env", json!([PATH_DEFAULT]));
        config
    }

    /// Sets a field.
    pub fn set(&mut self, field: &str, value: Value) {
        self.0.insert(field.to_owned(), value);
    }

    /// Removes a field.
    pub fn clear(&mut self, field: &str) {
        self.0.remove(field);
    }

    /// A text, empty if there is none.
    pub fn text(&self, field: &str) -> &str {
        self.0
            .get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// A list of texts.
    pub fn list(&self, field: &str) -> Vec<String> {
        let items = self.0.get(field).and_then(Value::as_array);
        let texts = items.into_iter().flatten().filter_map(Value::as_str);
        texts.map(str::to_owned).collect()
    }

    /// Adds a key to an object field: labels, ports, volumes.
    pub fn put(&mut self, field: &str, key: &str, value: Value) {
        let object = self.0.entry(field).or_insert_with(|| json!({}));
        if !object.is_object() {
            *object = json!({});
        }
        if let Some(object) = object.as_object_mut() {
            object.insert(key.to_owned(), value);
        }
    }

    /// The environment in order.
    pub fn env(&self) -> Vec<(String, String)> {
        let split = |line: String| match line.split_once('=') {
            Some((name, value)) => (name.to_owned(), value.to_owned()),
            None => (line, String::new()),
        };
        self.list("Env").into_iter().map(split).collect()
    }

    /// Sets a variable, in its place if it is there.
    pub fn set_env(&mut self, name: &str, value: &str) {
        let mut env = self.env();
        match env.iter_mut().find(|(known, _)| known == name) {
            Some(pair) => value.clone_into(&mut pair.1),
            None => env.push((name.to_owned(), value.to_owned())),
        }
        let lines: Vec<String> = env
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        self.set("Env", json!(lines));
    }

    /// The shell of shell forms.
    pub fn shell(&self) -> Vec<String> {
        let shell = self.list("Shell");
        match shell.is_empty() {
            true => SHELL_DEFAULT.map(str::to_owned).to_vec(),
            false => shell,
        }
    }

    /// The working directory, absolute.
    pub fn workdir(&self) -> &str {
        match self.text("WorkingDir") {
            "" => "/",
            path => path,
        }
    }
}
