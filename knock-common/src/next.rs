//! Where packets that pass go on: to the host, or to a program that the configuration names for an interface.

/// How the kernel program finds the slot of the program that follows.
pub mod slot {
    /// Nothing follows on any interface.
    pub const NONE: u32 = 0;
    /// The same program follows on every interface: it is in slot 0. Known when the program is loaded, so that the kernel
    /// jumps to it directly.
    pub const FIRST: u32 = 1;
    /// By interface: see [`Interfaces`](super::Interfaces).
    pub const OF_INTERFACE: u32 = 2;
}

/// Most interfaces that programs follow on, where these are not the same on all.
pub const MOST: usize = 16;

/// The indices of the interfaces that a program follows on, by slot; 0: none.
pub type Interfaces = [u32; MOST];

/// Returns the slot of an interface; [`MOST`] where nothing follows on it.
#[inline(always)]
pub fn slot_of(interfaces: &Interfaces, interface: u32) -> usize {
    let mut slot = 0;
    while slot < MOST && interfaces[slot] != interface {
        slot += 1;
    }
    slot
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_has_its_own_slot_or_none() {
        let mut interfaces = [0; MOST];
        interfaces[0] = 7;
        interfaces[MOST - 1] = 9;
        assert_eq!(slot_of(&interfaces, 7), 0);
        assert_eq!(slot_of(&interfaces, 9), MOST - 1);
        assert_eq!(slot_of(&interfaces, 8), MOST);
    }
}
