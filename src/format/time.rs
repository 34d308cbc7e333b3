//! Instants as they are written: RFC 3339 in UTC, and the compact form in names. Pure.

use chrono::{DateTime, NaiveDateTime, SecondsFormat, SubsecRound, Utc};

/// `20260225T030000Z`, as ids begin.
const COMPACT: &str = "%Y%m%dT%H%M%SZ";

/// The compact form, whole seconds.
pub fn compact(at: DateTime<Utc>) -> String {
    at.format(COMPACT).to_string()
}

/// Reads the compact form.
pub fn parse_compact(text: &str) -> Option<DateTime<Utc>> {
    NaiveDateTime::parse_from_str(text, COMPACT).ok().map(|naive| naive.and_utc())
}

/// RFC 3339 with milliseconds, or whole seconds where there are none.
pub fn rfc3339(at: DateTime<Utc>) -> String {
    let at = at.trunc_subsecs(3);
    let whole = at.timestamp_subsec_millis() == 0;
    at.to_rfc3339_opts(if whole { SecondsFormat::Secs } else { SecondsFormat::Millis }, true)
}

/// A length of time as people say it, in its two largest units: `3 d 4 h`, `12 min`, `5 s`.
pub fn span(time: chrono::TimeDelta) -> String {
    let seconds = time.num_seconds().max(0);
    let parts = [(seconds / 86_400, "d"), (seconds / 3_600 % 24, "h"), (seconds / 60 % 60, "min"), (seconds % 60, "s")];
    let first = parts.iter().position(|(count, _)| *count > 0).unwrap_or(3);
    let shown: Vec<String> = parts
        .iter()
        .skip(first)
        .take(2)
        .filter(|(count, _)| *count > 0 || seconds == 0)
        .map(|(count, unit)| format!("{count} {unit}"))
        .collect();
    shown.join(" ")
}

/// A number of bytes as people read it: `1.2 MiB`.
pub fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}

/// Instants in JSON as [`rfc3339`] writes them.
pub mod serde_rfc3339 {
    use chrono::{DateTime, Utc};
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes one.
    ///
    /// # Errors
    /// The serializer's own.
    pub fn serialize<S: Serializer>(at: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::rfc3339(*at))
    }

    /// Reads one.
    ///
    /// # Errors
    /// When the text is no RFC 3339 instant.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DateTime<Utc>, D::Error> {
        DateTime::<Utc>::deserialize(deserializer)
    }
}

/// The same where there may be none.
pub mod serde_rfc3339_option {
    use chrono::{DateTime, Utc};
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes one, or null.
    ///
    /// # Errors
    /// The serializer's own.
    pub fn serialize<S: Serializer>(at: &Option<DateTime<Utc>>, serializer: S) -> Result<S::Ok, S::Error> {
        match at {
            Some(at) => super::serde_rfc3339::serialize(at, serializer),
            None => serializer.serialize_none(),
        }
    }

    /// Reads one, or null.
    ///
    /// # Errors
    /// When the text is no RFC 3339 instant.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<DateTime<Utc>>, D::Error> {
        Option::<DateTime<Utc>>::deserialize(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;

    #[test]
    fn compact_goes_both_ways() {
        let at = parse_compact("20260225T030000Z").unwrap();
        assert_eq!((compact(at).as_str(), rfc3339(at).as_str()), ("20260225T030000Z", "2026-02-25T03:00:00Z"));
        assert_eq!(parse_compact("20260231T030000Z"), None);
    }

    #[test]
    fn spans_read_well() {
        for (seconds, text) in [(0, "0 s"), (59, "59 s"), (60, "1 min"), (3_661, "1 h 1 min"), (90_000, "1 d 1 h")] {
            assert_eq!(span(TimeDelta::seconds(seconds)), text);
        }
    }
}
