//! Starts the program and ends it: the only exit, and the only place where the world comes in.

use std::process::ExitCode;

use voxeltron_backup::world::World;

fn main() -> ExitCode {
    let world = World::system();
    if world.cancel.listen().is_err() {
        return ExitCode::FAILURE;
    }
    ExitCode::from(voxeltron_backup::run(std::env::args_os(), &world).code())
}
