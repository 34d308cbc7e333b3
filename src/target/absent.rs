//! Kinds of target that the configuration knows but this version has not got. Flows in: their settings, which are
//! checked for misspelt keys, so that a file for a later version loads. Flows out: a clear refusal when one is used.

use std::sync::Arc;

use super::{Opener, TargetKind};
use crate::config::table::Table;
use crate::error::{Error, Kind};

/// Voxeltron Cloud.
pub const CLOUD: TargetKind = TargetKind {
    name: "cloud",
    is_local: false,
    has_records: false,
    read: |table, _| read(table, "cloud", &["endpoint"]),
};

fn read(table: &mut Table<'_>, kind: &'static str, texts: &[&'static str]) -> Opener {
    texts.iter().for_each(|key| drop(table.string(key)));
    let name = table.name().to_owned();
    Arc::new(move |_| {
        Err(Error::new(
            Kind::Config,
            format!("target {name}: type {kind:?} is not in this version of voxeltron-backup"),
        )
        .hint("send the job to a target of type \"local\", \"s3\" or \"gcs\", or take a version that has it"))
    })
}
