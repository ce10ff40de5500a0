//! One line of a log: Docker's json-file format, with one more field for bytes that are not UTF-8.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jiff::Timestamp;
use serde::Deserialize;

/// Where a line was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line, or a piece of a long one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Where it was written.
    pub(crate) stream: Stream,
    /// With its line break, if it had one.
    pub(crate) data: Bytes,
    /// When.
    pub(crate) time: Timestamp,
}

#[derive(Deserialize)]
struct Json {
    log: String,
    stream: Stream,
    time: Timestamp,
    #[serde(default)]
    bin: Option<String>,
}

impl Line {
    /// `None` for what is no line: a torn write, or somebody else's text.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let json: Json = serde_json::from_slice(text).ok()?;
        let data = match json.bin {
            Some(encoded) => STANDARD.decode(encoded).ok()?.into(),
            None => json.log.into(),
        };
        Some(Self {
            stream: json.stream,
            data,
            time: json.time,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bytes_that_are_not_text_come_back_as_they_were() {
        let text =
            br#"{"log":"?\n","stream":"stderr","time":"2026-01-01T00:00:00.5Z","bin":"/wo="}"#;
        let line = Line::parse(text).unwrap();
        assert_eq!(line.data.as_ref(), b"\xff\n");
        assert_eq!(line.stream, Stream::Stderr);
        assert!(Line::parse(br#"{"log":"torn"#).is_none());
    }

    proptest! {
        #[test]
        fn nothing_makes_the_parser_fall(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            Line::parse(&bytes);
        }

        #[test]
        fn text_comes_back(log in ".*") {
            let json = serde_json::json!({"log": log, "stream": "stdout", "time": "2026-01-01T00:00:00Z"});
            let line = Line::parse(json.to_string().as_bytes()).unwrap();
            prop_assert_eq!(line.data.as_ref(), log.as_bytes());
        }
    }
}
