//! The SQLite engine through its public face, judged by another implementation: the `sqlite3` command line tool, which
//! must be on the path. Touches temporary folders only.

mod places;
mod refusals;
mod roundtrip;
mod support;
mod writers;
