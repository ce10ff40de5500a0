//! Manifests of a remote.

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_TYPE};

use super::Remote;
use super::http::{self, Outgoing, is_html};
use crate::manifest::{self, Document, MANIFEST_BYTES_MAX, MEDIA_TYPES};
use crate::{Error, Result};

/// A manifest that was fetched and understood.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The digest of its raw bytes.
    pub digest: String,
    /// Its raw bytes.
    pub bytes: Bytes,
    /// What they say.
    pub document: Document,
}

impl Remote<'_> {
    /// Fetches a manifest by tag or digest. Its raw bytes must have the digest that was asked for and
    /// the one that the registry says (`SECURITY` rows H2, H4).
    pub async fn manifest(&self, target: &str) -> Result<Fetched> {
        let url = self.repository_url(&format!("manifests/{target}"))?;
        let outgoing = Outgoing::new(Method::GET, url).header(ACCEPT, &MEDIA_TYPES.join(", "));
        let what = format!("{}:{target}", self.wanted.repository);
        let response = self.send(&outgoing).await?;
        let response = self.accept(response, &what).await?;
        if is_html(&response) {
            return Err(self.not_a_registry("it answers a manifest with an HTML page"));
        }
        let text = |name: &str| -> String {
            let value = response.headers().get(name);
            let value = value.and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let content_type = text(CONTENT_TYPE.as_str());
        let said = text("docker-content-digest");
        let bytes = http::read(response, MANIFEST_BYTES_MAX).await;
        let bytes = bytes.ok_or_else(|| Error::TooLarge {
            what: format!(
                "the manifest {what} of {}, or what came of it,",
                self.host()
            ),
            most: MANIFEST_BYTES_MAX,
        })?;
        let digest = self.verify(target, &said, &bytes)?;
        let document =
            manifest::parse(&bytes, &content_type).map_err(|source| Error::Manifest {
                origin: format!("{}/{what}", self.host()),
                source,
            })?;
        Ok(Fetched {
            digest,
            bytes,
            document,
        })
    }

    /// Puts a manifest under a tag or its digest.
    pub async fn put_manifest(&self, target: &str, media_type: &str, bytes: Bytes) -> Result<()> {
        let url = self.repository_url(&format!("manifests/{target}"))?;
        let mut outgoing = Outgoing::new(Method::PUT, url).header(CONTENT_TYPE, media_type);
        outgoing.body = bytes;
        let response = self.send(&outgoing).await?;
        let what = format!("the manifest {}:{target}", self.wanted.repository);
        self.accept(response, &what).await.map(drop)
    }

    /// Whether the remote has this manifest.
    pub async fn has_manifest(&self, digest: &str) -> Result<bool> {
        let url = self.repository_url(&format!("manifests/{digest}"))?;
        let outgoing = Outgoing::new(Method::HEAD, url).header(ACCEPT, &MEDIA_TYPES.join(", "));
        Ok(self.send(&outgoing).await?.status().is_success())
    }

    fn verify(&self, target: &str, said: &str, bytes: &[u8]) -> Result<String> {
        let pinned = target.contains(':');
        let digest = manifest::digest_like(if pinned { target } else { "sha256" }, bytes);
        let wrong = |asked: &str| Error::WrongBytes {
            host: self.host().to_owned(),
            digest: asked.to_owned(),
            detail: format!("their digest is {digest}"),
        };
        if pinned && digest != target {
            return Err(wrong(target));
        }
        if !said.is_empty() && manifest::digest_like(said, bytes) != said {
            let said: String = said.chars().take(150).collect();
            return Err(wrong(&said));
        }
        Ok(digest)
    }
}
