//! Tables that others make while the new ones have names of ours. Flows in: what is live. Flows out: where such a table goes.
//! Touches nothing.
//!
//! An application that makes its table where it finds none makes it in the moment of an exchange, too, and by its name it
//! would stand in the way of the new one for ever. The statement that brings the new tables in, or gives them their names,
//! takes it out of the way first; one that comes between the look and that statement is met by the next try. Its rows
//! are kept for as long as those of the replaced tables.

use super::names::Names;
use super::server::Facts;
use super::sql::table;
use super::swap::Stage;

/// Their places among `tables`, the new ones. Before the first step all that is live is to be replaced.
fn among<'a>(stage: Stage, tables: &'a [String], live: &'a Facts) -> impl Iterator<Item = (usize, &'a String)> {
    let between = matches!(stage, Stage::Out | Stage::In);
    let there = move |name: &String| between && live.tables.iter().any(|(other, _)| other == name);
    tables.iter().enumerate().filter(move |(_, name)| there(name))
}

/// What is moved where. A foreign key's name is its schema's, so a table goes where none of its own can be: beside the replaced
/// ones it has none of theirs, and goes where they go; beside the new ones it may have, and goes where these were.
pub fn aside(stage: Stage, names: &Names, tables: &[String], live: &Facts) -> Vec<(String, String)> {
    let to = if stage == Stage::In { &names.scratch } else { &names.old };
    among(stage, tables, live).map(|(at, name)| (table(&names.target, name), table(to, &names.aside(at)))).collect()
}

/// What is said of them.
pub fn told(stage: Stage, tables: &[String], live: &Facts) -> Vec<String> {
    let say = |name: &String| {
        format!(
            "others made a table {name} while the exchange had none of that name: the restored one has taken its place, and it \
             went with what was replaced"
        )
    };
    among(stage, tables, live).map(|(_, name)| say(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_made_goes_where_no_constraint_is_called_like_its_own() {
        let names = Names::new("s", "0123abcd");
        let tables = ["a".to_owned(), "b".to_owned()];
        let live = ["b", "c", "__vxn_0123abcd_0", "__vxo_0123abcd_0"].map(|name| (name.to_owned(), String::new()));
        let live = Facts { tables: live.to_vec(), ..Facts::default() };
        let moved = |stage| aside(stage, &names, &tables, &live);
        let to = |schema: &str| vec![("`s`.`b`".to_owned(), format!("`{schema}`.`__vxs_0123abcd_1`"))];
        assert_eq!(moved(Stage::Out), to("s__old_0123abcd"));
        assert_eq!(moved(Stage::In), to("s__restoring_0123abcd"));
        for stage in [Stage::Untouched, Stage::Named] {
            assert!(moved(stage).is_empty() && told(stage, &tables, &live).is_empty(), "{stage:?}");
        }
        assert!(names.is_ours(&names.aside(1)) && !Names::is_passing(&names.aside(1)));
        assert_eq!(told(Stage::In, &tables, &live).len(), 1);
    }
}
