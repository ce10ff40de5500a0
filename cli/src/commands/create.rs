//! `orlop create`, and the options of a container that it shares with `run`.

mod request;

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgAction, Args};
use orlop_proto::runtime::{CreateRequest, CreateResponse};

use super::limits::{DiskOptions, LimitOptions};
use super::pull;
use crate::app::Context;
use crate::error::{CliError, file};
use crate::ui;
use crate::values::health::HealthOptions;
use crate::values::quantity;

/// When to pull the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum PullPolicy {
    Always,
    Missing,
    Never,
}

/// Make a container without starting it
#[derive(Debug, Args)]
#[command(
    disable_help_flag = true,
    override_usage = "orlop create [OPTIONS] IMAGE [COMMAND] [ARG...]",
    after_help = "Example:\n  orlop create --name web -p 8080:80 nginx"
)]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    create: ContainerOptions,
}

// What `create` and `run` share. (No doc comment: it would become the description of both.)
#[derive(Debug, Args)]
pub(crate) struct ContainerOptions {
    /// The image, and the command with its arguments in place of the image's
    #[arg(
        required = true,
        trailing_var_arg = true,
        value_name = "IMAGE [COMMAND] [ARG...]"
    )]
    pub(crate) image_and_command: Vec<String>,

    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,

    /// Name of the container
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// Keep standard input open
    #[arg(short, long)]
    pub(crate) interactive: bool,

    /// Give the process a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,

    /// Remove the container once it exited
    #[arg(long)]
    pub(crate) rm: bool,

    /// Set a variable: NAME=VALUE, or NAME for the caller's value
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,

    /// Read variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,

    /// Mount a directory or a volume: [SOURCE:]TARGET[:ro]
    #[arg(short, long, value_name = "VOLUME")]
    volume: Vec<String>,

    /// Mount: type=bind|volume|tmpfs,source=…,target=…[,readonly]
    #[arg(long, value_name = "MOUNT")]
    mount: Vec<String>,

    /// Mount what another container has of volumes and directories
    #[arg(long, value_name = "CONTAINER[:ro|rw]")]
    volumes_from: Vec<String>,

    /// Mount a tmpfs: TARGET[:size=…,mode=…]
    #[arg(long, value_name = "TARGET")]
    tmpfs: Vec<String>,

    /// Publish a port: [[ADDRESS:]HOST_PORT:]PORT[/udp]
    #[arg(short, long, value_name = "PORT")]
    publish: Vec<String>,

    /// Expose a port or a range of them: PORT[-LAST][/udp]
    #[arg(long, value_name = "PORT")]
    expose: Vec<String>,

    /// Publish every port that the image or --expose exposes
    #[arg(short = 'P', long)]
    publish_all: bool,

    /// Working directory in the container
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,

    /// User (and group) of the process
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,

    #[command(flatten)]
    limits: LimitOptions,

    /// Control group to be in, for example /teams/a; made if it is not there
    #[arg(long, value_name = "PATH")]
    cgroup_parent: Option<String>,

    /// How readily its memory is written to swap: 0 to 100; -1 as the host (cgroup v1)
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    memory_swappiness: Option<i64>,

    /// Wait for memory rather than be killed for want of it (cgroup v1)
    #[arg(long)]
    oom_kill_disable: bool,

    #[command(flatten)]
    disks: DiskOptions,

    /// Size of /dev/shm
    #[arg(long, value_name = "BYTES")]
    shm_size: Option<String>,

    /// Program in place of the image's entrypoint; empty clears it
    #[arg(long, value_name = "PROGRAM", allow_hyphen_values = true)]
    entrypoint: Option<String>,

    /// Network: a name, none, host or container:NAME; or name=…,ip=…,ip6=…,alias=…, several times
    #[arg(long, visible_alias = "net", value_name = "NETWORK")]
    network: Vec<String>,

    /// Address in the network
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<String>,

    /// IPv6 address in the network
    #[arg(long, value_name = "ADDRESS")]
    ip6: Option<String>,

    /// Know another container of the network by a name: CONTAINER[:ALIAS]
    #[arg(long, value_name = "CONTAINER[:ALIAS]")]
    link: Vec<String>,

    /// Hardware address in the network
    #[arg(long, value_name = "ADDRESS")]
    mac_address: Option<String>,

    /// One more name in the network
    #[arg(long, visible_alias = "net-alias", value_name = "NAME")]
    network_alias: Vec<String>,

    /// Host name in the container
    #[arg(short = 'h', long, value_name = "NAME")]
    hostname: Option<String>,

    /// Make the root file system read-only
    #[arg(long)]
    read_only: bool,

    /// Domain of the container's name
    #[arg(long, value_name = "NAME")]
    domainname: Option<String>,

    /// Add an annotation for the OCI runtime
    #[arg(long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,

    /// Set a label
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    label: Vec<String>,

    /// Read labels from a file
    #[arg(long, value_name = "FILE")]
    label_file: Vec<PathBuf>,

    /// Add a line to /etc/hosts: NAME:ADDRESS
    #[arg(long, value_name = "NAME:ADDRESS")]
    add_host: Vec<String>,

    /// Address of a DNS server
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<String>,

    /// Domain in which names are looked up; `.` clears those of the host
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,

    /// Option of resolv.conf, for example ndots:2
    #[arg(long, visible_alias = "dns-opt", value_name = "OPTION")]
    dns_option: Vec<String>,

    /// Restart: no, on-failure[:TIMES], always, unless-stopped
    #[arg(long, value_name = "POLICY")]
    restart: Option<String>,

    #[command(flatten)]
    health: HealthOptions,

    /// Signal that asks the container to stop
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,

    /// Seconds between that signal and the kill
    #[arg(long, value_name = "SECONDS")]
    stop_timeout: Option<u32>,

    /// Add a Linux capability
    #[arg(long, value_name = "CAPABILITY")]
    cap_add: Vec<String>,

    /// Drop a Linux capability
    #[arg(long, value_name = "CAPABILITY")]
    cap_drop: Vec<String>,

    /// no-new-privileges[=BOOL], seccomp=unconfined|PROFILE.json, apparmor=unconfined|PROFILE, systempaths=unconfined, label=disable
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,

    /// Give the container nearly all power over the host
    #[arg(long)]
    privileged: bool,

    /// Give a device of the host, or those of a directory: HOST[:CONTAINER][:rwm]
    #[arg(long, value_name = "DEVICE")]
    device: Vec<String>,

    /// Allow more devices, for example 'c 10:200 rwm'
    #[arg(long, value_name = "RULE")]
    device_cgroup_rule: Vec<String>,

    /// Limit each process: NAME=SOFT[:HARD], for example nofile=1024:4096
    #[arg(long, value_name = "LIMIT")]
    ulimit: Vec<String>,

    /// Set a kernel parameter of the container: NAME=VALUE
    #[arg(long, value_name = "NAME=VALUE")]
    sysctl: Vec<String>,

    /// Run the command below a first process that reaps orphans and passes signals on
    #[arg(long)]
    init: bool,

    /// Whose processes it sees: host or container:NAME
    #[arg(long, value_name = "MODE")]
    pid: Option<String>,

    /// Whose shared memory it has: private, none, shareable, host or container:NAME
    #[arg(long, value_name = "MODE")]
    ipc: Option<String>,

    /// Whose host name it has: host
    #[arg(long, value_name = "MODE")]
    uts: Option<String>,

    /// Where its control groups begin: private or host
    #[arg(long, value_name = "MODE")]
    cgroupns: Option<String>,

    /// Whose user ids it has: host, private, auto[:size=NUMBER]
    #[arg(long, value_name = "MODE")]
    userns: Option<String>,

    /// Another OCI runtime that makes it: a path or a name, such as runc
    #[arg(long, value_name = "PATH")]
    runtime: Option<String>,

    /// How readily the kernel kills it for want of memory: -1000 to 1000
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    oom_score_adj: Option<i32>,

    /// Add a group to the process, by name or number
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<String>,

    /// Where its log is kept: json-file or local, which are one, or none: nowhere
    #[arg(long, value_name = "DRIVER")]
    log_driver: Option<String>,

    /// Size of its log: max-size=SIZE, max-file=NUMBER; what `logs --details` shows: labels=KEY,…, env=NAME,…
    #[arg(long, value_name = "OPTION")]
    log_opt: Vec<String>,

    /// Pull the image: always, missing or never
    #[arg(long, value_enum, default_value = "missing", value_name = "WHEN")]
    pull: PullPolicy,

    /// Platform of the image, for example linux/arm64
    #[arg(long, value_name = "OS/ARCHITECTURE")]
    platform: Option<String>,

    /// Write the container's id to a file, which must not exist
    #[arg(long, value_name = "FILE")]
    cidfile: Option<PathBuf>,

    /// Attach: stdin, stdout, stderr
    #[arg(short, long, value_enum, value_name = "STREAM", ignore_case = true)]
    pub(crate) attach: Vec<Stream>,

    /// Say nothing about pulling
    #[arg(short, long)]
    quiet: bool,
}

/// A standard stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Stream {
    Stdin,
    Stdout,
    Stderr,
}

/// Runs the command.
pub(super) async fn run(args: CreateArgs, context: &Context) -> Result<ExitCode, CliError> {
    let created = create(&args.create, context).await?;
    ui::line(&created.id)?;
    Ok(ExitCode::SUCCESS)
}

/// Makes the container, after pulling its image where that is asked for or needed.
pub(super) async fn create(
    args: &ContainerOptions,
    context: &Context,
) -> Result<CreateResponse, CliError> {
    let request = request::of(args)?;
    let mut id_file = args.cidfile.as_ref().map(IdFile::open).transpose()?;
    context.clients.need(&["store", "runtime"])?;
    if args.pull == PullPolicy::Always {
        pull_image(args, context).await?;
    }
    let created = match call(&request, context).await {
        Err(error) if error.is_image_missing() && args.pull == PullPolicy::Missing => {
            let shown = pull::familiar(&args.image_and_command[0])?;
            if !args.quiet {
                ui::note(format!("Unable to find image '{shown}' locally"));
            }
            pull_image(args, context).await?;
            call(&request, context).await
        }
        other => other,
    }?;
    for warning in &created.warnings {
        ui::note(format!("warning: {}", ui::text::escape(warning)));
    }
    if let Some(id_file) = &mut id_file {
        id_file.write(&created.id)?;
    }
    Ok(created)
}

async fn call(request: &CreateRequest, context: &Context) -> Result<CreateResponse, CliError> {
    let mut containers = context.clients.containers()?;
    Ok(containers.create(request.clone()).await?.into_inner())
}

async fn pull_image(args: &ContainerOptions, context: &Context) -> Result<(), CliError> {
    let options = pull::Options {
        platform: args
            .platform
            .as_deref()
            .map(quantity::platform)
            .transpose()?,
        insecure: false,
        show: if args.quiet {
            pull::Show::Nothing
        } else {
            pull::Show::OnStandardError
        },
    };
    pull::pull(&args.image_and_command[0], options, context).await?;
    Ok(())
}

/// The file of `--cidfile`, made before the container; removed if there will be none.
struct IdFile {
    path: PathBuf,
    file: std::fs::File,
    written: bool,
}

impl IdFile {
    fn open(path: &PathBuf) -> Result<Self, CliError> {
        let opened = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(path);
        Ok(Self {
            path: path.clone(),
            file: opened.map_err(file("make the file for the container's id,", path))?,
            written: false,
        })
    }

    fn write(&mut self, id: &str) -> Result<(), CliError> {
        let written = self.file.write_all(id.as_bytes());
        self.written = written.is_ok();
        written.map_err(file("write", &self.path))
    }
}

impl Drop for IdFile {
    fn drop(&mut self) {
        if !self.written {
            drop(std::fs::remove_file(&self.path));
        }
    }
}
