//! The one validator of ids from outside: ingests, leases, snapshot keys and names (`SECURITY` row E8).

use crate::StoreError;

/// The longest id.
pub const LENGTH_MAX: usize = 128;

/// Accepts 1 to 128 characters of `[A-Za-z0-9._:-]`, the first one alphanumeric: what passes has no
/// meaning as a path, so that it can be a file's name. `what` names the kind of id in the error.
pub fn check(what: &'static str, id: &str) -> Result<(), StoreError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._:-".contains(&b);
    let first = id.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if first && id.len() <= LENGTH_MAX && id.bytes().all(allowed) {
        return Ok(());
    }
    Err(StoreError::MalformedId {
        what,
        id: id.chars().take(LENGTH_MAX).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e8_only_ids_without_a_meaning_as_a_path_pass() {
        for good in ["a", "A.b_c-d:e", "sha256:00", &"x".repeat(128)] {
            assert!(check("lease", good).is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "../x",
            "/x",
            "a/b",
            "-a",
            "_a",
            ":a",
            "a b",
            "a\0",
            "ä",
            &"x".repeat(129),
            &"x".repeat(300),
        ] {
            assert!(check("lease", bad).is_err(), "{bad:?}");
        }
    }
}
