//! The text of a cron expression. Flows in: five fields or a nickname. Flows out: the same in numbers only, which no
//! parser can read in two ways, or what is wrong with it and how to mend it. Pure.
//!
//! It stands before the library that searches, since that one reads more than Vixie cron does (`W`, `?`, seconds, years)
//! and less (`*/2` in a day field doesn't restrict it). Beyond Vixie cron it takes what many know from elsewhere: `L`, the
//! last day of the month, and `fri#2` and `friL`, the second and the last Friday of it.

/// What is wrong, and the mend.
pub type Wrong = (String, String);

/// An expression in numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields {
    /// Five fields, each `*` or a list of numbers; of days also `L`, `5#2` and `5L`.
    pub plain: String,
    /// Whether a day must match both day fields. Vixie: unless both are restricted, and one that begins with a star
    /// is not.
    pub both_days: bool,
}

/// What a field may hold.
struct Kind {
    name: &'static str,
    low: u32,
    high: u32,
    names: &'static [&'static str],
}

const MINUTE: Kind = Kind { name: "minute", low: 0, high: 59, names: &[] };
const HOUR: Kind = Kind { name: "hour", low: 0, high: 23, names: &[] };
const DAY: Kind = Kind { name: "day of the month", low: 1, high: 31, names: &[] };
const MONTH: Kind = Kind {
    name: "month",
    low: 1,
    high: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
/// Sunday stands at both ends, so that `fri-sun` is a range.
const WEEKDAY: Kind =
    Kind { name: "day of the week", low: 0, high: 7, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun"] };

/// The longest each month can be.
const MONTH_DAYS: [(u32, u32); 12] =
    [(1, 31), (2, 29), (3, 31), (4, 30), (5, 31), (6, 30), (7, 31), (8, 31), (9, 30), (10, 31), (11, 30), (12, 31)];

/// Reads an expression.
///
/// # Errors
/// What is wrong with it, and the mend.
pub fn read(expression: &str) -> Result<Fields, Wrong> {
    let expression = nickname(expression)?;
    let fields: Vec<&str> = expression.split_whitespace().collect();
    let &[minute, hour, day, month, weekday] = fields.as_slice() else {
        return Err(count_is_wrong(&fields));
    };
    let minutes = values(&MINUTE, minute.split(','))?;
    let hours = values(&HOUR, hour.split(','))?;
    let (day_list, last_days) = peel(day, last_day)?;
    let days = values(&DAY, day_list)?;
    let months = values(&MONTH, month.split(','))?;
    let (weekday_list, nth_days) = peel(weekday, nth_day)?;
    let mut weekdays = values(&WEEKDAY, weekday_list)?;
    if weekdays.contains(&7) {
        weekdays.retain(|day| *day != 7 && *day != 0);
        weekdays.insert(0, 0);
    }
    let both_days = day.starts_with('*') || weekday.starts_with('*');
    if both_days && last_days.is_empty() && !comes(&days, &months) {
        let why = "the date never comes: no such month has that day".to_owned();
        return Err((why, "give a day that the month has; 28 is in all of them".to_owned()));
    }
    let list = |text: &str, values: &[u32], special: &[String]| match text {
        "*" => "*".to_owned(),
        _ => values.iter().map(u32::to_string).chain(special.iter().cloned()).collect::<Vec<_>>().join(","),
    };
    let plain = [
        list(minute, &minutes, &[]),
        list(hour, &hours, &[]),
        list(day, &days, &last_days),
        list(month, &months, &[]),
        list(weekday, &weekdays, &nth_days),
    ];
    Ok(Fields { plain: plain.join(" "), both_days })
}

fn nickname(expression: &str) -> Result<&str, Wrong> {
    let nicknames = [
        ("@hourly", "0 * * * *"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@weekly", "0 0 * * 0"),
        ("@monthly", "0 0 1 * *"),
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
    ];
    let trimmed = expression.trim();
    if !trimmed.starts_with('@') {
        return Ok(trimmed);
    }
    if trimmed.eq_ignore_ascii_case("@reboot") {
        let hint = "name a time; a missed one is made up for after a boot, as long as catch_up is on";
        return Err(("@reboot is no time".to_owned(), hint.to_owned()));
    }
    let known = nicknames.iter().find(|(name, _)| trimmed.eq_ignore_ascii_case(name));
    known.map(|(_, fields)| *fields).ok_or_else(|| {
        let names: Vec<&str> = nicknames.iter().map(|(name, _)| *name).collect();
        (format!("{trimmed:?} is not known"), format!("use five fields, or one of {}", names.join(", ")))
    })
}

fn count_is_wrong(fields: &[&str]) -> Wrong {
    let first = fields.first().copied().unwrap_or_default();
    if first.contains('=') {
        return (format!("{first:?} is no field"), "set the zone with: timezone = \"Europe/Berlin\"".to_owned());
    }
    let hint = match fields.len() {
        6 | 7 => "leave out seconds and years: minute, hour, day of the month, month, day of the week",
        _ => "give minute, hour, day of the month, month, day of the week, such as \"0 3 * * *\"",
    };
    (format!("has {} fields, not 5", fields.len()), hint.to_owned())
}

/// Whether one of the months can have one of the days.
fn comes(days: &[u32], months: &[u32]) -> bool {
    let Some(first) = days.first() else { return false };
    MONTH_DAYS.iter().any(|(month, longest)| months.contains(month) && first <= longest)
}

/// Takes the parts that `special` knows out of a field: the other parts, and those, each once.
fn peel(
    text: &str,
    special: impl Fn(&str) -> Option<Result<String, Wrong>>,
) -> Result<(Vec<&str>, Vec<String>), Wrong> {
    let (mut rest, mut found) = (Vec::new(), Vec::new());
    for part in text.split(',') {
        match special(part) {
            Some(part) => found.push(part?),
            None => rest.push(part),
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok((rest, found))
}

/// `L`, the last day of the month.
fn last_day(part: &str) -> Option<Result<String, Wrong>> {
    part.eq_ignore_ascii_case("l").then(|| Ok("L".to_owned()))
}

/// `5#2` and `5L`, the second and the last of a day of the week in the month; the day may be a name.
fn nth_day(part: &str) -> Option<Result<String, Wrong>> {
    let day = |text: &str| value(&WEEKDAY, text, false).map(|day| day % 7);
    if let Some((name, place)) = part.split_once('#') {
        return Some(day(name).and_then(|day| match number(place) {
            Some(place @ 1..=5) => Ok(format!("{day}#{place}")),
            _ => {
                let why = format!("{}: {place:?} in {part:?} is not from 1 to 5", WEEKDAY.name);
                Err((why, "write fri#2 for the second Friday of the month, friL for the last".to_owned()))
            }
        }));
    }
    let name = part.strip_suffix(['L', 'l']).filter(|name| !name.is_empty())?;
    Some(day(name).map(|day| format!("{day}L")))
}

/// All values of a field, in order, each once.
fn values<'t>(kind: &Kind, parts: impl IntoIterator<Item = &'t str>) -> Result<Vec<u32>, Wrong> {
    let mut found = Vec::new();
    for part in parts {
        found.extend(part_values(kind, part)?);
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

fn part_values(kind: &Kind, part: &str) -> Result<Vec<u32>, Wrong> {
    let (range, step) = match part.split_once('/') {
        None => (part, None),
        Some((range, step)) => (range, Some(step)),
    };
    let (low, high) = match range.split_once('-') {
        _ if range == "*" => (kind.low, kind.high),
        Some((low, high)) => (value(kind, low, false)?, value(kind, high, true)?),
        None => {
            let only = value(kind, range, false)?;
            if let Some(step) = step {
                let why = format!("{}: {part:?} has a step but no range", kind.name);
                return Err((why, format!("write {only}-{}/{step}, or */{step}", kind.high)));
            }
            (only, only)
        }
    };
    if low > high {
        let why = format!("{}: the range {range} goes backwards", kind.name);
        return Err((why, format!("write {low}-{},{}-{high}", kind.high, kind.low)));
    }
    let step = match step {
        None => 1,
        Some(text) => number(text).filter(|step| *step > 0).ok_or_else(|| {
            let why = format!("{}: the step {text:?} is not a number above 0", kind.name);
            (why, "write a step such as */2".to_owned())
        })?,
    };
    let step = usize::try_from(step).unwrap_or(usize::MAX);
    Ok((low..=high).step_by(step).collect())
}

/// One number or name; `is_end` where a Sunday closes a range.
fn value(kind: &Kind, text: &str, is_end: bool) -> Result<u32, Wrong> {
    let mut places = kind.names.iter().zip(kind.low..).filter(|(name, _)| name.eq_ignore_ascii_case(text));
    let named = if is_end { places.last() } else { places.next() };
    if let Some((_, place)) = named {
        return Ok(place);
    }
    let span = match kind.names {
        [] => format!("write numbers from {} to {}", kind.low, kind.high),
        [first, ..] => format!("write numbers from {} to {}, or names such as {first}", kind.low, kind.high),
    };
    match number(text) {
        Some(number) if (kind.low..=kind.high).contains(&number) => Ok(number),
        Some(number) => Err((format!("{}: {number} is not from {} to {}", kind.name, kind.low, kind.high), span)),
        None if text.is_empty() => Err((format!("{}: a number is missing", kind.name), span)),
        None => Err((format!("{}: {text:?} is no number", kind.name), span)),
    }
}

/// A number of digits only, of a length that no list of ours exceeds.
fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.len() <= 9 && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(expression: &str) -> String {
        let fields = read(expression).unwrap();
        format!("{}{}", fields.plain, if fields.both_days { "" } else { " (either)" })
    }

    #[test]
    fn all_ways_to_write_a_field() {
        for (expression, expected) in [
            ("0 3 * * *", "0 3 * * *"),
            ("*/20 22-23,0-1 * * *", "0,20,40 0,1,22,23 * * *"),
            ("  5\t4  1 JAN   Mon ", "5 4 1 1 1 (either)"),
            ("0 0 * feb-APR,dec sun,tue-thu", "0 0 * 2,3,4,12 0,2,3,4"),
            ("0 0 * * 7", "0 0 * * 0"),
            ("0 0 * * 5-7", "0 0 * * 0,5,6"),
            ("0 0 * * fri-sun", "0 0 * * 0,5,6"),
            ("0 0 * * sun-tue", "0 0 * * 0,1,2"),
            ("0 0 * * */2", "0 0 * * 0,2,4,6"),
            ("0 0 */10 * 1", "0 0 1,11,21,31 * 1"),
            (
                "0 0 1-31 * 1",
                &format!("0 0 {} * 1 (either)", (1..=31).map(|d| d.to_string()).collect::<Vec<_>>().join(",")),
            ),
            ("5-10/90 0 * * *", "5 0 * * *"),
            ("00 03 * * *", "0 3 * * *"),
            ("0 0 31 2 1", "0 0 31 2 1 (either)"),
            ("0 0 L * *", "0 0 L * *"),
            ("0 0 15,l * *", "0 0 15,L * *"),
            ("0 0 * * fri#2,5#2", "0 0 * * 5#2"),
            ("0 0 * * monL,sunl,7#1,wed", "0 0 * * 3,0#1,0L,1L"),
            ("0 0 L 2 sat#5", "0 0 L 2 6#5 (either)"),
            ("@Midnight", "0 0 * * *"),
            ("@weekly", "0 0 * * 0"),
            ("@annually", "0 0 1 1 *"),
        ] {
            assert_eq!(plain(expression), expected, "{expression}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_mend() {
        for (expression, why, hint) in [
            ("", "has 0 fields, not 5", "give minute, hour"),
            ("0 0 0 3 * *", "has 6 fields, not 5", "leave out seconds"),
            ("0 0 0 3 * * 2027", "has 7 fields, not 5", "leave out seconds"),
            ("TZ=Europe/Berlin 0 3 * * *", "\"TZ=Europe/Berlin\" is no field", "set the zone with"),
            ("@reboot", "@reboot is no time", "name a time"),
            ("@often", "\"@often\" is not known", "@hourly, @daily"),
            ("60 * * * *", "minute: 60 is not from 0 to 59", "write numbers from 0 to 59"),
            ("* 24 * * *", "hour: 24 is not from 0 to 23", ""),
            ("* * 0 * *", "day of the month: 0 is not from 1 to 31", ""),
            ("L * * * *", "minute: \"L\" is no number", ""),
            ("* * L-3 * *", "day of the month: \"L\" is no number", ""),
            ("* * 3L * *", "day of the month: \"3L\" is no number", ""),
            ("* * 15W * *", "day of the month: \"15W\" is no number", ""),
            ("* * ? * *", "day of the month: \"?\" is no number", ""),
            ("* * * 13 *", "month: 13 is not from 1 to 12", "or names such as jan"),
            ("* * * january *", "month: \"january\" is no number", ""),
            ("* * * * 8", "day of the week: 8 is not from 0 to 7", ""),
            ("* * * * 5#6", "day of the week: \"6\" in \"5#6\" is not from 1 to 5", "friL for the last"),
            ("* * * * 5#", "day of the week: \"\" in \"5#\" is not from 1 to 5", ""),
            ("* * * * 8#1", "day of the week: 8 is not from 0 to 7", ""),
            ("* * * * L", "day of the week: \"L\" is no number", ""),
            ("* * * * xL", "day of the week: \"x\" is no number", ""),
            ("* * 1,,2 * *", "day of the month: a number is missing", ""),
            ("* * L, * *", "day of the month: a number is missing", ""),
            ("* * * * +1", "day of the week: \"+1\" is no number", ""),
            ("5/10 * * * *", "minute: \"5/10\" has a step but no range", "write 5-59/10, or */10"),
            ("*/0 * * * *", "minute: the step \"0\" is not a number above 0", ""),
            ("*/ * * * *", "minute: the step \"\" is not a number above 0", ""),
            ("*/2/3 * * * *", "minute: the step \"2/3\" is not a number above 0", ""),
            ("* 22-2 * * *", "hour: the range 22-2 goes backwards", "write 22-23,0-2"),
            ("1, * * * *", "minute: a number is missing", ""),
            ("-5 * * * *", "minute: a number is missing", ""),
            ("1-2-3 * * * *", "minute: \"2-3\" is no number", ""),
            ("*5 * * * *", "minute: \"*5\" is no number", ""),
            ("99999999999 * * * *", "minute: \"99999999999\" is no number", ""),
            ("0 0 31 2 *", "the date never comes: no such month has that day", "28 is in all"),
            ("0 0 31 feb,apr,jun,sep,nov *", "the date never comes: no such month has that day", ""),
            ("0 0 30 2 */2", "the date never comes: no such month has that day", ""),
        ] {
            let (found, mend) = read(expression).unwrap_err();
            assert_eq!(found, why, "{expression}");
            assert!(mend.contains(hint), "{expression}: {mend}");
        }
    }
}
