//! Names of keys: `alice`, `alice/laptop`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::values::parse_name;

/// The kernel keeps a name in 64 bytes.
const LONGEST: usize = 63;

/// What a name is separated by in the name of a file; no name holds it.
#[cfg(feature = "host")]
const IN_FILE: char = '@';

/// Whose key it is and, for a person with several, of which device.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyName {
    pub user: String,
    pub device: Option<String>,
}

#[cfg(feature = "host")]
impl KeyName {
    /// Returns the name as a part of a file name.
    pub(super) fn in_file(&self) -> String {
        self.joined_by(IN_FILE)
    }

    /// Reads what [`Self::in_file`] returned.
    pub(super) fn from_file(text: &str) -> Result<Self, String> {
        Self::split_at(text, IN_FILE)
    }
}

impl KeyName {
    fn joined_by(&self, separator: char) -> String {
        match &self.device {
            None => self.user.clone(),
            Some(device) => format!("{}{separator}{device}", self.user),
        }
    }

    fn split_at(text: &str, separator: char) -> Result<Self, String> {
        let part = |part: &str| {
            let part = parse_name(part)?;
            if part.starts_with('.') {
                return Err(format!("{part:?} must not begin with a dot"));
            }
            Ok(part)
        };
        let (user, device) = match text.split_once(separator) {
            Some((user, device)) => (part(user)?, Some(part(device)?)),
            None => (part(text)?, None),
        };
        if text.len() > LONGEST {
            return Err(format!(
                "{text:?} has {} characters: at most {LONGEST} are possible",
                text.len()
            ));
        }
        Ok(Self { user, device })
    }
}

impl FromStr for KeyName {
    type Err = String;

    /// Reads `USER` or `USER/DEVICE`.
    fn from_str(text: &str) -> Result<Self, String> {
        Self::split_at(text, '/')
            .map_err(|error| format!("{error}; write a key such as alice or alice/laptop"))
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.joined_by('/'))
    }
}

impl Serialize for KeyName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KeyName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_text_and_file_names() {
        for text in ["alice", "alice/laptop", "a.b_c-1/2", &"x".repeat(LONGEST)] {
            let name: KeyName = text.parse().expect(text);
            assert_eq!(name.to_string(), text);
            let file = name.in_file();
            assert!(!file.contains('/'), "{file}");
            assert_eq!(KeyName::from_file(&file), Ok(name));
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in [
            "",
            "/",
            "alice/",
            "/laptop",
            "alice/laptop/2",
            "alice@laptop",
            "../alice",
            "alice/..",
            ".alice",
            "alice laptop",
            "älice",
            &"x".repeat(LONGEST + 1),
            &format!("{}/{}", "x".repeat(32), "y".repeat(31)),
        ] {
            let error = text.parse::<KeyName>().expect_err(text);
            assert!(error.contains("such as alice or alice/laptop"), "{error}");
        }
    }
}
