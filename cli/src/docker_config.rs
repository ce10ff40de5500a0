//! Docker's `config.json`: where logins are kept, in the file itself or by a credential helper.
//!
//! Fields that we do not know are kept. A host is looked up exactly (`SECURITY` row G4); a helper that
//! fails is an error, so that nothing is sent anywhere (G5).

mod credential_helper;

use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use orlop_proto::reference::DOCKER_HUB;
use orlop_proto::types::Credential;
use serde_json::{Map, Value, json};

/// The key under which Docker keeps the login of Docker Hub.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";
/// The largest `config.json` that is read.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// The user name by which helpers mark an identity token.
const TOKEN_USER: &str = "<token>";

/// Why logins cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DockerConfigError {
    /// The file cannot be read or written.
    #[error("cannot {action} {}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// It is not what Docker writes.
    #[error("{} is not valid: {reason}", path.display())]
    Malformed { path: PathBuf, reason: String },
    /// There is no home to keep it in.
    #[error("no place for logins: set HOME or DOCKER_CONFIG")]
    NoHome,
    /// The helper is nowhere on the path.
    #[error(
        "credential helper docker-credential-{name} is in no absolute directory of PATH; nothing was sent"
    )]
    HelperMissing { name: String },
    /// The name in the file would be a path.
    #[error("the credential helper's name {name:?} is not one")]
    HelperName { name: String },
    /// The helper failed.
    #[error("credential helper docker-credential-{name} failed: {reason}; nothing was sent")]
    HelperFailed { name: String, reason: String },
}

/// The file, as it was read.
#[derive(Debug)]
pub(crate) struct DockerConfig {
    path: PathBuf,
    search_path: Vec<PathBuf>,
    root: Map<String, Value>,
}

impl DockerConfig {
    /// Reads the file in a directory; none is the same as an empty one.
    pub(crate) fn load(
        directory: Option<&Path>,
        search_path: &[PathBuf],
    ) -> Result<Self, DockerConfigError> {
        let path = directory
            .ok_or(DockerConfigError::NoHome)?
            .join("config.json");
        let malformed = |reason: String| DockerConfigError::Malformed {
            path: path.clone(),
            reason,
        };
        let root = match read(&path) {
            Ok(text) if text.trim().is_empty() => Map::new(),
            Ok(text) => {
                serde_json::from_str(&text).map_err(|error| malformed(error.to_string()))?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Map::new(),
            Err(source) => {
                return Err(DockerConfigError::Io {
                    action: "read",
                    path,
                    source,
                });
            }
        };
        Ok(Self {
            path,
            search_path: search_path.to_vec(),
            root,
        })
    }

    /// The login for exactly this registry host (with its port), if there is one.
    pub(crate) fn credential(
        &self,
        registry: &str,
    ) -> Result<Option<Credential>, DockerConfigError> {
        let key = key_of(registry);
        if let Some(name) = self.helper_of(key) {
            let found = credential_helper::get(&self.search_path, name, key)?;
            return Ok(found.map(|(username, secret)| credential(registry, username, secret)));
        }
        let spellings = [
            key.to_owned(),
            format!("https://{key}"),
            format!("http://{key}"),
        ];
        let auths = self.root.get("auths").and_then(Value::as_object);
        let entry =
            auths.and_then(|auths| spellings.iter().find_map(|spelling| auths.get(spelling)));
        entry.map_or(Ok(None), |entry| self.kept_in(registry, entry))
    }

    /// The registries that a login is kept for.
    pub(crate) fn registries(&self) -> Vec<String> {
        let keys = |section: &str| {
            let map = self.root.get(section).and_then(Value::as_object);
            map.into_iter().flat_map(Map::keys).map(|key| host_of(key))
        };
        let mut hosts: Vec<String> = keys("auths").chain(keys("credHelpers")).collect();
        hosts.sort();
        hosts.dedup();
        hosts
    }

    /// Keeps a login.
    pub(crate) fn store(&mut self, login: &Credential) -> Result<(), DockerConfigError> {
        let key = key_of(&login.registry).to_owned();
        if let Some(name) = self.helper_of(&key).map(str::to_owned) {
            let (user, secret) = if login.identity_token.is_empty() {
                (login.username.as_str(), login.password.as_str())
            } else {
                (TOKEN_USER, login.identity_token.as_str())
            };
            credential_helper::store(&self.search_path, &name, &key, user, secret)?;
            self.auths()?.insert(key, json!({}));
            return self.save();
        }
        let password = if login.identity_token.is_empty() {
            &login.password
        } else {
            ""
        };
        let mut entry =
            json!({ "auth": STANDARD.encode(format!("{}:{password}", login.username)) });
        if !login.identity_token.is_empty() {
            entry["identitytoken"] = json!(login.identity_token);
        }
        self.auths()?.insert(key, entry);
        self.save()
    }

    /// Forgets a login; whether there was one.
    pub(crate) fn erase(&mut self, registry: &str) -> Result<bool, DockerConfigError> {
        let key = key_of(registry).to_owned();
        let mut erased = false;
        if let Some(name) = self.helper_of(&key).map(str::to_owned) {
            erased = credential_helper::get(&self.search_path, &name, &key)?.is_some();
            if erased {
                credential_helper::erase(&self.search_path, &name, &key)?;
            }
        }
        if self.auths()?.remove(&key).is_some() {
            erased = true;
            self.save()?;
        }
        Ok(erased)
    }

    /// The file that logins are kept in, for a message.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a login for the registry is kept in the file itself.
    pub(crate) fn is_plain(&self, registry: &str) -> bool {
        self.helper_of(key_of(registry)).is_none()
    }

    fn helper_of(&self, key: &str) -> Option<&str> {
        let own = self
            .root
            .get("credHelpers")
            .and_then(|helpers| helpers.get(key));
        let name = own.or_else(|| self.root.get("credsStore"))?.as_str()?;
        (!name.is_empty()).then_some(name)
    }

    fn auths(&mut self) -> Result<&mut Map<String, Value>, DockerConfigError> {
        let path = self.path.clone();
        let auths = self.root.entry("auths").or_insert_with(|| json!({}));
        auths.as_object_mut().ok_or(DockerConfigError::Malformed {
            path,
            reason: "`auths` is not an object".to_owned(),
        })
    }

    fn kept_in(
        &self,
        registry: &str,
        entry: &Value,
    ) -> Result<Option<Credential>, DockerConfigError> {
        let text = |name: &str| {
            entry
                .get(name)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let mut login = Credential {
            registry: registry.to_owned(),
            username: text("username"),
            password: text("password"),
            identity_token: text("identitytoken"),
        };
        let auth = text("auth");
        if !auth.is_empty() {
            let decoded = STANDARD
                .decode(&auth)
                .ok()
                .and_then(|bytes| String::from_utf8(bytes).ok());
            let (user, password) = decoded
                .as_deref()
                .and_then(|decoded| decoded.split_once(':'))
                .ok_or_else(|| DockerConfigError::Malformed {
                    path: self.path.clone(),
                    reason: format!("the login for {registry} is not base64 of user:password"),
                })?;
            user.clone_into(&mut login.username);
            password
                .trim_end_matches('\0')
                .clone_into(&mut login.password);
        }
        let empty = login.username.is_empty() && login.identity_token.is_empty();
        Ok((!empty).then_some(login))
    }

    /// Replaces the file atomically; only its owner can read it.
    fn save(&self) -> Result<(), DockerConfigError> {
        self.write().map_err(|source| DockerConfigError::Io {
            action: "write",
            path: self.path.clone(),
            source,
        })
    }

    fn write(&self) -> io::Result<()> {
        // A symbolic link (people keep such files elsewhere) stays one: its target is replaced.
        let path = std::fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let directory = path.parent().unwrap_or(Path::new("/"));
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
        let temporary = path.with_file_name(format!(".config.json.{}", std::process::id()));
        let mut text = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
        serde::Serialize::serialize(&self.root, &mut serializer)?;
        let write = || -> io::Result<()> {
            let mut file = std::fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&temporary)?;
            file.write_all(&text)?;
            file.sync_all()?;
            std::fs::rename(&temporary, &path)
        };
        let written = write();
        if written.is_err() {
            drop(std::fs::remove_file(&temporary));
        }
        written
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?
        .take(FILE_BYTES_MAX)
        .read_to_string(&mut text)?;
    Ok(text)
}

fn credential(registry: &str, username: String, secret: String) -> Credential {
    let token = username == TOKEN_USER;
    Credential {
        registry: registry.to_owned(),
        username: if token { String::new() } else { username },
        password: if token { String::new() } else { secret.clone() },
        identity_token: if token { secret } else { String::new() },
    }
}

fn key_of(registry: &str) -> &str {
    if registry == DOCKER_HUB {
        DOCKER_HUB_KEY
    } else {
        registry
    }
}

/// The other way; older files have URLs as their keys.
fn host_of(key: &str) -> String {
    if key == DOCKER_HUB_KEY {
        return DOCKER_HUB.to_owned();
    }
    let bare = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"));
    bare.unwrap_or(key).trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests;
