//! The client of a stanza: its keys, and what else it must show.

use clap::ValueEnum as _;
use ipnet::IpNet;

use crate::{
    config::fwknop::HmacDigest,
    import::{Fate, Report, gates::Client, name_of},
};

/// What is known of the client of a stanza.
pub(super) struct Keys {
    user: String,
    key: Option<(&'static str, String)>,
    hmac_key: Option<(&'static str, String)>,
    digest: HmacDigest,
    require_source_address: bool,
    /// Whether there can be no client.
    refused: bool,
}

/// The value of a key that has not been set, as packages install it.
const PLACEHOLDER: &str = "__CHANGEME__";
const PLACEHOLDER_TEXT: &str =
    "it is the placeholder of a new installation: `fwknop --key-gen` draws keys";

impl Keys {
    /// Of a client without keys. `user`: its name where the stanza has none.
    pub(super) fn new(user: String) -> Self {
        Self {
            user,
            key: None,
            hmac_key: None,
            digest: HmacDigest::default(),
            require_source_address: false,
            refused: false,
        }
    }

    /// Reads a line about the client, if it is one.
    pub(super) fn read(&mut self, key: &str, value: &str) -> Option<(Fate, String)> {
        let carried = |as_key: &str| (Fate::Carried, format!("as {as_key}"));
        Some(match key {
            "KEY" | "KEY_BASE64" | "HMAC_KEY" | "HMAC_KEY_BASE64" if value == PLACEHOLDER => {
                (Fate::NotCarried, PLACEHOLDER_TEXT.into())
            }
            "KEY" | "KEY_BASE64" => {
                let name = if key == "KEY" { "key" } else { "key_base64" };
                self.key = Some((name, value.to_owned()));
                carried(name)
            }
            "HMAC_KEY" | "HMAC_KEY_BASE64" => {
                let name = if key == "HMAC_KEY" {
                    "hmac_key"
                } else {
                    "hmac_key_base64"
                };
                self.hmac_key = Some((name, value.to_owned()));
                carried(name)
            }
            "HMAC_DIGEST_TYPE" => {
                if let Ok(digest) = HmacDigest::from_str(value, true) {
                    self.digest = digest;
                    carried("hmac_digest_type")
                } else {
                    self.refused = true;
                    (Fate::Invalid, "it is no digest that fwknop has".into())
                }
            }
            "REQUIRE_SOURCE" | "REQUIRE_SOURCE_ADDRESS" => {
                self.require_source_address = is_yes(value);
                carried("require_source_address")
            }
            "REQUIRE_USERNAME" => {
                let names = name_of(value);
                if !names.is_empty() {
                    self.user = names;
                }
                let text = "a key belongs to one user, who is called so here; the name in a packet is not looked at";
                (Fate::NotCarried, text.into())
            }
            "ENCRYPTION_MODE" if value.eq_ignore_ascii_case("cbc") => {
                (Fate::Carried, "as the only mode".into())
            }
            "ENCRYPTION_MODE" => {
                self.refused = true;
                let text = "only CBC is read: have the client use it, and add its keys by hand";
                (Fate::NotCarried, text.into())
            }
            "ACCESS_EXPIRE" | "ACCESS_EXPIRE_EPOCH" => {
                self.refused = true;
                let text = "keys of fwknop's do not expire here, so the client is left out";
                (Fate::Weaker, text.into())
            }
            "FORCE_NAT" | "FORWARD_ALL" if !value.eq_ignore_ascii_case("n") => {
                self.refused = true;
                let text = "fwknopd opens another host's port, and not this host's, so the client is left out; knockgate does \
                            not redirect packets";
                (Fate::Weaker, text.into())
            }
            "CMD_CYCLE_OPEN" => {
                self.refused = true;
                let text = "fwknopd runs it in place of opening ports, so the client is left out; a [[gate.hook]] runs a \
                            command, with {source} for its address";
                (Fate::Weaker, text.into())
            }
            _ => return None,
        })
    }

    pub(super) fn client(
        self,
        source: Vec<IpNet>,
        line: usize,
        report: &mut Report,
    ) -> Option<Client> {
        let Self {
            user,
            key,
            hmac_key,
            digest,
            require_source_address,
            refused,
        } = self;
        if hmac_key.is_none() {
            let text = "a client is let in only by a packet with an HMAC: add HMAC_KEY_BASE64 at both ends";
            report.add(line, "stanza without HMAC_KEY", Fate::NotCarried, text);
        }
        let digest = digest.to_possible_value();
        let client = Client {
            user,
            source,
            key: key?,
            hmac_key: hmac_key?,
            hmac_digest_type: digest.map_or_else(String::new, |word| word.get_name().to_owned()),
            require_source_address,
        };
        (!refused).then_some(client)
    }
}

/// Whether fwknopd takes a value for yes.
fn is_yes(value: &str) -> bool {
    value.starts_with(['y', 'Y'])
}
