//! The environment, read here and nowhere else, and the options that every command has.

use std::ffi::OsString;
use std::path::PathBuf;

use orlop_wire::{Endpoint, PathArgs, Paths};

use crate::error::CliError;

/// The four services, in the order in which they are started.
pub(crate) const SERVICES: [&str; 4] = ["store", "runtime", "registry", "builder"];

/// Variables that a service started in the background inherits: the rest of a person's environment
/// is no business of a process that outlives the terminal.
const INHERITED: [&str; 19] = [
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "RUST_BACKTRACE",
    "ORLOP_LOG",
    "ORLOP_REGISTRY_HTTP",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// Options before or after the command.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct GlobalArgs {
    /// Where the services are: unix:///DIR with their sockets. Nothing is started then
    #[arg(
        short = 'H',
        long,
        env = "ORLOP_HOST",
        value_name = "ENDPOINT",
        global = true,
        hide_env_values = true
    )]
    pub(crate) host: Option<String>,

    /// Which instance on this host.
    #[command(flatten)]
    pub(crate) paths: PathArgs,
}

/// What the options and the environment say, resolved.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) paths: Paths,
    /// Where each service of [`SERVICES`] is.
    endpoints: [Endpoint; 4],
    /// Whether any endpoint was configured: services are not started then.
    pub(crate) configured: bool,
    /// Docker's configuration directory; absent without a home.
    pub(crate) docker_config: Option<PathBuf>,
    /// The directories of `PATH`.
    pub(crate) search_path: Vec<PathBuf>,
    pub(crate) detach_keys: Option<String>,
    /// Whether the terminal shall be left plain.
    pub(crate) plain: bool,
}

impl Config {
    /// Reads the environment.
    pub(crate) fn load(global: &GlobalArgs) -> Result<Self, CliError> {
        let paths = global.paths.resolve();
        let mut configured = global.host.is_some();
        let directory = global.host.as_deref().map(host_directory).transpose()?;
        let mut endpoints = SERVICES.map(|service| match &directory {
            Some(directory) => Endpoint::Unix(directory.join(format!("{service}.sock"))),
            None => paths.endpoint(service),
        });
        for (endpoint, service) in endpoints.iter_mut().zip(SERVICES) {
            let name = format!("ORLOP_{}", service.to_uppercase());
            if let Some(text) = variable(&name).filter(|text| !text.is_empty()) {
                *endpoint = text
                    .parse()
                    .map_err(|error| CliError::Usage(format!("{name}: {error}")))?;
                configured = true;
            }
        }
        let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
        let docker_config = std::env::var_os("DOCKER_CONFIG").filter(|dir| !dir.is_empty());
        Ok(Self {
            paths,
            endpoints,
            configured,
            docker_config: docker_config
                .map(PathBuf::from)
                .or_else(|| home.map(|home| PathBuf::from(home).join(".docker"))),
            search_path: std::env::var_os("PATH")
                .map(|path| std::env::split_paths(&path).collect())
                .unwrap_or_default(),
            detach_keys: variable("ORLOP_DETACH_KEYS"),
            plain: variable("NO_COLOR").is_some_and(|v| !v.is_empty())
                || variable("TERM").is_some_and(|term| term == "dumb"),
        })
    }

    /// Where a service is.
    pub(crate) fn endpoint(&self, service: &str) -> &Endpoint {
        let index = SERVICES.iter().position(|name| *name == service);
        &self.endpoints[index.unwrap_or_default()]
    }
}

/// A variable of the environment, for `-e NAME` and `--build-arg NAME`.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var_os(name).and_then(|value| value.into_string().ok())
}

/// What a background service gets of the environment.
pub(crate) fn inherited() -> Vec<(&'static str, OsString)> {
    let value = |name| std::env::var_os(name).map(|value| (name, value));
    INHERITED.iter().copied().filter_map(value).collect()
}

fn host_directory(host: &str) -> Result<PathBuf, CliError> {
    match host.parse() {
        Ok(Endpoint::Unix(path)) => Ok(path),
        _ => Err(CliError::Value {
            option: "--host",
            value: host.to_owned(),
            reason: "expected unix:///DIRECTORY; for TCP set ORLOP_STORE, ORLOP_RUNTIME, \
                     ORLOP_REGISTRY and ORLOP_BUILDER to tcp://ADDRESS:PORT"
                .to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_directory_of_sockets() {
        assert_eq!(
            host_directory("unix:///run/x").unwrap(),
            PathBuf::from("/run/x")
        );
        for bad in ["tcp://127.0.0.1:1", "run/x", ""] {
            assert!(host_directory(bad).is_err(), "{bad}");
        }
    }
}
