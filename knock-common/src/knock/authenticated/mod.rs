//! Authenticated knocks: one datagram that proves who sent it, that it is new, and which address is to be granted.
//!
//! Whoever has a key and the host's secret can make one ([`message`]); to anyone else it is random bytes. What is asked of
//! it first costs least and ends what a flood consists of:
//!
//! 1. the host's secret unmasks 16 bytes: anything that was made without it ends here, as [`Outcome::Other`];
//! 2. the time in it, by the host's clock;
//! 3. the key's slot: whether the key is valid, and whether the time is newer than that of every knock of this key before;
//! 4. the tag, by the user's key;
//! 5. the time again, by compare-and-exchange: of several CPUs with the same datagram, one accepts it;
//! 6. gate and addresses; then [`grant::give`](crate::grant::give) gives what it asks for, or user space does ([`held`]).
//!
//! In the kernel program several of these steps are functions that the verifier checks by themselves; what one leaves to the
//! next lies in a [`Work`](work::Work) of the CPU.

pub mod held;
pub mod key;
pub mod message;
mod open;
pub mod outcome;
mod report;
pub mod sha256;
pub mod siphash;
#[cfg(test)]
mod tests;
mod verify;
pub mod work;

use crate::{
    Address, Env,
    frame::{Frame, Segment},
};
use outcome::Outcome;

pub use open::{answer, give};
pub use report::report;
pub use verify::verify;

/// Looks at a datagram to a port for authenticated knocks. [`answer`] does what it asks for.
///
/// Two functions are called one after the other, since nested calls share 512 bytes of stack.
#[inline(always)]
pub fn look_at<E: Env, F: Frame + ?Sized, A: Address>(env: &E, frame: &F, datagram: &Segment<A>) {
    if begin(env, datagram) {
        env.verify_knock(frame, datagram.transport);
    }
}

/// Notes what is known of a datagram before it is verified. Returns false where there is no memory for it.
#[inline(never)]
fn begin<E: Env, A: Address>(env: &E, datagram: &Segment<A>) -> bool {
    let Some(work) = env.knock_work() else {
        return false;
    };
    work.source = datagram.source.padded();
    work.family = u32::from(A::FAMILY);
    work.destination_port = datagram.ports.destination();
    work.outcome = Outcome::Other as u8;
    true
}
