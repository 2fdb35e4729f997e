//! The nearest valid spelling of a word that is not one.

/// The candidate that `typed` most likely stands for; `None` where all are too far off to guess.
///
/// Case and the choice between `-` and `_` do not count as differences.
pub(crate) fn nearest<'c>(
    typed: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<&'c str> {
    let typed = typed.to_lowercase().replace('-', "_");
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&typed, candidate), candidate))
        // A third of the word may be wrong, and a slip in a short one is still a slip.
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_find_their_word_and_strangers_do_not() {
        let keys = ["protect", "open_for", "session_idle", "knock"];
        for (typed, found) in [
            ("protct", Some("protect")),
            ("Open-For", Some("open_for")),
            ("openfor", Some("open_for")),
            ("konck", Some("knock")),
            ("sesion_idel", Some("session_idle")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(typed, keys), found, "{typed}");
        }
    }
}
