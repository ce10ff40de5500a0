//! Places in a Dockerfile, and errors that show them.

use std::fmt;
use std::sync::Arc;

/// The most characters of a line that a message shows.
const SHOWN_MAX: usize = 200;

/// The place of one instruction.
#[derive(Clone, PartialEq, Eq)]
pub struct Span {
    /// The Dockerfile's name.
    pub file: Arc<str>,
    /// Its first line, from 1.
    pub line: u32,
    /// Its lines as they are in the file.
    pub source: Arc<str>,
}

/// A mistake in a Dockerfile, shown with its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerfileError {
    file: Arc<str>,
    line: u32,
    text: String,
    column: usize,
    width: usize,
    message: String,
}

impl Span {
    pub(super) fn start_of(name: &str, text: &str) -> Self {
        Self {
            file: name.into(),
            line: 1,
            source: text.lines().next().unwrap_or_default().into(),
        }
    }

    /// An error that marks the whole first line.
    pub fn error(&self, message: impl Into<String>) -> DockerfileError {
        let line = self.source.lines().next().unwrap_or_default();
        self.error_at(line.trim(), message)
    }

    /// An error that marks the first appearance of some text; the whole first line if it is not there.
    pub fn error_at(&self, marked: &str, message: impl Into<String>) -> DockerfileError {
        let found = self.source.lines().enumerate().find_map(|(index, line)| {
            line.find(marked)
                .filter(|_| !marked.is_empty())
                .map(|at| (index, line, at))
        });
        let first = self.source.lines().next().unwrap_or_default();
        let (index, line, at) = found.unwrap_or((0, first, 0));
        let width = if found.is_some() { marked } else { first };
        DockerfileError {
            file: self.file.clone(),
            line: self.line.saturating_add(u32::try_from(index).unwrap_or(0)),
            text: clean(line),
            column: line[..at].chars().count().min(SHOWN_MAX),
            width: width.chars().count().clamp(1, SHOWN_MAX),
            message: message.into(),
        }
    }
}

/// A line for a terminal: without control characters and credentials, and not too long.
fn clean(line: &str) -> String {
    crate::redact::urls(line)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(SHOWN_MAX)
        .collect()
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

impl fmt::Display for DockerfileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        let width = self
            .width
            .min(self.text.chars().count().saturating_sub(self.column))
            .max(1);
        write!(
            f,
            "{file}:{number}\n  {number} | {text}\n  {margin} | {pad}{mark} {message}",
            file = self.file,
            text = self.text,
            pad = " ".repeat(self.column),
            mark = "^".repeat(width),
            message = crate::redact::urls(&self.message),
        )
    }
}

impl std::error::Error for DockerfileError {}
