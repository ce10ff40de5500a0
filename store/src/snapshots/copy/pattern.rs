//! Wildcards of one name, as Go's `filepath.Match`: `*`, `?`, `[a-z]`, `[^a-z]`, `\` before a
//! character that means itself.

/// Whether a name of a source has wildcards at all.
pub(super) fn is_pattern(name: &[u8]) -> bool {
    name.iter().any(|byte| b"*?[\\".contains(byte))
}

/// Whether a name fits. The time is bounded by the product of both lengths.
pub(super) fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while n < name.len() || p < pattern.len() {
        if pattern.get(p) == Some(&b'*') {
            retry = Some((p, n + 1));
            p += 1;
            continue;
        }
        if let Some(length) = name.get(n).and_then(|byte| one(&pattern[p..], *byte)) {
            n += 1;
            p += length;
            continue;
        }
        match retry {
            Some((star, next)) if next <= name.len() => {
                p = star;
                n = next;
            }
            _ => return false,
        }
    }
    true
}

/// If the first element of the pattern fits the byte: the element's length.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [b'?', ..] => Some(1),
        [b'[', rest @ ..] => class(rest, byte).map(|length| length + 1),
        [b'\\', literal, ..] => (*literal == byte).then_some(2),
        [literal, ..] => (*literal == byte).then_some(1),
        [] => None,
    }
}

/// The rest of `[...]`, its closing bracket included, if the byte is in it.
fn class(pattern: &[u8], byte: u8) -> Option<usize> {
    let negated = pattern.first() == Some(&b'^');
    let mut i = usize::from(negated);
    let first = i;
    let mut found = false;
    while i == first || *pattern.get(i)? != b']' {
        let (low, after) = literal(pattern, i)?;
        let (high, after) = if pattern.get(after) == Some(&b'-') {
            literal(pattern, after + 1)?
        } else {
            (low, after)
        };
        found |= (low..=high).contains(&byte);
        i = after;
    }
    (found != negated).then_some(i + 1)
}

fn literal(pattern: &[u8], i: usize) -> Option<(u8, usize)> {
    match pattern.get(i)? {
        b'\\' => Some((*pattern.get(i + 1)?, i + 2)),
        byte => Some((*byte, i + 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_go_does_it() {
        for (pattern, name, expected) in [
            ("*", "", true),
            ("*.js", "a.js", true),
            ("*.js", "a.ts", false),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("?", "x", true),
            ("?", "", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[^a-c]x", "dx", true),
            ("\\*", "*", true),
            ("\\*", "x", false),
            ("[", "[", false),
            ("[]a]", "]", true),
            ("package*.json", "package-lock.json", true),
        ] {
            assert_eq!(
                matches(pattern.as_bytes(), name.as_bytes()),
                expected,
                "{pattern} {name}"
            );
        }
        let stars = [b"*a".repeat(200), b"b".to_vec()].concat();
        assert!(!matches(&stars, &b"a".repeat(5000)));
    }
}
