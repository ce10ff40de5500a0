//! Build arguments: which exist without being declared, and which are never told.

use std::collections::HashMap;

/// Arguments that may be given without ARG, and that count neither for the cache nor for the history
/// (Dockerfile reference, "Predefined ARGs").
const PROXIES: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

pub(super) fn is_proxy(name: &str) -> bool {
    PROXIES.contains(&name)
}

/// Operating system and architecture of this host, in Go's words.
pub fn own_platform() -> (&'static str, &'static str) {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    };
    (std::env::consts::OS, architecture)
}

/// The platform arguments, which ARG can bring into a stage and FROM can use.
pub(super) fn automatic() -> HashMap<String, String> {
    let (os, architecture) = own_platform();
    let mut args = HashMap::new();
    for prefix in ["TARGET", "BUILD"] {
        args.insert(format!("{prefix}PLATFORM"), format!("{os}/{architecture}"));
        args.insert(format!("{prefix}OS"), os.to_owned());
        args.insert(format!("{prefix}ARCH"), architecture.to_owned());
        args.insert(format!("{prefix}VARIANT"), String::new());
    }
    args
}
