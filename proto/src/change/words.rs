//! Words of an instruction: parted by white space, with quotes, escapes and variables.

use super::Result;

/// Name and value of each variable.
type Variables = [(String, String)];

/// The words of a line.
pub(super) fn words(line: &str, variables: &Variables) -> Result<Vec<String>> {
    let mut lexer = Lexer {
        rest: line,
        variables,
    };
    let mut words = Vec::new();
    while let Some(word) = lexer.word()? {
        words.push(word);
    }
    match words.is_empty() {
        true => Err("expected a value".to_owned()),
        false => Ok(words),
    }
}

/// `name=value` for each word, or Docker's old form of one pair, `name value`.
pub(super) fn pairs(line: &str, variables: &Variables) -> Result<Vec<(String, String)>> {
    let words = words(line, variables)?;
    if let [name, value @ ..] = words.as_slice()
        && !name.contains('=')
    {
        return match value.is_empty() {
            true => Err(format!("{name}: expected NAME=VALUE")),
            false => Ok(vec![(name.clone(), value.join(" "))]),
        };
    }
    let split = |word: String| {
        let pair = word.split_once('=').filter(|(name, _)| !name.is_empty());
        pair.map(|(name, value)| (name.to_owned(), value.to_owned()))
            .ok_or_else(|| format!("{word}: expected NAME=VALUE"))
    };
    words.into_iter().map(split).collect()
}

struct Lexer<'a> {
    rest: &'a str,
    variables: &'a Variables,
}

impl Lexer<'_> {
    fn next(&mut self) -> Option<char> {
        let mut characters = self.rest.chars();
        let next = characters.next();
        self.rest = characters.as_str();
        next
    }

    fn word(&mut self) -> Result<Option<String>> {
        self.rest = self.rest.trim_start();
        if self.rest.is_empty() {
            return Ok(None);
        }
        let mut word = String::new();
        while let Some(character) = self.next() {
            match character {
                '"' => self.double_quoted(&mut word)?,
                '\'' => self.single_quoted(&mut word)?,
                '\\' => word.push(self.next().unwrap_or('\\')),
                '$' => word.push_str(&self.variable()?),
                space if space.is_whitespace() => break,
                other => word.push(other),
            }
        }
        Ok(Some(word))
    }

    fn single_quoted(&mut self, word: &mut String) -> Result<()> {
        let end = self.rest.find('\'');
        let end = end.ok_or_else(|| "a quote is not closed".to_owned())?;
        word.push_str(&self.rest[..end]);
        self.rest = &self.rest[end + 1..];
        Ok(())
    }

    fn double_quoted(&mut self, word: &mut String) -> Result<()> {
        loop {
            match self.next() {
                None => return Err("a quote is not closed".to_owned()),
                Some('"') => return Ok(()),
                Some('$') => word.push_str(&self.variable()?),
                Some('\\') => match self.next() {
                    Some(escaped @ ('"' | '$' | '\\')) => word.push(escaped),
                    Some(other) => word.extend(['\\', other]),
                    None => return Err("a quote is not closed".to_owned()),
                },
                Some(other) => word.push(other),
            }
        }
    }

    /// After a `$`: `NAME` or `{NAME}`; one that is not set is empty.
    fn variable(&mut self) -> Result<String> {
        let braced = self.rest.starts_with('{');
        let start = usize::from(braced);
        let name = &self.rest[start..];
        let end = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let (name, after) = name.split_at(end.unwrap_or(name.len()));
        if name.is_empty() && !braced {
            return Ok("$".to_owned());
        }
        self.rest = match braced {
            false => after,
            true => after
                .strip_prefix('}')
                .filter(|_| !name.is_empty())
                .ok_or_else(|| "only $NAME and ${NAME} are expanded here".to_owned())?,
        };
        let known = self.variables.iter().find(|(known, _)| known == name);
        Ok(known.map(|(_, value)| value.clone()).unwrap_or_default())
    }
}
