//! Real etcd members, each in a namespace of its own at a switch, and ways to harm them.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    process,
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use netlab::Netns;
use serde_json::Value;
use tempfile::TempDir;

use super::{Authority, LAN, address_of_member};
use crate::{
    network::ip,
    run::{Run, Running, run, wait_for_value, wait_until},
};

/// Where the members keep their data: in memory, since a slow disk would make elections.
const MEMORY: &str = "/dev/shm";

const CLIENT_PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;

/// The members, the switch between them and the hosts, and the authority that signs for all.
pub struct Engine {
    members: Vec<Member>,
    // After those that are plugged in.
    switch: Netns,
    pub authority: Authority,
    folder: TempDir,
    id: String,
    /// How often the members have begun without data.
    lives: AtomicU32,
    /// Those that `etcdctl` is to ask.
    asked: Mutex<Vec<u8>>,
}

struct Member {
    number: u8,
    process: Mutex<Option<Running>>,
    // After its process.
    netns: Netns,
}

impl Engine {
    /// Makes the switch and the namespaces of the members; starts none.
    pub(super) fn new(members: u8) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let id = format!("{}-{count}", process::id());
        let memory = Path::new(MEMORY);
        let folder = if memory.is_dir() {
            TempDir::with_prefix_in("knockgate-etcd-", memory)
        } else {
            TempDir::with_prefix("knockgate-etcd-")
        };
        let switch = netns(&format!("kg{id}-switch"));
        ip(&switch, "link add br0 type bridge\nlink set br0 up");
        let mut engine = Self {
            members: Vec::new(),
            switch,
            authority: Authority::new("the authority of a test"),
            folder: folder.expect("a temporary folder can be made"),
            id,
            lives: AtomicU32::new(0),
            asked: Mutex::new((1..=members).collect()),
        };
        engine.authority.save(&engine.file("ca.pem"));
        // Of the one who looks after the members.
        engine.issue("operator", None);
        for number in 1..=members {
            let netns = netns(&format!("kg{}-etcd{number}", engine.id));
            let address = address_of_member(number);
            engine.plug(&netns, &port_of_member(number), address);
            engine.issue(&member_name(number), Some(address));
            engine.members.push(Member {
                number,
                process: Mutex::new(None),
                netns,
            });
        }
        engine
    }

    /// Joins a namespace to the switch, with this address. `port`: the name of the other end.
    pub(super) fn plug(&self, netns: &Netns, port: &str, address: IpAddr) {
        let (own, switch) = (netns.name(), self.switch.name());
        ip(
            netns,
            &format!(
                "link add {LAN} netns {own} type veth peer {port} netns {switch}\n\
                 address add {address}/16 dev {LAN}\nlink set {LAN} up"
            ),
        );
        ip(
            &self.switch,
            &format!("link set {port} master br0\nlink set {port} up"),
        );
    }

    /// Takes a port out of the bridge, so that the switch drops what comes from it. Neither end is told: its link stays up.
    #[track_caller]
    pub fn cut(&self, port: &str) {
        ip(&self.switch, &format!("link set {port} nomaster"));
    }

    #[track_caller]
    pub fn heal(&self, port: &str) {
        ip(&self.switch, &format!("link set {port} master br0"));
    }

    /// Starts all members, and waits until they have a leader.
    #[track_caller]
    pub fn start(&self) {
        for number in self.numbers() {
            self.restart(number);
        }
        self.all_answer();
    }

    /// Waits until every member answers, and all agree on the leader.
    #[track_caller]
    pub fn all_answer(&self) {
        wait_until("every member knows the leader", || {
            self.statuses().len() == self.members.len() && self.leader_now().is_some()
        });
    }

    /// Has `etcdctl` ask only these members: it would wait for one that stands still or was cut off.
    pub fn among(&self, numbers: impl IntoIterator<Item = u8>) {
        self.ask(|asked| *asked = numbers.into_iter().collect());
    }

    fn ask(&self, change: impl FnOnce(&mut Vec<u8>)) {
        change(&mut self.asked.lock().expect("no row panics in between"));
    }

    /// Starts a member, with the data that it has.
    #[track_caller]
    pub fn restart(&self, number: u8) {
        let member = self.member(number);
        let name = member_name(number);
        let life = self.lives.load(Ordering::Relaxed);
        let url = |port: u16| format!("https://{}:{port}", address_of_member(number));
        let peers = self.numbers().map(|other| {
            let address = address_of_member(other);
            format!("{}=https://{address}:{PEER_PORT}", member_name(other))
        });
        let peers = peers.collect::<Vec<_>>().join(",");
        let [ca, cert, key] = [
            "ca.pem".to_owned(),
            format!("{name}.pem"),
            format!("{name}.key"),
        ]
        .map(|name| self.file(&name));
        let (client, peer) = (url(CLIENT_PORT), url(PEER_PORT));
        let mut command = member.netns.command("etcd");
        command
            .args(["--name", &name, "--logger", "zap", "--log-outputs"])
            .arg(self.file(&format!("{name}-{life}.log")))
            .arg("--data-dir")
            .arg(self.data_of(number))
            .args(["--listen-client-urls", &client])
            .args(["--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer])
            .args(["--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &peers])
            .args(["--initial-cluster-token", &format!("{}-{life}", self.id)])
            // More patient than by default: a busy machine must not make elections.
            .args(["--heartbeat-interval", "250", "--election-timeout", "2500"])
            .args(["--client-cert-auth", "--peer-client-cert-auth"]);
        for [of_clients, of_peers] in [
            ["--trusted-ca-file", "--peer-trusted-ca-file"],
            ["--cert-file", "--peer-cert-file"],
            ["--key-file", "--peer-key-file"],
        ] {
            let file = match of_clients {
                "--trusted-ca-file" => &ca,
                "--cert-file" => &cert,
                _ => &key,
            };
            command.arg(of_clients).arg(file).arg(of_peers).arg(file);
        }
        let process = Running::start(&mut command, self.folder.path());
        *member.lock() = Some(process);
        self.ask(|asked| {
            asked.retain(|other| *other != number);
            asked.push(number);
        });
    }

    /// Kills a member with SIGKILL.
    pub fn kill(&self, number: u8) {
        drop(self.member(number).lock().take());
        self.ask(|asked| asked.retain(|other| *other != number));
    }

    pub fn kill_all(&self) {
        for number in self.numbers() {
            self.kill(number);
        }
    }

    /// Sends a signal to a member: SIGSTOP, SIGCONT.
    pub fn signal(&self, number: u8, signal: i32) {
        let process = self.member(number).lock();
        process.as_ref().expect("it runs").signal(signal);
    }

    /// Kills all members, and starts others in their place that have no data.
    #[track_caller]
    pub fn begin_anew(&self) {
        self.kill_all();
        for number in self.numbers() {
            fs::remove_dir_all(self.data_of(number)).expect("it was made");
        }
        self.lives.fetch_add(1, Ordering::Relaxed);
        self.start();
    }

    /// Returns the number of the leader, once there is one.
    #[track_caller]
    pub fn leader(&self) -> u8 {
        let mut leader = None;
        wait_until("there is a leader", || {
            leader = self.leader_now();
            leader.is_some()
        });
        leader.expect("it was waited for")
    }

    /// Forgets all revisions before the present one.
    #[track_caller]
    pub fn compact(&self) {
        let revision = self.revision();
        let arguments = ["compact", "--physical", &revision.to_string()];
        wait_for_value(
            "it is compacted",
            || self.etcdctl(&arguments),
            |run| run.code == Some(0) || run.stderr.contains("has been compacted"),
        );
    }

    /// Returns the number of the latest change.
    #[track_caller]
    pub fn revision(&self) -> i64 {
        let revision = || {
            let statuses = self.statuses();
            let revisions = statuses
                .iter()
                .filter_map(|status| status["Status"]["header"]["revision"].as_i64());
            revisions.max()
        };
        wait_for_value("a member answers", revision, Option::is_some).unwrap_or_default()
    }

    /// Writes a record as somebody who has the certificate of an operator, but not the fleet's key.
    #[track_caller]
    pub fn put(&self, key: &str, value: &[u8]) {
        // What it reads from a file must not be empty.
        if value.is_empty() {
            done(|| self.etcdctl(&["put", key, ""]));
            return;
        }
        let file = self.file("value");
        fs::write(&file, value).expect("the temporary folder is writable");
        done(|| {
            let mut command = self.etcdctl_command(&["put", key]);
            let value = fs::File::open(&file).expect("it was written");
            run(command.stdin(value))
        });
    }

    /// Returns keys and values below this one, by key.
    #[track_caller]
    pub fn get(&self, prefix: &str) -> Vec<(String, String)> {
        let run = done(|| self.etcdctl(&["get", "--prefix", prefix]));
        let lines: Vec<&str> = run.stdout.lines().collect();
        let pairs = lines.chunks(2).map(|pair| match pair {
            [key, value] => ((*key).to_owned(), (*value).to_owned()),
            _ => panic!("a value has more than one line: {lines:?}"),
        });
        pairs.collect()
    }

    /// Deletes all keys below this one.
    #[track_caller]
    pub fn delete(&self, prefix: &str) {
        done(|| self.etcdctl(&["del", "--prefix", prefix]));
    }

    /// Runs `etcdctl` with the operator's certificate, for all members.
    pub fn etcdctl(&self, arguments: &[&str]) -> Run {
        run(&mut self.etcdctl_command(arguments))
    }

    fn etcdctl_command(&self, arguments: &[&str]) -> process::Command {
        let asked = self.asked.lock().expect("no row panics in between");
        // From a member's namespace, whose process need not run, and which is not cut off.
        let netns = &self.member(asked.first().copied().unwrap_or(1)).netns;
        let mut asked: Vec<String> = asked.iter().copied().map(endpoint).collect();
        if asked.is_empty() {
            asked = self.endpoints();
        }
        let mut command = netns.command("etcdctl");
        command
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &asked.join(",")])
            .arg("--cacert")
            .arg(self.file("ca.pem"))
            .arg("--cert")
            .arg(self.file("operator.pem"))
            .arg("--key")
            .arg(self.file("operator.key"))
            .args(["--command-timeout", "10s"])
            .args(arguments);
        command
    }

    pub fn endpoints(&self) -> Vec<String> {
        self.numbers().map(endpoint).collect()
    }

    /// Returns the statuses of those members that answer.
    fn statuses(&self) -> Vec<Value> {
        let run = self.etcdctl(&["endpoint", "status", "--write-out", "json"]);
        let statuses: Option<Vec<Value>> = serde_json::from_str(&run.stdout).unwrap_or_default();
        statuses.unwrap_or_default()
    }

    /// Returns the leader, where all that answer agree on it and it answers.
    fn leader_now(&self) -> Option<u8> {
        let statuses = self.statuses();
        let leader = |status: &Value| status["Status"]["leader"].as_u64().filter(|id| *id != 0);
        let agreed = statuses.first().and_then(leader)?;
        if !statuses.iter().all(|status| leader(status) == Some(agreed)) {
            return None;
        }
        let own =
            |status: &&Value| status["Status"]["header"]["member_id"].as_u64() == Some(agreed);
        let endpoint = statuses.iter().find(own)?["Endpoint"].as_str()?;
        let nth = self
            .endpoints()
            .iter()
            .position(|known| known == endpoint)?;
        u8::try_from(nth + 1).ok()
    }

    fn member(&self, number: u8) -> &Member {
        &self.members[usize::from(number) - 1]
    }

    /// Returns the numbers of all members, from 1.
    pub fn numbers(&self) -> impl Iterator<Item = u8> + use<'_> {
        self.members.iter().map(|member| member.number)
    }

    fn issue(&self, name: &str, server: Option<IpAddr>) {
        let [cert, key] = ["pem", "key"].map(|kind| self.file(&format!("{name}.{kind}")));
        self.authority.issue(name, server, &cert, &key);
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn data_of(&self, number: u8) -> PathBuf {
        self.file(&format!("{}-data", member_name(number)))
    }
}

impl Member {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Running>> {
        self.process.lock().expect("no row panics in between")
    }
}

fn netns(name: &str) -> Netns {
    let netns = Netns::create(name).unwrap_or_else(|error| panic!("{error}"));
    netns.with_kill_at_exit()
}

fn endpoint(number: u8) -> String {
    format!("https://{}:{CLIENT_PORT}", address_of_member(number))
}

fn member_name(number: u8) -> String {
    format!("etcd{number}")
}

/// Runs `etcdctl` until it has done what it is to do: members that are kept from working may elect another leader, and then
/// leave requests undone.
#[track_caller]
fn done(etcdctl: impl FnMut() -> Run) -> Run {
    wait_for_value("etcdctl has done it", etcdctl, |run| run.code == Some(0))
}

/// The name of a member's port at the switch.
pub fn port_of_member(number: u8) -> String {
    format!("m{number}")
}
