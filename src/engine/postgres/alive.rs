//! Does the restore that made a scratch still live? Flows in: the scratch's name. Flows out: a session at the server that
//! says so as long as we live; and, for the scratch of somebody else, the answer. Touches the server, through `psql`.
//!
//! The lock belongs to a transaction that stays open, not to a session: so a pooler that lends its connections for a
//! transaction at a time keeps ours, and lets it go with us. It is looked for in `pg_locks`, which shows every database's
//! to everyone: so who looks need not be connected to the database in which it is held.

use std::io::Write;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::tools::{Tools, for_cleanup};
use crate::engine::Cx;
use crate::error::{Context, Error, Kind, Result};
use crate::process::RestoreWriter;

/// How often the lock is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How often it is looked for before a session of ours is given up: connecting may take a while.
const TAKE_LOOKS: u32 = 200;
/// How often it is looked for before its holder counts as living: a server takes a moment to notice that one has died.
pub const DEATH_LOOKS: u32 = 20;

/// What the session begins with. No time limit may end it while it waits for us; and the server asks the line for a sign of
/// life, so that the end of our whole host is noticed within a minute, and nothing on the way forgets a line that is silent.
const BEGIN: &str = "BEGIN;
SET LOCAL search_path = pg_catalog;
SELECT set_config(name, v.value, true) FROM pg_settings JOIN (VALUES ('idle_in_transaction_session_timeout', '0'),
  ('transaction_timeout', '0'), ('tcp_keepalives_idle', '30'), ('tcp_keepalives_interval', '10'),
  ('tcp_keepalives_count', '3'), ('application_name', 'voxeltron-backup restore')) AS v (name, value) USING (name);
";

/// A session that holds a scratch's lock until it is dropped; the lock goes, too, when this process dies, however it dies.
#[derive(Debug)]
pub struct Holder {
    _session: RestoreWriter,
}

impl Holder {
    /// Takes the lock of `scratch`, connected to the database `seat`.
    ///
    /// # Errors
    /// [`Kind::Tool`] when the server gives it to none of our sessions.
    pub fn take(tools: &Tools, seat: &str, scratch: &str, cx: &Cx) -> Result<Self> {
        const KEEPING: &str = "can't keep a session at the server";
        let call = tools.sql(seat, true);
        cx.report.detail(&call.display());
        let mut session = RestoreWriter::spawn(&call, None, &for_cleanup(cx).world)?;
        let sql = format!("{BEGIN}SELECT pg_advisory_xact_lock({});\n", key(scratch));
        session.write_all(sql.as_bytes()).doing(Kind::Tool, KEEPING)?;
        for _ in 0..TAKE_LOOKS {
            if is_held(tools, seat, scratch, cx)? {
                return Ok(Self { _session: session });
            }
            // If it has ended, this says why.
            session.write_all(b"\n").doing(Kind::Tool, KEEPING)?;
            cx.world.clock.sleep(LOOK_EVERY);
        }
        Err(Error::new(Kind::Tool, "the server gives no lock to a session of ours"))
    }
}

/// Whether anybody holds the lock of `scratch`.
///
/// # Errors
/// [`Kind::Tool`] when the server can't be asked.
pub fn is_held(tools: &Tools, database: &str, scratch: &str, cx: &Cx) -> Result<bool> {
    let sql = format!(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND granted \
         AND (classid::bigint << 32) | objid::bigint = {};\n",
        key(scratch)
    );
    let rows: Vec<u64> = tools.rows(database, &sql, cx)?;
    rows.first().map(|count| *count > 0).ok_or_else(|| Error::new(Kind::Tool, "the server does not say what is locked"))
}

/// Whether nobody holds the lock of `scratch`, in the last of so many `looks`.
///
/// # Errors
/// [`Kind::Tool`] when the server can't be asked.
pub fn is_dead(tools: &Tools, database: &str, scratch: &str, looks: u32, cx: &Cx) -> Result<bool> {
    for look in 1..=looks {
        if !is_held(tools, database, scratch, cx)? {
            return Ok(true);
        }
        if look < looks {
            cx.world.clock.sleep(LOOK_EVERY);
        }
    }
    Ok(false)
}

/// The number that stands for a scratch among the server's advisory locks.
fn key(scratch: &str) -> i64 {
    Sha256::digest(scratch.as_bytes()).iter().take(8).fold(0, |key, byte| (key << 8) | i64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scratch_has_a_key_of_its_own() {
        // Other versions of this program must find the same: the first eight bytes of `printf %s NAME | sha256sum`.
        assert_eq!(key("abc"), 0xba78_16bf_8f01_cfea_u64.cast_signed());
        assert_ne!(key("db__restoring_0123abcd"), key("db__restoring_0123abce"));
    }
}
