//! Physical lines to logical ones: directives, comments, continuation lines, bodies of heredocs.

use std::sync::Arc;

use super::heredoc::{self, Heredoc};
use super::{DockerfileError, Span, Warning};

/// A Dockerfile is written by a person; the limit keeps a hostile one from costing memory.
const TEXT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A logical line.
pub(super) struct Line {
    pub(super) span: Span,
    /// The continuation lines joined.
    pub(super) text: String,
    pub(super) heredocs: Vec<Heredoc>,
}

pub(super) struct Lexed {
    pub(super) lines: Vec<Line>,
    pub(super) escape: char,
    pub(super) warnings: Vec<Warning>,
}

struct Lexer<'a> {
    file: Arc<str>,
    lines: Vec<&'a str>,
    at: usize,
    escape: char,
    warnings: Vec<Warning>,
}

pub(super) fn lex(text: &str, name: &str) -> Result<Lexed, DockerfileError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(Span::start_of(name, "").error("the Dockerfile is larger than 4 MiB"));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lexer = Lexer {
        file: name.into(),
        lines: text.lines().collect(),
        at: 0,
        escape: '\\',
        warnings: Vec::new(),
    };
    lexer.directives()?;
    let mut lines = Vec::new();
    while let Some(line) = lexer.logical()? {
        lines.push(line);
    }
    Ok(Lexed {
        lines,
        escape: lexer.escape,
        warnings: lexer.warnings,
    })
}

impl Lexer<'_> {
    fn span(&self, first: usize, end: usize) -> Span {
        Span {
            file: self.file.clone(),
            line: u32::try_from(first + 1).unwrap_or(u32::MAX),
            source: self.lines[first..end.min(self.lines.len())]
                .join("\n")
                .into(),
        }
    }

    /// `# name=value` lines at the very top, until one that is not a directive.
    fn directives(&mut self) -> Result<(), DockerfileError> {
        let mut seen: Vec<String> = Vec::new();
        for (index, line) in self.lines.clone().into_iter().enumerate() {
            let Some((name, value)) = directive(line) else {
                break;
            };
            if !matches!(name.as_str(), "escape" | "syntax" | "check") {
                break;
            }
            let span = self.span(index, index + 1);
            if seen.contains(&name) {
                return Err(span.error(format!("the directive `{name}` is given twice")));
            }
            match name.as_str() {
                "escape" => self.escape = escape(value, &span)?,
                "syntax" => syntax(value, &span)?,
                _ => check(value, &span)?,
            }
            seen.push(name);
            self.at = index + 1;
        }
        Ok(())
    }

    fn logical(&mut self) -> Result<Option<Line>, DockerfileError> {
        while self
            .lines
            .get(self.at)
            .is_some_and(|line| is_blank(line) || is_comment(line))
        {
            self.at += 1;
        }
        if self.at >= self.lines.len() {
            return Ok(None);
        }
        let first = self.at;
        let text = self.joined();
        let end = self.at;
        let span = self.span(first, end);
        let mut heredocs = heredoc::find(&text, self.escape);
        for heredoc in &mut heredocs {
            self.body(heredoc, &span)?;
        }
        Ok(Some(Line {
            span,
            text,
            heredocs,
        }))
    }

    /// The logical line that begins here; comments and empty lines within it are dropped.
    fn joined(&mut self) -> String {
        let mut text = String::new();
        let first = self.at;
        while let Some(line) = self.lines.get(self.at) {
            self.at += 1;
            if self.at - 1 > first {
                if is_comment(line) {
                    continue;
                }
                if is_blank(line) {
                    self.warnings.push(Warning {
                        line: u32::try_from(self.at).unwrap_or(u32::MAX),
                        message: "empty continuation line: it will be an error one day".to_owned(),
                    });
                    continue;
                }
            }
            match continued(line, self.escape) {
                Some(part) => text.push_str(part),
                None => {
                    text.push_str(line);
                    break;
                }
            }
        }
        text.trim().to_owned()
    }

    fn body(&mut self, heredoc: &mut Heredoc, span: &Span) -> Result<(), DockerfileError> {
        loop {
            let Some(line) = self.lines.get(self.at) else {
                let message = format!(
                    "the heredoc is never ended: expected a line `{}`",
                    heredoc.name
                );
                return Err(span.error_at(&heredoc.name, message));
            };
            self.at += 1;
            let line = match heredoc.strip_tabs {
                true => line.trim_start_matches('\t'),
                false => line,
            };
            if line == heredoc.name {
                return Ok(());
            }
            heredoc.body.push_str(line);
            heredoc.body.push('\n');
        }
    }
}

fn is_blank(line: &str) -> bool {
    line.trim().is_empty()
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

/// What is before the escape character at the end of a line that goes on; two of them are none.
fn continued(line: &str, escape: char) -> Option<&str> {
    let part = line.trim_end_matches([' ', '\t']).strip_suffix(escape)?;
    (!part.ends_with(escape)).then_some(part)
}

fn directive(line: &str) -> Option<(String, &str)> {
    let (name, value) = line.trim_start().strip_prefix('#')?.split_once('=')?;
    let name = name.trim();
    let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric());
    plain.then(|| (name.to_ascii_lowercase(), value.trim()))
}

fn escape(value: &str, span: &Span) -> Result<char, DockerfileError> {
    match value {
        "\\" => Ok('\\'),
        "`" => Ok('`'),
        _ => Err(span.error_at(value, "expected `\\` or a backtick")),
    }
}

/// The language that we speak is `docker/dockerfile:1`; another one would need its own program.
fn syntax(value: &str, span: &Span) -> Result<(), DockerfileError> {
    let name = value.strip_prefix("docker.io/").unwrap_or(value);
    let ours = name.strip_prefix("docker/dockerfile").is_some_and(|tag| {
        tag.is_empty() || tag == ":latest" || tag == ":1" || tag.starts_with(":1.")
    });
    if ours {
        return Ok(());
    }
    let message = format!("the frontend {value} is not built: only docker/dockerfile:1");
    Err(span.error_at(value, message))
}

fn check(value: &str, span: &Span) -> Result<(), DockerfileError> {
    if value.eq_ignore_ascii_case("skip=all") {
        return Ok(());
    }
    Err(span.error_at(
        value,
        "build checks are not built: only `check=skip=all` is understood",
    ))
}
