//! Sizes for people, as Docker's `units.HumanSize`: powers of 1,000, four significant digits at most
//! three of them after the point.

const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];

/// `1234567` → `1.235MB`, as tables of `system df` and progress show it.
pub(crate) fn human(bytes: u64) -> String {
    with_digits(bytes, 4)
}

/// `1234567` → `1.23MB`, as `images` and `ps -s` show it.
pub(crate) fn short(bytes: u64) -> String {
    with_digits(bytes, 3)
}

#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "rounded for people"
)]
fn with_digits(bytes: u64, digits: usize) -> String {
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
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
    text + UNITS[unit]
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
}
