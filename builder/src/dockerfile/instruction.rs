//! The instructions, as they were written: nothing is expanded here.

use std::fmt;
use std::time::Duration;

use super::Heredoc;

/// `NAME=value`, both still with quotes and variables.
pub type Pair = (String, String);

/// What one instruction says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Instruction {
    /// Begins a stage.
    From(From),
    /// Declares build arguments, each with its default.
    Arg(Vec<(String, Option<String>)>),
    /// Sets environment variables.
    Env(Vec<Pair>),
    /// Sets labels.
    Label(Vec<Pair>),
    /// The working directory from here on.
    Workdir(String),
    /// Who runs commands from here on.
    User(String),
    /// Ports, as one text of words.
    Expose(String),
    /// Volumes.
    Volume(Command),
    /// The signal that stops a container.
    Stopsignal(String),
    /// The image's author.
    Maintainer(String),
    /// Runs a command.
    Run(Run),
    /// COPY or ADD.
    Copy(Copy),
    /// The default command.
    Cmd(Command),
    /// The entry point.
    Entrypoint(Command),
    /// The shell of shell forms from here on.
    Shell(Vec<String>),
    /// How health is checked.
    Healthcheck(Healthcheck),
    /// An instruction for images built from this one.
    Onbuild(String),
}

/// FROM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct From {
    /// `--platform`.
    pub platform: Option<String>,
    /// An image, a stage, or `scratch`.
    pub image: String,
    /// `AS name`.
    pub alias: Option<String>,
}

/// Exec form (JSON) or shell form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// The arguments themselves.
    Exec(Vec<String>),
    /// A line for the shell.
    Shell(String),
}

/// `--network` of RUN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RunNetwork {
    /// What the build was started with.
    #[default]
    Default,
    /// None but loopback.
    None,
    /// The host's.
    Host,
}

/// RUN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// What is run.
    pub command: Command,
    /// With which network.
    pub network: RunNetwork,
    /// The heredocs of the line.
    pub heredocs: Vec<Heredoc>,
}

/// A source of COPY or ADD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopySource {
    /// A path, perhaps with wildcards.
    Path(String),
    /// A file written in the Dockerfile.
    Inline(Heredoc),
}

/// COPY or ADD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// ADD.
    pub add: bool,
    /// `--from`.
    pub from: Option<String>,
    /// `--chown`.
    pub chown: Option<String>,
    /// `--chmod`.
    pub chmod: Option<String>,
    /// At least one.
    pub sources: Vec<CopySource>,
    /// Where to.
    pub dest: String,
}

/// HEALTHCHECK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Healthcheck {
    /// None, not even the base image's.
    None,
    /// A command with its times.
    Command {
        /// What is run.
        command: Command,
        /// `--interval`.
        interval: Option<Duration>,
        /// `--timeout`.
        timeout: Option<Duration>,
        /// `--start-period`.
        start_period: Option<Duration>,
        /// `--start-interval`.
        start_interval: Option<Duration>,
        /// `--retries`.
        retries: Option<u32>,
    },
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shell(line) => f.write_str(line),
            Self::Exec(args) => f.write_str(&json(args)),
        }
    }
}

fn json(args: &[String]) -> String {
    serde_json::Value::from(args.to_vec()).to_string()
}

/// The instruction as a Dockerfile says it; parsing that gives the same instruction.
impl fmt::Display for Instruction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::From(from) => from.fmt(f),
            Self::Arg(args) => {
                f.write_str("ARG")?;
                args.iter().try_for_each(|(name, value)| match value {
                    Some(value) => write!(f, " {name}={value}"),
                    None => write!(f, " {name}"),
                })
            }
            Self::Env(pairs) => pairs_text(f, "ENV", pairs),
            Self::Label(pairs) => pairs_text(f, "LABEL", pairs),
            Self::Workdir(path) => write!(f, "WORKDIR {path}"),
            Self::User(user) => write!(f, "USER {user}"),
            Self::Expose(ports) => write!(f, "EXPOSE {ports}"),
            Self::Volume(volumes) => write!(f, "VOLUME {volumes}"),
            Self::Stopsignal(signal) => write!(f, "STOPSIGNAL {signal}"),
            Self::Maintainer(name) => write!(f, "MAINTAINER {name}"),
            Self::Run(run) => run.fmt(f),
            Self::Copy(copy) => copy.fmt(f),
            Self::Cmd(command) => write!(f, "CMD {command}"),
            Self::Entrypoint(command) => write!(f, "ENTRYPOINT {command}"),
            Self::Shell(args) => write!(f, "SHELL {}", json(args)),
            Self::Healthcheck(check) => check.fmt(f),
            Self::Onbuild(trigger) => write!(f, "ONBUILD {trigger}"),
        }
    }
}

/// A value with bare white space in it came from the old form `ENV name value`.
fn pairs_text(f: &mut fmt::Formatter<'_>, keyword: &str, pairs: &[Pair]) -> fmt::Result {
    f.write_str(keyword)?;
    if let [(name, value)] = pairs
        && super::parser::split_words(value, '\\').len() != 1
        && !value.is_empty()
    {
        return write!(f, " {name} {value}");
    }
    pairs
        .iter()
        .try_for_each(|(name, value)| write!(f, " {name}={value}"))
}

impl fmt::Display for From {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FROM")?;
        if let Some(platform) = &self.platform {
            write!(f, " --platform={platform}")?;
        }
        write!(f, " {}", self.image)?;
        self.alias
            .as_ref()
            .map_or(Ok(()), |alias| write!(f, " AS {alias}"))
    }
}

fn bodies<'a>(f: &mut fmt::Formatter<'_>, docs: impl Iterator<Item = &'a Heredoc>) -> fmt::Result {
    docs.into_iter()
        .try_for_each(|doc| write!(f, "\n{}{}", doc.body, doc.name))
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.network {
            RunNetwork::Default => "RUN",
            RunNetwork::None => "RUN --network=none",
            RunNetwork::Host => "RUN --network=host",
        })?;
        write!(f, " {}", self.command)?;
        bodies(f, self.heredocs.iter())
    }
}

impl fmt::Display for Copy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.add { "ADD" } else { "COPY" })?;
        let flags = [
            ("from", &self.from),
            ("chown", &self.chown),
            ("chmod", &self.chmod),
        ];
        for (name, value) in flags {
            if let Some(value) = value {
                write!(f, " --{name}={value}")?;
            }
        }
        let spaced = |text: &str| text.is_empty() || text.contains(char::is_whitespace);
        let paths = self.sources.iter().filter_map(|source| match source {
            CopySource::Path(path) => Some(path.clone()),
            CopySource::Inline(_) => None,
        });
        let paths: Vec<String> = paths.chain([self.dest.clone()]).collect();
        if paths.iter().any(|path| spaced(path)) && paths.len() == self.sources.len() + 1 {
            return write!(f, " {}", json(&paths));
        }
        for source in &self.sources {
            match source {
                CopySource::Path(path) => write!(f, " {path}")?,
                CopySource::Inline(doc) => {
                    let dash = if doc.strip_tabs { "-" } else { "" };
                    let quote = if doc.expand { "" } else { "\"" };
                    write!(f, " <<{dash}{quote}{}{quote}", doc.name)?;
                }
            }
        }
        write!(f, " {}", self.dest)?;
        bodies(
            f,
            self.sources.iter().filter_map(|source| match source {
                CopySource::Inline(doc) => Some(doc),
                CopySource::Path(_) => None,
            }),
        )
    }
}

impl fmt::Display for Healthcheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Command {
            command,
            interval,
            timeout,
            start_period,
            start_interval,
            retries,
        } = self
        else {
            return f.write_str("HEALTHCHECK NONE");
        };
        f.write_str("HEALTHCHECK")?;
        let times = [
            ("interval", interval),
            ("timeout", timeout),
            ("start-period", start_period),
            ("start-interval", start_interval),
        ];
        for (name, time) in times {
            if let Some(time) = time {
                write!(f, " --{name}={}ms", time.as_millis())?;
            }
        }
        if let Some(retries) = retries {
            write!(f, " --retries={retries}")?;
        }
        write!(f, " CMD {command}")
    }
}
