//! MongoDB: a dump is kept, encrypted.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::{Bench, lines, shown};

#[path = "../mongodb_engine/support.rs"]
#[allow(dead_code, reason = "the other tests use the rest")]
mod support;

use support::{Database, tools};

struct Shop {
    database: Database,
    changes: AtomicU32,
}

impl Shop {
    fn new() -> Self {
        Self { database: Database::small("undo"), changes: AtomicU32::new(0) }
    }
}

impl Bench for Shop {
    fn table(&self) -> String {
        lines(&[("engine", "mongodb"), ("url", &self.database.url()), ("tools_dir", shown(&tools()))])
    }

    fn change(&self) {
        let number = self.changes.fetch_add(1, Ordering::SeqCst) + 1;
        self.database.js(&format!(
            "d.a.deleteMany({{_id: {{$mod: [7, {number}]}}}}); d.later{number}.insertOne({{_id: 1, v: 'é'}}); \
             d.later{number}.createIndex({{v: 1}}); d.b.updateOne({{_id: 2}}, {{$set: {{v: {number}}}}});"
        ));
    }

    fn all(&self) -> String {
        self.database.all()
    }

    fn exchanges_at_once(&self) -> bool {
        false
    }
}

#[test]
fn mongodb_there_and_back() {
    crate::there_and_back(&Shop::new());
}

#[test]
fn mongodb_killed() {
    crate::killed(&Shop::new(), 3);
}
