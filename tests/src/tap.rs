//! Captures the frames that arrive at an interface, after XDP and before the IP stack.

use std::time::{Duration, Instant};

use netlab::{
    Netns, netns,
    socket::{Direction, EVERY, PacketSocket},
};

/// Receive buffer, bytes.
const ROOM: libc::c_int = 64 << 20;
/// The longest frame that a veth delivers in one piece, bytes.
const LONGEST: usize = 1 << 17;
/// How long a frame may take to arrive on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// A capture of every frame that arrives at one interface.
#[derive(Debug)]
pub struct Tap {
    socket: PacketSocket,
}

impl Tap {
    /// Begins a capture.
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

    /// Returns frames in order of arrival, up to but without the first for which `last` holds. Panics if none arrives.
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
