//! A real sshd on the host, with its own keys, and a real ssh client for it.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use netlab::host::find_program;

use crate::{
    attempt,
    lab::Lab,
    run::{Run, Running, run, wait_until},
};

/// The name under which the client stores the server's key, whatever the address.
const ALIAS: &str = "guarded";

/// A server that accepts the key of the tests. Dropping it ends it.
#[derive(Debug)]
pub struct Sshd {
    _process: Running,
    folder: PathBuf,
}

impl Sshd {
    /// Starts a server in the host's namespace and waits until it listens.
    pub fn start(lab: &Lab, port: u16) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = lab.folder().join(format!("ssh-{number}"));
        fs::create_dir(&folder).expect("the temporary folder is writable");
        for key in ["host", "user"] {
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]);
            run(keygen.arg(folder.join(key))).exits(0);
        }
        let host_key = fs::read_to_string(folder.join("host.pub")).expect("just written");
        fs::write(folder.join("known_hosts"), format!("{ALIAS} {host_key}"))
            .expect("the temporary folder is writable");
        let shown = folder.display();
        let config = format!(
            "Port {port}\n\
             HostKey {shown}/host\n\
             AuthorizedKeysFile {shown}/user.pub\n\
             PidFile none\n\
             PermitRootLogin prohibit-password\n\
             PasswordAuthentication no\n\
             StrictModes no\n\
             UsePAM no\n"
        );
        fs::write(folder.join("sshd_config"), config).expect("the temporary folder is writable");

        // sshd needs an empty folder below /run, which not every machine has.
        let script = "mount -t tmpfs tmpfs /run && mkdir -m 755 /run/sshd && exec \"$@\"";
        let server = find_program("sshd").expect("the test needs it");
        let mut command = lab.host.command("unshare");
        command
            .args(["--mount", "sh", "-c", script, "sh"])
            .arg(server)
            .args(["-D", "-e", "-f"])
            .arg(folder.join("sshd_config"))
            .stderr(Stdio::null());
        let sshd = Self {
            _process: Running::start(&mut command, lab.folder()),
            folder,
        };
        wait_until_listening(lab, port);
        sshd
    }

    /// Runs `remote` on the server by an ordinary ssh in the clients' namespace.
    pub fn ssh(&self, lab: &Lab, host: IpAddr, proxy: &str, remote: &str) -> Run {
        let shown = self.folder.display();
        let options = [
            format!("ProxyCommand={proxy}"),
            format!("IdentityFile={shown}/user"),
            format!("UserKnownHostsFile={shown}/known_hosts"),
            format!("HostKeyAlias={ALIAS}"),
            "IdentitiesOnly=yes".to_owned(),
            "StrictHostKeyChecking=yes".to_owned(),
            "BatchMode=yes".to_owned(),
        ];
        let host = format!("root@{host}");
        let mut arguments = vec!["-F", "none"];
        for option in &options {
            arguments.extend(["-o", option]);
        }
        arguments.extend([&host, remote]);
        lab.client("ssh", &arguments)
    }
}

fn wait_until_listening(lab: &Lab, port: u16) {
    let here = |port| SocketAddr::from(([127, 0, 0, 1], port));
    wait_until("sshd listens", || {
        lab.host
            .run(|| attempt::connect(here(0), here(port), Duration::from_secs(1)).is_ok())
    });
}
