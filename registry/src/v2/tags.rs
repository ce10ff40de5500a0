//! `tags/list` (end-8) and `referrers` (end-12).

use http::header::{CONTENT_TYPE, HeaderName};

use super::errors::{Code, Refusal};
use super::query::{link, page, parameter};
use super::{Answer, V2, json, set};
use crate::manifest::OCI_INDEX;
use crate::names::Repository;

const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

impl V2 {
    pub(super) fn tags(&self, name: &Repository, query: Option<&str>) -> Answer {
        let page = page(query)?;
        let tags = self.repositories.tags(name, &page.last, page.probe());
        let tags = tags.map_err(|error| Refusal::of(error, Code::NameUnknown))?;
        let mut names: Vec<String> = tags.into_iter().map(|(tag, _)| tag).collect();
        let next = page.cut(&mut names);
        let body = serde_json::json!({ "name": name.as_str(), "tags": names });
        let mut response = json(body.to_string());
        link(&mut response, &format!("/v2/{name}/tags/list"), next);
        Ok(response)
    }

    pub(super) fn referrers(&self, name: &Repository, digest: &str, query: Option<&str>) -> Answer {
        let referrers = self.repositories.referrers(name, digest);
        let mut referrers = referrers.map_err(|error| Refusal::of(error, Code::NameUnknown))?;
        let filter = parameter(query, "artifactType");
        if let Some(wanted) = &filter {
            referrers.retain(|entry| entry.artifact_type.as_ref() == Some(wanted));
        }
        let body = serde_json::json!({
            "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": referrers,
        });
        let mut response = json(body.to_string());
        set(&mut response, CONTENT_TYPE, OCI_INDEX);
        if filter.is_some() {
            set(&mut response, FILTERS_APPLIED, "artifactType");
        }
        Ok(response)
    }
}
