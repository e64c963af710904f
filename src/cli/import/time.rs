//! Times as people write them.

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};

use crate::model::now;

/// What a time looks like.
const EXPECTED: &str =
    "expected a time since 1970 like 2026-01-31, 2026-01-31T08:00:00Z, 1769846400 (seconds), or 2h (ago)";

/// A time, a day (which begins at midnight), seconds since 1970, or how long ago: `90s`, `15m`, `2h`, `3d`, `1w`; all of
/// it UTC.
pub(super) fn time(text: &str) -> Result<DateTime<Utc>, String> {
    let text = text.trim();
    let time = absolute(text).or_else(|| ago(text).and_then(|ago| now().checked_sub_signed(ago)));
    time.filter(|time| time.timestamp() >= 0).ok_or_else(|| EXPECTED.to_owned())
}

fn absolute(text: &str) -> Option<DateTime<Utc>> {
    let day =
        || text.parse::<NaiveDate>().ok().and_then(|day| day.and_hms_opt(0, 0, 0)).map(|time| time.and_utc());
    let epoch = || text.parse::<i64>().ok().and_then(|seconds| DateTime::from_timestamp(seconds, 0));
    text.parse::<DateTime<Utc>>().ok().or_else(epoch).or_else(day)
}

fn ago(text: &str) -> Option<TimeDelta> {
    let text = text.strip_suffix("ago").unwrap_or(text).trim_end();
    let unit = text.chars().next_back()?;
    let count: i64 = text[..text.len() - unit.len_utf8()].trim_end().parse().ok()?;
    let count = Some(count).filter(|count| *count >= 0)?;
    match unit {
        's' => TimeDelta::try_seconds(count),
        'm' => TimeDelta::try_minutes(count),
        'h' => TimeDelta::try_hours(count),
        'd' => TimeDelta::try_days(count),
        'w' => TimeDelta::try_weeks(count),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_read_in_every_spelling() {
        for (text, expect) in [
            ("2026-01-31", 1_769_817_600),
            ("2026-01-31T08:00:00Z", 1_769_846_400),
            ("2026-01-31T09:00:00+01:00", 1_769_846_400),
            ("1769846400", 1_769_846_400),
        ] {
            assert_eq!(time(text).unwrap().timestamp(), expect, "{text}");
        }
        for (text, seconds) in
            [("0s", 0), ("90s", 90), ("15m", 900), ("2h", 7_200), ("2 h ago", 7_200), ("1w", 604_800)]
        {
            let ago = now() - time(text).unwrap();
            assert!((seconds - 1..seconds + 60).contains(&ago.num_seconds()), "{text}: {ago}");
        }
        for text in ["", "h", "-2h", "2y", "1969-12-31", "-5", "yesterday", "2é", "99999999999999999d"] {
            assert!(time(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_time_or_none(text in "\\PC{0,20}|[0-9]{1,20}[smhdw]") {
            let _ = time(&text);
        }
    }
}
