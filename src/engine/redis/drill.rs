//! A server of our own for drills. Flows in: the tools. Flows out: a place where a backup can be loaded. Touches one private
//! folder, which goes with the server.
//!
//! The server keeps nothing on disk, listens on a socket in a folder that is ours alone, and wants a password. A shell holds
//! it: when our end of its input closes, however we ended, the server is killed and the folder removed.

use std::io::Write;
use std::time::Duration;

use super::server;
use super::tools::{Tool, Tools};
use super::url::Place;
use crate::engine::Cx;
use crate::error::{Context, Error, Kind, Result};
use crate::process::RestoreWriter;
use crate::secret::Secret;

/// The longest path of a socket that every system takes, less the name in its folder.
const PATH_BYTES: usize = 80;
/// How long the server may take to answer.
const START: Duration = Duration::from_secs(20);
const EVERY: Duration = Duration::from_millis(20);

/// Takes the server's settings, which end with an empty line, whole before anything else reads; starts it with them, and waits
/// for its own input to close, or for a signal: neither of its children is left to the first process of a container. `printf` is the shell's own, so that the password is no argument.
const SCRIPT: &str = r#"umask 077; mkdir -- "$2" || exit 1
conf=$(while IFS= read -r line && [ -n "$line" ]; do printf '%s\n' "$line"; done)
printf '%s\n' "$conf" | "$1" - >&2 &
server=$!
exec 3<&0
cat <&3 >/dev/null 3<&- &
held=$!
exec 3<&- </dev/null
trap : TERM
wait "$held"
kill -9 "$server" "$held" 2>/dev/null; wait; rm -rf -- "$2""#;

/// A private server. Dropped, it ends.
#[derive(Debug)]
pub struct Private {
    /// How it is asked.
    pub tools: Tools,
    holder: Option<RestoreWriter>,
}

/// Starts a server that loads this format.
///
/// # Errors
/// [`Kind::Tool`] when there is none, it is too old for the backup, or it does not start.
pub fn start(tools: &Tools, client: &Tool, spool: &super::spool::Spool, cx: &Cx) -> Result<Private> {
    let names = match spool.format.0 {
        super::rdb::Family::Valkey => ["valkey-server", "redis-server"],
        super::rdb::Family::Redis => ["redis-server", "valkey-server"],
    };
    let configured = &tools.toolbox.configured;
    let tool = tools.tool(&names, cx).map_err(|error| {
        Error { hint: None, ..error }.while_doing("a drill loads the backup into a server of its own").hint(format!(
            "install redis-server or valkey-server beside the client, or set [databases.{configured}] tools_dir"
        ))
    })?;
    let valkey = tool.program.rsplit('/').next().is_some_and(|name| name.starts_with("valkey"));
    let from = spool.contents.version.as_deref();
    server::refuse_newer(
        spool.format,
        from,
        &format!("{} {}", tool.program, tool.version),
        valkey,
        server::release(&tool.version),
    )?;
    let hex = cx.world.random_hex(8)?;
    let inside = cx.data_dir.join(format!("drill-{hex}")).display().to_string();
    let folder = match inside.len() <= PATH_BYTES && inside.starts_with('/') && !tools.toolbox.runs_elsewhere() {
        true => inside,
        false => format!("/tmp/voxeltron-drill-{hex}"),
    };
    let password = Secret::new(cx.world.random_hex(32)?);
    let databases = spool.contents.keys.keys().max().map_or(16, |number| (number + 1).max(16));
    let call = tools.toolbox.call("sh").args(["-c", SCRIPT, "sh", &tool.program, &folder]);
    let call = crate::process::Invocation { program: "sh".to_owned(), ..call };
    cx.report.detail(&call.display().replace(SCRIPT, "…"));
    let mut holder = RestoreWriter::spawn(&call, None, &cx.world.for_cleanup())?;
    let socket = format!("{folder}/s");
    let conf = format!(
        "port 0\nunixsocket \"{socket}\"\nunixsocketperm 700\nrequirepass {}\nsave \"\"\nappendonly no\ndatabases {databases}\n\
         dir \"{folder}\"\nrepl-diskless-load swapdb\nmaxmemory 0\n\n",
        password.expose()
    );
    holder.write_all(conf.as_bytes()).doing(Kind::Tool, "can't write to the server of the drill")?;
    let private = Private { tools: tools.at(Place::of_socket(socket, password)), holder: Some(holder) };
    let until = cx.world.clock.monotonic() + START;
    loop {
        match private.tools.ask(client, ["PING"], cx) {
            Ok(_) => return Ok(private),
            Err(error) if error.is_stopped() => return Err(error),
            Err(_) if cx.world.clock.monotonic() < until => cx.world.clock.sleep(EVERY),
            Err(error) => return Err(error.while_doing(format!("{} does not start for a drill", tool.program))),
        }
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        // Its input closes, and the shell ends the server.
        if let Some(holder) = self.holder.take() {
            drop(holder.finish());
        }
    }
}
