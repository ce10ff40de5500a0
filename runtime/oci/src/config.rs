//! What the environment says.
#![allow(clippy::disallowed_methods, reason = "the environment is read here")]

/// The variables that are read.
pub(crate) const VARIABLES: [&str; 2] = ["LISTEN_FDS", "LISTEN_PID"];

/// How many sockets a service manager gave to this process, from descriptor 3 on (sd_listen_fds(3)).
pub(crate) fn listening() -> u32 {
    let number = |name| {
        let value = std::env::var(name).ok();
        value.and_then(|value| value.parse::<u32>().ok())
    };
    let ours = number("LISTEN_PID") == Some(std::process::id());
    number("LISTEN_FDS").filter(|_| ours).unwrap_or(0)
}
