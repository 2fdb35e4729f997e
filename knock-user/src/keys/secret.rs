//! Random bytes that nobody else may see.

use std::{fmt, str::FromStr};

use anyhow::{Result, anyhow};
use ctutils::CtEq as _;
use serde::{Deserialize, Deserializer, de};
use zeroize::{Zeroize as _, Zeroizing};

/// `N` secret bytes. They are wiped when it is dropped, are not printed, and are compared in constant time.
///
/// They are kept on the heap: a value that moves leaves no copy behind.
#[derive(Clone)]
pub struct Secret<const N: usize>(Box<[u8; N]>);

impl<const N: usize> Secret<N> {
    /// Takes the bytes over, and wipes the place where they came in.
    pub fn new(mut bytes: [u8; N]) -> Self {
        let secret = Self(Box::new(bytes));
        bytes.zeroize();
        secret
    }

    /// Draws one from the random source of the system.
    pub fn random() -> Result<Self> {
        let mut secret = Self(Box::new([0; N]));
        getrandom::fill(secret.0.as_mut_slice())
            .map_err(|error| anyhow!("the system's random source failed: {error}"))?;
        Ok(secret)
    }

    pub fn bytes(&self) -> &[u8; N] {
        &self.0
    }

    /// Returns it in hexadecimal digits, which are wiped too.
    pub fn to_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(base16ct::lower::encode_string(self.0.as_slice()))
    }
}

impl<const N: usize> FromStr for Secret<N> {
    type Err = String;

    /// Reads hexadecimal digits. The message does not quote them.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut secret = Self(Box::new([0; N]));
        match base16ct::mixed::decode(text, secret.0.as_mut_slice()) {
            Ok(read) if read.len() == N => Ok(secret),
            _ => Err(format!(
                "this is not a secret of {N} bytes: write {} hexadecimal digits",
                2 * N
            )),
        }
    }
}

impl<const N: usize> Drop for Secret<N> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<const N: usize> PartialEq for Secret<N> {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).to_bool()
    }
}

impl<const N: usize> Eq for Secret<N> {}

impl<const N: usize> fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl<'de, const N: usize> Deserialize<'de> for Secret<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Digits<const N: usize>;

        impl<const N: usize> de::Visitor<'_> for Digits<N> {
            type Value = Secret<N>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{} hexadecimal digits", 2 * N)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Secret<N>, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Digits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_survive_text() {
        let secret = Secret::new([0x00, 0x0a, 0xff, 0x80]);
        assert_eq!(secret.to_hex().as_str(), "000aff80");
        for text in ["000aff80", "000AFF80"] {
            assert_eq!(text.parse::<Secret<4>>(), Ok(secret.clone()));
        }
        assert_ne!(secret, Secret::new([0x00, 0x0a, 0xff, 0x81]));
    }

    #[test]
    fn what_is_no_secret_is_refused_and_not_quoted() {
        for text in [
            "",
            "000aff8",
            "000aff8g",
            "000aff",
            "000aff8000",
            "0x0aff80",
        ] {
            let error = text.parse::<Secret<4>>().expect_err(text);
            assert_eq!(
                error,
                "this is not a secret of 4 bytes: write 8 hexadecimal digits"
            );
        }
    }

    #[test]
    fn no_two_random_secrets_are_equal_and_none_is_printed() {
        let [one, other] = [(); 2].map(|()| Secret::<32>::random().expect("randomness"));
        assert_ne!(one, other);
        assert_ne!(one, Secret::new([0; 32]));
        assert_eq!(format!("{one:?}"), "Secret(..)");
    }
}
