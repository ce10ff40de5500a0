//! Numbers of which each is in use once: of addresses in a subnet, of interfaces on the host. Nothing is
//! written down: what is taken is what a living container's record says, and what this process gave out.

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Numbers of a range, and claims of numbers outside of it. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub(crate) struct Numbers {
    range: RangeInclusive<u128>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    taken: HashSet<u128>,
    /// Where the search goes on: a number comes back as late as possible, so that nobody has its old
    /// owner in a cache.
    next: u128,
}

/// A number that is taken until this is dropped.
#[derive(Debug)]
pub(crate) struct Number {
    numbers: Numbers,
    value: u128,
}

impl Numbers {
    /// All free.
    pub(crate) fn new(range: RangeInclusive<u128>) -> Self {
        Self {
            range,
            state: Arc::default(),
        }
    }

    /// A free number of the range; `None` if there is none.
    pub(crate) fn take(&self) -> Option<Number> {
        let mut state = self.lock();
        let (first, last) = (*self.range.start(), *self.range.end());
        let start = if self.range.contains(&state.next) {
            state.next
        } else {
            first
        };
        let value = (start..=last)
            .chain(first..start)
            .find(|number| !state.taken.contains(number))?;
        state.taken.insert(value);
        state.next = value + 1;
        Some(self.number(value))
    }

    /// This number, if it is free.
    pub(crate) fn claim(&self, value: u128) -> Option<Number> {
        let new = self.lock().taken.insert(value);
        new.then(|| self.number(value))
    }

    /// Whether somebody has it.
    pub(crate) fn is_taken(&self, value: u128) -> bool {
        self.lock().taken.contains(&value)
    }

    fn number(&self, value: u128) -> Number {
        Number {
            numbers: self.clone(),
            value,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Number {
    /// The number.
    pub(crate) fn value(&self) -> u128 {
        self.value
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        self.numbers.lock().taken.remove(&self.value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_once_and_then_none() {
        let numbers = Numbers::new(2..=6);
        let taken: Vec<_> = std::iter::from_fn(|| numbers.take()).collect();
        let values: Vec<_> = taken.iter().map(Number::value).collect();
        assert_eq!(values, [2, 3, 4, 5, 6]);
        drop(taken);
        assert!(numbers.take().is_some());
    }

    #[test]
    fn a_number_comes_back_as_late_as_possible() {
        let numbers = Numbers::new(2..=6);
        drop(numbers.take());
        assert_eq!(numbers.take().unwrap().value(), 3);
    }

    #[test]
    fn what_is_claimed_is_not_given_out() {
        let numbers = Numbers::new(2..=4);
        let claimed = [numbers.claim(3).unwrap(), numbers.claim(90).unwrap()];
        assert!(numbers.claim(3).is_none() && numbers.is_taken(90));
        let rest: Vec<_> = std::iter::from_fn(|| numbers.take()).collect();
        assert_eq!(
            rest.iter().map(Number::value).collect::<Vec<_>>(),
            [2, 4],
            "{claimed:?}"
        );
    }
}
