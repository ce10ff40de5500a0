//! Names of repositories and tags, as the OCI distribution specification writes them ("Pulling
//! manifests"). Only names that passed here become part of a path, a key or a URL.

use std::fmt;
use std::io;
use std::str::FromStr;

/// The longest repository name: registries and reverse proxies refuse longer ones (the specification
/// recommends 255), and a file name holds it.
const REPOSITORY_MAX: usize = 255;
const TAG_MAX: usize = 128;

/// A repository: `team/app`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Repository(String);

/// A tag: `v1.2`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(String);

/// A name that is malformed.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum NameError {
    /// A repository name.
    #[error(
        "invalid repository name {0:?}: expected lowercase letters and digits, with `.`, `_`, `-` \
         inside and `/` between the parts, at most 255 characters"
    )]
    Repository(String),
    /// A tag.
    #[error(
        "invalid tag {0:?}: expected letters, digits, `_`, `.` and `-`, not first `.` or `-`, at \
         most 128 characters"
    )]
    Tag(String),
}

impl FromStr for Repository {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.len() <= REPOSITORY_MAX && text.split('/').all(is_component) {
            return Ok(Self(text.to_owned()));
        }
        Err(NameError::Repository(shown(text)))
    }
}

impl FromStr for Tag {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let bytes = text.as_bytes();
        let first = bytes.first().copied().is_some_and(word);
        let rest = bytes.iter().all(|b| word(*b) || matches!(b, b'.' | b'-'));
        if first && rest && bytes.len() <= TAG_MAX {
            return Ok(Self(text.to_owned()));
        }
        Err(NameError::Tag(shown(text)))
    }
}

/// Runs of `[a-z0-9]` with one of `.`, `_`, `__` or any number of `-` between them.
fn is_component(text: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !text.starts_with(alphanumeric) || !text.ends_with(alphanumeric) {
        return false;
    }
    text.split(alphanumeric)
        .all(|gap| matches!(gap, "" | "." | "_" | "__") || gap.bytes().all(|b| b == b'-'))
}

/// A name that nobody guesses: 128 random bits as hexadecimal digits.
pub fn random_name() -> crate::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| crate::Error::io("/dev/urandom")(io::Error::other(error.to_string())))?;
    Ok(hex::encode(bytes))
}

/// What a message shows of text from outside.
fn shown(text: &str) -> String {
    text.chars().take(100).collect()
}

impl Repository {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as one file name: `+` is in no repository name, and stands for `/`.
    pub fn file_name(&self) -> String {
        self.0.replace('/', "+")
    }

    /// The repository that a file name stands for.
    pub fn from_file_name(name: &str) -> Option<Self> {
        name.replace('+', "/").parse().ok()
    }
}

impl Tag {
    /// The tag.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_specification_pass_and_others_do_not() {
        for good in ["a", "a/b", "team/app-x", "a__b", "a--b/c.d", "0"] {
            assert!(good.parse::<Repository>().is_ok(), "{good}");
        }
        let long = "a".repeat(256);
        for bad in [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "A",
            "a..b",
            "..",
            "a/../b",
            "a_-b",
            "a%2f",
            "-a",
            "a___b",
            "a b",
            "a\0",
            long.as_str(),
        ] {
            assert!(bad.parse::<Repository>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn tags_of_the_specification_pass_and_others_do_not() {
        for good in ["v1", "_x", "A.b-c", "1"] {
            assert!(good.parse::<Tag>().is_ok(), "{good}");
        }
        let long = "a".repeat(129);
        for bad in ["", ".", "..", "-x", "a/b", "a:b", "a\n", long.as_str()] {
            assert!(bad.parse::<Tag>().is_err(), "{bad:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_file_name_comes_back(text in "[a-z0-9]{1,5}([._-][a-z0-9]{1,3}){0,2}(/[a-z0-9]{1,5}){0,4}") {
            let name: Repository = text.parse().unwrap();
            assert!(!name.file_name().contains('/'));
            assert_eq!(Repository::from_file_name(&name.file_name()), Some(name));
        }
    }
}
