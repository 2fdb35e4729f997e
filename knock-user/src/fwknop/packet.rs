//! The cryptography of a packet.
//!
//! Its text is base64 without padding: `B'` and then a code. `B'` is what `openssl enc -aes-256-cbc -md md5` makes, without the
//! characters in front that are always the same ([`PREFIX`]); the code is an HMAC of the text with these.

use aes::Aes256;
use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use cbc::cipher::{
    BlockModeDecrypt as _, KeyIvInit as _,
    block_padding::{NoPadding, Pkcs7},
};
use hmac::{Hmac, KeyInit as _, Mac as _, SimpleHmac};
use md5::{Digest as _, Md5};
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};
use sha3::{Sha3_256, Sha3_512};
use zeroize::Zeroizing;

use crate::config::fwknop::HmacDigest;

/// What every text begins with and no packet has: "Salted__" and half of a character.
pub const PREFIX: &[u8; 10] = b"U2FsdGVkX1";
/// The same of what GPG makes.
pub const GPG_PREFIX: &[u8; 2] = b"hQ";
/// The passphrase of the legacy mode is filled up to this length.
const LEGACY: usize = 16;
/// Random digits at the beginning of a message, and a colon.
const RANDOM: usize = 16;
const BLOCK: usize = 16;
/// Bytes before the ciphertext: "Salted__" and the salt.
const HEAD: usize = 16;
/// The longest HMAC, in bytes.
const LONGEST_CODE: usize = 64;

const fn unpadded(lenient: bool) -> GeneralPurpose {
    let config = GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(lenient);
    GeneralPurpose::new(&alphabet::STANDARD, config)
}

/// One text for every sequence of bytes.
const STRICT: GeneralPurpose = unpadded(false);
/// Bits beyond the last byte may be set.
const LENIENT: GeneralPurpose = unpadded(true);

/// Returns the characters of a code or digest of this kind.
pub const fn text_length(digest: HmacDigest) -> usize {
    let bytes: usize = match digest {
        HmacDigest::Md5 => 16,
        HmacDigest::Sha1 => 20,
        HmacDigest::Sha256 | HmacDigest::Sha3_256 => 32,
        HmacDigest::Sha384 => 48,
        HmacDigest::Sha512 | HmacDigest::Sha3_512 => 64,
    };
    (bytes * 4).div_ceil(3)
}

/// The key of an HMAC, prepared. Its parts are overwritten when it is dropped.
pub enum Code {
    Md5(Hmac<Md5>),
    Sha1(Hmac<Sha1>),
    Sha256(Hmac<Sha256>),
    Sha384(Hmac<Sha384>),
    Sha512(Hmac<Sha512>),
    Sha3_256(SimpleHmac<Sha3_256>),
    Sha3_512(SimpleHmac<Sha3_512>),
}

macro_rules! each {
    ($code:expr, $mac:ident => $body:expr) => {
        match $code {
            Code::Md5($mac) => $body,
            Code::Sha1($mac) => $body,
            Code::Sha256($mac) => $body,
            Code::Sha384($mac) => $body,
            Code::Sha512($mac) => $body,
            Code::Sha3_256($mac) => $body,
            Code::Sha3_512($mac) => $body,
        }
    };
}

impl Code {
    pub fn new(digest: HmacDigest, key: &[u8]) -> Self {
        const ANY: &str = "an HMAC takes a key of any length";
        match digest {
            HmacDigest::Md5 => Self::Md5(Hmac::new_from_slice(key).expect(ANY)),
            HmacDigest::Sha1 => Self::Sha1(Hmac::new_from_slice(key).expect(ANY)),
            HmacDigest::Sha256 => Self::Sha256(Hmac::new_from_slice(key).expect(ANY)),
            HmacDigest::Sha384 => Self::Sha384(Hmac::new_from_slice(key).expect(ANY)),
            HmacDigest::Sha512 => Self::Sha512(Hmac::new_from_slice(key).expect(ANY)),
            HmacDigest::Sha3_256 => Self::Sha3_256(SimpleHmac::new_from_slice(key).expect(ANY)),
            HmacDigest::Sha3_512 => Self::Sha3_512(SimpleHmac::new_from_slice(key).expect(ANY)),
        }
    }

    fn digest(&self) -> HmacDigest {
        match self {
            Self::Md5(_) => HmacDigest::Md5,
            Self::Sha1(_) => HmacDigest::Sha1,
            Self::Sha256(_) => HmacDigest::Sha256,
            Self::Sha384(_) => HmacDigest::Sha384,
            Self::Sha512(_) => HmacDigest::Sha512,
            Self::Sha3_256(_) => HmacDigest::Sha3_256,
            Self::Sha3_512(_) => HmacDigest::Sha3_512,
        }
    }

    /// Returns the text of a packet without its code, if that is right. Takes as long for every wrong code.
    pub fn verified<'p>(&self, payload: &'p [u8]) -> Option<&'p [u8]> {
        let length = payload.len().checked_sub(text_length(self.digest()))?;
        let (text, code) = payload.split_at(length);
        let mut bytes = [0; LONGEST_CODE];
        let count = STRICT.decode_slice_unchecked(code, &mut bytes).ok()?;
        let is_right = each!(self, mac => {
            let mut mac = mac.clone();
            mac.update(PREFIX);
            mac.update(text);
            mac.verify_slice(&bytes[..count]).is_ok()
        });
        is_right.then_some(text)
    }
}

/// What a text contains.
#[derive(Debug, PartialEq, Eq)]
pub enum Content {
    /// The message, without its digest.
    Message(String),
    /// It could be decrypted, but its digest is not that of the message.
    WrongDigest,
    /// It was encrypted by another key or in another mode.
    Unreadable,
}

/// Decrypts a text. `text`: without code and prefix.
pub fn content(key: &[u8], text: &[u8]) -> Content {
    let Some(sealed) = sealed(text) else {
        return Content::Unreadable;
    };
    let Some((salt, mut buffer)) = parts(&sealed) else {
        return Content::Unreadable;
    };
    let (cipher, _) = ciphers(key, salt);
    let Ok(plain) = cipher.decrypt_padded::<Pkcs7>(&mut buffer) else {
        return Content::Unreadable;
    };
    if !begins_like_a_message(plain) {
        return Content::Unreadable;
    }
    let Ok(plain) = str::from_utf8(plain) else {
        return Content::Unreadable;
    };
    match plain.rsplit_once(':') {
        Some((message, digest)) if is_digest_of(message, digest) => {
            Content::Message(message.to_owned())
        }
        _ => Content::WrongDigest,
    }
}

/// The ways in which a packet may have been made without an HMAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bare {
    Usual,
    Legacy,
}

/// Returns how a packet was made that has no HMAC, if it was made with this key.
pub fn bare(key: &[u8], payload: &[u8]) -> Option<Bare> {
    let sealed = sealed(payload)?;
    let (salt, buffer) = parts(&sealed)?;
    // Two blocks first, since whatever has the right length gets here.
    let is_of = |key: &[u8]| {
        let mut blocks = buffer.get(..2 * BLOCK)?.to_vec();
        let (cipher, _) = ciphers(key, salt);
        let plain = cipher.decrypt_padded::<NoPadding>(&mut blocks).ok()?;
        let is_whole = || matches!(content(key, payload), Content::Message(_));
        (begins_like_a_message(plain) && is_whole()).then_some(())
    };
    if is_of(key).is_some() {
        return Some(Bare::Usual);
    }
    let mut filled = Zeroizing::new(key.to_vec());
    if filled.len() < LEGACY {
        filled.resize(LEGACY, b'0');
        is_of(&filled)?;
        return Some(Bare::Legacy);
    }
    None
}

fn sealed(text: &[u8]) -> Option<Vec<u8>> {
    LENIENT.decode([PREFIX, text].concat()).ok()
}

/// Takes apart what was sealed: salt and ciphertext.
fn parts(sealed: &[u8]) -> Option<(&[u8], Vec<u8>)> {
    let (head, ciphertext) = sealed.split_at_checked(HEAD)?;
    let is_whole = !ciphertext.is_empty() && ciphertext.len().is_multiple_of(BLOCK);
    is_whole.then(|| (&head[8..], ciphertext.to_vec()))
}

/// Makes the cipher of a passphrase as `OpenSSL`'s `EVP_BytesToKey` does, with MD5 and one round. Also returns the bytes it was
/// made of.
fn ciphers(passphrase: &[u8], salt: &[u8]) -> (cbc::Decryptor<Aes256>, Zeroizing<[u8; 48]>) {
    let mut derived = Zeroizing::new([0; 48]);
    for part in 0..3 {
        let mut hash = Md5::new();
        if part > 0 {
            hash.update(&derived[(part - 1) * 16..part * 16]);
        }
        hash.update(passphrase);
        hash.update(salt);
        derived[part * 16..(part + 1) * 16].copy_from_slice(&hash.finalize());
    }
    let (key, iv) = derived.split_at(32);
    let cipher = cbc::Decryptor::<Aes256>::new_from_slices(key, iv).expect("of the right lengths");
    (cipher, derived)
}

fn begins_like_a_message(plain: &[u8]) -> bool {
    plain.get(RANDOM) == Some(&b':') && plain[..RANDOM].iter().all(u8::is_ascii_digit)
}

/// Whether this is a digest of the message, by one of the hashes that have this length.
fn is_digest_of(message: &str, digest: &str) -> bool {
    macro_rules! of {
        ($hash:ty) => {
            STRICT.encode(<$hash>::digest(message)) == digest
        };
    }
    match digest.len() {
        22 => of!(Md5),
        27 => of!(Sha1),
        43 => of!(Sha256) || of!(Sha3_256),
        64 => of!(Sha384),
        86 => of!(Sha512) || of!(Sha3_512),
        _ => false,
    }
}

/// Decodes a field of a message.
pub(super) fn field(text: &str) -> Option<Vec<u8>> {
    LENIENT.decode(text).ok()
}
