//! Netlink dumps: one question, and every message of the answer.

use std::{fmt::Debug, io};

use rtnetlink::{
    packet_core::{
        NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
        NetlinkPayload, NetlinkSerializable,
    },
    sys::{Socket, SocketAddr},
};

/// The kernel fills at most 32 KiB at a time.
const LARGEST: usize = 64 * 1024;
/// Messages begin at multiples of this many bytes.
const ALIGNMENT: usize = 4;

/// Asks the kernel, and passes each message of its answer to `each`.
pub fn dump<M>(protocol: isize, question: M, mut each: impl FnMut(M)) -> io::Result<()>
where
    M: NetlinkSerializable + NetlinkDeserializable + Debug,
{
    let socket = Socket::new(protocol)?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut request = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(question));
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let mut buffer = Vec::with_capacity(LARGEST);
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
        let mut rest = buffer.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<M>::deserialize(rest).map_err(io::Error::other)?;
            match message.payload {
                NetlinkPayload::InnerMessage(message) => each(message),
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => {}
            }
            let length = usize::try_from(message.header.length).unwrap_or(usize::MAX);
            let next = length.next_multiple_of(ALIGNMENT);
            rest = rest.get(next..).unwrap_or_default();
        }
    }
}
