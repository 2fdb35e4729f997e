//! What a person gets of a new key, printed once.

use std::io::{self, Write};

use anyhow::{Context as _, Result};
use qrcode::{EcLevel, QrCode, render::unicode::Dense1x2};
use serde::Serialize;
use zeroize::Zeroizing;

use super::NOT_PRINTED;
use crate::keys::PersonKey;

/// How a new key is printed.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Form {
    /// Name or address of this host for clients: `knockgate knock --key FILE` then needs none
    #[arg(long, value_name = "HOST")]
    pub(super) host: Option<String>,

    /// Print it as a QR code as well
    #[arg(long, conflicts_with = "json")]
    pub(super) qr: bool,

    /// Print one JSON document instead
    #[arg(long)]
    pub(super) json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Document<'k> {
    name: String,
    host: Option<&'k str>,
    root: &'k str,
    host_id: String,
    host_secret: &'k str,
    slot: u16,
    port: u16,
    gates: &'k [String],
}

/// Prints the file of a person. The secrets are in no other place afterwards.
pub(super) fn print(key: &PersonKey, form: &Form, out: &mut impl Write) -> Result<()> {
    let text = if form.json { json(key)? } else { key.to_toml() };
    let code = form.qr.then(|| qr(&text)).transpose()?;
    let mut write = || -> io::Result<()> {
        if !form.json {
            writeln!(
                out,
                "# Key {} for authenticated knocks. It is shown only now: keep it in a file of mode 0600.",
                key.name
            )?;
        }
        out.write_all(text.as_bytes())?;
        if let Some(code) = &code {
            writeln!(out)?;
            out.write_all(code.as_bytes())?;
        }
        out.flush()
    };
    write().context(NOT_PRINTED)
}

fn json(key: &PersonKey) -> Result<Zeroizing<String>> {
    let [root, host_secret] = [key.root.to_hex(), key.host_secret.to_hex()];
    let document = Document {
        name: key.name.to_string(),
        host: key.host.as_deref(),
        root: &root,
        host_id: base16ct::lower::encode_string(&key.host_id),
        host_secret: &host_secret,
        slot: key.slot,
        port: key.port,
        gates: &key.gates,
    };
    let length = 1024 + key.gates.iter().map(|gate| gate.len() + 16).sum::<usize>();
    let mut text = Zeroizing::new(Vec::with_capacity(length));
    serde_json::to_writer_pretty(&mut *text, &document)?;
    text.push(b'\n');
    let text = String::from_utf8(std::mem::take(&mut *text))?;
    Ok(Zeroizing::new(text))
}

/// Returns the text as a QR code of characters, each two squares high, dark on light also on a dark terminal.
fn qr(text: &str) -> Result<Zeroizing<String>> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L)
        .context("the key has too many gates for a QR code: leave --qr out")?;
    let drawn = code
        .render::<Dense1x2>()
        .dark_color(Dense1x2::Light)
        .light_color(Dense1x2::Dark)
        .build();
    Ok(Zeroizing::new(drawn + "\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Secret;

    fn key() -> PersonKey {
        PersonKey {
            name: "alice/laptop".parse().expect("a name"),
            host: Some("host.example".to_owned()),
            root: Secret::new([0xab; 32]),
            host_id: [0x01; 16],
            host_secret: Secret::new([0xcd; 16]),
            slot: 3,
            port: 41_641,
            gates: vec!["ssh".to_owned()],
        }
    }

    #[test]
    fn the_document_has_what_a_client_needs() {
        let text = json(&key()).expect("serialisable");
        let document: serde_json::Value = serde_json::from_str(&text).expect("one document");
        assert_eq!(
            document,
            serde_json::json!({
                "name": "alice/laptop",
                "host": "host.example",
                "root": "ab".repeat(32),
                "host_id": "01".repeat(16),
                "host_secret": "cd".repeat(16),
                "slot": 3,
                "port": 41641,
                "gates": ["ssh"],
            })
        );
    }

    #[test]
    fn the_code_is_square_and_has_a_quiet_zone() {
        let code = qr(&key().to_toml()).expect("it fits");
        let lines: Vec<&str> = code.lines().collect();
        let width = lines[0].chars().count();
        assert!(
            lines.iter().all(|line| line.chars().count() == width),
            "{}",
            code.as_str()
        );
        // Each line has two rows of squares, and there may be one too many.
        assert_eq!(lines.len(), width.div_ceil(2));
        assert!(
            lines[0].chars().all(|square| square == '█'),
            "{}",
            code.as_str()
        );
        let many = PersonKey {
            gates: vec!["x".repeat(64); 50],
            ..key()
        };
        let error = qr(&many.to_toml()).expect_err("too much");
        assert!(error.to_string().contains("leave --qr out"), "{error}");
    }
}
