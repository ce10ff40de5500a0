//! Seccomp: which system calls the container may make.

mod compile;
mod document;
mod profile;

use oci_spec::runtime::{LinuxSeccomp, Spec};
use orlop_sys::seccomp::Instruction;

use crate::capabilities::Sets;
use crate::error::{Error, Result};

/// The annotation by which the runtime chooses between our profile and none, where the
/// specification brings no profile of its own.
const ANNOTATION: &str = "org.orlop.seccomp";

/// Compiles the filter for a process with `capabilities`; `None` where the operator wants none.
///
/// Fails closed: an unknown word is an error, and no word at all means the default profile.
pub(crate) fn filter(spec: &Spec, capabilities: &Sets) -> Result<Option<Vec<Instruction>>> {
    if let Some(seccomp) = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.seccomp().as_ref())
    {
        return Ok(Some(compile::compile(&profile::from_spec(seccomp)?)?));
    }
    match is_confined(spec)? {
        true => Ok(Some(compile::compile(&profile::built_in(capabilities))?)),
        false => Ok(None),
    }
}

/// The same filter as a section of the specification, for another runtime.
pub(crate) fn document(spec: &Spec, capabilities: &Sets) -> Result<Option<LinuxSeccomp>> {
    let own = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.seccomp().clone());
    match own {
        Some(own) => Ok(Some(own)),
        None if is_confined(spec)? => document::of(&profile::built_in(capabilities)).map(Some),
        None => Ok(None),
    }
}

fn is_confined(spec: &Spec) -> Result<bool> {
    let word = spec
        .annotations()
        .as_ref()
        .and_then(|all| all.get(ANNOTATION));
    match word.map(String::as_str) {
        None | Some("default") => Ok(true),
        Some("unconfined") => Ok(false),
        Some(other) => Err(Error::SeccompProfile(format!(
            "{other:?} is neither default nor unconfined"
        ))),
    }
}
