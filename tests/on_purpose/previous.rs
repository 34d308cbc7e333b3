//! What is kept for an undo is a dump in `data_dir`, for most engines: a small disk there that is full in the middle of it,
//! though the look before has found room enough. Then nothing is replaced, and nothing of the dump is left.

use crate::disk::Disks;
use crate::redis::support::{PASSWORD, Server, Which};
use crate::{Bench, Way, lines, mysql};

const MIB: u64 = 1 << 20;

/// With so much room left after the backup, a restore must fail while it keeps what is there; with more it succeeds.
fn fails_while_keeping(bench: &dyn Bench, disks: &Disks, change: &dyn Fn() -> u64) {
    let way = Way::on(bench, Some((disks, "ours")));
    disks.leave("ours", change());
    let free = disks.free("ours");
    let words = ["can't keep shop as it is: ", "no space left on device", "hint: ", "keep_previous = \"0\""];
    let said = way.fails(&[], 1, &words);
    assert!(disks.free("ours") + 20_000 > free, "of {free} bytes {} are free: {said}", disks.free("ours"));
    let mut folders = vec![disks.seen("ours").join("previous")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            assert!(entry.is_dir(), "{} is left", entry.display());
            folders.push(entry);
        }
    }
    way.runs(&["restore", "shop", "--undo", "--yes"], 15);
    disks.make_room("ours");
    let before = bench.all();
    way.restores();
    assert_ne!(bench.all(), before);
    way.does(&["restore", "shop", "--undo", "--yes"]);
    crate::same(&bench.all(), &before);
}

#[test]
fn a_disk_that_is_full_while_redis_is_kept() {
    let server = Server::new(Which::Redis7);
    server.small();
    struct Cache(Server);
    impl Bench for Cache {
        fn table(&self) -> String {
            let tools = self.0.which.tools();
            let url = self.0.url();
            lines(&[("engine", "redis"), ("url", &url), ("password", PASSWORD), ("tools_dir", tools.to_str().unwrap())])
        }

        fn all(&self) -> String {
            format!("{}\n{:?}", self.0.digest(), self.0.settings())
        }
    }
    let cache = Cache(server);
    let disks = Disks::new(&[("ours", "40m")]);
    fails_while_keeping(&cache, &disks, &|| {
        cache.0.cli(&["EVAL", "for i = 1, 3000 do redis.call('SET', 'r' .. i, redis.sha1hex(i) .. redis.sha1hex(-i) .. string.rep(redis.sha1hex(i / 7), 20)) end", "0"]);
        100_000
    });
}

#[test]
fn a_disk_that_is_full_while_mariadbs_schema_is_kept() {
    let server = mysql::mariadb();
    server.sql("shop", "CREATE TABLE IF NOT EXISTS random (x VARBINARY(1000)); DELETE FROM random");
    let disks = Disks::new(&[("ours", "40m")]);
    fails_while_keeping(&*server, &disks, &|| {
        let more = "INSERT INTO random SELECT RANDOM_BYTES(1000) FROM a LIMIT 3000;";
        server.sql("shop", more);
        3 * MIB
    });
    server.sql("shop", "DROP TABLE random");
}
