//! What stops us stops the tools where they run, of each engine: a signal, a passed time, and our own death, in a dump, in a
//! load and in a drill. Each tool is held by SIGSTOP as soon as it is there, so that it is in the middle of its work, and the
//! harder to stop; after our own death, when nobody is left to kill it, it goes on and has to end by itself.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::common::{Sandbox, run};
use super::engines::Server;
use super::{Database, Place, number, podman, wait_until};

/// Processes in whose arguments all of these stand, with the names of their programs.
fn processes(parts: &[&str]) -> Vec<(u32, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let state = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).into_owned();
        let is_dead = state.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'));
        if !is_dead && pid != std::process::id() && parts.iter().all(|part| words.contains(part)) {
            let program = fs::read_link(entry.path().join("exe")).unwrap_or_default();
            found.push((pid, program.file_name().unwrap_or_default().to_string_lossy().into_owned()));
        }
    }
    found
}

/// The same, with what each is doing.
fn states(parts: &[&str]) -> String {
    let about = |(pid, program): (u32, String)| {
        let line = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let status = line("status");
        let picked = status.lines().filter(|line| ["State", "PPid", "NSpid"].iter().any(|name| line.starts_with(name)));
        let input = fs::read_link(format!("/proc/{pid}/fd/0")).unwrap_or_default();
        format!("{pid} {program} {:?} {} input {input:?}", picked.collect::<Vec<_>>(), line("wchan"))
    };
    processes(parts).into_iter().map(about).collect::<Vec<_>>().join("\n")
}

pub fn anything(parts: &[&str]) -> bool {
    !processes(parts).is_empty()
}

fn signal(pid: u32, name: &str) {
    run(Command::new("kill").args(["-s", name, &pid.to_string()]), b"");
}

/// The tool itself, held: not what leads to it.
fn hold(parts: &[&str], child: &mut Child) -> Option<u32> {
    let leads = ["podman", "conmon", "runc", "dash", "bash", "sh", "busybox", "env", "voxeltron-backup"];
    let started = Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(started.elapsed() < Duration::from_secs(120), "no tool with {parts:?}");
        let tool = processes(parts).into_iter().find(|(_, program)| !leads.contains(&program.as_str()));
        if let Some((pid, _)) = tool {
            signal(pid, "STOP");
            return Some(pid);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    None
}

/// Ends tools that wait for more input though all that could give it is gone: conmon 2.1.6 keeps the input open for ever
/// when a tool says something to a caller who has just died, before the end of the input has come to it. Only when the caller
/// (`podman exec`) is gone, the tool is waiting at its input, and conmon alone can write to it.
fn end_what_conmon_forgot(parts: &[&str]) {
    let all = processes(parts);
    if all.iter().any(|(_, program)| program == "podman") {
        return;
    }
    for (tool, _) in all {
        let threads = fs::read_dir(format!("/proc/{tool}/task")).into_iter().flatten().flatten();
        let at = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("wchan")).unwrap_or_default();
        // Or at its input and its server at once.
        let waits = threads.map(at).any(|at| at.contains("pipe_read") || at.contains("poll"));
        let Ok(input) = fs::read_link(format!("/proc/{tool}/fd/0")) else { continue };
        let writers = writers(&input.to_string_lossy());
        if waits && !writers.is_empty() && writers.iter().all(|program| program == "conmon") {
            println!("conmon forgot to end the input of {tool}");
            signal(tool, "KILL");
        }
    }
}

/// The programs that can write to a pipe.
fn writers(pipe: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(files) = fs::read_dir(entry.path().join("fd")) else { continue };
        let writes = |file: fs::DirEntry| {
            let is_it = fs::read_link(file.path()).is_ok_and(|link| link.to_string_lossy() == pipe);
            let about = || fs::read_to_string(entry.path().join("fdinfo").join(file.file_name())).unwrap_or_default();
            let flags =
                |text: String| text.lines().find_map(|line| Some(line.strip_prefix("flags:")?.trim().to_owned()));
            is_it
                && flags(about()).is_some_and(|flags| u32::from_str_radix(&flags, 8).is_ok_and(|flags| flags & 3 == 1))
        };
        if files.flatten().any(writes) {
            found.push(fs::read_to_string(entry.path().join("comm")).unwrap_or_default().trim().to_owned());
        }
    }
    found
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Signal,
    Time,
    Death,
}

/// A database of one engine, with what tells its tools from others at work.
struct Case {
    sandbox: Sandbox,
    container: &'static str,
    dump: Vec<String>,
    load: Vec<String>,
    drill: Vec<String>,
}

impl Case {
    fn configure(&self, engine: &str, place: &Place, url: &str) {
        let file = self.sandbox.write("password", &place.password);
        fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
        let jobs = [("long", "1h"), ("soon", "15s"), ("later", "2m")].map(|(name, timeout)| {
            format!("[[backup.jobs]]\nname = \"{name}\"\ndatabase = \"shop\"\nschedule = \"@daily\"\ntimeout = \"{timeout}\"\n")
        });
        self.sandbox.configure_local(
            None,
            &format!(
                "[databases.shop]\nengine = \"{engine}\"\nurl = \"{url}\"\npassword = {{ file = \"{{dir}}/password\" }}\n\
                 exec = {:?}\n{}",
                place.exec,
                jobs.concat(),
            ),
        );
        self.sandbox.command(&["-q", "run-job", "long"]).run();
    }

    fn stopped(&self, args: &[&str], parts: &[String], stop: Stop) {
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        // It may have been too quick for us, also while it was being held: then it ends well, and another is caught. Or it was
        // so slow that its time was over before there was a tool: then another gets more.
        let caught = (0..10).find_map(|attempt| {
            let slower = |word| if attempt > 0 && word == "soon" { "later" } else { word };
            let args: Vec<&str> = args.iter().map(|word| slower(*word)).collect();
            let mut command = self.sandbox.command(&args).into_command();
            let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            let tool = hold(&parts, &mut child)?;
            match stop {
                Stop::Signal => signal(child.id(), "TERM"),
                Stop::Time => {}
                Stop::Death => child.kill().unwrap(),
            }
            let code = child.wait().unwrap().code();
            (code != Some(0)).then_some((tool, code))
        });
        let (tool, code) = caught.unwrap_or_else(|| panic!("{args:?}: {parts:?} is never caught"));
        match stop {
            Stop::Signal => assert_eq!(code, Some(143), "{args:?}"),
            Stop::Time => assert_eq!(code, Some(13), "{args:?}"),
            Stop::Death => signal(tool, "CONT"),
        }
        // After our death a load whose dump is small has all of it already, and works on at its server's pace.
        let asked = Instant::now();
        while anything(&parts) {
            let long = asked.elapsed() > Duration::from_secs(300);
            assert!(!long, "{stop:?} of {args:?}: still there after five minutes: {}", states(&parts));
            if stop == Stop::Death && asked.elapsed() > Duration::from_secs(10) {
                end_what_conmon_forgot(&parts);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.nothing_fell_to_the_first();
    }

    /// Whoever loses its parent in a container becomes a child of its first process, and stays as a dead one there.
    fn nothing_fell_to_the_first(&self) {
        let name = format!("voxeltron-db-{}", self.container);
        let first = run(Command::new(podman()).args(["inspect", "--format", "{{.State.Pid}}", &name]), b"");
        let first = first.stdout.trim().to_owned();
        let comm = |pid: &str| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let children = fs::read_to_string(format!("/proc/{first}/task/{first}/children")).unwrap();
        let strange: Vec<String> = children.split_whitespace().map(comm).filter(|name| *name != comm(&first)).collect();
        assert_eq!(strange, Vec::<String>::new());
    }

    fn dump_is_stopped(&self, stop: Stop) {
        self.stopped(&["run-job", if stop == Stop::Time { "soon" } else { "long" }], &self.dump, stop);
    }

    fn load_is_stopped(&self, stop: Stop) {
        self.stopped(&["restore", "shop", "--latest", "--yes"], &self.load, stop);
    }

    fn drill_is_stopped(&self, stop: Stop) {
        self.stopped(&["verify", "shop", "--job", "long", "--restore"], &self.drill, stop);
    }

    fn all_stops(&self) {
        for stop in [Stop::Signal, Stop::Time, Stop::Death] {
            self.dump_is_stopped(stop);
        }
        for stop in [Stop::Signal, Stop::Death] {
            self.load_is_stopped(stop);
            self.drill_is_stopped(stop);
        }
        self.restores();
    }

    /// What the tools of one family do, those of its other server do too: each of the three, but not by each way.
    fn some_stops(&self) {
        self.dump_is_stopped(Stop::Signal);
        self.load_is_stopped(Stop::Death);
        self.drill_is_stopped(Stop::Signal);
        self.restores();
    }

    fn restores(&self) {
        self.sandbox.command(&["-q", "restore", "shop", "--latest", "--yes"]).stderr_any().run();
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// A database of MySQL or MariaDB, whose tools have these names there.
fn sql_is_stopped(place: &Place, container: &'static str, [dump, client]: [&str; 2], stops: impl FnOnce(&Case)) {
    let db = Database::new(place);
    let scratch = format!("{}__restoring_", db.name);
    let load = words(&[client, &scratch, "--binary-mode"]);
    let case = Case {
        sandbox: Sandbox::new(),
        container,
        dump: words(&[dump, &db.name, "--single-transaction"]),
        drill: load.clone(),
        load,
    };
    case.configure("mysql", place, &format!("{}/{}", place.base, db.name.replace(' ', "%20")));
    let before = db.all(&db.name);
    stops(&case);
    assert_eq!(db.all(&db.name), before);
    let left = place.sql("mysql", "SHOW DATABASES;");
    for name in left.lines().filter(|name| name.starts_with(&scratch)) {
        place.sql("mysql", &format!("DROP DATABASE `{name}`;"));
    }
}

#[test]
fn mysql_is_stopped_in_its_container_whatever_stops_us() {
    sql_is_stopped(&Place::all()[2], "orders", ["mysqldump", "mysql"], Case::all_stops);
}

#[test]
fn mariadb_is_stopped_in_its_container_by_a_signal_and_by_our_death() {
    sql_is_stopped(&Place::all()[4], "orders2", ["mariadb-dump", "mariadb"], Case::some_stops);
}

/// A server of Redis or Valkey.
fn keys_are_stopped(server: &Server, stops: impl FnOnce(&Case)) {
    server.fill();
    let before = server.digest();
    let user = format!("stop-{}", number());
    server.cli(&["ACL", "SETUSER", &user, "on", &format!(">{}", server.place.password), "~*", "&*", "+@all"]);
    let case = Case {
        sandbox: Sandbox::new(),
        container: server.name,
        dump: words(&[server.client, &user, "--rdb"]),
        load: words(&[server.client, &user, "--pipe"]),
        drill: words(&[server.client, "/tmp/voxeltron-drill-", "--pipe"]),
    };
    let url = server.place.base.replace("://", &format!("://{user}@"));
    case.configure("redis", &server.place, &url);
    // The server waits before it sends anything: else the dump may be over before its tool is seen.
    let delay = |seconds| server.cli(&["CONFIG", "SET", "repl-diskless-sync-delay", seconds]);
    delay("3");
    stops(&case);
    delay("0");
    assert_eq!(server.digest(), before);
    wait_until("the drills are gone", || server.no_drill_is_left());
    server.cli(&["ACL", "DELUSER", &user]);
}

#[test]
fn redis_is_stopped_in_its_container_whatever_stops_us() {
    keys_are_stopped(&Server::redis(), Case::all_stops);
}

#[test]
fn valkey_is_stopped_in_its_container_by_a_signal_and_by_our_death() {
    keys_are_stopped(&Server::valkey(), Case::some_stops);
}

#[test]
fn mongodb_is_stopped_in_its_container_whatever_stops_us() {
    let server = Server::mongodb();
    let name = format!("vx_stop_{}", number());
    server.documents(&name);
    let before = server.all(&name);
    let case = Case {
        sandbox: Sandbox::new(),
        container: server.name,
        dump: words(&["mongodump", &format!("--db={name}")]),
        load: words(&["mongorestore", &format!("--nsTo={name}.")]),
        drill: words(&["mongorestore", &format!("--nsTo={name}__drill_")]),
    };
    case.configure("mongodb", &server.place, &format!("{}/{name}?authSource=admin", server.place.base));
    case.all_stops();
    assert_eq!(server.all(&name), before);
    server.js(&name, "d.dropDatabase()");
}
