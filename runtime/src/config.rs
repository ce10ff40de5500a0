//! The options of the service; nothing else reads arguments or the environment.

use std::path::PathBuf;

use crate::network::Publishing;
use orlop_wire::{Endpoint, Paths, ServiceArgs};

const AUTO: &str = "auto";
const SHIM_NAME: &str = "orlop-shim";

/// Runs containers.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "orlop-runtime", version)]
pub struct Config {
    /// Which instance, where to serve, what to log.
    #[command(flatten)]
    pub service: ServiceArgs,

    /// Where the store serves [default: the store's socket in the run directory]
    #[arg(long, value_name = "ENDPOINT")]
    pub store: Option<Endpoint>,

    /// The program that starts one container and stays with it [default: orlop-shim beside this program]
    #[arg(long, value_name = "FILE")]
    pub shim: Option<PathBuf>,

    /// The OCI runtime that makes containers for which none is asked: a path or a name [default: orlop's own]
    #[arg(long, value_name = "PATH")]
    pub runtime: Option<String>,

    /// Let no container gain privileges (`sudo` and setuid programs stop working)
    #[arg(long)]
    pub no_new_privileges: bool,

    /// Give containers user ids of their own: auto, or the user whose ranges in /etc/subuid and /etc/subgid
    /// they get; `--userns host` opts out
    #[arg(long, value_name = "auto|USER")]
    pub userns_remap: Option<String>,

    /// Network namespaces that are prepared ahead
    #[arg(long, value_name = "NUMBER", default_value_t = 4)]
    pub network_pool: usize,

    /// How published ports reach containers, unless their network says it: forwarded, whatever the host's
    /// own input rules say, or relayed by this service behind these rules
    #[arg(long, value_enum, value_name = "WAY", default_value = "forward")]
    pub published_ports: Publishing,

    /// Bytes of a container's log at which it is rotated, unless it says another; two files are kept
    #[arg(long, value_name = "BYTES", default_value_t = 64 * 1024 * 1024)]
    pub log_bytes_max: u64,
}

impl Config {
    /// The directories of the instance.
    pub fn paths(&self) -> Paths {
        self.service.paths.resolve()
    }

    /// Where to serve.
    pub fn endpoint(&self) -> Endpoint {
        let own = || self.paths().endpoint("runtime");
        self.service.listen.clone().unwrap_or_else(own)
    }

    /// The user whose ids containers get; `None`: of whoever has some for containers.
    pub fn subordinate_user(&self) -> Option<&str> {
        self.userns_remap.as_deref().filter(|user| *user != AUTO)
    }

    /// Whose ids a container has that does not say.
    pub fn default_userns(&self) -> &'static str {
        match self.userns_remap {
            Some(_) => AUTO,
            None => "",
        }
    }

    /// Where the store serves.
    pub fn store_endpoint(&self) -> Endpoint {
        let local = || self.paths().endpoint("store");
        self.store.clone().unwrap_or_else(local)
    }

    /// The directories in which runtimes are looked for.
    pub fn search_path(&self) -> Vec<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).collect()
    }

    /// The shim's file: as given, or beside the running program, or in the directory above it (where
    /// test binaries run from).
    pub fn shim_file(&self) -> PathBuf {
        if let Some(shim) = &self.shim {
            return shim.clone();
        }
        let exe = std::env::current_exe().unwrap_or_default();
        let beside = exe.with_file_name(SHIM_NAME);
        let above = exe
            .parent()
            .and_then(|directory| directory.parent())
            .map(|directory| directory.join(SHIM_NAME));
        match above {
            Some(above) if !beside.exists() && above.exists() => above,
            _ => beside,
        }
    }
}
