//! Which snapshot is built on which, for a look at all of them at once.

use std::sync::Arc;

use ahash::HashMap;

use crate::snapshots::record::Record;

/// All snapshots of one list, by their positions in it.
#[derive(Debug)]
pub(super) struct Family<'a> {
    all: &'a [Arc<Record>],
    /// What each is built on, if it is in the list.
    pub(super) parents: Vec<Option<usize>>,
}

impl<'a> Family<'a> {
    pub(super) fn of(all: &'a [Arc<Record>]) -> Self {
        let positions: HashMap<&str, usize> = all
            .iter()
            .enumerate()
            .map(|(at, record)| (record.key.as_str(), at))
            .collect();
        let parent = |record: &Arc<Record>| positions.get(record.parent.as_deref()?).copied();
        Self {
            all,
            parents: all.iter().map(parent).collect(),
        }
    }

    /// Which of them are roots or below one.
    pub(super) fn reached(&self, is_root: impl Fn(usize, &Record) -> bool) -> Vec<bool> {
        let mut reached = vec![false; self.all.len()];
        for (at, record) in self.all.iter().enumerate() {
            let mut next = is_root(at, record).then_some(at);
            while let Some(at) = next.filter(|at| !reached[*at]) {
                reached[at] = true;
                next = self.parents[at];
            }
        }
        reached
    }

    /// All of them, each before what it is built on.
    pub(super) fn children_first(&self) -> Vec<usize> {
        let mut children = vec![0_usize; self.all.len()];
        for parent in self.parents.iter().flatten() {
            children[*parent] += 1;
        }
        let mut order: Vec<usize> = (0..self.all.len())
            .filter(|at| children[*at] == 0)
            .collect();
        let mut looked = 0;
        while let Some(at) = order.get(looked).copied() {
            looked += 1;
            let Some(parent) = self.parents[at] else {
                continue;
            };
            children[parent] -= 1;
            if children[parent] == 0 {
                order.push(parent);
            }
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshots::record::Kind;

    fn record(key: &str, parent: Option<&str>) -> Arc<Record> {
        let parent = parent.map(str::to_owned);
        Arc::new(Record::new(
            key,
            Kind::Committed,
            parent,
            std::collections::HashMap::new(),
        ))
    }

    fn some() -> Vec<Arc<Record>> {
        vec![
            record("base", None),
            record("one", Some("base")),
            record("above one", Some("one")),
            record("two", Some("base")),
            record("lost", Some("gone")),
        ]
    }

    #[test]
    fn a_root_reaches_all_that_it_is_built_on_and_no_more() {
        let all = some();
        let reached = Family::of(&all).reached(|_, record| record.key == "one");
        assert_eq!(reached, [true, true, false, false, false]);
    }

    #[test]
    fn children_come_before_their_parents() {
        let all = some();
        let order = Family::of(&all).children_first();
        let place = |key: &str| order.iter().position(|at| all[*at].key == key).unwrap();
        assert_eq!(order.len(), all.len());
        assert!(place("above one") < place("one"));
        assert!(place("one") < place("base"));
        assert!(place("two") < place("base"));
    }
}
