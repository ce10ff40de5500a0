//! Which vertices of a plan must be done, and doing them: independent ones at the same time, each once,
//! and none that only a cached step would have needed.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt as _, Shared, try_join_all};

use crate::cache::{Cache, Record};
use crate::error::{BuildError, Doing as _};
use crate::events::Sink;
use crate::flight::Flights;
use crate::ops::{Task, perform};
use crate::plan::{Op, Plan, Root};
use crate::ports::Ports;

type Answer<T> = Shared<BoxFuture<'static, Result<T, BuildError>>>;

/// What a vertex comes to.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// A record says what it made, and that is still there.
    Cached(Box<Record>),
    /// It must be done.
    Do,
}

/// A verdict for each vertex that the target needs.
pub type Verdicts = HashMap<usize, Verdict>;

/// The parts of a solver.
#[derive(Clone, Debug)]
pub struct Solver {
    /// The other services.
    pub ports: Ports,
    /// What was done before.
    pub cache: Cache,
    /// What is being done.
    pub flights: Flights,
    /// Who listens.
    pub events: Sink,
    /// The build's lease, which is also its name.
    pub lease: String,
    /// Do everything again.
    pub no_cache: bool,
}

impl Solver {
    /// Decides, from the target down: below a tree that is still there nothing is looked at.
    pub async fn decide(&self, plan: &Plan) -> Result<Verdicts, BuildError> {
        let mut verdicts = Verdicts::new();
        let mut open = vec![plan.target.root.clone()];
        while let Some(root) = open.pop() {
            let Root::Vertex(top) = root else { continue };
            if verdicts.contains_key(&top) {
                continue;
            }
            if let Some(records) = self.cached(plan, top).await? {
                for (index, record) in records {
                    verdicts.insert(index, Verdict::Cached(Box::new(record)));
                }
                continue;
            }
            verdicts.insert(top, Verdict::Do);
            let vertex = &plan.vertices[top];
            open.push(vertex.parent.clone());
            if let Op::CopyFrom { from, .. } = &vertex.op {
                open.push(from.clone());
            }
        }
        Ok(verdicts)
    }

    /// The records of a vertex and of all below it, if they fit together and the tree exists. A
    /// snapshot cannot go before its children, so that the topmost one answers for all.
    async fn cached(
        &self,
        plan: &Plan,
        top: usize,
    ) -> Result<Option<Vec<(usize, Record)>>, BuildError> {
        if self.no_cache {
            return Ok(None);
        }
        let mut records: Vec<(usize, Record)> = Vec::new();
        for index in plan.chain(&Root::Vertex(top)).into_iter().rev() {
            let Some(record) = self.cache.get(&plan.vertices[index].key)? else {
                return Ok(None);
            };
            if records
                .last()
                .is_some_and(|(_, above)| above.parent != record.snapshot)
            {
                return Ok(None);
            }
            records.push((index, record));
        }
        let Some((_, record)) = records.first() else {
            return Ok(None);
        };
        let doing = || format!("looking for cached step {}", record.description);
        let exists = self
            .ports
            .layers
            .exists(&record.snapshot)
            .await
            .doing(doing)?;
        Ok(exists.then_some(records))
    }

    /// Does what must be done; the record of each vertex of the verdicts.
    pub async fn execute(
        &self,
        plan: &Plan,
        verdicts: &Verdicts,
    ) -> Result<HashMap<usize, (Record, bool)>, BuildError> {
        let mut order: Vec<usize> = verdicts.keys().copied().collect();
        order.sort_unstable();
        let bases: Vec<Answer<String>> = (0..plan.bases.len())
            .map(|i| self.unpack(plan, i))
            .collect();
        let mut answers: HashMap<usize, Answer<(Record, bool)>> = HashMap::new();
        for index in order.iter().copied() {
            let answer = match &verdicts[&index] {
                Verdict::Cached(record) => self.found(plan, index, record),
                Verdict::Do => self.doing(plan, index, &answers, &bases),
            };
            answers.insert(index, answer);
        }
        let all = order.iter().map(|index| answers[index].clone());
        let records = try_join_all(all).await?;
        Ok(order.into_iter().zip(records).collect())
    }

    fn unpack(&self, plan: &Plan, index: usize) -> Answer<String> {
        let (ports, lease) = (self.ports.clone(), self.lease.clone());
        let base = &plan.bases[index];
        let (manifest, name) = (base.manifest.clone(), base.name.clone());
        async move {
            let unpacked = ports.layers.unpack(&manifest, &lease).await;
            unpacked.doing(|| format!("unpacking base image {name}"))
        }
        .boxed()
        .shared()
    }

    fn found(&self, plan: &Plan, index: usize, record: &Record) -> Answer<(Record, bool)> {
        let (events, cache, record) = (self.events.clone(), self.cache.clone(), record.clone());
        let vertex = &plan.vertices[index];
        let (key, name, line) = (vertex.key.clone(), vertex.name.clone(), vertex.span.line);
        async move {
            events.started(&key, &name, line).await;
            cache.touch(&record)?;
            events.completed(&key, true).await;
            Ok((record, true))
        }
        .boxed()
        .shared()
    }

    fn doing(
        &self,
        plan: &Plan,
        index: usize,
        answers: &HashMap<usize, Answer<(Record, bool)>>,
        bases: &[Answer<String>],
    ) -> Answer<(Record, bool)> {
        let vertex = Arc::new(plan.vertices[index].clone());
        let tree = |root: &Root| tree(root, answers, bases);
        let parent = tree(&vertex.parent);
        let from = match &vertex.op {
            Op::CopyFrom { from, .. } => tree(from),
            _ => tree(&Root::Empty),
        };
        let solver = self.clone();
        async move {
            let (parent, from) = tokio::try_join!(parent, from)?;
            solver.perform(vertex, parent, from).await
        }
        .boxed()
        .shared()
    }

    async fn perform(
        &self,
        vertex: Arc<crate::plan::Vertex>,
        parent: String,
        from: String,
    ) -> Result<(Record, bool), BuildError> {
        let events = &self.events;
        let key = vertex.key.clone();
        events.started(&key, &vertex.name, vertex.span.line).await;
        // A build that does all again shares with none, and steps over different trees are not equal.
        let own = if self.no_cache {
            self.lease.as_str()
        } else {
            ""
        };
        let name = format!("{key} {parent} {own}");
        let task = Task {
            ports: self.ports.clone(),
            cache: self.cache.clone(),
            vertex,
            parent,
            from,
            lease: self.lease.clone(),
            again: self.no_cache,
        };
        let outcome = self
            .flights
            .join(&name, events, &key, |log| perform(task, log))
            .await;
        match &outcome {
            Ok((_, cached)) => events.completed(&key, *cached).await,
            Err(error) => events.failed(&key, &orlop_proto::error::chain(error)).await,
        }
        outcome
    }
}

/// The name of a tree's snapshot, once it is there.
fn tree(
    root: &Root,
    answers: &HashMap<usize, Answer<(Record, bool)>>,
    bases: &[Answer<String>],
) -> BoxFuture<'static, Result<String, BuildError>> {
    match root {
        Root::Empty => async { Ok(String::new()) }.boxed(),
        Root::Image(index) => bases[*index].clone().boxed(),
        Root::Vertex(index) => match answers.get(index).cloned() {
            Some(answer) => async move { Ok(answer.await?.0.snapshot) }.boxed(),
            None => async { Err(BuildError::Cancelled) }.boxed(),
        },
    }
}
