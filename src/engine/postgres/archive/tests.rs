//! Real archives of several versions: whole, cut at every byte, with every bit flipped.

use super::*;

const PG15: &[u8] = include_bytes!("../testdata/pg15.pgdump");
const ALL: [(&[u8], &str); 4] = [
    (PG15, "15.18 (Debian 15.18-0+deb12u1)"),
    (include_bytes!("../testdata/pg16.pgdump"), "16.2"),
    (include_bytes!("../testdata/pg18.pgdump"), "18.6"),
    (include_bytes!("../testdata/pg15-gzip.pgdump"), "15.18 (Debian 15.18-0+deb12u1)"),
];

fn read(bytes: &[u8], piece: usize) -> Result<(Findings, Archive)> {
    let mut archive = Archive::default();
    for piece in bytes.chunks(piece) {
        archive.feed(piece)?;
    }
    archive.finish().map(|findings| (findings, archive))
}

#[test]
fn every_version_is_read_the_same_however_it_is_cut() {
    for (bytes, version) in ALL {
        let gzip = bytes == ALL[3].0;
        for piece in [1, 2, 3, 7, 64, bytes.len()] {
            let (findings, archive) = read(bytes, piece).unwrap_or_else(|error| panic!("{version}: {error}"));
            assert_eq!(findings.tool_version.as_deref(), Some(version));
            assert_eq!(findings.server_version.as_deref(), Some(version));
            let rows = |count| if gzip { None } else { Some(count) };
            let expected =
                [("\"S.x\".e ü", rows(0)), ("large objects", Some(2)), ("public.a", rows(3)), ("public.one", rows(1))];
            let counts: Vec<_> = findings.counts.iter().map(|(key, count)| (key.as_str(), *count)).collect();
            assert_eq!(counts, expected, "{version}");
            assert!(findings.end_mark.ends_with(" entries, 4 blocks of data, each whole"), "{}", findings.end_mark);
            let database = archive.database();
            assert_eq!((database.name.as_str(), database.owner.as_str()), ("small", "postgres"));
            assert!(database.create.starts_with("CREATE DATABASE small WITH TEMPLATE = template0 ENCODING"));
            assert_eq!(database.properties.len(), 3, "{database:?}");
            assert!(!database.illegible && !database.backslashes_doubled);
        }
    }
}

#[test]
fn cut_at_every_byte_it_is_not_whole() {
    for (bytes, version) in ALL {
        for end in 0..bytes.len() {
            let error = read(&bytes[..end], 61).expect_err("a cut archive");
            assert_eq!(error.kind, Kind::Tool);
            assert!(error.message.contains("not whole") || end == 0, "{version} at {end}: {error}");
        }
        let mut longer = bytes.to_vec();
        longer.push(0);
        assert!(read(&longer, 61).expect_err("too long").message.contains("something follows its end"));
    }
}

#[test]
fn no_flipped_bit_is_a_panic_and_few_pass() {
    let mut passed = 0;
    for at in 0..PG15.len() {
        for bit in 0..8 {
            let mut bytes = PG15.to_vec();
            bytes[at] ^= 1 << bit;
            passed += usize::from(read(&bytes, 4096).is_ok());
        }
    }
    // What stands in a text or a row can change without harm to the structure: that is the digest's to notice.
    assert!(passed > 0 && passed < PG15.len() * 8);
}

#[test]
fn what_cannot_be_read_is_named() {
    let change = |at: usize, to: u8| {
        let mut bytes = PG15.to_vec();
        bytes[at] = to;
        read(&bytes, 4096).expect_err("changed").message
    };
    assert_eq!(change(0, b'X'), "this is no dump in pg_dump's custom format");
    assert_eq!(change(6, 17), "pg_dump's archive version 1.17 is not known here");
    assert_eq!(change(6, 11), "pg_dump's archive version 1.11 is not known here");
    assert_eq!(change(10, 3), "this archive of pg_dump is not in the custom format");
    assert_eq!(read(b"", 1).expect_err("empty").message, "the dump is empty");
    assert_eq!(
        read(&PG15[..PG15.len() - 1], 4096).expect_err("cut").message,
        format!("the dump is not whole: it ends in BLOBS BLOBS (after {} bytes)", PG15.len() - 1)
    );
}

proptest::proptest! {
    #[test]
    fn random_bytes_never_panic(tail: Vec<u8>, keep in 0..PG15.len(), piece in 1..50usize) {
        let _ = read(&tail, piece);
        let mut bytes = PG15[..keep].to_vec();
        bytes.extend_from_slice(&tail);
        let _ = read(&bytes, piece);
    }
}
