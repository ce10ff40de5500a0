//! The client of any registry. A [`Remote`] is one repository of one registry with one credential, for
//! the time of one transfer.
//!
//! Which scheme. Verified HTTPS, always, except: a loopback host (`localhost`, 127/8, `::1`) is tried
//! with plain HTTP, then with HTTPS whose certificate is not verified, for that is how registries are
//! run there; a host that the caller calls insecure is tried with unverified HTTPS, then plain HTTP.
//! A failure of TLS with any other host is never answered by trying less (`SECURITY` row G7).

mod auth;
mod blobs;
mod challenge;
mod http;
mod manifests;
mod realm;
mod redirect;
mod retry;

use std::net::IpAddr;

use orlop_proto::reference::DOCKER_HUB;
use orlop_proto::types::Credential;
use reqwest::{Method, StatusCode, Url};
use tokio::sync::Mutex;

use crate::{Error, Result};
use auth::{Authorization, Tokens};
pub use blobs::{Mount, Started, Upload};
use http::{Clients, Outgoing};
pub use manifests::Fetched;
pub use retry::delay;

/// Where Docker Hub's registry really is.
const DOCKER_HUB_HOST: &str = "registry-1.docker.io";

/// What all transfers share: connections and tokens.
#[derive(Debug, Default)]
pub struct Remotes {
    clients: Clients,
    tokens: Tokens,
}

/// What a transfer wants of a registry.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The registry's host with its port, as in references.
    pub host: String,
    /// The repository.
    pub repository: String,
    /// Whether it is written to.
    pub push: bool,
    /// Repositories to mount blobs from.
    pub sources: Vec<String>,
    /// Who asks.
    pub credential: Option<Credential>,
    /// Unverified TLS and plain HTTP are allowed.
    pub insecure: bool,
}

/// One repository of one registry.
#[derive(Debug)]
pub struct Remote<'a> {
    shared: &'a Remotes,
    wanted: Wanted,
    base: Url,
    verified: bool,
    authorization: Mutex<Authorization>,
}

impl Remotes {
    /// Finds out how the registry is spoken to, and gets leave to do so.
    pub async fn connect(&self, wanted: Wanted) -> Result<Remote<'_>> {
        check_credential(&wanted)?;
        let mut first_error = None;
        for (scheme, verified) in schemes(&wanted) {
            let remote = Remote {
                base: base_url(scheme, &wanted.host)?,
                shared: self,
                wanted: wanted.clone(),
                verified,
                authorization: Mutex::default(),
            };
            match remote.ping().await {
                Ok(()) => return Ok(remote),
                Err(error) if may_be_the_scheme(&error) => {
                    first_error.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(first_error.unwrap_or_else(|| Error::Request("no way to reach a registry".to_owned())))
    }
}

impl Remote<'_> {
    /// The registry's host, as in references.
    pub fn host(&self) -> &str {
        &self.wanted.host
    }

    /// The identity token that the registry gave for the credential, if it did.
    pub async fn identity_token(&self) -> String {
        self.authorization.lock().await.identity_token.clone()
    }

    /// `GET /v2/`: whether a registry is there, and whether it lets us in.
    async fn ping(&self) -> Result<()> {
        let outgoing = Outgoing::new(Method::GET, self.url("/v2/")?);
        let response = self.send(&outgoing).await?;
        match response.status() {
            StatusCode::OK if !http::is_html(&response) => Ok(()),
            StatusCode::OK => Err(self.not_a_registry("it answers /v2/ with an HTML page")),
            // Registries that refuse this path to some, and serve the rest.
            StatusCode::FORBIDDEN => Ok(()),
            status if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS => {
                if response
                    .headers()
                    .contains_key("docker-distribution-api-version")
                    && status != StatusCode::UNAUTHORIZED
                {
                    return Ok(());
                }
                let error = self.failure(response, "/v2/").await;
                match error {
                    Error::RemoteNotFound { .. } | Error::Status { .. } => {
                        Err(self.not_a_registry(&format!("it answers /v2/ with {status}")))
                    }
                    error => Err(error),
                }
            }
            status if status.is_success() => {
                Err(self.not_a_registry(&format!("it answers /v2/ with {status}")))
            }
            _ => Err(self.failure(response, "/v2/").await),
        }
    }

    fn url(&self, path: &str) -> Result<Url> {
        self.base
            .join(path)
            .map_err(|error| Error::Request(format!("{path}: {error}")))
    }

    fn repository_url(&self, rest: &str) -> Result<Url> {
        self.url(&format!("/v2/{}/{rest}", self.wanted.repository))
    }

    fn not_a_registry(&self, got: &str) -> Error {
        Error::NotARegistry {
            host: self.wanted.host.clone(),
            got: got.to_owned(),
        }
    }
}

/// Whether a host, with or without a port, can only be this one.
pub fn is_loopback(host: &str) -> bool {
    let name = host_name(host);
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// A host without its port and brackets.
fn host_name(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().unwrap_or_default();
    }
    host.split(':').next().unwrap_or_default()
}

fn schemes(wanted: &Wanted) -> Vec<(&'static str, bool)> {
    if is_loopback(&wanted.host) {
        vec![("http", false), ("https", false)]
    } else if wanted.insecure {
        vec![("https", false), ("http", false)]
    } else {
        vec![("https", true)]
    }
}

fn base_url(scheme: &str, host: &str) -> Result<Url> {
    let real = if host == DOCKER_HUB {
        DOCKER_HUB_HOST
    } else {
        host
    };
    Url::parse(&format!("{scheme}://{real}/"))
        .map_err(|error| Error::Request(format!("the registry {host:?} is no host: {error}")))
}

/// Whether another scheme may fare better: nothing spoke HTTP, or HTTPS was expected.
fn may_be_the_scheme(error: &Error) -> bool {
    match error {
        Error::Unreachable { .. } => true,
        Error::NotARegistry { got, .. } => got.contains("400"),
        _ => false,
    }
}

/// A credential is shown to its own registry only.
fn check_credential(wanted: &Wanted) -> Result<()> {
    match &wanted.credential {
        Some(credential) if canonical(&credential.registry) != canonical(&wanted.host) => {
            Err(Error::Credential {
                credential: credential.registry.clone(),
                registry: wanted.host.clone(),
            })
        }
        _ => Ok(()),
    }
}

/// Docker Hub goes by several names; Docker's own files say `https://index.docker.io/v1/`.
pub fn canonical(registry: &str) -> &str {
    let host = registry
        .split_once("://")
        .map_or(registry, |(_, rest)| rest);
    let host = host.split('/').next().unwrap_or_default();
    match host {
        "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB,
        host => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_told_by_the_whole_host() {
        for host in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:1",
            "127.9.9.9",
            "[::1]:5000",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "localhost.evil.org",
            "127.0.0.1.evil.org",
            "10.0.0.1",
            "[::2]:1",
            "",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn g4_a_credential_is_for_one_host() {
        let wanted = |host: &str, registry: &str| Wanted {
            host: host.to_owned(),
            credential: Some(Credential {
                registry: registry.to_owned(),
                ..Credential::default()
            }),
            ..Wanted::default()
        };
        assert!(check_credential(&wanted("docker.io", "https://index.docker.io/v1/")).is_ok());
        assert!(check_credential(&wanted("a.io:5000", "a.io:5000")).is_ok());
        for (host, registry) in [
            ("a.io", "b.io"),
            ("a.io", "a.io:5000"),
            ("a.io.evil", "a.io"),
        ] {
            assert!(check_credential(&wanted(host, registry)).is_err(), "{host}");
        }
    }
}
