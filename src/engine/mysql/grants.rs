//! What the user of a database may do there. Flows in: what the server lists as granted. Flows out: the rights that a dump or
//! a restore lacks, with the statement that gives them. Touches the server, reading.

use super::server::Facts;
use super::sql::{ident, literal, pattern};
use super::tools::{Family, Tool, Tools, major};
use crate::engine::Cx;
use crate::error::Result;

/// What a user has been granted.
#[derive(Clone, Debug, Default)]
pub struct Grants {
    lines: Vec<Line>,
    /// What rights on everything do not reach, schema by schema.
    revoked: Vec<Line>,
    reading: Reading,
    /// Whether it has been granted roles. What they give is listed, as long as they are active.
    pub roles: bool,
}

/// How the server finds what counts among the grants that fit a schema.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Reading {
    /// The nearest.
    #[default]
    Nearest,
    /// MySQL while a role is active: the one that is spelled as the schema, or else the first by the bytes of their patterns,
    /// however near; but not for all rights alike.
    Spelled,
    /// MySQL with `partial_revokes`: each is a name to the letter, with no pattern in it and nothing escaped.
    Literal,
}

/// One line of what is granted.
#[derive(Clone, Debug)]
struct Line {
    rights: Vec<String>,
    on: String,
    to: Whose,
}

/// To whom it is granted. A server looks for what each of them has on a schema by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Account,
    Role,
    Public,
}

impl Whose {
    const ALL: [Self; 3] = [Self::Account, Self::Role, Self::Public];

    fn of(grantee: &str) -> Self {
        match grantee.trim() {
            "PUBLIC" => Self::Public,
            // What MySQL's roles give it lists as the account's own.
            account if account.contains('@') => Self::Account,
            _ => Self::Role,
        }
    }
}

impl Line {
    fn holds(&self, right: &str) -> bool {
        self.rights.iter().any(|it| it == right || it == "ALL PRIVILEGES" || it == "ALL")
    }
}

impl Grants {
    /// Asks the server. Of its own session it lists what active roles give, too.
    ///
    /// # Errors
    /// [`crate::error::Kind::Tool`] when it can't be asked.
    pub fn ask(tools: &Tools, client: &Tool, cx: &Cx) -> Result<Self> {
        // MariaDB passes over the last one.
        let ask = b"SHOW GRANTS;\nSHOW GLOBAL VARIABLES LIKE 'partial_revokes';\n\
                    /*!80000 SELECT 'current_role', CURRENT_ROLE() */;\n";
        Ok(Self::parse(&tools.run(client, None, ask, cx)?))
    }

    fn parse(text: &str) -> Self {
        let mut this = Self::default();
        for line in text.lines() {
            let (rest, to, into) = match (line.strip_prefix("GRANT "), line.strip_prefix("REVOKE ")) {
                (Some(rest), _) => (rest, " TO ", &mut this.lines),
                (_, Some(rest)) => (rest, " FROM ", &mut this.revoked),
                _ => {
                    this.reading = match line.split_once('\t') {
                        Some(("partial_revokes", "ON")) => Reading::Literal,
                        Some(("current_role", role)) if role != "NONE" && this.reading == Reading::Nearest => {
                            Reading::Spelled
                        }
                        _ => this.reading,
                    };
                    continue;
                }
            };
            let Some((rights, rest)) = rest.split_once(" ON ") else {
                this.roles = true;
                continue;
            };
            let (on, to) = rest.rsplit_once(to).unwrap_or((rest, ""));
            let rights = rights.split(',').map(|right| right.trim().to_ascii_uppercase()).collect();
            into.push(Line { rights, on: on.to_owned(), to: Whose::of(to) });
        }
        this
    }

    /// Whether a right is there on everything (`None`), or on all of a schema.
    pub fn may(&self, right: &str, schema: Option<&str>) -> bool {
        let everywhere = self.lines.iter().any(|line| line.on == "*.*" && line.holds(right));
        let Some(schema) = schema else { return everywhere };
        let is_revoked = || {
            let here = |line: &&Line| schema_of(&line.on).as_deref() == Some(schema);
            self.revoked.iter().filter(here).any(|line| line.holds(right))
        };
        everywhere && !is_revoked() || Whose::ALL.into_iter().any(|whose| self.gives(whose, right, schema))
    }

    /// Whether what one of them has on that schema holds a right. Of several names and patterns that fit it a server takes one
    /// alone: the name itself, or the pattern that says most. Which one that is, is plain only among patterns that end with
    /// their one `%`; so of others each has to hold it.
    fn gives(&self, whose: Whose, right: &str, schema: &str) -> bool {
        let fitting: Vec<(&Line, Reach)> = self
            .lines
            .iter()
            .filter_map(|line| {
                let reach = Reach::of(&schema_of(&line.on)?, self.reading);
                (line.to == whose && reach.fits(schema)).then_some((line, reach))
            })
            .collect();
        let is_spelled = |line: &Line| line.on == format!("{}.*", ident(schema)) && pattern(schema) == ident(schema);
        let spelled = self.reading == Reading::Spelled && fitting.iter().any(|(line, _)| is_spelled(line));
        let most = fitting.iter().filter_map(|(_, reach)| reach.rank()).max();
        let mut counts = fitting.iter().filter(|(line, reach)| match (self.reading, reach.rank()) {
            (Reading::Spelled, _) => !spelled || is_spelled(line),
            (_, None) => most != Some(usize::MAX),
            (_, rank) => rank == most,
        });
        let holds = |on: &str| fitting.iter().any(|(line, _)| line.on == on && line.holds(right));
        !fitting.is_empty() && counts.all(|(line, _)| holds(&line.on))
    }

    /// Whether a right on one table is there.
    pub fn may_on(&self, right: &str, place: &str) -> bool {
        self.lines.iter().any(|line| line.on == place && line.rights.iter().any(|given| given == right))
    }

    /// What to name in a grant that is to be in force on a schema; none if nothing less than everything is sure to be.
    fn place(&self, schema: &str) -> Option<String> {
        match self.reading {
            Reading::Literal => Some(ident(schema)),
            // Where the bytes of patterns decide, one more grant may decide nothing.
            Reading::Spelled if pattern(schema) != ident(schema) && self.by_pattern(schema).next().is_some() => None,
            _ => Some(pattern(schema)),
        }
    }

    /// What the account has on a schema by patterns.
    fn by_pattern(&self, schema: &str) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(move |line| {
            let reach = schema_of(&line.on).map(|on| Reach::of(&on, self.reading));
            line.to == Whose::Account
                && reach.is_some_and(|reach| matches!(reach, Reach::Pattern(_)) && reach.fits(schema))
        })
    }

    /// Whether a right is there whatever else is granted on that schema.
    fn stays(&self, right: &str, schema: &str) -> bool {
        let named = |line: &Line| {
            let reach = schema_of(&line.on).map(|on| Reach::of(&on, self.reading));
            matches!(reach, Some(Reach::Name(name)) if name == schema)
        };
        self.lines.iter().any(|line| line.holds(right) && (line.on == "*.*" || named(line)))
    }

    /// The rights that a grant by name puts out of force, unless it gives them, too.
    fn put_out(&self, schema: &str) -> Vec<&str> {
        let rights = self.by_pattern(schema).flat_map(|line| &line.rights).map(String::as_str);
        let mut found: Vec<&str> = Vec::new();
        for right in rights.filter(|right| self.may(right, Some(schema)) && !self.stays(right, schema)) {
            if !found.contains(&right) {
                found.push(right);
            }
        }
        found
    }

    /// The rights that are missing for a whole dump of `schema`, as the statement that gives them.
    pub fn missing_for_dump(&self, schema: &str, facts: &Facts) -> Option<(String, String)> {
        let needs = ["SELECT", "SHOW VIEW", "TRIGGER", "EVENT"];
        let missing: Vec<_> = needs.into_iter().filter(|right| !self.may(right, Some(schema))).collect();
        if !missing.is_empty() {
            let (list, place) = match self.place(schema) {
                Some(place) => {
                    let put_out = self.put_out(schema);
                    let first = needs.into_iter().filter(|right| missing.contains(right) || put_out.contains(right));
                    let others = put_out.iter().copied().filter(|right| !needs.contains(right));
                    (first.chain(others).collect::<Vec<_>>().join(", "), place)
                }
                None => (missing.join(", "), "*".to_owned()),
            };
            return Some((missing.join(", "), format!("GRANT {list} ON {place}.* TO {}", quoted_user(&facts.me))));
        }
        let everything =
            self.may("SELECT", None) || self.may("SHOW_ROUTINE", None) || self.may("SHOW CREATE ROUTINE", Some(schema));
        // Where MySQL keeps routines since its version 8, nobody can look.
        let is_kept_there = facts.family() == Family::MariaDb || major(&facts.version) < 8;
        let proc = is_kept_there && (self.may("SELECT", Some("mysql")) || self.may_on("SELECT", "`mysql`.`proc`"));
        let sees = ["EXECUTE", "CREATE ROUTINE", "ALTER ROUTINE"].iter().any(|right| self.may(right, Some(schema)));
        if everything || proc || (sees && facts.hidden.is_empty()) {
            return None;
        }
        let (right, place) = match facts.family() {
            Family::MySql => ("SHOW_ROUTINE", "*.*"),
            Family::MariaDb => ("SELECT", "`mysql`.`proc`"),
        };
        let mend = format!("GRANT {right} ON {place} TO {}", quoted_user(&facts.me));
        Some(("the right to see routines".to_owned(), mend))
    }

    /// The rights that are missing for putting other tables in the place of those of `schema`.
    pub fn missing_for_restore(&self, schemas: &[&str], me: &str) -> Option<(String, String)> {
        let needs = [
            "SELECT",
            "INSERT",
            "CREATE",
            "DROP",
            "ALTER",
            "INDEX",
            "REFERENCES",
            "LOCK TABLES",
            "TRIGGER",
            "CREATE VIEW",
            "SHOW VIEW",
            "CREATE ROUTINE",
            "ALTER ROUTINE",
            "EVENT",
        ];
        schemas.iter().find_map(|schema| {
            let missing: Vec<_> = needs.into_iter().filter(|right| !self.may(right, Some(schema))).collect();
            let list = missing.join(", ");
            let end = "__restoring_";
            let place = match schema.find(end) {
                // One that is still to be made has no name yet.
                Some(_) if self.reading == Reading::Literal => None,
                Some(_) if self.reading == Reading::Spelled && self.by_pattern(schema).next().is_some() => None,
                Some(at) => {
                    let stem = pattern(schema.get(..at).unwrap_or_default());
                    Some(format!("`{}\\_\\_%`", stem.trim_matches('`')))
                }
                None => self.place(schema),
            };
            let mend = match place {
                Some(place) => format!("GRANT ALL PRIVILEGES ON {place}.* TO {}", quoted_user(me)),
                None => format!("GRANT {list} ON *.* TO {}", quoted_user(me)),
            };
            (!missing.is_empty()).then(|| (format!("{list} on {}", ident(schema)), mend))
        })
    }
}

/// The schema, or the pattern of schemas, that a grant is on as a whole.
fn schema_of(on: &str) -> Option<String> {
    let name = on.strip_suffix(".*").filter(|name| *name != "*")?;
    let name = name.strip_prefix('`').and_then(|name| name.strip_suffix('`')).unwrap_or(name);
    Some(name.replace("``", "`"))
}

fn quoted_user(me: &str) -> String {
    let (user, host) = me.rsplit_once('@').unwrap_or((me, "%"));
    format!("{}@{}", literal(user), literal(host))
}

/// Which schemas a grant reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Reach {
    /// The one of this name.
    Name(String),
    /// Those whose names fit.
    Pattern(Vec<Piece>),
}

/// A piece of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    This(char),
    One,
    Many,
}

impl Reach {
    fn of(on: &str, reading: Reading) -> Self {
        if reading == Reading::Literal {
            return Self::Name(on.to_owned());
        }
        let mut pieces = Vec::new();
        let mut rest = on.chars();
        while let Some(first) = rest.next() {
            pieces.push(match first {
                '\\' => Piece::This(rest.next().unwrap_or(first)),
                '%' => Piece::Many,
                '_' => Piece::One,
                other => Piece::This(other),
            });
        }
        let name: Option<String> =
            pieces.iter().map(|piece| if let Piece::This(one) = piece { Some(*one) } else { None }).collect();
        name.map_or(Self::Pattern(pieces), Self::Name)
    }

    fn fits(&self, schema: &str) -> bool {
        match self {
            Self::Name(name) => name == schema,
            Self::Pattern(pieces) => like(pieces, schema),
        }
    }

    /// The higher, the more it says; none where two servers differ.
    fn rank(&self) -> Option<usize> {
        match self {
            Self::Name(_) => Some(usize::MAX),
            Self::Pattern(pieces) => {
                let first = pieces.iter().position(|piece| !matches!(piece, Piece::This(_)));
                first.filter(|at| at + 1 == pieces.len() && pieces.last() == Some(&Piece::Many))
            }
        }
    }
}

/// Whether `name` fits a pattern of `GRANT … ON`.
fn like(pieces: &[Piece], name: &str) -> bool {
    let Some((first, pieces)) = pieces.split_first() else { return name.is_empty() };
    let mut left = name.chars();
    match first {
        Piece::Many => {
            let ends = name.char_indices().map(|(at, _)| at).chain([name.len()]);
            ends.filter_map(|at| name.get(at..)).any(|name| like(pieces, name))
        }
        Piece::One => left.next().is_some() && like(pieces, left.as_str()),
        Piece::This(wanted) => left.next() == Some(*wanted) && like(pieces, left.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants() {
        let grants = Grants::parse(
            "GRANT USAGE ON *.* TO `u`@`%` IDENTIFIED BY PASSWORD '*X'\nGRANT SELECT, SHOW VIEW ON `my\\_db`.* TO `u`@`%`\n\
             GRANT TRIGGER ON `my%`.* TO `u`@`%`\nGRANT SELECT ON `mysql`.`proc` TO `u`@`%`\n",
        );
        assert!(grants.may("SELECT", Some("my_db")) && !grants.may("SELECT", Some("myxdb")));
        assert!(grants.may("TRIGGER", Some("myxdb")) && !grants.may("EVENT", Some("my_db")));
        let facts = Facts { version: "10.11-MariaDB".into(), me: "u@%".into(), ..Facts::default() };
        assert_eq!(
            grants.missing_for_dump("my_db", &facts),
            Some(("TRIGGER, EVENT".into(), "GRANT TRIGGER, EVENT ON `my\\_db`.* TO 'u'@'%'".into()))
        );
        assert_eq!(Grants::parse("GRANT ALL PRIVILEGES ON *.* TO `r`@`%`").missing_for_dump("x", &facts), None);
        let (missing, mend) = grants.missing_for_restore(&["my_db__restoring_0123abcd"], "u@%").unwrap();
        assert!(missing.starts_with("SELECT, INSERT, "), "{missing}");
        assert_eq!(mend, "GRANT ALL PRIVILEGES ON `my\\_db\\_\\_%`.* TO 'u'@'%'");
    }

    #[test]
    fn a_role_gives_what_is_listed_and_a_revoke_takes_it() {
        let facts = Facts { version: "9.7.4".into(), me: "u@%".into(), ..Facts::default() };
        let inactive = Grants::parse("GRANT USAGE ON *.* TO `u`@`%`\nGRANT `r`@`%` TO `u`@`%`\n");
        assert!(inactive.roles);
        let (missing, mend) = inactive.missing_for_dump("d", &facts).unwrap();
        assert_eq!((missing.as_str(), mend.starts_with("GRANT SELECT, ")), ("SELECT, SHOW VIEW, TRIGGER, EVENT", true));
        let all = "GRANT SELECT, SHOW VIEW, TRIGGER, EVENT ON *.* TO `u`@`%`\nGRANT SHOW_ROUTINE ON *.* TO `u`@`%`\n\
                   REVOKE SELECT, TRIGGER ON `d`.* FROM `u`@`%`\n";
        let grants = Grants::parse(all);
        assert_eq!(grants.missing_for_dump("d2", &facts), None);
        assert_eq!(grants.missing_for_dump("d", &facts).unwrap().0, "SELECT, TRIGGER");
        let grants = Grants::parse(&format!("{all}GRANT SELECT, TRIGGER ON `d`.* TO `u`@`%`\n"));
        assert_eq!(grants.missing_for_dump("d", &facts), None);
        // On some tables is not on all.
        let some = Grants::parse("GRANT SELECT, SHOW VIEW ON `d`.`t` TO `u`@`%`\n");
        assert!(!some.may("SELECT", Some("d")));
    }

    #[test]
    fn of_several_patterns_one_alone_counts() {
        let given = |lines: &[&str]| {
            let lines = lines.iter().map(|line| format!("GRANT {line} TO `u`@`%`\n")).collect::<String>();
            Grants::parse(&lines)
        };
        let rest = "SELECT, SHOW VIEW, EVENT, EXECUTE";
        let facts = Facts { version: "9.7.4".into(), me: "u@%".into(), ..Facts::default() };
        for (grants, missing, mend) in [
            // By name, whatever patterns say.
            (given(&[&format!("{rest} ON `my\\_db`.*"), "TRIGGER ON `my%`.*"]), "TRIGGER", "TRIGGER"),
            // The longer of two; and what the grant by name puts out of force.
            (
                given(&[&format!("{rest} ON `my%`.*"), "TRIGGER ON `m%`.*"]),
                "TRIGGER",
                "SELECT, SHOW VIEW, TRIGGER, EVENT, EXECUTE",
            ),
            // Which of these it is, servers do not agree on.
            (
                given(&[&format!("{rest}, TRIGGER ON `my_db`.*"), &format!("{rest} ON `%db`.*")]),
                "TRIGGER",
                "SELECT, SHOW VIEW, TRIGGER, EVENT, EXECUTE",
            ),
            (given(&[&format!("{rest} ON *.*"), "TRIGGER ON `%`.*", "SELECT ON `my%`.*"]), "TRIGGER", "TRIGGER"),
        ] {
            let (lacks, grant) = grants.missing_for_dump("my_db", &facts).unwrap();
            assert_eq!((lacks.as_str(), grant), (missing, format!("GRANT {mend} ON `my\\_db`.* TO 'u'@'%'")));
        }
        let all = "SELECT, SHOW VIEW, EVENT, EXECUTE, TRIGGER";
        for grants in [
            given(&[&format!("{all} ON `my%`.*"), "SELECT ON `m%`.*", "SELECT ON `%`.*"]),
            given(&[&format!("{all} ON `my\\_db`.*"), "SELECT ON `my%`.*", "SELECT ON `my_db`.*"]),
            given(&[&format!("{all} ON `my_db`.*"), &format!("{all} ON `%db`.*")]),
        ] {
            assert_eq!(grants.missing_for_dump("my_db", &facts), None, "{grants:?}");
        }
    }

    #[test]
    fn each_grantee_has_its_own() {
        let rest = "SELECT, SHOW VIEW, EVENT, EXECUTE ON `my\\_db`.*";
        let facts = Facts { version: "10.11-MariaDB".into(), me: "u@%".into(), ..Facts::default() };
        for (other, is_whole) in [("`r`", true), ("PUBLIC", true), ("`u`@`%`", false)] {
            let grants = Grants::parse(&format!("GRANT {rest} TO `u`@`%`\nGRANT TRIGGER ON `my%`.* TO {other}\n"));
            assert_eq!(grants.missing_for_dump("my_db", &facts).is_none(), is_whole, "{other}");
        }
    }

    #[test]
    fn where_names_are_no_patterns_they_mean_themselves() {
        let all = "SELECT, SHOW VIEW, EVENT, TRIGGER, EXECUTE";
        let facts = Facts { version: "9.7.4".into(), me: "u@%".into(), ..Facts::default() };
        let grants = |on: &str, end: &str| {
            Grants::parse(&format!("GRANT {all} ON `{on}`.* TO `u`@`%`\npartial_revokes\t{end}\ncurrent_role\tNONE\n"))
        };
        let literally = "GRANT SELECT, SHOW VIEW, TRIGGER, EVENT ON `my_db`.* TO 'u'@'%'";
        for (on, end, mend) in [
            ("my\\_db", "OFF", None),
            ("my_db", "OFF", None),
            ("my%", "OFF", None),
            ("my_db", "ON", None),
            ("my\\_db", "ON", Some(literally)),
            ("my%", "ON", Some(literally)),
        ] {
            let told = grants(on, end).missing_for_dump("my_db", &facts).map(|(_, mend)| mend);
            assert_eq!(told.as_deref(), mend, "{on} {end}");
        }
        let scratch = &["my_db__restoring_0123abcd"][..];
        let (_, mend) = grants("my%", "ON").missing_for_restore(scratch, "u@%").unwrap();
        assert!(mend.starts_with("GRANT SELECT, INSERT, ") && mend.ends_with(" ON *.* TO 'u'@'%'"), "{mend}");
        let (_, mend) = grants("my%", "ON").missing_for_restore(&["my_db"], "u@%").unwrap();
        assert_eq!(mend, "GRANT ALL PRIVILEGES ON `my_db`.* TO 'u'@'%'");
    }

    #[test]
    fn while_a_role_is_active_no_grant_is_nearer() {
        let rest = "SELECT, SHOW VIEW, EVENT, EXECUTE";
        let facts = Facts { version: "9.7.4".into(), me: "u@%".into(), ..Facts::default() };
        let told = |schema: &str, (near, rights): (&str, &str), role: &str| {
            let lines = format!("GRANT {rest} ON `my%`.* TO `u`@`%`\nGRANT {rights} ON `{near}`.* TO `u`@`%`\n");
            Grants::parse(&format!("{lines}current_role\t{role}\n")).missing_for_dump(schema, &facts)
        };
        let all = "SELECT, SHOW VIEW, EVENT, EXECUTE, TRIGGER";
        // By name it is nearer, but the server takes the pattern: no grant by name mends that.
        assert_eq!(told("my_db", ("my\\_db", all), "NONE"), None);
        let (missing, mend) = told("my_db", ("my\\_db", all), "`r`@`%`").unwrap();
        assert_eq!((missing.as_str(), mend.as_str()), ("TRIGGER", "GRANT TRIGGER ON *.* TO 'u'@'%'",));
        // Spelled alike, it is found first.
        assert_eq!(told("mydb", ("mydb", all), "`r`@`%`"), None);
        assert!(told("mydb", ("m%", all), "`r`@`%`").unwrap().1.contains(" ON `mydb`.* "));
    }

    #[test]
    fn routines_are_seen_where_they_are_kept() {
        let lines =
            "GRANT SELECT, SHOW VIEW, EVENT, TRIGGER ON `d`.* TO `u`@`%`\nGRANT SELECT ON `mysql`.* TO `u`@`%`\n";
        for (version, is_whole) in [("10.11.19-MariaDB", true), ("5.7.44", true), ("8.0.40", false), ("9.7.4", false)] {
            let facts = Facts { version: version.into(), me: "u@%".into(), ..Facts::default() };
            assert_eq!(Grants::parse(lines).missing_for_dump("d", &facts).is_none(), is_whole, "{version}");
        }
    }
}
