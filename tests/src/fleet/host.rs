//! A host of a fleet: its scenario, its files, its service.

use std::{
    fs::{self, Permissions},
    iter,
    net::IpAddr,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    sync::{Mutex, MutexGuard},
};

use serde_json::Value;

use super::{Engine, NAME, address_of_host};
use crate::{
    gate_config::Gate,
    http::get_unix,
    keys::PORT,
    lab::{Family, Lab, Source},
    observe::events_of,
    run::{Run, Running, wait_until},
    scenario::{Attach, Scenario},
};

/// How often a command that asks the engine is repeated.
const TRIES: usize = 10;

/// A host, and the client that reaches it.
pub struct Host {
    pub name: String,
    number: u8,
    address: IpAddr,
    endpoints: Vec<String>,
    service: Mutex<Option<Running>>,
    events: Mutex<Option<Running>>,
    pub scenario: Scenario,
}

impl Host {
    /// Builds the host, joins it to the switch, and writes its certificate. `None`: this machine cannot.
    pub(super) fn build(number: u8, engine: &Engine) -> Option<Self> {
        let lab = Lab::build(&[])?;
        let address = address_of_host(number);
        engine.plug(&lab.host, &format!("h{number}"), address);
        let host = Self {
            name: format!("h{number}"),
            number,
            address,
            endpoints: engine.endpoints(),
            service: Mutex::new(None),
            events: Mutex::new(None),
            scenario: Scenario::new(Attach::Generic, Family::V4, lab),
        };
        fs::create_dir(host.file("")).expect("the temporary folder is writable");
        engine.authority.save(&host.file("ca.pem"));
        let [cert, key] = ["host.pem", "host.key"].map(|name| host.file(name));
        engine.authority.issue(&host.name, None, &cert, &key);
        host.configure(&[Gate::ssh(), Gate::mail()], "");
        Some(host)
    }

    /// Returns the path of one of the files that `[fleet]` names.
    pub fn file(&self, name: &str) -> PathBuf {
        self.scenario.lab.folder().join("fleet").join(name)
    }

    /// Returns the name of its port at the switch.
    pub fn port(&self) -> String {
        format!("h{}", self.number)
    }

    /// Returns its address at the switch.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Writes the configuration: these gates, and `[fleet]` with further lines.
    pub fn configure(&self, gates: &[Gate], lines: &str) {
        let gates: String = gates.iter().map(ToString::to_string).collect();
        self.configure_with(&gates, &format!("{}{lines}", self.section()));
    }

    /// Writes the configuration: these sections, and one of a fleet.
    pub fn configure_with(&self, sections: &str, fleet: &str) {
        let keys = self.scenario.lab.folder().join("keys");
        let knock = format!(
            "[knock]\nports = [\"{PORT}/udp\"]\nkeys = \"{}\"\nmax_ahead = \"1s\"\n[metrics]\nlisten = \"unix:{}\"\n",
            keys.display(),
            self.metrics_socket().display()
        );
        self.scenario
            .configure(format!("{knock}{fleet}\n{sections}"));
    }

    /// Returns `[fleet]`; more lines of it may follow.
    pub fn section(&self) -> String {
        let files = ["ca.pem", "host.pem", "host.key", "fleet.key"];
        let [ca, cert, key, fleet_key] = files.map(|name| self.file(name).display().to_string());
        format!(
            "[fleet]\nname = \"{NAME}\"\nendpoints = {:?}\nhost = \"{}\"\nca = {ca:?}\ncert = {cert:?}\nkey = {key:?}\n\
             keys = [{fleet_key:?}]\n",
            self.endpoints, self.name
        )
    }

    /// Copies the fleet's key from another host.
    pub fn copy_key(&self, other: &Self) {
        let own = self.file("fleet.key");
        fs::copy(other.file("fleet.key"), &own).expect("it was made");
        fs::set_permissions(own, Permissions::from_mode(0o600)).expect("it is ours");
    }

    /// Copies the keys of users from another host.
    pub fn copy_users(&self, other: &Self) {
        let [from, to] = [other, self].map(|host| host.scenario.lab.folder().join("keys"));
        fs::create_dir(&to).expect("the temporary folder is writable");
        fs::set_permissions(&to, Permissions::from_mode(0o700)).expect("it is ours");
        for entry in fs::read_dir(from).expect("it was made").flatten() {
            // With its mode.
            fs::copy(entry.path(), to.join(entry.file_name())).expect("readable");
        }
    }

    /// Starts the service, and waits until it guards.
    #[track_caller]
    pub fn serve(&self) {
        let service = self.scenario.lab.serve(&[]);
        *lock(&self.service) = Some(service);
        *lock(&self.events) = Some(self.scenario.lab.follow_events());
    }

    /// Ends the service by SIGTERM; the gates stay up.
    #[track_caller]
    pub fn stop(&self) {
        let service = self.asked_to_end();
        assert_eq!(service.ends(), Some(0), "the service of {}", self.name);
    }

    /// Sends the service SIGTERM, and returns it as it comes to its end.
    #[track_caller]
    pub fn asked_to_end(&self) -> Running {
        self.signal(libc::SIGTERM);
        lock(&self.service).take().expect("it serves")
    }

    /// Sends the service a signal.
    #[track_caller]
    pub fn signal(&self, signal: i32) {
        let service = lock(&self.service);
        service.as_ref().expect("it serves").signal(signal);
    }

    /// Kills the service with SIGKILL.
    pub fn kill(&self) {
        drop(lock(&self.service).take());
    }

    /// Returns the most resident memory of its service so far, bytes.
    pub fn peak_memory(&self) -> u64 {
        lock(&self.service)
            .as_ref()
            .expect("it serves")
            .peak_memory()
    }

    /// Returns the resident memory of its service, bytes, without the kernel's tables that it has mapped.
    pub fn own_memory(&self) -> u64 {
        lock(&self.service)
            .as_ref()
            .expect("it serves")
            .own_memory()
    }

    /// Returns how many grants are live.
    #[track_caller]
    pub fn live_grants(&self) -> u64 {
        let status = self.knockgate("status --json").exits(0).json();
        let tables = status["tables"].as_array().expect("a list").iter();
        let mut grants = tables.filter(|table| table["name"] == "grants");
        let used = grants.next().and_then(|table| table["used"].as_u64());
        used.expect("there is such a table")
    }

    /// Returns the events with this name since the service was started.
    pub fn events(&self, name: &str) -> Vec<Value> {
        let events = self.all_events().into_iter();
        events.filter(|event| event["event"] == name).collect()
    }

    fn all_events(&self) -> Vec<Value> {
        events_of(lock(&self.events).as_ref().expect("it serves"))
    }

    /// Returns the metrics that its service hands out.
    #[track_caller]
    pub fn metrics(&self) -> String {
        let mut page = None;
        wait_until("the metrics are served", || {
            page = get_unix(&self.metrics_socket(), "/metrics");
            page.is_some()
        });
        page.expect("it was waited for").body
    }

    fn metrics_socket(&self) -> PathBuf {
        self.scenario.lab.folder().join("metrics.sock")
    }

    /// Waits until it is one of the fleet, by its own account.
    #[track_caller]
    pub fn joined(&self) {
        self.says_last("fleet.joined");
    }

    /// Waits until it is isolated, by its own account.
    #[track_caller]
    pub fn isolated(&self) {
        self.says_last("fleet.isolated");
    }

    #[track_caller]
    fn says_last(&self, name: &str) {
        wait_until(&format!("{}: {name}", self.name), || {
            let said = self.all_events().into_iter().rev();
            let mut said = said.filter_map(|event| event["event"].as_str().map(ToOwned::to_owned));
            let last = said.find(|name| ["fleet.joined", "fleet.isolated"].contains(&&**name));
            last.as_deref() == Some(name)
        });
    }

    /// Waits until it has refused a record for this reason.
    #[track_caller]
    pub fn refused(&self, reason: &str) {
        let what = format!("{} refuses a record: {reason}", self.name);
        wait_until(&what, || {
            let refused = self.events("fleet.refused");
            refused.iter().any(|event| event["reason"] == reason)
        });
    }

    /// Returns the grants of a source at a gate; there is one at most.
    pub fn grant(&self, who: Source, gate: &str) -> Option<Value> {
        let source = format!("{}/32", self.scenario.address(who));
        let grants = self.scenario.lab.list("grants").into_iter();
        let mut own = grants.filter(|grant| grant["source"] == source && grant["gate"] == gate);
        let grant = own.next();
        assert!(own.next().is_none(), "two grants of {source} at {gate}");
        grant
    }

    /// Waits until a source has a grant at a gate, and returns it.
    #[track_caller]
    pub fn granted(&self, who: Source, gate: &str) -> Value {
        let mut grant = None;
        let what = format!("{} has a grant for {who:?} at {gate}", self.name);
        wait_until(&what, || {
            grant = self.grant(who, gate);
            grant.is_some()
        });
        grant.expect("it was waited for")
    }

    /// Waits until an address or network, written with its length, has a grant at a gate.
    #[track_caller]
    pub fn has_grant(&self, source: &str, gate: &str) {
        self.has_grants([source], gate);
    }

    /// Waits until each of these has a grant at a gate.
    #[track_caller]
    pub fn has_grants<'s>(&self, sources: impl IntoIterator<Item = &'s str>, gate: &str) {
        let mut missing: Vec<&str> = sources.into_iter().collect();
        let what = format!(
            "{} has a grant for each of {missing:?} at {gate}",
            self.name
        );
        wait_until(&what, || {
            let grants = self.scenario.lab.list("grants");
            let has = |source: &&str| {
                let mut grants = grants.iter();
                grants.any(|grant| grant["source"] == **source && grant["gate"] == gate)
            };
            missing.retain(|source| !has(source));
            missing.is_empty()
        });
    }

    /// Waits until a source has no grant at a gate.
    #[track_caller]
    pub fn not_granted(&self, who: Source, gate: &str) {
        let what = format!("{} has no grant for {who:?} at {gate}", self.name);
        wait_until(&what, || self.grant(who, gate).is_none());
    }

    /// Runs a command that asks the engine, and may be repeated. It gives up on a member that is silent for two seconds; where
    /// each was, as on a busy machine, it is run again.
    pub fn in_fleet(&self, arguments: &str) -> Run {
        let is_answered = |run: &Run| !run.stderr.contains("no etcd member answers");
        let mut tries = iter::repeat_with(|| self.knockgate(arguments)).take(TRIES);
        tries
            .find(is_answered)
            .unwrap_or_else(|| self.knockgate(arguments))
    }

    /// Runs `knockgate` on the host, as [`Scenario::knockgate`].
    pub fn knockgate(&self, arguments: &str) -> Run {
        self.scenario.knockgate(arguments)
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().expect("no row panics in between")
}
