//! Heredocs: `<<EOF`, `<<-EOF` (without the tabs at the beginning of its lines), `<<"EOF"` (nothing in
//! it is expanded). Only RUN, COPY and ADD have them.

/// One heredoc of an instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    /// The word that ends it, and the name of its file in COPY.
    pub name: String,
    /// Whether variables in it are expanded.
    pub expand: bool,
    /// `<<-`.
    pub strip_tabs: bool,
    /// Its lines, each with its end.
    pub body: String,
}

/// The heredocs that a logical line announces, in order, still without their bodies.
pub(super) fn find(text: &str, escape: char) -> Vec<Heredoc> {
    let keyword = text.split_whitespace().next().unwrap_or_default();
    if !["RUN", "COPY", "ADD"]
        .iter()
        .any(|k| keyword.eq_ignore_ascii_case(k))
    {
        return Vec::new();
    }
    let rest = &text[keyword.len()..];
    if rest.trim_start().starts_with('[') {
        return Vec::new();
    }
    raw_words(rest, escape)
        .iter()
        .filter_map(|word| parse(word))
        .collect()
}

/// A word that is a heredoc: optional file descriptor, `<<`, optional `-`, the name.
pub(super) fn parse(word: &str) -> Option<Heredoc> {
    let word = word
        .trim_start_matches(|c: char| c.is_ascii_digit())
        .strip_prefix("<<")?;
    let (strip_tabs, name) = match word.strip_prefix('-') {
        Some(name) => (true, name),
        None => (false, word),
    };
    let unquoted = ['"', '\'']
        .iter()
        .find_map(|q| name.strip_prefix(*q)?.strip_suffix(*q));
    let expand = unquoted.is_none();
    let name = unquoted.unwrap_or(name);
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.is_empty() || !name.chars().all(plain) {
        return None;
    }
    Some(Heredoc {
        name: name.to_owned(),
        expand,
        strip_tabs,
        body: String::new(),
    })
}

/// Words as a shell splits them, quotes kept; what follows an operator begins a word too.
fn raw_words(text: &str, escape: char) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote: Option<char> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let last = words.len() - 1;
        match (c, quote) {
            (c, None) if c.is_whitespace() || matches!(c, ';' | '|' | '&' | '(' | ')' | '>') => {
                words.push(String::new());
            }
            (c, q) if c == escape && q != Some('\'') => {
                words[last].push(c);
                words[last].extend(chars.next());
            }
            (c, Some(q)) => {
                words[last].push(c);
                quote = (c != q).then_some(q);
            }
            (c, None) => {
                words[last].push(c);
                quote = matches!(c, '"' | '\'').then_some(c);
            }
        }
    }
    words
}
