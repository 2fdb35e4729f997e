//! Whether a configuration cuts off the SSH session that puts it into force.

use anyhow::{Context as _, Result, bail};

use super::{
    attachment::{Attachment, Lack},
    request::Request,
};
use crate::{
    config::{Config, Established, Gate, SshSession},
    datapath::{
        edit::connections::{open_connections, protects},
        open::Datapath,
        trial::TrialState,
    },
    sys::{links, sock_diag::Socket},
    values::{Port, Protocol},
};

/// What a configuration comes in place of.
#[derive(Clone, Copy)]
pub(super) enum After<'d> {
    Nothing,
    Present(&'d Datapath),
    /// What is left of it judges, but its grants end.
    Damaged(&'d Datapath),
}

/// Fails where `config`, in place of `before`, cuts off the session of the request.
///
/// A session that is not a connection of this network namespace is not looked at: its packets go to another host.
pub(super) fn refuse_to_cut_off(
    config: &Config,
    before: After<'_>,
    request: &Request,
) -> Result<()> {
    let Some(session) = &request.session else {
        return Ok(());
    };
    let Some(socket) = open_connections()
        .context("it is unknown whether this cuts off your SSH session (`--anyway` goes on)")?
        .into_iter()
        .find(|socket| is_of(session, socket))
    else {
        return Ok(());
    };
    if let Some((gate, why)) = cuts_off(config, before, request, &socket)? {
        bail!(
            "this would cut off your SSH session from {}: gate {} protects port {}, and {why}. Bring it up on trial \
             with `knockgate up --try 2m`, put your address on the allow list (`allow = [\"{}\"]`), or give \
             `--anyway`",
            session.client,
            gate.name,
            session.port,
            session.client
        );
    }
    Ok(())
}

fn is_of(session: &SshSession, socket: &Socket) -> bool {
    socket.remote.ip() == session.client.to_canonical()
        && session.client_port == socket.remote.port()
        && socket.local.ip() == session.server.to_canonical()
        && socket.local.port() == session.port
}

/// Returns the gate that would cut off a connection, and why.
fn cuts_off<'c>(
    config: &'c Config,
    before: After<'_>,
    request: &Request,
    socket: &Socket,
) -> Result<Option<(&'c Gate, &'static str)>> {
    let (before, keeps_grants) = match before {
        After::Nothing => (None, false),
        After::Present(before) => (Some(before), true),
        After::Damaged(before) => (Some(before), false),
    };
    let source = socket.remote.ip();
    let is_allowed = |config: &Config| {
        let mut networks = config.allow.iter();
        networks.any(|network| network.contains(&source))
    };
    if !protects(config, socket.local) || is_allowed(config) {
        return Ok(None);
    }
    let port = Port {
        number: socket.local.port(),
        protocol: Protocol::Tcp,
    };
    let Some(gate) = config
        .gates
        .iter()
        .find(|gate| gate.protect.contains(&port))
    else {
        return Ok(None);
    };
    if let Some(before) = before
        && !before.leaves_sessions(config, gate, source)?
    {
        return Ok(Some((
            gate,
            "ends the sessions of those who may not open it as before",
        )));
    }
    let keeps = gate.established == Established::Keep;
    let kept = match before {
        Some(before)
            if protects(before.config(), socket.local) && before.trial()? != TrialState::Lapsed =>
        {
            // A gate that keeps what is established may have let it pass when its grant had ended.
            let same_gate = before.applied.gates().find(|(_, of)| {
                of.name == gate.name
                    && of.protect.contains(&port)
                    && (keeps || of.established == Established::Cut)
            });
            let was_judged =
                !is_allowed(before.config()) && judges_all(config, &before.attachments()?, request);
            match same_gate {
                Some((id, _)) => {
                    was_judged && (keeps || keeps_grants)
                        || keeps && before.has_session_of(id, socket)?
                }
                None => false,
            }
        }
        // A connection that was open before the port was protected is made a session.
        _ => keeps,
    };
    let why = if keeps {
        "the session is not remembered"
    } else {
        "cuts connections that have no grant"
    };
    Ok((!kept).then_some((gate, why)))
}

/// Returns whether the program judges all that comes by the interfaces of `config` now. By another one, a connection may have begun
/// without a grant. One that stays down cuts nothing off.
fn judges_all(config: &Config, attachments: &[Attachment], request: &Request) -> bool {
    let is_open =
        |row: &Attachment| row.is_open() && !(request.keeps_down && row.state == Err(Lack::Down));
    let is_known = |name: &String| {
        let mut rows = attachments.iter();
        rows.any(|row| row.name == *name || row.configured == *name)
            || links::index_of(name).is_none()
    };
    !attachments.iter().any(is_open) && config.interfaces.iter().all(is_known)
}
