//! Redis and Valkey: a dump is kept, encrypted.

use crate::{Bench, lines, shown};

#[path = "../redis_engine/support.rs"]
#[allow(dead_code, reason = "the other tests use the rest")]
mod support;

use support::{PASSWORD, Server, Which};

struct Shop(Server);

impl Shop {
    fn new(which: Which) -> Self {
        let server = Server::new(which);
        server.small();
        server.cli(&["SET", "later", "0", "EX", "100000"]);
        Self(server)
    }
}

impl Bench for Shop {
    fn table(&self) -> String {
        let tools = self.0.which.tools();
        lines(&[("engine", "redis"), ("url", &self.0.url()), ("password", PASSWORD), ("tools_dir", shown(&tools))])
    }

    fn change(&self) {
        self.0.cli(&["INCR", "later"]);
        self.0.cli(&["RPUSH", "list-of-changes", "é"]);
        self.0.cli(&["SETEX", "soon", "90000", "x"]);
    }

    fn all(&self) -> String {
        let keyspace = self.0.cli(&["INFO", "keyspace"]);
        let keyspace: Vec<&str> = keyspace.lines().map(|line| line.split(",avg_ttl").next().unwrap()).collect();
        let more = [["PEXPIRETIME", "later"], ["PEXPIRETIME", "soon"]].map(|words| self.0.cli(&words));
        format!("{}\n{}\n{more:?}", self.0.cli(&["DEBUG", "DIGEST"]), keyspace.join("\n"))
    }
}

#[test]
fn redis_there_and_back() {
    crate::there_and_back(&Shop::new(Which::Redis8));
}

#[test]
fn valkey_there_and_back() {
    crate::there_and_back(&Shop::new(Which::Valkey9));
}

#[test]
fn redis_killed() {
    crate::killed(&Shop::new(Which::Valkey8), 5);
}

#[test]
fn a_restore_that_is_refused_for_want_of_memory_leaves_what_is_kept() {
    let shop = Shop::new(Which::Redis8);
    let way = crate::Way::new(&shop, "");
    shop.change();
    let changed = shop.all();
    way.restore();
    let (restored, kept) = (shop.all(), way.kept());
    shop.0.cli(&["CONFIG", "SET", "maxmemory", "100kb"]);
    let said = way.sandbox.command(&["restore", "shop", "--latest"]).exits(13).stderr_any().run().stderr;
    assert!(said.contains("keeping shop as it is") && said.contains("maxmemory"), "{said}");
    shop.0.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!((shop.all(), way.kept()), (restored, kept));
    way.undo();
    assert_eq!(shop.all(), changed);
}
