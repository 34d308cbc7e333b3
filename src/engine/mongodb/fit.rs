//! What a restore refuses before it makes anything. Flows in: what is known of the server, the archive and the live
//! database. Flows out: nothing, or why it can't end well, with the mend. Touches nothing.

use super::archive::{Collection, Sort};
use super::args;
use super::restore::Restore;
use super::server::number;
use super::tools::OURS;
use crate::engine::Destination;
use crate::error::{Error, Kind, Result};

/// What a restore needs to be allowed.
const ACTIONS: [&str; 8] = [
    "find",
    "insert",
    "remove",
    "createCollection",
    "createIndex",
    "dropCollection",
    "renameCollectionSameDB",
    "listCollections",
];

fn refused<T>(message: String, hint: String) -> Result<T> {
    Err(Error::new(Kind::Tool, message).hint(hint))
}

impl Restore<'_> {
    /// Refuses what can't end well, before anything is made; `keeps`: whether what stands is to be kept.
    pub(super) fn check(&self, keeps: bool) -> Result<()> {
        let (facts, configured) = (&self.facts, &self.tools.toolbox.configured);
        let from = self.archive.server_version.as_deref().unwrap_or_default();
        if number(from) > number(&facts.version) {
            return refused(
                format!("the backup is of a server of version {from}, this one is {}, which is older", facts.version),
                format!("restore it into a server of that version or newer: mend [databases.{configured}] url"),
            );
        }
        if !facts.primary {
            return refused(
                format!("{} takes no writes: it is not the primary", self.tools.place.server()),
                format!("name all members and replicaSet in [databases.{configured}] url"),
            );
        }
        if let Some((missing, grant)) = facts.missing(&ACTIONS, &self.into, "readWrite") {
            return refused(missing, grant);
        }
        self.check_names()?;
        // Where dumps leave a part out, nothing is kept.
        if keeps && args::partial(&self.tools.toolbox.dump_args).is_none() {
            self.check_live()?;
        }
        match self.destination {
            Destination::Into(name) if facts.exists(name) && !self.is_abandoned() => refused(
                format!("there is a database {name} already"),
                "give another name, or drop that one first".to_owned(),
            ),
            _ => Ok(()),
        }
    }

    /// Looks whether every collection can be loaded, and get its name afterwards.
    fn check_names(&self) -> Result<()> {
        let unfit = |(name, it): (&String, &Collection)| self.unfit(name, it.sort == Sort::TimeSeries);
        match self.archive.collections.iter().find_map(unfit) {
            Some((why, hint)) => refused(why, hint),
            None => Ok(()),
        }
    }

    /// Looks whether what stands could be put back in its turn: an undo is a restore of a dump of it.
    fn check_live(&self) -> Result<()> {
        let is_dumped = |name: &str| !name.starts_with(OURS) && !name.starts_with("system.");
        let mut live = self.facts.collections.iter().filter(|it| is_dumped(&it.name));
        let Some((why, hint)) = live.find_map(|it| self.unfit(&it.name, it.sort == "timeseries")) else {
            return Ok(());
        };
        refused(
            format!("{} can't be kept so that --undo could put it back: {why}", self.into),
            format!(
                "{hint}; or replace it for good, without an undo: [databases.{}] keep_previous = \"0\"",
                self.tools.toolbox.configured
            ),
        )
    }

    /// Why a collection of that name can't be loaded or not get its name afterwards, and the mend.
    fn unfit(&self, name: &str, is_time_series: bool) -> Option<(String, String)> {
        let in_place = *self.destination == Destination::InPlace;
        let instead =
            || format!("restore {} --into NEWNAME, and have its clients use that", self.tools.toolbox.configured);
        let most = self.facts.namespace_bytes();
        if self.into.len() + 1 + self.prefix.len() + name.len() > most {
            return Some((
                format!("the collection {name} can't be loaded: its name would be longer than {most} bytes"),
                if in_place { instead() } else { "give a shorter name".to_owned() },
            ));
        }
        if in_place && self.facts.ferretdb && name.contains('.') {
            let why = format!("FerretDB renames no collection whose name holds a dot, as {name} does");
            return Some((why, instead()));
        }
        if name.contains('\n') && name.contains('$') {
            return Some((
                format!("the collection {name:?} can't be loaded: mongorestore takes no such name to rename"),
                "give it a name without a line break where it is, and take a new backup".to_owned(),
            ));
        }
        if in_place && is_time_series {
            return Some((format!("the time series {name} can't be renamed by any server"), instead()));
        }
        None
    }

    /// Whether the target is nothing but what a dead restore has left.
    pub(super) fn is_abandoned(&self) -> bool {
        !self.facts.claims.is_empty() && self.facts.claims.iter().all(|claim| !claim.swapping && !claim.alive)
    }
}
