//! Limits of each process, by the names that shells give them.

use oci_spec::runtime::{PosixRlimit, PosixRlimitBuilder, PosixRlimitType};
use orlop_proto::runtime::Ulimit;
use rustix::process::Resource;

use super::defaults;
use crate::error::{Error, Result};
use crate::host::{Host, hard_limit};

/// Docker's names (go-units), and `as`.
const NAMES: [(&str, PosixRlimitType, Resource); 16] = [
    ("as", PosixRlimitType::RlimitAs, Resource::As),
    ("core", PosixRlimitType::RlimitCore, Resource::Core),
    ("cpu", PosixRlimitType::RlimitCpu, Resource::Cpu),
    ("data", PosixRlimitType::RlimitData, Resource::Data),
    ("fsize", PosixRlimitType::RlimitFsize, Resource::Fsize),
    ("locks", PosixRlimitType::RlimitLocks, Resource::Locks),
    ("memlock", PosixRlimitType::RlimitMemlock, Resource::Memlock),
    (
        "msgqueue",
        PosixRlimitType::RlimitMsgqueue,
        Resource::Msgqueue,
    ),
    ("nice", PosixRlimitType::RlimitNice, Resource::Nice),
    ("nofile", PosixRlimitType::RlimitNofile, Resource::Nofile),
    ("nproc", PosixRlimitType::RlimitNproc, Resource::Nproc),
    ("rss", PosixRlimitType::RlimitRss, Resource::Rss),
    ("rtprio", PosixRlimitType::RlimitRtprio, Resource::Rtprio),
    ("rttime", PosixRlimitType::RlimitRttime, Resource::Rttime),
    (
        "sigpending",
        PosixRlimitType::RlimitSigpending,
        Resource::Sigpending,
    ),
    ("stack", PosixRlimitType::RlimitStack, Resource::Stack),
];

/// All limits of a process: what was asked for, and the floor's where nothing was.
pub(super) fn all(asked: &[Ulimit], host: &Host) -> Result<Vec<PosixRlimit>> {
    let mut limits = defaults::rlimits(host)?;
    for ulimit in asked {
        let (kind, _) = known(&ulimit.name)?;
        let limit = PosixRlimitBuilder::default()
            .typ(kind)
            .soft(value(ulimit.soft))
            .hard(value(ulimit.hard))
            .build()?;
        limits.retain(|other| other.typ() != kind);
        limits.push(limit);
    }
    Ok(limits)
}

/// Refuses limits that no kernel knows.
pub(super) fn check(asked: &[Ulimit]) -> Result<()> {
    for ulimit in asked {
        known(&ulimit.name)?;
        let Ulimit { name, soft, hard } = ulimit;
        let problem = if *soft < -1 || *hard < -1 {
            format!("{name}={soft}:{hard}: expected numbers, or -1 for no limit")
        } else if value(*soft) > value(*hard) {
            format!("{name}={soft}:{hard}: the soft limit is above the hard one")
        } else {
            continue;
        };
        return Err(Error::invalid("ulimit", problem));
    }
    Ok(())
}

/// What a person is told of limits that this host cannot give.
pub fn warnings(asked: &[Ulimit], host: &Host) -> Vec<String> {
    let beyond = |ulimit: &Ulimit| {
        let (_, resource) = known(&ulimit.name).ok()?;
        let most = hard_limit(resource);
        let name = &ulimit.name;
        (value(ulimit.hard) > most).then(|| {
            format!(
                "the limit {name} cannot be more than {most} on this host: that is what it will be"
            )
        })
    };
    if host.may_raise_limits() {
        return Vec::new();
    }
    asked.iter().filter_map(beyond).collect()
}

fn known(name: &str) -> Result<(PosixRlimitType, Resource)> {
    let found = NAMES.iter().find(|entry| entry.0 == name);
    found.map(|entry| (entry.1, entry.2)).ok_or_else(|| {
        let shown: String = name.chars().take(64).collect();
        let names: Vec<&str> = NAMES.iter().map(|entry| entry.0).collect();
        let problem = format!("{shown:?}: there are {}", names.join(", "));
        Error::invalid("ulimit", problem)
    })
}

/// -1 stands for no limit, which the kernel writes as the largest number.
fn value(asked: i64) -> u64 {
    u64::try_from(asked).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ulimit(name: &str, soft: i64, hard: i64) -> Ulimit {
        Ulimit {
            name: name.to_owned(),
            soft,
            hard,
        }
    }

    fn made(asked: &[Ulimit]) -> Vec<(PosixRlimitType, u64, u64)> {
        let host = Host {
            open_files_max: 4096,
            core_max: 9,
            ..Host::this().clone()
        };
        let limits = all(asked, &host).unwrap();
        limits
            .iter()
            .map(|l| (l.typ(), l.soft(), l.hard()))
            .collect()
    }

    #[test]
    fn what_was_asked_for_takes_the_place_of_the_floor() {
        use PosixRlimitType::{RlimitCore, RlimitNofile};
        let floor = [(RlimitNofile, 1024, 4096), (RlimitCore, 0, 9)];
        assert_eq!(made(&[]), floor);
        let asked = [ulimit("core", 0, -1), ulimit("nofile", 10, 20)];
        let expected = [(RlimitCore, 0, u64::MAX), (RlimitNofile, 10, 20)];
        assert_eq!(made(&asked), expected);
    }

    #[test]
    fn the_last_of_two_equal_names_counts() {
        let asked = [ulimit("nofile", 1, 2), ulimit("nofile", 3, 4)];
        let nofile = (PosixRlimitType::RlimitNofile, 3, 4);
        assert_eq!(made(&asked).last(), Some(&nofile));
    }

    #[test]
    fn impossible_limits_are_refused() {
        for bad in [
            ulimit("files", 1, 1),
            ulimit("", 1, 1),
            ulimit("nofile", 2, 1),
            ulimit("nofile", -1, 1),
            ulimit("nofile", -2, -1),
        ] {
            assert!(check(std::slice::from_ref(&bad)).is_err(), "{bad:?}");
        }
        check(&[ulimit("core", 0, -1)]).unwrap();
    }
}
