//! A client that speaks as much HTTP as the suites need.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
};

use netlab::Netns;

/// What a server has answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// Gets a page from a server in a namespace; none where no server answers.
pub fn get(netns: &Netns, server: SocketAddr, path: &str) -> Option<Answer> {
    let stream = netns.run(|| TcpStream::connect(server)).ok()?;
    ask(stream, "GET", path)
}

/// Gets a page over a Unix socket.
pub fn get_unix(socket: &Path, path: &str) -> Option<Answer> {
    ask(UnixStream::connect(socket).ok()?, "GET", path)
}

/// Asks for a page over a connection, which ends with the answer.
pub fn ask(mut stream: impl Read + Write, method: &str, path: &str) -> Option<Answer> {
    // HTTP/1.0: the answer comes in one piece, and the connection closes behind it.
    let request = format!("{method} {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answer {
        status,
        head: head.to_lowercase(),
        body: body.to_owned(),
    })
}

/// Writes a text as a part of a query.
pub fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let one = |byte: u8| {
        if plain(byte) {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    };
    text.bytes().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_means_something_in_a_query_is_encoded() {
        assert_eq!(encoded("up{a=~\"b c\"}+1"), "up%7Ba%3D~%22b%20c%22%7D%2B1");
    }
}
