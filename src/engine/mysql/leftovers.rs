//! What restores leave, and who clears it away. Flows in: the schemas of a server. Flows out: nothing left of dead
//! restores; a guard that drops a living one's scratch. Touches the server.
//!
//! [`Kind::Tool`]: crate::error::Kind::Tool

use super::names::Names;
use super::reasons::is_cut;
use super::server::{self, Facts};
use super::sql::{ident, literal};
use super::swap::{Stage, Swap};
use super::tools::{Tool, Tools, for_cleanup};
use crate::engine::Cx;
use crate::engine::tools::patiently;
use crate::error::Result;

/// What a look at leftovers has come to.
#[derive(Debug, Default)]
pub struct Swept {
    /// What was done, and what could not be.
    pub notes: Vec<String>,
    /// Whose tables stand, but not all of whose code: until another swap begins, their records say so.
    pub unfinished: Vec<Names>,
}

/// Finishes the swap of a dead restore of the same schema, and drops what others have left; says what it has done. What
/// isn't ours by name and mark stays.
///
/// # Errors
/// [`Kind::Tool`] when the server can't be asked, or a swap that is half-way can't be finished.
pub fn sweep(tools: &Tools, client: &Tool, mine: &Names, schemas: &[String], in_place: bool, cx: &Cx) -> Result<Swept> {
    let Swept { mut notes, mut unfinished } = Swept::default();
    for schema in schemas {
        let Some(names) = Names::of_scratch(&mine.target, schema).filter(|names| names != mine) else { continue };
        if !is_ours(tools, client, &names, cx)? || !server::is_dead(tools, client, &names.hex, cx)? {
            continue;
        }
        let dropped = format!("dropped {schema}, which an interrupted restore had left");
        let Some(mut swap) = Swap::find(tools, client, cx, names.clone())? else {
            let sql = format!("DROP DATABASE IF EXISTS {};\n", ident(schema));
            tools.run(client, None, sql.as_bytes(), cx)?;
            notes.push(dropped);
            continue;
        };
        if swap.stage()?.0 == Stage::Untouched {
            swap.clear()?;
            notes.push(dropped);
        } else if in_place {
            swap.exchange()?;
            notes.extend(std::mem::take(&mut swap.notes));
            if let Err(error) = swap.finish() {
                // The tables stand, and what could not be made is about to be replaced. Should it come to nothing, what is
                // there still lacks it: so only the tables go that want room.
                swap.clear_replaced()?;
                notes.push(format!("an interrupted restore could not be finished: {error}"));
                unfinished.push(names);
                continue;
            }
            notes.extend(std::mem::take(&mut swap.notes));
            swap.clear()?;
            notes.push("finished a restore that had been interrupted".to_owned());
        }
    }
    Ok(Swept { notes, unfinished })
}

/// Whether a swap has been left half-way, or is at work: the schema then shows tables under names of ours, or lacks views,
/// routines and events. Says what ends that. What is `replaced` at once may lack them.
///
/// # Errors
/// [`Kind::Tool`] when the server can't be asked.
pub fn half_way(
    tools: &Tools,
    client: &Tool,
    target: &str,
    live: &Facts,
    replaced: bool,
    cx: &Cx,
) -> Result<Option<String>> {
    let mend = format!("restore {} again: it finishes that one first", tools.toolbox.configured);
    if live.tables.iter().any(|(name, _)| Names::is_passing(name)) {
        return Ok(Some(mend));
    }
    if replaced {
        return Ok(None);
    }
    for names in live.schemas.iter().filter_map(|schema| Names::of_scratch(target, schema)) {
        if is_ours(tools, client, &names, cx)?
            && let Some(mut swap) = Swap::find(tools, client, cx, names)?
        {
            // Nothing is exchanged here: a look heeds signals and the deadline.
            swap.cx = cx.clone();
            if swap.stage()?.0 != Stage::Untouched && !swap.is_finished()? {
                let (old, scratch) = (ident(&swap.names.old), ident(&swap.names.scratch));
                let drop = format!("DROP DATABASE IF EXISTS {old}; DROP DATABASE {scratch}");
                return Ok(Some(format!(
                    "{mend}; or look whether all tables, code and events of it are there: if so, {drop}"
                )));
            }
        }
    }
    Ok(None)
}

/// Whether a schema that is called like a scratch of this target is one: it has our mark, or nothing at all. Names of two
/// targets may begin alike, so the mark says which it is.
fn is_ours(tools: &Tools, client: &Tool, names: &Names, cx: &Cx) -> Result<bool> {
    let sql = format!(
        "SELECT JSON_ARRAY(COUNT(*), COALESCE(SUM(TABLE_NAME = {} AND LOCATE({}, TABLE_COMMENT) = 1), 0)) \
         FROM information_schema.TABLES WHERE TABLE_SCHEMA = {};\n",
        literal(&names.mark()),
        literal(&names.claim()),
        literal(&names.scratch)
    );
    let rows: Vec<(u64, u64)> = tools.rows(client, &sql, cx)?;
    Ok(rows.first().is_some_and(|(tables, marks)| *tables == 0 || *marks > 0))
}

/// The scratch schema: gone when this is dropped, unless it has taken its place.
#[derive(Debug)]
pub struct Scratch<'a> {
    /// How the server is reached.
    pub tools: &'a Tools,
    /// The client.
    pub client: Tool,
    /// For warnings and the clock.
    pub cx: &'a Cx,
    /// Its name.
    pub name: String,
    /// Whether it is no longer to be dropped.
    pub gone: bool,
}

impl Scratch<'_> {
    /// Drops it now, whatever signal has come; a server that is away gets a moment.
    ///
    /// # Errors
    /// [`Kind::Tool`] when it can't be dropped.
    pub fn remove(&mut self) -> Result<()> {
        self.gone = true;
        let sql = format!("DROP DATABASE IF EXISTS {};\n", ident(&self.name));
        let cx = for_cleanup(self.cx);
        patiently(&cx, is_cut, || self.tools.run(&self.client, None, sql.as_bytes(), &cx).map(drop))
    }
}

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        if !self.gone
            && let Err(error) = self.remove()
        {
            self.cx
                .report
                .warn(&format!("can't drop the scratch schema {}: {error}; the next restore does", self.name));
        }
    }
}
