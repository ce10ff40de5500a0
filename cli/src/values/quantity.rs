//! Sizes in bytes (`512m`), parts of CPUs (`1.5`), and platforms (`linux/amd64`).

use orlop_proto::types::Platform;

use super::invalid;
use crate::error::CliError;

const NANOS_PER_CPU: f64 = 1e9;
/// More CPUs than any machine has.
const CPUS_MAX: f64 = 1e6;

/// Docker's sizes: a number, perhaps with a fraction, and one of `b k m g t p` (powers of 1,024),
/// each perhaps followed by `b` or `ib`.
pub(crate) fn bytes(option: &'static str, text: &str) -> Result<i64, CliError> {
    let fail = || invalid(option, text, "expected a size such as 512m, 1.5g or 1024");
    let lower = text.trim().to_ascii_lowercase();
    let split = lower
        .find(|c: char| c.is_ascii_alphabetic())
        .unwrap_or(lower.len());
    let (number, suffix) = lower.split_at(split);
    let shift = match suffix
        .strip_suffix("ib")
        .or_else(|| suffix.strip_suffix('b'))
        .unwrap_or(suffix)
    {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return Err(fail()),
    };
    let number = number.trim();
    if let Ok(whole) = number.parse::<u64>() {
        let value = whole
            .checked_mul(1 << shift)
            .and_then(|v| i64::try_from(v).ok());
        return value.ok_or_else(fail);
    }
    fraction(number, shift).ok_or_else(fail)
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "within the range that was checked"
)]
fn fraction(number: &str, shift: u32) -> Option<i64> {
    let plain = number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let value: f64 = number.parse().ok().filter(|_| plain)?;
    let value = value * f64::from(2u32).powi(i32::try_from(shift).ok()?);
    (value < 9e18).then_some(value as i64)
}

/// `1.5` CPUs as billionths.
#[allow(
    clippy::cast_possible_truncation,
    reason = "within the range that was checked"
)]
pub(crate) fn nano_cpus(text: &str) -> Result<i64, CliError> {
    let value: f64 = text.parse().unwrap_or(f64::NAN);
    if !(0.0..CPUS_MAX).contains(&value) {
        return Err(invalid("--cpus", text, "expected a number such as 1.5"));
    }
    Ok((value * NANOS_PER_CPU).round() as i64)
}

/// `os/architecture[/variant]`.
pub(crate) fn platform(text: &str) -> Result<Platform, CliError> {
    let mut parts = text.split('/').map(str::to_owned);
    let (os, architecture) = (parts.next(), parts.next());
    let variant = parts.next().unwrap_or_default();
    match (os, architecture, parts.next()) {
        (Some(os), Some(architecture), None) if !os.is_empty() && !architecture.is_empty() => {
            Ok(Platform {
                os,
                architecture,
                variant,
            })
        }
        _ => Err(invalid(
            "--platform",
            text,
            "expected OS/ARCHITECTURE such as linux/arm64",
        )),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_dockers() {
        for (text, value) in [
            ("1024", 1024),
            ("512m", 512 << 20),
            ("512M", 512 << 20),
            ("1g", 1 << 30),
            ("1gb", 1 << 30),
            ("1GiB", 1 << 30),
            ("1.5k", 1536),
            ("64b", 64),
            ("2 k", 2048),
        ] {
            assert_eq!(bytes("-m", text).unwrap(), value, "{text}");
        }
        for bad in [
            "",
            "m",
            "12x",
            "-1",
            "1e3",
            "nan",
            "inf",
            "99999999999999999999",
            "9999999p",
        ] {
            assert!(bytes("-m", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn cpus_are_billionths() {
        assert_eq!(nano_cpus("1.5").unwrap(), 1_500_000_000);
        for bad in ["-1", "x", "NaN", "inf"] {
            assert!(nano_cpus(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn platforms_have_two_or_three_parts() {
        assert_eq!(platform("linux/arm/v7").unwrap().variant, "v7");
        for bad in ["linux", "linux/", "/x", "a/b/c/d"] {
            assert!(platform(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_size_panics(text in ".*") {
            drop(bytes("-m", &text));
            drop(nano_cpus(&text));
        }
    }
}
