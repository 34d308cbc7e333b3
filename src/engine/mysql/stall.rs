//! A load that does not go on. Flows in: how much the client has taken. Flows out: a line for the operator. Touches the
//! server, through the tools.
//!
//! MySQL answers a full disk under its binary log by waiting, for ever, until somebody makes room; then it goes on where it
//! was. To end its session would end the whole server. So it is left alone, and what can be known is told.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::sql::literal;
use super::tools::{Tool, Tools};
use crate::engine::Cx;

/// How long nothing may move before it is told.
const STALL: Duration = Duration::from_secs(60);
/// How often it is looked at.
const EVERY: Duration = Duration::from_millis(100);
/// How long the server may take to say what it is doing.
const ANSWER: Duration = Duration::from_secs(10);

/// Counts what has been taken, and watches it.
#[derive(Debug, Default)]
pub struct Watch {
    taken: AtomicU64,
    done: AtomicBool,
}

/// Says that the work is over, however it ended.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Watch {
    /// Notes that so many bytes more have been taken.
    pub fn took(&self, bytes: usize) {
        self.taken.fetch_add(bytes as u64, Ordering::SeqCst);
    }

    /// Does `work`, a load into `schema`; says so whenever nothing of it has been taken for a minute.
    pub fn over<T>(&self, (tools, client): (&Tools, &Tool), schema: &str, cx: &Cx, work: impl FnOnce() -> T) -> T {
        std::thread::scope(|scope| {
            scope.spawn(|| self.look(tools, client, schema, cx));
            let _done = Done(&self.done);
            work()
        })
    }

    fn look(&self, tools: &Tools, client: &Tool, schema: &str, cx: &Cx) {
        let clock = &cx.world.clock;
        let (mut seen, mut since, mut told) = (0, clock.monotonic(), false);
        while !self.done.load(Ordering::SeqCst) {
            let taken = self.taken.load(Ordering::SeqCst);
            if taken != seen {
                (seen, since, told) = (taken, clock.monotonic(), false);
            }
            if !told && clock.monotonic().saturating_sub(since) >= STALL {
                told = true;
                let state = state(tools, client, schema, cx).map_or_else(String::new, |state| format!(" ({state})"));
                cx.report.note(&format!(
                    "the server has been busy for a minute with what it was sent{state}; it may be waiting for room on a \
                     disk, which its log then says, and goes on when there is some"
                ));
            }
            clock.sleep(EVERY);
        }
    }
}

/// What the server says that it is doing in `schema`.
fn state(tools: &Tools, client: &Tool, schema: &str, cx: &Cx) -> Option<String> {
    let sql = format!(
        "SELECT JSON_ARRAY(STATE) FROM information_schema.PROCESSLIST WHERE DB = {} AND COMMAND = 'Query';\n",
        literal(schema)
    );
    let cx = Cx { deadline: Some(cx.world.clock.monotonic() + ANSWER), ..cx.clone() };
    let rows: Vec<(Option<String>,)> = tools.rows(client, &sql, &cx).ok()?;
    rows.into_iter().find_map(|(state,)| state.filter(|state| !state.is_empty()))
}
