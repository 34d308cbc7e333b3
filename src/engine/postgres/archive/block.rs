//! A block of data in an archive. Flows in: its bytes as they pass. Flows out: how many rows or large objects it held.
//! Touches nothing; keeps a handful of bytes.

use super::contents::Promise;

/// How COPY's text ends in an archive: its end mark and two empty lines.
const COPY_END: &[u8] = b"\\.\n\n\n";

/// The block that is passing.
#[derive(Debug)]
pub(super) struct Block {
    /// What it was promised as.
    pub promise: Promise,
    /// Whether it holds large objects.
    pub objects: bool,
    count: u64,
    tail: Vec<u8>,
}

/// What a whole block held.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Counted {
    /// So many large objects.
    Objects(u64),
    /// Rows of the table with that key, if they can be counted.
    Rows(String, Option<u64>),
    /// Something else.
    Nothing,
}

impl Block {
    /// One whose promise is not known yet.
    pub fn new(objects: bool) -> Self {
        Self { promise: Promise::default(), objects, count: 0, tail: Vec::new() }
    }

    /// A large object begins.
    pub fn pass_object(&mut self) {
        self.count += 1;
    }

    /// More of its bytes. Every row is a line of its own: COPY writes a newline within a value as two characters.
    pub fn pass(&mut self, bytes: &[u8]) {
        if self.objects || !self.promise.countable {
            return;
        }
        self.count += bytes.iter().map(|byte| u64::from(*byte == b'\n')).sum::<u64>();
        let surplus = bytes.len().saturating_sub(COPY_END.len());
        self.tail.extend(bytes.iter().skip(surplus));
        let surplus = self.tail.len().saturating_sub(COPY_END.len());
        self.tail.drain(..surplus);
    }

    /// Its end.
    pub fn counted(self) -> Counted {
        let ends = COPY_END.iter().filter(|byte| **byte == b'\n').count() as u64;
        let rows = (self.promise.countable && self.tail == COPY_END).then(|| self.count.saturating_sub(ends));
        match self.promise.key {
            _ if self.objects => Counted::Objects(self.count),
            Some(key) => Counted::Rows(key, rows),
            None => Counted::Nothing,
        }
    }
}
