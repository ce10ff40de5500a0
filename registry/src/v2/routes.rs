//! From a path to a route. Nothing is decoded, folded or trimmed: a path that is not written exactly
//! as the specification has it leads nowhere (`SECURITY` row F10).

use super::errors::{Code, Refusal};
use crate::names::{NameError, Repository};
use crate::repositories::Target;
use orlop_proto::descriptor::parse_digest;

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Base,
    Catalog,
    Tags(Repository),
    Manifest(Repository, Target),
    Blob(Repository, String),
    Uploads(Repository),
    Upload(Repository, String),
    Referrers(Repository, String),
}

/// Reads a path.
pub(super) fn route(path: &str) -> Result<Route, Refusal> {
    let unknown = || Refusal::not_found(Code::Unsupported, "there is nothing at this path");
    let rest = path.strip_prefix("/v2/").ok_or_else(unknown)?;
    if rest.is_empty() {
        return Ok(Route::Base);
    }
    if rest == "_catalog" {
        return Ok(Route::Catalog);
    }
    if let Some(name) = rest.strip_suffix("/tags/list") {
        return Ok(Route::Tags(repository(name)?));
    }
    if let Some(name) = rest.strip_suffix("/blobs/uploads/") {
        return Ok(Route::Uploads(repository(name)?));
    }
    let (front, last) = rest.rsplit_once('/').ok_or_else(unknown)?;
    if let Some(name) = front.strip_suffix("/blobs/uploads") {
        return Ok(Route::Upload(repository(name)?, last.to_owned()));
    }
    if let Some(name) = front.strip_suffix("/manifests") {
        let target = last
            .parse()
            .map_err(|error: crate::Error| Refusal::bad(tag_or_digest(last), error.to_string()))?;
        return Ok(Route::Manifest(repository(name)?, target));
    }
    if let Some(name) = front.strip_suffix("/blobs") {
        return Ok(Route::Blob(repository(name)?, digest(last)?));
    }
    if let Some(name) = front.strip_suffix("/referrers") {
        return Ok(Route::Referrers(repository(name)?, digest(last)?));
    }
    Err(unknown())
}

/// Reads a digest of a path or a query.
pub(super) fn digest(text: &str) -> Result<String, Refusal> {
    let parsed = parse_digest(text);
    parsed
        .map(|digest| digest.to_string())
        .map_err(|error| Refusal::bad(Code::DigestInvalid, error.to_string()))
}

fn repository(name: &str) -> Result<Repository, Refusal> {
    name.parse()
        .map_err(|error: NameError| Refusal::bad(Code::NameInvalid, error.to_string()))
}

fn tag_or_digest(text: &str) -> Code {
    if text.contains(':') {
        Code::DigestInvalid
    } else {
        Code::ManifestInvalid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_look_like_parts_of_paths() {
        let name = |text: &str| text.parse::<Repository>().unwrap();
        assert_eq!(route("/v2/").unwrap(), Route::Base);
        assert_eq!(
            route("/v2/a/tags/list/tags/list").unwrap(),
            Route::Tags(name("a/tags/list"))
        );
        assert_eq!(
            route("/v2/blobs/uploads/manifests/v1").unwrap(),
            Route::Manifest(name("blobs/uploads"), Target::Tag("v1".parse().unwrap()))
        );
        assert_eq!(
            route("/v2/a/b/blobs/uploads/").unwrap(),
            Route::Uploads(name("a/b"))
        );
    }

    #[test]
    fn f10_there_is_one_way_to_write_a_path() {
        for path in [
            "/",
            "/v2",
            "/V2/",
            "//v2/",
            "/v2//",
            "/v2//_catalog",
            "/v2/_catalog/",
            "/v2/./_catalog",
            "/v2/%5fcatalog",
            "/v2/_catalog;x",
            "/v2/a/../_catalog",
            "/v2/a%2fb/tags/list",
            "/v2/a/tags/list/",
            "/v2/A/tags/list",
            "/v2/a/manifests/",
            "/v2/a/manifests/..",
            "/v2/a/blobs/sha256:../../x",
            "/v2//manifests/v1",
            "/v2/manifests/v1",
        ] {
            assert!(route(path).is_err(), "{path}");
        }
    }
}
