//! Durations as people write them: `500ms`, `30s`, `5m`, `2h`.

use std::{fmt, time::Duration};

/// Units from large to small, each with its length in milliseconds.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads `500ms`, `30s`, `5m` or `2h`, and several of them from large to small (`1h30m`).
///
/// Accepts zero. The error quotes the text and says what to write.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let no_duration = || {
        let hint = nearest_duration(text).map_or_else(
            || "write a whole number and a unit, such as 500ms, 30s, 5m or 2h".to_owned(),
            |near| format!("did you mean {near:?}?"),
        );
        format!("{text:?} is not a duration; {hint}")
    };
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!(
            "{text:?} has no unit: write {text}s, {text}m or {text}h"
        ));
    }
    let mut rest = text;
    let mut units = UNITS.iter();
    let mut total = 0_u64;
    while !rest.is_empty() || text.is_empty() {
        let (number, unit, after) = split_part(rest).ok_or_else(no_duration)?;
        // `units` only advances, so each unit is accepted at most once and in order.
        let &(_, length) = units
            .find(|(name, _)| *name == unit)
            .ok_or_else(no_duration)?;
        total = number
            .parse::<u64>()
            .ok()
            .and_then(|n| n.checked_mul(length))
            .and_then(|n| n.checked_add(total))
            .ok_or_else(|| format!("{text:?} is too long for a duration"))?;
        rest = after;
    }
    Ok(Duration::from_millis(total))
}

/// Shows a duration in the notation of [`parse_duration`]: `1h30m`, `29s500ms`.
///
/// Fractions of a millisecond are cut off. The alternate form (`{:#}`), for countdowns, shows only the two
/// largest units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HumanDuration(pub Duration);

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if rest == 0 {
            return f.write_str("0s");
        }
        let largest = UNITS
            .iter()
            .position(|(_, length)| rest >= *length)
            .unwrap_or(0);
        let shown = if f.alternate() { 2 } else { UNITS.len() };
        for (name, length) in UNITS.iter().skip(largest).take(shown) {
            if rest >= *length {
                write!(f, "{}{name}", rest / length)?;
                rest %= length;
            }
        }
        Ok(())
    }
}

/// Splits `30s…` into its number, its unit and the rest.
fn split_part(text: &str) -> Option<(&str, &str, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, rest) = text.split_at(digits);
    let letters = rest
        .find(|c: char| c.is_ascii_digit())
        .unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(letters);
    (!number.is_empty()).then_some((number, unit, rest))
}

/// Returns the right spelling of `30 sec`, `5min`, `2 Hours`, `1d` and the like.
fn nearest_duration(text: &str) -> Option<String> {
    let lower = text.trim().to_lowercase();
    let (number, unit, rest) = split_part(&lower)?;
    let number = number.parse::<u64>().ok()?;
    let (number, unit) = match unit.trim() {
        "ms" | "msec" | "msecs" | "millisecond" | "milliseconds" => (number, "ms"),
        "s" | "sec" | "secs" | "second" | "seconds" => (number, "s"),
        "m" | "min" | "mins" | "minute" | "minutes" => (number, "m"),
        "h" | "hr" | "hrs" | "hour" | "hours" => (number, "h"),
        "d" | "day" | "days" => (number.checked_mul(24)?, "h"),
        _ => return None,
    };
    rest.is_empty().then(|| format!("{number}{unit}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_survive_text() {
        for (text, millis) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("5m", 300_000),
            ("2h", 7_200_000),
            ("1h30m", 5_400_000),
            ("1m30s", 90_000),
            ("1h1m1s1ms", 3_661_001),
        ] {
            let duration = Duration::from_millis(millis);
            assert_eq!(parse_duration(text), Ok(duration));
            assert_eq!(HumanDuration(duration).to_string(), text);
        }
        assert_eq!(parse_duration("0ms"), Ok(Duration::ZERO));
        assert_eq!(HumanDuration(Duration::ZERO).to_string(), "0s");
    }

    #[test]
    fn counting_down_shows_two_units() {
        for (millis, shown) in [
            (3_599_123, "59m59s"),
            (29_500, "29s500ms"),
            (7_200_005, "2h"),
            (7, "7ms"),
        ] {
            assert_eq!(
                format!("{:#}", HumanDuration(Duration::from_millis(millis))),
                shown
            );
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_with_what_to_write() {
        for (text, says) in [
            ("30", "write 30s, 30m or 30h"),
            ("", "such as 500ms, 30s, 5m or 2h"),
            ("s", "such as 500ms, 30s, 5m or 2h"),
            ("-5s", "such as 500ms, 30s, 5m or 2h"),
            ("1.5s", "such as 500ms, 30s, 5m or 2h"),
            ("30s5m", "such as 500ms, 30s, 5m or 2h"),
            ("30s30s", "such as 500ms, 30s, 5m or 2h"),
            ("30s5", "such as 500ms, 30s, 5m or 2h"),
            ("5 parsecs", "such as 500ms, 30s, 5m or 2h"),
            ("30 s", "did you mean \"30s\"?"),
            ("30sec", "did you mean \"30s\"?"),
            ("5 Minutes", "did you mean \"5m\"?"),
            ("2H", "did you mean \"2h\"?"),
            ("1d", "did you mean \"24h\"?"),
            ("99999999999999999999s", "too long"),
            ("18446744073709551615h", "too long"),
        ] {
            let error = parse_duration(text).expect_err(text);
            assert!(error.contains(says), "{text:?}: {error}");
        }
    }
}
