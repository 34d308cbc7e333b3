//! A whole backup, checked before a server hears of it. Flows in: the dump's stream. Flows out: a file without a name that
//! holds it, and what is in it. Touches `data_dir`, where the file has a name for no longer than it takes to open it.
//!
//! A server that is given a damaged RDB can end and find it again at its next start, and one that is given half of one may
//! have emptied itself before. So the server must know nothing before the stream has authenticated and parsed to its end,
//! and that takes a place to keep it.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::os::unix::fs::FileExt;

use super::rdb::inspector::{Contents, Look};
use super::rdb::{Event, Family, Key, Parser, signed};
use crate::engine::tools::{nameless, unwritten};
use crate::engine::{Cx, Inspector};
use crate::error::{Context, Error, Kind, Result};

/// How much is read at once, in bytes.
pub const PIECE_BYTES: usize = 256 * 1024;

/// A backup that is whole.
#[derive(Debug)]
pub struct Spool {
    /// The file, which has no name any more.
    pub file: File,
    /// Its size in bytes.
    pub bytes: u64,
    /// What is in it.
    pub contents: Contents,
    /// Whose format it is, and its version.
    pub format: (Family, u32),
}

impl Spool {
    /// Reads `dump` to its end.
    ///
    /// # Errors
    /// The stream's own, and [`Kind::Tool`] when it is no whole RDB or can't be kept.
    pub fn read(dump: &mut dyn Read, cx: &Cx) -> Result<Self> {
        let file = nameless(&cx.data_dir)?;
        let failed = || format!("can't keep the backup in {}", cx.data_dir.display());
        let mut writer = BufWriter::with_capacity(PIECE_BYTES, &file);
        let mut look = Look::default();
        let mut piece = vec![0; PIECE_BYTES];
        let mut bytes = 0;
        loop {
            let count = match dump.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).doing(Kind::Tool, "can't read the dump"),
            };
            let read = piece.get(..count).unwrap_or_default();
            look.feed(read)?;
            writer.write_all(read).map_err(|error| unwritten(&error, &failed()))?;
            bytes += count as u64;
            cx.world.cancel.check()?;
        }
        look.finish()?;
        writer.flush().map_err(|error| unwritten(&error, &failed()))?;
        drop(writer);
        let (contents, format) = look.into_parts();
        Ok(Self { file, bytes, contents, format })
    }

    /// Goes through all that is in it again.
    ///
    /// # Errors
    /// Those of `sink`, or when the file can't be read.
    pub fn each(&self, sink: &mut dyn FnMut(Event) -> Result<()>) -> Result<()> {
        let mut parser = Parser::new(false);
        let mut piece = vec![0; PIECE_BYTES];
        while parser.position() < self.bytes {
            let count =
                self.file.read_at(&mut piece, parser.position()).doing(Kind::Tool, "can't read the backup again")?;
            if count == 0 {
                break;
            }
            parser.feed(piece.get(..count).unwrap_or_default(), sink)?;
        }
        parser.finish()
    }

    /// The bytes of a part that is known to be small enough.
    ///
    /// # Errors
    /// [`Kind::Tool`] when the file can't be read.
    pub fn part(&self, from: u64, to: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(to.saturating_sub(from)).unwrap_or_default()];
        self.file.read_exact_at(&mut bytes, from).doing(Kind::Tool, "can't read the backup again")?;
        Ok(bytes)
    }

    /// A key's name.
    ///
    /// # Errors
    /// [`Kind::Tool`] when the file can't be read or the name is compressed in a way that is none.
    pub fn name(&self, key: &Key) -> Result<Vec<u8>> {
        let encoded = self.part(key.name.start, key.name.end)?;
        decode(&encoded).ok_or_else(|| Error::new(Kind::Tool, "the name of a key is damaged"))
    }
}

/// An encoded string, decoded.
fn decode(bytes: &[u8]) -> Option<Vec<u8>> {
    let (&first, rest) = bytes.split_first()?;
    match (first >> 6, first & 0x3f) {
        (3, size @ 0..=2) => Some(signed(rest.get(..1 << size)?).to_string().into_bytes()),
        (3, 3) => {
            let (_, rest) = length(rest)?;
            let (size, packed) = length(rest)?;
            unpack(packed, size)
        }
        (3, _) => None,
        _ => length(bytes).map(|(_, rest)| rest.to_vec()),
    }
}

fn length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    let wide = |count: usize| {
        let (number, rest) = rest.split_at_checked(count)?;
        let number = number.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
        Some((usize::try_from(number).ok()?, rest))
    };
    match first {
        0..=0x3f => Some((first.into(), rest)),
        0x40..=0x7f => {
            let (&second, rest) = rest.split_first()?;
            Some((usize::from(first & 0x3f) << 8 | usize::from(second), rest))
        }
        0x80 => wide(4),
        0x81 => wide(8),
        _ => None,
    }
}

/// LZF, as Redis packs long strings.
fn unpack(mut packed: &[u8], size: usize) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    while let Some((&control, rest)) = packed.split_first() {
        packed = rest;
        let control = usize::from(control);
        if control < 32 {
            let (literal, rest) = packed.split_at_checked(control + 1)?;
            out.extend_from_slice(literal);
            packed = rest;
        } else {
            let mut count = control >> 5;
            if count == 7 {
                let (&more, rest) = packed.split_first()?;
                count += usize::from(more);
                packed = rest;
            }
            let (&low, rest) = packed.split_first()?;
            packed = rest;
            let from = out.len().checked_sub(((control & 31) << 8 | usize::from(low)) + 1)?;
            for at in from..from + count + 2 {
                out.push(*out.get(at)?);
            }
        }
        if out.len() > size {
            return None;
        }
    }
    (out.len() == size).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_every_form() {
        assert_eq!(decode(b"\x03abc").unwrap(), b"abc");
        assert_eq!(decode(b"\xc0\xff").unwrap(), b"-1");
        assert_eq!(decode(b"\xc1\x00\x01").unwrap(), b"256");
        assert_eq!(decode(b"\xc2\x00\x00\x00\x80").unwrap(), b"-2147483648");
        assert_eq!(decode(b"\xc3\x05\x09\x00a\xc0\x00\x00").unwrap_or_default(), b"");
        // `a`, then eight more of the byte before.
        assert_eq!(decode(b"\xc3\x04\x09\x00a\xc0\x00").unwrap(), b"aaaaaaaaa");
        assert_eq!(decode(b"\xc3\x04\x09\x00a\xc0\x01"), None, "from before the start");
        assert_eq!(decode(b""), None);
    }
}
