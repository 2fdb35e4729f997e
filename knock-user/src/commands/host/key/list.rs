//! `knockgate key list`.

use anyhow::Result;
use jiff::Timestamp;
use serde::Serialize;

use super::{Store, gates_of};
use crate::{
    commands::host::output,
    keys::{HostKey, KeyState},
};

/// List the keys, without their secrets
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// Print one JSON document: {"keys"}
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
pub(super) struct Document {
    pub(super) keys: Vec<Row>,
}

#[derive(Serialize)]
pub(super) struct Row {
    pub(super) name: String,
    user: String,
    device: Option<String>,
    slot: u16,
    pub(super) state: &'static str,
    gates: Vec<String>,
    bound: bool,
    created: Timestamp,
    expires: Option<Timestamp>,
    revoked: Option<Timestamp>,
}

pub(super) fn run(args: &Args, store: &Store<'_>) -> Result<()> {
    let Document { keys } = document(store)?;
    if args.json {
        return output::json(&Document { keys });
    }
    let rows: Vec<[String; 6]> = keys.into_iter().map(cells).collect();
    output::table(
        ["NAME", "SLOT>", "STATE", "GATES", "CREATED", "ENDS"],
        &rows,
        "no keys; `knockgate key new USER` makes one",
    )
}

/// Returns the keys by name, the newest of a name first.
pub(super) fn document(store: &Store<'_>) -> Result<Document> {
    let now = Timestamp::now();
    let mut keys = store.folder.load()?.keys;
    keys.sort_by(|a, b| (&a.name, a.replaced, b.created).cmp(&(&b.name, b.replaced, a.created)));
    let keys = keys.iter().map(|key| row(key, store, now)).collect();
    Ok(Document { keys })
}

fn row(key: &HostKey, store: &Store<'_>, now: Timestamp) -> Row {
    Row {
        name: key.name.to_string(),
        user: key.name.user.clone(),
        device: key.name.device.clone(),
        slot: key.slot,
        state: match key.state {
            KeyState::Revoked { .. } => "revoked",
            KeyState::Valid if key.ended(now).is_some() => "expired",
            KeyState::Valid if key.replaced => "replaced",
            KeyState::Valid => "valid",
        },
        gates: gates_of(store.config, &key.name, &key.gates),
        bound: key.bound,
        created: key.created,
        expires: key.expires,
        revoked: match key.state {
            KeyState::Valid => None,
            KeyState::Revoked { since } => Some(since),
        },
    }
}

fn cells(row: Row) -> [String; 6] {
    let day = |time: Timestamp| format!("{time:.0}");
    let ends = row.revoked.or(row.expires);
    let mut state = row.state.to_owned();
    if row.bound {
        state += ", bound";
    }
    [
        row.name,
        row.slot.to_string(),
        state,
        if row.gates.is_empty() {
            "none".to_owned()
        } else {
            row.gates.join(" ")
        },
        day(row.created),
        ends.map_or_else(|| "never".to_owned(), day),
    ]
}
