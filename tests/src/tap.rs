//! What arrives at an interface: whole frames, behind XDP and before any IP stack.

use std::time::{Duration, Instant};

use netlab::{
    Netns, netns,
    socket::{Direction, EVERY, PacketSocket},
};

/// Room for what arrives while nobody reads, bytes.
const ROOM: libc::c_int = 64 << 20;
/// The longest frame that a veth hands on in one piece, bytes.
const LONGEST: usize = 1 << 17;
/// What is waited for arrives within this time, even on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// Sees every frame that arrives at one interface, until dropped.
#[derive(Debug)]
pub struct Tap {
    socket: PacketSocket,
}

impl Tap {
    /// Frames are kept from here on.
    pub fn open(netns: &Netns, interface: &str) -> Self {
        let open = || {
            let socket = PacketSocket::receiving(netns::index_of(interface)?, EVERY)?;
            socket.set_receive_room(ROOM)?;
            std::io::Result::Ok(socket)
        };
        let socket = netns.run(open);
        let socket = socket.unwrap_or_else(|error| panic!("cannot listen on {interface}: {error}"));
        Self { socket }
    }

    /// Frames in order of arrival, up to and without the first for which `last` holds. Panics where that
    /// does not come.
    #[track_caller]
    pub fn until(&self, last: impl Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
        let begun = Instant::now();
        let mut room = vec![0; LONGEST];
        let mut seen = Vec::new();
        loop {
            let received = self.socket.receive(&mut room);
            match received.unwrap_or_else(|error| panic!("cannot read frames: {error}")) {
                Some((_, Direction::Left)) => {}
                Some((frame, Direction::Arrived)) if last(frame) => return seen,
                Some((frame, Direction::Arrived)) => seen.push(frame.to_vec()),
                None => {
                    assert!(
                        begun.elapsed() < PATIENCE,
                        "the frame that was waited for did not come; before it came {}",
                        seen.len()
                    );
                    let waited = self.socket.wait(Duration::from_secs(1));
                    waited.unwrap_or_else(|error| panic!("cannot wait for frames: {error}"));
                }
            }
        }
    }
}
