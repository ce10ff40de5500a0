//! One build, from the client's first message to the result.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::future::try_join_all;
use orlop_proto::builder::build_response::Message;
use orlop_proto::builder::{BuildResult, BuildStart};
use orlop_proto::reference::Reference;

use crate::cache::Cache;
use crate::context::{Exchange, Incoming, Memory, Tree};
use crate::dockerfile::{self, Dockerfile};
use crate::error::BuildError;
use crate::events::Sink;
use crate::export::Exporter;
use crate::flight::Flights;
use crate::image::Base;
use crate::lease::Lease;
use crate::ops::source::Sources;
use crate::plan::{Needs, Op, Options, Plan, needs, plan};
use crate::ports::Ports;
use crate::solve::{Solver, Verdict, Verdicts};

/// What all builds share.
#[derive(Clone, Debug)]
pub struct Builder {
    /// The other services.
    pub ports: Ports,
    /// What was done before.
    pub cache: Cache,
    /// What contexts looked like.
    pub memory: Memory,
    /// What is being done.
    pub flights: Flights,
}

impl Builder {
    /// Builds. Dropping the future cancels the build.
    pub async fn build(&self, incoming: Incoming, events: Sink) -> Result<(), BuildError> {
        let mut exchange = Exchange::new(incoming, events.clone());
        let start = exchange.start().await?;
        let names = names(&start.tags)?;
        let options = options(&start)?;
        let dockerfile = parse(&start, &options.name)?;
        let needs = needs(&dockerfile, &options)?;
        let (tree, bases) = tokio::try_join!(
            exchange.tree(&start.context_id, &self.memory),
            self.bases(&start, &needs, &events),
        )?;
        let tree = Arc::new(tree);
        let plan = plan(&dockerfile, &options, &needs, bases, &tree)?;
        for warning in &plan.warnings {
            events.warning(warning.line, &warning.message).await;
        }
        let lease = Lease::new(&self.ports);
        let solver = Solver {
            ports: self.ports.clone(),
            cache: self.cache.clone(),
            flights: self.flights.clone(),
            events: events.clone(),
            lease: lease.id.clone(),
            no_cache: start.no_cache,
        };
        let verdicts = solver.decide(&plan).await?;
        if verdicts
            .values()
            .any(|verdict| matches!(verdict, Verdict::Do))
        {
            lease.hold().await?;
        }
        let files = files(&plan, &verdicts);
        exchange.files(&tree, files, &self.ports, &lease.id).await?;
        let (sources, here) = tell_sources(&plan, &events).await;
        let records = solver.execute(&plan, &verdicts).await?;
        let cached = records.values().filter(|(_, cached)| *cached).count();
        let steps = records.len() + sources;
        let exporter = Exporter {
            ports: &self.ports,
            cache: &self.cache,
            lease: &lease,
            plan: &plan,
            records,
        };
        let exported = exporter.export(&names).await?;
        lease.end().await;
        events
            .send(Message::Result(BuildResult {
                image_id: exported.image_id,
                manifest: Some(exported.manifest),
                names,
                steps: u32::try_from(steps).unwrap_or(u32::MAX),
                cached_steps: u32::try_from(cached + here).unwrap_or(u32::MAX),
            }))
            .await;
        Ok(())
    }

    async fn bases(
        &self,
        start: &BuildStart,
        needs: &Needs,
        events: &Sink,
    ) -> Result<Vec<Base>, BuildError> {
        let sources = Sources {
            pull: start.pull,
            credentials: start.credentials.clone(),
            insecure: start.insecure,
        };
        let bases = needs
            .images
            .iter()
            .map(|(name, span)| sources.base(&self.ports, name, span, events));
        try_join_all(bases).await
    }
}

fn parse(start: &BuildStart, name: &str) -> Result<Dockerfile, BuildError> {
    let text = std::str::from_utf8(&start.dockerfile).map_err(|_| BuildError::NotText {
        name: name.to_owned(),
    })?;
    Ok(dockerfile::parse(text, name)?)
}

fn names(tags: &[String]) -> Result<Vec<String>, BuildError> {
    let mut names = Vec::new();
    for tag in tags {
        let name = tag.parse::<Reference>()?.to_string();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

fn options(start: &BuildStart) -> Result<Options, BuildError> {
    let network = match start.network.as_str() {
        "" | "bridge" | "default" => "bridge",
        "none" => "none",
        "host" => "host",
        other => return Err(BuildError::Network(other.to_owned())),
    };
    let name = match start.dockerfile_name.as_str() {
        "" => "Dockerfile",
        name => name,
    };
    Ok(Options {
        name: name.chars().filter(|c| !c.is_control()).take(200).collect(),
        build_args: start.build_args.clone(),
        target: start.target.clone(),
        labels: start.labels.clone(),
        network: network.to_owned(),
    })
}

/// The files of the context that a step which is done will read.
fn files(plan: &Plan, verdicts: &Verdicts) -> Vec<usize> {
    let mut places: Vec<usize> = verdicts
        .iter()
        .filter(|(_, verdict)| matches!(verdict, Verdict::Do))
        .filter_map(|(index, _)| match &plan.vertices[*index].op {
            Op::Copy(copy) => Some(copy.items.iter()),
            _ => None,
        })
        .flatten()
        .filter(|item| !item.entry.digest.is_empty())
        .filter_map(|item| item.index)
        .collect();
    places.sort_unstable();
    places.dedup();
    places
}

fn is_pulled(plan: &Plan, base: Option<usize>) -> bool {
    base.is_some_and(|index| plan.bases[index].pulled)
}

/// Tells of the steps that stages begin with; those that begin with the same image share one. How many
/// there are, and how many of them were here.
async fn tell_sources(plan: &Plan, events: &Sink) -> (usize, usize) {
    let mut told = HashSet::new();
    let mut here = 0;
    for (index, (name, line, base)) in plan.sources.iter().enumerate() {
        let vertex = match base {
            Some(base) => plan.bases[*base].manifest.clone(),
            None => format!("from-{index}"),
        };
        if told.insert(vertex.clone()) {
            let cached = !is_pulled(plan, *base);
            here += usize::from(cached);
            events.started(&vertex, name, *line).await;
            events.completed(&vertex, cached).await;
        }
    }
    (told.len(), here)
}

/// The tree is shared with steps that outlive the build that planned them.
const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<Tree>();
};
