//! What people type for an image, and its normal form. Docker's rules live here and nowhere else:
//! `busybox` is `docker.io/library/busybox:latest`, and is shown as `busybox:latest`.
//!
//! Grammar: distribution's `reference` package; OCI distribution specification, "Pulling manifests"
//! (names, and tags of at most 128 characters).

use std::fmt;
use std::str::FromStr;

use oci_spec::distribution::Reference as OciReference;

use crate::descriptor::parse_digest;

/// The registry of names without a host.
pub const DOCKER_HUB: &str = "docker.io";
/// The repository prefix of names without a slash, on Docker Hub.
const OFFICIAL: &str = "library/";
const DEFAULT_TAG: &str = "latest";
/// The longest name that is accepted before it is parsed: registries refuse 255 and more.
const LENGTH_MAX: usize = 512;

/// A reference in normal form: host and repository always, and a tag or a digest or both.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
}

/// A reference that is malformed, with the reason in words.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid reference {text:?}: {reason}")]
pub struct ReferenceError {
    text: String,
    reason: String,
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let fail = |reason: &str| ReferenceError {
            text: text.chars().take(100).collect(),
            reason: reason.to_owned(),
        };
        if text.is_empty() {
            return Err(fail("it is empty"));
        }
        if text.len() > LENGTH_MAX {
            return Err(fail("it is too long"));
        }
        // The grammar is of ASCII; letters that only look like these would be another name.
        if !text.is_ascii() {
            return Err(fail("it has characters beyond ASCII"));
        }
        let uppercase = |name: &str| name.chars().any(|c| c.is_ascii_uppercase());
        let name = text.split('@').next().unwrap_or_default();
        let path = name.rsplit_once('/').map_or(name, |(_, last)| last);
        let path_lower = path.split(':').next().unwrap_or_default();
        if uppercase(path_lower) {
            return Err(fail("a repository name must be lowercase"));
        }
        let parsed = OciReference::from_str(text).map_err(|error| {
            fail(&format!(
                "{error} (expected [host[:port]/]name[:tag][@digest])"
            ))
        })?;
        // `O/b` has no host, though it begins as only a host may.
        if uppercase(parsed.repository()) {
            return Err(fail("a repository name must be lowercase"));
        }
        if let Some(digest) = parsed.digest() {
            parse_digest(digest).map_err(|error| fail(&error.to_string()))?;
        }
        Ok(Self {
            registry: parsed.registry().to_owned(),
            repository: parsed.repository().to_owned(),
            tag: match (parsed.tag(), parsed.digest()) {
                (None, None) => Some(DEFAULT_TAG.to_owned()),
                (tag, _) => tag.map(str::to_owned),
            },
            digest: parsed.digest().map(str::to_owned),
        })
    }
}

impl Reference {
    /// The registry's host, with its port where one was given.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository, without the host.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; absent only where a digest was given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest that the image must have.
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// What names the manifest in a request to a registry: the digest if there is one, else the tag.
    pub fn target(&self) -> &str {
        self.digest
            .as_deref()
            .or(self.tag.as_deref())
            .unwrap_or(DEFAULT_TAG)
    }

    /// Host and repository as a person sees them: without `docker.io/` and `library/`, unless what is
    /// left would mean another one (`library/a/b`, `a.b/c`).
    pub fn familiar_repository(&self) -> String {
        let official = self.repository.strip_prefix(OFFICIAL);
        let short = official.into_iter().chain([self.repository.as_str()]);
        short
            .filter(|_| self.registry == DOCKER_HUB)
            .find(|short| self.is_named(short))
            .map_or_else(
                || format!("{}/{}", self.registry, self.repository),
                str::to_owned,
            )
    }

    fn is_named(&self, text: &str) -> bool {
        text.parse::<Self>().is_ok_and(|named| {
            named.registry == self.registry && named.repository == self.repository
        })
    }

    /// The whole reference as a person sees it.
    pub fn familiar(&self) -> String {
        self.suffixed(self.familiar_repository())
    }

    fn suffixed(&self, mut name: String) -> String {
        if let Some(tag) = &self.tag {
            name.push(':');
            name.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            name.push('@');
            name.push_str(digest);
        }
        name
    }
}

/// The normal form: what the store keeps as a name.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.suffixed(format!("{}/{}", self.registry, self.repository)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(text: &str) -> String {
        text.parse::<Reference>().unwrap().to_string()
    }

    #[test]
    fn short_names_are_docker_hubs() {
        assert_eq!(normal("busybox"), "docker.io/library/busybox:latest");
        assert_eq!(normal("busybox:1.36"), "docker.io/library/busybox:1.36");
        assert_eq!(normal("user/app"), "docker.io/user/app:latest");
        assert_eq!(
            normal("index.docker.io/user/app"),
            "docker.io/user/app:latest"
        );
        assert_eq!(normal("localhost/app"), "localhost/app:latest");
        assert_eq!(normal("127.0.0.1:5000/a/b:v1"), "127.0.0.1:5000/a/b:v1");
    }

    #[test]
    fn the_familiar_form_is_what_was_typed() {
        for text in ["busybox:latest", "user/app:1", "127.0.0.1:5000/a:latest"] {
            assert_eq!(text.parse::<Reference>().unwrap().familiar(), text);
        }
    }

    #[test]
    fn the_familiar_form_means_the_same() {
        for text in ["library/a/b", "docker.io/a.b/c", "docker.io/localhost/c"] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.familiar().parse(), Ok(reference), "{text}");
        }
        assert_eq!(
            "library/a/b".parse::<Reference>().unwrap().familiar(),
            "library/a/b:latest"
        );
    }

    #[test]
    fn a_digest_is_the_target_even_beside_a_tag() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let reference: Reference = format!("busybox:1@{digest}").parse().unwrap();
        assert_eq!(reference.target(), digest);
        assert_eq!(reference.tag(), Some("1"));
        let untagged: Reference = format!("busybox@{digest}").parse().unwrap();
        assert_eq!(untagged.tag(), None);
    }

    #[test]
    fn malformed_references_say_why() {
        for bad in [
            "",
            "UPPER",
            "Upper/name",
            "a:\u{440}",
            "a\u{440}",
            "a//b",
            "a:b:c/d",
            "-x",
            "a@sha256:12",
            "a b",
            "../x",
            "a/../b",
        ] {
            let error = bad.parse::<Reference>().unwrap_err();
            assert!(error.to_string().contains("invalid reference"), "{bad}");
        }
    }
}
