//! One question over netlink, and all messages of the answer.

use std::io;

use rtnetlink::{
    packet_core::{NLM_F_MULTIPART, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, NlasIterator},
    sys::{Socket, SocketAddr},
};

/// Bytes in front of a message's payload, `struct nlmsghdr`.
const HEADER: usize = 16;

/// A socket that asks and waits. The kernel answers such questions before `send` returns, so nothing can
/// block for long.
pub struct Netlink(Socket);

impl Netlink {
    pub fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self(socket))
    }

    /// Sends one whole message, and returns those that answer it, without their headers.
    pub fn ask(&self, message: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        self.0.send(message, 0)?;
        let mut replies = Vec::new();
        loop {
            let (datagram, _) = self.0.recv_from_full()?;
            if read(&datagram, &mut replies)? {
                return Ok(replies);
            }
        }
    }
}

/// A message with its header. Sequence and port number are nobody's concern.
pub fn message(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + payload.len()).unwrap_or(u32::MAX);
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// An attribute.
pub fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes
}

/// Kinds and values of the attributes in these bytes, up to one that is malformed.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, Vec<u8>)> {
    NlasIterator::new(bytes)
        .map_while(Result::ok)
        .map(|attribute| (attribute.kind(), attribute.value().to_vec()))
}

/// A string as attributes hold it: up to the first NUL.
pub fn text(value: &[u8]) -> String {
    let end = value.iter().position(|&byte| byte == 0);
    String::from_utf8_lossy(&value[..end.unwrap_or(value.len())]).into_owned()
}

/// Takes the messages out of a datagram. Says whether the answer ends with it.
fn read(datagram: &[u8], replies: &mut Vec<Vec<u8>>) -> io::Result<bool> {
    let mut rest = datagram;
    while !rest.is_empty() {
        let message = NetlinkBuffer::new_checked(rest)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
        let payload = message.payload();
        match message.message_type() {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let code = payload
                    .first_chunk()
                    .map_or(0, |code| i32::from_ne_bytes(*code));
                // 0 is an acknowledgement.
                return match code {
                    0 => Ok(true),
                    code => Err(io::Error::from_raw_os_error(-code)),
                };
            }
            _ => replies.push(payload.to_vec()),
        }
        if message.flags() & NLM_F_MULTIPART == 0 {
            return Ok(true);
        }
        let length = (message.length() as usize).max(HEADER).next_multiple_of(4);
        rest = rest.get(length..).unwrap_or_default();
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_in_parts_goes_on_until_it_is_said_to_be_done() {
        let mut replies = Vec::new();
        let part = |byte| message(16, NLM_F_MULTIPART, &[byte; 5]);
        let datagram = [part(1), part(2)].concat();
        assert!(!read(&datagram, &mut replies).expect("well-formed"));
        let end = message(NLMSG_DONE, NLM_F_MULTIPART, &[0; 4]);
        assert!(read(&end, &mut replies).expect("well-formed"));
        assert_eq!(replies, [vec![1; 5], vec![2; 5]]);
    }

    #[test]
    fn an_error_is_the_kernels() {
        let refused = message(NLMSG_ERROR, 0, &(-libc::EPERM).to_ne_bytes());
        let error = read(&refused, &mut Vec::new()).expect_err("refused");
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    }

    #[test]
    fn a_message_cut_short_is_an_error() {
        let whole = message(16, 0, &[1; 8]);
        assert!(read(&whole[..whole.len() - 4], &mut Vec::new()).is_err());
    }
}
