//! Names that people give to gates, users and keys.

/// Reads the name of a gate or user: 1 to 64 of `A-Z a-z 0-9 . _ -`.
pub(crate) fn parse_name(text: &str) -> Result<String, String> {
    let known = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if !(1..=64).contains(&text.len()) {
        return Err(format!(
            "{text:?} must have 1 to 64 characters, not {}",
            text.chars().count()
        ));
    }
    if !text.bytes().all(known) {
        return Err(format!(
            "{text:?} may hold only letters A to Z, digits and . _ -"
        ));
    }
    Ok(text.to_owned())
}
