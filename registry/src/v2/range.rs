//! `Range` and `Content-Range` (RFC 9110, section 14).

/// What a `Range` asks of a blob.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// All of it: no range, one that is not understood, or several.
    Whole,
    /// From the first byte to the last, inclusive.
    Part(u64, u64),
    /// Nothing that is there.
    Beyond,
}

/// Reads a `Range` header against the size of a blob.
pub(super) fn asked(header: Option<&str>, size: u64) -> Asked {
    let Some(range) = header.and_then(|text| text.trim().strip_prefix("bytes=")) else {
        return Asked::Whole;
    };
    let Some((first, last)) = range.split_once('-') else {
        return Asked::Whole;
    };
    match (number(first), number(last)) {
        (Some(first), _) if first >= size && (last.is_empty() || number(last).is_some()) => {
            Asked::Beyond
        }
        (Some(first), None) if last.is_empty() => Asked::Part(first, size - 1),
        (Some(first), Some(last)) if first <= last => Asked::Part(first, last.min(size - 1)),
        (None, Some(0)) if first.is_empty() => Asked::Beyond,
        (None, Some(count)) if first.is_empty() && size > 0 => {
            Asked::Part(size.saturating_sub(count), size - 1)
        }
        _ => Asked::Whole,
    }
}

/// Reads the `Content-Range` of an upload's chunk: `first-last`, as the specification writes it, or
/// with the unit and the size of HTTP.
pub(super) fn chunk(header: &str) -> Option<(u64, u64)> {
    let text = header.trim();
    let text = text
        .strip_prefix("bytes")
        .map_or(text, |t| t.trim_start_matches([' ', '=']));
    let text = text.split('/').next()?;
    let (first, last) = text.split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

fn number(text: &str) -> Option<u64> {
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_the_rfc() {
        for (header, expected) in [
            (None, Asked::Whole),
            (Some("bytes=0-"), Asked::Part(0, 9)),
            (Some("bytes=3-5"), Asked::Part(3, 5)),
            (Some("bytes=3-99"), Asked::Part(3, 9)),
            (Some("bytes=-4"), Asked::Part(6, 9)),
            (Some("bytes=-99"), Asked::Part(0, 9)),
            (Some("bytes=10-"), Asked::Beyond),
            (Some("bytes=-0"), Asked::Beyond),
            (Some("bytes=5-3"), Asked::Whole),
            (Some("bytes=0-1,3-4"), Asked::Whole),
            (Some("lines=0-1"), Asked::Whole),
            (Some("bytes=-"), Asked::Whole),
        ] {
            assert_eq!(asked(header, 10), expected, "{header:?}");
        }
        assert_eq!(asked(Some("bytes=-5"), 0), Asked::Whole);
    }

    #[test]
    fn chunks_of_the_specification() {
        assert_eq!(chunk("0-9"), Some((0, 9)));
        assert_eq!(chunk("bytes 5-9/10"), Some((5, 9)));
        for bad in ["", "9", "9-5", "a-b", "-5", "+1-2"] {
            assert_eq!(chunk(bad), None, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_part_is_always_inside(header in "bytes=[0-9]{0,3}-[0-9]{0,3}", size in 0_u64..500) {
            if let Asked::Part(first, last) = asked(Some(&header), size) {
                assert!(first <= last && last < size);
            }
        }
    }
}
