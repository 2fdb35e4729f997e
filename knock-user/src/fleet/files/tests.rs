use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, symlink},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use tempfile::TempDir;

use super::*;
use crate::config::Replay;

/// The days for which a certificate is valid, from now on.
type Days = [i64; 2];

const YEAR: Days = [-1, 365];

struct Signer {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

fn params(name: &str, [from, to]: Days) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    let at = |days: i64| {
        let seconds = Timestamp::now().as_second() + days * 24 * 3600;
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds.unsigned_abs())
    };
    params.not_before = at(from);
    params.not_after = at(to);
    params
}

fn authority(name: &str, days: Days) -> Signer {
    let mut params = params(name, days);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("randomness");
    let pem = params.self_signed(&key).expect("a certificate").pem();
    Signer {
        issuer: Issuer::new(params, key),
        pem,
    }
}

/// Returns the certificate and its key.
fn signed(by: &Signer, days: Days, usage: ExtendedKeyUsagePurpose) -> [String; 2] {
    let mut params = params("edge-01", days);
    params.extended_key_usages = vec![usage];
    let key = KeyPair::generate().expect("randomness");
    let cert = params.signed_by(&key, &by.issuer).expect("a certificate");
    [cert.pem(), key.serialize_pem()]
}

/// A folder with files that are as they should be.
struct Files {
    _folder: TempDir,
    fleet: Fleet,
    ca: Signer,
}

impl Files {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = |name: &str| folder.path().join(name);
        let fleet = Fleet {
            name: "edge".to_owned(),
            endpoints: vec!["https://etcd1:2379".to_owned()],
            host: None,
            ca: path("ca.pem"),
            cert: path("host.pem"),
            key: path("host.key"),
            keys: vec![path("fleet.key"), path("old.key")],
            replay: Replay::Fast,
        };
        let ca = authority("an authority", YEAR);
        let files = Self {
            _folder: folder,
            fleet,
            ca,
        };
        write(&files.fleet.ca, &files.ca.pem);
        files.identity(&signed(
            &files.ca,
            YEAR,
            ExtendedKeyUsagePurpose::ClientAuth,
        ));
        for path in &files.fleet.keys {
            let key = FleetKey::random().expect("randomness");
            write(path, &key.to_text(Timestamp::now()));
        }
        files
    }

    fn identity(&self, [cert, key]: &[String; 2]) {
        write(&self.fleet.cert, cert);
        write(&self.fleet.key, key);
    }

    #[track_caller]
    fn expect(&self, expected: &[(Named, &str, &str)]) {
        let faults = faults(&self.fleet, Timestamp::now());
        assert_eq!(faults.len(), expected.len(), "{faults:#?}");
        for (fault, (file, code, says)) in faults.iter().zip(expected) {
            assert_eq!((fault.file, fault.code), (*file, *code), "{fault:?}");
            assert!(fault.message.contains(says), "no {says:?} in {fault:?}");
        }
    }
}

fn write(path: &Path, text: &str) {
    // A new file, for the link that a test puts there.
    let _ = fs::remove_file(path);
    fs::write(path, text).expect("writable");
    set(path, 0o600);
}

fn set(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("ours");
}

const UNUSABLE: &str = "unusable-fleet-file";

#[test]
fn files_that_are_as_they_should_be_have_no_fault() {
    let files = Files::new();
    files.expect(&[]);
    assert!(Credentials::load(&files.fleet).is_ok());
    // Certificates may be read by all, and be behind links.
    set(&files.fleet.ca, 0o644);
    let real = files.fleet.cert.with_extension("1");
    fs::rename(&files.fleet.cert, &real).expect("ours");
    symlink(&real, &files.fleet.cert).expect("ours");
    files.expect(&[]);
}

#[test]
fn each_missing_file_is_named() {
    let files = Files::new();
    let Fleet {
        ca,
        cert,
        key,
        keys,
        ..
    } = &files.fleet;
    for path in [ca, cert, key, &keys[1]] {
        fs::remove_file(path).expect("ours");
    }
    files.expect(&[
        (Named::FleetKey(1), UNUSABLE, "`knockgate fleet key new "),
        (
            Named::Ca,
            UNUSABLE,
            &format!("there is no {}", ca.display()),
        ),
        (
            Named::Cert,
            UNUSABLE,
            &format!("there is no {}", cert.display()),
        ),
        (
            Named::Key,
            UNUSABLE,
            &format!("there is no {}", key.display()),
        ),
    ]);
    assert!(Credentials::load(&files.fleet).is_err());
}

#[test]
fn what_others_can_use_is_refused_with_the_command_that_repairs_it() {
    let files = Files::new();
    let Fleet {
        ca,
        cert,
        key,
        keys,
        ..
    } = &files.fleet;
    set(ca, 0o664);
    set(cert, 0o606);
    set(key, 0o640);
    set(&keys[0], 0o604);
    files.expect(&[
        (
            Named::FleetKey(0),
            UNUSABLE,
            &format!("`chmod 600 {}`", keys[0].display()),
        ),
        (
            Named::Ca,
            UNUSABLE,
            &format!("`chmod go-w {}`", ca.display()),
        ),
        (
            Named::Cert,
            UNUSABLE,
            &format!("`chmod go-w {}`", cert.display()),
        ),
        (
            Named::Key,
            UNUSABLE,
            &format!("`chmod 600 {}`", key.display()),
        ),
    ]);
    for (path, mode) in [(ca, 0o644), (cert, 0o644)] {
        set(path, mode);
    }
    let error = Credentials::load(&files.fleet)
        .err()
        .expect("the key is open");
    assert!(format!("{error:#}").contains("chmod 600"), "{error:#}");
}

#[test]
fn what_is_something_else_is_said_to_be_so() {
    let files = Files::new();
    let Fleet {
        ca,
        cert,
        key,
        keys,
        ..
    } = &files.fleet;
    let cert_text = fs::read_to_string(cert).expect("readable");
    write(ca, "hello");
    write(cert, &cert_text.replace("MII", "!!!"));
    write(key, &cert_text);
    write(&keys[0], &cert_text);
    files.expect(&[
        (Named::FleetKey(0), UNUSABLE, "is no file of a fleet's key"),
        (Named::Ca, UNUSABLE, "has no certificate"),
        (Named::Cert, UNUSABLE, "is not PEM"),
        (Named::Key, UNUSABLE, "has no private key"),
    ]);
}

#[test]
fn certificates_that_have_ended_or_soon_will_are_told_apart() {
    let files = Files::new();
    let code = "ending-certificate";
    for (days, says) in [
        ([-30, -1], Some("has expired at ")),
        ([-30, 13], Some("expires at ")),
        ([-30, 15], None),
        ([1, 30], Some("is not valid before ")),
    ] {
        let identity = signed(&files.ca, days, ExtendedKeyUsagePurpose::ClientAuth);
        files.identity(&identity);
        let expected = says.map(|says| (Named::Cert, code, says));
        files.expect(expected.as_slice());
        // The authority has ended, its signature is good.
        let ended = authority("ended", days);
        files.identity(&signed(&ended, YEAR, ExtendedKeyUsagePurpose::ClientAuth));
        write(&files.fleet.ca, &ended.pem);
        let expected = says.map(|says| (Named::Ca, code, says));
        files.expect(expected.as_slice());
        // Beside one that is valid, it may stay.
        write(&files.fleet.ca, &format!("{}{}", ended.pem, files.ca.pem));
        files.expect(&[]);
        write(&files.fleet.ca, &files.ca.pem);
    }
}

#[test]
fn what_does_not_belong_together_is_named() {
    let files = Files::new();
    let other = authority("an authority", YEAR);
    let [cert, key] = signed(&other, YEAR, ExtendedKeyUsagePurpose::ClientAuth);
    write(&files.fleet.key, &key);
    files.expect(&[(
        Named::Key,
        "key-of-another-certificate",
        "is not the private key of",
    )]);
    write(&files.fleet.cert, &cert);
    files.expect(&[(
        Named::Cert,
        "certificate-of-another-authority",
        "no authority of",
    )]);
    files.identity(&signed(
        &files.ca,
        YEAR,
        ExtendedKeyUsagePurpose::ServerAuth,
    ));
    files.expect(&[(Named::Cert, UNUSABLE, "etcd members will not accept")]);
}

#[test]
fn an_authority_between_may_follow_the_certificate() {
    let files = Files::new();
    let mut params = params("between", YEAR);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("randomness");
    let cert = params.signed_by(&key, &files.ca.issuer).expect("signed");
    let between = Signer {
        pem: cert.pem(),
        issuer: Issuer::new(params, key),
    };
    let [cert, key] = signed(&between, YEAR, ExtendedKeyUsagePurpose::ClientAuth);
    files.identity(&[cert.clone(), key.clone()]);
    let code = "certificate-of-another-authority";
    files.expect(&[(Named::Cert, code, "append its certificate")]);
    files.identity(&[cert + &between.pem, key]);
    files.expect(&[]);
}
