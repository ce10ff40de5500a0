//! Text to tokens.

use serde_json::Value;

use super::TemplateError;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Text(String),
    /// `{{` and `}}`.
    Open,
    Close,
    /// `.` alone.
    Dot,
    /// `.Name`; `spaced` when a space came before, so that it is an operand of its own.
    Field {
        name: String,
        spaced: bool,
    },
    Word(String),
    Variable(String),
    Literal(Value),
    Pipe,
    Left,
    Right,
    Comma,
    Assign,
}

/// A token and the character at which it begins.
pub(super) type Placed = (usize, Token);

/// Splits a template.
pub(super) fn lex(text: &str) -> Result<Vec<Placed>, TemplateError> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    let mut trim = false;
    while at < chars.len() {
        let open = find(&chars, at, &['{', '{']).unwrap_or(chars.len());
        let mut piece: String = chars[at..open].iter().collect();
        if trim {
            piece = piece.trim_start().to_owned();
        }
        let trim_before = chars.get(open + 2) == Some(&'-')
            && chars.get(open + 3).is_some_and(|c| c.is_whitespace());
        if trim_before {
            piece.truncate(piece.trim_end().len());
        }
        if !piece.is_empty() {
            tokens.push((at, Token::Text(piece)));
        }
        if open >= chars.len() {
            break;
        }
        let start = open + if trim_before { 3 } else { 2 };
        (at, trim) = action(&chars, open, start, &mut tokens)?;
    }
    Ok(tokens)
}

fn find(chars: &[char], from: usize, what: &[char]) -> Option<usize> {
    let found = chars
        .get(from..)?
        .windows(what.len())
        .position(|window| window == what)?;
    Some(from + found)
}

/// One `{{…}}`. Returns where it ends, and whether the text after it is trimmed.
fn action(
    chars: &[char],
    open: usize,
    start: usize,
    tokens: &mut Vec<Placed>,
) -> Result<(usize, bool), TemplateError> {
    if let Some(end) = comment(chars, open, start)? {
        return Ok(end);
    }
    tokens.push((open, Token::Open));
    let mut at = start;
    loop {
        let spaced = at > start && chars[at - 1].is_whitespace();
        let Some(c) = chars.get(at) else {
            return Err(TemplateError::new(open, "this {{ is never closed by }}"));
        };
        let trimmed = *c == '-' && spaced && chars[at + 1..].starts_with(&['}', '}']);
        if trimmed || chars[at..].starts_with(&['}', '}']) {
            tokens.push((at, Token::Close));
            return Ok((at + if trimmed { 3 } else { 2 }, trimmed));
        }
        if c.is_whitespace() {
            at += 1;
            continue;
        }
        let (token, length) = token(chars, at, spaced || at == start)?;
        tokens.push((at, token));
        at += length;
    }
}

fn comment(
    chars: &[char],
    open: usize,
    start: usize,
) -> Result<Option<(usize, bool)>, TemplateError> {
    let first = chars[start..].iter().position(|c| !c.is_whitespace());
    let Some(first) = first
        .map(|skip| start + skip)
        .filter(|at| chars[*at..].starts_with(&['/', '*']))
    else {
        return Ok(None);
    };
    let unclosed = || TemplateError::new(open, "this comment is never closed by */}}");
    let end = find(chars, first + 2, &['*', '/']).ok_or_else(unclosed)? + 2;
    let rest: String = chars[end..].iter().take(4).collect();
    if rest.starts_with("}}") {
        Ok(Some((end + 2, false)))
    } else if rest.starts_with(" -}}") {
        Ok(Some((end + 4, true)))
    } else {
        Err(unclosed())
    }
}

fn token(chars: &[char], at: usize, spaced: bool) -> Result<(Token, usize), TemplateError> {
    let name_at = |from: usize| -> String {
        chars[from..]
            .iter()
            .take_while(|c| c.is_alphanumeric() || **c == '_')
            .collect()
    };
    let length = |text: &str| text.chars().count();
    Ok(match chars[at] {
        '|' => (Token::Pipe, 1),
        '(' => (Token::Left, 1),
        ')' => (Token::Right, 1),
        ',' => (Token::Comma, 1),
        ':' if chars.get(at + 1) == Some(&'=') => (Token::Assign, 2),
        '=' => (Token::Assign, 1),
        '.' => match name_at(at + 1) {
            name if name.is_empty() => (Token::Dot, 1),
            name => {
                let taken = length(&name) + 1;
                (Token::Field { name, spaced }, taken)
            }
        },
        '$' => {
            let name = name_at(at + 1);
            let taken = length(&name) + 1;
            (Token::Variable(name), taken)
        }
        '"' | '`' | '\'' => string(chars, at)?,
        c if c.is_ascii_digit() || c == '-' || c == '+' => number(chars, at)?,
        c if c.is_alphabetic() || c == '_' => {
            let name = name_at(at);
            let taken = length(&name);
            let token = match name.as_str() {
                "true" => Token::Literal(Value::Bool(true)),
                "false" => Token::Literal(Value::Bool(false)),
                "nil" => Token::Literal(Value::Null),
                _ => Token::Word(name),
            };
            (token, taken)
        }
        c => return Err(TemplateError::new(at, format!("unexpected {c:?}"))),
    })
}

fn string(chars: &[char], at: usize) -> Result<(Token, usize), TemplateError> {
    let quote = chars[at];
    let mut text = String::new();
    let mut i = at + 1;
    while let Some(c) = chars.get(i) {
        if *c == quote {
            return Ok((Token::Literal(Value::String(text)), i + 1 - at));
        }
        if *c == '\\' && quote != '`' {
            i += 1;
            match chars.get(i) {
                Some('n') => text.push('\n'),
                Some('t') => text.push('\t'),
                Some(c @ ('\\' | '"' | '\'')) => text.push(*c),
                _ => {
                    return Err(TemplateError::new(
                        i,
                        "unknown escape; there are \\n \\t \\\\ \\\" \\'",
                    ));
                }
            }
        } else {
            text.push(*c);
        }
        i += 1;
    }
    Err(TemplateError::new(at, "this string is never closed"))
}

fn number(chars: &[char], at: usize) -> Result<(Token, usize), TemplateError> {
    let text: String = chars[at..]
        .iter()
        .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+'))
        .collect();
    let plain = text.strip_prefix('+').unwrap_or(&text);
    let value = match (plain.parse::<i64>(), plain.parse::<f64>()) {
        (Ok(whole), _) => Value::from(whole),
        (_, Ok(real)) if real.is_finite() => Value::from(real),
        _ => return Err(TemplateError::new(at, format!("{text:?} is not a number"))),
    };
    Ok((Token::Literal(value), text.chars().count()))
}
