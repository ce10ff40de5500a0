//! `--name=value` between the keyword and the arguments.

/// One flag: its name without dashes, its value if it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flag {
    pub(super) name: String,
    pub(super) value: Option<String>,
}

impl Flag {
    /// As it was written.
    pub(super) fn text(&self) -> String {
        format!("--{}", self.name)
    }
}

/// Splits the flags from what follows them. `--` ends them.
pub(super) fn split(mut rest: &str) -> (Vec<Flag>, &str) {
    let mut flags = Vec::new();
    loop {
        rest = rest.trim_start();
        let Some(after) = rest.strip_prefix("--") else {
            return (flags, rest);
        };
        let end = after.find(char::is_whitespace).unwrap_or(after.len());
        let (word, tail) = after.split_at(end);
        rest = tail;
        if word.is_empty() {
            return (flags, rest.trim_start());
        }
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(unquoted(value))),
            None => (word, None),
        };
        flags.push(Flag {
            name: name.to_owned(),
            value,
        });
    }
}

fn unquoted(value: &str) -> String {
    let inner = ['"', '\'']
        .iter()
        .find_map(|q| value.strip_prefix(*q)?.strip_suffix(*q));
    inner.unwrap_or(value).to_owned()
}
