//! The shim's life beside its container: one thread, one poll loop.

mod answer;
mod away;
mod execs;
mod health;
mod rest;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::cgroups::counters;
use crate::config::{ExitStatus, LOG_FILE, ShimConfig};
use crate::protocol::{Failure, Kind, Reply};
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use oci_spec::runtime::Spec;
use orlop_sys::seccomp::Instruction;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::capabilities::Sets;
use crate::child::Child;
use crate::connection::{Connection, Role};
use crate::container::{Created, Namespaces};
use crate::error::{Result, note};
use crate::foreign::Foreign;
use crate::log::Log;
use crate::stdio::{Read, Streams};
use crate::userns::UserNamespace;
use crate::{cgroup, exit};

/// How long output may still come after a process ended: what it started may hold its pipes.
const DRAIN_PATIENCE: Duration = Duration::from_millis(100);
/// How long processes started later may take to follow the first.
const FOLLOW_PATIENCE: Duration = Duration::from_secs(2);
/// How often the loop looks at its clocks while something is ending.
const TICK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 5_000_000,
};
/// The longest path in a socket's address, `sun_path` without its zero.
const SUN_PATH_MAX: usize = 107;
/// Chunks read at last from a stream that does not end.
const LAST_CHUNKS: usize = 64;

/// The end of a process.
#[derive(Clone, Copy, Debug)]
struct End {
    code: i32,
    at: Instant,
}

/// A process and its streams.
#[derive(Debug)]
struct Running {
    child: Child,
    streams: Streams,
    /// It is on its way to its command.
    start: Option<execs::Start>,
    end: Option<End>,
}

impl From<Created> for Running {
    fn from(created: Created) -> Self {
        let Created { child, streams } = created;
        Self {
            child,
            streams,
            start: None,
            end: None,
        }
    }
}

impl Running {
    /// Whether its output is complete, or is taken to be.
    fn is_over(&self) -> bool {
        let drained = |end: End| self.streams.ended() || end.at.elapsed() > DRAIN_PATIENCE;
        self.start.is_none() && self.end.is_some_and(drained)
    }

    /// What has to be waited for. `output` is false where the reader is behind.
    fn interests(&self, output: bool) -> Vec<PollFd<'_>> {
        match &self.start {
            Some(_) => vec![PollFd::from_borrowed_fd(
                self.child.reports(),
                PollFlags::IN,
            )],
            None => self.streams.interests(output),
        }
    }
}

/// What the loop waits for.
#[derive(Clone, Copy, Debug)]
enum Token {
    Signal,
    Listener,
    Main,
    Exec(u64),
    Connection(u64),
}

/// What the shim was given.
pub(crate) struct Given<'a> {
    pub(crate) directory: &'a Path,
    pub(crate) spec: &'a Spec,
    pub(crate) config: &'a ShimConfig,
    pub(crate) namespaces: Namespaces,
    /// Its user namespace, if that is not the host's.
    pub(crate) user: Option<UserNamespace>,
    pub(crate) sets: Sets,
    pub(crate) filter: Option<&'a [Instruction]>,
    /// Who makes the processes, if not the shim itself.
    pub(crate) foreign: Option<&'a Foreign<'a>>,
    pub(crate) listener: UnixListener,
    pub(crate) signals: SignalFd,
}

/// The shim's state.
pub(crate) struct Supervisor<'a> {
    given: Given<'a>,
    main: Running,
    execs: BTreeMap<u64, Running>,
    connections: BTreeMap<u64, Connection<'a>>,
    next: u64,
    log: Log,
    /// The container's mounts, until everyone was told of the end: without this its first process would
    /// unmount them, and write back what the host has not written yet, before it is seen to be dead.
    mounts: Option<fs::File>,
    start_time: u64,
    started_at: Option<i64>,
    health: Option<health::Monitor<'a>>,
    decisions: away::Decisions,
    rest: rest::Rest,
    /// Processes that the kernel had killed for want of memory before this run.
    oom_kills: u64,
    /// Everyone was told of the end.
    told: bool,
    /// The service went away before the start, or the start failed.
    abandoned: bool,
}

impl<'a> Supervisor<'a> {
    /// Takes over a created container; tells the service so.
    pub(crate) fn new(given: Given<'a>, created: Created, start: UnixStream) -> Result<Self> {
        let setup = |source| crate::error::Error::Setup {
            step: "start socket",
            source,
        };
        let start_time = crate::child::start_time(created.child.pid).map_err(setup)?;
        let mut starter = Connection::new(start, Role::Starter, given.directory).map_err(setup)?;
        starter.reply(&Reply::Created {
            pid: created.child.pid,
        });
        Ok(Self {
            log: Log::open(
                given.directory.join(LOG_FILE),
                given.config.log_bytes_max,
                given.config.log_files,
            ),
            mounts: created.child.mounts().ok(),
            decisions: away::Decisions::new(given.config.away),
            given,
            main: Running::from(created),
            execs: BTreeMap::new(),
            connections: BTreeMap::from([(0, starter)]),
            next: 1,
            start_time,
            started_at: None,
            health: None,
            rest: rest::Rest::new(),
            oom_kills: 0,
            told: false,
            abandoned: false,
        })
    }

    /// Until the container has ended and everyone knows.
    pub(crate) fn run(mut self) {
        while !self.is_over() {
            for token in self.wait() {
                self.handle(token);
            }
            self.settle();
        }
        if self.abandoned {
            self.close_door();
            self.main.child.abandon();
            cgroup::kill_all(&self.given.config.cgroups);
        }
    }

    /// Whoever reads slowly gets all of it: an end that is recorded holds up nobody.
    fn is_over(&self) -> bool {
        let waits = self.connections.values().any(Connection::has_output);
        (self.told || self.abandoned) && !waits && !self.decisions.are_open()
    }

    /// Waits for something to happen.
    fn wait(&self) -> Vec<Token> {
        let mut fds = vec![
            PollFd::from_borrowed_fd(self.given.signals.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.given.listener.as_fd(), PollFlags::IN),
        ];
        let mut tokens = vec![Token::Signal, Token::Listener];
        let held_up = self.connections.values().any(Connection::holds_up);
        for fd in self.main.interests(!held_up) {
            fds.push(fd);
            tokens.push(Token::Main);
        }
        for (&id, exec) in &self.execs {
            let behind = self.connections.get(&id).is_some_and(Connection::is_behind);
            for fd in exec.interests(!behind) {
                fds.push(fd);
                tokens.push(Token::Exec(id));
            }
        }
        for (&id, connection) in &self.connections {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, self.wants_input(id));
            flags.set(PollFlags::OUT, connection.has_output());
            fds.push(PollFd::from_borrowed_fd(connection.stream.as_fd(), flags));
            tokens.push(Token::Connection(id));
        }
        let patience = self.patience();
        self.rest.give_back();
        if poll(&mut fds, patience.as_ref()).is_err() {
            return Vec::new();
        }
        let ready = fds
            .iter()
            .zip(tokens)
            .filter(|(fd, _)| !fd.revents().is_empty());
        ready.map(|(_, token)| token).collect()
    }

    /// How long to wait for something to happen.
    fn patience(&self) -> Option<Timespec> {
        let ending = self.main.end.is_some() && !self.told;
        let ending = ending || self.execs.values().any(|exec| exec.end.is_some());
        let held_up = self.connections.values().any(Connection::holds_up);
        if ending || held_up {
            return Some(TICK);
        }
        let checked = self.health.as_ref().filter(|_| self.main.end.is_none());
        let checked = checked.and_then(health::Monitor::due);
        let due = [checked, self.due_alone(), self.rest.due()];
        let starts = self.execs.values().filter_map(|exec| exec.start.as_ref());
        let due = due.into_iter().flatten();
        let due = starts.map(execs::Start::due).chain(due).min()?;
        due.saturating_duration_since(Instant::now())
            .try_into()
            .ok()
    }

    fn wants_input(&self, id: u64) -> bool {
        match self.connections.get(&id).map(|connection| connection.role) {
            Some(Role::Attached { stdin: true, .. }) => self.main.streams.wants_input(),
            Some(Role::Exec) => {
                let exec = self.execs.get(&id);
                exec.is_none_or(|exec| exec.streams.wants_input())
            }
            _ => true,
        }
    }

    fn handle(&mut self, token: Token) {
        match token {
            Token::Signal => self.reap(),
            Token::Listener => self.accept(),
            Token::Main => self.serve_main(),
            Token::Exec(id) => self.serve_exec(id),
            Token::Connection(id) => self.serve_connection(id),
        }
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.given.listener.accept() {
            if self.told && !self.decisions.are_open() {
                continue;
            }
            let Ok(connection) = Connection::new(stream, Role::Fresh, self.given.directory) else {
                continue;
            };
            self.connections.insert(self.next, connection);
            self.next += 1;
            self.rest.after_work();
        }
    }

    fn reap(&mut self) {
        while let Ok(Some(_)) = self.given.signals.read_signal() {}
        loop {
            let (pid, code) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, code),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, 128 + signal as i32),
                Ok(WaitStatus::StillAlive) | Err(_) => return,
                Ok(_) => continue,
            };
            let end = Some(End {
                code,
                at: Instant::now(),
            });
            let all = std::iter::once(&mut self.main).chain(self.execs.values_mut());
            for running in all.filter(|running| running.child.pid == pid.as_raw()) {
                running.end = end;
                running.streams.look_again();
            }
            if self.main.child.pid == pid.as_raw() {
                cgroup::kill_all(&self.given.config.cgroups);
            }
        }
    }

    /// Moves the container's output into the log and to everyone attached.
    fn serve_main(&mut self) {
        self.main.streams.write_input();
        for kind in [Kind::Stdout, Kind::Stderr] {
            if let Read::Bytes(bytes) = self.main.streams.read(kind, self.main.end.is_some()) {
                self.publish(kind, &bytes);
            }
        }
    }

    fn publish(&mut self, kind: Kind, bytes: &[u8]) {
        self.log.push(kind, bytes);
        for connection in self.connections.values_mut() {
            let wanted = match (connection.role, kind) {
                (Role::Attached { stdout, .. }, Kind::Stdout) => stdout,
                (Role::Attached { stderr, .. }, Kind::Stderr) => stderr,
                _ => false,
            };
            if wanted {
                connection.send(kind, bytes);
            }
        }
    }

    fn serve_exec(&mut self, id: u64) {
        if self.execs.get(&id).is_some_and(|exec| exec.start.is_some()) {
            return self.serve_start(id);
        }
        for kind in [Kind::Stdout, Kind::Stderr] {
            let Some(exec) = self.execs.get_mut(&id) else {
                return;
            };
            exec.streams.write_input();
            let Read::Bytes(bytes) = exec.streams.read(kind, exec.end.is_some()) else {
                continue;
            };
            if let Some(peer) = self.connections.get_mut(&id) {
                peer.send(kind, &bytes);
            } else {
                self.take_probe_output(id, &bytes);
            }
        }
    }

    /// Ends what has ended.
    fn settle(&mut self) {
        if self.connections.get(&0).is_some_and(Connection::over) {
            // The service that never said "start" is gone.
            self.abandoned |= self.started_at.is_none();
        }
        self.connections.retain(|_, connection| !connection.over());
        self.end_lost_input();
        let over = self.execs.iter().filter(|(_, exec)| exec.is_over());
        let over: Vec<u64> = over.map(|(&id, _)| id).collect();
        for id in over {
            self.finish_exec(id);
        }
        self.tend_starts();
        self.tend_health();
        self.tend_decisions();
        let Some(end) = self.main.end.filter(|_| !self.told && self.main.is_over()) else {
            return;
        };
        if self.execs.is_empty() || end.at.elapsed() > FOLLOW_PATIENCE {
            self.finish(end);
        }
    }

    /// What was fed by a peer that is gone is at its end: nobody else can.
    fn end_lost_input(&mut self) {
        for (id, exec) in &mut self.execs {
            if !self.connections.contains_key(id) {
                exec.streams.push_input(&[]);
            }
        }
    }

    fn finish_exec(&mut self, id: u64) {
        for _ in 0..LAST_CHUNKS {
            self.serve_exec(id);
        }
        let Some(exec) = self.execs.remove(&id) else {
            return;
        };
        self.rest.after_work();
        let oom_killed = self.oom_killed();
        if let (Some(end), Some(peer)) = (exec.end, self.connections.get_mut(&id)) {
            peer.reply(&Reply::Exited {
                code: end.code,
                oom_killed,
            });
            peer.role = Role::Leaving;
        }
        if let Some(end) = exec.end {
            self.finish_probe(id, end);
        }
    }

    /// The record first, then the news.
    fn finish(&mut self, end: End) {
        for _ in 0..LAST_CHUNKS {
            self.serve_main();
        }
        self.log.finish();
        let Some(started_at) = self.started_at else {
            if let Some(starter) = self.connections.get_mut(&0) {
                let message = "the container was killed before its start".to_owned();
                let failure = Failure::NotRunning;
                starter.reply(&Reply::Failed { failure, message });
            }
            self.abandoned = true;
            return;
        };
        let status = ExitStatus {
            code: end.code,
            oom_killed: self.oom_killed(),
            started_at,
            finished_at: now(),
            restarts: None,
            stopped: false,
        };
        let status = self.decide(status);
        if let Some(foreign) = self.given.foreign {
            // Before anybody may start the container again.
            foreign.delete();
        }
        self.record(&status);
        self.tell_end(&status);
        // Before the service, which waits for the end of its connection, may start the container again.
        self.mounts = None;
    }

    fn record(&self, status: &ExitStatus) {
        let durable = !self.given.config.volatile_exit;
        if let Err(error) = exit::record(self.given.directory, status, durable) {
            note(&format!("cannot record the exit: {error}"));
        }
        if !self.decisions.are_open() {
            self.close_door();
        }
    }

    /// A service that waits stays until it says whose part the restart is, if there is to be one.
    fn tell_end(&mut self, status: &ExitStatus) {
        let reply = exited(status);
        for connection in self.connections.values_mut() {
            let waiting = connection.role == Role::Waiting;
            if waiting || matches!(connection.role, Role::Attached { .. }) {
                connection.reply(&reply);
            }
            if !(waiting && self.decisions.are_open()) {
                connection.role = Role::Leaving;
            }
        }
        self.told = true;
    }

    /// Before anyone is told of the end: the path is the next shim's then.
    fn close_door(&self) {
        drop(fs::remove_file(&self.given.config.socket));
    }

    fn oom_killed(&self) -> bool {
        counters::oom_kills(&self.given.config.cgroups) > self.oom_kills
    }
}

fn exited(status: &ExitStatus) -> Reply {
    Reply::Exited {
        code: status.code,
        oom_killed: status.oom_killed,
    }
}

/// Nanoseconds since the epoch.
fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Listens on a path that an earlier shim of the same container may have left. A path that is too
/// long for a socket's address is reached through a handle of its directory.
pub(crate) fn listen(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if path.as_os_str().len() > SUN_PATH_MAX => {
            let directory = fs::File::open(parent)?;
            let handle = format!("/proc/self/fd/{}", directory.as_raw_fd());
            UnixListener::bind(Path::new(&handle).join(name))?
        }
        _ => UnixListener::bind(path)?,
    };
    listener.set_nonblocking(true)?;
    Ok(listener)
}
