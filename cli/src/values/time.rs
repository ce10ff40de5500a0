//! Points in time for `--since` and `--until`: RFC 3339, Unix seconds, or a length of time ago.

use jiff::{SignedDuration, Timestamp};

use super::invalid;
use crate::error::CliError;

/// `2026-11-21T05:00:00Z`, `2026-11-21`, `1763700000[.5]`, `10m`, `1h30m`.
pub(crate) fn parse(
    option: &'static str,
    text: &str,
    now: Timestamp,
) -> Result<Timestamp, CliError> {
    let fail = || {
        invalid(
            option,
            text,
            "expected a time (2026-01-02T03:04:05Z), Unix seconds, or a length of time (10m)",
        )
    };
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    if let Ok(date) = text.parse::<jiff::civil::DateTime>() {
        let zoned = date.to_zoned(jiff::tz::TimeZone::UTC);
        return zoned.map(|zoned| zoned.timestamp()).map_err(|_| fail());
    }
    if let Some((seconds, nanos)) = unix(text) {
        return Timestamp::new(seconds, nanos).map_err(|_| fail());
    }
    let ago = duration(text).ok_or_else(fail)?;
    now.checked_sub(ago).map_err(|_| fail())
}

fn unix(text: &str) -> Option<(i64, i32)> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos = format!("{fraction:0<9}").parse().ok()?;
    Some((seconds.parse().ok()?, nanos))
}

/// Go's durations: numbers with `h`, `m`, `s` or `ms`, one after another; and `d` for days.
pub(crate) fn duration(text: &str) -> Option<SignedDuration> {
    let mut rest = text;
    let mut total = SignedDuration::ZERO;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .filter(|at| *at > 0)?;
        let number: i64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let units = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        let millis = match &rest[..units] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        total = total.checked_add(SignedDuration::from_millis(number.checked_mul(millis)?))?;
        rest = &rest[units..];
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_are_understood() {
        let now = Timestamp::new(1_000_000, 0).unwrap();
        for (text, second) in [
            ("1970-01-02T00:00:00Z", 86_400),
            ("1970-01-02", 86_400),
            ("500", 500),
            ("500.5", 500),
            ("10m", 1_000_000 - 600),
            ("1h30m", 1_000_000 - 5400),
            ("2d", 1_000_000 - 172_800),
        ] {
            let time = parse("--since", text, now).unwrap();
            assert_eq!(time.as_second(), second, "{text}");
        }
        for bad in ["", "x", "m", "10x", "1m2"] {
            assert!(parse("--since", bad, now).is_err(), "{bad}");
        }
    }
}
