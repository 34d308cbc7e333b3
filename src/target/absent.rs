//! Kinds of target that the configuration knows but this version has not got. Flows in: their settings, which are
//! checked for misspelt keys, so that a file for a later version loads. Flows out: a clear refusal when one is used.

use std::sync::Arc;

use super::{Opener, TargetKind};
use crate::config::table::Table;
use crate::error::{Error, Kind};

/// Any S3-compatible store.
pub const S3: TargetKind = TargetKind {
    name: "s3",
    is_local: false,
    read: |table, _| {
        let plain = ["endpoint", "bucket", "region", "storage_class", "ca_file"];
        read(table, "s3", &plain, &["access_key", "secret_key", "session_token"], &["path_style"], &["part_size"])
    },
};
/// Google Cloud Storage.
pub const GCS: TargetKind = TargetKind {
    name: "gcs",
    is_local: false,
    read: |table, _| read(table, "gcs", &["bucket", "credentials_file", "endpoint", "storage_class"], &[], &[], &[]),
};
/// Voxeltron Cloud.
pub const CLOUD: TargetKind =
    TargetKind { name: "cloud", is_local: false, read: |table, _| read(table, "cloud", &["endpoint"], &[], &[], &[]) };

fn read(
    table: &mut Table<'_>,
    kind: &'static str,
    texts: &[&'static str],
    secrets: &[&'static str],
    switches: &[&'static str],
    numbers: &[&'static str],
) -> Opener {
    texts.iter().for_each(|key| drop(table.string(key)));
    secrets.iter().for_each(|key| drop(table.secret(key)));
    switches.iter().for_each(|key| {
        let _ = table.boolean(key);
    });
    numbers.iter().for_each(|key| {
        let _ = table.integer(key, 0..=u32::MAX);
    });
    let name = table.name().to_owned();
    Arc::new(move |_| {
        Err(Error::new(
            Kind::Config,
            format!("target {name}: type {kind:?} is not in this version of voxeltron-backup"),
        )
        .hint("send the job to a target of type \"local\", or take a version that has it"))
    })
}
