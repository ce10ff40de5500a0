//! The Dockerfile language: text in, instructions with their places out. No I/O, and no meaning: what
//! an instruction does is the plan's.
//!
//! The language is the Dockerfile reference's (`docker/dockerfile:1`); where that is silent, BuildKit's
//! parser is followed.

mod expand;
mod flags;
mod heredoc;
mod instruction;
mod lexer;
mod parser;
mod span;

pub(crate) use expand::expand_raw;
pub use expand::{ExpandError, Scope, expand_word, expand_words};
pub use heredoc::Heredoc;
pub use instruction::{
    Command, Copy, CopySource, From, Healthcheck, Instruction, Pair, Run, RunNetwork,
};
pub use span::{DockerfileError, Span};

/// A parsed Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dockerfile {
    /// ARG instructions before the first FROM.
    pub global_args: Vec<Step>,
    /// At least one.
    pub stages: Vec<Stage>,
    /// The escape character: `\` or a backtick.
    pub escape: char,
    /// What is allowed but should be changed.
    pub warnings: Vec<Warning>,
}

/// One build stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Its FROM.
    pub from: From,
    /// Where the FROM is.
    pub span: Span,
    /// What follows it.
    pub steps: Vec<Step>,
}

/// One instruction and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Where it is, and its text.
    pub span: Span,
    /// What it says.
    pub instruction: Instruction,
}

/// A line that deserves a remark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Line, from 1.
    pub line: u32,
    /// The remark.
    pub message: String,
}

/// Parses the text of a Dockerfile. `name` is for messages.
pub fn parse(text: &str, name: &str) -> Result<Dockerfile, DockerfileError> {
    let lexed = lexer::lex(text, name)?;
    let mut warnings = lexed.warnings;
    let mut global_args = Vec::new();
    let mut stages: Vec<Stage> = Vec::new();
    for line in &lexed.lines {
        let step = parser::parse_line(line, lexed.escape, &mut warnings)?;
        match (step.instruction, stages.last_mut()) {
            (Instruction::From(from), _) => stages.push(Stage {
                from,
                span: step.span,
                steps: Vec::new(),
            }),
            (instruction, Some(stage)) => stage.steps.push(Step {
                instruction,
                ..step
            }),
            (instruction @ Instruction::Arg(_), None) => {
                global_args.push(Step {
                    instruction,
                    ..step
                });
            }
            (_, None) => {
                return Err(step
                    .span
                    .error("no build stage yet: the first instruction must be FROM (or ARG)"));
            }
        }
    }
    if stages.is_empty() {
        return Err(Span::start_of(name, text).error("the Dockerfile has no FROM instruction"));
    }
    Ok(Dockerfile {
        global_args,
        stages,
        escape: lexed.escape,
        warnings,
    })
}

/// Parses one ONBUILD trigger of a base image.
pub fn parse_trigger(text: &str, image: &str) -> Result<Step, DockerfileError> {
    let lexed = lexer::lex(text, &format!("ONBUILD of {image}"))?;
    let [line] = lexed.lines.as_slice() else {
        let span = Span::start_of(&format!("ONBUILD of {image}"), text);
        return Err(span.error("expected one instruction"));
    };
    parser::parse_line(line, lexed.escape, &mut Vec::new())
}
