//! The few HTTP requests that tests make by hand, and what came back.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// One answer, whole.
#[derive(Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Header lines as they came.
    pub headers: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Response {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// `GET http://ADDRESS/PATH` with a connection of its own; `None` if nobody answers.
pub fn get(address: impl ToSocketAddrs, path: &str) -> Option<Response> {
    request(
        address,
        &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
    )
}

/// Whether the front page of a server is this.
pub fn serves(address: &str, page: &str) -> bool {
    get(address, "/").is_some_and(|response| response.text() == page)
}

/// Sends the bytes of a request and reads until the peer closes.
pub fn request(address: impl ToSocketAddrs, request: &str) -> Option<Response> {
    let address = address.to_socket_addrs().ok()?.next()?;
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).ok()?;
    parse(&bytes)
}

fn parse(bytes: &[u8]) -> Option<Response> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let headers = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = headers.split_whitespace().nth(1)?.parse().ok()?;
    Some(Response {
        status,
        headers,
        body: bytes[end + 4..].to_vec(),
    })
}
