//! The etcd members of the demo, with certificates that are made for it.

use std::{
    fs,
    path::Path,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use netlab::Netns;
use serde_json::Value;

use super::{PATIENCE, node, plug, sh};
use crate::{lan::FOLDER, process};

const NUMBERS: [u8; 3] = [1, 2, 3];

/// Three members, each in its namespace.
pub(super) struct Members(Vec<Member>);

struct Member {
    number: u8,
    netns: Netns,
    process: Option<Child>,
}

/// Makes a certificate and its key, signed by the demo's authority.
pub(super) fn certificate(name: &str, extensions: &str) -> Result<()> {
    sh(&format!(
        "printf '{extensions}\\n' >{name}.ext
openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj '/CN={name}' -keyout {name}.key -out {name}.csr
openssl x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile {name}.ext -out {name}.pem
chmod 600 {name}.key"
    ))
}

impl Members {
    /// Starts them, and waits until they have a leader.
    pub(super) fn start() -> Result<Self> {
        sh(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
            -subj '/CN=authority of the demo' -keyout ca.key -out ca.pem",
        )?;
        certificate("operator", "extendedKeyUsage=clientAuth")?;
        let mut members = Self(Vec::new());
        for number in NUMBERS {
            let netns = node(&name(number))?;
            plug(&netns, "lan0", "lan", &address(number))?;
            let extensions = format!(
                "subjectAltName=IP:{}\\nextendedKeyUsage=serverAuth,clientAuth",
                address(number)
            );
            certificate(&name(number), &extensions)?;
            members.0.push(Member {
                number,
                netns,
                process: None,
            });
        }
        for member in &mut members.0 {
            member.start()?;
        }
        members.leader()?;
        Ok(members)
    }

    pub(super) fn endpoints() -> Vec<String> {
        NUMBERS.map(endpoint).to_vec()
    }

    /// Waits until those that answer agree on a leader. Returns its name.
    pub(super) fn leader(&self) -> Result<String> {
        let begun = Instant::now();
        loop {
            if let Some(leader) = self.leader_now()? {
                return Ok(leader);
            }
            if begun.elapsed() > PATIENCE {
                let log = fs::read_to_string(Path::new(FOLDER).join("etcd1.log"));
                bail!(
                    "the etcd members found no leader: {}",
                    log.unwrap_or_default()
                );
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn leader_now(&self) -> Result<Option<String>> {
        let member = self.0.first().context("there are three")?;
        let mut command = member.netns.command("etcdctl");
        command
            .current_dir(FOLDER)
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &Self::endpoints().join(",")])
            .args([
                "--cacert",
                "ca.pem",
                "--cert",
                "operator.pem",
                "--key",
                "operator.key",
            ])
            .args(["endpoint", "status", "--write-out", "json"]);
        // It fails where one does not answer.
        let said = process::output(&mut command)?.stdout;
        let statuses: Option<Vec<Value>> = serde_json::from_slice(&said).unwrap_or_default();
        let statuses = statuses.unwrap_or_default();
        let leader = |status: &Value| status["Status"]["leader"].as_u64().filter(|id| *id != 0);
        let Some(agreed) = statuses.first().and_then(leader) else {
            return Ok(None);
        };
        let agree = statuses.iter().all(|status| leader(status) == Some(agreed));
        let own =
            |status: &&Value| status["Status"]["header"]["member_id"].as_u64() == Some(agreed);
        let of_leader = statuses
            .iter()
            .find(own)
            .filter(|_| agree && statuses.len() > 1);
        let place = of_leader.and_then(|status| status["Endpoint"].as_str());
        let number = NUMBERS
            .into_iter()
            .find(|number| Some(&*endpoint(*number)) == place);
        Ok(number.map(name))
    }

    /// Kills a member with SIGKILL.
    pub(super) fn kill(&mut self, name: &str) -> Result<()> {
        for member in &mut self.0 {
            if member.netns.name() == name
                && let Some(mut process) = member.process.take()
            {
                process.kill()?;
                process.wait()?;
            }
        }
        Ok(())
    }
}

impl Member {
    fn start(&mut self) -> Result<()> {
        let own = name(self.number);
        let url = |port: u16| format!("https://{}:{port}", address(self.number));
        let peers = NUMBERS.map(|peer| format!("{}=https://{}:2380", name(peer), address(peer)));
        let (client, peer, peers) = (url(2379), url(2380), peers.join(","));
        let (cert, key) = (format!("{own}.pem"), format!("{own}.key"));
        let mut command = self.netns.command("etcd");
        command
            .current_dir(FOLDER)
            .args(["--name", &own, "--data-dir", &format!("{own}-data")])
            .args([
                "--logger",
                "zap",
                "--log-outputs",
                &format!("{FOLDER}/{own}.log"),
            ])
            .args([
                "--listen-client-urls",
                &client,
                "--advertise-client-urls",
                &client,
            ])
            .args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
            ])
            .args([
                "--initial-cluster",
                &peers,
                "--initial-cluster-token",
                "demo",
            ])
            .args(["--client-cert-auth", "--trusted-ca-file", "ca.pem"])
            .args(["--cert-file", &cert, "--key-file", &key])
            .args([
                "--peer-client-cert-auth",
                "--peer-trusted-ca-file",
                "ca.pem",
            ])
            .args(["--peer-cert-file", &cert, "--peer-key-file", &key])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.process = Some(command.spawn().context("cannot start etcd")?);
        Ok(())
    }
}

fn name(number: u8) -> String {
    format!("etcd{number}")
}

fn address(number: u8) -> String {
    format!("10.79.0.1{number}")
}

fn endpoint(number: u8) -> String {
    format!("https://{}:2379", address(number))
}
