//! Seccomp profiles in Docker's format: JSON whose rules may depend on the container's capabilities,
//! the architecture and the kernel. What depends is decided here; what stays is a profile of the
//! runtime-spec, which the shim compiles.
//!
//! A profile fails closed (row C17): a word that is not understood is an error, never left out.

use oci_spec::runtime::{
    Arch, Capabilities, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompBuilder,
    LinuxSyscall, LinuxSyscallBuilder,
};
use serde::Deserialize;

use super::defaults::capability;
use crate::error::{Error, Result};
use crate::host::kernel_version;

/// The largest profile: Docker's own has 13 kB.
const PROFILE_BYTES_MAX: usize = 1024 * 1024;
/// Names times comparisons, so that the compiled program stays within the kernel's limit.
const RULES_MAX: usize = 4096;
/// The kernel's largest error number.
const ERRNO_MAX: u32 = 4095;
/// Docker's name of this architecture in `includes` and `excludes`.
const ARCHITECTURE: &str = if cfg!(target_arch = "x86_64") {
    "amd64"
} else {
    "arm64"
};

/// A profile as Docker writes it (`docs.docker.com/engine/security/seccomp`).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Profile {
    default_action: LinuxSeccompAction,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    architectures: Vec<Arch>,
    #[serde(default)]
    arch_map: Vec<Architecture>,
    #[serde(default)]
    syscalls: Vec<Syscalls>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Architecture {
    architecture: Arch,
    /// Those whose calls this kernel takes as well: they are answered with ENOSYS.
    #[serde(default, rename = "subArchitectures")]
    _sub_architectures: Option<Vec<Arch>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Syscalls {
    /// One of the two; the first is the older form.
    #[serde(default)]
    name: String,
    #[serde(default)]
    names: Vec<String>,
    action: LinuxSeccompAction,
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<LinuxSeccompArg>>,
    #[serde(default, rename = "comment")]
    _comment: String,
    #[serde(default)]
    includes: Condition,
    #[serde(default)]
    excludes: Condition,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Condition {
    #[serde(default)]
    caps: Vec<String>,
    #[serde(default)]
    arches: Vec<String>,
    #[serde(default)]
    min_kernel: String,
}

fn bad(problem: impl Into<String>) -> Error {
    Error::invalid("seccomp profile", problem)
}

/// The profile for a container with these capabilities, on a kernel of this version.
pub(super) fn profile(
    json: &str,
    bounding: &Capabilities,
    kernel: (u32, u32),
) -> Result<LinuxSeccomp> {
    if json.len() > PROFILE_BYTES_MAX {
        return Err(bad("it is larger than 1 MiB"));
    }
    let profile: Profile = serde_json::from_str(json).map_err(|error| bad(error.to_string()))?;
    errno(profile.default_errno_ret)?;
    answerable(profile.default_action)?;
    let (mut rules, mut weight) = (Vec::new(), 0);
    for syscalls in &profile.syscalls {
        weight += syscalls.weight();
        if weight > RULES_MAX {
            return Err(bad(format!("it has more than {RULES_MAX} rules")));
        }
        let applies = syscalls.includes.all_hold(bounding, kernel)?
            & !syscalls.excludes.any_holds(bounding, kernel)?;
        let translated = syscalls.rules()?;
        if applies {
            rules.extend(translated);
        }
    }
    let mut made = LinuxSeccompBuilder::default()
        .default_action(profile.default_action)
        .architectures(profile.architectures()?)
        .syscalls(rules)
        .build()?;
    made.set_default_errno_ret(profile.default_errno_ret);
    Ok(made)
}

fn errno(number: Option<u32>) -> Result<()> {
    match number {
        Some(number) if number > ERRNO_MAX => Err(bad(format!("{number} is not an error number"))),
        _ => Ok(()),
    }
}

fn answerable(action: LinuxSeccompAction) -> Result<()> {
    if action == LinuxSeccompAction::ScmpActNotify {
        return Err(bad("SCMP_ACT_NOTIFY needs a listener, which is not built"));
    }
    Ok(())
}

impl Profile {
    /// Those that are listed; this one must be among them, if any is.
    fn architectures(&self) -> Result<Vec<Arch>> {
        if !self.architectures.is_empty() && !self.arch_map.is_empty() {
            return Err(bad("it has both architectures and archMap"));
        }
        let mapped = self.arch_map.iter().map(|entry| entry.architecture);
        let all: Vec<Arch> = self.architectures.iter().copied().chain(mapped).collect();
        let own = if cfg!(target_arch = "x86_64") {
            Arch::ScmpArchX86_64
        } else {
            Arch::ScmpArchAarch64
        };
        if !all.is_empty() && !all.contains(&own) {
            return Err(bad(format!("it is not for {ARCHITECTURE}")));
        }
        Ok(all)
    }
}

impl Syscalls {
    /// How much it can become: a rule for each name and comparison.
    fn weight(&self) -> usize {
        let args = self.args.as_ref().map_or(0, Vec::len);
        self.names.len().max(1).saturating_mul(args.max(1))
    }

    fn names(&self) -> Result<Vec<String>> {
        match (self.name.is_empty(), self.names.is_empty()) {
            (true, false) => Ok(self.names.clone()),
            (false, true) => Ok(vec![self.name.clone()]),
            _ => Err(bad("a rule needs either name or names")),
        }
    }

    /// One rule, or, where one argument is compared several times, one for each comparison: such
    /// conditions are alternatives (as in runc).
    fn rules(&self) -> Result<Vec<LinuxSyscall>> {
        errno(self.errno_ret)?;
        let (names, args) = (self.names()?, self.args.clone().unwrap_or_default());
        answerable(self.action)?;
        if let Some(arg) = args.iter().find(|arg| arg.index() > 5) {
            return Err(bad(format!("there is no argument {}", arg.index())));
        }
        let repeated = |arg: &LinuxSeccompArg| {
            args.iter()
                .filter(|other| other.index() == arg.index())
                .count()
                > 1
        };
        let groups: Vec<Vec<LinuxSeccompArg>> = if args.iter().any(repeated) {
            args.iter().map(|arg| vec![*arg]).collect()
        } else {
            vec![args]
        };
        groups
            .into_iter()
            .map(|args| self.rule(&names, args))
            .collect()
    }

    fn rule(&self, names: &[String], args: Vec<LinuxSeccompArg>) -> Result<LinuxSyscall> {
        let mut rule = LinuxSyscallBuilder::default()
            .names(names)
            .action(self.action)
            .build()?;
        rule.set_errno_ret(self.errno_ret);
        rule.set_args(Some(args).filter(|args| !args.is_empty()));
        Ok(rule)
    }
}

impl Condition {
    fn all_hold(&self, bounding: &Capabilities, kernel: (u32, u32)) -> Result<bool> {
        let mut capabilities = true;
        for name in &self.caps {
            capabilities &= bounding.contains(&capability(name)?);
        }
        let architecture = self.arches.is_empty() || self.is_here();
        Ok(capabilities && architecture && self.is_new_enough(kernel)?.unwrap_or(true))
    }

    fn any_holds(&self, bounding: &Capabilities, kernel: (u32, u32)) -> Result<bool> {
        let mut capabilities = false;
        for name in &self.caps {
            capabilities |= bounding.contains(&capability(name)?);
        }
        Ok(capabilities || self.is_here() || self.is_new_enough(kernel)?.unwrap_or(false))
    }

    fn is_here(&self) -> bool {
        self.arches.iter().any(|name| name == ARCHITECTURE)
    }

    /// `None` where nothing is said of the kernel.
    fn is_new_enough(&self, kernel: (u32, u32)) -> Result<Option<bool>> {
        if self.min_kernel.is_empty() {
            return Ok(None);
        }
        let least = kernel_version(&self.min_kernel);
        let least = least.ok_or_else(|| bad(format!("minKernel {:?}", self.min_kernel)))?;
        Ok(Some(kernel >= least))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::Capability;

    fn names(json: &str, bounding: &[Capability]) -> Vec<String> {
        let made = profile(json, &bounding.iter().copied().collect(), (5, 10)).unwrap();
        let rules = made.syscalls().clone().unwrap_or_default();
        rules.iter().flat_map(|rule| rule.names().clone()).collect()
    }

    #[test]
    fn rules_depend_on_capabilities_architecture_and_kernel() {
        let rule = |name: &str, more: &str| {
            format!(r#"{{"names":["{name}"],"action":"SCMP_ACT_ALLOW",{more}}}"#)
        };
        let rules = [
            rule("mount", r#""includes":{"caps":["CAP_SYS_ADMIN"]}"#),
            rule("clone", r#""excludes":{"caps":["CAP_SYS_ADMIN"]}"#),
            rule("ptrace", r#""includes":{"minKernel":"4.8"}"#),
            rule("bpf", r#""includes":{"minKernel":"6.1"}"#),
            rule("read", r#""includes":{"arches":["amd64","arm64"]}"#),
            rule("write", r#""excludes":{"arches":["amd64","arm64"]}"#),
            rule(
                "breakpoint",
                r#""includes":{"arches":["arm"]},"excludes":{}"#,
            ),
        ];
        let json = format!(
            r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{}]}}"#,
            rules.join(",")
        );
        assert_eq!(names(&json, &[]), ["clone", "ptrace", "read"]);
        let admin = names(&json, &[Capability::SysAdmin]);
        assert_eq!(admin, ["mount", "ptrace", "read"]);
    }

    #[test]
    fn comparisons_of_one_argument_are_alternatives() {
        let compare =
            |index, value| format!(r#"{{"index":{index},"value":{value},"op":"SCMP_CMP_EQ"}}"#);
        let count = |args: &[String]| {
            let json = format!(
                r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[
                {{"name":"socket","action":"SCMP_ACT_ALLOW","args":[{}]}}]}}"#,
                args.join(",")
            );
            names(&json, &[]).len()
        };
        assert_eq!(count(&[compare(0, 1), compare(1, 2)]), 1);
        assert_eq!(count(&[compare(0, 1), compare(0, 2)]), 2);
    }

    #[test]
    fn a_small_profile_cannot_become_a_large_one() {
        let names = vec![r#""read""#; 1000].join(",");
        let args = vec![r#"{"index":0,"value":1,"op":"SCMP_CMP_EQ"}"#; 1000].join(",");
        let json = format!(
            r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
            {{"names":[{names}],"action":"SCMP_ACT_ERRNO","args":[{args}]}}]}}"#
        );
        let error = profile(&json, &Capabilities::new(), (6, 1)).unwrap_err();
        assert!(error.to_string().contains("rules"), "{error}");
    }

    #[test]
    fn c17_what_is_not_understood_is_an_error() {
        let rule =
            |rule: &str| format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{rule}]}}"#);
        let bad = [
            "",
            "{}",
            "[]",
            r#"{"defaultAction":"SCMP_ACT_NONE"}"#,
            r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_Z80"]}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_MIPS"]}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_LOG"]}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/x"}"#,
            r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":4096}"#,
            &rule(r#"{"action":"SCMP_ACT_ERRNO"}"#),
            &rule(r#"{"names":["read"],"action":"SCMP_ACT_DENY"}"#),
            &rule(r#"{"names":["read"],"action":"SCMP_ACT_NOTIFY"}"#),
            &rule(r#"{"name":"read","names":["read"],"action":"SCMP_ACT_ERRNO"}"#),
            &rule(r#"{"names":["read"],"action":"SCMP_ACT_ERRNO","errnoRet":5000}"#),
            &rule(r#"{"names":["read"],"action":"SCMP_ACT_ERRNO","arg":[]}"#),
            &rule(r#"{"names":["read"],"action":"SCMP_ACT_ERRNO","includes":{"caps":["CAP_X"]}}"#),
            &rule(r#"{"names":["read"],"action":"SCMP_ACT_ERRNO","includes":{"minKernel":"new"}}"#),
            &rule(
                r#"{"names":["read"],"action":"SCMP_ACT_ERRNO",
                "args":[{"index":6,"value":0,"op":"SCMP_CMP_EQ"}]}"#,
            ),
        ];
        for json in bad {
            assert!(
                profile(json, &Capabilities::new(), (6, 1)).is_err(),
                "{json}"
            );
        }
    }
}
