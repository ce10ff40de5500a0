//! What people type for an image, and its normal form. Docker's rules live here and nowhere else:
//! `busybox` is `docker.io/library/busybox:latest`, and is shown as `busybox:latest`.
//!
//! Grammar: distribution's `reference` package; OCI distribution specification, "Pulling manifests"
//! (names, and tags of at most 128 characters). Parsed by hand: the crate `oci-spec` has the same as a
//! regular expression, which takes each process 45 ms to compile. It is the oracle of the tests.

use std::fmt;
use std::str::FromStr;

use crate::descriptor::parse_digest;

/// The registry of names without a host.
pub const DOCKER_HUB: &str = "docker.io";
/// The repository prefix of names without a slash, on Docker Hub.
const OFFICIAL: &str = "library/";
/// What Docker once called its hub.
const DOCKER_HUB_LEGACY: &str = "index.docker.io";
const DEFAULT_TAG: &str = "latest";
/// The longest name that is accepted before it is parsed: registries refuse 255 and more.
const LENGTH_MAX: usize = 512;
/// Of a repository, without its host.
const NAME_LENGTH_MAX: usize = 255;
const TAG_LENGTH_MAX: usize = 128;

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
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        let (name, tag) = split_tag(rest);
        if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
            return Err(fail(&format!("{tag:?} is no tag")));
        }
        if let Some(digest) = digest {
            parse_digest(digest).map_err(|error| fail(&error.to_string()))?;
        }
        let (registry, repository) = split_host(name);
        if !is_host(&registry) {
            return Err(fail(&format!("{registry:?} is no host")));
        }
        if repository.len() > NAME_LENGTH_MAX {
            return Err(fail("its name has more than 255 characters"));
        }
        if let Some(bad) = repository.split('/').find(|part| !is_component(part)) {
            return Err(fail(&bad_component(bad)));
        }
        Ok(Self {
            registry,
            repository,
            tag: match (tag, digest) {
                (None, None) => Some(DEFAULT_TAG.to_owned()),
                (tag, _) => tag.map(str::to_owned),
            },
            digest: digest.map(str::to_owned),
        })
    }
}

/// A colon before the last slash is that of a port.
fn split_tag(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (text, None),
    }
}

/// What is before the first slash is a host if it could be no part of a repository of Docker Hub
/// (distribution's `splitDockerDomain`).
fn split_host(name: &str) -> (String, String) {
    let (host, rest) = match name.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (host, rest),
        _ => (DOCKER_HUB, name),
    };
    match host {
        DOCKER_HUB | DOCKER_HUB_LEGACY if !rest.contains('/') => {
            (DOCKER_HUB.to_owned(), format!("{OFFICIAL}{rest}"))
        }
        DOCKER_HUB_LEGACY => (DOCKER_HUB.to_owned(), rest.to_owned()),
        host => (host.to_owned(), rest.to_owned()),
    }
}

/// `domain = host [":" port]`: names parted by dots, an IPv4 address, or an IPv6 address in brackets.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    if port.is_some_and(|port| port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit())) {
        return false;
    }
    let bracketed = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    if let Some(address) = bracketed {
        return address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    host.split('.').all(|label| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !label.is_empty()
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    })
}

/// `path-component = alpha-numeric [separator alpha-numeric]*`, where a separator is one dot, one or
/// two underscores, or any number of dashes.
fn is_component(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let separators = text.split(|c: char| c.is_ascii() && is_word(c as u8));
    let mut separators = separators.filter(|separator| !separator.is_empty());
    let ends = |byte: Option<&u8>| byte.is_some_and(|byte| is_word(*byte));
    let is_separator =
        |text: &str| matches!(text, "." | "_" | "__") || text.bytes().all(|byte| byte == b'-');
    ends(text.as_bytes().first()) && ends(text.as_bytes().last()) && separators.all(is_separator)
}

fn bad_component(text: &str) -> String {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return "a repository name must be lowercase".to_owned();
    }
    format!("{text:?} is no part of a name (expected [host[:port]/]name[:tag][@digest])")
}

/// `tag = [\w][\w.-]{0,127}`, of ASCII.
fn is_tag(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let mut bytes = text.bytes();
    text.len() <= TAG_LENGTH_MAX
        && bytes.next().is_some_and(is_word)
        && bytes.all(|byte| is_word(byte) || matches!(byte, b'.' | b'-'))
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

    /// Texts of the characters that matter, mostly close to references.
    fn close_to_a_reference() -> impl proptest::strategy::Strategy<Value = String> {
        "([a-zA-Z0-9._:/@-]{0,12}|[a-z0-9]{1,3}([._-]{1,2}[a-z0-9]{1,2}){0,2})((/|:|@|\\.)[a-zA-Z0-9._-]{0,6}){0,4}(@sha256:[0-9a-f]{64})?"
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(20_000))]

        /// The oracle also takes a host with an underscore for one.
        #[test]
        fn a_reference_is_what_the_oracle_takes_for_one(text in close_to_a_reference()) {
            let ours = text.parse::<Reference>();
            let oracle = text.parse::<oci_spec::distribution::Reference>();
            match (ours, oracle) {
                (Ok(ours), Ok(oracle)) => {
                    proptest::prop_assert_eq!(ours.registry(), oracle.registry());
                    proptest::prop_assert_eq!(ours.repository(), oracle.repository());
                    proptest::prop_assert_eq!(ours.tag(), oracle.tag());
                    proptest::prop_assert_eq!(ours.digest(), oracle.digest());
                }
                (Ok(ours), Err(error)) => {
                    proptest::prop_assert!(false, "{ours} is none to the oracle: {error}");
                }
                (Err(_), Ok(oracle)) => {
                    let upper = oracle.repository().bytes().any(|b| b.is_ascii_uppercase());
                    let host = is_host(oracle.registry());
                    proptest::prop_assert!(upper || !host, "{oracle} is one to the oracle");
                }
                (Err(_), Err(_)) => {}
            }
        }
    }

    #[test]
    fn a_registry_may_be_an_address() {
        for text in ["[::1]:5000/a:1", "[fd00::1]/a:1", "10.0.0.1/a:1"] {
            assert_eq!(normal(text), text);
        }
        for bad in ["[::1/a", "[x]/a", "a.b:/c", "a.b:x/c", ".a/b", "a-.b/c"] {
            assert!(bad.parse::<Reference>().is_err(), "{bad}");
        }
    }
}
