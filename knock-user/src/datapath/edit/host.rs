//! What the program is told of this host.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};

use crate::{
    datapath::{host::HostState, install::attachment::Attachment, open::Datapath, write},
    sys::routes::{self, LocalRoute},
    values::Port,
};

impl Datapath {
    /// Declares these ports open, and no others; see [`open_ports`](crate::datapath::open_ports).
    pub fn set_open_ports(&mut self, open: &BTreeSet<Port>) -> Result<()> {
        let roles = self.contents()?.roles(open);
        write::array(&mut self.role, roles)
    }

    /// Reads the state of this host, for the interfaces that carry the program now, by their present names.
    pub fn read_host_state(&self, attachments: &[Attachment]) -> Result<HostState> {
        let routes = routes::local().context("cannot read this host's routes")?;
        self.read_host_state_with(attachments, &routes)
    }

    /// As [`Datapath::read_host_state`], with the routes to this host as they were read before.
    pub fn read_host_state_with(
        &self,
        attachments: &[Attachment],
        routes: &[LocalRoute],
    ) -> Result<HostState> {
        let guarded: Vec<(u32, String)> = attachments
            .iter()
            .filter(|attachment| attachment.is_attached())
            .filter_map(|attachment| Some((attachment.index?, attachment.name.clone())))
            .collect();
        // Flow labels stay as they are.
        let secret = self.host.secret()?;
        HostState::read_with(self.config(), &guarded, secret, routes)
            .context("cannot read this host's addresses")
    }

    /// Tells the program the state of this host. Reads the tables, and writes only what is not in them yet.
    pub fn set_host_state(&mut self, state: &HostState) -> Result<()> {
        self.host.write(state)
    }
}
