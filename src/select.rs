//! Choosing a backup. Flows in: entries of catalogs and what the operator asks for. Flows out: one backup with its
//! copies in the order in which to try them, or why there is none. Pure.

use chrono::{DateTime, NaiveDate, NaiveDateTime, TimeDelta, Utc};

use crate::catalog::Entry;
use crate::error::{Error, Kind, Result};
use crate::format::time::{parse_compact, rfc3339};

/// An instant at the precision it was given in: from `from` up to, not including, `until`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Its first instant.
    pub from: DateTime<Utc>,
    /// The first instant after it.
    pub until: DateTime<Utc>,
}

impl Moment {
    /// Reads `2026`…`2026-02-25T03:00:00.5Z` in RFC 3339's order, a space or `T` between date and time, an offset or
    /// UTC; also the compact form of ids.
    ///
    /// # Errors
    /// A text for the command line's own message.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = || {
            format!("{text:?} is no date or time; write it like 2026-02-25, 2026-02-25T03:00 or 2026-02-25T03:00:00Z")
        };
        // A year may have more than four digits, and then end where time does.
        let moment = |from: DateTime<Utc>, length| {
            from.checked_add_signed(length).map(|until| Self { from, until }).ok_or_else(bad)
        };
        if let Some(at) = parse_compact(text) {
            return moment(at, TimeDelta::seconds(1));
        }
        if let Ok(day) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
            let from = day.and_hms_opt(0, 0, 0).ok_or_else(bad)?.and_utc();
            return moment(from, TimeDelta::days(1));
        }
        let plain = text.replacen(' ', "T", 1);
        let (clock, offset) = split_offset(&plain).ok_or_else(bad)?;
        let forms = [("%Y-%m-%dT%H:%M:%S%.f", TimeDelta::seconds(1)), ("%Y-%m-%dT%H:%M", TimeDelta::seconds(60))];
        for (form, length) in forms {
            if let Ok(naive) = NaiveDateTime::parse_from_str(clock, form) {
                let from = naive.and_utc().checked_sub_signed(offset).ok_or_else(bad)?;
                return moment(from, clock.split_once('.').map_or(length, |(_, digits)| fraction(digits.len())));
            }
        }
        Err(bad())
    }

    /// Whether that is it, as far as it was given.
    pub fn has(&self, at: DateTime<Utc>) -> bool {
        self.from <= at && at < self.until
    }
}

/// What so many digits behind a second's point leave open; backups are dated in milliseconds.
fn fraction(digits: usize) -> TimeDelta {
    TimeDelta::milliseconds(match digits {
        1 => 100,
        2 => 10,
        _ => 1,
    })
}

/// Splits `…Z`, `…+02:00`, or nothing for UTC, from a time.
fn split_offset(text: &str) -> Option<(&str, TimeDelta)> {
    if let Some(clock) = text.strip_suffix(['Z', 'z']) {
        return Some((clock, TimeDelta::zero()));
    }
    let at = text.get(11..)?.find(['+', '-']).map(|at| at + 11);
    let Some(at) = at else { return Some((text, TimeDelta::zero())) };
    let (clock, offset) = text.split_at_checked(at)?;
    let sign = if offset.starts_with('-') { -1 } else { 1 };
    let (hours, minutes) = offset.get(1..)?.split_once(':')?;
    let (hours, minutes): (i64, i64) = (hours.parse().ok()?, minutes.parse().ok()?);
    (hours < 24 && minutes < 60).then(|| (clock, TimeDelta::minutes(sign * (hours * 60 + minutes))))
}

/// Which backup is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selector {
    /// The newest.
    Latest,
    /// The one whose slot or creation is then.
    At(Moment),
    /// The newest whose creation is then or before.
    Before(Moment),
}

/// What decides which backups may be chosen.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// The clock.
    pub now: DateTime<Utc>,
    /// Whether the database has a job that encrypts, so that a backup in the clear is suspect.
    pub encrypts: bool,
    /// Whether the operator takes a backup that does not authenticate.
    pub allow_unauthenticated: bool,
}

impl Rules {
    /// Why a backup is not to be trusted; `None` if it is.
    pub fn distrust(&self, entry: &Entry) -> Option<String> {
        let plain = || entry.signed().is_some_and(|signed| !signed.is_encrypted());
        entry.distrust().or_else(|| {
            (self.encrypts && plain())
                .then(|| "it is not encrypted, though the database has a job that encrypts".to_owned())
        })
    }
}

/// What was passed over to come to `chosen`, the newest: newer ones, and other copies of it, that are not to be trusted; and
/// why. Whoever asks for the newest has to hear of them.
pub fn passed_over<'e>(entries: &'e [Entry], chosen: &[Entry], rules: &Rules) -> Vec<(&'e Entry, String)> {
    let Some((first, created)) = chosen.first().and_then(|first| Some((first, first.signed()?.created))) else {
        return Vec::new();
    };
    let at = |entry: &Entry| entry.signed().map(|signed| signed.created).or_else(|| entry.id.at());
    let is_newer = |entry: &Entry| at(entry).is_some_and(|at| at > created) && !entry.is_from_future(rules.now);
    let is_taken = |entry: &Entry| chosen.iter().any(|one| one.id == entry.id && one.target == entry.target);
    let others = entries.iter().filter(|entry| !is_taken(entry) && (entry.id == first.id || is_newer(entry)));
    others.filter_map(|entry| Some((entry, rules.distrust(entry)?))).collect()
}

/// Chooses among entries of one database (and, if one was named, of one job). All copies of the chosen backup come
/// back: intact ones first, local ones first among those.
///
/// # Errors
/// [`Kind::NoBackup`] naming the neighbours; [`Kind::Authentication`] when what was asked for is there but not to be
/// trusted; [`Kind::Usage`] when two jobs' backups match.
pub fn choose(entries: &[Entry], selector: Selector, rules: &Rules) -> Result<Vec<Entry>> {
    let trusted = |entry: &&Entry| rules.allow_unauthenticated || rules.distrust(entry).is_none();
    let readable: Vec<&Entry> = entries.iter().filter(|entry| entry.signed().is_some()).collect();
    let usable = || readable.iter().copied().filter(trusted).filter(|entry| !entry.is_from_future(rules.now));
    let newest = |fits: &dyn Fn(&Entry) -> bool| {
        usable().filter(|entry| fits(entry)).max_by_key(|entry| entry.signed().map(|s| s.created))
    };
    let chosen = match selector {
        Selector::Latest => newest(&|_| true),
        Selector::Before(moment) => newest(&|entry| entry.signed().is_some_and(|signed| signed.created <= moment.from)),
        Selector::At(moment) => {
            let fits = |entry: &&Entry| {
                entry
                    .signed()
                    .is_some_and(|s| moment.has(s.created) || s.scheduled_for.is_some_and(|slot| moment.has(slot)))
            };
            // Named by its time, a backup is meant even if it is not to be trusted: then that is the answer.
            let found: Vec<&Entry> = readable.iter().copied().filter(|entry| fits(entry)).collect();
            one_only(&found)?;
            match found.iter().copied().find(trusted) {
                None => match found.first() {
                    Some(entry) => return Err(refused(entry, rules)),
                    None => None,
                },
                some => some,
            }
        }
    };
    let Some(chosen) = chosen else { return Err(none(entries, selector, rules)) };
    let same = |entry: &&&Entry| entry.id == chosen.id && entry.signed() == chosen.signed() && trusted(entry);
    let mut copies: Vec<Entry> = readable.iter().filter(same).map(|entry| (*entry).clone()).collect();
    copies.sort_by_key(|entry| (entry.damage().is_some(), !entry.is_local));
    Ok(copies)
}

fn one_only(found: &[&Entry]) -> Result<()> {
    let Some(first) = found.first() else { return Ok(()) };
    let others: Vec<_> = found.iter().filter(|entry| entry.id != first.id).collect();
    let Some(other) = others.first() else { return Ok(()) };
    let hint = match first.id.job() == other.id.job() {
        true => "give the time more precisely: voxeltron-backup list shows it",
        false => "say which job with --job, or give the time more precisely",
    };
    Err(Error::new(Kind::Usage, format!("{} and {} both match", first.id, other.id)).hint(hint))
}

fn refused(entry: &Entry, rules: &Rules) -> Error {
    let why = rules.distrust(entry).unwrap_or_default();
    Error::new(Kind::Authentication, format!("backup {} at {} does not authenticate: {why}", entry.id, entry.target))
        .hint("if you know where it comes from, restore it with --allow-unauthenticated")
}

/// Says why there is nothing to choose, and what there is.
fn none(entries: &[Entry], selector: Selector, rules: &Rules) -> Error {
    let mut known: Vec<&Entry> = entries.iter().filter(|entry| entry.signed().is_some()).collect();
    known.sort_by_key(|entry| entry.signed().map(|signed| signed.created));
    let wanted = match selector {
        Selector::Latest => "no backup".to_owned(),
        Selector::At(moment) => format!("no backup of {}", rfc3339(moment.from)),
        Selector::Before(moment) => format!("no backup of {} or before", rfc3339(moment.from)),
    };
    if let (Selector::Latest, Some(entry)) = (selector, entries.last()) {
        // There are some, and none of them may be used: that is no shortage but a suspicion.
        if entry.is_from_future(rules.now) && rules.distrust(entry).is_none() {
            return Error::new(Kind::NoBackup, format!("{wanted} can be used: {} is dated in the future", entry.id))
                .hint("look at the clock of this machine, or name the backup with --timestamp");
        }
        return refused(entry, rules);
    }
    let pivot = match selector {
        Selector::At(moment) | Selector::Before(moment) => moment.from,
        Selector::Latest => rules.now,
    };
    let created = |entry: &&&Entry| entry.signed().is_some_and(|signed| signed.created <= pivot);
    let earlier = known.iter().rfind(created).map(|entry| format!("the one before is {}", entry.id));
    let later = known.iter().find(|entry| !created(entry)).map(|entry| format!("the next one is {}", entry.id));
    let neighbours: Vec<String> = earlier.into_iter().chain(later).collect();
    let error = Error::new(Kind::NoBackup, wanted);
    if neighbours.is_empty() {
        error.hint("make one with: voxeltron-backup run-job")
    } else {
        error.hint(neighbours.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Counts;
    use crate::format::manifest::{ENCRYPTION, Manifest, Signed, Trust};
    use crate::format::name::{BackupId, Owner, manifest_key};

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn entry(created: &str, target: &str, encryption: &str, trust: Trust) -> Entry {
        let created = at(created);
        let owner = Owner { instance: "host".into(), database: "db".into() };
        let id = BackupId::new(created, "j");
        let signed = Signed {
            id: id.to_string(),
            instance: "host".into(),
            database: "db".into(),
            job: "j".into(),
            engine: "sqlite".into(),
            tool_version: None,
            server_version: None,
            created,
            scheduled_for: None,
            duration_ms: 1,
            object: format!("host/db/{id}.01234567.sqlite"),
            stored_bytes: 1,
            stored_sha256: "00".into(),
            dump_bytes: 1,
            compression: "none".into(),
            encryption: encryption.into(),
            key_id: None,
            end_mark: "x".into(),
            counts: Counts::new(),
            partial: None,
            program_version: "0".into(),
        };
        Entry {
            target: target.into(),
            is_local: target == "local",
            manifest_key: manifest_key(&owner, &id).unwrap(),
            owner,
            id,
            manifest: Ok(Manifest { signed, trust }),
            object: None,
            pinned: false,
        }
    }

    fn rules(encrypts: bool) -> Rules {
        Rules { now: at("2026-02-25T12:00:00Z"), encrypts, allow_unauthenticated: false }
    }

    fn latest(entries: &[Entry], rules: &Rules) -> Result<String> {
        choose(entries, Selector::Latest, rules).map(|copies| copies[0].id.to_string())
    }

    const GOOD: &str = "20260225T030000Z-j";

    #[test]
    fn what_comes_from_the_future_is_never_the_latest() {
        let good = entry("2026-02-25T03:00:00Z", "local", "none", Trust::Authentic);
        let ahead = entry("2026-02-25T12:06:00Z", "local", "none", Trust::Authentic);
        assert_eq!(latest(&[good.clone(), ahead.clone()], &rules(false)).unwrap(), GOOD);
        let skewed = entry("2026-02-25T12:04:00Z", "local", "none", Trust::Authentic);
        assert_eq!(latest(&[good, skewed], &rules(false)).unwrap(), "20260225T120400Z-j", "clocks differ a little");
        let error = latest(&[ahead], &rules(false)).unwrap_err();
        assert!(error.kind == Kind::NoBackup && error.message.contains("dated in the future"), "{error}");
    }

    #[test]
    fn what_is_not_to_be_trusted_is_never_the_latest() {
        let good = entry("2026-02-25T03:00:00Z", "local", ENCRYPTION, Trust::Authentic);
        let forged = entry("2026-02-25T04:00:00Z", "local", ENCRYPTION, Trust::Unauthenticated("no".into()));
        let plain = entry("2026-02-25T05:00:00Z", "local", "none", Trust::Authentic);
        for other in [&forged, &plain] {
            assert_eq!(latest(&[good.clone(), other.clone()], &rules(true)).unwrap(), GOOD);
            assert_eq!(latest(std::slice::from_ref(other), &rules(true)).unwrap_err().kind, Kind::Authentication);
            let allowed = Rules { allow_unauthenticated: true, ..rules(true) };
            assert_eq!(latest(&[good.clone(), other.clone()], &allowed).unwrap(), other.id.as_str());
        }
        assert_eq!(latest(&[good, plain.clone()], &rules(false)).unwrap(), plain.id.as_str(), "nothing encrypts here");
    }

    #[test]
    fn copies_come_local_ones_first_and_damaged_ones_last() {
        let mut copies: Vec<Entry> =
            ["far", "local", "near"].map(|target| entry("2026-02-25T03:00:00Z", target, "none", Trust::NoKey)).into();
        let object = |entry: &Entry| crate::target::Stored {
            key: crate::format::name::ObjectKey::new(&entry.signed().unwrap().object).unwrap(),
            size: 1,
            modified: None,
        };
        let order = |entries: &[Entry]| {
            let copies = choose(entries, Selector::Latest, &rules(false)).unwrap();
            copies.into_iter().map(|entry| entry.target).collect::<Vec<_>>()
        };
        copies.iter_mut().for_each(|entry| entry.object = Some(object(entry)));
        assert_eq!(order(&copies), ["local", "far", "near"]);
        copies[1].object = None;
        assert_eq!(order(&copies), ["far", "near", "local"]);
    }

    #[test]
    fn moments_have_the_precision_they_are_given_in() {
        let seconds = |text: &str| {
            Moment::parse(text).map(|moment| (rfc3339(moment.from), (moment.until - moment.from).num_seconds()))
        };
        assert_eq!(seconds("2026-02-25").unwrap(), ("2026-02-25T00:00:00Z".into(), 86_400));
        assert_eq!(seconds("2026-02-25T03:00").unwrap(), ("2026-02-25T03:00:00Z".into(), 60));
        assert_eq!(seconds("2026-02-25 03:00:07Z").unwrap(), ("2026-02-25T03:00:07Z".into(), 1));
        assert_eq!(seconds("2026-02-25T03:00+02:00").unwrap(), ("2026-02-25T01:00:00Z".into(), 60));
        assert_eq!(seconds("20260225T030000Z").unwrap(), ("2026-02-25T03:00:00Z".into(), 1));
        let millis = |text: &str| Moment::parse(text).map(|moment| (moment.until - moment.from).num_milliseconds());
        assert_eq!(millis("2026-02-25T03:00:00.5").unwrap(), 100);
        assert_eq!(millis("2026-02-25T03:00:00.51Z").unwrap(), 10);
        assert_eq!(millis("2026-02-25T03:00:00.512+01:00").unwrap(), 1);
        for bad in ["+262142-12-31", "+262142-12-31T23:59:59Z", "-262143-01-01T00:00+23:00", "+2621421231T235959Z"] {
            assert!(Moment::parse(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "yesterday", "2026-02-30", "2026-02-25T25:00", "2026-02-25T03:00+99:00", "2026-02-25T"] {
            assert!(Moment::parse(bad).is_err(), "{bad:?}");
        }
    }
}
