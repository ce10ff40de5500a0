//! What a build needs before it can be planned: which stages, and which images.

use std::collections::{BTreeSet, HashMap};

use super::Options;
use super::arguments::{automatic, own_platform};
use crate::dockerfile::{Dockerfile, Instruction, Span, expand_word};
use crate::error::BuildError;

/// Stages and images of a build.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    /// The stage to build.
    pub target: usize,
    /// The stages to plan, each after those it needs.
    pub stages: Vec<usize>,
    /// The images, each with the place that names it first.
    pub images: Vec<(String, Span)>,
    /// ARGs before the first FROM.
    pub globals: HashMap<String, String>,
    /// What each stage begins with, by stage.
    pub from: HashMap<usize, Source>,
    /// What each `--from` means, by stage and its text.
    pub copied: HashMap<(usize, String), Source>,
}

/// What FROM or `--from` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `scratch`.
    Scratch,
    /// Another stage.
    Stage(usize),
    /// An image, by its place in [`Needs::images`].
    Image(usize),
}

/// Finds them.
pub fn needs(dockerfile: &Dockerfile, options: &Options) -> Result<Needs, BuildError> {
    let mut needs = Needs {
        globals: globals(dockerfile, options)?,
        ..Needs::default()
    };
    needs.target = target(dockerfile, options)?;
    let mut open: BTreeSet<usize> = BTreeSet::from([needs.target]);
    let mut found: BTreeSet<usize> = BTreeSet::new();
    // A stage names only earlier ones, so that the highest open stage is named by no other.
    while let Some(index) = open.pop_last() {
        found.insert(index);
        let sources = needs.of_stage(dockerfile, index)?;
        open.extend(sources.iter().filter_map(|source| match source {
            Source::Stage(stage) => Some(*stage),
            _ => None,
        }));
    }
    needs.stages = found.into_iter().collect();
    Ok(needs)
}

fn globals(
    dockerfile: &Dockerfile,
    options: &Options,
) -> Result<HashMap<String, String>, BuildError> {
    let mut scope = automatic();
    for step in &dockerfile.global_args {
        let Instruction::Arg(args) = &step.instruction else {
            continue;
        };
        for (name, default) in args {
            let given = options.build_args.get(name).cloned();
            let value = match (given, default) {
                (Some(value), _) => Some(value),
                (None, Some(default)) => {
                    let lookup = |name: &str| scope.get(name).cloned();
                    let value = expand_word(default, dockerfile.escape, &lookup);
                    Some(value.map_err(|e| step.span.error_at(default, e.to_string()))?)
                }
                (None, None) => None,
            };
            if let Some(value) = value {
                scope.insert(name.clone(), value);
            }
        }
    }
    Ok(scope)
}

fn target(dockerfile: &Dockerfile, options: &Options) -> Result<usize, BuildError> {
    let stages = &dockerfile.stages;
    if options.target.is_empty() {
        return Ok(stages.len() - 1);
    }
    let named = named(dockerfile, &options.target, stages.len());
    named.ok_or_else(|| BuildError::Target {
        target: options.target.clone(),
        name: options.name.clone(),
        stages: stages
            .iter()
            .enumerate()
            .map(|(index, stage)| stage.from.alias.clone().unwrap_or(index.to_string()))
            .collect::<Vec<_>>()
            .join(", "),
    })
}

/// A stage before `before`, by its name or (not for FROM) its number.
fn named(dockerfile: &Dockerfile, name: &str, before: usize) -> Option<usize> {
    let number = name.parse::<usize>().ok().filter(|number| *number < before);
    by_name(dockerfile, name, before).or(number)
}

fn by_name(dockerfile: &Dockerfile, name: &str, before: usize) -> Option<usize> {
    let same = |alias: &String| alias.eq_ignore_ascii_case(name);
    dockerfile.stages[..before]
        .iter()
        .rposition(|stage| stage.from.alias.as_ref().is_some_and(same))
}

impl Needs {
    fn of_stage(
        &mut self,
        dockerfile: &Dockerfile,
        index: usize,
    ) -> Result<Vec<Source>, BuildError> {
        let stage = &dockerfile.stages[index];
        let from = self.expand(&stage.from.image, dockerfile.escape, &stage.span)?;
        if let Some(platform) = &stage.from.platform {
            let platform = self.expand(platform, dockerfile.escape, &stage.span)?;
            check_platform(&platform, &stage.span)?;
        }
        let source = match by_name(dockerfile, &from, index) {
            _ if from == "scratch" => Source::Scratch,
            Some(stage) => Source::Stage(stage),
            None => self.image(&from, &stage.span)?,
        };
        self.from.insert(index, source.clone());
        let mut sources = vec![source];
        for step in &stage.steps {
            let Instruction::Copy(copy) = &step.instruction else {
                continue;
            };
            let Some(text) = &copy.from else { continue };
            let from = self.expand(text, dockerfile.escape, &step.span)?;
            let source = match named(dockerfile, &from, index) {
                Some(stage) => Source::Stage(stage),
                None if from.bytes().all(|b| b.is_ascii_digit()) => {
                    return Err(step
                        .span
                        .error_at(text, format!("there is no stage {from} before this one"))
                        .into());
                }
                None => self.image(&from, &step.span)?,
            };
            self.copied.insert((index, text.clone()), source.clone());
            sources.push(source);
        }
        Ok(sources)
    }

    fn expand(&self, text: &str, escape: char, span: &Span) -> Result<String, BuildError> {
        let lookup = |name: &str| self.globals.get(name).cloned();
        let value = expand_word(text, escape, &lookup);
        let value = value.map_err(|e| span.error_at(text, e.to_string()))?;
        if value.is_empty() {
            let message =
                "expands to nothing: give the ARG before the first FROM a default, or --build-arg";
            return Err(span.error_at(text, message).into());
        }
        Ok(value)
    }

    fn image(&mut self, name: &str, span: &Span) -> Result<Source, BuildError> {
        let parsed = name.parse::<orlop_proto::reference::Reference>();
        let name = parsed
            .map_err(|e| span.error_at(name, e.to_string()))?
            .to_string();
        let place = self.images.iter().position(|(known, _)| *known == name);
        Ok(Source::Image(place.unwrap_or_else(|| {
            self.images.push((name, span.clone()));
            self.images.len() - 1
        })))
    }
}

fn check_platform(platform: &str, span: &Span) -> Result<(), BuildError> {
    let (os, architecture) = own_platform();
    let mut parts = platform.split('/');
    if (parts.next(), parts.next()) == (Some(os), Some(architecture)) {
        return Ok(());
    }
    let message = format!("platform {platform} is not built: this host is {os}/{architecture}");
    Err(span.error_at("--platform", message).into())
}
