//! `--env` and `--env-file`: Docker's syntax. `NAME` alone takes the caller's value.

use std::path::Path;

use super::invalid;
use crate::config;
use crate::error::{CliError, file};

/// The most that an env-file may hold.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// The environment that files and options give, in the order in which later ones win.
pub(crate) fn collect(
    files: &[impl AsRef<Path>],
    options: &[String],
) -> Result<Vec<String>, CliError> {
    let mut env = Vec::new();
    for path in files {
        let path = path.as_ref();
        let text = read("--env-file", path)?;
        let entries = entries(path, &text)?;
        env.extend(
            entries
                .iter()
                .filter_map(|entry| resolve(entry, &config::variable)),
        );
    }
    for option in options {
        if option.is_empty() || option.starts_with('=') {
            return Err(invalid("--env", option, "a variable needs a name"));
        }
        env.extend(resolve(option, &config::variable));
    }
    Ok(env)
}

/// The file that an option names.
pub(super) fn read(option: &'static str, path: &Path) -> Result<String, CliError> {
    use std::io::Read as _;
    let opened = std::fs::File::open(path).map_err(file("open", path))?;
    let mut text = String::new();
    let read = opened.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    read.map_err(file("read", path))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(invalid(
            option,
            &path.to_string_lossy(),
            "it is larger than 1 MiB",
        ));
    }
    Ok(text)
}

/// `NAME=value` as it is, `NAME` with the caller's value or not at all.
fn resolve(entry: &str, variable: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    if entry.contains('=') {
        return Some(entry.to_owned());
    }
    variable(entry).map(|value| format!("{entry}={value}"))
}

/// A line is a comment, empty, `NAME=value` (taken literally, without quotes or expansion) or `NAME`.
pub(super) fn entries<'a>(path: &Path, text: &'a str) -> Result<Vec<&'a str>, CliError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut entries = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.split('=').next().unwrap_or_default();
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(CliError::Usage(format!(
                "{}, line {number}: {line:?}: a name must not be empty nor hold spaces",
                path.display()
            )));
        }
        entries.push(line);
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Vec<String>, CliError> {
        let variable = |name: &str| (name == "HOME").then(|| "/root".to_owned());
        let entries = entries(Path::new("f"), text)?;
        let resolved = entries.iter().filter_map(|entry| resolve(entry, &variable));
        Ok(resolved.collect())
    }

    #[test]
    fn a_file_is_read_as_docker_reads_it() {
        let text = "\u{feff}# comment\n\n A=1\nB=\"quoted\" # kept\nC=\nHOME\nUNSET\nD=x=y\r\n";
        assert_eq!(
            parsed(text).unwrap(),
            ["A=1", "B=\"quoted\" # kept", "C=", "HOME=/root", "D=x=y"]
        );
    }

    #[test]
    fn a_bad_name_is_told_with_its_line() {
        let error = parsed("A=1\nB C=2\n").unwrap_err().to_string();
        assert!(error.contains("line 2"), "{error}");
        assert!(parsed("=x\n").is_err());
    }
}
