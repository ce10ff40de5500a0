//! Variables and quotes: `$X ${X} ${X:-d} ${X-d} ${X:+a} ${X+a} ${X:?e} ${X?e}`, single and double
//! quotes, the escape character. The rules are those of BuildKit's shell lexer.

use std::iter::Peekable;
use std::str::Chars;

/// How deep `${a:-${b:-…}}` may go.
const DEPTH_MAX: usize = 32;
/// The longest result: expansion must not be a way to make memory.
const RESULT_BYTES_MAX: usize = 1024 * 1024;

/// Where variables are looked up.
pub trait Scope {
    /// The value of a variable; `None` when it is not set.
    fn lookup(&self, name: &str) -> Option<String>;
}

impl<F: Fn(&str) -> Option<String>> Scope for F {
    fn lookup(&self, name: &str) -> Option<String> {
        self(name)
    }
}

/// A word that cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    /// `${X:?message}` with X not set.
    #[error("{name}: {message}")]
    Required {
        /// The variable.
        name: String,
        /// What the author says.
        message: String,
    },
    /// `${` that is not understood.
    #[error(
        "unsupported modifier `{0}` in a `${{…}}`: expected one of `-`, `:-`, `+`, `:+`, `?`, `:?`"
    )]
    Modifier(String),
    /// Something that was opened is not closed.
    #[error("unexpected end: a {0} is not closed")]
    Unclosed(&'static str),
    /// Nested or grown beyond the limits.
    #[error("the expansion is too deep or longer than 1 MiB")]
    TooLarge,
}

struct Lexer<'a> {
    chars: Peekable<Chars<'a>>,
    escape: char,
    scope: &'a dyn Scope,
    depth: usize,
    words: Vec<String>,
    /// Whether the present word exists though it may be empty.
    open: bool,
    split: bool,
    /// Take quotes and escapes as they are: a heredoc's body.
    raw: bool,
}

/// Expands the whole text to one word.
pub fn expand_word(text: &str, escape: char, scope: &dyn Scope) -> Result<String, ExpandError> {
    let mut lexer = Lexer::new(text, escape, scope, 0);
    lexer.until(None)?;
    Ok(lexer.words.concat())
}

/// Expands variables only; quotes stay: what is done to the body of a heredoc.
pub(crate) fn expand_raw(
    text: &str,
    escape: char,
    scope: &dyn Scope,
) -> Result<String, ExpandError> {
    let mut lexer = Lexer::new(text, escape, scope, 0);
    lexer.raw = true;
    lexer.until(None)?;
    Ok(lexer.words.concat())
}

/// Expands and splits at white space that is not quoted.
pub fn expand_words(
    text: &str,
    escape: char,
    scope: &dyn Scope,
) -> Result<Vec<String>, ExpandError> {
    let mut lexer = Lexer::new(text, escape, scope, 0);
    lexer.split = true;
    lexer.until(None)?;
    if !lexer.open {
        lexer.words.pop();
    }
    Ok(lexer.words)
}

impl<'a> Lexer<'a> {
    fn new(text: &'a str, escape: char, scope: &'a dyn Scope, depth: usize) -> Self {
        Self {
            chars: text.chars().peekable(),
            escape,
            scope,
            depth,
            words: vec![String::new()],
            open: false,
            split: false,
            raw: false,
        }
    }

    fn push(&mut self, text: &str) -> Result<(), ExpandError> {
        self.open = true;
        if let Some(word) = self.words.last_mut() {
            word.push_str(text);
            if word.len() > RESULT_BYTES_MAX {
                return Err(ExpandError::TooLarge);
            }
        }
        Ok(())
    }

    fn until(&mut self, end: Option<char>) -> Result<(), ExpandError> {
        loop {
            match self.chars.next() {
                None if end.is_some() => return Err(ExpandError::Unclosed("`${`")),
                None => return Ok(()),
                Some(c) if Some(c) == end => return Ok(()),
                Some('$') => self.dollar()?,
                Some('\'') if !self.raw => self.single()?,
                Some('"') if !self.raw => self.double()?,
                Some(c) if c == self.escape => self.escaped(c)?,
                Some(c) if self.split && c.is_whitespace() => {
                    if self.open {
                        self.words.push(String::new());
                        self.open = false;
                    }
                }
                Some(c) => self.push(c.encode_utf8(&mut [0; 4]))?,
            }
        }
    }

    fn escaped(&mut self, c: char) -> Result<(), ExpandError> {
        let taken = match self.chars.peek() {
            None if self.raw => Some(c),
            None => None,
            Some('$') => self.chars.next(),
            Some(_) if self.raw => Some(c),
            Some(_) => self.chars.next(),
        };
        taken.map_or(Ok(()), |c| self.push(c.encode_utf8(&mut [0; 4])))
    }

    fn single(&mut self) -> Result<(), ExpandError> {
        self.push("")?;
        loop {
            match self.chars.next() {
                None => return Err(ExpandError::Unclosed("single quote")),
                Some('\'') => return Ok(()),
                Some(c) => self.push(c.encode_utf8(&mut [0; 4]))?,
            }
        }
    }

    fn double(&mut self) -> Result<(), ExpandError> {
        self.push("")?;
        loop {
            match self.chars.next() {
                None => return Err(ExpandError::Unclosed("double quote")),
                Some('"') => return Ok(()),
                Some('$') => self.dollar()?,
                Some(c) if c == self.escape => {
                    let special = |next: &char| ['"', '$', c].contains(next);
                    let taken = self.chars.next_if(special).unwrap_or(c);
                    self.push(taken.encode_utf8(&mut [0; 4]))?;
                }
                Some(c) => self.push(c.encode_utf8(&mut [0; 4]))?,
            }
        }
    }

    fn dollar(&mut self) -> Result<(), ExpandError> {
        if self.chars.next_if_eq(&'{').is_some() {
            let value = self.braced()?;
            return self.push(&value);
        }
        let name = self.name();
        if name.is_empty() {
            return self.push("$");
        }
        let value = self.scope.lookup(&name).unwrap_or_default();
        self.push(&value)
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        if let Some(c) = self
            .chars
            .next_if(|c| c.is_ascii_digit() || matches!(c, '@' | '*' | '#'))
        {
            return c.to_string();
        }
        while let Some(c) = self
            .chars
            .next_if(|c| c.is_ascii_alphanumeric() || *c == '_')
        {
            name.push(c);
        }
        name
    }

    fn braced(&mut self) -> Result<String, ExpandError> {
        let name = self.name();
        if name.is_empty() {
            let next = self.chars.next().map(String::from).unwrap_or_default();
            return Err(ExpandError::Modifier(next));
        }
        let value = self.scope.lookup(&name);
        let colon = self.chars.next_if_eq(&':').is_some();
        let operator = self.chars.next().ok_or(ExpandError::Unclosed("`${`"))?;
        if operator == '}' && !colon {
            return Ok(value.unwrap_or_default());
        }
        if !matches!(operator, '-' | '+' | '?') {
            let colon = if colon { ":" } else { "" };
            return Err(ExpandError::Modifier(format!("{colon}{operator}")));
        }
        let word = self.nested()?;
        let value = value.filter(|value| !colon || !value.is_empty());
        match (operator, value) {
            ('+', value) => Ok(value.map(|_| word).unwrap_or_default()),
            ('-', value) => Ok(value.unwrap_or(word)),
            (_, Some(value)) => Ok(value),
            (_, None) => Err(ExpandError::Required {
                name,
                message: if word.is_empty() {
                    "is not set".to_owned()
                } else {
                    word
                },
            }),
        }
    }

    /// The word after an operator, up to its `}`.
    fn nested(&mut self) -> Result<String, ExpandError> {
        if self.depth >= DEPTH_MAX {
            return Err(ExpandError::TooLarge);
        }
        let mut inner = Lexer::new("", self.escape, self.scope, self.depth + 1);
        std::mem::swap(&mut inner.chars, &mut self.chars);
        let result = inner.until(Some('}'));
        std::mem::swap(&mut inner.chars, &mut self.chars);
        result.map(|()| inner.words.concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(name: &str) -> Option<String> {
        match name {
            "X" => Some("x y".to_owned()),
            "E" => Some(String::new()),
            _ => None,
        }
    }

    fn word(text: &str) -> String {
        expand_word(text, '\\', &scope).unwrap_or_else(|error| format!("error: {error}"))
    }

    #[test]
    fn variables_quotes_and_escapes() {
        for (text, expected) in [
            ("a$X", "ax y"),
            ("${X}b", "x yb"),
            ("$Y", ""),
            ("${Y:-d}", "d"),
            ("${E:-d}", "d"),
            ("${E-d}", ""),
            ("${X:+a}", "a"),
            ("${E:+a}", ""),
            ("${E+a}", "a"),
            ("${Y:-${X}}", "x y"),
            ("'$X'", "$X"),
            ("\"$X\"", "x y"),
            ("\\$X", "$X"),
            ("\"\\$X \\n\"", "$X \\n"),
            ("a\\ b", "a b"),
            ("$", "$"),
            ("${Y:?gone}", "error: Y: gone"),
            ("'a", "error: unexpected end: a single quote is not closed"),
        ] {
            assert_eq!(word(text), expected, "{text}");
        }
        assert!(word("${X%y}").starts_with("error: unsupported modifier `%`"));
    }

    #[test]
    fn words_split_at_unquoted_space_and_not_in_values() {
        let words = expand_words(" 80 'a b'  \"\" $X ", '\\', &scope).unwrap();
        assert_eq!(words, ["80", "a b", "", "x y"]);
    }

    #[test]
    fn a_body_keeps_its_quotes() {
        let text = expand_raw("say '$X' \"\\$X\" \\n", '\\', &scope).unwrap();
        assert_eq!(text, "say 'x y' \"$X\" \\n");
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "[ $\\{}:?+'\"\\\\XYE-]{0,40}") {
            expand_words(&text, '\\', &scope).ok();
            expand_word(&text, '`', &scope).ok();
        }
    }
}
