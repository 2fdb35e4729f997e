//! The certificates and keys that `[fleet]` names: reading them, and what is wrong with them.
//!
//! Certificates are verified as an etcd member verifies them, by the library that the connection to it uses.

use std::{
    fs::{File, Metadata},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use jiff::{SignedDuration, Timestamp};
use rustls::{
    CertificateError, Error, InconsistentKeys, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject as _},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::CertifiedKey,
};
use zeroize::Zeroizing;

use super::keys::FleetKey;
use crate::{config::Fleet, keys::private::refuse_open};

/// A certificate that ends sooner than this is warned of.
const SOON: SignedDuration = SignedDuration::from_hours(14 * 24);

/// Hundreds of certificates fit into this.
const LARGEST_FILE: u64 = 1024 * 1024;

/// What a host shows to the etcd members, and by what it knows them: PEM.
pub struct Credentials {
    pub ca: Vec<u8>,
    pub cert: Vec<u8>,
    pub key: Zeroizing<Vec<u8>>,
}

/// A file of `[fleet]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    Ca,
    Cert,
    Key,
    /// By its place in `keys`.
    FleetKey(usize),
}

/// What is wrong with a file of `[fleet]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub file: Named,
    /// The code of the finding.
    pub code: &'static str,
    pub message: String,
}

impl Credentials {
    /// Reads the files.
    ///
    /// # Errors
    /// Where one of them cannot be read, or others can read the private key or change any of them.
    pub fn load(fleet: &Fleet) -> Result<Self> {
        Ok(Self {
            ca: read_public(&fleet.ca)?,
            cert: read_public(&fleet.cert)?,
            key: read_secret(&fleet.key)?,
        })
    }
}

/// Returns what is wrong with the files of `fleet` at this time. A file that this user may not read is left out.
pub fn faults(fleet: &Fleet, now: Timestamp) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut report = |file, code, message| {
        faults.push(Fault {
            file,
            code,
            message,
        });
    };
    for (nth, path) in fleet.keys.iter().enumerate() {
        if let Err(error) = FleetKey::load(path)
            && !is_denied(&error)
        {
            report(
                Named::FleetKey(nth),
                "unusable-fleet-file",
                format!("{error:#}"),
            );
        }
    }
    let mut usable = |file, error: anyhow::Error| {
        if !is_denied(&error) {
            report(file, "unusable-fleet-file", format!("{error:#}"));
        }
    };
    let authorities = authorities(&fleet.ca).map_err(|error| usable(Named::Ca, error));
    let chain = certificates(&fleet.cert).map_err(|error| usable(Named::Cert, error));
    let key = private_key(&fleet.key).map_err(|error| usable(Named::Key, error));
    if let Ok(authorities) = &authorities
        && let Some(message) = authorities.end(&fleet.ca, now)
    {
        report(Named::Ca, "ending-certificate", message);
    }
    if let (Ok(chain), Ok(key)) = (&chain, &key)
        && let Err(why) = belongs(chain, key)
    {
        let message = format!(
            "{} {why} {}: name the key that the certificate was made for",
            fleet.key.display(),
            fleet.cert.display()
        );
        report(Named::Key, "key-of-another-certificate", message);
    }
    if let (Ok(authorities), Ok(chain)) = (&authorities, &chain)
        && let Some((code, message)) = authorities.fault_of(chain, fleet, now)
    {
        report(Named::Cert, code, message);
    }
    faults
}

/// The certificates of `ca`, and what verifies others by them.
struct Authorities {
    certificates: Vec<CertificateDer<'static>>,
    verifier: Arc<dyn ClientCertVerifier>,
}

fn authorities(path: &Path) -> Result<Authorities> {
    let certificates = certificates(path)?;
    let shown = path.display();
    let mut roots = RootCertStore::empty();
    for certificate in &certificates {
        let added = roots.add(certificate.clone());
        added.map_err(|error| anyhow!("{shown} has a certificate that cannot be read: {error}"))?;
    }
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let verifier = verifier
        .build()
        .with_context(|| format!("{shown} cannot be used"))?;
    Ok(Authorities {
        certificates,
        verifier,
    })
}

impl Authorities {
    /// Returns why `chain` does not verify at this time: the error of the library.
    fn refusal(&self, chain: &[CertificateDer<'_>], at: Timestamp) -> Option<CertificateError> {
        let (own, between) = chain.split_first()?;
        let seconds = u64::try_from(at.as_second()).unwrap_or_default();
        let at = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        match self.verifier.verify_client_cert(own, between, at) {
            Ok(_) => None,
            Err(Error::InvalidCertificate(error)) => Some(error),
            Err(_) => Some(CertificateError::BadEncoding),
        }
    }

    /// Says that no authority is valid, or that the last ends soon. The dates of a certificate are looked at before anything
    /// else of it, so it does not matter that an authority is none who may connect.
    fn end(&self, path: &Path, now: Timestamp) -> Option<String> {
        let fate = |at| {
            let mut fates = self.certificates.iter().map(|certificate| {
                let refusal = self.refusal(std::slice::from_ref(certificate), at)?;
                date_of(&refusal).is_some().then_some(refusal)
            });
            // One that is valid is enough.
            fates.try_fold(None, |_, fate| fate.map(Some)).flatten()
        };
        let what = format!("the certificate of the authority, {},", path.display());
        let otherwise = "no etcd member can be trusted then; get its new one";
        ending(&what, otherwise, now, fate)
    }

    /// Says why no member would let the owner of `chain` in, or that it soon will not.
    fn fault_of(
        &self,
        chain: &[CertificateDer<'_>],
        fleet: &Fleet,
        now: Timestamp,
    ) -> Option<(&'static str, String)> {
        let (cert, ca) = (fleet.cert.display(), fleet.ca.display());
        let fate = |at| {
            self.refusal(chain, at)
                .filter(|error| date_of(error).is_some())
        };
        let what = format!("the certificate of this host, {cert},");
        let otherwise = "no etcd member lets it in then; put a new one in its place";
        if let Some(message) = ending(&what, otherwise, now, fate) {
            return Some(("ending-certificate", message));
        }
        let refusal = self.refusal(chain, now)?;
        Some(match refusal {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => (
                "certificate-of-another-authority",
                format!(
                    "no authority of {ca} has signed {cert}: right only where the etcd members know their clients by another \
                     one (`--trusted-ca-file`); where one lies between, append its certificate to {cert}"
                ),
            ),
            error => (
                "unusable-fleet-file",
                format!("etcd members will not accept {cert}: {error}"),
            ),
        })
    }
}

/// Says that what `fate` is about is not valid at this time, or not for long.
fn ending(
    what: &str,
    otherwise: &str,
    now: Timestamp,
    fate: impl Fn(Timestamp) -> Option<CertificateError>,
) -> Option<String> {
    let soon = now.saturating_add(SOON).unwrap_or(Timestamp::MAX);
    let (error, is_over) = match fate(now) {
        Some(error) => (error, true),
        None => (fate(soon)?, false),
    };
    Some(match (date_of(&error)?, is_over) {
        (Date::Begin(begin), true) => {
            format!("{what} is not valid before {begin:.0}: look at this host's clock")
        }
        // It begins within the days that are looked ahead, which `fate(now)` has said.
        (Date::Begin(_), false) => return None,
        (Date::End(end), true) => format!("{what} has expired at {end:.0}: {otherwise}"),
        (Date::End(end), false) => format!("{what} expires at {end:.0}: {otherwise}"),
    })
}

/// When a certificate becomes or ceases to be valid.
enum Date {
    Begin(Timestamp),
    End(Timestamp),
}

/// Returns the date for which a certificate was refused; `None` where it was another reason.
fn date_of(error: &CertificateError) -> Option<Date> {
    let at = |time: &UnixTime| {
        let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX)
    };
    match error {
        CertificateError::ExpiredContext { not_after, .. } => Some(Date::End(at(not_after))),
        CertificateError::NotValidYetContext { not_before, .. } => {
            Some(Date::Begin(at(not_before)))
        }
        _ => None,
    }
}

/// Checks that the key is that of the first certificate.
fn belongs(chain: &[CertificateDer<'static>], key: &PrivateKeyDer<'static>) -> Result<(), String> {
    let key = ring::sign::any_supported_type(key)
        .map_err(|error| format!("is of a kind that cannot be used ({error}), and cannot serve"))?;
    match CertifiedKey::new(chain.to_vec(), key).keys_match() {
        Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            Err("is not the private key of".to_owned())
        }
        // Whatever else is wrong with the certificate is another finding.
        _ => Ok(()),
    }
}

/// Reads all certificates of a file, at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let shown = path.display();
    let text = read_public(path)?;
    let certificates = CertificateDer::pem_slice_iter(&text);
    let certificates = certificates.collect::<Result<Vec<_>, _>>();
    let certificates = certificates.map_err(|error| anyhow!("{shown} is not PEM: {error}"))?;
    ensure!(
        !certificates.is_empty(),
        "{shown} has no certificate: it must be PEM, and begin with -----BEGIN CERTIFICATE-----"
    );
    Ok(certificates)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>> {
    let text = read_secret(path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|_| {
        anyhow!(
            "{} has no private key that can be used: it must be PEM, without a passphrase",
            path.display()
        )
    })
}

/// Reads a file that nobody else may change.
fn read_public(path: &Path) -> Result<Vec<u8>> {
    let (mut file, metadata) = open(path)?;
    let shown = path.display();
    let mode = metadata.mode() & 0o7777;
    ensure!(
        mode & 0o022 == 0,
        "others than the owner can change {shown} (mode {mode:04o}): `chmod go-w {shown}`"
    );
    let mut text = Vec::new();
    file.read_to_end(&mut text)
        .with_context(|| format!("cannot read {shown}"))?;
    Ok(text)
}

/// Reads a file that nobody else may read.
fn read_secret(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    let (file, metadata) = open(path)?;
    refuse_open(path, &metadata, "600")?;
    // One that grows would leave copies of secrets behind.
    let length = metadata.len();
    let room = usize::try_from(length)?.saturating_add(1);
    let mut text = Zeroizing::new(Vec::with_capacity(room));
    let read = file.take(length).read_to_end(&mut text);
    read.with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text)
}

/// Opens an ordinary file, also behind a link: programs that renew certificates exchange links.
fn open(path: &Path) -> Result<(File, Metadata)> {
    let shown = path.display();
    let failed = || format!("cannot read {shown}");
    // Without it, a pipe would wait for its other end.
    let opened = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path);
    let file = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => bail!("there is no {shown}"),
        opened => opened.with_context(failed)?,
    };
    let metadata = file.metadata().with_context(failed)?;
    ensure!(metadata.is_file(), "{shown} is no ordinary file");
    ensure!(
        metadata.len() <= LARGEST_FILE,
        "{shown} is larger than {LARGEST_FILE} bytes: it has neither certificate nor key"
    );
    Ok((file, metadata))
}

fn is_denied(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<io::Error>();
    io.is_some_and(|io| io.kind() == io::ErrorKind::PermissionDenied)
}

#[cfg(test)]
mod tests;
