//! Throughput: what a container writes, and what it sends through a published port.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use orlop_tests::{eventually, fixtures};

use crate::engine::{Daemon, Engine};
use crate::report::Report;
use crate::work::{Work, quick, remove_all};

/// The column of what the host does by itself.
pub(crate) const HOST: &str = "host";
/// One line of the text; its place in a log of JSON is a tenth of it.
const LINE_BYTES: usize = 1000;
const LINES: usize = 100_000;
const IMAGE: &str = "lines";

/// Measures everything, with an image of its own that holds 100 MB of lines.
pub(crate) fn measure(engines: &[&dyn Engine], rounds: usize, report: &mut Report) {
    let text = [vec![b'a'; LINE_BYTES - 1], vec![b'\n']]
        .concat()
        .repeat(LINES);
    for engine in engines {
        let archive = tempfile::NamedTempFile::new().unwrap();
        fs::write(
            archive.path(),
            fixtures::rootfs_with(&[("lines", 0o644, &text)]),
        )
        .unwrap();
        engine.run(&["import", archive.path().to_str().unwrap(), IMAGE]);
    }
    for work in [run(), logs()] {
        work.measure(engines, rounds, report);
    }
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::write(directory.path().join("lines"), &text).unwrap();
    ports(engines, directory.path(), rounds, report);
}

fn run() -> Work {
    Work {
        name: "run, 100 MB of output",
        divide: 3,
        ..quick(|engine, _| read_all(engine.command(&["run", "--rm", IMAGE, "cat", "/lines"])))
    }
}

fn logs() -> Work {
    Work {
        name: "logs -f, 100 MB while written",
        prepare: Box::new(|engine, _| {
            remove_all(engine, 0);
            engine.run(&["run", "-d", "--name", "talk", IMAGE, "cat", "/lines"]);
        }),
        divide: 3,
        ..quick(|engine, _| read_all(engine.command(&["logs", "-f", "talk"])))
    }
}

/// Reads what the command writes, to its end; it must be all lines.
fn read_all(mut command: Command) {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let bytes = io::copy(&mut child.stdout.take().unwrap(), &mut io::sink()).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(bytes, (LINES * LINE_BYTES) as u64, "output was lost");
}

/// The same file from the same server: in a container behind a published port, and on the host's
/// loopback.
fn ports(engines: &[&dyn Engine], directory: &Path, rounds: usize, report: &mut Report) {
    let host = free_port();
    let address = format!("127.0.0.1:{host}");
    let mut server = Command::new("busybox");
    server
        .args(["httpd", "-f", "-p", &address, "-h"])
        .arg(directory);
    let _server = Daemon::start(&mut server, &directory.join("log"));
    let mut servers = vec![(HOST, host)];
    for engine in engines {
        let port = free_port();
        let publish = format!("127.0.0.1:{port}:80");
        let run = ["run", "-d", "-p", &publish, IMAGE];
        engine.run(&[&run[..], &["httpd", "-f", "-p", "80", "-h", "/"]].concat());
        servers.push((engine.name(), port));
    }
    for (name, port) in &servers {
        eventually(name, || get(*port).is_ok());
    }
    for _ in 0..rounds {
        for (name, port) in &servers {
            let start = Instant::now();
            get(*port).unwrap();
            report.add("published port, 100 MB", name, start.elapsed());
        }
    }
    for engine in engines {
        remove_all(*engine, 0);
    }
}

fn get(port: u16) -> io::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.write_all(b"GET /lines HTTP/1.0\r\n\r\n")?;
    let mut buffer = vec![0; 256 * 1024];
    let mut total = 0;
    loop {
        match stream.read(&mut buffer)? {
            0 if total > LINES * LINE_BYTES => return Ok(()),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            bytes => total += bytes,
        }
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
