//! The Redis engine against real servers, Redis 7 and 8, Valkey 8 and 9: data that hurts comes back the same by every way, and
//! whatever fails leaves data and settings as they were.

// What fails in a test may panic, in its helpers too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// The table of kill points and outcomes is shown with --nocapture.
#![allow(clippy::print_stdout)]

mod accidents;
mod cuts;
#[path = "../common/cutter.rs"]
mod cutter;
mod others;
mod program;
mod refusals;
mod roundtrip;
#[path = "../common/session.rs"]
mod session;
mod support;

/// Makes a test of each server out of a function that takes one.
macro_rules! on {
    ($($module:ident $which:ident: $($name:ident),+ ;)+) => {
        $(mod $module { $(#[test] fn $name() { super::$name(crate::support::Which::$which); })+ })+
    };
}
pub(crate) use on;
