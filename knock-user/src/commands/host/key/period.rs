//! How long keys last: durations, and days.

use std::time::Duration;

use crate::values::parse_duration;

/// More than anyone plans for; times that far ahead can still be written.
const LONGEST_DAYS: u64 = 36_525;

/// Reads a period: `90d`, or a duration such as `12h`.
pub(super) fn parse_period(text: &str) -> Result<Duration, String> {
    let days = text
        .strip_suffix('d')
        .filter(|days| !days.is_empty() && days.bytes().all(|byte| byte.is_ascii_digit()));
    let longest = Duration::from_hours(24 * LONGEST_DAYS);
    let period = match days {
        None => parse_duration(text).map_err(|error| format!("{error}; days are written 90d"))?,
        Some(days) => match days.parse::<u64>() {
            Ok(days @ ..=LONGEST_DAYS) => Duration::from_hours(24 * days),
            _ => Duration::MAX,
        },
    };
    if period > longest {
        return Err(format!("{text:?} is too long: at most {LONGEST_DAYS}d"));
    }
    Ok(period)
}

/// As [`parse_period`], but longer than zero.
pub(super) fn parse_lifetime(text: &str) -> Result<Duration, String> {
    match parse_period(text)? {
        Duration::ZERO => {
            Err("a key that expires at once opens nothing; write a period such as 90d".into())
        }
        period => Ok(period),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_are_days_or_durations() {
        for (text, hours) in [("90d", 2160), ("0d", 0), ("12h", 12), ("36525d", 876_600)] {
            assert_eq!(
                parse_period(text),
                Ok(Duration::from_hours(hours)),
                "{text}"
            );
        }
        for text in [
            "d",
            "-1d",
            "1.5d",
            "36526d",
            "876601h",
            "99999999999999999999d",
            "7",
            "7w",
            "",
        ] {
            parse_period(text).expect_err(text);
        }
        parse_lifetime("0d").expect_err("it opens nothing");
        parse_lifetime("0s").expect_err("it opens nothing");
    }
}
