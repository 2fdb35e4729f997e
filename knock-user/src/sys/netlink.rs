//! Questions to the kernel over netlink, of the network namespace that the calling thread is in. Each is asked and
//! answered in one call, without an event loop.

use std::{io, net::IpAddr};

use rtnetlink::{
    packet_core::{
        NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_MULTIPART, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR,
        NetlinkBuffer, NlasIterator,
    },
    sys::{Socket, SocketAddr},
};

/// Bytes in front of a message's payload, `struct nlmsghdr`.
const HEADER: usize = 16;
/// Bytes in front of an attribute's value, `struct nlattr`.
const ATTRIBUTE_HEADER: usize = 4;
/// Messages and attributes begin at multiples of this many bytes.
const ALIGNMENT: usize = 4;
/// The kernel sends at most 32 KiB at a time.
const LARGEST: usize = 64 * 1024;

/// How often a list is asked for that changes while the kernel answers. The last answer is taken as it is.
const TRIES: usize = 5;

/// Asks for everything of a kind, and calls `each` with the payload of every message of the answer. Asks again where the list has
/// changed meanwhile, since something that was there all the time may be missing in the answer.
pub fn list(protocol: isize, kind: u16, payload: &[u8], each: impl FnMut(&[u8])) -> io::Result<()> {
    list_from(|| open(protocol), kind, payload, each)
}

/// As [`list`], of rtnetlink: asks only for what matches the fields of `payload` that are not zero, as far as the kernel can
/// choose by them.
pub fn list_matching(
    protocol: isize,
    kind: u16,
    payload: &[u8],
    each: impl FnMut(&[u8]),
) -> io::Result<()> {
    let strict = || {
        let socket = open(protocol)?;
        socket.set_netlink_get_strict_chk(true)?;
        Ok(socket)
    };
    list_from(strict, kind, payload, each)
}

fn list_from(
    open: impl Fn() -> io::Result<Socket>,
    kind: u16,
    payload: &[u8],
    mut each: impl FnMut(&[u8]),
) -> io::Result<()> {
    let mut replies = Vec::new();
    for _ in 0..TRIES {
        replies.clear();
        let keep = |reply: &[u8]| replies.push(reply.to_vec());
        if ask_by(&open()?, kind, NLM_F_DUMP, payload, keep)? == Answer::Whole {
            break;
        }
    }
    for reply in &replies {
        each(reply);
    }
    Ok(())
}

/// Whether an answer is of one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Whole,
    /// What was asked for has changed between two parts of it (`NLM_F_DUMP_INTR`).
    Changed,
}

/// Sends a request of this type, and calls `each` with the payload of every message of the answer.
///
/// `flags`: beside [`NLM_F_REQUEST`]; with `NLM_F_DUMP`, everything of the kind is asked for. The kernel answers such
/// requests before `send` returns, so nothing blocks for long.
pub fn ask(
    protocol: isize,
    kind: u16,
    flags: u16,
    payload: &[u8],
    each: impl FnMut(&[u8]),
) -> io::Result<Answer> {
    ask_by(&open(protocol)?, kind, flags, payload, each)
}

fn open(protocol: isize) -> io::Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

fn ask_by(
    socket: &Socket,
    kind: u16,
    flags: u16,
    payload: &[u8],
    mut each: impl FnMut(&[u8]),
) -> io::Result<Answer> {
    socket.send(&message(kind, NLM_F_REQUEST | flags, payload), 0)?;
    let mut buffer = Vec::with_capacity(LARGEST);
    let mut answer = Answer::Whole;
    loop {
        buffer.clear();
        let length = match socket.recv(&mut buffer, libc::MSG_TRUNC) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            result => result?,
        };
        if length > buffer.len() {
            return Err(io::Error::other(
                "a netlink message is longer than expected",
            ));
        }
        if read(&buffer, &mut answer, &mut each)? {
            return Ok(answer);
        }
    }
}

/// Makes a message with its header. The kernel does not look at sequence and port number.
fn message(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + payload.len()).unwrap_or(u32::MAX);
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend(payload);
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
    bytes
}

/// Makes an attribute, which another may follow.
pub fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(ATTRIBUTE_HEADER + value.len()).unwrap_or(u16::MAX);
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
    bytes
}

/// Returns the kinds and values of the attributes in `bytes`, up to one that is malformed.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let whole = NlasIterator::new(bytes).map_while(Result::ok);
    whole.map(|attribute| {
        let (kind, length) = (attribute.kind(), attribute.value_length());
        (kind, &attribute.into_inner()[ATTRIBUTE_HEADER..][..length])
    })
}

/// Reads a string attribute: up to the first NUL.
pub fn text(value: &[u8]) -> String {
    let end = value.iter().position(|&byte| byte == 0);
    String::from_utf8_lossy(&value[..end.unwrap_or(value.len())]).into_owned()
}

/// Reads a number of 32 bits.
pub fn number(value: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(*value.first_chunk()?))
}

/// Reads an IP address; `None`: it has another length.
pub fn ip(value: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(value) {
        return Some(v4.into());
    }
    <[u8; 16]>::try_from(value).ok().map(IpAddr::from)
}

/// Passes the messages of a datagram to `each`, and notes in `answer` if they say that something has changed. Returns whether the
/// answer ends with it.
fn read(datagram: &[u8], answer: &mut Answer, each: &mut impl FnMut(&[u8])) -> io::Result<bool> {
    // 0: there is no error.
    let outcome = |payload: &[u8]| match payload.first_chunk() {
        Some(code) if *code != [0; 4] => Err(io::Error::from_raw_os_error(
            i32::from_ne_bytes(*code).saturating_neg(),
        )),
        _ => Ok(true),
    };
    let mut rest = datagram;
    while !rest.is_empty() {
        let message = NetlinkBuffer::new_checked(rest)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
        let payload = message.payload();
        if message.flags() & NLM_F_DUMP_INTR != 0 {
            *answer = Answer::Changed;
        }
        match message.message_type() {
            // A list that could not be made whole says why at its end.
            NLMSG_DONE | NLMSG_ERROR => return outcome(payload),
            _ => each(payload),
        }
        if message.flags() & NLM_F_MULTIPART == 0 {
            return Ok(true);
        }
        let length = (message.length() as usize).max(HEADER);
        rest = rest
            .get(length.next_multiple_of(ALIGNMENT)..)
            .unwrap_or_default();
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_in_parts_goes_on_until_it_is_said_to_be_done() {
        let mut replies = Vec::new();
        let mut keep = |reply: &[u8]| replies.push(reply.to_vec());
        let part = |byte| message(16, NLM_F_MULTIPART, &[byte; 8]);
        let datagram = [part(1), part(2)].concat();
        let mut answer = Answer::Whole;
        assert!(!read(&datagram, &mut answer, &mut keep).expect("well-formed"));
        let end = message(NLMSG_DONE, NLM_F_MULTIPART, &[0; 4]);
        assert!(read(&end, &mut answer, &mut keep).expect("well-formed"));
        assert_eq!(answer, Answer::Whole);
        assert_eq!(replies, [[1; 8], [2; 8]]);
    }

    #[test]
    fn an_error_is_the_kernels() {
        for (kind, flags) in [(NLMSG_ERROR, 0), (NLMSG_DONE, NLM_F_MULTIPART)] {
            let refused = message(kind, flags, &(-libc::EPERM).to_ne_bytes());
            let error = read(&refused, &mut Answer::Whole, &mut |_: &[u8]| {});
            let error = error.expect_err("refused");
            assert_eq!(error.raw_os_error(), Some(libc::EPERM));
        }
    }

    #[test]
    fn a_list_that_has_changed_says_so_in_any_part() {
        for changed in [0, 1] {
            let part = |number, byte| {
                let is_changed = number == changed;
                let flag = if is_changed { NLM_F_DUMP_INTR } else { 0 };
                message(16, NLM_F_MULTIPART | flag, &[byte; 8])
            };
            let datagram = [part(0, 1), part(1, 2)].concat();
            let mut answer = Answer::Whole;
            assert!(!read(&datagram, &mut answer, &mut |_: &[u8]| {}).expect("well-formed"));
            assert_eq!(answer, Answer::Changed);
        }
    }

    #[test]
    fn a_message_cut_short_is_an_error() {
        let whole = message(16, 0, &[1; 8]);
        let cut = &whole[..whole.len() - 4];
        assert!(read(cut, &mut Answer::Whole, &mut |_: &[u8]| {}).is_err());
    }
}
