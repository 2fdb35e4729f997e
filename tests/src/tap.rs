//! What arrives at an interface: whole frames, behind XDP and before any IP stack.

use std::{
    io::{self, ErrorKind},
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};

use crate::{netns::Netns, raw};

/// Every ethertype, as `linux/if_ether.h` has it.
const EVERY: u16 = 0x0003;
/// Room for what arrives while nobody reads, bytes.
static ROOM: libc::c_int = 64 << 20;
/// The longest frame that a veth hands on in one piece, bytes.
const LONGEST: usize = 1 << 17;
/// What is waited for arrives within this time, even on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// Sees every frame that arrives at one interface, until dropped.
#[derive(Debug)]
pub struct Tap {
    socket: Socket,
}

impl Tap {
    /// Frames are kept from here on.
    pub fn open(netns: &Netns, interface: &str) -> Self {
        let socket = netns.run(|| {
            // Deaf until it is bound to the interface.
            let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
            force_room(&socket)?;
            socket.bind(&raw::address(interface, EVERY)?)?;
            socket.set_read_timeout(Some(Duration::from_millis(100)))?;
            io::Result::Ok(socket)
        });
        let socket = socket.unwrap_or_else(|error| panic!("can't listen on {interface}: {error}"));
        Self { socket }
    }

    /// Frames in order of arrival, up to and without the first for which `last` holds. Panics where that
    /// does not come.
    #[track_caller]
    pub fn until(&self, last: impl Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
        let begun = Instant::now();
        let mut buffer = Vec::with_capacity(LONGEST);
        let mut seen = Vec::new();
        loop {
            match self.receive(&mut buffer) {
                Ok(false) => {}
                Ok(true) if last(&buffer) => return seen,
                Ok(true) => seen.push(buffer.clone()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => assert!(
                    begun.elapsed() < PATIENCE,
                    "the frame that was waited for did not come; before it came {}",
                    seen.len()
                ),
                Err(error) => panic!("can't read frames: {error}"),
            }
        }
    }

    /// Reads one frame, and says whether it arrived at the interface or left it.
    fn receive(&self, buffer: &mut Vec<u8>) -> io::Result<bool> {
        buffer.clear();
        let (length, from) = self.socket.recv_from(buffer.spare_capacity_mut())?;
        // SAFETY: the kernel has just written the first `length` bytes.
        unsafe { buffer.set_len(length) };
        // SAFETY: a packet socket's addresses are of this form, and the storage is aligned for any.
        let from = unsafe { &*from.as_ptr().cast::<libc::sockaddr_ll>() };
        Ok(from.sll_pkttype != libc::PACKET_OUTGOING)
    }
}

/// Beyond the limit that the machine sets for everyone.
fn force_room(socket: &Socket) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of_val(&ROOM)).expect("four bytes");
    // SAFETY: the option is an int, of which the kernel reads `length` bytes.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            (&raw const ROOM).cast(),
            length,
        )
    };
    if set == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
