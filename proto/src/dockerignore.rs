//! What `.dockerignore` leaves out of a build context, and the wildcards of COPY: one matcher, so that
//! the client that walks the context and the builder that copies from it never disagree.
//!
//! Rules: moby's `patternmatcher` (`MatchesOrParentMatches`) and Go's `filepath.Match`. The time of a
//! match is at most the length of the path times that of the pattern, whatever the pattern is.

use std::fmt;

/// The most patterns of one file. Docker has no limit; nobody writes more by hand.
const PATTERNS_MAX: usize = 10_000;
/// The longest pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 4096;

/// A pattern that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed pattern {pattern:?}{}: {reason}", place(*.line))]
pub struct PatternError {
    /// The pattern as it was written.
    pub pattern: String,
    /// Its line in the file, from 1; 0 when it is of no file.
    pub line: usize,
    /// What is wrong.
    pub reason: &'static str,
}

fn place(line: usize) -> String {
    match line {
        0 => String::new(),
        line => format!(" in line {line}"),
    }
}

/// One wildcard pattern over `/`-separated paths: `*` and `?` stay within a component, `[a-z]` and
/// `[^a-z]` are one character, `\` takes the next character as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    tokens: Vec<Token>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Char(char),
    /// `?`
    One,
    /// `*`
    Star,
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
    /// `**/`: any number of whole components.
    Deep,
    /// `**` at the end: everything.
    Rest,
}

/// The patterns of one `.dockerignore`, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matcher {
    patterns: Vec<Pattern>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    /// `!`: what it matches is not ignored.
    reinclude: bool,
    glob: Glob,
    /// The components on their own, for the question whether it can match below a directory; `None`
    /// from a `**` on.
    components: Vec<Option<Glob>>,
}

// === impl Glob ===

impl Glob {
    /// A pattern in which `**` stands for any number of components, as in `.dockerignore`.
    pub fn deep(pattern: &str) -> Result<Self, PatternError> {
        Self::parse(pattern, true)
    }

    /// A pattern in which `**` is no more than `*`, as in COPY and ADD.
    pub fn plain(pattern: &str) -> Result<Self, PatternError> {
        Self::parse(pattern, false)
    }

    /// Whether a text has anything in it that makes it a pattern.
    pub fn is_pattern(text: &str) -> bool {
        text.contains(['*', '?', '[', '\\'])
    }

    fn parse(pattern: &str, deep: bool) -> Result<Self, PatternError> {
        let fail = |reason| PatternError {
            pattern: pattern.chars().take(200).collect(),
            line: 0,
            reason,
        };
        if pattern.len() > PATTERN_BYTES_MAX {
            return Err(fail("it is longer than 4096 bytes"));
        }
        let mut chars = pattern.chars().peekable();
        let mut tokens = Vec::new();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '?' => Token::One,
                '*' if deep && chars.next_if_eq(&'*').is_some() => {
                    chars.next_if_eq(&'/');
                    match chars.peek() {
                        None => Token::Rest,
                        Some(_) => Token::Deep,
                    }
                }
                '*' => Token::Star,
                '\\' => Token::Char(chars.next().ok_or_else(|| fail("it ends with `\\`"))?),
                '[' => class(&mut chars).map_err(fail)?,
                c => Token::Char(c),
            });
        }
        Ok(Self { tokens })
    }

    /// Whether the pattern matches the whole of a path. Bytes that are not UTF-8 match `?` and `*`.
    pub fn matches(&self, path: &[u8]) -> bool {
        let path = String::from_utf8_lossy(path);
        let mut states = States::start(&self.tokens);
        for c in path.chars() {
            states = states.step(&self.tokens, c);
        }
        states.at.last().copied().unwrap_or(false)
    }
}

fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Token, &'static str> {
    const OPEN: &str = "a `[` has no `]`";
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        let low = match chars.next().ok_or(OPEN)? {
            ']' if !ranges.is_empty() => return Ok(Token::Class { negated, ranges }),
            ']' | '-' => return Err("a `[…]` is empty or begins with `-`"),
            '\\' => chars.next().ok_or(OPEN)?,
            c => c,
        };
        let mut high = low;
        if chars.next_if_eq(&'-').is_some() {
            high = match chars.next().ok_or(OPEN)? {
                ']' => return Err("a range in `[…]` has no end"),
                '\\' => chars.next().ok_or(OPEN)?,
                c => c,
            };
        }
        if high < low {
            return Err("a range in `[…]` is backwards");
        }
        ranges.push((low, high));
    }
}

/// All positions in the pattern that the characters so far can have led to.
struct States {
    /// Before token `i` (or, for the last, at the end).
    at: Vec<bool>,
    /// Within what the `Deep` token `i` skips.
    inside: Vec<bool>,
}

impl States {
    fn start(tokens: &[Token]) -> Self {
        let mut states = Self::none(tokens);
        states.at[0] = true;
        states.skip_optional(tokens);
        states
    }

    fn none(tokens: &[Token]) -> Self {
        Self {
            at: vec![false; tokens.len() + 1],
            inside: vec![false; tokens.len()],
        }
    }

    /// Tokens that can match nothing are also passed.
    fn skip_optional(&mut self, tokens: &[Token]) {
        for (i, token) in tokens.iter().enumerate() {
            if self.at[i] && matches!(token, Token::Star | Token::Deep | Token::Rest) {
                self.at[i + 1] = true;
            }
        }
    }

    fn step(&self, tokens: &[Token], c: char) -> Self {
        let mut next = Self::none(tokens);
        for (i, token) in tokens.iter().enumerate() {
            if self.inside[i] || (self.at[i] && *token == Token::Deep) {
                next.inside[i] = true;
                next.at[i + 1] |= c == '/';
            }
            if !self.at[i] {
                continue;
            }
            match token {
                Token::Char(expected) => next.at[i + 1] |= *expected == c,
                Token::One => next.at[i + 1] |= c != '/',
                Token::Star => next.at[i] |= c != '/',
                Token::Class { negated, ranges } => {
                    let within = ranges.iter().any(|(low, high)| (*low..=*high).contains(&c));
                    next.at[i + 1] |= c != '/' && within != *negated;
                }
                Token::Deep => {}
                Token::Rest => next.at[i] = true,
            }
        }
        next.skip_optional(tokens);
        next
    }
}

// === impl Matcher ===

impl Matcher {
    /// Reads a `.dockerignore`: one pattern a line; `#` at the very beginning makes a comment; `!`
    /// re-includes; a leading or trailing `/` means nothing; the last pattern that matches decides.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut patterns = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let at_line = |error: PatternError| PatternError {
                line: index + 1,
                pattern: line.trim().chars().take(200).collect(),
                ..error
            };
            if let Some(pattern) = Pattern::parse(line).map_err(at_line)? {
                patterns.push(pattern);
            }
            if patterns.len() > PATTERNS_MAX {
                let reason = "there are more than 10000 patterns";
                return Err(at_line(error(line, reason)));
            }
        }
        Ok(Self { patterns })
    }

    /// Whether nothing is ignored.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether a path (relative to the context, `/`-separated) is left out. What is below an ignored
    /// directory is ignored too, unless a later `!` pattern takes it back in.
    pub fn ignored(&self, path: &[u8]) -> bool {
        let mut ignored = false;
        for pattern in &self.patterns {
            if pattern.reinclude == ignored && pattern.matches_path_or_parent(path) {
                ignored = !pattern.reinclude;
            }
        }
        ignored
    }

    /// Whether something below an ignored directory can be re-included, so that it must be walked.
    pub fn may_reinclude_below(&self, directory: &[u8]) -> bool {
        self.patterns
            .iter()
            .any(|pattern| pattern.reinclude && pattern.may_match_below(directory))
    }
}

fn error(pattern: &str, reason: &'static str) -> PatternError {
    PatternError {
        pattern: pattern.chars().take(200).collect(),
        line: 0,
        reason,
    }
}

impl Pattern {
    fn parse(line: &str) -> Result<Option<Self>, PatternError> {
        if line.starts_with('#') {
            return Ok(None);
        }
        let line = line.trim();
        let (reinclude, text) = match line.strip_prefix('!') {
            Some(rest) => (true, rest.trim()),
            None => (false, line),
        };
        if reinclude && text.is_empty() {
            return Err(error(line, "`!` needs a pattern"));
        }
        let text = clean(text);
        if text.is_empty() {
            return Ok(None);
        }
        let component = |part: &str| match part.contains("**") {
            true => Ok(None),
            false => Glob::deep(part).map(Some),
        };
        // The whole first: a class may hold a `/`, which its components then lack.
        let glob = Glob::deep(&text)?;
        let components = text.split('/').map(component).collect::<Result<_, _>>();
        Ok(Some(Self {
            reinclude,
            glob,
            components: components.unwrap_or_else(|_| vec![None]),
        }))
    }

    fn matches_path_or_parent(&self, path: &[u8]) -> bool {
        let parents = path.iter().enumerate().filter(|(_, b)| **b == b'/');
        self.glob.matches(path)
            || parents
                .into_iter()
                .any(|(end, _)| self.glob.matches(&path[..end]))
    }

    fn may_match_below(&self, directory: &[u8]) -> bool {
        for (component, name) in self.components.iter().zip(directory.split(|b| *b == b'/')) {
            match component {
                None => return true,
                Some(glob) if !glob.matches(name) => return false,
                Some(_) => {}
            }
        }
        true
    }
}

/// Go's `filepath.Clean` for a pattern: without empty and `.` components, `..` taken back, and
/// without a leading `/`. The pattern `.` comes out empty: for historical reasons it means nothing.
fn clean(text: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if text.starts_with('/') => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for token in &self.tokens {
            match token {
                Token::Char(c @ ('*' | '?' | '[' | '\\')) => write!(f, "\\{c}")?,
                Token::Char(c) => write!(f, "{c}")?,
                Token::One => f.write_str("?")?,
                Token::Star => f.write_str("*")?,
                Token::Deep => f.write_str("**/")?,
                Token::Rest => f.write_str("**")?,
                Token::Class { negated, ranges } => {
                    f.write_str(if *negated { "[^" } else { "[" })?;
                    for (low, high) in ranges {
                        write!(f, "\\{low}-\\{high}")?;
                    }
                    f.write_str("]")?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ignored(text: &str, path: &str) -> bool {
        Matcher::parse(text).unwrap().ignored(path.as_bytes())
    }

    /// Taken over from the cases of moby's patternmatcher tests.
    #[test]
    fn patterns_match_as_in_moby() {
        for (pattern, path, expected) in [
            ("**", "file", true),
            ("**", "dir/file", true),
            ("**/", "file", true),
            ("**/**", "dir/file", true),
            ("dir/**", "dir/file", true),
            ("dir/**", "dir", false),
            ("**/dir2/*", "dir/dir2/file", true),
            ("**/dir2/*", "dir2/file", true),
            ("a(b)c/def", "a(b)c/def", true),
            ("a.|)$(}+{bc", "a.|)$(}+{bc", true),
            ("dist/*.whl", "dist/proxy.py-2.4.0rc3.whl", true),
            ("*.py", "sub/x.py", false),
            ("**/*.py", "sub/x.py", true),
            ("**/*.py", "x.py", true),
            ("a[b-d]e", "ace", true),
            ("a[b-d]e", "aee", false),
            ("a[^b-d]e", "afe", true),
            ("a?b", "aéb", true),
            ("a?b", "a/b", false),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("a*/b", "abc/b", true),
            ("a*/b", "a/c/b", false),
            ("/abc", "abc", true),
            ("abc/", "abc", true),
            ("./abc/../def", "def", true),
            ("abc", "abc/below/it", true),
            ("abc", "x/abc", false),
            (".", "abc", false),
            ("# no", "# no", false),
            (" # no", "# no", true),
            ("**/.foo", "a/b/.foo", true),
            ("**/.foo", "bar.foo", false),
            ("a**/*.txt", "a/b/file.txt", true),
        ] {
            assert_eq!(ignored(pattern, path), expected, "{pattern} on {path}");
        }
    }

    #[test]
    fn the_last_pattern_that_matches_decides() {
        let text = "*.md\n!README*.md\nREADME-secret.md\n";
        assert!(ignored(text, "x.md"));
        assert!(!ignored(text, "README.md"));
        assert!(ignored(text, "README-secret.md"));
        let text = "node_modules\n!node_modules/keep\n";
        assert!(ignored(text, "node_modules/a/b"));
        assert!(!ignored(text, "node_modules/keep/b"));
    }

    #[test]
    fn an_ignored_directory_is_walked_only_if_something_in_it_can_come_back() {
        let matcher = Matcher::parse("*\n!src/lib\n!docs/**/*.md\n").unwrap();
        for (directory, expected) in [
            ("src", true),
            ("docs", true),
            ("docs/a", true),
            ("src/lib", true),
            ("src/bin", false),
            ("target", false),
        ] {
            let walked = matcher.may_reinclude_below(directory.as_bytes());
            assert_eq!(walked, expected, "{directory}");
        }
    }

    #[test]
    fn malformed_patterns_are_named_with_their_line() {
        for (text, line) in [("ok\n[a", 2), ("a\\", 1), ("!", 1), ("[]", 1), ("[b-a]", 1)] {
            assert_eq!(Matcher::parse(text).unwrap_err().line, line, "{text}");
        }
        let message = Matcher::parse("\n[a").unwrap_err().to_string();
        assert_eq!(
            message,
            "malformed pattern \"[a\" in line 2: a `[` has no `]`"
        );
    }

    #[test]
    fn a_hostile_pattern_is_not_slow() {
        let glob = Glob::deep(&"a*".repeat(500)).unwrap();
        assert!(!glob.matches("a".repeat(400).as_bytes()));
    }

    #[test]
    fn the_wildcards_of_copy_stay_in_their_component() {
        let glob = Glob::plain("src/**.js").unwrap();
        assert!(glob.matches(b"src/a.js"));
        assert!(!glob.matches(b"src/a/b.js"));
    }

    #[test]
    fn a_glob_is_shown_as_one_that_parses_to_the_same() {
        for text in ["a*b?[a-c]/**/x", "[^x]\\*", "a/**"] {
            let glob = Glob::deep(text).unwrap();
            assert_eq!(Glob::deep(&glob.to_string()).unwrap(), glob);
        }
    }
}
