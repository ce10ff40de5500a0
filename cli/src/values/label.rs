//! `--label` and `--label-file`: `KEY[=VALUE]`.

use std::collections::HashMap;
use std::path::PathBuf;

use super::{env, invalid, pair};
use crate::error::CliError;

/// The labels that files and options give; later ones win.
pub(crate) fn collect(
    files: &[PathBuf],
    options: &[String],
) -> Result<HashMap<String, String>, CliError> {
    let mut labels = HashMap::new();
    for path in files {
        let text = env::read("--label-file", path)?;
        labels.extend(env::entries(path, &text)?.into_iter().map(pair));
    }
    labels.extend(options.iter().map(|label| pair(label)));
    Ok(labels)
}

/// What one `--annotation` says: `KEY=VALUE`.
pub(crate) fn annotation(text: &str) -> Result<(String, String), CliError> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(invalid("--annotation", text, "expected KEY=VALUE")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_annotation_has_a_value() {
        let made = annotation("a=b=c").unwrap();
        assert_eq!((&*made.0, &*made.1), ("a", "b=c"));
        assert!(annotation("a").is_err() && annotation("=b").is_err());
    }

    #[test]
    fn an_option_wins_over_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "# none\ntier=web\n\nbare\nline=a b\n").unwrap();
        let options = ["tier=db".to_owned()];
        let labels = collect(&[file.path().to_owned()], &options).unwrap();
        assert_eq!(labels.len(), 3);
        assert_eq!((&*labels["tier"], &*labels["bare"]), ("db", ""));
        assert_eq!(labels["line"], "a b");
        std::fs::write(file.path(), "a b=c\n").unwrap();
        assert!(collect(&[file.path().to_owned()], &[]).is_err());
    }
}
