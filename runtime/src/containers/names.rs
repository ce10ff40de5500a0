//! Ids, and names for containers that were given none.

use crate::error::{Error, Result};

/// Bytes of randomness in an id; it is shown as twice as many hexadecimal digits.
const ID_BYTES: usize = 32;
const NAME_LENGTH_MAX: usize = 128;

const ADJECTIVES: [&str; 48] = [
    "able", "agile", "amber", "ample", "azure", "blithe", "bold", "brave", "bright", "brisk",
    "calm", "candid", "clear", "clever", "coral", "crisp", "daring", "deft", "eager", "early",
    "fair", "fleet", "frank", "fresh", "gentle", "glad", "golden", "grand", "hardy", "hearty",
    "jolly", "keen", "kind", "lively", "loyal", "lucid", "merry", "nimble", "noble", "patient",
    "proud", "quiet", "rapid", "sober", "steady", "sunny", "swift", "wise",
];

const NOUNS: [&str; 48] = [
    "anchor", "ballast", "beacon", "bollard", "bosun", "bowsprit", "brig", "buoy", "capstan",
    "clipper", "compass", "cutter", "davit", "fathom", "frigate", "galley", "gannet", "halyard",
    "harbour", "hawser", "helm", "jib", "keel", "ketch", "lantern", "lighter", "lugger", "mast",
    "mizzen", "mooring", "orlop", "packet", "pennant", "petrel", "pilot", "pinnace", "purser",
    "quay", "rudder", "schooner", "sextant", "sloop", "spar", "tender", "tiller", "topsail",
    "trawler", "yawl",
];

/// A new id.
pub(crate) fn new_id() -> Result<String> {
    Ok(hex::encode(random::<ID_BYTES>()?))
}

/// A name for a container; `attempt` says how many were taken already.
pub(crate) fn made_up(attempt: usize) -> Result<String> {
    let [a, b, c] = random::<3>()?;
    let adjective = ADJECTIVES[usize::from(a) % ADJECTIVES.len()];
    let noun = NOUNS[usize::from(b) % NOUNS.len()];
    Ok(match attempt {
        0..5 => format!("{adjective}_{noun}"),
        _ => format!("{adjective}_{noun}{}{c}", attempt - 5),
    })
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| Error::File {
        action: "read random bytes from",
        path: "the kernel".into(),
        source: std::io::Error::other(error.to_string()),
    })?;
    Ok(bytes)
}

/// `[a-zA-Z0-9][a-zA-Z0-9_.-]*`, at least `least` and at most 128 characters.
pub(crate) fn check(what: &'static str, name: &str, least: usize) -> Result<()> {
    let tail = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let first = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if first && name.chars().all(tail) && (least..=NAME_LENGTH_MAX).contains(&name.len()) {
        return Ok(());
    }
    let shown: String = name.chars().take(NAME_LENGTH_MAX).collect();
    let problem = format!(
        "{shown:?}: expected {least} to 128 of [a-zA-Z0-9_.-], the first a letter or a digit"
    );
    Err(Error::invalid(what, problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_names_are_valid_and_grow_when_many_are_taken() {
        for attempt in 0..10 {
            check("name", &made_up(attempt).unwrap(), 2).unwrap();
        }
        assert_eq!(new_id().unwrap().len(), 64);
    }

    #[test]
    fn c16_a_name_with_a_path_or_a_line_in_it_is_refused() {
        for bad in ["", "a", "../x", "a/b", "-a", ".a", "a\nb", "a b", "é1"] {
            assert!(check("container name", bad, 2).is_err(), "{bad:?}");
        }
        assert!(check("container name", &"a".repeat(129), 2).is_err());
        check("container name", "a.b-c_9", 2).unwrap();
    }
}
