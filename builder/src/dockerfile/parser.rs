//! One logical line to one instruction.

mod healthcheck;

use super::flags::{self, Flag};
use super::lexer::Line;
use super::{
    Command, Copy, CopySource, DockerfileError, From, Instruction, Pair, Run, RunNetwork, Span,
    Step, Warning, heredoc,
};

const KEYWORDS: [&str; 18] = [
    "FROM",
    "ARG",
    "ENV",
    "WORKDIR",
    "RUN",
    "COPY",
    "ADD",
    "USER",
    "EXPOSE",
    "VOLUME",
    "LABEL",
    "CMD",
    "ENTRYPOINT",
    "SHELL",
    "STOPSIGNAL",
    "HEALTHCHECK",
    "ONBUILD",
    "MAINTAINER",
];

type Parsed<T> = Result<T, DockerfileError>;

/// What the parsers of the single instructions see.
struct Source<'a> {
    span: &'a Span,
    keyword: &'a str,
    /// After keyword and flags.
    rest: &'a str,
    flags: Vec<Flag>,
    escape: char,
}

pub(super) fn parse_line(line: &Line, escape: char, warnings: &mut Vec<Warning>) -> Parsed<Step> {
    let word = line.text.split_whitespace().next().unwrap_or_default();
    let keyword = word.to_ascii_uppercase();
    if !KEYWORDS.contains(&keyword.as_str()) {
        return Err(line.span.error_at(word, unknown(&keyword)));
    }
    let has_flags = matches!(
        keyword.as_str(),
        "FROM" | "RUN" | "COPY" | "ADD" | "HEALTHCHECK"
    );
    let after = line.text[word.len()..].trim();
    let (flags, rest) = match has_flags {
        true => flags::split(after),
        false => (Vec::new(), after),
    };
    let source = Source {
        span: &line.span,
        keyword: &keyword,
        rest,
        flags,
        escape,
    };
    if rest.is_empty() && keyword != "LABEL" {
        return Err(line
            .span
            .error_at(word, format!("{keyword} needs at least one argument")));
    }
    if rest.starts_with('[') && exec(rest).is_none() && takes_command(&keyword) {
        warnings.push(Warning {
            line: line.span.line,
            message: format!("{keyword}: not a JSON array of strings, taken as a shell command"),
        });
    }
    let instruction = source.instruction(line)?;
    Ok(Step {
        span: line.span.clone(),
        instruction,
    })
}

fn takes_command(keyword: &str) -> bool {
    matches!(keyword, "RUN" | "CMD" | "ENTRYPOINT")
}

/// The message for a word that is no instruction.
fn unknown(word: &str) -> String {
    let near = KEYWORDS
        .iter()
        .map(|keyword| (distance(word, keyword), *keyword))
        .min()
        .filter(|(distance, _)| *distance <= 2);
    match near {
        Some((_, keyword)) => format!("unknown instruction; did you mean {keyword}?"),
        None => format!(
            "unknown instruction; expected one of {}",
            KEYWORDS.join(", ")
        ),
    }
}

/// Levenshtein's distance. Words longer than a keyword can be are far away.
fn distance(a: &str, b: &str) -> usize {
    if a.len() > 20 {
        return usize::MAX;
    }
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let cost = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

impl Source<'_> {
    fn instruction(&self, line: &Line) -> Parsed<Instruction> {
        let text = || self.rest.to_owned();
        Ok(match self.keyword {
            "FROM" => Instruction::From(self.from()?),
            "ARG" => Instruction::Arg(self.args()?),
            "ENV" => Instruction::Env(self.pairs()?),
            "LABEL" => Instruction::Label(self.pairs()?),
            "WORKDIR" => Instruction::Workdir(text()),
            "USER" => Instruction::User(self.one_word()?),
            "EXPOSE" => Instruction::Expose(text()),
            "VOLUME" => Instruction::Volume(self.command()),
            "STOPSIGNAL" => Instruction::Stopsignal(self.one_word()?),
            "MAINTAINER" => Instruction::Maintainer(text()),
            "RUN" => Instruction::Run(self.run(line)?),
            "COPY" | "ADD" => Instruction::Copy(self.copy(line)?),
            "CMD" => Instruction::Cmd(self.command()),
            "ENTRYPOINT" => Instruction::Entrypoint(self.command()),
            "SHELL" => Instruction::Shell(self.shell()?),
            "HEALTHCHECK" => Instruction::Healthcheck(healthcheck::parse(self)?),
            _ => Instruction::Onbuild(self.onbuild()?),
        })
    }

    fn error(&self, marked: &str, message: impl Into<String>) -> DockerfileError {
        self.span.error_at(marked, message)
    }

    fn command(&self) -> Command {
        exec(self.rest).map_or_else(|| Command::Shell(self.rest.to_owned()), Command::Exec)
    }

    fn one_word(&self) -> Parsed<String> {
        match split_words(self.rest, self.escape).as_slice() {
            [word] => Ok(word.clone()),
            _ => Err(self.error(
                self.rest,
                format!("{} takes exactly one argument", self.keyword),
            )),
        }
    }

    fn unknown_flag(&self, flag: &Flag, known: &[&str]) -> DockerfileError {
        let not_built = matches!(
            (self.keyword, flag.name.as_str()),
            ("RUN", "mount" | "security" | "device")
                | ("COPY", "link" | "parents" | "exclude")
                | (
                    "ADD",
                    "link" | "exclude" | "checksum" | "keep-git-dir" | "unpack"
                )
        );
        let message = match not_built {
            true => format!(
                "{} {} is not built in this version",
                self.keyword,
                flag.text()
            ),
            false if known.is_empty() => format!("{} has no flags", self.keyword),
            false => format!("unknown flag; {} knows {}", self.keyword, known.join(", ")),
        };
        self.error(&flag.text(), message)
    }

    fn value(&self, flag: &Flag) -> Parsed<String> {
        let value = flag.value.clone().filter(|value| !value.is_empty());
        value.ok_or_else(|| self.error(&flag.text(), format!("{} needs a value", flag.text())))
    }

    fn from(&self) -> Parsed<From> {
        let mut platform = None;
        for flag in &self.flags {
            match flag.name.as_str() {
                "platform" => platform = Some(self.value(flag)?),
                _ => return Err(self.unknown_flag(flag, &["--platform"])),
            }
        }
        let words: Vec<&str> = self.rest.split_whitespace().collect();
        let (image, alias) = match words.as_slice() {
            [image] => (image, None),
            [image, word, alias] if word.eq_ignore_ascii_case("as") => (image, Some(*alias)),
            _ => return Err(self.error(self.rest, "expected FROM image [AS name]")),
        };
        if let Some(alias) = alias {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
            if !alias.starts_with(|c: char| c.is_ascii_alphabetic()) || !alias.chars().all(plain) {
                let message = "a stage's name is a letter, then letters, digits, `_`, `-` and `.`";
                return Err(self.error(alias, message));
            }
        }
        let alias = alias.map(str::to_ascii_lowercase);
        Ok(From {
            platform,
            image: (*image).to_owned(),
            alias,
        })
    }

    fn args(&self) -> Parsed<Vec<(String, Option<String>)>> {
        let words = split_words(self.rest, self.escape);
        words
            .iter()
            .map(|word| {
                let (name, value) = match word.split_once('=') {
                    Some((name, value)) => (name, Some(value.to_owned())),
                    None => (word.as_str(), None),
                };
                match is_name(name) {
                    true => Ok((name.to_owned(), value)),
                    false => Err(self.error(word, "expected ARG name[=default]")),
                }
            })
            .collect()
    }

    /// `name=value …`, or the old form `name value with spaces`.
    fn pairs(&self) -> Parsed<Vec<Pair>> {
        let words = split_words(self.rest, self.escape);
        let expected = format!("expected {} name=value", self.keyword);
        let Some(first) = words.first() else {
            return Err(self.error(self.keyword, expected));
        };
        if !first.contains('=') {
            let value = self.rest[first.len()..].trim();
            if value.is_empty() {
                return Err(self.error(first, expected));
            }
            return Ok(vec![(first.clone(), value.to_owned())]);
        }
        words
            .iter()
            .map(|word| match word.split_once('=') {
                Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
                _ => Err(self.error(word, expected.clone())),
            })
            .collect()
    }

    fn run(&self, line: &Line) -> Parsed<Run> {
        let mut network = RunNetwork::Default;
        for flag in &self.flags {
            if flag.name != "network" {
                return Err(self.unknown_flag(flag, &["--network"]));
            }
            network = match self.value(flag)?.as_str() {
                "default" => RunNetwork::Default,
                "none" => RunNetwork::None,
                "host" => RunNetwork::Host,
                other => return Err(self.error(other, "expected default, none or host")),
            };
        }
        Ok(Run {
            command: self.command(),
            network,
            heredocs: line.heredocs.clone(),
        })
    }

    fn copy(&self, line: &Line) -> Parsed<Copy> {
        let add = self.keyword == "ADD";
        let (mut from, mut chown, mut chmod) = (None, None, None);
        for flag in &self.flags {
            match flag.name.as_str() {
                "from" if !add => from = Some(self.value(flag)?),
                "chown" => chown = Some(self.value(flag)?),
                "chmod" => chmod = Some(self.value(flag)?),
                _ if add => return Err(self.unknown_flag(flag, &["--chown", "--chmod"])),
                _ => {
                    return Err(self.unknown_flag(flag, &["--from", "--chown", "--chmod"]));
                }
            }
        }
        let json = exec(self.rest);
        let words = json
            .clone()
            .unwrap_or_else(|| split_words(self.rest, self.escape));
        let Some((dest, sources)) = words.split_last().filter(|(_, rest)| !rest.is_empty()) else {
            let message = format!("expected {} source … destination", self.keyword);
            return Err(self.error(self.rest, message));
        };
        let mut docs = line.heredocs.iter();
        let source = |word: &String| match heredoc::parse(word).filter(|_| json.is_none()) {
            Some(empty) => CopySource::Inline(docs.next().cloned().unwrap_or(empty)),
            None => CopySource::Path(word.clone()),
        };
        let sources: Vec<CopySource> = sources.iter().map(source).collect();
        for source in &sources {
            if let CopySource::Path(path) = source {
                self.remote(path, add)?;
            }
        }
        Ok(Copy {
            add,
            from,
            chown,
            chmod,
            sources,
            dest: dest.clone(),
        })
    }

    /// ADD of a URL or a repository is known, and not built.
    fn remote(&self, path: &str, add: bool) -> Parsed<()> {
        let scheme = path.split_once("://").map(|(scheme, _)| scheme);
        let git = path.starts_with("git@");
        if scheme.is_none() && !git {
            return Ok(());
        }
        let shown = crate::redact::urls(path);
        Err(self.error(
            path,
            match add {
                true => format!(
                    "ADD of a URL or a git repository ({shown}) is not built in this version"
                ),
                false => format!("COPY takes paths of the context, not a URL ({shown})"),
            },
        ))
    }

    fn shell(&self) -> Parsed<Vec<String>> {
        exec(self.rest)
            .filter(|args| !args.is_empty())
            .ok_or_else(|| {
                self.error(
                    self.rest,
                    "expected a JSON array: SHELL [\"/bin/sh\", \"-c\"]",
                )
            })
    }

    fn onbuild(&self) -> Parsed<String> {
        let word = self.rest.split_whitespace().next().unwrap_or_default();
        let keyword = word.to_ascii_uppercase();
        match keyword.as_str() {
            "ONBUILD" | "FROM" | "MAINTAINER" => {
                Err(self.error(word, format!("{keyword} is not allowed in ONBUILD")))
            }
            known if KEYWORDS.contains(&known) => Ok(self.rest.to_owned()),
            _ => Err(self.error(word, unknown(&keyword))),
        }
    }
}

/// A JSON array of strings.
fn exec(text: &str) -> Option<Vec<String>> {
    let looks = text.starts_with('[');
    looks.then(|| serde_json::from_str(text).ok()).flatten()
}

/// The form of a variable's name that a build argument must have.
fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !name.is_empty() && name.chars().all(plain) && !name.starts_with(|c: char| c.is_ascii_digit())
}

/// Words split at white space that is neither quoted nor escaped; quotes and escapes stay.
pub(super) fn split_words(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote: Option<char> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if quote.is_none() && c.is_whitespace() {
            if !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
            continue;
        }
        word.push(c);
        match quote {
            _ if c == escape && quote != Some('\'') => word.extend(chars.next()),
            Some(q) if c == q => quote = None,
            None if matches!(c, '"' | '\'') => quote = Some(c),
            _ => {}
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}
