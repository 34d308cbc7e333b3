//! Runs the references: programs in Python that share no code with ours. A missing one fails the test. And what to ask
//! them: zones, and expressions drawn at random.

#![allow(dead_code)]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

/// Gives each case to the reference and takes its answers, one a line.
pub fn ask(script: &str, cases: &[Value]) -> Vec<Value> {
    let python = std::env::var("VOXELTRON_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference").join(script);
    let mut child = Command::new(&python)
        .arg("-I")
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{python} is needed for the references, but: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let text: String = cases.iter().map(|case| format!("{case}\n")).collect();
    let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()));
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "the reference failed; if a zone is missing, install tzdata");
    writer.join().unwrap().unwrap();
    let answers: Vec<Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), cases.len());
    answers
}

/// Numbers that look random and are the same in every run (xorshift64*).
pub struct Dice(pub u64);

impl Dice {
    /// From 0 to `below`, exclusive.
    pub fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % below
    }

    /// One of these.
    pub fn pick<'t, T: ?Sized>(&mut self, from: &[&'t T]) -> &'t T {
        from[usize::try_from(self.roll(from.len() as u64)).unwrap()]
    }
}

/// Changes by half an hour, two hours, a day; at midnight and a minute past; twice in a month; backwards in summer.
pub const ZONES: [&str; 21] = [
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "Africa/Casablanca",
    "Pacific/Apia",
    "America/Havana",
    "America/Sao_Paulo",
    "America/St_Johns",
    "Antarctica/Troll",
    "Asia/Tehran",
    "Asia/Gaza",
    "Asia/Pyongyang",
    "America/Caracas",
    "Africa/Cairo",
    "Europe/Dublin",
    "Europe/Volgograd",
    "Pacific/Fakaofo",
    "America/Asuncion",
    "Asia/Beirut",
    "UTC",
];

/// One item of a field: a number, a name or a range.
pub fn item(dice: &mut Dice, low: u64, high: u64, names: &[&str]) -> String {
    let value = |dice: &mut Dice| low + dice.roll(high - low + 1);
    match dice.roll(6) {
        0 => {
            let (a, b) = (value(dice), value(dice));
            format!("{}-{}", a.min(b), a.max(b))
        }
        1 => {
            let (a, b) = (value(dice), value(dice));
            format!("{}-{}/{}", a.min(b), a.max(b), 1 + dice.roll(high))
        }
        2 if !names.is_empty() => dice.pick(names).to_owned(),
        _ => value(dice).to_string(),
    }
}

/// A field of an expression.
pub fn field(dice: &mut Dice, low: u64, high: u64, star_of_10: u64, names: &[&str]) -> String {
    match dice.roll(10) {
        roll if roll < star_of_10 => "*".to_owned(),
        roll if roll == star_of_10 => format!("*/{}", 1 + dice.roll(high)),
        _ => (0..=dice.roll(3)).map(|_| item(dice, low, high, names)).collect::<Vec<_>>().join(","),
    }
}

/// An expression of five fields, or a nickname; it may be one that never comes.
pub fn expression(dice: &mut Dice) -> String {
    if dice.roll(40) == 0 {
        return dice.pick(&["@hourly", "@daily", "@weekly", "@monthly", "@Midnight"]).to_owned();
    }
    // The clocks change at night: most hours are drawn from there.
    let hour = if dice.roll(2) == 0 { field(dice, 0, 4, 2, &[]) } else { field(dice, 0, 23, 4, &[]) };
    [
        field(dice, 0, 59, 1, &[]),
        hour,
        field(dice, 1, 31, 7, &["L"]),
        field(dice, 1, 12, 8, &["jan", "Feb", "MAR", "oct"]),
        field(dice, 0, 7, 6, &["sun", "Mon", "SAT", "fri-sun", "tue-thu", "friL", "Sun#1", "3#5"]),
    ]
    .join(" ")
}
