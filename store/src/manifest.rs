//! Manifests, indexes and configurations: a strict parser of hostile JSON (`SECURITY` rows H1, E21, I1).

/// Why a document is refused.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON, or not of the form.
    #[error("it is not valid: {0}")]
    Json(#[from] serde_json::Error),
    /// A rule of ours or of the OCI image specification.
    #[error("{0}")]
    Rule(String),
}
