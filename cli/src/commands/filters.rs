//! `--filter key=value`.

use orlop_proto::runtime::Filter;

use crate::error::CliError;
use crate::values::invalid;

/// The filters, each of a known key.
pub(super) fn parse(texts: &[String], known: &[&str]) -> Result<Vec<Filter>, CliError> {
    texts.iter().map(|text| one(text, known)).collect()
}

fn one(text: &str, known: &[&str]) -> Result<Filter, CliError> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| invalid("--filter", text, "expected KEY=VALUE"))?;
    if !known.contains(&key) {
        let reason = format!("unknown key; there are {}", known.join(", "));
        return Err(invalid("--filter", text, reason));
    }
    Ok(Filter {
        key: key.to_owned(),
        value: value.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_known_or_refused() {
        assert_eq!(
            parse(&["label=a=b".to_owned()], &["label"]).unwrap()[0].value,
            "a=b"
        );
        for bad in ["x", "y=1"] {
            assert!(parse(&[bad.to_owned()], &["label"]).is_err());
        }
    }
}
