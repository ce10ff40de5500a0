//! `--log-opt`: how much of a container's log is kept, and what of the container belongs to it.

use super::{invalid, quantity};
use crate::error::CliError;

/// What all of a container's `--log-opt` say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct LogOptions {
    /// Bytes of a file; 0: not said; -1: any.
    pub(crate) max_size: i64,
    /// Files; 0: not said.
    pub(crate) max_file: u32,
    /// Names of labels.
    pub(crate) labels: Vec<String>,
    /// Names of variables.
    pub(crate) variables: Vec<String>,
}

/// Docker's other options have no meaning for a log that is never compressed or sent elsewhere.
pub(crate) fn options(texts: &[String]) -> Result<LogOptions, CliError> {
    let mut options = LogOptions::default();
    for text in texts {
        match text.split_once('=') {
            Some(("labels", list)) => options.labels.extend(names(list)),
            Some(("env", list)) => options.variables.extend(names(list)),
            Some(("max-size", size)) => options.max_size = max_size(size)?,
            Some(("max-file", number)) => options.max_file = max_file(number)?,
            _ => {
                let problem = "expected max-size=SIZE, max-file=NUMBER, labels=KEY,… or env=NAME,…";
                return Err(invalid("--log-opt", text, problem));
            }
        }
    }
    Ok(options)
}

fn max_size(text: &str) -> Result<i64, CliError> {
    match text {
        "-1" => Ok(-1),
        _ => match quantity::bytes("--log-opt max-size", text)? {
            0 => Err(invalid("--log-opt max-size", text, "expected more than 0")),
            size => Ok(size),
        },
    }
}

fn max_file(text: &str) -> Result<u32, CliError> {
    let fail = || invalid("--log-opt max-file", text, "expected 1 or more");
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(fail)
}

fn names(list: &str) -> impl Iterator<Item = String> {
    list.split(',').map(|name| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_variables_are_listed_by_name_and_sizes_are_read() {
        let options = |texts: &[&str]| {
            let texts: Vec<_> = texts.iter().map(|text| (*text).to_owned()).collect();
            options(&texts)
        };
        let all = ["labels=a, b", "env=HOME", "max-size=10k", "max-file=3"];
        let expected = LogOptions {
            max_size: 10 * 1024,
            max_file: 3,
            labels: vec!["a".into(), "b".into()],
            variables: vec!["HOME".into()],
        };
        assert_eq!(options(&all).unwrap(), expected);
        assert_eq!(options(&["max-size=-1"]).unwrap().max_size, -1);
        for bad in [
            "",
            "labels",
            "max-size=0",
            "max-size=-2",
            "max-file=0",
            "max-file=x",
            "compress=true",
        ] {
            assert!(options(&[bad]).is_err(), "{bad}");
        }
    }
}
