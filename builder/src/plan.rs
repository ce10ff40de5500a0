//! The plan of a build: the vertices that change files, each with a key made of its content, and the
//! images that stages would be. Pure: what it needs from outside (base images, the context's entries)
//! is given to it.

mod arguments;
mod copying;
mod key;
mod needs;
mod stage;

use std::collections::HashMap;
use std::fmt;

use serde_json::Value;

use crate::context::Tree;
use crate::dockerfile::{Dockerfile, Span, Warning};
use crate::error::BuildError;
use crate::image::{Base, Config};

pub use arguments::own_platform;
pub use copying::{CopyOp, Item, Place};
pub use key::KeyHasher;
pub use needs::{Needs, needs};

/// What the client asked for, as far as it decides what is built.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The Dockerfile's name.
    pub name: String,
    /// `--build-arg`.
    pub build_args: HashMap<String, String>,
    /// `--target`.
    pub target: String,
    /// `--label`.
    pub labels: HashMap<String, String>,
    /// The network of RUN.
    pub network: String,
}

/// What a tree of files is made of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Root {
    /// Nothing.
    Empty,
    /// An image's layers, by the image's place in the plan.
    Image(usize),
    /// What a vertex leaves, by its place in the plan.
    Vertex(usize),
}

/// A step that changes files.
#[derive(Clone, Debug)]
pub struct Vertex {
    /// Digest of everything that decides its result.
    pub key: String,
    /// What it changes.
    pub parent: Root,
    /// What it does.
    pub op: Op,
    /// What a person reads.
    pub name: String,
    /// Where it is in the Dockerfile.
    pub span: Span,
}

/// What a vertex does.
#[derive(Clone, Debug)]
pub enum Op {
    /// Runs a command.
    Run(RunOp),
    /// Copies from the context, or from the Dockerfile itself.
    Copy(CopyOp),
    /// Copies from another tree.
    CopyFrom {
        /// Which.
        from: Root,
        /// Paths there.
        sources: Vec<String>,
        /// Where to.
        place: Place,
    },
    /// Makes a directory.
    Mkdir(String),
}

/// A command to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunOp {
    /// Command and arguments.
    pub args: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Environment that does not count: the predefined proxy arguments.
    pub env_uncounted: Vec<String>,
    /// Working directory.
    pub cwd: String,
    /// `user[:group]`.
    pub user: String,
    /// `bridge`, `none` or `host`.
    pub network: String,
    /// The command as the Dockerfile has it.
    pub shown: String,
}

/// One entry of an image's history that this build adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// The instruction.
    pub created_by: String,
    /// The vertex that makes the layer; none for a change of the configuration.
    pub vertex: Option<usize>,
}

/// A stage as an image.
#[derive(Clone, Debug)]
pub struct Image {
    /// The image that its first layers come from.
    pub base: Option<usize>,
    /// Its files.
    pub root: Root,
    /// Its configuration.
    pub config: Config,
    /// MAINTAINER.
    pub author: Option<String>,
    /// What this build adds.
    pub history: Vec<History>,
}

/// The plan.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Images by place, in the order of [`Needs`].
    pub bases: Vec<Base>,
    /// Vertices; what one depends on has a lower place.
    pub vertices: Vec<Vertex>,
    /// One for every FROM of a planned stage: what a person reads, its line, the image's place.
    pub sources: Vec<(String, u32, Option<usize>)>,
    /// The image to make.
    pub target: Image,
    /// Remarks.
    pub warnings: Vec<Warning>,
}

/// Plans the build of one stage and of what it needs.
pub fn plan(
    dockerfile: &Dockerfile,
    options: &Options,
    needs: &Needs,
    bases: Vec<Base>,
    context: &Tree,
) -> Result<Plan, BuildError> {
    let mut planner = stage::Planner::new(dockerfile, options, needs, bases, context);
    for index in needs.stages.iter().copied() {
        planner.stage(index)?;
    }
    planner.finish(needs.target)
}

impl Plan {
    /// The key of a tree: what everything on it depends on.
    pub fn root_key(&self, root: &Root) -> String {
        root_key(&self.bases, &self.vertices, root)
    }

    /// The vertices whose layers make up a tree, from the bottom.
    pub fn chain(&self, root: &Root) -> Vec<usize> {
        let mut chain = Vec::new();
        let mut root = root;
        while let Root::Vertex(index) = root {
            chain.push(*index);
            root = &self.vertices[*index].parent;
        }
        chain.reverse();
        chain
    }
}

fn root_key(bases: &[Base], vertices: &[Vertex], root: &Root) -> String {
    match root {
        Root::Empty => "empty".to_owned(),
        Root::Image(index) => {
            let mut key = KeyHasher::new("image");
            bases[*index].diff_ids.iter().for_each(|id| key.text(id));
            key.finish()
        }
        Root::Vertex(index) => vertices[*index].key.clone(),
    }
}

/// For people and tests: one line a vertex.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, line, _) in &self.sources {
            writeln!(f, "{line}: {name}")?;
        }
        for (index, vertex) in self.vertices.iter().enumerate() {
            let key = vertex.key.get(..12).unwrap_or(&vertex.key);
            writeln!(
                f,
                "{index}: {} on {:?} key {key}",
                vertex.name, vertex.parent
            )?;
        }
        write!(f, "{}", Value::Object(self.target.config.0.clone()))
    }
}
