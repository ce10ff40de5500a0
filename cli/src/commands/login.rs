//! `orlop login`.

use std::io::Read as _;
use std::process::ExitCode;

use clap::Args;
use orlop_proto::reference::DOCKER_HUB;
use orlop_proto::registry::LoginRequest;
use orlop_proto::types::Credential;

use crate::app::Context;
use crate::docker_config::DockerConfig;
use crate::error::{CliError, system};
use crate::ui::{self, terminal};

/// The longest password that is read from standard input.
const PASSWORD_BYTES_MAX: u64 = 64 * 1024;

/// Log in to a registry
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orlop login -u me registry.example.com")]
pub(crate) struct LoginArgs {
    /// The registry's host [default: docker.io]
    server: Option<String>,

    /// User name
    #[arg(short, long, value_name = "NAME")]
    username: Option<String>,

    /// Password (other processes can see it here; better is --password-stdin)
    #[arg(
        short,
        long,
        value_name = "PASSWORD",
        conflicts_with = "password_stdin"
    )]
    password: Option<String>,

    /// Read the password from standard input
    #[arg(long, requires = "username")]
    password_stdin: bool,

    /// Allow plain HTTP to this registry though it is not on loopback
    #[arg(long)]
    insecure: bool,
}

/// Runs the command.
pub(super) async fn run(args: LoginArgs, context: &Context) -> Result<ExitCode, CliError> {
    let registry = host(args.server.as_deref())?;
    let directory = context.config.docker_config.as_deref();
    let mut config = DockerConfig::load(directory, &context.config.search_path)?;
    let mut credential = credential(&args, registry.clone())?;
    let request = LoginRequest {
        credential: Some(credential.clone()),
        insecure: args.insecure,
    };
    let answer = context
        .clients
        .transfer()?
        .login(request)
        .await?
        .into_inner();
    credential.identity_token = answer.identity_token;
    config.store(&credential)?;
    if config.is_plain(&registry) {
        ui::note(format!(
            "warning: the login is kept unencrypted in {}; configure a credential helper to change that",
            config.path().display()
        ));
    }
    ui::line("Login Succeeded")?;
    Ok(ExitCode::SUCCESS)
}

fn credential(args: &LoginArgs, registry: String) -> Result<Credential, CliError> {
    let interactive = terminal::stdin_is_terminal();
    let username = match &args.username {
        Some(username) => username.clone(),
        None if interactive => terminal::ask("Username: ")?,
        None => {
            return Err(CliError::Usage(
                "a user name is needed: --username".to_owned(),
            ));
        }
    };
    let password = match &args.password {
        _ if args.password_stdin => password_from_stdin()?,
        Some(password) => {
            ui::note("warning: a password on the command line is not safe; use --password-stdin");
            password.clone()
        }
        None if interactive => terminal::ask_secret("Password: ")?,
        None => {
            return Err(CliError::Usage(
                "a password is needed: --password-stdin".to_owned(),
            ));
        }
    };
    if username.is_empty() || password.is_empty() {
        return Err(CliError::Usage(
            "neither user name nor password can be empty".to_owned(),
        ));
    }
    Ok(Credential {
        registry,
        username,
        password,
        identity_token: String::new(),
    })
}

fn password_from_stdin() -> Result<String, CliError> {
    let mut password = String::new();
    let mut input = std::io::stdin().lock().take(PASSWORD_BYTES_MAX);
    input
        .read_to_string(&mut password)
        .map_err(system("read the password"))?;
    Ok(password.trim_end_matches(['\r', '\n']).to_owned())
}

/// The host of what was typed: people give URLs, and Docker Hub has several names.
pub(super) fn host(server: Option<&str>) -> Result<String, CliError> {
    let typed = server.unwrap_or(DOCKER_HUB);
    let bare = typed
        .strip_prefix("https://")
        .or_else(|| typed.strip_prefix("http://"))
        .unwrap_or(typed);
    let host = bare.split('/').next().unwrap_or_default();
    let plain =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    if host.is_empty() || !host.chars().all(plain) {
        return Err(CliError::Usage(format!(
            "{typed:?} is not the host of a registry"
        )));
    }
    Ok(match host {
        "index.docker.io" | "registry-1.docker.io" | DOCKER_HUB => DOCKER_HUB.to_owned(),
        other => other.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_hosts() {
        assert_eq!(host(None).unwrap(), "docker.io");
        assert_eq!(
            host(Some("https://index.docker.io/v1/")).unwrap(),
            "docker.io"
        );
        assert_eq!(
            host(Some("http://127.0.0.1:5000")).unwrap(),
            "127.0.0.1:5000"
        );
        for bad in ["", "https://", "a b", "user@host"] {
            assert!(host(Some(bad)).is_err(), "{bad}");
        }
    }
}
