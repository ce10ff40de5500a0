//! A stand-in for a shim of an older version (row 30 of the fault matrix): what that one said on its socket, byte for
//! byte, for a process that is no container. `orlop-older-shim SOCKET DIRECTORY VERSION`; of a version that nobody
//! knows it says what nobody understands.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

/// How often it looks whether its process has ended.
const TICK: Duration = Duration::from_millis(5);

fn main() {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let [socket, directory, version] = args.as_slice() else {
        panic!("usage: orlop-older-shim SOCKET DIRECTORY VERSION");
    };
    let older = Older {
        directory: directory.into(),
        child: (version == "2").then(|| Command::new("sleep").arg("1000").spawn().unwrap()),
        waiting: Vec::new(),
    };
    std::fs::remove_file(socket).ok();
    let listener = UnixListener::bind(socket).unwrap();
    listener.set_nonblocking(true).unwrap();
    older.serve(&listener, Path::new(socket));
}

struct Older {
    directory: PathBuf,
    /// Absent where nobody is understood anyway.
    child: Option<Child>,
    waiting: Vec<UnixStream>,
}

impl Older {
    fn serve(mut self, listener: &UnixListener, socket: &Path) {
        while self.runs() {
            match listener.accept() {
                // Whoever hangs up hangs up.
                Ok((peer, _)) => drop(self.answer(peer)),
                Err(_) => std::thread::sleep(TICK),
            }
        }
        let status = r#"{"code":137,"oom_killed":false,"started_at":1,"finished_at":2}"#;
        std::fs::write(self.directory.join("exit.json"), status).unwrap();
        for mut peer in self.waiting {
            say(&mut peer, r#"{"exited":{"code":137,"oom_killed":false}}"#).ok();
        }
        std::fs::remove_file(socket).unwrap();
    }

    fn runs(&mut self) -> bool {
        let child = self.child.as_mut();
        child.is_none_or(|child| child.try_wait().unwrap().is_none())
    }

    /// A request that version 2 does not know ends the connection.
    fn answer(&mut self, mut peer: UnixStream) -> io::Result<()> {
        peer.set_nonblocking(false)?;
        let request = hear(&mut peer)?;
        let Some(child) = self.child.as_mut() else {
            say(&mut peer, r#"{"later":{"than":"you"}}"#)?;
            self.waiting.push(peer);
            return Ok(());
        };
        let pid = child.id();
        match request.as_str() {
            "\"wait\"" => {
                self.waiting.push(peer);
                Ok(())
            }
            "\"state\"" => {
                let state = format!(r#"{{"state":{{"pid":{pid},"start_time":1,"started_at":1}}}}"#);
                say(&mut peer, &state)
            }
            signal if signal.starts_with("{\"signal\":") => {
                child.kill()?;
                say(&mut peer, "\"ok\"")
            }
            _ => Ok(()),
        }
    }
}

/// One message: four bytes of length, little endian, a kind, JSON.
fn hear(peer: &mut UnixStream) -> io::Result<String> {
    let mut header = [0; 5];
    peer.read_exact(&mut header)?;
    let [a, b, c, d, _] = header;
    let mut payload = vec![0; u32::from_le_bytes([a, b, c, d]) as usize];
    peer.read_exact(&mut payload)?;
    String::from_utf8(payload).map_err(io::Error::other)
}

fn say(peer: &mut UnixStream, message: &str) -> io::Result<()> {
    let length = u32::try_from(message.len()).unwrap();
    peer.write_all(&length.to_le_bytes())?;
    peer.write_all(&[0])?;
    peer.write_all(message.as_bytes())
}
