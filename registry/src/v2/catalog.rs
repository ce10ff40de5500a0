//! `_catalog`: the names of all repositories (Docker's; the specification has none).

use super::errors::{Code, Refusal};
use super::query::{link, page};
use super::{Answer, V2, json};

impl V2 {
    pub(super) fn catalog(&self, query: Option<&str>) -> Answer {
        let page = page(query)?;
        let mut names = self
            .repositories
            .list(&page.last, page.probe())
            .map_err(|error| Refusal::of(error, Code::NameUnknown))?;
        let next = page.cut(&mut names);
        let mut response = json(serde_json::json!({ "repositories": names }).to_string());
        link(&mut response, "/v2/_catalog", next);
        Ok(response)
    }
}
