//! Descriptors of the caller's that a process gets besides its streams: those of socket activation
//! (`LISTEN_FDS`, sd_listen_fds(3)), then those of `--preserve-fds`.

use std::path::Path;

use oci_spec::runtime::Spec;

use crate::config;
use crate::error::{Error, Result};

/// The number of the first.
const FIRST: u32 = 3;

/// How many, of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Descriptors {
    listening: u32,
    preserved: u32,
}

impl Descriptors {
    /// Those of a new container, each of which has to be open. To be called before anything else is.
    pub(crate) fn find(preserved: u32) -> Result<Self> {
        Self::open(config::listening(), preserved)
    }

    /// Those of one more process.
    pub(crate) fn preserved(preserved: u32) -> Result<Self> {
        Self::open(0, preserved)
    }

    fn open(listening: u32, preserved: u32) -> Result<Self> {
        let count = listening.saturating_add(preserved);
        let is_open = |number: &u32| Path::new(&format!("/proc/self/fd/{number}")).is_symlink();
        match (FIRST..FIRST.saturating_add(count)).find(|number| !is_open(number)) {
            Some(number) => Err(Error::Descriptor(number)),
            None => Ok(Self {
                listening,
                preserved,
            }),
        }
    }

    /// All of them.
    pub(crate) fn count(self) -> u32 {
        self.listening + self.preserved
    }

    /// Tells the first process of the sockets, as its service manager would.
    pub(crate) fn announce(self, spec: &mut Spec) {
        if self.listening == 0 {
            return;
        }
        if let Some(process) = spec.process_mut() {
            let mut env = process.env().clone().unwrap_or_default();
            env.push(format!("LISTEN_FDS={}", self.listening));
            env.push("LISTEN_PID=1".to_owned());
            process.set_env(Some(env));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_that_is_not_open_is_named() {
        let Err(Error::Descriptor(number)) = Descriptors::preserved(10_000) else {
            unreachable!("no test has so many files open");
        };
        assert!(number < 10_003, "{number}");
    }

    #[test]
    fn only_sockets_are_announced() {
        let mut spec = Spec::default();
        let listening = Descriptors {
            listening: 2,
            preserved: 1,
        };
        listening.announce(&mut spec);
        let env = |spec: &Spec| spec.process().clone().unwrap().env().clone().unwrap();
        assert!(env(&spec).ends_with(&["LISTEN_FDS=2".to_owned(), "LISTEN_PID=1".to_owned()]));
        let before = env(&spec);
        let preserved = Descriptors {
            listening: 0,
            ..listening
        };
        preserved.announce(&mut spec);
        assert_eq!(env(&spec), before);
    }
}
