//! Subordinate ids: ranges of user and group ids that belong to nobody, one for each container that runs
//! in a user namespace of its own.
//!
//! They are those that `/etc/subuid` and `/etc/subgid` both give a user: by its name, by that of
//! [`USERS`] who is there, else [`FALLBACK`]. No two containers have the same id at once.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Users whose ranges are for containers. The second is Podman's.
const USERS: [&str; 2] = ["orlop", "containers"];
/// The upper half of all ids, which no distribution gives to people or services; the last id of all is
/// "none".
const FALLBACK: IdRange = IdRange {
    first: 1 << 31,
    size: (1 << 31) - 65536,
};
const FILES: [&str; 2] = ["/etc/subuid", "/etc/subgid"];
/// The largest file that is read.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// User ids, and group ids with the same numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// The host's number of the container's root.
    pub first: u32,
    /// How many.
    pub size: u32,
}

impl IdRange {
    fn end(self) -> u64 {
        u64::from(self.first) + u64::from(self.size)
    }

    fn common(self, other: Self) -> Option<Self> {
        let first = self.first.max(other.first);
        let end = self.end().min(other.end());
        let size = u32::try_from(end.checked_sub(first.into())?).ok()?;
        (size > 0).then_some(Self { first, size })
    }
}

/// Which ranges there are, and who has which.
#[derive(Debug)]
pub(crate) struct SubIds {
    pools: Vec<IdRange>,
    taken: Mutex<HashMap<String, IdRange>>,
}

impl SubIds {
    /// The ranges of `user`, who must have some; without one, those of whoever has them for containers.
    pub(crate) fn open(user: Option<&str>) -> Result<Self> {
        let [users, groups] = FILES.map(|path| read(Path::new(path)));
        let (users, groups) = (users?, groups?);
        let own = |name: &str| common(&ranges(&users, name), &ranges(&groups, name));
        let pools = match user {
            Some(name) => own(name),
            None => {
                let found = USERS.map(own).into_iter().find(|all| !all.is_empty());
                found.unwrap_or_else(|| vec![FALLBACK])
            }
        };
        match user {
            Some(name) if pools.is_empty() => Err(Error::NoSubordinateIds(name.to_owned())),
            _ => Ok(Self::of(pools)),
        }
    }

    fn of(pools: Vec<IdRange>) -> Self {
        Self {
            pools,
            taken: Mutex::default(),
        }
    }

    /// A range for a container, its own until [`SubIds::release`].
    pub(crate) fn take(&self, container: &str, size: u32) -> Result<IdRange> {
        let mut taken = self.lock();
        let free = self.pools.iter().find_map(|pool| fit(*pool, size, &taken));
        let free = free.ok_or(Error::SubordinateIdsExhausted(size))?;
        taken.insert(container.to_owned(), free);
        Ok(free)
    }

    /// A container that runs has this one already.
    pub(crate) fn keep(&self, container: &str, range: IdRange) {
        self.lock().insert(container.to_owned(), range);
    }

    /// The container does not run any more. Idempotent.
    pub(crate) fn release(&self, container: &str) {
        self.lock().remove(container);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, IdRange>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The lowest place in the pool that nobody has.
fn fit(pool: IdRange, size: u32, taken: &HashMap<String, IdRange>) -> Option<IdRange> {
    let mut inside: Vec<IdRange> = taken.values().filter_map(|t| t.common(pool)).collect();
    inside.sort_by_key(|range| range.first);
    let mut first = u64::from(pool.first);
    for range in inside {
        if first + u64::from(size) <= range.first.into() {
            break;
        }
        first = first.max(range.end());
    }
    let fits = first + u64::from(size) <= pool.end();
    let first = u32::try_from(first).ok().filter(|_| fits)?;
    Some(IdRange { first, size })
}

fn read(path: &Path) -> Result<String> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    match std::fs::File::open(path) {
        Ok(file) => file
            .take(FILE_BYTES_MAX)
            .read_to_end(&mut bytes)
            .map_err(Error::file("read", path))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
        Err(error) => return Err(Error::file("read", path)(error)),
    };
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The lines `name:first:size` of one user, as subuid(5) has them. The host's root is never given away,
/// nor is the id that means "none".
fn ranges(text: &str, user: &str) -> Vec<IdRange> {
    let parse = |line: &str| {
        let mut fields = line.trim().split(':');
        if fields.next()? != user {
            return None;
        }
        let first = fields.next()?.parse().ok()?;
        let size: u32 = fields.next()?.parse().ok()?;
        let usable = first > 0 && u64::from(first) + u64::from(size) <= u64::from(u32::MAX);
        usable.then_some(IdRange { first, size })
    };
    text.lines().filter_map(parse).collect()
}

fn common(users: &[IdRange], groups: &[IdRange]) -> Vec<IdRange> {
    let pairs = users
        .iter()
        .flat_map(|user| groups.iter().filter_map(|group| user.common(*group)));
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(first: u32, size: u32) -> IdRange {
        IdRange { first, size }
    }

    #[test]
    fn the_lines_of_one_user_are_read_and_those_that_make_no_sense_are_not() {
        let text = "alice:100000:65536\norlop:200000:10\n\n# orlop:1:1\norlop:0:5\norlop:x:5\n\
                    orlop:4294967295:2\norlop:300000:20:more\n";
        assert_eq!(
            ranges(text, "orlop"),
            [range(200_000, 10), range(300_000, 20)]
        );
        assert_eq!(ranges(text, "bob"), []);
    }

    #[test]
    fn only_numbers_that_are_users_and_groups_are_given() {
        let users = [range(100, 100), range(1000, 10)];
        assert_eq!(
            common(&users, &[range(150, 1000)]),
            [range(150, 50), range(1000, 10)]
        );
        assert_eq!(common(&users, &[range(200, 800)]), []);
    }

    #[test]
    fn what_is_given_back_is_given_again_and_no_more_than_there_is() {
        let ids = SubIds::of(vec![range(1000, 20), range(5000, 5)]);
        assert_eq!(ids.take("a", 10).unwrap(), range(1000, 10));
        assert_eq!(ids.take("b", 10).unwrap(), range(1010, 10));
        assert_eq!(ids.take("c", 5).unwrap(), range(5000, 5));
        let error = ids.take("d", 1).unwrap_err();
        assert!(error.to_string().contains("/etc/subuid"), "{error}");
        ids.release("a");
        ids.keep("e", range(1002, 1));
        assert_eq!(ids.take("d", 7).unwrap(), range(1003, 7));
    }

    proptest! {
        #[test]
        fn no_two_containers_have_one_id(sizes in prop::collection::vec((1u32..50, any::<bool>()), 1..40)) {
            let ids = SubIds::of(vec![range(1, 200), range(1000, 100)]);
            let mut had: Vec<(String, IdRange)> = Vec::new();
            for (number, (size, ends)) in sizes.into_iter().enumerate() {
                let name = number.to_string();
                let Ok(new) = ids.take(&name, size) else { continue };
                prop_assert_eq!(new.size, size);
                prop_assert!(had.iter().all(|(_, other)| other.common(new).is_none()));
                prop_assert!(ids.pools.iter().any(|pool| pool.common(new) == Some(new)));
                match ends {
                    true => ids.release(&name),
                    false => had.push((name, new)),
                }
            }
        }
    }
}
