//! Views of a schema. Flows in: what a dump holds of them, and a schema. Flows out: how the server describes them, and that they
//! are made there. Touches the server.

use std::collections::{BTreeMap, BTreeSet};

use super::code::{self, Made};
use super::reasons;
use super::sql::{ident, literal, table};
use super::tools::{Tool, Tools};
use crate::engine::Cx;
use crate::error::{Error, Result};

/// What the server says of a view whose definer has rights on one schema, but not on another: privileges (1142, 1143, 1370),
/// an invalid view below it (1356).
const RIGHTS: [u32; 4] = [1142, 1143, 1356, 1370];

/// A view that the server did not take, and what it said.
pub type Refused = (Made, Error);

/// Whether a view may be refused in one schema for what it is not in another.
pub fn lacks_rights(number: u32) -> bool {
    RIGHTS.contains(&number)
}

/// The views that can't be made for want of a user, and the users.
pub fn without_definer(refused: &[Refused]) -> (Vec<&str>, BTreeSet<String>) {
    let named = refused.iter().filter_map(|(view, error)| Some((view.name.as_str(), reasons::missing_definer(error)?)));
    named.unzip()
}

/// How the server describes views of a schema, by their names; `own` stands where they name it.
///
/// # Errors
/// [`Kind::Tool`] when the server can't be asked or does not describe one of them.
pub fn describe(
    tools: &Tools,
    client: &Tool,
    (schema, own): (&str, &str),
    views: &[String],
    cx: &Cx,
) -> Result<BTreeMap<String, String>> {
    // No text of theirs holds this line.
    let end = format!("end of a view {}\n", cx.world.random_hex(16)?);
    let ask = |view: &String| format!("SHOW CREATE VIEW {};\nSELECT {};\n", ident(view), literal(end.trim_end()));
    let text = match views {
        [] => String::new(),
        views => tools.run(client, Some(schema), views.iter().map(ask).collect::<String>().as_bytes(), cx)?,
    };
    let [from, to] = [schema, own].map(|name| format!("{}.", ident(name)));
    let texts = text.split(&end).map(|text| text.replace(&from, &to));
    Ok(views.iter().cloned().zip(texts).collect())
}

/// Makes `views` in a schema, all at once or, where one needs another that our order put behind it, one by one. `schema`:
/// its name, and its character set and collation. Gives those that are excused by their error's number, or stand on one that
/// is: all others are made.
///
/// # Errors
/// [`Kind::Tool`] for one that can't be made and is not excused.
pub fn make(
    tools: &Tools,
    client: &Tool,
    (schema, charset): (&str, &str),
    views: Vec<Made>,
    cx: &Cx,
    excused: &dyn Fn(u32) -> bool,
) -> Result<Vec<Refused>> {
    let mut views = code::in_order(views);
    let script = |views: &[Made]| code::script(views, schema, charset, &|_| None);
    if views.is_empty() || tools.run(client, Some(schema), &script(&views), cx).is_ok() {
        return Ok(Vec::new());
    }
    loop {
        let (count, mut failed) = (views.len(), Vec::new());
        for view in views {
            let again = format!("DROP VIEW IF EXISTS {};\n", table(schema, &view.name)).into_bytes();
            let script = [again, script(std::slice::from_ref(&view))].concat();
            match tools.run(client, Some(schema), &script, cx) {
                Ok(_) => {}
                Err(error) if error.is_stopped() => return Err(error),
                Err(error) => failed.push((view, error)),
            }
        }
        if !failed.is_empty() && failed.len() < count {
            views = failed.into_iter().map(|(view, _)| view).collect();
            continue;
        }
        let Some(at) = first_not_excused(&failed, excused) else { return Ok(failed) };
        let (view, error) = failed.swap_remove(at);
        return Err(error.while_doing(format!("can't make the view {}", view.name)));
    }
}

/// Where the first of the views is whose failure is neither excused nor due to one that is.
fn first_not_excused(failed: &[Refused], excused: &dyn Fn(u32) -> bool) -> Option<usize> {
    let mut names: Vec<&str> = Vec::new();
    loop {
        let is_excused = |view: &Made, error: &Error| {
            let number = reasons::number(error);
            number.is_some_and(excused)
                || (number == Some(reasons::NO_SUCH_TABLE) && names.iter().any(|name| view.speaks_of(name)))
        };
        let (good, bad): (Vec<_>, Vec<_>) =
            failed.iter().enumerate().partition(|(_, (view, error))| is_excused(view, error));
        let now: Vec<&str> = good.iter().map(|(_, (view, _))| view.name.as_str()).collect();
        if now.len() == names.len() {
            return bad.first().map(|(at, _)| *at);
        }
        names = now;
    }
}
