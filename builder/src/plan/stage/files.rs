//! The instructions that change files: RUN, and the sources of COPY and ADD.

use bytes::Bytes;
use orlop_proto::store::{Entry, EntryKind};
use sha2::{Digest as _, Sha256};

use super::{Done, Planner, Stage, absolute};
use crate::dockerfile::{
    self, Command, Copy, CopySource, Heredoc, Instruction, Run, RunNetwork, Span,
};
use crate::plan::arguments::is_proxy;
use crate::plan::copying::{clean, last_wins, resolve};
use crate::plan::needs::Source;
use crate::plan::{CopyOp, Item, KeyHasher, Op, Place, Root, RunOp};

impl Planner<'_> {
    pub(super) fn run(&mut self, stage: &mut Stage, span: &Span, run: &Run) -> Done {
        let network = match run.network {
            RunNetwork::Default => self.options.network.clone(),
            RunNetwork::None => "none".to_owned(),
            RunNetwork::Host if self.options.network == "host" => "host".to_owned(),
            RunNetwork::Host => {
                let message = "the host's network needs the consent of who builds: --network=host";
                return Err(span.error_at("--network=host", message).into());
            }
        };
        let config = &stage.image.config;
        let env = config.env();
        let visible: Vec<&(String, String)> = stage
            .args
            .iter()
            .filter(|(name, _)| !env.iter().any(|(known, _)| known == name) && !is_proxy(name))
            .collect();
        let line = |(name, value): &(String, String)| format!("{name}={value}");
        let proxies = self
            .options
            .build_args
            .iter()
            .filter(|(name, _)| is_proxy(name));
        let op = RunOp {
            args: run_args(run, &config.shell()),
            env: visible
                .iter()
                .map(|pair| line(pair))
                .chain(env.iter().map(line))
                .collect(),
            env_uncounted: proxies
                .map(|(name, value)| format!("{name}={value}"))
                .collect(),
            cwd: config.workdir().to_owned(),
            user: config.text("User").to_owned(),
            network,
            shown: shown(&run.command, &config.shell()),
        };
        let mut key = KeyHasher::new("run");
        key.text(&self.key(&stage.image.root));
        for list in [&op.args, &op.env] {
            key.list(list.iter());
        }
        [&op.cwd, &op.user, &op.network]
            .into_iter()
            .for_each(|text| key.text(text));
        let by = created_by(&op.shown, &run.heredocs, &visible);
        let text = Instruction::Run(run.clone()).to_string();
        self.push(stage, span, key, Op::Run(op), &text, &by);
        Ok(())
    }

    pub(super) fn copy(&mut self, stage: &mut Stage, span: &Span, copy: &Copy, text: &str) -> Done {
        let dest = self.word(stage, span, &copy.dest)?;
        let into = |dest: &str| {
            dest.ends_with('/')
                || dest == "."
                || dest.ends_with("/.")
                || dest == ".."
                || dest.ends_with("/..")
        };
        let mut place = Place {
            dest: absolute(stage.image.config.workdir(), &dest),
            dest_is_dir: into(&dest),
            owner: match &copy.chown {
                Some(owner) => self.word(stage, span, owner)?,
                None => String::new(),
            },
            mode: self.mode(stage, span, copy.chmod.as_deref())?,
        };
        if copy.sources.len() > 1 && !place.dest_is_dir {
            let message = "with more than one source the destination must end with `/`";
            return Err(span.error_at(&copy.dest, message).into());
        }
        let op = match &copy.from {
            Some(from) => self.copy_from(stage, span, copy, from, place)?,
            None => {
                let items = self.items(stage, span, copy, &mut place)?;
                Op::Copy(CopyOp {
                    items,
                    place,
                    add: copy.add,
                })
            }
        };
        let mut key = KeyHasher::new("copy");
        key.text(&self.key(&stage.image.root));
        match &op {
            Op::Copy(copy) => copy.hash(&mut key),
            Op::CopyFrom {
                from,
                sources,
                place,
            } => {
                key.text(&self.key(from));
                key.list(sources.iter());
                place.hash(&mut key);
            }
            Op::Run(_) | Op::Mkdir(_) => {}
        }
        self.push(stage, span, key, op, text, text);
        Ok(())
    }

    fn mode(&self, stage: &Stage, span: &Span, chmod: Option<&str>) -> Done<Option<u32>> {
        let Some(chmod) = chmod else { return Ok(None) };
        let text = self.word(stage, span, chmod)?;
        let mode = u32::from_str_radix(&text, 8)
            .ok()
            .filter(|mode| *mode <= 0o7777);
        let message = "expected an octal mode such as 755 (symbolic modes are not built)";
        Ok(Some(mode.ok_or_else(|| span.error_at(chmod, message))?))
    }

    fn copy_from(
        &self,
        stage: &Stage,
        span: &Span,
        copy: &Copy,
        from: &str,
        place: Place,
    ) -> Done<Op> {
        let root = match self.needs.copied.get(&(stage.index, from.to_owned())) {
            Some(Source::Stage(index)) if self.images.contains_key(index) => {
                self.images[index].root.clone()
            }
            Some(Source::Image(index)) => Root::Image(*index),
            _ => return Err(span.error_at(from, "no such stage or image").into()),
        };
        let mut sources = Vec::new();
        for source in &copy.sources {
            match source {
                CopySource::Path(path) => {
                    let path = self.word(stage, span, path)?;
                    sources.push(format!("/{}", clean(&path)));
                }
                CopySource::Inline(_) => {
                    return Err(span
                        .error("a heredoc cannot be copied --from somewhere")
                        .into());
                }
            }
        }
        Ok(Op::CopyFrom {
            from: root,
            sources,
            place,
        })
    }

    fn items(&self, stage: &Stage, span: &Span, copy: &Copy, place: &mut Place) -> Done<Vec<Item>> {
        let mut items = Vec::new();
        for source in &copy.sources {
            match source {
                CopySource::Inline(doc) => items.push(self.inline(stage, span, doc)?),
                CopySource::Path(text) => {
                    let path = self.word(stage, span, text)?;
                    let (found, directory) = resolve(self.context, &path)
                        .map_err(|message| span.error_at(text, message))?;
                    place.dest_is_dir |= directory;
                    items.extend(found);
                }
            }
        }
        Ok(last_wins(items))
    }

    fn inline(&self, stage: &Stage, span: &Span, doc: &Heredoc) -> Done<Item> {
        let lookup = |name: &str| Self::lookup(stage, name);
        let text = match doc.expand {
            true => dockerfile::expand_raw(&doc.body, self.dockerfile.escape, &lookup)
                .map_err(|error| span.error_at(&doc.name, error.to_string()))?,
            false => doc.body.clone(),
        };
        Ok(Item {
            entry: Entry {
                path: Bytes::copy_from_slice(doc.name.as_bytes()),
                kind: EntryKind::File.into(),
                mode: 0o644,
                digest: format!("sha256:{}", hex::encode(Sha256::digest(&text))),
                ..Entry::default()
            },
            index: None,
            inline: Some(text.into()),
            direct: false,
        })
    }
}

fn shown(command: &Command, shell: &[String]) -> String {
    match command {
        Command::Exec(args) => args.join(" "),
        Command::Shell(line) => format!("{} {line}", shell.join(" ")),
    }
}

/// Docker's form of a RUN in the history: `|n NAME=value … command`. Only arguments that the command
/// names are told: the others may be secrets that it never touches.
fn created_by(shown: &str, docs: &[Heredoc], args: &[&(String, String)]) -> String {
    let body: String = docs
        .iter()
        .map(|doc| format!("\n{}{}", doc.body, doc.name))
        .collect();
    let command = format!("{shown}{body}");
    let named = |name: &str| {
        command.contains(&format!("${{{name}"))
            || command
                .match_indices(&format!("${name}"))
                .any(|(at, found)| {
                    let next = command[at + found.len()..].chars().next();
                    !next.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_')
                })
    };
    let told: Vec<String> = args
        .iter()
        .filter(|(name, _)| named(name))
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    match told.is_empty() {
        true => format!("RUN {command}"),
        false => format!("RUN |{} {} {command}", told.len(), told.join(" ")),
    }
}

/// What is executed: a heredoc alone is a script, other heredocs are the shell's own.
fn run_args(run: &Run, shell: &[String]) -> Vec<String> {
    let line = match &run.command {
        Command::Exec(args) => return args.clone(),
        Command::Shell(line) => line,
    };
    let mut args = shell.to_vec();
    match run.heredocs.as_slice() {
        [] => args.push(line.clone()),
        [doc] if line.split_whitespace().count() == 1 && line.trim_start().starts_with("<<") => {
            return script(doc, args);
        }
        docs => {
            let bodies: String = docs
                .iter()
                .map(|doc| format!("\n{}{}", doc.body, doc.name))
                .collect();
            args.push(format!("{line}{bodies}"));
        }
    }
    args
}

/// A script with a `#!` line is a file for its interpreter; it lies where no layer sees it.
fn script(doc: &Heredoc, mut shell: Vec<String>) -> Vec<String> {
    let first = doc.body.lines().next().unwrap_or_default();
    let Some(interpreter) = first.strip_prefix("#!") else {
        shell.push(doc.body.clone());
        return shell;
    };
    let (program, argument) = match interpreter.trim().split_once(char::is_whitespace) {
        Some((program, argument)) => (program, Some(argument.trim())),
        None => (interpreter.trim(), None),
    };
    const FILE: &str = "/dev/shm/.orlop-script";
    let place = format!("s=$1; shift; printf %s \"$s\" > {FILE} && exec \"$@\" {FILE}");
    let fixed = ["/bin/sh", "-c", &place, "sh", &doc.body, program];
    fixed
        .into_iter()
        .chain(argument)
        .map(str::to_owned)
        .collect()
}
