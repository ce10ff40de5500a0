//! Tokens to a tree.

use super::TemplateError;
use super::ast::{Base, Command, Node, Operand, Pipeline, Range};
use super::lexer::{Placed, Token};

/// Nesting beyond what anybody writes; parsing and filling in recurse.
const DEPTH_MAX: usize = 50;

/// Parses a whole template.
pub(super) fn parse(tokens: &[Placed]) -> Result<Vec<Node>, TemplateError> {
    let mut parser = Parser {
        tokens,
        at: 0,
        depth: 0,
    };
    let (nodes, end) = parser.nodes()?;
    match end {
        None => Ok(nodes),
        Some((position, word)) => Err(TemplateError::new(
            position,
            format!("{word} without its beginning"),
        )),
    }
}

struct Parser<'a> {
    tokens: &'a [Placed],
    at: usize,
    depth: usize,
}

/// The word that ended a list of nodes, and where it stands: `end` or `else`.
type End = Option<(usize, &'static str)>;

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|(_, token)| token)
    }

    fn position(&self) -> usize {
        let last = || self.tokens.last().map_or(0, |(position, _)| *position);
        self.tokens
            .get(self.at)
            .map_or_else(last, |(position, _)| *position)
    }

    fn fail<T>(&self, reason: impl Into<String>) -> Result<T, TemplateError> {
        Err(TemplateError::new(self.position(), reason))
    }

    fn take(&mut self, token: &Token) -> bool {
        let found = self.peek() == Some(token);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, token: &Token, what: &str) -> Result<(), TemplateError> {
        if self.take(token) {
            Ok(())
        } else {
            self.fail(format!("expected {what}"))
        }
    }

    fn deeper(&mut self) -> Result<(), TemplateError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return self.fail("nested too deeply");
        }
        Ok(())
    }

    /// Nodes up to `end` or `else` (whose word is taken, with its `}}` left), or the end of the text.
    fn nodes(&mut self) -> Result<(Vec<Node>, End), TemplateError> {
        self.deeper()?;
        let mut nodes = Vec::new();
        while let Some(token) = self.peek() {
            if let Token::Text(text) = token {
                nodes.push(Node::Text(text.clone()));
                self.at += 1;
                continue;
            }
            self.expect(&Token::Open, "{{")?;
            let position = self.position();
            let word = match self.peek() {
                Some(Token::Word(word)) => word.clone(),
                _ => String::new(),
            };
            let ended = match word.as_str() {
                "end" => Some("end"),
                "else" => Some("else"),
                _ => None,
            };
            if let Some(word) = ended {
                self.at += 1;
                self.depth -= 1;
                return Ok((nodes, Some((position, word))));
            }
            nodes.push(self.action(&word)?);
        }
        self.depth -= 1;
        Ok((nodes, None))
    }

    fn action(&mut self, word: &str) -> Result<Node, TemplateError> {
        match word {
            "if" => {
                self.at += 1;
                self.condition()
            }
            "with" => {
                self.at += 1;
                let of = self.closed_pipeline()?;
                let (body, otherwise) = self.body("with")?;
                Ok(Node::With(of, body, otherwise))
            }
            "range" => {
                self.at += 1;
                self.range()
            }
            "define" | "template" | "block" | "break" | "continue" => {
                self.fail(format!("{word} is not built in this version"))
            }
            _ => self.print_or_assign(),
        }
    }

    fn print_or_assign(&mut self) -> Result<Node, TemplateError> {
        let next = self.tokens.get(self.at + 1).map(|(_, token)| token);
        if let (Some(Token::Variable(name)), Some(Token::Assign)) = (self.peek(), next) {
            let name = name.clone();
            self.at += 2;
            return Ok(Node::Assign(name, self.closed_pipeline()?));
        }
        Ok(Node::Print(self.closed_pipeline()?))
    }

    fn condition(&mut self) -> Result<Node, TemplateError> {
        let mut branches = Vec::new();
        let mut otherwise = Vec::new();
        let mut test = self.closed_pipeline()?;
        loop {
            let (body, end) = self.nodes()?;
            branches.push((test, body));
            match end {
                Some((_, "else")) if self.take(&Token::Word("if".to_owned())) => {
                    test = self.closed_pipeline()?;
                    continue;
                }
                Some((_, "else")) => {
                    self.expect(&Token::Close, "}}")?;
                    otherwise = self.last_body("if")?;
                }
                Some(_) => self.expect(&Token::Close, "}}")?,
                None => return self.fail("if is never closed by {{end}}"),
            }
            return Ok(Node::If(branches, otherwise));
        }
    }

    fn range(&mut self) -> Result<Node, TemplateError> {
        let (mut key, mut value) = (None, None);
        let names = self.tokens[self.at..]
            .iter()
            .take(4)
            .map(|(_, token)| token);
        match &names.collect::<Vec<_>>()[..] {
            [
                Token::Variable(k),
                Token::Comma,
                Token::Variable(v),
                Token::Assign,
            ] => {
                (key, value) = (Some(k.clone()), Some(v.clone()));
                self.at += 4;
            }
            [Token::Variable(v), Token::Assign, ..] => {
                value = Some(v.clone());
                self.at += 2;
            }
            _ => {}
        }
        let over = self.closed_pipeline()?;
        let (body, otherwise) = self.body("range")?;
        Ok(Node::Range(Range {
            key,
            value,
            over,
            body,
            otherwise,
        }))
    }

    fn body(&mut self, word: &str) -> Result<(Vec<Node>, Vec<Node>), TemplateError> {
        let (body, end) = self.nodes()?;
        match end {
            Some((_, "else")) => {
                self.expect(&Token::Close, "}}")?;
                Ok((body, self.last_body(word)?))
            }
            Some(_) => {
                self.expect(&Token::Close, "}}")?;
                Ok((body, Vec::new()))
            }
            None => self.fail(format!("{word} is never closed by {{{{end}}}}")),
        }
    }

    fn last_body(&mut self, word: &str) -> Result<Vec<Node>, TemplateError> {
        match self.nodes()? {
            (body, Some((_, "end"))) => {
                self.expect(&Token::Close, "}}")?;
                Ok(body)
            }
            (_, Some((position, _))) => Err(TemplateError::new(position, "a second else")),
            (_, None) => self.fail(format!("{word} is never closed by {{{{end}}}}")),
        }
    }

    fn closed_pipeline(&mut self) -> Result<Pipeline, TemplateError> {
        let pipeline = self.pipeline()?;
        self.expect(&Token::Close, "}}")?;
        Ok(pipeline)
    }

    fn pipeline(&mut self) -> Result<Pipeline, TemplateError> {
        self.deeper()?;
        let mut commands = vec![self.command()?];
        while self.take(&Token::Pipe) {
            commands.push(self.command()?);
        }
        self.depth -= 1;
        Ok(Pipeline { commands })
    }

    fn command(&mut self) -> Result<Command, TemplateError> {
        let mut operands = Vec::new();
        while let Some(operand) = self.operand()? {
            operands.push(operand);
        }
        if operands.is_empty() {
            return self.fail("a value is missing");
        }
        Ok(Command { operands })
    }

    fn operand(&mut self) -> Result<Option<Operand>, TemplateError> {
        let position = self.position();
        let mut fields = Vec::new();
        let base = match self.peek() {
            Some(Token::Dot) => Base::Dot,
            Some(Token::Field { name, .. }) => {
                fields.push(name.clone());
                Base::Dot
            }
            Some(Token::Variable(name)) => Base::Variable(name.clone()),
            Some(Token::Literal(value)) => Base::Literal(value.clone()),
            Some(Token::Word(word)) => Base::Function(word.clone()),
            Some(Token::Left) => {
                self.at += 1;
                let inner = self.pipeline()?;
                if self.peek() != Some(&Token::Right) {
                    return self.fail("expected )");
                }
                Base::Parenthesis(inner)
            }
            _ => return Ok(None),
        };
        self.at += 1;
        while let Some(Token::Field {
            name,
            spaced: false,
        }) = self.peek()
        {
            fields.push(name.clone());
            self.at += 1;
        }
        Ok(Some(Operand {
            position,
            base,
            fields,
        }))
    }
}
