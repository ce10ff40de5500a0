//! Points in time for `--since` and `--until`: RFC 3339, Unix seconds, or a length of time ago.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::invalid;
use crate::error::CliError;

/// Characters of `2026-11-21`.
const DATE: usize = 10;

/// `2026-11-21T05:00:00Z`, `2026-11-21` (of this host's time zone), `1763700000[.5]`, `10m`, `1h30m`; as
/// in Docker a negative length of time is one to come.
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
    if let Some((seconds, nanos)) = unix(text) {
        return Timestamp::new(seconds, nanos).map_err(|_| fail());
    }
    if let Some(time) = calendar(text, TimeZone::system()) {
        return Ok(time);
    }
    let ago = duration(text).ok_or_else(fail)?;
    now.checked_sub(ago).map_err(|_| fail())
}

/// A date, with a time of the day and a zone where they are given.
fn calendar(text: &str, zone: TimeZone) -> Option<Timestamp> {
    let (date, rest) = text.split_at_checked(DATE)?;
    let bare = rest.is_empty() || rest.starts_with(['Z', '+', '-']);
    let midnight = if bare { "T00:00:00" } else { "" };
    let whole = format!("{date}{midnight}{rest}");
    if let Ok(time) = whole.parse::<Timestamp>() {
        return Some(time);
    }
    let local: jiff::civil::DateTime = whole.parse().ok()?;
    local.to_zoned(zone).ok().map(|zoned| zoned.timestamp())
}

fn unix(text: &str) -> Option<(i64, i32)> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos = format!("{fraction:0<9}").parse().ok()?;
    Some((seconds.parse().ok()?, nanos))
}

/// Go's durations: a sign, then numbers with `h`, `m`, `s`, `ms`, `us` or `ns`, one after another; and
/// `d` for days.
pub(crate) fn duration(text: &str) -> Option<SignedDuration> {
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let mut rest = text;
    let mut total = SignedDuration::ZERO;
    while !rest.is_empty() {
        let (number, unit, after) = term(rest)?;
        total = total.checked_add(length(number, unit)?)?;
        rest = after;
    }
    let total = if negative { -total } else { total };
    (!text.is_empty()).then_some(total)
}

/// The first number of a duration, its unit, and what follows.
fn term(text: &str) -> Option<(&str, &str, &str)> {
    let of_number = |c: char| c.is_ascii_digit() || c == '.';
    let digits = text.find(|c| !of_number(c)).filter(|at| *at > 0)?;
    let (number, rest) = text.split_at_checked(digits)?;
    let (unit, after) = rest.split_at_checked(rest.find(of_number).unwrap_or(rest.len()))?;
    Some((number, unit, after))
}

/// `1.5` of `h`, by whole nanoseconds.
fn length(number: &str, unit: &str) -> Option<SignedDuration> {
    let unit: i128 = match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        "d" => 86_400_000_000_000,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    let scale = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let nanoseconds = digits.parse::<i128>().ok()?.checked_mul(unit)? / scale;
    i64::try_from(nanoseconds)
        .ok()
        .map(SignedDuration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_are_understood() {
        let now = Timestamp::new(1_000_000, 0).unwrap();
        for (text, second) in [
            ("1970-01-02T00:00:00Z", 86_400),
            ("1970-01-02T00:00:00+01:00", 82_800),
            ("1970-01-02Z", 86_400),
            ("500", 500),
            ("500.5", 500),
            ("0", 0),
            ("10m", 1_000_000 - 600),
            ("1h30m", 1_000_000 - 5400),
            ("1.5h", 1_000_000 - 5400),
            ("-1m", 1_000_060),
            ("0s", 1_000_000),
            ("2d", 1_000_000 - 172_800),
        ] {
            let time = parse("--since", text, now).unwrap();
            assert_eq!(time.as_second(), second, "{text}");
        }
        for bad in ["", "x", "m", "10x", "1m2", "-", "1..5s", ".s", "2026-13-01"] {
            assert!(parse("--since", bad, now).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_time_without_a_zone_is_of_this_hosts() {
        let zone = || TimeZone::fixed(jiff::tz::offset(2));
        for text in [
            "1970-01-02",
            "1970-01-02T00",
            "1970-01-02T00:00",
            "1970-01-02T00:00:00.5",
        ] {
            let time = calendar(text, zone()).unwrap();
            assert_eq!(time.as_second(), 86_400 - 7200, "{text}");
        }
        assert_eq!(calendar("1970-01-02Z", zone()).unwrap().as_second(), 86_400);
    }

    #[test]
    fn durations_go_down_to_nanoseconds() {
        for (text, nanoseconds) in [("1us5ns", 1005), ("0.5ms", 500_000), ("-2ns", -2)] {
            assert_eq!(duration(text).unwrap().as_nanos(), nanoseconds, "{text}");
        }
        assert_eq!(duration("99999999999h"), None, "too long to count");
    }
}
