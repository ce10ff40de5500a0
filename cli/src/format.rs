//! The template language of `--format`: the part of Go's `text/template` that people use with Docker.
//!
//! Fields, `range`, `if`, `with`, `else`, variables, pipelines, parentheses, trim markers, comments;
//! the functions of `functions`. What is not built is an error with its position.

mod ast;
mod eval;
mod functions;
mod lexer;
pub(crate) mod listing;
mod parser;
mod printf;

use serde_json::Value;

/// A template that cannot be parsed, or not be filled in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at character {position}: {reason}")]
pub(crate) struct TemplateError {
    /// Characters before the mistake, from 1.
    position: usize,
    reason: String,
}

impl TemplateError {
    fn new(position: usize, reason: impl Into<String>) -> Self {
        Self {
            position: position + 1,
            reason: reason.into(),
        }
    }
}

/// A parsed template.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    nodes: Vec<ast::Node>,
}

impl Template {
    /// Parses. `\t` and `\n` written out stand for a tab and a line break, as in Docker.
    pub(crate) fn parse(text: &str) -> Result<Self, TemplateError> {
        let text = text.replace("\\t", "\t").replace("\\n", "\n");
        let tokens = lexer::lex(&text)?;
        Ok(Self {
            nodes: parser::parse(&tokens)?,
        })
    }

    /// Fills in.
    pub(crate) fn render(&self, data: &Value) -> Result<String, TemplateError> {
        eval::render(&self.nodes, data)
    }
}

#[cfg(test)]
mod tests;
