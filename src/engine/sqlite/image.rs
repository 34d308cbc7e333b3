//! A database image as it passes: the dump of this engine is the database file itself. Flows in: its bytes. Flows out:
//! whether they are whole. SQLite's format has no end mark, but its header says how many pages there are, and exactly
//! so many must come. Touches nothing.

use crate::engine::{Counts, Findings, Inspector};
use crate::error::{Error, Kind, Result};

/// How long the header is, in bytes.
pub(super) const HEADER_BYTES: usize = 100;
/// How every database begins.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// Where the file format's write and read versions stand: 1 is a rollback journal, 2 is WAL.
const VERSIONS_AT: usize = 18;
/// Three numbers that are the same in every database, and where they stand.
const FIXED_AT: usize = 21;
const FIXED: [u8; 3] = [64, 32, 32];
const CHANGES_AT: usize = 24;
const PAGES_AT: usize = 28;
const VALID_FOR_AT: usize = 92;

/// A fresh inspector of SQLite images.
pub(super) fn inspector() -> Box<dyn Inspector> {
    Box::new(ImageInspector::default())
}

/// What the header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Bytes in a page.
    pub(super) page_bytes: u64,
    /// Pages in the file, where the header can be trusted: software older than SQLite 3.7.0 did not keep it.
    pub(super) pages: Option<u64>,
    /// Whether it is kept in WAL mode.
    pub(super) is_wal: bool,
}

impl Header {
    /// Reads the first bytes of a file; a short one is an error.
    pub(super) fn read(bytes: &[u8]) -> Result<Self> {
        let damaged = |what: &str| Error::new(Kind::Tool, format!("the dump is no SQLite database: {what}"));
        if bytes.get(..MAGIC.len()) != Some(MAGIC) {
            return Err(damaged("it does not begin with \"SQLite format 3\""));
        }
        let (Some(size), Some([write, read])) = (short(bytes, 16), bytes.get(VERSIONS_AT..VERSIONS_AT + 2)) else {
            return Err(damaged("its header is cut"));
        };
        let (Some(changes), Some(pages), Some(valid_for)) =
            (long(bytes, CHANGES_AT), long(bytes, PAGES_AT), long(bytes, VALID_FOR_AT))
        else {
            return Err(damaged("its header is cut"));
        };
        let page_bytes = match size {
            1 => 65_536,
            size if size.is_power_of_two() && size >= 512 => u64::from(size),
            _ => return Err(damaged(&format!("a page can't have {size} bytes"))),
        };
        if !(1..=2).contains(write) || !(1..=2).contains(read) || bytes.get(FIXED_AT..FIXED_AT + 3) != Some(&FIXED) {
            return Err(damaged("its header is of an unknown version"));
        }
        let pages = (changes == valid_for && pages > 0).then_some(u64::from(pages));
        Ok(Self { page_bytes, pages, is_wal: *read == 2 })
    }
}

/// Makes the first page say how many pages there are, as SQLite's own next write would, if it does not: only then can
/// a reader see that the image was cut.
pub(super) fn vouch_for_pages(page: &mut [u8], pages: u64) {
    let (changes, written) = (long(page, CHANGES_AT), long(page, PAGES_AT));
    let trusted = changes == long(page, VALID_FOR_AT) && written.map(u64::from) == Some(pages);
    if let (false, Some(changes), Ok(pages)) = (trusted, changes, u32::try_from(pages)) {
        put(page, PAGES_AT, &pages.to_be_bytes());
        put(page, VALID_FOR_AT, &changes.to_be_bytes());
    }
}

/// Where the two bytes of the journal's kind stand, and what they are.
pub(super) fn versions(is_wal: bool) -> (u64, [u8; 2]) {
    (VERSIONS_AT as u64, if is_wal { [2, 2] } else { [1, 1] })
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Reads the header, then counts.
#[derive(Debug, Default)]
struct ImageInspector {
    start: Vec<u8>,
    header: Option<Header>,
    total: u64,
}

impl ImageInspector {
    fn sizes(&self, header: Header) -> Result<u64> {
        let Header { page_bytes, pages, .. } = header;
        let whole = self.total / page_bytes;
        if !self.total.is_multiple_of(page_bytes) || pages.is_some_and(|pages| pages != whole) {
            let wanted = pages.map_or_else(|| "whole".to_owned(), |pages| pages.to_string());
            let message = format!("the dump is cut: {} bytes are not {wanted} pages of {page_bytes} bytes", self.total);
            return Err(Error::new(Kind::Tool, message));
        }
        Ok(whole)
    }
}

impl Inspector for ImageInspector {
    fn feed(&mut self, bytes: &[u8]) -> Result<()> {
        self.total += bytes.len() as u64;
        if self.header.is_none() {
            let missing = HEADER_BYTES.saturating_sub(self.start.len()).min(bytes.len());
            self.start.extend_from_slice(bytes.get(..missing).unwrap_or_default());
            if self.start.len() >= HEADER_BYTES {
                self.header = Some(Header::read(&self.start)?);
            }
        }
        match self.header {
            Some(Header { page_bytes, pages: Some(pages), .. }) if self.total > page_bytes * pages => {
                let message = format!("the dump is longer than its {pages} pages of {page_bytes} bytes");
                Err(Error::new(Kind::Tool, message))
            }
            _ => Ok(()),
        }
    }

    fn finish(&mut self) -> Result<Findings> {
        if self.total == 0 {
            return Err(Error::new(Kind::Tool, "the dump is empty"));
        }
        let header = match self.header {
            Some(header) => header,
            None => Header::read(&self.start)?,
        };
        let pages = self.sizes(header)?;
        Ok(Findings {
            end_mark: format!("{}-byte pages: {pages} of {}", header.page_bytes, header.pages.unwrap_or(pages)),
            tool_version: None,
            server_version: None,
            counts: Counts::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A real database, small enough to be cut at every byte.
    fn image(page_bytes: u32) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        let db = rusqlite::Connection::open(&path).unwrap();
        db.execute_batch(&format!("PRAGMA page_size={page_bytes}; CREATE TABLE t(a); INSERT INTO t VALUES(1);"))
            .unwrap();
        drop(db);
        std::fs::read(path).unwrap()
    }

    fn inspect(bytes: &[u8], step: usize) -> Result<Findings> {
        let mut inspector = inspector();
        bytes.chunks(step.max(1)).try_for_each(|chunk| inspector.feed(chunk))?;
        inspector.finish()
    }

    #[test]
    fn a_whole_image_is_whole_at_every_page_size() {
        for size in [512u32, 1024, 4096, 32_768, 65_536] {
            let findings = inspect(&image(size), 7_000).unwrap();
            assert_eq!(findings.end_mark, format!("{size}-byte pages: 2 of 2"));
            assert!(findings.counts.is_empty());
        }
    }

    #[test]
    fn a_cut_at_any_byte_is_an_error() {
        let image = image(512);
        for length in 0..image.len() {
            for step in [1, 64, 4096] {
                assert!(inspect(image.get(..length).unwrap(), step).is_err(), "{length} bytes passed");
            }
        }
    }

    #[test]
    fn what_follows_the_last_page_is_an_error() {
        let mut image = image(512);
        image.push(0);
        assert_eq!(inspect(&image, 100).unwrap_err().message, "the dump is longer than its 2 pages of 512 bytes");
    }

    #[test]
    fn messages_say_what_is_wrong() {
        for (bytes, message) in [
            (&b""[..], "the dump is empty"),
            (&[0u8; 100][..], "the dump is no SQLite database: it does not begin with \"SQLite format 3\""),
            (&MAGIC[..], "the dump is no SQLite database: its header is cut"),
        ] {
            assert_eq!(inspect(bytes, 10).unwrap_err().message, message);
        }
        let cut = image(512);
        let cut = cut.get(..900).unwrap();
        assert_eq!(inspect(cut, 10).unwrap_err().message, "the dump is cut: 900 bytes are not 2 pages of 512 bytes");
    }

    #[test]
    fn without_a_trusted_count_only_whole_pages_pass_until_it_is_vouched_for() {
        let mut old = image(512);
        put(&mut old, VALID_FOR_AT, &[0xff; 4]);
        put(&mut old, PAGES_AT, &[0; 4]);
        assert_eq!(inspect(&old, 512).unwrap().end_mark, "512-byte pages: 2 of 2");
        assert!(inspect(old.get(..512).unwrap(), 512).is_ok());
        assert!(inspect(old.get(..700).unwrap(), 512).is_err());
        vouch_for_pages(&mut old, 2);
        assert!(inspect(&old, 512).is_ok());
        assert!(inspect(old.get(..512).unwrap(), 512).is_err());
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..2_000), step in 1usize..300) {
            drop(inspect(&bytes, step));
            let mut headed = image(512);
            let from = bytes.len() % 110;
            headed.splice(from..from + 1, bytes.iter().copied().take(8));
            drop(inspect(&headed, step));
            vouch_for_pages(&mut headed, bytes.len() as u64);
        }

        #[test]
        fn pieces_do_not_matter(step in 1usize..1_100) {
            let image = image(512);
            prop_assert_eq!(inspect(&image, step).unwrap(), inspect(&image, image.len()).unwrap());
        }
    }
}
