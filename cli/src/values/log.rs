//! `--log-opt`: what of a container belongs to its log.

use super::invalid;
use crate::error::CliError;

/// The names of labels and of variables; Docker's other options have no meaning for a log that is always
/// rotated and never sent elsewhere.
pub(crate) fn options(texts: &[String]) -> Result<(Vec<String>, Vec<String>), CliError> {
    let (mut labels, mut variables) = (Vec::new(), Vec::new());
    for text in texts {
        match text.split_once('=') {
            Some(("labels", list)) => labels.extend(names(list)),
            Some(("env", list)) => variables.extend(names(list)),
            _ => {
                let problem = "expected labels=KEY,… or env=NAME,…";
                return Err(invalid("--log-opt", text, problem));
            }
        }
    }
    Ok((labels, variables))
}

fn names(list: &str) -> impl Iterator<Item = String> {
    list.split(',').map(|name| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_variables_are_listed_by_name() {
        let options = |texts: &[&str]| {
            let texts: Vec<_> = texts.iter().map(|text| (*text).to_owned()).collect();
            options(&texts)
        };
        let (labels, variables) = options(&["labels=a, b", "env=HOME"]).unwrap();
        assert_eq!(
            (labels, variables),
            (vec!["a".into(), "b".into()], vec!["HOME".into()])
        );
        for bad in ["", "labels", "max-size=1m"] {
            assert!(options(&[bad]).is_err(), "{bad}");
        }
    }
}
