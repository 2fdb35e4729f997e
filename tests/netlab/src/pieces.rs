//! Sends frames of which only the Ethernet header is in the first piece of memory, as some drivers receive them: what a packet
//! socket sends from a ring stays in the ring's pages (`Documentation/networking/packet_mmap.rst` in Linux).

use std::{
    ffi::c_ulong,
    io,
    os::fd::{AsFd as _, AsRawFd as _},
    ptr::{self, NonNull},
    sync::Mutex,
};

use crate::socket::PacketSocket;

/// Bytes of a slot, for the kernel's header and the longest frame.
const SLOT: usize = 1 << 14;
/// Slots. A frame that a receiver keeps (fragments, a socket's queue) is overwritten when its slot is used again: a veth gives
/// the slot back before the receiver has read the frame.
const SLOTS: usize = 1024;
/// Where a frame begins in its slot: `TPACKET_HDRLEN` less a `sockaddr_ll` (`tpacket_parse_header` in `net/packet/af_packet.c`).
const FRAME: usize = size_of::<libc::tpacket_hdr>().next_multiple_of(libc::TPACKET_ALIGNMENT);

/// States of a slot.
const AVAILABLE: c_ulong = libc::TP_STATUS_AVAILABLE as c_ulong;
const REQUESTED: c_ulong = libc::TP_STATUS_SEND_REQUEST as c_ulong;

/// A socket that sends so.
#[derive(Debug)]
pub struct PieceSocket {
    socket: PacketSocket,
    ring: Mutex<Ring>,
}

#[derive(Debug)]
struct Ring {
    memory: NonNull<u8>,
    /// The slot that the kernel reads next.
    next: usize,
}

// SAFETY: the memory is mapped into the process, and nothing of it belongs to a thread.
unsafe impl Send for Ring {}

impl PieceSocket {
    /// Opens a socket. `interface` is an index in the calling thread's namespace.
    pub fn sending(interface: u32) -> io::Result<Self> {
        let socket = PacketSocket::sending(interface)?;
        let number = |number: usize| libc::c_uint::try_from(number).expect("small numbers");
        let request = libc::tpacket_req {
            tp_block_size: number(SLOT),
            tp_block_nr: number(SLOTS),
            tp_frame_size: number(SLOT),
            tp_frame_nr: number(SLOTS),
        };
        socket.set(libc::SOL_PACKET, libc::PACKET_TX_RING, &request)?;
        // SAFETY: a new mapping, at a place of the kernel's choice.
        let ring = unsafe {
            libc::mmap(
                ptr::null_mut(),
                SLOT * SLOTS,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                socket.as_fd().as_raw_fd(),
                0,
            )
        };
        if ring == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let ring = Ring {
            memory: NonNull::new(ring.cast()).expect("no mapping is at 0"),
            next: 0,
        };
        Ok(Self {
            socket,
            ring: Mutex::new(ring),
        })
    }

    /// Sends a whole frame. Returns false while there is no room.
    ///
    /// # Panics
    /// If the frame is longer than a slot.
    pub fn send(&self, frame: &[u8]) -> io::Result<bool> {
        assert!(
            FRAME + frame.len() <= SLOT,
            "a frame of {} bytes",
            frame.len()
        );
        let mut ring = self.ring.lock().expect("no one panics with it");
        // SAFETY: within the mapping; the header is aligned there.
        let header: *mut libc::tpacket_hdr =
            unsafe { ring.memory.add(ring.next * SLOT) }.as_ptr().cast();
        // SAFETY: as above. The kernel writes the state behind the compiler's back.
        let state = unsafe { &raw mut (*header).tp_status };
        // SAFETY: as above.
        if unsafe { state.read_volatile() } != AVAILABLE {
            return Ok(false);
        }
        // SAFETY: the slot is ours until its state changes, and has room for the frame.
        unsafe {
            let to = header.cast::<u8>().add(FRAME);
            ptr::copy_nonoverlapping(frame.as_ptr(), to, frame.len());
            (*header).tp_len = u32::try_from(frame.len()).expect("shorter than a slot");
            state.write_volatile(REQUESTED);
        }
        // The kernel reads the ring.
        self.socket.send(&[])?;
        // SAFETY: as above.
        if unsafe { state.read_volatile() } == REQUESTED {
            // It has not taken the frame. SAFETY: as above.
            unsafe { state.write_volatile(AVAILABLE) };
            return Ok(false);
        }
        ring.next = (ring.next + 1) % SLOTS;
        Ok(true)
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: the mapping that was made, which nothing points into any more.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), SLOT * SLOTS) };
    }
}
