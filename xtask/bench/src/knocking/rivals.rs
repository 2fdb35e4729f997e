//! The port knockers that are compared: knockgate and others.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use netlab::host::{find_program, output};

use super::flood::Junk;
use crate::{
    frame,
    host::{HOST, Host, Wire},
    instance::{FWKNOP_PORT, Instance, KNOCK_PORT, KNOCKS, PROTECTED, Setup, Slots},
    keys::{Key, random},
    recipe::{Hook, Recipe},
    service::Service,
};

/// What protects the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rival {
    Nobody,
    /// knockgate with this `limits.sources`, and its service.
    Knockgate(u32),
    /// The same, opened by authenticated knocks.
    Authenticated,
    /// The same, opened by clients of fwknop.
    KnockgateFwknop,
    Knockd,
    Fwknopd,
    /// Sets of nftables.
    Recipe,
}

/// One of them at work, in a namespace of its own. Fields are dropped in their order.
pub struct Standing {
    rival: Rival,
    pub service: Option<Service>,
    pub instance: Option<Instance>,
    /// The key of authenticated knocks.
    key: Option<Key>,
    _listener: TcpListener,
    pub wire: Wire,
    folder: PathBuf,
    host: Host,
}

/// Keys that fwknopd and its client share, as base64; any will do.
const KEY: &str = "a25vY2tnYXRlLWJlbmNoLWtleS0wMTIzNDU2Nzg5YWI=";
const HMAC: &str = "a25vY2tnYXRlLWJlbmNoLWhtYWMtMDEyMzQ1Njc4OWE=";
const OTHER_HMAC: &str = "a25vY2tnYXRlLWJlbmNoLWhtYWMtYjk4NzY1NDMyMTA=";
/// How far ahead of this host's clock forged knocks are, ns: within `max_ahead`, and later than all real ones.
const FORGED_AHEAD: u64 = 14_000_000_000;

impl Rival {
    pub fn name(self) -> String {
        match self {
            Self::Nobody => "no gate".into(),
            Self::Knockgate(sources) if sources == Setup::default().sources => "knockgate".into(),
            Self::Knockgate(_) => "knockgate sized for it".into(),
            Self::Authenticated => "knockgate, authenticated".into(),
            Self::KnockgateFwknop => "knockgate, fwknop's client".into(),
            Self::Knockd => "knockd".into(),
            Self::Fwknopd => "fwknopd".into(),
            Self::Recipe => "nftables".into(),
        }
    }

    /// Returns what this machine lacks to run it.
    pub fn lacks(self) -> Option<String> {
        let needs: &[&str] = match self {
            Self::Nobody | Self::Knockgate(_) | Self::Authenticated => &[],
            Self::KnockgateFwknop => &["fwknop"],
            Self::Knockd => &["knockd", "nft"],
            Self::Fwknopd => &["fwknopd", "fwknop", "iptables"],
            Self::Recipe => &["nft"],
        };
        let missing: Vec<_> = needs
            .iter()
            .filter(|name| find_program(name).is_none())
            .collect();
        let name = missing.first()?;
        Some(format!(
            "no {name} here; `cargo xtask setup --for bench` installs it"
        ))
    }

    /// Returns how many steps a knock has.
    pub fn steps(self) -> usize {
        match self {
            Self::Nobody => 0,
            Self::Fwknopd | Self::Authenticated | Self::KnockgateFwknop => 1,
            Self::Knockgate(_) | Self::Knockd | Self::Recipe => KNOCKS.len(),
        }
    }

    /// Returns whether it is knockgate.
    pub fn is_ours(self) -> bool {
        match self {
            Self::Knockgate(_) | Self::Authenticated | Self::KnockgateFwknop => true,
            Self::Nobody | Self::Knockd | Self::Fwknopd | Self::Recipe => false,
        }
    }

    /// Starts it on a host of its own, for a port that answers.
    pub fn stand(self, binary: &Path, name: &str) -> Result<Standing> {
        let host = Host::another(name)?;
        let wire = host.wire(name)?;
        host.answer_by(&wire)?;
        let listener = host.inside(|| {
            TcpListener::bind(("0.0.0.0", PROTECTED)).context("cannot bind the host's port")
        })?;
        let folder = host.folder.join(format!("{name}.d"));
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let mut standing = Standing {
            rival: self,
            service: None,
            instance: None,
            key: None,
            _listener: listener,
            wire,
            folder,
            host,
        };
        standing.arm(binary)?;
        Ok(standing)
    }
}

impl Standing {
    fn arm(&mut self, binary: &Path) -> Result<()> {
        match self.rival {
            Rival::Nobody => {}
            Rival::Knockd => self.start_knockd()?,
            Rival::Fwknopd => self.start_fwknopd()?,
            Rival::Recipe => Recipe::knocking(Hook::Ingress).load(&self.host, &self.wire)?,
            Rival::Knockgate(sources) => {
                let setup = Setup {
                    sources,
                    ..Setup::default()
                };
                self.start_knockgate(binary, &setup)?;
            }
            Rival::Authenticated => {
                let slots = Slots {
                    folder: self.folder.join("keys"),
                    most: 256,
                };
                let setup = Setup {
                    keys: Some(slots),
                    ..Setup::default()
                };
                let instance = self.start_knockgate(binary, &setup)?;
                self.key = Some(instance.key("alice")?);
            }
            Rival::KnockgateFwknop => {
                let setup = Setup {
                    fwknop: Some([KEY, HMAC]),
                    ..Setup::default()
                };
                self.start_knockgate(binary, &setup)?;
            }
        }
        if let Some(service) = &mut self.service {
            // Not all of them report when they are ready.
            thread::sleep(Duration::from_millis(700));
            service.lives()?;
        }
        Ok(())
    }

    fn start_knockgate(&mut self, binary: &Path, setup: &Setup) -> Result<&Instance> {
        let instance = Instance::up(&self.host, binary, &self.wire, setup)?;
        let mut run = instance.on(&self.host);
        self.service = Some(Service::start("knockgate run", run.arg("run"))?);
        Ok(self.instance.insert(instance))
    }

    fn start_knockd(&mut self) -> Result<()> {
        Recipe::admitting().load(&self.host, &self.wire)?;
        let [a, b, c] = KNOCKS;
        let config = self.write(
            "knockd.conf",
            &format!(
                "[options]\n\tlogfile = {}\n[gate]\n\tsequence = {a}:udp,{b}:udp,{c}:udp\n\
                 \tseq_timeout = 10\n\tcommand = nft add element inet bench admitted {{ %IP% }}\n",
                self.folder.join("knockd.log").display()
            ),
        )?;
        let mut command = self.host.command("knockd");
        command.args(["-i", &self.wire.name, "-c"]).arg(config);
        self.service = Some(Service::start("knockd", &mut command)?);
        Ok(())
    }

    fn start_fwknopd(&mut self) -> Result<()> {
        let folder = self.folder.display();
        let config = self.write(
            "fwknopd.conf",
            &format!(
                "PCAP_INTF {};\nFWKNOP_RUN_DIR {folder};\nFWKNOP_PID_FILE {folder}/pid;\n\
                 DIGEST_FILE {folder}/digest;\nDIGEST_DB_FILE {folder}/digest.db;\n",
                self.wire.name
            ),
        )?;
        let access = self.write(
            "access.conf",
            &format!(
                "SOURCE ANY\nKEY_BASE64 {KEY}\nHMAC_KEY_BASE64 {HMAC}\nFW_ACCESS_TIMEOUT 7200\n\
                 REQUIRE_SOURCE_ADDRESS Y\n"
            ),
        )?;
        output(
            self.host
                .command("iptables")
                .args(["-w", "-A", "INPUT", "-p", "tcp"])
                .args(["--dport", &PROTECTED.to_string(), "-j", "DROP"]),
        )?;
        let mut command = self.host.command("fwknopd");
        command
            .arg("-f")
            .arg("-c")
            .arg(config)
            .arg("-a")
            .arg(access);
        self.service = Some(Service::start("fwknopd", &mut command)?);
        Ok(())
    }

    /// Returns the frames that a source must send to be let in.
    pub fn knock(&self, source: u32) -> Result<Vec<Vec<u8>>> {
        let udp = |port| frame::datagram(source, 40000, port, &[]);
        Ok(match self.rival {
            Rival::Nobody => Vec::new(),
            Rival::Knockgate(_) | Rival::Knockd | Rival::Recipe => KNOCKS.map(udp).into(),
            Rival::Authenticated => {
                let key = self.key.as_ref().context("it has a key")?;
                vec![frame::datagram(source, 40000, KNOCK_PORT, &key.knock())]
            }
            Rival::Fwknopd | Rival::KnockgateFwknop => {
                let payload = self.authorization(source, HMAC)?;
                vec![frame::datagram(source, 40000, FWKNOP_PORT, &payload)]
            }
        })
    }

    /// Returns the packet of a flood of forged knocks.
    pub fn junk(&self) -> Result<Junk> {
        Ok(match self.rival {
            Rival::Authenticated => {
                let message = random(1)?[0];
                Junk::to(frame::datagram(0, 40000, KNOCK_PORT, &message), KNOCK_PORT)
            }
            Rival::Fwknopd | Rival::KnockgateFwknop => Junk::to(
                frame::datagram(0, 40000, FWKNOP_PORT, &self.authorization(1, OTHER_HMAC)?),
                FWKNOP_PORT,
            ),
            Rival::Nobody | Rival::Knockgate(_) | Rival::Knockd | Rival::Recipe => {
                Junk::to(frame::datagram(0, 40000, KNOCKS[0], &[]), KNOCKS[0])
            }
        })
    }

    /// Returns the packet of a flood by who has the host's secret, and not the key.
    pub fn forgery(&self) -> Result<Junk> {
        let key = self.key.as_ref().context("only a key can be forged")?;
        // Newer than any real knock, so that it is the tag that it fails by.
        let forged = key.forged(FORGED_AHEAD);
        Ok(Junk::to(
            frame::datagram(0, 40000, KNOCK_PORT, &forged),
            KNOCK_PORT,
        ))
    }

    /// Returns the payload that fwknop's client sends for a source.
    fn authorization(&self, source: u32, hmac: &str) -> Result<Vec<u8>> {
        let file = self.folder.join("packet");
        // The client refuses to overwrite a file.
        let _ = fs::remove_file(&file);
        let address = |address: [u8; 4]| address.map(|byte| byte.to_string()).join(".");
        let mut client = Command::new("fwknop");
        client
            .env("HOME", &self.folder)
            .args(["-A", &format!("tcp/{PROTECTED}")])
            .args(["-a", &address(source.to_be_bytes()), "-D", &address(HOST)])
            .args(["--key-base64-rijndael", KEY, "--use-hmac"])
            .args(["--key-base64-hmac", hmac])
            .args(["--no-save-args", "--test", "-B"])
            .arg(&file);
        output(&mut client)?;
        let packet = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        Ok(packet.trim_ascii_end().to_vec())
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        fs::write(&path, text)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o600)))
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}
