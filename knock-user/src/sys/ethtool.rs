//! Driver, offloads and queues of a network device, by the ioctl of ethtool.

use std::{
    ffi::c_char,
    io, mem,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    ptr,
};

const SIOCETHTOOL: libc::Ioctl = 0x8946;

/// Commands of `linux/ethtool.h`, and the set of strings that names offloads.
const GET_DRIVER: u32 = 0x03;
const GET_STRINGS: u32 = 0x1b;
const GET_STRING_SET: u32 = 0x37;
const GET_FEATURES: u32 = 0x3a;
const GET_CHANNELS: u32 = 0x3c;
const FEATURES_SET: u32 = 4;
/// Bytes of a name in a set of strings.
const NAME: usize = 32;
/// More offloads than any kernel has (64 in Linux 6.18), and the 32-bit words that they take.
const MOST_FEATURES: usize = 256;
const MOST_WORDS: usize = MOST_FEATURES / 32;

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    rest: [u8; 160],
}

/// `struct ethtool_sset_info` for one set.
#[repr(C)]
struct StringSet {
    command: u32,
    reserved: u32,
    mask: u64,
    count: u32,
}

/// `struct ethtool_gstrings`, with room for the names.
#[repr(C)]
struct Strings {
    command: u32,
    set: u32,
    count: u32,
    names: [[u8; NAME]; MOST_FEATURES],
}

/// `struct ethtool_gfeatures`, with room for the blocks. A block has four words for 32 offloads: available, requested,
/// active, never changed.
#[repr(C)]
struct Features {
    command: u32,
    words: u32,
    blocks: [[u32; 4]; MOST_WORDS],
}

/// `struct ethtool_channels`.
#[repr(C)]
struct ChannelInfo {
    command: u32,
    most: [u32; 4],
    now: [u32; 4],
}

/// Queues of a device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Channels {
    pub receive: u32,
    pub send: u32,
    /// Queues that do both.
    pub combined: u32,
    pub most_receive: u32,
    pub most_combined: u32,
}

/// Returns the name of the driver of an interface.
pub fn driver(name: &str) -> io::Result<String> {
    let mut info = DriverInfo {
        command: GET_DRIVER,
        driver: [0; 32],
        rest: [0; 160],
    };
    ask(name, &mut info)?;
    Ok(text(&info.driver))
}

/// Returns the names of the offloads that are on, as the kernel calls them; `ethtool -k` shortens some.
pub fn active_features(name: &str) -> io::Result<Vec<String>> {
    let mut set = StringSet {
        command: GET_STRING_SET,
        reserved: 0,
        mask: 1 << FEATURES_SET,
        count: 0,
    };
    ask(name, &mut set)?;
    let count = set.count as usize;
    // More than there is room for would be written past the end.
    if count > MOST_FEATURES {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!("{count} offloads are more than are read"),
        ));
    }
    let mut strings = Box::new(Strings {
        command: GET_STRINGS,
        set: FEATURES_SET,
        count: set.count,
        names: [[0; NAME]; MOST_FEATURES],
    });
    ask(name, strings.as_mut())?;
    let mut features = Features {
        command: GET_FEATURES,
        words: set.count.div_ceil(32),
        blocks: [[0; 4]; MOST_WORDS],
    };
    ask(name, &mut features)?;
    let is_active = |index: usize| features.blocks[index / 32][2] >> (index % 32) & 1 != 0;
    let names = strings.names.iter().take(count).enumerate();
    Ok(names
        .filter(|(index, _)| is_active(*index))
        .map(|(_, name)| text(name))
        .collect())
}

/// Returns the queues of an interface.
pub fn channels(name: &str) -> io::Result<Channels> {
    let mut info = ChannelInfo {
        command: GET_CHANNELS,
        most: [0; 4],
        now: [0; 4],
    };
    ask(name, &mut info)?;
    let ([most_receive, _, _, most_combined], [receive, send, _, combined]) = (info.most, info.now);
    Ok(Channels {
        receive,
        send,
        combined,
        most_receive,
        most_combined,
    })
}

/// Makes the kernel fill a structure that begins with its command.
fn ask<T>(name: &str, structure: &mut T) -> io::Result<()> {
    // SAFETY: takes no pointers.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor, which the call above has made and nothing else owns.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: ifreq is plain data, for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    // The last byte stays the NUL that ends the name.
    let room = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name[..room].iter_mut().zip(name.bytes()) {
        *to = c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_data = ptr::from_mut(structure).cast();
    // SAFETY: the request points to a structure of the form that its command fills, with room for as much
    // as it asks for, alive for the call; any bytes are values of all these structures.
    if unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Returns the text before the first NUL.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0);
    String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_are_as_long_as_the_kernels() {
        assert_eq!(size_of::<DriverInfo>(), 196);
        assert_eq!(mem::offset_of!(StringSet, count), 16);
        assert_eq!(mem::offset_of!(Strings, names), 12);
        assert_eq!(mem::offset_of!(Features, blocks), 8);
        assert_eq!(size_of::<ChannelInfo>(), 36);
    }

    #[test]
    fn offloads_of_loopback_are_read() {
        let features = active_features("lo").expect("anyone may ask");
        // Neither can be switched off there.
        assert!(
            features.iter().any(|name| name == "loopback"),
            "{features:?}"
        );
        assert!(
            !features.iter().any(|name| name == "rx-lro"),
            "{features:?}"
        );
    }

    #[test]
    fn a_device_that_is_not_there_is_an_error() {
        let error = driver("nosuchdevice0").expect_err("not there");
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    }
}
