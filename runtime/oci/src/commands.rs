//! One file per command, or per few that are the same thing.

mod create;
mod delete;
mod events;
mod exec;
mod features;
mod freeze;
mod kill;
mod list;
mod spec;
mod start;
mod update;

use std::fs;
use std::io::Write as _;
use std::path::Path;

use crate::args::{Args, Command};
use crate::error::{Error, Result};
use crate::inherited::Descriptors;
use crate::state::Container;

/// Does what is asked; the exit code.
pub(crate) fn run(args: &Args) -> Result<u8> {
    args.check()?;
    let root = std::path::absolute(&args.global.root);
    let root = &root.map_err(Error::file("find", &args.global.root))?;
    let by_systemd = args.global.systemd_cgroup;
    match &args.command {
        Command::Create(create) => {
            let kept = Descriptors::find(create.process.preserve_fds)?;
            create::create(root, create, by_systemd, kept).map(drop)?;
        }
        Command::Start { id } => start::start(&Container::open(root, id)?)?,
        Command::Run { create, detach } => {
            return start::run(root, create, by_systemd, *detach);
        }
        Command::State { id } => list::state(&Container::open(root, id)?)?,
        Command::Kill { all, id, signal } => {
            kill::kill(&Container::open(root, id)?, *all, signal)?;
        }
        Command::Delete { force, id } => delete::delete(root, id, *force)?,
        Command::Exec(exec) => return exec::exec(root, exec),
        Command::Ps { format, id } => list::ps(&Container::open(root, id)?, *format)?,
        Command::List { quiet: true, .. } => list::ids(root)?,
        Command::List { format, .. } => list::list(root, *format)?,
        Command::Spec { bundle } => spec::spec(bundle)?,
        Command::Pause { id } => freeze::set_frozen(&Container::open(root, id)?, true)?,
        Command::Resume { id } => freeze::set_frozen(&Container::open(root, id)?, false)?,
        Command::Update { resources, id } => {
            update::update(&Container::open(root, id)?, resources)?;
        }
        Command::Events {
            stats: true, id, ..
        } => events::stats(&Container::open(root, id)?)?,
        Command::Events { interval, id, .. } => {
            events::follow(&Container::open(root, id)?, *interval)?;
        }
        Command::Features => features::features()?,
    }
    Ok(0)
}

/// Writes a line to standard output.
fn say(line: &str) -> Result<()> {
    let written = writeln!(std::io::stdout(), "{line}");
    written.map_err(Error::file("write to", "standard output"))
}

/// Writes the number of a process into a file, complete or not at all: its reader may poll for it.
fn write_pid(path: Option<&Path>, pid: i32) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.new"));
    let written = fs::write(&temporary, pid.to_string());
    let written = written.and_then(|()| fs::rename(&temporary, path));
    written.map_err(Error::file("write", path))
}
