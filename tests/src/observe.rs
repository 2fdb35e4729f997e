//! What `knockgate` says about itself while a test runs: counters, grants, sessions and events, and the service that
//! reports them.

use serde_json::Value;

use crate::{
    lab::Lab,
    run::{Running, wait_until},
};

/// The counters of one moment: the document of `knockgate stats --json`.
#[derive(Debug)]
pub struct Stats(Value);

impl Stats {
    /// Returns how many packets were judged, for whatever reason.
    pub fn all_packets(&self) -> u64 {
        sum(rows(&self.0, "packets").iter(), "packets")
    }

    /// Returns how many packets were counted under a reason, over all gates.
    pub fn packets(&self, reason: &str) -> u64 {
        sum(self.counted(reason), "packets")
    }

    /// Returns how many bytes were counted under a reason, over all gates.
    pub fn bytes(&self, reason: &str) -> u64 {
        sum(self.counted(reason), "bytes")
    }

    /// Returns how many packets were denied for a reason, which monitor mode only counts.
    pub fn denied(&self, reason: &str) -> u64 {
        let denied = self.counted(reason).filter(|row| row["verdict"] == "deny");
        sum(denied, "packets")
    }

    /// Returns how many packets were denied, for whatever reason.
    pub fn all_denied(&self) -> u64 {
        let rows = rows(&self.0, "packets").iter();
        sum(rows.filter(|row| row["verdict"] == "deny"), "packets")
    }

    /// Returns how many knocks had a result, such as `step`, over all gates.
    pub fn knocks(&self, result: &str) -> u64 {
        let knocks = rows(&self.0, "knocks").iter();
        sum(knocks.filter(|row| row["result"] == result), "count")
    }

    fn counted<'s>(&'s self, reason: &'s str) -> impl Iterator<Item = &'s Value> {
        let rows = rows(&self.0, "packets").iter();
        rows.filter(move |row| row["reason"] == reason)
    }
}

impl Lab {
    /// Reads all counters.
    #[track_caller]
    pub fn stats(&self) -> Stats {
        Stats(self.knockgate(&["stats", "--json"]).exits(0).json())
    }

    /// Returns the rows of the list that a command prints under its own name: `grants`, `sessions` or `sources`.
    #[track_caller]
    pub fn list(&self, command: &str) -> Vec<Value> {
        let document = self.knockgate(&[command, "--json"]).exits(0).json();
        rows(&document, command).to_vec()
    }

    /// Returns how many flows are remembered. `status`, which counts them without listing them, must report the same number.
    #[track_caller]
    pub fn session_count(&self) -> usize {
        let mut listed = 0;
        // A flow that is idle may end between the two.
        wait_until("`status` counts as many sessions as are listed", || {
            listed = self.list("sessions").len();
            let status = self.knockgate(&["status", "--json"]).exits(0).json();
            let tables = rows(&status, "tables");
            let mut sessions = tables.iter().filter(|table| table["name"] == "sessions");
            sessions.any(|table| table["used"] == listed)
        });
        listed
    }

    /// Returns the events that `knockgate events` prints now. Panics if the command fails.
    #[track_caller]
    pub fn events(&self) -> Vec<Value> {
        let run = self.knockgate(&["events", "--json"]);
        let lines = run.exits(0).stdout.lines();
        lines
            .map(|line| serde_json::from_str(line).expect("a line is one event"))
            .collect()
    }

    /// As [`Lab::events`], but none if the command fails, as it does while a service starts or ends.
    pub fn events_if_any(&self) -> Vec<Value> {
        parsed(&self.knockgate(&["events", "--json"]).stdout)
    }

    /// Starts a reader that prints events as they happen; see [`events_of`].
    pub fn follow_events(&self) -> Running {
        let mut command = self.knockgate_command(&["events", "--follow", "--json"]);
        Running::start(&mut command, self.folder())
    }

    /// Starts the service and waits until it serves, and every configured interface is guarded.
    #[track_caller]
    pub fn serve(&self, options: &[&str]) -> Running {
        self.serve_until(options, "it serves", || self.is_served())
    }

    /// Returns whether a service serves, and every configured interface is guarded.
    pub fn is_served(&self) -> bool {
        let metrics = self.knockgate(&["metrics"]).stdout;
        metrics.contains("knockgate_service_running 1")
            && self.knockgate(&["status"]).code == Some(0)
            // Answered when the service has begun to look at grants.
            && self.knockgate(&["events"]).code == Some(0)
    }

    /// Starts the service and waits until `ready` holds. Panics if the service ends before that.
    #[track_caller]
    pub fn serve_until(
        &self,
        options: &[&str],
        what: &str,
        mut ready: impl FnMut() -> bool,
    ) -> Running {
        let mut command = self.knockgate_command(&[&["run"], options].concat());
        let mut service = Running::start(&mut command, self.folder());
        wait_until(what, || {
            assert!(service.goes_on(), "the service has ended by itself");
            ready()
        });
        service
    }
}

/// Returns the events that a reader has printed so far.
pub fn events_of(reader: &Running) -> Vec<Value> {
    parsed(&reader.stdout())
}

fn parsed(printed: &str) -> Vec<Value> {
    // The last line may be incomplete.
    let lines = printed.lines();
    lines
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

#[track_caller]
fn rows<'d>(document: &'d Value, list: &str) -> &'d [Value] {
    document[list]
        .as_array()
        .unwrap_or_else(|| panic!("no list of {list} in {document}"))
}

fn sum<'r>(rows: impl Iterator<Item = &'r Value>, column: &str) -> u64 {
    let numbers = rows.map(|row| row[column].as_u64().expect("a count is a number"));
    numbers.sum()
}
