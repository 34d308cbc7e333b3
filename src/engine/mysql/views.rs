//! Views of a schema. Flows in: what a dump holds of them, and a schema. Flows out: how the server describes them, and that they
//! are made there. Touches the server.

use std::collections::BTreeMap;

use super::code::{self, Made};
use super::reasons;
use super::sql::{ident, literal, table};
use super::tools::{Tool, Tools};
use crate::engine::Cx;
use crate::error::{Error, Result};

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
/// its name, and its character set and collation.
///
/// # Errors
/// [`Kind::Tool`] for a view that can't be made, unless it is excused by its error's number, or stands on one that is.
pub fn make(
    tools: &Tools,
    client: &Tool,
    (schema, charset): (&str, &str),
    views: Vec<Made>,
    cx: &Cx,
    excused: &dyn Fn(u32) -> bool,
) -> Result<()> {
    let mut views = code::in_order(views);
    let script = |views: &[Made]| code::script(views, schema, charset, &|_| None);
    if views.is_empty() || tools.run(client, Some(schema), &script(&views), cx).is_ok() {
        return Ok(());
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
        let failure = first_not_excused(&failed, excused);
        let all = failed.len() == count;
        match failure.and_then(|at| failed.get(at).map(|(view, _)| (at, view.name.clone()))) {
            None => return Ok(()),
            Some((at, name)) if all => {
                let error = failed.swap_remove(at).1;
                return Err(error.while_doing(format!("can't make the view {name}")));
            }
            Some(_) => views = failed.into_iter().map(|(view, _)| view).collect(),
        }
    }
}

/// Where the first of the views is whose failure is neither excused nor due to one that is.
fn first_not_excused(failed: &[(Made, Error)], excused: &dyn Fn(u32) -> bool) -> Option<usize> {
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
