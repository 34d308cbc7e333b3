//! Meters: count what passes, digest it, and compare it with what was promised. Flows in and out: the same bytes.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest, Sha256};

use super::Sticky;
use crate::error::{Error, Kind};
use crate::format::hex;
use crate::report::Progress;

/// What has passed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// How many bytes.
    pub bytes: u64,
    /// Their SHA-256 in hex, where it was asked for.
    pub sha256: Option<String>,
}

/// Where a meter's result appears once its stream has ended well.
#[derive(Clone, Debug, Default)]
pub struct MeasuredCell(Arc<Mutex<Option<Measured>>>);

impl MeasuredCell {
    /// The result, if the stream has ended well.
    pub fn get(&self) -> Option<Measured> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What must have passed when the stream ends.
#[derive(Clone, Debug)]
pub struct Expected {
    /// What is measured, for the message: `the backup`, `the dump`.
    pub what: &'static str,
    /// How many bytes.
    pub bytes: u64,
    /// Their SHA-256 in hex.
    pub sha256: Option<String>,
}

/// Counts and digests what passes.
#[derive(Debug)]
pub struct Meter<R> {
    inner: R,
    bytes: u64,
    digest: Option<Sha256>,
    expected: Option<Expected>,
    progress: Option<Progress>,
    result: MeasuredCell,
    failed: Sticky,
}

impl<R: Read> Meter<R> {
    /// Counts only.
    pub fn counting(inner: R) -> Self {
        let result = MeasuredCell::default();
        Self { inner, bytes: 0, digest: None, expected: None, progress: None, result, failed: Sticky::default() }
    }

    /// Counts and digests.
    pub fn digesting(inner: R) -> Self {
        Self { digest: Some(Sha256::new()), ..Self::counting(inner) }
    }

    /// Turns a stream that ends with anything but what is expected into an error.
    pub fn expecting(inner: R, expected: Expected) -> Self {
        let digest = expected.sha256.is_some().then(Sha256::new);
        Self { digest, expected: Some(expected), ..Self::counting(inner) }
    }

    /// Shows the bytes on a bar.
    #[must_use]
    pub fn with_progress(self, progress: Progress) -> Self {
        Self { progress: Some(progress), ..self }
    }

    /// Where the result will be.
    pub fn result(&self) -> MeasuredCell {
        self.result.clone()
    }

    fn ended(&mut self) -> io::Result<usize> {
        let sha256 = self.digest.take().map(|digest| hex(&digest.finalize()));
        if let Some(expected) = self.expected.take()
            && let Some(error) = differs(&expected, self.bytes, sha256.as_deref())
        {
            return Err(self.failed.keep(error));
        }
        let mut result = self.result.0.lock().unwrap_or_else(PoisonError::into_inner);
        result.get_or_insert(Measured { bytes: self.bytes, sha256 });
        Ok(0)
    }
}

fn differs(expected: &Expected, bytes: u64, sha256: Option<&str>) -> Option<Error> {
    let (what, promised) = (expected.what, expected.bytes);
    let why = if bytes < promised {
        format!("{what} is cut: {bytes} of the manifest's {promised} bytes are there")
    } else if bytes > promised {
        format!("{what} has {bytes} bytes, more than the manifest's {promised}")
    } else if expected.sha256.as_deref() != sha256 {
        format!("{what} was changed: its SHA-256 is not the manifest's")
    } else {
        return None;
    };
    Some(Error::new(Kind::Authentication, why))
}

impl<R: Read> Read for Meter<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.failed.check()?;
        if buffer.is_empty() {
            return Ok(0);
        }
        let count = self.inner.read(buffer).map_err(|error| self.failed.pass(error))?;
        if count == 0 {
            return self.ended();
        }
        self.bytes += count as u64;
        if let Some(digest) = &mut self.digest {
            digest.update(buffer.get(..count).unwrap_or_default());
        }
        if let Some(progress) = &self.progress {
            progress.add(count as u64);
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(expected: u64, sha256: Option<&str>) -> Result<usize, String> {
        let expected = Expected { what: "it", bytes: expected, sha256: sha256.map(str::to_owned) };
        let mut meter = Meter::expecting(&b"abc"[..], expected);
        let mut out = Vec::new();
        let first = meter.read_to_end(&mut out).map_err(|error| error.to_string());
        let again = meter.read(&mut [0; 8]).map_err(|error| error.to_string());
        assert_eq!(first.clone().err(), again.err(), "an error stays");
        first
    }

    #[test]
    fn tells_cut_from_long_from_changed() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(read(3, Some(abc)), Ok(3));
        assert!(read(4, Some(abc)).unwrap_err().contains("3 of the manifest's 4"));
        assert!(read(2, None).unwrap_err().contains("more than"));
        assert!(read(3, Some("00")).unwrap_err().contains("SHA-256"));
    }
}
