//! The parser against dumps that real servers wrote, cut and damaged everywhere, and against forms that those have not got.

use super::inspector::Look;
use super::*;
use crate::engine::{Findings, Inspector};

/// Small dumps of every server, with every type and encoding that it has.
const DUMPS: [(&str, &[u8], Family, u32); 5] = [
    ("6.2", include_bytes!("../testdata/redis-6.2.rdb"), Family::Redis, 9),
    ("7.0", include_bytes!("../testdata/redis-7.0.rdb"), Family::Redis, 10),
    ("8.0", include_bytes!("../testdata/redis-8.0.rdb"), Family::Redis, 12),
    ("8.1", include_bytes!("../testdata/valkey-8.1.rdb"), Family::Redis, 11),
    ("9.1", include_bytes!("../testdata/valkey-9.1.rdb"), Family::Valkey, 80),
];

fn look(bytes: &[u8], piece: usize) -> Result<Findings> {
    let mut look = Look::default();
    for piece in bytes.chunks(piece) {
        look.feed(piece)?;
    }
    look.finish()
}

#[test]
fn every_server_s_dump_is_whole_in_pieces_of_any_size() {
    for (version, bytes, family, format) in DUMPS {
        let whole = look(bytes, bytes.len()).unwrap();
        assert!(whole.server_version.as_deref().unwrap().starts_with(version), "{whole:?}");
        assert_eq!(whole.end_mark, "EOF opcode, CRC64 agrees");
        let count = |name: &str| whole.counts.get(name).copied().flatten();
        assert_eq!((count("db0"), count("db0 expiring"), count("db9")), (Some(16), Some(1), Some(1)), "{version}");
        assert_eq!(count("functions"), (version != "6.2").then_some(1));
        for piece in [1, 2, 7, 100] {
            assert_eq!(look(bytes, piece).unwrap(), whole, "{version}, {piece}");
        }
        let mut parser = Parser::new(false);
        parser.feed(bytes, &mut |_| Ok(())).unwrap();
        assert_eq!(parser.format(), (family, format));
        assert!(look(&[bytes, b"0"].concat(), 1000).unwrap_err().message.contains("bytes follow its end"));
    }
}

#[test]
fn cut_at_every_byte_it_is_not_whole() {
    for (version, bytes, ..) in DUMPS {
        for length in 0..bytes.len() {
            let error = look(&bytes[..length], 64).unwrap_err();
            assert!(
                error.message.contains("is cut") || error.message.contains("is empty"),
                "{version}, {length}: {error}"
            );
        }
    }
}

#[test]
fn a_flipped_bit_anywhere_is_noticed() {
    for (version, bytes, ..) in DUMPS {
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.to_vec();
                damaged[at] ^= 1 << bit;
                assert!(look(&damaged, 4096).is_err(), "{version}: byte {at}, bit {bit}");
            }
        }
    }
}

/// A dump of these records, without a checksum.
fn dump(format: &[u8], records: &[&[u8]]) -> Vec<u8> {
    [format, &records.concat(), b"\xff\0\0\0\0\0\0\0\0"].concat()
}

#[test]
fn forms_that_the_dumps_have_not_got() {
    let stream = |more: &[u8], group: &[u8], consumer: &[u8]| {
        let ids = [7; 16];
        let pending = [&b"\x01"[..], &ids, &[0; 8], b"\x03"].concat();
        [
            b"\x01k\x01\x01n\x01l\x02\x05\x06",
            more,
            b"\x01\x01g\x01\x02",
            group,
            &pending,
            b"\x01\x01c",
            &[0; 8],
            consumer,
            b"\x01",
            &ids,
        ]
        .concat()
    };
    let records: Vec<(&str, Vec<u8>)> = vec![
        ("seconds", b"\xfd\x01\0\0\0\0\x01k\x01v".to_vec()),
        ("idle and frequency", b"\xf8\x40\xff\xf9\x05\x00\x01k\x80\0\0\0\x01v".to_vec()),
        ("a length of eight bytes", b"\x00\x81\0\0\0\0\0\0\0\x01k\x01v".to_vec()),
        ("old floats", b"\x03\x01k\x04\x01a\x031.5\x01b\xfd\x01c\xfe\x01d\xff".to_vec()),
        ("quicklist of ziplists", b"\x0e\x01k\x02\x01a\x01b".to_vec()),
        (
            "a module's value",
            b"\x07\x01k\x81\0\0\0\0\0\0\0\x09\x02\x05\x01\x06\x03abcd\x04abcdefgh\x05\x02xy\x00".to_vec(),
        ),
        ("a module's data", b"\xf7\x09\x02\x01\x05\x01x\x00\x00\x01k\x01v".to_vec()),
        ("slots", b"\xf4\x01\x02\x03\x00\x01k\x01v".to_vec()),
        ("stream 1", [&b"\x0f"[..], &stream(b"", b"", b"")].concat()),
        ("stream 2", [&b"\x13"[..], &stream(b"\x01\x02\x03\x04\x05", b"\x06", b"")].concat()),
        ("stream 3", [&b"\x15"[..], &stream(b"\x01\x02\x03\x04\x05", b"\x06", &[0; 8])].concat()),
        ("fields before 7.4", b"\x16\x01k\x01\x05\x01f\x01v".to_vec()),
        ("fields before 7.4, small", b"\x17\x01k\x01v".to_vec()),
    ];
    for (name, record) in &records {
        let whole = dump(b"REDIS0012", &[b"\xfe\x00", record]);
        for piece in [1, 3, 1000] {
            let found = look(&whole, piece).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(found.counts.values().flatten().sum::<u64>(), 1, "{name}: {found:?}");
            assert_eq!(found.end_mark, "EOF opcode, no CRC64");
        }
    }
    let fields = dump(b"VALKEY080", &[b"\x16\x01k\x01\x01f\x01v\xff\xff\xff\xff\xff\xff\xff\xff"]);
    assert_eq!(look(&fields, 1).unwrap().counts.len(), 1);
    assert_eq!(look(b"REDIS0004\x00\x01k\x01v\xff", 1).unwrap().counts.len(), 1, "before there was a checksum");
}

#[test]
fn what_is_unknown_is_named_and_not_guessed() {
    let error = |bytes: &[u8]| look(bytes, 1000).unwrap_err();
    for (bytes, said) in [
        (
            dump(b"REDIS0012", &[b"\x1a\x01k"]),
            "type of value that is unknown here, 26, before byte 10 (REDIS, format 12)",
        ),
        (dump(b"VALKEY080", &[b"\x19\x01k"]), "type of value that is unknown here, 25"),
        (dump(b"REDIS0012", &[b"\xf3\x01k"]), "opcode that is unknown here, 243"),
        (dump(b"REDIS0012", &[b"\x07\x01k\x01\x06"]), "value of a module that is unknown here, 6"),
        (dump(b"REDIS0013", &[]), "format REDIS0013; the newest known here is 12"),
        (dump(b"VALKEY081", &[]), "format VALKEY081; the newest known here is 80"),
    ] {
        let error = error(&bytes);
        assert!(error.message.contains(said), "{error}");
        assert!(error.hint.unwrap().contains("upgrade voxeltron-backup"));
    }
    assert!(error(b"PGDMP").message.contains("no dump of Redis"));
    assert!(error(b"REDISxxxx").message.contains("no number"));
    assert!(error(&dump(b"REDIS0012", &[b"\x00\x82"])).message.contains("a length is none"));
    assert!(error(&dump(b"REDIS0012", &[b"\x00\xc4"])).message.contains("form of a string"));
}
