//! `--detach-keys`: `ctrl-p,ctrl-q`, and the recognition of them in what is typed.

use super::invalid;
use crate::error::CliError;

/// Docker's default.
pub(crate) const DEFAULT: &str = "ctrl-p,ctrl-q";

/// Watches input for a sequence of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DetachKeys {
    sequence: Vec<u8>,
    /// How many keys of the sequence were typed last.
    matched: usize,
}

impl DetachKeys {
    /// Letters, or `ctrl-` with one of `a`–`z @ [ \ ] ^ _`, separated by commas.
    pub(crate) fn parse(text: &str) -> Result<Self, CliError> {
        let fail = || {
            invalid(
                "--detach-keys",
                text,
                "expected keys such as ctrl-p,ctrl-q or a",
            )
        };
        let key = |key: &str| -> Option<u8> {
            if let Some(control) = key.to_ascii_lowercase().strip_prefix("ctrl-") {
                return match control.as_bytes() {
                    [c @ b'a'..=b'z'] => Some(c - b'a' + 1),
                    [c @ (b'@' | b'[' | b'\\' | b']' | b'^' | b'_')] => Some(c - b'@'),
                    _ => None,
                };
            }
            match key.as_bytes() {
                [c] if c.is_ascii() => Some(*c),
                _ => None,
            }
        };
        let sequence: Option<Vec<u8>> = text.split(',').map(key).collect();
        Ok(Self {
            sequence: sequence.ok_or_else(fail)?,
            matched: 0,
        })
    }

    /// What of the input shall go on; `None` when the sequence was completed. Keys that may be the
    /// beginning of the sequence are held back until the next ones are known.
    pub(crate) fn filter(&mut self, input: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(input.len());
        for byte in input {
            if *byte == self.sequence[self.matched] {
                self.matched += 1;
                if self.matched == self.sequence.len() {
                    return None;
                }
                continue;
            }
            out.extend_from_slice(&self.sequence[..self.matched]);
            self.matched = 0;
            if *byte == self.sequence[0] && self.sequence.len() > 1 {
                self.matched = 1;
            } else {
                out.push(*byte);
            }
        }
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_found_across_reads() {
        let mut keys = DetachKeys::parse(DEFAULT).unwrap();
        assert_eq!(keys.filter(b"ab\x10").unwrap(), b"ab");
        assert_eq!(keys.filter(b"x\x10").unwrap(), b"\x10x");
        assert_eq!(keys.filter(b"\x11"), None);
    }

    #[test]
    fn malformed_keys_are_refused() {
        for bad in ["", "ctrl-", "ctrl-pp", "ab", "a,,b", "ctrl-1"] {
            assert!(DetachKeys::parse(bad).is_err(), "{bad}");
        }
    }
}
