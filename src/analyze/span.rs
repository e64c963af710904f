//! How far back the fleet's own past goes, as flags spell it.

use std::fmt;
use std::str::FromStr;

use chrono::TimeDelta;

use crate::error::{Error, Result};

/// How far back the past goes: `30d`, `12h`, `2w` or `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(Option<TimeDelta>);

impl Span {
    /// No past at all.
    pub const NONE: Self = Self(None);
    /// What is taken when nothing is said.
    pub const DEFAULT: &'static str = "30d";

    /// How long it is; `None` where there is no past.
    pub(super) fn duration(self) -> Option<TimeDelta> {
        self.0
    }

    /// Whether there is no past.
    pub fn is_none(self) -> bool {
        self.0.is_none()
    }
}

impl FromStr for Span {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "none" {
            return Ok(Self::NONE);
        }
        let hours = |unit: char| match unit {
            'h' => Some(1),
            'd' => Some(24),
            'w' => Some(7 * 24),
            _ => None,
        };
        let parsed = text.chars().next_back().and_then(hours).and_then(|hours| {
            let count: i64 = text.get(..text.len() - 1)?.parse().ok().filter(|count| *count > 0)?;
            TimeDelta::try_hours(count.checked_mul(hours)?)
        });
        parsed.map(|span| Self(Some(span))).ok_or_else(|| {
            Error::usage(format!("`{}` is no span of time", text.escape_debug()))
                .hint("hours, days or weeks, like `12h`, `30d` or `2w`; or `none`")
        })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.map(|span| span.num_hours()) {
            None => f.write_str("none"),
            Some(hours) if hours % 24 == 0 => write!(f, "{}d", hours / 24),
            Some(hours) => write!(f, "{hours}h"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_hours_days_or_weeks() {
        for (text, shown) in [("30d", "30d"), ("12h", "12h"), ("2w", "14d"), ("48h", "2d"), ("none", "none")]
        {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), shown, "{text}");
        }
        for text in
            ["", "d", "0d", "-1d", "30", "30m", "1.5d", "99999999999999999999d", "9999999999999999w", "3ä"]
        {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }
}
