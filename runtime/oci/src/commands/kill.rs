//! `kill`.

use std::os::fd::AsFd as _;
use std::str::FromStr as _;

use nix::sys::signal::Signal;
use orlop_shim::oci;

use crate::error::{Error, Result};
use crate::state::Container;

/// The highest number of a signal.
const SIGNAL_MAX: i32 = 64;

/// Sends a signal to the first process, or to all.
pub(super) fn kill(container: &Container, all: bool, signal: &str) -> Result<()> {
    let number = number(signal)?;
    if all {
        oci::signal_all(&container.record.cgroups, number);
        return Ok(());
    }
    let first = container.first().ok_or(Error::NotRunning)?;
    oci::signal(first.as_fd(), number).map_err(|_| Error::NotRunning)
}

/// By number, or by name with or without "SIG".
fn number(signal: &str) -> Result<i32> {
    if let Ok(number) = signal.parse::<i32>() {
        let known = (1..=SIGNAL_MAX).contains(&number);
        return known
            .then_some(number)
            .ok_or_else(|| Error::Signal(signal.to_owned()));
    }
    let upper = signal.to_uppercase();
    let name = format!("SIG{}", upper.strip_prefix("SIG").unwrap_or(&upper));
    let found = Signal::from_str(&name);
    found
        .map(|signal| signal as i32)
        .map_err(|_| Error::Signal(signal.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_numbers_and_names() {
        for text in ["15", "TERM", "SIGTERM", "sigterm"] {
            assert_eq!(number(text).unwrap(), 15, "{text}");
        }
        assert_eq!(number("34").unwrap(), 34);
        for text in ["0", "-1", "65", "NONE", ""] {
            assert!(number(text).is_err(), "{text}");
        }
    }
}
