//! Keys: a digest over fields, each with its length, so that no two lists of fields are alike.

use sha2::{Digest as _, Sha256};

/// Changed when the meaning of a key changes, so that old records are not taken for new ones.
const VERSION: &str = "orlop-step-1";

/// Makes a key.
#[derive(Clone, Debug)]
pub struct KeyHasher(Sha256);

impl KeyHasher {
    /// A key of this kind.
    pub fn new(kind: &str) -> Self {
        let mut hasher = Self(Sha256::new());
        hasher.text(VERSION);
        hasher.text(kind);
        hasher
    }

    /// Adds a field.
    pub fn bytes(&mut self, field: &[u8]) {
        self.0.update((field.len() as u64).to_le_bytes());
        self.0.update(field);
    }

    /// Adds a field.
    pub fn text(&mut self, field: &str) {
        self.bytes(field.as_bytes());
    }

    /// Adds a number.
    pub fn number(&mut self, field: u64) {
        self.bytes(&field.to_le_bytes());
    }

    /// Adds a list.
    pub fn list<'a>(&mut self, fields: impl ExactSizeIterator<Item = &'a String>) {
        self.number(fields.len() as u64);
        fields.for_each(|field| self.text(field));
    }

    /// The key: 64 hexadecimal digits.
    pub fn finish(self) -> String {
        hex::encode(self.0.finalize())
    }
}
