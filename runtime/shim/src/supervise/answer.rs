//! Requests and their answers.

use std::io;
use std::os::fd::AsFd;

use crate::protocol::{Failure, Reply, Request, VERSION};
use orlop_sys::process as sys;

use super::health::Monitor;
use super::{Supervisor, exited, now};
use crate::cgroup;
use crate::connection::{Connection, Frame, Role};
use crate::devices;
use crate::error::Result;
use crate::stdio::{Streams, Wanted};

impl Supervisor<'_> {
    /// Reads from a peer, and does what it says.
    pub(super) fn serve_connection(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let had_output = connection.has_output();
        connection.flush();
        // Without a reason of ours to be looked at, it is the peer that hung up.
        if self.wants_input(id) || !had_output {
            self.connections.get_mut(&id).map(Connection::fill);
        }
        while let Some(connection) = self.connections.get_mut(&id) {
            let role = connection.role;
            match connection.next_frame() {
                None => return,
                Some(Frame::Stdin(bytes)) => self.take_input(id, role, &bytes),
                Some(Frame::Request(request)) => self.answer(id, role, request),
            }
        }
    }

    fn take_input(&mut self, id: u64, role: Role, bytes: &[u8]) {
        match role {
            Role::Attached { stdin: true, .. } => self.main.streams.push_input(bytes),
            Role::Exec => {
                if let Some(exec) = self.execs.get_mut(&id) {
                    exec.streams.push_input(bytes);
                }
            }
            _ => {}
        }
    }

    fn answer(&mut self, id: u64, role: Role, request: Request) {
        match (role, request) {
            (Role::Starter, Request::Start) => self.start(id),
            (Role::Waiting | Role::Leaving, Request::Take) => {
                self.decisions.leave();
                self.close_door();
                self.set_role(id, Role::Leaving);
            }
            (Role::Fresh, request) => self.answer_first(id, request),
            // On a connection with streams, signals and sizes get no answer.
            (Role::Attached { .. }, Request::Signal { signal, all }) => {
                drop(self.signal_main(signal, all));
            }
            (Role::Attached { .. }, Request::Resize { rows, columns }) => {
                drop(resize(&self.main.streams, rows, columns));
            }
            (Role::Exec, Request::Signal { signal, .. }) => {
                if let Some(exec) = self.execs.get(&id) {
                    drop(sys::send_signal(exec.child.pidfd.as_fd(), signal));
                }
            }
            (Role::Exec, Request::Resize { rows, columns }) => {
                if let Some(exec) = self.execs.get(&id) {
                    drop(resize(&exec.streams, rows, columns));
                }
            }
            (Role::Leaving, _) => {}
            _ => self.refuse(id),
        }
    }

    /// The first request of a connection says what it is for.
    fn answer_first(&mut self, id: u64, request: Request) {
        match request {
            Request::Attach {
                stdin,
                stdout,
                stderr,
            } => {
                let (tty, pid) = (self.main.streams.tty, self.main.child.pid);
                let role = Role::Attached {
                    stdin,
                    stdout,
                    stderr,
                    foreground: self.started_at.is_none(),
                };
                self.reply(id, &Reply::Attached { tty, pid }, role);
            }
            Request::Wait => match self.news() {
                Some(reply) => self.reply(id, &reply, Role::Waiting),
                None => self.set_role(id, Role::Waiting),
            },
            Request::State => {
                let state = self.state();
                self.reply(id, &state, Role::Leaving);
            }
            Request::Restart(policy) => {
                self.decisions.set_policy(policy);
                self.reply(id, &Reply::Ok, Role::Leaving);
            }
            Request::Exec {
                process,
                user,
                stdin,
                window,
                detach,
            } => {
                let (stdin, output) = (stdin && !detach, !detach);
                let streams = Wanted::Pipes { stdin, output };
                self.exec(id, &process, &user, streams, window);
            }
            Request::Signal { signal, all } => {
                let result = self.signal_main(signal, all);
                self.conclude(id, result);
            }
            Request::Resize { rows, columns } => {
                let result = resize(&self.main.streams, rows, columns);
                self.conclude(id, result);
            }
            Request::Start | Request::Take => self.refuse(id),
        }
    }

    /// For one who begins to listen.
    fn news(&self) -> Option<Reply> {
        let ended = self.decisions.last().filter(|_| self.decisions.are_open());
        ended.map(exited).or_else(|| self.health_reply())
    }

    fn state(&self) -> Reply {
        let ended = self.decisions.are_open();
        Reply::State {
            pid: if ended { 0 } else { self.main.child.pid },
            start_time: self.start_time,
            started_at: self.started_at.unwrap_or_default(),
            version: VERSION,
            restarts: Some(self.decisions.restarts()),
            last: self.decisions.last().cloned(),
        }
    }

    fn refuse(&mut self, id: u64) {
        self.fail(
            id,
            Failure::Invalid,
            "this request has no meaning here".to_owned(),
        );
    }

    pub(super) fn reply(&mut self, id: u64, reply: &Reply, role: Role) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.role = role;
            connection.reply(reply);
        }
    }

    pub(super) fn set_role(&mut self, id: u64, role: Role) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.role = role;
        }
    }

    pub(super) fn fail(&mut self, id: u64, failure: Failure, message: String) {
        self.reply(id, &Reply::Failed { failure, message }, Role::Leaving);
    }

    fn conclude(&mut self, id: u64, result: io::Result<()>) {
        match result {
            Ok(()) => self.reply(id, &Reply::Ok, Role::Leaving),
            Err(error) => {
                let failure = match error.raw_os_error() {
                    Some(3) => Failure::NotRunning, // ESRCH
                    _ => Failure::Invalid,
                };
                self.fail(id, failure, error.to_string());
            }
        }
    }

    /// From here on the service that started the container waits for its end.
    fn start(&mut self, id: u64) {
        let pid = self.main.child.pid;
        match self.begin() {
            Ok(()) => self.reply(id, &Reply::Started { pid }, Role::Waiting),
            Err(error) => {
                self.fail(id, error.failure(), error.message());
                self.abandoned = true;
            }
        }
    }

    pub(super) fn begin(&mut self) -> Result<()> {
        // The container's first instruction must not come before the time of its start.
        let started_at = now();
        match self.given.foreign {
            Some(foreign) => foreign.start()?,
            None => self.main.child.begin()?,
        }
        self.started_at = Some(started_at);
        self.health = self.given.config.health.as_ref().map(Monitor::new);
        Ok(())
    }

    fn signal_main(&self, signal: i32, all: bool) -> io::Result<()> {
        if !all {
            return sys::send_signal(self.main.child.pidfd.as_fd(), signal);
        }
        for pid in cgroup::members(&self.given.config.cgroups) {
            match sys::kill(pid, signal) {
                // It ended by itself.
                Err(error) if error.raw_os_error() == Some(3) => {}
                result => result?,
            }
        }
        Ok(())
    }
}

fn resize(streams: &Streams, rows: u16, columns: u16) -> io::Result<()> {
    let missing = || io::Error::new(io::ErrorKind::Unsupported, "the process has no terminal");
    let master = streams.master().ok_or_else(missing)?;
    Ok(devices::resize(master, rows, columns)?)
}
