//! The SQLite engine through its public face, judged by another implementation: the `sqlite3` command line tool, which
//! must be on the path. Touches temporary folders only.

// Clippy's exemption for tests knows only functions marked as such, not what they share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod accidents;
mod places;
mod refusals;
mod roundtrip;
mod support;
mod writers;
