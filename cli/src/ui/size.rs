//! Sizes for people, as Docker's `units.HumanSize`: powers of 1,000, four significant digits at most
//! three of them after the point. Memory is counted in powers of 1,024 (`units.BytesSize`).

const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
const BINARY_UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// `1234567` → `1.235MB`, as tables of `system df` and progress show it.
pub(crate) fn human(bytes: u64) -> String {
    with_digits(bytes, 4, 1000.0, UNITS)
}

/// `1234567` → `1.23MB`, as `images` and `ps -s` show it.
pub(crate) fn short(bytes: u64) -> String {
    with_digits(bytes, 3, 1000.0, UNITS)
}

/// `1048576` → `1MiB`, as `stats` shows memory.
pub(crate) fn binary(bytes: u64) -> String {
    with_digits(bytes, 4, 1024.0, BINARY_UNITS)
}

#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "rounded for people"
)]
fn with_digits(bytes: u64, digits: usize, base: f64, units: [&str; 7]) -> String {
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= base && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    let whole = if value >= 100.0 {
        3
    } else if value >= 10.0 {
        2
    } else {
        1
    };
    let mut text = format!("{value:.*}", digits.saturating_sub(whole));
    if text.contains('.') {
        text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    }
    text + units[unit]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_dockers() {
        for (bytes, long, brief) in [
            (0, "0B", "0B"),
            (999, "999B", "999B"),
            (1000, "1kB", "1kB"),
            (4_261_502, "4.262MB", "4.26MB"),
            (141_500_000, "141.5MB", "142MB"),
            (2_000_000_000, "2GB", "2GB"),
        ] {
            assert_eq!(human(bytes), long);
            assert_eq!(short(bytes), brief);
        }
    }

    #[test]
    fn memory_reads_as_dockers() {
        for (bytes, text) in [
            (0, "0B"),
            (1_036_288, "1012KiB"),
            (1_048_576, "1MiB"),
            (25_275_879_424, "23.54GiB"),
        ] {
            assert_eq!(binary(bytes), text);
        }
    }
}
