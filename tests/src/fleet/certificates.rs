//! Certificates that a test makes for its own members and hosts.

use std::{
    fs::{self, Permissions},
    net::IpAddr,
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    SanType,
};

/// An authority that signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = params(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a machine has random numbers");
        let certificate = params.self_signed(&key).expect("the parameters are valid");
        Self {
            pem: certificate.pem(),
            issuer: Issuer::new(params, key),
        }
    }

    /// Writes its own certificate.
    pub fn save(&self, path: &Path) {
        write(path, &self.pem);
    }

    /// Writes a certificate for a client, and for a server at this address, and its private key.
    pub fn issue(&self, name: &str, server: Option<IpAddr>, cert: &Path, key: &Path) {
        let mut params = params(name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if let Some(address) = server {
            params
                .extended_key_usages
                .push(ExtendedKeyUsagePurpose::ServerAuth);
            params.subject_alt_names = vec![SanType::IpAddress(address)];
        }
        let pair = KeyPair::generate().expect("a machine has random numbers");
        let certificate = params
            .signed_by(&pair, &self.issuer)
            .expect("the parameters are valid");
        write(cert, &certificate.pem());
        write(key, &pair.serialize_pem());
    }
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).expect("the temporary folder is writable");
    fs::set_permissions(path, Permissions::from_mode(0o600)).expect("it is ours");
}
