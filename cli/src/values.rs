//! What options take as their values, parsed: ports, mounts, sizes, environments.

pub(crate) mod device;
pub(crate) mod env;
pub(crate) mod health;
pub(crate) mod keys;
pub(crate) mod label;
pub(crate) mod log;
pub(crate) mod mount;
pub(crate) mod network;
pub(crate) mod port;
pub(crate) mod quantity;
pub(crate) mod security;
pub(crate) mod time;

use crate::error::CliError;

/// An error of an option's value.
pub(crate) fn invalid(option: &'static str, value: &str, reason: impl Into<String>) -> CliError {
    CliError::Value {
        option,
        value: value.to_owned(),
        reason: reason.into(),
    }
}

/// `key=value`, or a key alone with an empty value.
pub(crate) fn pair(text: &str) -> (String, String) {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    (key.to_owned(), value.to_owned())
}
