//! The built-in profile as a section of the OCI specification: by the names of system calls.

use std::collections::BTreeMap;

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompOperator, LinuxSyscall,
};
use orlop_sys::syscalls::SYSCALLS;

use super::profile::{ALLOW, Comparison, Condition, EPERM, ERRNO_MAX, Profile, Rules};
use crate::error::{Error, Result};

/// The profile's rules. What has none is EPERM; runtimes make that ENOSYS for whatever is newer than all
/// that the rules name.
pub(super) fn of(profile: &Profile) -> Result<LinuxSeccomp> {
    let names: BTreeMap<u32, &str> = SYSCALLS.iter().map(|entry| (entry.1, entry.0)).collect();
    let mut plain: BTreeMap<u32, Vec<&str>> = BTreeMap::new();
    let mut syscalls = Vec::new();
    for (number, rules) in &profile.rules {
        let Some(name) = names.get(number) else {
            continue;
        };
        match rules {
            Rules::Always(action) => plain.entry(*action).or_default().push(name),
            Rules::Conditional(rules) => {
                for (conditions, action) in rules {
                    syscalls.push(syscall(&[name], *action, conditions)?);
                }
            }
        }
    }
    for (action, names) in &plain {
        syscalls.push(syscall(names, *action, &[])?);
    }
    let mut document = LinuxSeccomp::default();
    document
        .set_default_action(LinuxSeccompAction::ScmpActErrno)
        .set_default_errno_ret(Some(EPERM))
        .set_syscalls(Some(syscalls));
    Ok(document)
}

fn syscall(names: &[&str], action: u32, conditions: &[Condition]) -> Result<LinuxSyscall> {
    let mut syscall = LinuxSyscall::default();
    syscall.set_names(names.iter().map(|&name| name.to_owned()).collect());
    match action {
        ALLOW => syscall.set_action(LinuxSeccompAction::ScmpActAllow),
        error => syscall
            .set_action(LinuxSeccompAction::ScmpActErrno)
            .set_errno_ret(Some(error & ERRNO_MAX)),
    };
    let args: Vec<_> = conditions.iter().map(argument).collect::<Result<_>>()?;
    syscall.set_args(Some(args).filter(|args| !args.is_empty()));
    Ok(syscall)
}

fn argument(condition: &Condition) -> Result<LinuxSeccompArg> {
    use LinuxSeccompOperator as Operator;
    let (operator, value) = match condition.comparison {
        Comparison::Equal => (Operator::ScmpCmpEq, condition.value),
        Comparison::NotEqual => (Operator::ScmpCmpNe, condition.value),
        Comparison::Less => (Operator::ScmpCmpLt, condition.value),
        Comparison::AtMost => (Operator::ScmpCmpLe, condition.value),
        Comparison::Greater => (Operator::ScmpCmpGt, condition.value),
        Comparison::AtLeast => (Operator::ScmpCmpGe, condition.value),
        Comparison::Masked(mask) => (Operator::ScmpCmpMaskedEq, mask),
    };
    let argument = LinuxSeccompArgBuilder::default()
        .index(condition.argument as usize)
        .op(operator)
        .value(value);
    let argument = match condition.comparison {
        Comparison::Masked(_) => argument.value_two(condition.value),
        _ => argument,
    };
    argument
        .build()
        .map_err(|error| Error::SeccompProfile(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capabilities::Sets;
    use crate::seccomp::profile;

    #[test]
    fn what_is_written_is_read_back_as_the_same_rules() {
        let profile = profile::built_in(&Sets::from_spec(None));
        let again = profile::from_spec(&of(&profile).unwrap()).unwrap();
        assert_eq!(again.rules, profile.rules);
        let unlisted = orlop_sys::syscalls::number("reboot").unwrap();
        assert_eq!(again.otherwise(unlisted), profile.otherwise(unlisted));
    }
}
