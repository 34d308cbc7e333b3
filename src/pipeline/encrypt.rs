//! Encryption and its opposite: Tink's streaming AEAD, AES256_GCM_HKDF_1MB, behind our header. Flows in: a stream and a
//! key. Flows out: the other stream. A segment leaves the opener only after its tag has held, and the stream ends only
//! where the sealed one did.

use std::io::{self, Read};

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce};

use super::{Outbox, Sticky, read_full};
use crate::error::{Error, Kind, Result};
use crate::format::key::Key;
use crate::world::World;

/// Ciphertext bytes in a segment, its tag included.
const SEGMENT_BYTES: usize = 1024 * 1024;
/// The tag's length.
const TAG_BYTES: usize = 16;
/// The salt's length.
const SALT_BYTES: usize = 32;
/// The random part of every nonce.
const PREFIX_BYTES: usize = 7;
/// What stands before the first segment: its own length in one byte, the salt, the nonce prefix.
const HEAD_BYTES: usize = 1 + SALT_BYTES + PREFIX_BYTES;

/// The state that both directions share: cipher, nonce prefix, number of the next segment.
struct Segments {
    cipher: Aes256Gcm,
    prefix: [u8; PREFIX_BYTES],
    next: u32,
}

impl Segments {
    fn new(key: &Key, salt: &[u8], prefix: [u8; PREFIX_BYTES], associated_data: &[u8]) -> Result<Self> {
        let cipher = Aes256Gcm::new_from_slice(&key.stream_key(salt, associated_data)[..])
            .map_err(|_| Error::other("can't set the cipher up"))?;
        Ok(Self { cipher, prefix, next: 0 })
    }

    /// How long the next segment may be, its tag included: the head takes its place from the first.
    fn capacity(&self) -> usize {
        if self.next == 0 { SEGMENT_BYTES - HEAD_BYTES } else { SEGMENT_BYTES }
    }

    fn nonce(&self, last: bool) -> Nonce<aes_gcm::aead::consts::U12> {
        let mut nonce = [0u8; 12];
        let parts = self.prefix.iter().copied().chain(self.next.to_be_bytes()).chain([u8::from(last)]);
        nonce.iter_mut().zip(parts).for_each(|(to, from)| *to = from);
        nonce.into()
    }

    fn step(&mut self) -> Result<()> {
        self.next = self.next.checked_add(1).ok_or_else(|| Error::other("a backup can't be larger than 4 PiB"))?;
        Ok(())
    }
}

/// Reads segments one ahead, so that the last one is known when it comes.
struct Ahead<R> {
    inner: R,
    carry: Option<u8>,
}

impl<R: Read> Ahead<R> {
    /// Fills `buffer` with up to `capacity` bytes and says whether the stream ends there.
    fn segment(&mut self, buffer: &mut Vec<u8>, capacity: usize) -> io::Result<bool> {
        buffer.clear();
        buffer.extend(self.carry.take());
        let had = buffer.len();
        buffer.resize(capacity, 0);
        let count = match buffer.get_mut(had..) {
            Some(rest) => read_full(&mut self.inner, rest)?,
            None => 0,
        };
        buffer.truncate(had + count);
        if buffer.len() < capacity {
            return Ok(true);
        }
        let mut one = [0u8; 1];
        self.carry = (read_full(&mut self.inner, &mut one)? == 1).then_some(one[0]);
        Ok(self.carry.is_none())
    }
}

/// A reader of the sealed stream: what stands before it, then head and segments.
pub struct Sealer<R> {
    input: Ahead<R>,
    segments: Segments,
    out: Outbox,
    ended: bool,
    failed: Sticky,
}

impl<R: Read> Sealer<R> {
    /// Seals under a key derived from `key` and a random salt; `before` is authenticated and comes out first.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn new(inner: R, key: &Key, before: Vec<u8>, world: &World) -> Result<Self> {
        let mut salt = [0u8; SALT_BYTES];
        let mut prefix = [0u8; PREFIX_BYTES];
        world.random.fill(&mut salt)?;
        world.random.fill(&mut prefix)?;
        let segments = Segments::new(key, &salt, prefix, &before)?;
        let mut start = before;
        start.push(HEAD_BYTES as u8);
        start.extend(salt);
        start.extend(prefix);
        let mut out = Outbox::default();
        out.refill(start);
        Ok(Self { input: Ahead { inner, carry: None }, segments, out, ended: false, failed: Sticky::default() })
    }

    fn next_segment(&mut self) -> io::Result<()> {
        let mut buffer = self.out.refill(Vec::new());
        let last = self.input.segment(&mut buffer, self.segments.capacity() - TAG_BYTES)?;
        let nonce = self.segments.nonce(last);
        self.segments
            .cipher
            .encrypt_in_place(&nonce, b"", &mut buffer)
            .map_err(|_| Error::other("can't encrypt a segment").into_io())?;
        self.segments.step().map_err(Error::into_io)?;
        self.out.refill(buffer);
        self.ended = last;
        Ok(())
    }
}

impl<R: Read> Read for Sealer<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.failed.check()?;
        if self.out.is_empty()
            && !self.ended
            && !buffer.is_empty()
            && let Err(error) = self.next_segment()
        {
            return Err(self.failed.keep(Error::from_io(error, Kind::Other, "can't encrypt")));
        }
        Ok(self.out.read(buffer))
    }
}

/// A reader of what was sealed.
pub struct Opener<R> {
    input: Ahead<R>,
    segments: Segments,
    out: Outbox,
    ended: bool,
    failed: Sticky,
}

impl<R: Read> Opener<R> {
    /// Opens a stream whose header has already been read from `inner`; `before` is the header's bytes.
    ///
    /// # Errors
    /// [`Kind::Authentication`] when the stream's head is cut or damaged; the reader's own errors.
    pub fn new(mut inner: R, key: &Key, before: &[u8]) -> Result<Self> {
        let mut head = [0u8; HEAD_BYTES];
        let count = read_full(&mut inner, &mut head)
            .map_err(|error| Error::from_io(error, Kind::Target, "can't read the backup"))?;
        if count < HEAD_BYTES {
            return Err(Error::new(Kind::Authentication, "the backup is cut behind its header"));
        }
        let mut prefix = [0u8; PREFIX_BYTES];
        let (length, rest) = head.split_first().unwrap_or((&0, &[]));
        if usize::from(*length) != HEAD_BYTES {
            return Err(Error::new(Kind::Authentication, "the backup is damaged behind its header"));
        }
        let (salt, random) = rest.split_at(SALT_BYTES);
        prefix.copy_from_slice(random);
        let segments = Segments::new(key, salt, prefix, before)?;
        let input = Ahead { inner, carry: None };
        Ok(Self { input, segments, out: Outbox::default(), ended: false, failed: Sticky::default() })
    }

    fn next_segment(&mut self) -> io::Result<()> {
        let mut buffer = self.out.refill(Vec::new());
        let last = self.input.segment(&mut buffer, self.segments.capacity())?;
        if self.open(&mut buffer, last).is_err() {
            return Err(self.explain(last).into_io());
        }
        self.segments.step().map_err(Error::into_io)?;
        self.out.refill(buffer);
        self.ended = last;
        Ok(())
    }

    fn open(&self, buffer: &mut Vec<u8>, last: bool) -> Result<(), aes_gcm::Error> {
        self.segments.cipher.decrypt_in_place(&self.segments.nonce(last), b"", buffer)
    }

    /// Why a segment does not hold. What is there can't tell a cut from a change for sure, so it says where.
    fn explain(&self, last: bool) -> Error {
        let number = u64::from(self.segments.next) + 1;
        let why = if last {
            format!("segment {number}, where the backup ends, does not authenticate: it is cut there, or was changed")
        } else {
            format!("segment {number} does not authenticate: it was changed, moved, or belongs to another backup")
        };
        Error::new(Kind::Authentication, why).hint("take another copy or an earlier backup: voxeltron-backup list")
    }
}

impl<R: Read> Read for Opener<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.failed.check()?;
        while self.out.is_empty() && !self.ended && !buffer.is_empty() {
            if let Err(error) = self.next_segment() {
                return Err(self.failed.keep(Error::from_io(error, Kind::Target, "can't read the backup")));
            }
        }
        Ok(self.out.read(buffer))
    }
}

impl<R> std::fmt::Debug for Sealer<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").field("next", &self.segments.next).finish_non_exhaustive()
    }
}

impl<R> std::fmt::Debug for Opener<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opener").field("next", &self.segments.next).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &[u8] = b"what stands before";
    /// Plaintext bytes in the first and in every later segment.
    const FIRST: usize = SEGMENT_BYTES - HEAD_BYTES - TAG_BYTES;
    const LATER: usize = SEGMENT_BYTES - TAG_BYTES;

    fn key() -> Key {
        Key::new([9; 32])
    }

    fn seal(data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        Sealer::new(data, &key(), BEFORE.to_vec(), &World::system()).unwrap().read_to_end(&mut out).unwrap();
        out
    }

    fn open(sealed: &[u8]) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        let mut opener = Opener::new(sealed.get(BEFORE.len()..).unwrap_or_default(), &key(), BEFORE)?;
        opener.read_to_end(&mut out).map_err(|error| Error::from_io(error, Kind::Other, ""))?;
        Ok(out)
    }

    fn data(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at % 251) as u8).collect()
    }

    #[test]
    fn every_length_round_the_edges_comes_back() {
        for edge in [0, FIRST, FIRST + LATER, FIRST + 2 * LATER] {
            for length in [edge.saturating_sub(1), edge, edge + 1] {
                let data = data(length);
                let sealed = seal(&data);
                assert!(open(&sealed).unwrap() == data, "{length}");
            }
        }
        assert_eq!(seal(b"").len() - BEFORE.len(), 56);
    }

    #[test]
    fn a_cut_anywhere_round_an_edge_is_refused() {
        let sealed = seal(&data(FIRST + LATER + 100));
        for edge in [
            BEFORE.len(),
            BEFORE.len() + HEAD_BYTES,
            BEFORE.len() + SEGMENT_BYTES,
            BEFORE.len() + 2 * SEGMENT_BYTES,
            sealed.len(),
        ] {
            for length in edge.saturating_sub(17)..(edge + 17).min(sealed.len()) {
                let error = open(&sealed[..length]).unwrap_err();
                assert_eq!(error.kind, Kind::Authentication, "cut at {length}");
            }
        }
    }

    #[test]
    fn a_flipped_bit_a_swap_a_repeat_and_an_extra_byte_are_refused() {
        let sealed = seal(&data(FIRST + 2 * LATER + 100));
        let start = BEFORE.len();
        for at in [
            start,
            start + 1,
            start + 33,
            start + 40,
            start + SEGMENT_BYTES - 1,
            start + SEGMENT_BYTES,
            sealed.len() - 1,
        ] {
            let mut bad = sealed.clone();
            bad[at] ^= 1;
            assert!(open(&bad).is_err(), "bit at {at}");
        }
        let (second, third) = (start + SEGMENT_BYTES, start + 2 * SEGMENT_BYTES);
        let mut swapped = sealed.clone();
        swapped[second..].rotate_left(SEGMENT_BYTES);
        assert!(open(&swapped).unwrap_err().message.contains("segment 2"));
        let repeated = [&sealed[..third], &sealed[second..]].concat();
        assert!(open(&repeated).unwrap_err().message.contains("segment 3"));
        assert!(open(&[&sealed[..], b"x"].concat()).is_err());
        assert!(Opener::new(&sealed[start..], &Key::new([8; 32]), BEFORE).unwrap().read(&mut [0; 9]).is_err());
        assert!(Opener::new(&sealed[start..], &key(), b"other").unwrap().read(&mut [0; 9]).is_err());
    }
}
