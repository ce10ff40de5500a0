//! What a template is made of.

use serde_json::Value;

#[derive(Clone, Debug)]
pub(super) enum Node {
    Text(String),
    Print(Pipeline),
    Assign(String, Pipeline),
    /// `if`, its `else if`s, and what is left.
    If(Vec<(Pipeline, Vec<Self>)>, Vec<Self>),
    With(Pipeline, Vec<Self>, Vec<Self>),
    Range(Range),
}

#[derive(Clone, Debug)]
pub(super) struct Range {
    pub(super) key: Option<String>,
    pub(super) value: Option<String>,
    pub(super) over: Pipeline,
    pub(super) body: Vec<Node>,
    pub(super) otherwise: Vec<Node>,
}

/// Commands joined by `|`: the result of one is the last argument of the next.
#[derive(Clone, Debug)]
pub(super) struct Pipeline {
    pub(super) commands: Vec<Command>,
}

#[derive(Clone, Debug)]
pub(super) struct Command {
    pub(super) operands: Vec<Operand>,
}

#[derive(Clone, Debug)]
pub(super) struct Operand {
    pub(super) position: usize,
    pub(super) base: Base,
    /// `.A.B` after it.
    pub(super) fields: Vec<String>,
}

#[derive(Clone, Debug)]
pub(super) enum Base {
    Dot,
    Variable(String),
    Literal(Value),
    Function(String),
    Parenthesis(Pipeline),
}
