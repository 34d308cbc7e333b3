//! The MongoDB engine against a real server: data that hurts comes back the same, and whatever fails leaves the live data
//! as it was, or, once names are exchanged, is finished by the next restore. Wants `VOXELTRON_TEST_MONGODB_URL` (of a user
//! who may do everything) and `VOXELTRON_TEST_MONGO_TOOLS` (a folder with mongosh, mongodump and mongorestore); without
//! them every test fails, none is skipped.

// What fails in a test may panic, in its helpers too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod accidents;
#[path = "../common/cutter.rs"]
mod cutter;
mod living;
mod refusals;
mod roundtrip;
mod script;
mod support;
