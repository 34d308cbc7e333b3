//! Runs the references: programs in Python that share no code with ours. A missing one fails the test.

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
