//! One stage after the other: instructions to vertices and configuration.

mod files;

use std::collections::{HashMap, HashSet};
use std::fmt::Display;

use serde_json::{Value, json};

use super::arguments::{automatic, is_proxy};
use super::copying::clean;
use super::needs::Source;
use super::{History, Image, KeyHasher, Needs, Op, Options, Plan, Root, Vertex, root_key};
use crate::context::Tree;
use crate::dockerfile::{
    self, Command, Copy, Dockerfile, Healthcheck, Instruction, Pair, Span, Step, Warning,
    expand_word, expand_words,
};
use crate::error::BuildError;
use crate::image::{Base, Config};

type Done<T = ()> = Result<T, BuildError>;

pub(super) struct Planner<'a> {
    dockerfile: &'a Dockerfile,
    options: &'a Options,
    needs: &'a Needs,
    bases: Vec<Base>,
    context: &'a Tree,
    vertices: Vec<Vertex>,
    sources: Vec<(String, u32, Option<usize>)>,
    images: HashMap<usize, Image>,
    warnings: Vec<Warning>,
    consumed: HashSet<String>,
}

/// A stage while it is planned.
struct Stage {
    index: usize,
    image: Image,
    /// Declared arguments with their values, in order.
    args: Vec<(String, String)>,
    cmd_set: bool,
    label: String,
    position: usize,
    total: usize,
}

impl<'a> Planner<'a> {
    pub(super) fn new(
        dockerfile: &'a Dockerfile,
        options: &'a Options,
        needs: &'a Needs,
        bases: Vec<Base>,
        context: &'a Tree,
    ) -> Self {
        Self {
            dockerfile,
            options,
            needs,
            bases,
            context,
            vertices: Vec::new(),
            sources: Vec::new(),
            images: HashMap::new(),
            warnings: dockerfile.warnings.clone(),
            consumed: global_names(dockerfile),
        }
    }

    pub(super) fn finish(mut self, target: usize) -> Done<Plan> {
        let Some(mut image) = self.images.remove(&target) else {
            return Err(BuildError::Protocol("a planned target"));
        };
        for (name, value) in &self.options.labels {
            image.config.put("Labels", name, json!(value));
        }
        let mut unused: Vec<&String> = self
            .options
            .build_args
            .keys()
            .filter(|name| !self.consumed.contains(*name) && !is_proxy(name))
            .collect();
        unused.sort();
        if !unused.is_empty() {
            let message = format!("build arguments that no ARG declares: {unused:?}");
            self.warnings.push(Warning { line: 0, message });
        }
        Ok(Plan {
            bases: self.bases,
            vertices: self.vertices,
            sources: self.sources,
            target: image,
            warnings: self.warnings,
        })
    }

    pub(super) fn stage(&mut self, index: usize) -> Done {
        let stage = &self.dockerfile.stages[index];
        let (image, base) = self.begin(index);
        let mut steps = self.triggers(base)?;
        steps.extend(stage.steps.iter().cloned());
        let changes = |step: &&Step| {
            matches!(
                step.instruction,
                Instruction::Run(_) | Instruction::Copy(_) | Instruction::Workdir(_)
            )
        };
        let mut planned = Stage {
            index,
            image,
            args: Vec::new(),
            cmd_set: false,
            label: self.label(index),
            position: 1,
            total: 1 + steps.iter().filter(changes).count(),
        };
        if base.is_some() {
            planned.image.config.clear("OnBuild");
        }
        let name = planned.vertex_name(&format!("FROM {}", stage.from.image));
        self.sources.push((name, stage.span.line, base));
        for step in &steps {
            self.step(&mut planned, step)?;
        }
        self.images.insert(index, planned.image);
        Ok(())
    }

    fn begin(&self, index: usize) -> (Image, Option<usize>) {
        match self.needs.from.get(&index) {
            Some(Source::Stage(stage)) if self.images.contains_key(stage) => {
                (self.images[stage].clone(), None)
            }
            Some(Source::Image(image)) => {
                let base = &self.bases[*image];
                let image = Image {
                    base: Some(*image),
                    root: if base.layers.is_empty() {
                        Root::Empty
                    } else {
                        Root::Image(*image)
                    },
                    config: base.config(),
                    author: base.text("author").map(str::to_owned),
                    history: Vec::new(),
                };
                let place = image.base;
                (image, place)
            }
            _ => {
                let image = Image {
                    base: None,
                    root: Root::Empty,
                    config: Config::scratch(),
                    author: None,
                    history: Vec::new(),
                };
                (image, None)
            }
        }
    }

    fn triggers(&self, base: Option<usize>) -> Done<Vec<Step>> {
        let Some(base) = base.map(|index| &self.bases[index]) else {
            return Ok(Vec::new());
        };
        base.config()
            .list("OnBuild")
            .iter()
            .map(|text| {
                let step = dockerfile::parse_trigger(text, &base.name)?;
                match &step.instruction {
                    Instruction::Onbuild(_) | Instruction::From(_) => {
                        Err(step.span.error("not allowed in ONBUILD").into())
                    }
                    Instruction::Copy(Copy { from: Some(_), .. }) => Err(step
                        .span
                        .error_at("--from", "--from in ONBUILD is not built in this version")
                        .into()),
                    _ => Ok(step),
                }
            })
            .collect()
    }

    fn label(&self, index: usize) -> String {
        let alias = self.dockerfile.stages[index].from.alias.clone();
        match (alias, self.needs.stages.len()) {
            (Some(alias), _) => format!("{alias} "),
            (None, 1) => String::new(),
            (None, _) => format!("stage-{index} "),
        }
    }

    fn step(&mut self, stage: &mut Stage, step: &Step) -> Done {
        let span = &step.span;
        let text = step.instruction.to_string();
        let config = &mut stage.image.config;
        match &step.instruction {
            Instruction::Run(run) => return self.run(stage, span, run),
            Instruction::Copy(copy) => return self.copy(stage, span, copy, &text),
            Instruction::Workdir(path) => return self.workdir(stage, span, path, &text),
            Instruction::Arg(args) => return self.args(stage, span, args),
            Instruction::Env(pairs) => {
                for (name, value) in self.pairs(stage, span, pairs)? {
                    stage.image.config.set_env(&name, &value);
                }
            }
            Instruction::Label(pairs) => {
                for (name, value) in self.pairs(stage, span, pairs)? {
                    stage.image.config.put("Labels", &name, json!(value));
                }
            }
            Instruction::User(user) => {
                let user = self.word(stage, span, user)?;
                stage.image.config.set("User", json!(user));
            }
            Instruction::Stopsignal(signal) => {
                let signal = self.word(stage, span, signal)?;
                stage.image.config.set("StopSignal", json!(signal));
            }
            Instruction::Expose(ports) => self.expose(stage, span, ports)?,
            Instruction::Volume(volumes) => self.volume(stage, span, volumes)?,
            Instruction::Maintainer(name) => stage.image.author = Some(name.clone()),
            Instruction::Cmd(command) => {
                let args = full(command, config);
                config.set("Cmd", json!(args));
                stage.cmd_set = true;
            }
            Instruction::Entrypoint(command) => {
                let args = full(command, config);
                config.set("Entrypoint", json!(args));
                if !stage.cmd_set {
                    config.clear("Cmd");
                }
            }
            Instruction::Shell(args) => config.set("Shell", json!(args)),
            Instruction::Healthcheck(check) => {
                let value = healthcheck(check);
                config.set("Healthcheck", value);
            }
            Instruction::Onbuild(trigger) => {
                let mut triggers = config.list("OnBuild");
                triggers.push(trigger.clone());
                config.set("OnBuild", json!(triggers));
            }
            Instruction::From(_) => {}
        }
        stage.record(&text, None);
        Ok(())
    }

    /// ENV is stronger than ARG.
    fn lookup(stage: &Stage, name: &str) -> Option<String> {
        let env = stage.image.config.env();
        let find = |list: &[(String, String)]| {
            list.iter()
                .find(|(known, _)| known == name)
                .map(|(_, value)| value.clone())
        };
        find(&env).or_else(|| find(&stage.args))
    }

    fn word(&self, stage: &Stage, span: &Span, text: &str) -> Done<String> {
        let lookup = |name: &str| Self::lookup(stage, name);
        let word = expand_word(text, self.dockerfile.escape, &lookup);
        Ok(word.map_err(|error| span.error_at(text, error.to_string()))?)
    }

    fn words(&self, stage: &Stage, span: &Span, text: &str) -> Done<Vec<String>> {
        let lookup = |name: &str| Self::lookup(stage, name);
        let words = expand_words(text, self.dockerfile.escape, &lookup);
        Ok(words.map_err(|error| span.error_at(text, error.to_string()))?)
    }

    /// All values of one instruction see the variables as they were before it.
    fn pairs(&self, stage: &Stage, span: &Span, pairs: &[Pair]) -> Done<Vec<Pair>> {
        let expand = |(name, value): &Pair| {
            let name = self.word(stage, span, name)?;
            Ok((name, self.word(stage, span, value)?))
        };
        pairs.iter().map(expand).collect()
    }

    fn args(&mut self, stage: &mut Stage, span: &Span, args: &[(String, Option<String>)]) -> Done {
        for (name, default) in args {
            self.consumed.insert(name.clone());
            let value = match (self.options.build_args.get(name), default) {
                (Some(value), _) => Some(value.clone()),
                (None, Some(default)) => Some(self.word(stage, span, default)?),
                (None, None) => self.global(name),
            };
            if let Some(value) = value {
                stage.args.retain(|(known, _)| known != name);
                stage.args.push((name.clone(), value));
            }
            stage.record(&format!("ARG {name}"), None);
        }
        Ok(())
    }

    fn global(&self, name: &str) -> Option<String> {
        let global = self.needs.globals.get(name).cloned();
        global.or_else(|| automatic().remove(name))
    }

    fn expose(&self, stage: &mut Stage, span: &Span, ports: &str) -> Done {
        for word in self.words(stage, span, ports)? {
            for port in exposed(&word).ok_or_else(|| {
                span.error_at(
                    &word,
                    "expected a port or a range, and tcp, udp or sctp: 80, 53/udp, 8000-8010",
                )
            })? {
                stage.image.config.put("ExposedPorts", &port, json!({}));
            }
        }
        Ok(())
    }

    fn volume(&self, stage: &mut Stage, span: &Span, volumes: &Command) -> Done {
        let paths = match volumes {
            Command::Shell(text) => self.words(stage, span, text)?,
            Command::Exec(paths) => {
                let word = |path: &String| self.word(stage, span, path);
                paths.iter().map(word).collect::<Done<_>>()?
            }
        };
        for path in paths {
            if path.is_empty() {
                return Err(span.error("a volume's path is empty").into());
            }
            stage.image.config.put("Volumes", &path, json!({}));
        }
        Ok(())
    }

    fn workdir(&mut self, stage: &mut Stage, span: &Span, path: &str, text: &str) -> Done {
        let path = self.word(stage, span, path)?;
        let path = absolute(stage.image.config.workdir(), &path);
        stage.image.config.set("WorkingDir", json!(path));
        let mut key = KeyHasher::new("mkdir");
        key.text(&self.key(&stage.image.root));
        key.text(&path);
        self.push(stage, span, key, Op::Mkdir(path), text, text);
        Ok(())
    }

    fn key(&self, root: &Root) -> String {
        root_key(&self.bases, &self.vertices, root)
    }

    /// Adds a vertex, or finds the one that does the same.
    fn push(
        &mut self,
        stage: &mut Stage,
        span: &Span,
        key: KeyHasher,
        op: Op,
        text: &str,
        by: &str,
    ) {
        let key = key.finish();
        let name = stage.vertex_name(text);
        let known = self.vertices.iter().position(|vertex| vertex.key == key);
        let index = known.unwrap_or_else(|| {
            let parent = stage.image.root.clone();
            self.vertices.push(Vertex {
                key,
                parent,
                op,
                name,
                span: span.clone(),
            });
            self.vertices.len() - 1
        });
        stage.image.root = Root::Vertex(index);
        stage.record(by, Some(index));
    }
}

impl Stage {
    fn vertex_name(&mut self, text: &str) -> String {
        let first = text.lines().next().unwrap_or_default();
        let words = first.split_whitespace().collect::<Vec<_>>().join(" ");
        let name = format!("[{}{}/{}] {words}", self.label, self.position, self.total);
        self.position += 1;
        crate::redact::urls(&name)
    }

    fn record(&mut self, by: &str, vertex: Option<usize>) {
        let created_by = crate::redact::urls(by);
        self.image.history.push(History { created_by, vertex });
    }
}

fn global_names(dockerfile: &Dockerfile) -> HashSet<String> {
    let args = dockerfile
        .global_args
        .iter()
        .filter_map(|step| match &step.instruction {
            Instruction::Arg(args) => Some(args.iter().map(|(name, _)| name.clone())),
            _ => None,
        });
    args.flatten().collect()
}

/// The command with the shell before a shell form.
fn full(command: &Command, config: &Config) -> Vec<String> {
    match command {
        Command::Exec(args) => args.clone(),
        Command::Shell(line) => {
            let mut args = config.shell();
            args.push(line.clone());
            args
        }
    }
}

/// Joins with the working directory and cleans.
fn absolute(workdir: &str, path: &str) -> String {
    match path.starts_with('/') {
        true => format!("/{}", clean(path)),
        false => format!("/{}", clean(&format!("{workdir}/{path}"))),
    }
}

/// `80`, `80/udp`, `8000-8010/tcp`.
fn exposed(word: &str) -> Option<Vec<String>> {
    let (ports, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return None;
    }
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
    let valid = first > 0 && first <= last;
    let name = |port: u16| format!("{port}/{protocol}");
    valid.then(|| (first..=last).map(name).collect())
}

/// Docker's `Healthcheck`, times in nanoseconds.
fn healthcheck(check: &Healthcheck) -> Value {
    let Healthcheck::Command {
        command,
        interval,
        timeout,
        start_period,
        start_interval,
        retries,
    } = check
    else {
        return json!({"Test": ["NONE"]});
    };
    let test: Vec<String> = match command {
        Command::Exec(args) => ["CMD".to_owned()]
            .into_iter()
            .chain(args.iter().cloned())
            .collect(),
        Command::Shell(line) => vec!["CMD-SHELL".to_owned(), line.clone()],
    };
    let mut value = json!({ "Test": test });
    let times = [
        ("Interval", interval),
        ("Timeout", timeout),
        ("StartPeriod", start_period),
        ("StartInterval", start_interval),
    ];
    for (name, time) in times {
        if let Some(time) = time.filter(|time| !time.is_zero()) {
            value[name] = json!(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        }
    }
    if let Some(retries) = retries.filter(|retries| *retries > 0) {
        value["Retries"] = json!(retries);
    }
    value
}

/// What a failing step is called: `Dockerfile:3`.
impl Display for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}
