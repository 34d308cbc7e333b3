//! Cron expressions in a time zone. Flows in: the expression, the zone, an instant. Flows out: slots in UTC. Pure.
//!
//! One rule covers every change of the clocks: a slot is a local time, and it comes *at the first instant at which the
//! local clock has reached it*. In a gap that is the gap's end; in an overlap it is the first pass; and several slots
//! in one gap come at one instant, as one. `croner` searches among local times, which know nothing of zones; the rule
//! maps between these and instants, forwards ([`Cron::instant_of`]) and backwards ([`Cron::reached_at`]).

use chrono::{DateTime, NaiveDateTime, Offset, TimeDelta, TimeZone, Utc};
use chrono_tz::{GapInfo, Tz};
use croner::parser::{CronParser, Seconds, Year};

use super::fields;
use crate::config::table::nearest;
use crate::error::{Error, Kind, Result};

/// How many slots tell the pace of a schedule: enough for the working days of a week.
const PACES: usize = 8;

/// A schedule that has been checked.
#[derive(Clone, Debug)]
pub struct Cron {
    expression: String,
    zone: Tz,
    pattern: croner::Cron,
}

impl Cron {
    /// Checks an expression of five fields, as Vixie cron reads it, in an IANA zone.
    ///
    /// # Errors
    /// [`Kind::Config`].
    pub fn parse(expression: &str, timezone: &str) -> Result<Self> {
        let zone = timezone.parse().map_err(|_| no_such_zone(timezone))?;
        let wrong =
            |(why, mend): fields::Wrong| Error::new(Kind::Config, format!("{:?}: {why}", expression.trim())).hint(mend);
        let fields = fields::read(expression).map_err(wrong)?;
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Optional);
        let pattern = parser.dom_and_dow(fields.both_days).build().parse(&fields.plain);
        let pattern = pattern.map_err(|error| {
            Error::new(Kind::Config, format!("{expression:?}: {}", error.to_string().trim_end_matches('.')))
        })?;
        let cron = Self { expression: String::new(), zone, pattern };
        // Whether a fifth Monday can also be the first of the month is best found out by looking for one.
        if fields.plain.contains(['#', 'L']) && cron.next_after(DateTime::UNIX_EPOCH).is_none() {
            let why = format!("{:?}: the date never comes", expression.trim());
            return Err(Error::new(Kind::Config, why).hint("give a day that a month can have"));
        }
        // Blanks say nothing, so changing them is no change of the schedule.
        let expression = expression.split_whitespace().collect::<Vec<_>>().join(" ");
        Ok(Self { expression, ..cron })
    }

    /// The expression as it was given, blanks apart.
    pub fn expression(&self) -> &str {
        &self.expression
    }

    /// The zone's IANA name.
    pub fn timezone(&self) -> &'static str {
        self.zone.name()
    }

    /// The newest slot that has come by `t`.
    pub fn previous_or_at(&self, t: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.instant_of(self.pattern.find_previous_occurrence(&self.reached_at(t), true).ok()?)
    }

    /// The first slot that comes later than `t`.
    pub fn next_after(&self, t: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.instant_of(self.pattern.find_next_occurrence(&self.reached_at(t), false).ok()?)
    }

    /// How many slots come later than `after` and no later than `until`; it stops counting at `max`.
    pub fn count_between(&self, after: DateTime<Utc>, until: DateTime<Utc>, max: u32) -> u32 {
        let slots = std::iter::successors(self.next_after(after), |slot| self.next_after(*slot));
        let within = slots.take_while(|slot| *slot <= until).zip(0..max);
        within.map(|(_, before)| before.saturating_add(1)).last().unwrap_or_default()
    }

    /// The longest time between neighbouring slots, among the last few that have come by `t`; zero, where there are no two.
    pub fn pace(&self, t: DateTime<Utc>) -> TimeDelta {
        let before = |slot: DateTime<Utc>| self.previous_or_at(slot.checked_sub_signed(TimeDelta::seconds(1))?);
        let slots: Vec<_> = std::iter::successors(self.previous_or_at(t), |slot| before(*slot)).take(PACES).collect();
        let gaps = slots.iter().zip(slots.iter().skip(1)).map(|(later, earlier)| later.signed_duration_since(*earlier));
        gaps.max().unwrap_or_default()
    }

    /// The first instant at which the local clock has reached `local`.
    fn instant_of(&self, local: NaiveDateTime) -> Option<DateTime<Utc>> {
        if let Some(instant) = self.zone.from_local_datetime(&local).earliest() {
            return Some(instant.with_timezone(&Utc));
        }
        Some(GapInfo::new(&local, &self.zone)?.end?.with_timezone(&Utc))
    }

    /// The latest local time, in whole seconds, that the clock has shown by `t`: what it shows at `t`, but in the second
    /// pass of an overlap, where the first pass has gone further.
    fn reached_at(&self, t: DateTime<Utc>) -> NaiveDateTime {
        let offset = self.zone.offset_from_utc_datetime(&t.naive_utc()).fix();
        let local = t.naive_utc().checked_add_offset(offset).unwrap_or(t.naive_utc());
        let (Some(first), Some(last)) =
            (self.zone.from_local_datetime(&local).earliest(), self.zone.from_local_datetime(&local).latest())
        else {
            return local;
        };
        let (first, last) = (first.with_timezone(&Utc), last.with_timezone(&Utc));
        if first == last || t < last {
            return local;
        }
        // The clocks went back somewhere between the two passes: find the first second of the second one.
        let (mut low, mut high) = (first.timestamp(), last.timestamp());
        let before = self.offset_at(low);
        while low + 1 < high {
            let middle = low + (high - low) / 2;
            if self.offset_at(middle) == before { low = middle } else { high = middle }
        }
        let end_of_first_pass = DateTime::from_timestamp(low, 0).unwrap_or(t).naive_utc();
        end_of_first_pass.checked_add_signed(before).unwrap_or(local)
    }

    fn offset_at(&self, seconds: i64) -> TimeDelta {
        let at = DateTime::from_timestamp(seconds, 0).unwrap_or_default().naive_utc();
        TimeDelta::seconds(self.zone.offset_from_utc_datetime(&at).fix().local_minus_utc().into())
    }
}

fn no_such_zone(timezone: &str) -> Error {
    let lower: Vec<String> = chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name().to_lowercase()).collect();
    let alike = nearest(timezone, lower.iter().map(String::as_str));
    let place = alike.and_then(|alike| lower.iter().position(|name| name == alike));
    let hint = match place.and_then(|place| chrono_tz::TZ_VARIANTS.get(place)) {
        Some(zone) => format!("did you mean {:?}?", zone.name()),
        None => "give an IANA name such as \"Europe/Berlin\", or leave it out for UTC".to_owned(),
    };
    Error::new(Kind::Config, format!("{timezone:?} is no time zone")).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::time::rfc3339;
    use proptest::prelude::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    /// All slots later than `from` and no later than `until`, as text, by minutes.
    fn slots(expression: &str, zone: &str, from: &str, until: &str) -> Vec<String> {
        let cron = Cron::parse(expression, zone).unwrap();
        let slots = std::iter::successors(cron.next_after(at(from)), |slot| cron.next_after(*slot));
        slots.take_while(|slot| *slot <= at(until)).map(|slot| rfc3339(slot)[5..16].to_owned()).collect()
    }

    #[test]
    fn a_slot_in_a_gap_comes_at_its_end_once() {
        let slots = |expression| slots(expression, "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-29T12:00:00Z");
        assert_eq!(slots("30 2 * * *"), ["03-29T01:00"]);
        assert_eq!(slots("5,10,50 2 * * *"), ["03-29T01:00"]);
        assert_eq!(slots("0 2-4 * * *"), ["03-29T01:00", "03-29T02:00"], "the one at 3 is the gap's end too");
        assert_eq!(slots("0 1,4 * * *"), ["03-29T00:00", "03-29T02:00"]);
    }

    #[test]
    fn a_slot_in_an_overlap_comes_at_its_first_pass() {
        let slots = |expression| slots(expression, "Europe/Berlin", "2026-10-24T22:00:00Z", "2026-10-25T04:00:00Z");
        assert_eq!(slots("30 2 * * *"), ["10-25T00:30"]);
        assert_eq!(slots("0 * * * *"), ["10-24T23:00", "10-25T00:00", "10-25T02:00", "10-25T03:00", "10-25T04:00"]);
    }

    #[test]
    fn a_day_that_is_missing_falls_on_the_next() {
        let slots = slots("0 3 * * *", "Pacific/Apia", "2011-12-29T00:00:00Z", "2012-01-01T00:00:00Z");
        assert_eq!(slots, ["12-29T13:00", "12-30T10:00", "12-30T13:00", "12-31T13:00"]);
    }

    #[test]
    fn counts_and_stops() {
        let cron = Cron::parse("0 * * * *", "UTC").unwrap();
        let count = |until, max| cron.count_between(at("2026-01-01T00:00:00Z"), at(until), max);
        assert_eq!(count("2026-01-01T00:59:59Z", 9), 0);
        assert_eq!(count("2026-01-01T05:00:00Z", 9), 5);
        assert_eq!(count("2026-01-02T00:00:00Z", 9), 9);
        assert_eq!(count("2026-01-02T00:00:00Z", 0), 0);
        assert_eq!(count("2025-01-02T00:00:00Z", 9), 0);
    }

    #[test]
    fn the_pace_is_the_longest_time_between_slots() {
        let pace = |expression| Cron::parse(expression, "UTC").unwrap().pace(at("2026-02-25T04:00:00Z")).num_hours();
        assert_eq!((pace("0 * * * *"), pace("0 3 * * *"), pace("0 3 * * 1-5")), (1, 24, 72));
        assert_eq!((pace("0 3 1 1 *"), pace("0 0 29 2 *")), (366 * 24, 1_461 * 24));
    }

    #[test]
    fn zones_are_checked() {
        for (zone, hint) in [
            ("Europe/Berln", "did you mean \"Europe/Berlin\"?"),
            ("europe/berlin", "did you mean \"Europe/Berlin\"?"),
            ("utc", "did you mean \"UTC\"?"),
            ("", "give an IANA name such as \"Europe/Berlin\", or leave it out for UTC"),
        ] {
            let error = Cron::parse("0 3 * * *", zone).unwrap_err();
            assert_eq!((error.kind, error.message.as_str()), (Kind::Config, &*format!("{zone:?} is no time zone")));
            assert_eq!(error.hint.as_deref(), Some(hint));
        }
    }

    #[test]
    fn errors_show_the_expression() {
        let error = Cron::parse(" 0 25 * * * ", "UTC").unwrap_err();
        assert_eq!(error.message, "\"0 25 * * *\": hour: 25 is not from 0 to 23");
        assert_eq!(error.hint.as_deref(), Some("write numbers from 0 to 23"));
    }

    #[test]
    fn days_that_vixie_cron_does_not_know() {
        let slots = |expression| slots(expression, "UTC", "2026-01-01T00:00:00Z", "2026-04-01T00:00:00Z");
        assert_eq!(slots("0 3 L * *"), ["01-31T03:00", "02-28T03:00", "03-31T03:00"]);
        assert_eq!(slots("0 3 * * fri#2"), ["01-09T03:00", "02-13T03:00", "03-13T03:00"]);
        assert_eq!(slots("0 3 * * sunL"), ["01-25T03:00", "02-22T03:00", "03-29T03:00"]);
        assert_eq!(slots("0 3 * * 6#5"), ["01-31T03:00"]);
        let error = Cron::parse("0 0 */29 2 1#5", "UTC").unwrap_err();
        assert_eq!(error.message, "\"0 0 */29 2 1#5\": the date never comes");
        let rare = Cron::parse("0 0 * 2 1#5", "UTC").unwrap();
        assert_eq!(rare.next_after(at("2026-01-01T00:00:00Z")), Some(at("2044-02-29T00:00:00Z")));
        assert_eq!(rare.previous_or_at(at("2026-01-01T00:00:00Z")), Some(at("2016-02-29T00:00:00Z")));
    }

    #[test]
    fn a_leap_day_on_a_sunday_is_found_both_ways() {
        let cron = Cron::parse("0 0 29 2 */7", "UTC").unwrap();
        assert_eq!(cron.next_after(at("2026-01-01T00:00:00Z")), Some(at("2032-02-29T00:00:00Z")));
        assert_eq!(cron.previous_or_at(at("2026-01-01T00:00:00Z")), Some(at("2004-02-29T00:00:00Z")));
    }

    #[test]
    fn the_ends_of_time_are_no_trouble() {
        let cron = Cron::parse("0 3 * * *", "Asia/Tokyo").unwrap();
        for t in [DateTime::<Utc>::MAX_UTC, DateTime::<Utc>::MIN_UTC] {
            let _ = (cron.next_after(t), cron.previous_or_at(t), cron.count_between(t, t, 9));
        }
    }

    #[test]
    fn blanks_are_no_change() {
        let cron = Cron::parse("  0  3 * * * ", "UTC").unwrap();
        assert_eq!((cron.expression(), cron.timezone()), ("0 3 * * *", "UTC"));
    }

    const ZONES: [&str; 8] = [
        "UTC",
        "Europe/Berlin",
        "America/New_York",
        "Australia/Lord_Howe",
        "Africa/Casablanca",
        "America/Havana",
        "Pacific/Apia",
        "Asia/Kathmandu",
    ];

    proptest! {
        #[test]
        fn previous_and_next_are_each_others_inverse(
            expression in prop::sample::select(vec![
                "* * * * *", "*/7 * * * *", "0 * * * *", "30 2 * * *", "15 1-3 * * *", "0 0 * * 0", "5 0 1 * *",
                "59 23 31 12 *", "0 0 29 2 *", "0 2 */3 * 1-5",
            ]),
            zone in prop::sample::select(ZONES.to_vec()),
            seconds in 1_262_304_000i64..2_050_000_000,
            nanoseconds in prop::sample::select(vec![0u32, 1, 999_999_999]),
        ) {
            let cron = Cron::parse(expression, zone).unwrap();
            let t = DateTime::from_timestamp(seconds, nanoseconds).unwrap();
            let (previous, next) = (cron.previous_or_at(t).unwrap(), cron.next_after(t).unwrap());
            prop_assert!(previous <= t && t < next);
            prop_assert_eq!(cron.next_after(previous), Some(next));
            prop_assert_eq!(cron.previous_or_at(next), Some(next));
            prop_assert_eq!(cron.previous_or_at(next - TimeDelta::nanoseconds(1)), Some(previous));
            prop_assert_eq!(cron.previous_or_at(previous), Some(previous));
        }

        #[test]
        fn no_text_brings_it_down(expression in "[-*/,0-9a-z@# LW?]{0,24}") {
            if let Ok(cron) = Cron::parse(&expression, "Europe/Berlin") {
                let now = at("2026-03-29T01:00:00Z");
                prop_assert!(cron.previous_or_at(now).is_some() && cron.next_after(now).is_some());
            }
        }
    }
}
