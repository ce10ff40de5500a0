//! Queries, and the pages that they ask for.

use http::Response;
use http::header::LINK;

use super::errors::{Code, Refusal};
use super::{Body, set};
use crate::repositories::PAGE_MAX;

/// The value of a parameter, decoded; the first one when it is there twice.
pub(super) fn parameter(query: Option<&str>, name: &str) -> Option<String> {
    form_urlencoded::parse(query.unwrap_or_default().as_bytes())
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
}

/// A page of a list.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) size: usize,
    pub(super) last: String,
}

/// Reads `n` and `last`: `n` is cut to [`PAGE_MAX`], and anything but a number is refused
/// (`SECURITY` row F2).
pub(super) fn page(query: Option<&str>) -> Result<Page, Refusal> {
    let size = match parameter(query, "n") {
        None => PAGE_MAX,
        Some(text) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => {
            text.parse::<usize>().unwrap_or(PAGE_MAX).min(PAGE_MAX)
        }
        Some(text) => {
            let shown: String = text.chars().take(40).collect();
            return Err(Refusal::bad(
                Code::PaginationNumberInvalid,
                format!("n is {shown:?}: expected a number from 0 to {PAGE_MAX}"),
            ));
        }
    };
    Ok(Page {
        size,
        last: parameter(query, "last").unwrap_or_default(),
    })
}

impl Page {
    /// How many entries to ask for, to see whether there are more.
    pub(super) fn probe(&self) -> usize {
        if self.size == 0 { 0 } else { self.size + 1 }
    }

    /// Cuts the entries to the page and says in `Link` where the next one is.
    pub(super) fn cut(&self, names: &mut Vec<String>) -> Option<String> {
        if names.len() <= self.size {
            return None;
        }
        names.truncate(self.size);
        let last = names.last()?;
        let last: String = form_urlencoded::byte_serialize(last.as_bytes()).collect();
        Some(format!("n={}&last={last}", self.size))
    }
}

/// Sets `Link` to the next page.
pub(super) fn link(response: &mut Response<Body>, path: &str, next: Option<String>) {
    if let Some(next) = next {
        set(response, LINK, &format!("<{path}?{next}>; rel=\"next\""));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f2_n_is_cut_or_refused() {
        for (query, size) in [
            ("", PAGE_MAX),
            ("n=2", 2),
            ("n=0", 0),
            ("n=1152921504606846976", PAGE_MAX),
            ("n=9223372036854775808", PAGE_MAX),
            ("n=99999999999999999999999999", PAGE_MAX),
        ] {
            assert_eq!(page(Some(query)).unwrap().size, size, "{query}");
        }
        for query in ["n=-1", "n=abc", "n=", "n=1.5", "n=%2B1"] {
            assert!(page(Some(query)).is_err(), "{query}");
        }
    }
}
