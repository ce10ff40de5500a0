//! Rows I6, I7, I8, J7, J10 and J11: frames of HTTP/2 that no library sends, on the store's socket.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::process::Process;

/// What the store may take at most while it is attacked.
const MEMORY_KIB_MAX: u64 = 128 * 1024;
const LIST: &str = "/orlop.store.v1.Snapshots/List";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A name, and what is done on one connection.
type Attack = (&'static str, fn(&mut Attacker));

/// One connection, of frames.
struct Attacker(UnixStream);

impl Attacker {
    fn new(store: &Process) -> Self {
        let mut socket = store.socket();
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        socket
            .set_write_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        socket
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .unwrap();
        let mut attacker = Self(socket);
        assert!(attacker.send(SETTINGS, 0, 0, &[]));
        attacker
    }

    /// Whether the other side still takes it.
    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        self.0.write_all(&[&head, payload].concat()).is_ok()
    }

    /// The next frame: kind, flags, stream. `None` at the end.
    fn receive(&mut self) -> Option<(u8, u8, u32)> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut body = vec![0; usize::try_from(length).unwrap()];
        self.0.read_exact(&mut body).ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some((head[3], head[4], stream))
    }

    /// Whether a call was dispatched: its answer has data or ends well after headers of its own.
    fn dispatched(&mut self, stream: u32) -> bool {
        let mut headers = 0;
        while let Some((kind, flags, of)) = self.receive() {
            if of != stream {
                continue;
            }
            match kind {
                DATA => return true,
                HEADERS => headers += 1,
                RST_STREAM => return false,
                _ => {}
            }
            if flags & END_STREAM != 0 {
                return headers > 1;
            }
        }
        false
    }

    /// Calls `path` with an empty message.
    fn call(&mut self, stream: u32, authority: &[u8], path: &[u8]) {
        self.send(
            HEADERS,
            END_HEADERS,
            stream,
            &header_block(authority, &[path]),
        );
        self.send(DATA, END_STREAM, stream, &[0; 5]);
    }
}

/// `POST`, with indexes of HPACK's static table (RFC 7541, appendix A), all values plain.
fn header_block(authority: &[u8], paths: &[&[u8]]) -> Vec<u8> {
    let literal = |head: &[u8], value: &[u8]| {
        assert!(value.len() < 127);
        [head, &[u8::try_from(value.len()).unwrap()], value].concat()
    };
    let mut block = vec![0x83, 0x86];
    for path in paths {
        block.extend(literal(&[0x04], path));
    }
    block.extend(literal(&[0x01], authority));
    block.extend(literal(&[0x0f, 0x10], b"application/grpc"));
    block.extend(literal(b"\x00\x02te", b"trailers"));
    block
}

fn usual() -> Vec<u8> {
    header_block(b"localhost", &[LIST.as_bytes()])
}

#[tokio::test(flavor = "multi_thread")]
async fn i6_floods_of_frames_are_bounded() {
    let store = Process::start().await;
    let attacks: [Attack; 5] = [
        ("rapid reset", |attacker| {
            (0..100_000_u32).map(|n| 2 * n + 1).all(|stream| {
                attacker.send(HEADERS, END_HEADERS, stream, &usual())
                    && attacker.send(RST_STREAM, 0, stream, &8_u32.to_be_bytes())
            });
        }),
        ("continuation", |attacker| {
            attacker.send(HEADERS, 0, 1, &usual());
            let junk = [&b"\x00\x04junk\x7f\x81\x7f"[..], &[b'x'; 16_000]].concat();
            (0..10_000).all(|_| attacker.send(CONTINUATION, 0, 1, &junk));
        }),
        ("empty data", |attacker| {
            attacker.send(HEADERS, END_HEADERS, 1, &usual());
            (0..300_000).all(|_| attacker.send(DATA, 0, 1, &[]));
        }),
        ("ping", |attacker| {
            (0..300_000).all(|_| attacker.send(PING, 0, 0, &[0; 8]));
        }),
        ("settings", |attacker| {
            (0..300_000).all(|_| attacker.send(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]));
        }),
    ];
    for (name, attack) in attacks {
        let mut attacker = Attacker::new(&store);
        attacker
            .0
            .set_write_timeout(Some(Duration::from_secs(2)))
            .unwrap();
        let flood = tokio::task::spawn_blocking(move || attack(&mut attacker));
        while !flood.is_finished() {
            assert!(store.answers().await, "during {name}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        flood.await.unwrap();
        assert!(store.answers().await, "after {name}");
        assert!(
            store.peak_kib() < MEMORY_KIB_MAX,
            "{name}: {} KiB",
            store.peak_kib()
        );
    }
}

/// Streams that are opened and never go on hold up nobody else.
#[tokio::test(flavor = "multi_thread")]
async fn i6_calls_that_never_end_are_bounded() {
    let store = Process::start().await;
    let mut attackers: Vec<_> = (0..4).map(|_| Attacker::new(&store)).collect();
    for attacker in &mut attackers {
        for stream in (0..2000).map(|n| 2 * n + 1) {
            attacker.send(HEADERS, END_HEADERS, stream, &usual());
            attacker.send(WINDOW_UPDATE, 0, stream, &1_u32.to_be_bytes());
        }
    }
    assert!(store.answers().await);
    assert!(
        store.peak_kib() < MEMORY_KIB_MAX,
        "{} KiB",
        store.peak_kib()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn i7_a_store_without_descriptors_serves_again() {
    let store = Process::start().await;
    let pid = Pid::from_raw(i32::try_from(store.id()).unwrap());
    let open = std::fs::read_dir(format!("/proc/{}/fd", store.id()))
        .unwrap()
        .count();
    let few = u64::try_from(open + 8).unwrap();
    let limit = |current| Rlimit {
        current: Some(current),
        maximum: Some(4096),
    };
    prlimit(pid, Resource::Nofile, limit(few)).unwrap();
    let crowd: Vec<_> = (0..100).map(|_| store.socket()).collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut held: Vec<_> = crowd;
    for socket in &mut held {
        socket.write_all(b"\x16\x03\x01 this is TLS").ok();
    }
    drop(held);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(store.answers().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn i8_a_million_nested_groups_are_refused() {
    let store = Process::start().await;
    for group in [b"\x0b".as_slice(), b"\x7b", b"\x0a\x7f"] {
        let message = group.repeat(1_000_000 / group.len());
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        let body = [&[0][..], &length, &message].concat();
        let mut attacker = Attacker::new(&store);
        attacker.send(HEADERS, END_HEADERS, 1, &usual());
        let mut pieces = body.chunks(16_384).peekable();
        while let Some(piece) = pieces.next() {
            let last = if pieces.peek().is_none() {
                END_STREAM
            } else {
                0
            };
            attacker.send(DATA, last, 1, piece);
        }
        assert!(!attacker.dispatched(1), "a message of groups is taken");
        assert!(store.answers().await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn j7_only_the_exact_path_is_dispatched() {
    let store = Process::start().await;
    let calls = |authority: &[u8], path: &[u8]| {
        let mut attacker = Attacker::new(&store);
        attacker.call(1, authority, path);
        attacker.dispatched(1)
    };
    assert!(calls(b"localhost", LIST.as_bytes()), "an honest call");
    let bad = [
        "orlop.store.v1.Snapshots/List",
        "//orlop.store.v1.Snapshots/List",
        "/orlop.store.v1.Snapshots/List/",
        "/ORLOP.STORE.V1.Snapshots/List",
        "/orlop.store.v1.snapshots/list",
        "/orlop.store.v1.Snapshots//List",
        "/orlop.store.v1.Snapshots/%4cist",
        "/orlop.store.v1.Snapshots/./List",
        "/x/../orlop.store.v1.Snapshots/List",
        "/orlop.store.v1.Snapshots",
        "/",
        "",
        "*",
        "/orlop.store.v1.Snapshots/List\\",
        "/orlop.store.v1.Snapshots/List ",
        "http://localhost/orlop.store.v1.Snapshots/List",
    ];
    for path in bad {
        assert!(!calls(b"localhost", path.as_bytes()), "{path:?}");
    }
    let mut twice = Attacker::new(&store);
    let block = header_block(b"localhost", &[b"/x", LIST.as_bytes()]);
    twice.send(HEADERS, END_HEADERS, 1, &block);
    twice.send(DATA, END_STREAM, 1, &[0; 5]);
    assert!(!twice.dispatched(1), "two paths");
    assert!(store.answers().await);
}

/// Over a Unix socket nobody can be rebound: the authority means nothing, unless it is none.
#[tokio::test(flavor = "multi_thread")]
async fn j11_j10_the_authority_is_never_trusted() {
    let store = Process::start().await;
    let calls = |authority: &[u8]| {
        let mut attacker = Attacker::new(&store);
        attacker.call(1, authority, LIST.as_bytes());
        attacker.dispatched(1)
    };
    for authority in [
        &b"localhost"[..],
        b"attacker.example:80",
        b"127.0.0.1",
        b"[::1]:1",
    ] {
        assert!(
            calls(authority),
            "{:?}",
            authority.escape_ascii().to_string()
        );
    }
    for authority in [&b"a\r\nx: y"[..], b"a\nb", b"a\0b"] {
        assert!(
            !calls(authority),
            "{:?}",
            authority.escape_ascii().to_string()
        );
    }
    let mut socket = store.socket();
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    socket
        .write_all(
            b"POST /orlop.store.v1.Snapshots/List HTTP/1.1\r\nHost: attacker.example\r\n\r\n",
        )
        .unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).ok();
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "HTTP/1.1 is served");
    assert!(store.answers().await);
}
