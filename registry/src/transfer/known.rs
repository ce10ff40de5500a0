//! Which repositories of other registries have which blobs, as far as we were told: the candidates of
//! a mount. Guesses, so they are in the index alone, and a wrong one costs one request.

use std::sync::Arc;

use crate::index::{Index, Table};

/// Candidates that a push tries for one blob.
const CANDIDATES_MAX: usize = 3;

#[derive(Debug)]
pub(super) struct Known(Arc<Index>);

impl Known {
    pub(super) fn new(index: Arc<Index>) -> Self {
        Self(index)
    }

    /// Remembers that a repository has a blob.
    pub(super) fn learn(&self, host: &str, repository: &str, digest: &str) {
        if let Err(error) = self.0.set(Table::Remotes, &[host, digest, repository], "") {
            tracing::warn!(%error, "where a blob is was not remembered");
        }
    }

    /// Other repositories of the registry that may have the blob.
    pub(super) fn candidates(&self, host: &str, repository: &str, digest: &str) -> Vec<String> {
        let list = self
            .0
            .list(Table::Remotes, &[host, digest], "", CANDIDATES_MAX + 1);
        let list = list.unwrap_or_else(|error| {
            tracing::warn!(%error, "where blobs are cannot be looked up");
            Vec::new()
        });
        let names = list.into_iter().map(|(name, _)| name);
        let mut names: Vec<String> = names.filter(|name| name != repository).collect();
        names.truncate(CANDIDATES_MAX);
        names
    }

    /// Forgets what turned out to be wrong.
    pub(super) fn forget(&self, host: &str, repository: &str, digest: &str) {
        let key = [host, digest, repository];
        if let Err(error) = self.0.remove(Table::Remotes, &key) {
            tracing::warn!(%error, "where a blob is not was not remembered");
        }
    }
}
