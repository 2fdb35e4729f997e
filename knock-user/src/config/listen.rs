//! Where the service listens for those who read its metrics.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

/// A TCP address with its port, or the path of a Unix socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Listen {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Stands before the path of a Unix socket.
const UNIX: &str = "unix:";
/// `sun_path` of `struct sockaddr_un`, without the NUL at its end.
const LONGEST_PATH: usize = 107;

impl Listen {
    /// Returns whether other hosts may reach it.
    pub fn is_exposed(&self) -> bool {
        match self {
            Self::Tcp(address) => !address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => false,
        }
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix(UNIX) {
            return unix(text, path);
        }
        let address: SocketAddr = text.parse().map_err(|_| tcp_fault(text))?;
        if address.port() == 0 {
            return Err(format!("{text:?} must have a port from 1 to 65535"));
        }
        Ok(Self::Tcp(address))
    }
}

fn unix(text: &str, path: &str) -> Result<Listen, String> {
    let path = Path::new(path);
    if !path.is_absolute() || path.file_name().is_none() {
        return Err(format!(
            "{text:?} must have the whole path of a file behind \"{UNIX}\", such as \
             \"{UNIX}/run/knockgate/metrics.sock\""
        ));
    }
    let length = path.as_os_str().len();
    if length > LONGEST_PATH {
        return Err(format!(
            "the path of a Unix socket has at most {LONGEST_PATH} bytes, and {text:?} has {length}"
        ));
    }
    Ok(Listen::Unix(path.to_owned()))
}

/// Returns what is wrong with a TCP address, and what to write instead.
fn tcp_fault(text: &str) -> String {
    let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
    let instead = if let Ok(address) = text.parse::<IpAddr>() {
        Some(SocketAddr::new(address, 9464))
    } else {
        let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
        let port = port.parse().ok();
        let port = port.filter(|_| matches!(host, "" | "localhost"));
        port.map(|port| SocketAddr::new(loopback, port))
    };
    match instead {
        Some(instead) => {
            format!("{text:?} must have an address and a port: write \"{instead}\"")
        }
        None => format!(
            "{text:?} is not an address with a port: write it like \"127.0.0.1:9464\", \"[::1]:9464\" or \
             \"{UNIX}/run/knockgate/metrics.sock\""
        ),
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

impl From<Listen> for String {
    fn from(listen: Listen) -> Self {
        listen.to_string()
    }
}

impl TryFrom<String> for Listen {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_sockets_are_read_as_they_are_written() {
        for text in [
            "127.0.0.1:9464",
            "[::1]:9464",
            "0.0.0.0:80",
            "unix:/run/knockgate/metrics.sock",
        ] {
            let listen: Listen = text.parse().expect("valid");
            assert_eq!(listen.to_string(), text);
        }
    }

    #[test]
    fn a_fault_says_what_to_write_instead() {
        let long = format!("unix:/{}", "x".repeat(LONGEST_PATH));
        for (text, says) in [
            ("9464", "write \"127.0.0.1:9464\""),
            (":9464", "write \"127.0.0.1:9464\""),
            ("localhost:9464", "write \"127.0.0.1:9464\""),
            ("192.0.2.1", "write \"192.0.2.1:9464\""),
            ("::1", "write \"[::1]:9464\""),
            ("127.0.0.1:0", "from 1 to 65535"),
            ("host.example:9464", "not an address with a port"),
            ("unix:metrics.sock", "whole path"),
            ("unix:/", "whole path"),
            (long.as_str(), "at most 107 bytes"),
        ] {
            let fault = text.parse::<Listen>().expect_err("a fault");
            assert!(fault.contains(says), "{text}: {fault}");
        }
    }

    #[test]
    fn loopback_addresses_and_unix_sockets_are_not_exposed() {
        for (text, exposed) in [
            ("127.0.0.1:9464", false),
            ("127.3.2.1:9464", false),
            ("[::1]:9464", false),
            ("[::ffff:127.0.0.1]:9464", false),
            ("unix:/run/x", false),
            ("0.0.0.0:9464", true),
            ("[::]:9464", true),
            ("192.0.2.1:9464", true),
        ] {
            let listen: Listen = text.parse().expect("valid");
            assert_eq!(listen.is_exposed(), exposed, "{text}");
        }
    }
}
