//! Times for people, as Docker's `units.HumanDuration`, and in RFC 3339.

use jiff::{SignedDuration, Timestamp};

/// The zero time of Go, which Docker shows for "never".
pub(crate) const NEVER: &str = "0001-01-01T00:00:00Z";

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const WEEK: i64 = 7 * DAY;
const MONTH: i64 = 30 * DAY;
const YEAR: i64 = 365 * DAY;

/// A time of the contract; absent or impossible ones are `None`.
pub(crate) fn of(wire: Option<&prost_types::Timestamp>) -> Option<Timestamp> {
    let wire = wire?;
    Timestamp::new(wire.seconds, wire.nanos).ok()
}

/// The other way.
pub(crate) fn to_wire(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: time.as_second(),
        nanos: time.subsec_nanosecond(),
    }
}

/// RFC 3339 with nanoseconds, in UTC.
pub(crate) fn rfc3339(wire: Option<&prost_types::Timestamp>) -> String {
    of(wire).map_or_else(|| NEVER.to_owned(), |time| format!("{time:.9}"))
}

/// `5 minutes ago`; `N/A` where the time is not known.
pub(crate) fn ago(wire: Option<&prost_types::Timestamp>) -> String {
    of(wire).map_or_else(|| "N/A".to_owned(), |time| format!("{} ago", since(time)))
}

/// `5 minutes`.
pub(crate) fn since(time: Timestamp) -> String {
    human(Timestamp::now().duration_since(time))
}

/// A length of time in words.
pub(crate) fn human(duration: SignedDuration) -> String {
    let seconds = duration.as_secs().max(0);
    match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..MINUTE => format!("{seconds} seconds"),
        _ if seconds < 2 * MINUTE => "About a minute".to_owned(),
        _ if seconds < HOUR => format!("{} minutes", seconds / MINUTE),
        _ if rounded(seconds, HOUR) < 2 => "About an hour".to_owned(),
        _ if rounded(seconds, HOUR) < 48 => format!("{} hours", rounded(seconds, HOUR)),
        _ if seconds < 2 * WEEK => format!("{} days", seconds / DAY),
        _ if seconds < 2 * MONTH => format!("{} weeks", seconds / WEEK),
        _ if seconds < 2 * YEAR => format!("{} months", seconds / MONTH),
        _ => format!("{} years", seconds / YEAR),
    }
}

fn rounded(seconds: i64, unit: i64) -> i64 {
    (seconds + unit / 2) / unit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_dockers() {
        for (seconds, words) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (300, "5 minutes"),
            (3600, "About an hour"),
            (3 * HOUR, "3 hours"),
            (3 * DAY, "3 days"),
            (15 * DAY, "2 weeks"),
            (90 * DAY, "3 months"),
            (800 * DAY, "2 years"),
        ] {
            assert_eq!(human(SignedDuration::from_secs(seconds)), words);
        }
    }

    #[test]
    fn times_have_nanoseconds_and_absent_ones_are_gos_zero() {
        let wire = prost_types::Timestamp {
            seconds: 0,
            nanos: 5,
        };
        assert_eq!(rfc3339(Some(&wire)), "1970-01-01T00:00:00.000000005Z");
        assert_eq!(rfc3339(None), NEVER);
    }
}
