//! `demo`.

use super::Done;
use crate::cli::DemoArgs;
use crate::error::Result;
use crate::report::Report;
use crate::world::World;

/// Shows.
///
/// # Errors
/// None.
pub fn run(_args: &DemoArgs, _world: &World, _report: &Report) -> Result<Done> {
    Ok(Done::well())
}
