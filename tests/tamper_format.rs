//! Whatever is done to a backup, the format alone refuses it as what it is (what the program makes of it stands in
//! `tamper.rs`): every way has a message of its own, and all of them are
//! kept in `tests/snapshots`, to be read by people.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::collections::BTreeSet;
use std::sync::OnceLock;

use common::sample::{self, Backup, HEAD, Recipe, SEGMENT, TAG, key, noise, rows};
use voxeltron_backup::error::{Error, Kind};
use voxeltron_backup::format::header::Header;
use voxeltron_backup::format::key::{Key, Keyring};
use voxeltron_backup::format::manifest::{self, Signed, Trust};
use voxeltron_backup::format::name::{BackupId, Owner};

fn keys() -> Keyring {
    Keyring::new([key()])
}

/// Encrypted, compressed, signed, of three segments; made once, since every case only changes a copy. Its randomness is
/// fixed, so that a flipped bit always falls on the same byte.
fn good() -> &'static Backup {
    static GOOD: OnceLock<Backup> = OnceLock::new();
    GOOD.get_or_init(|| Recipe::default().fixed(1).build(&noise(2_300_000)))
}

/// With the manifest, as a restore reads it, and by the format alone, as one who has lost the manifest.
fn open(object: &[u8]) -> [Result<Vec<u8>, Error>; 2] {
    let good = good();
    let whole = sample::open(object, &good.manifest, &good.owner, &good.id, &keys());
    [whole, sample::open_without_manifest(object, &keys())]
}

/// The two messages of what must be refused both ways.
fn refused(what: &str, object: &[u8]) -> [String; 2] {
    assert!(object != good().object, "{what} changes something");
    open(object).map(|outcome| match outcome {
        Ok(_) => panic!("{what} was taken"),
        Err(error) => {
            assert_eq!(error.kind, Kind::Authentication, "{what}: {error:?}");
            error.message
        }
    })
}

/// The same message with another number in it is the same message.
fn without_numbers(message: &str) -> String {
    let mut out = String::new();
    for c in message.chars() {
        match c {
            '0'..='9' if out.ends_with('#') => {}
            '0'..='9' => out.push('#'),
            c => out.push(c),
        }
    }
    out
}

/// Two messages under a heading, for the snapshots.
fn shown(what: &str, [whole, alone]: [String; 2]) -> String {
    format!("{what}\n  with its manifest:    {whole}\n  without a manifest:   {alone}\n")
}

#[test]
fn untouched_it_opens() {
    assert_eq!(good().segments(), 3);
    for outcome in open(&good().object) {
        assert!(outcome.unwrap() == noise(2_300_000));
    }
}

#[test]
fn a_cut_anywhere_round_an_edge_is_refused() {
    let good = good();
    let mut edges = vec![good.header_bytes, good.header_bytes + 1, good.header_bytes + HEAD];
    edges.extend((0..good.segments()).map(|number| good.segment(number).end));
    let mut cuts: BTreeSet<usize> = (0..good.header_bytes).collect();
    cuts.extend(edges.iter().flat_map(|edge| edge - 17..=edge + 17).filter(|at| *at < good.object.len()));
    let mut messages = BTreeSet::new();
    for at in cuts {
        messages
            .insert(refused(&format!("a cut at {at}"), &good.object[..at]).map(|message| without_numbers(&message)));
    }
    let text: Vec<String> = messages.into_iter().map(|messages| shown("cut", messages)).collect();
    insta::assert_snapshot!(text.join("\n"));
}

#[test]
fn a_flipped_bit_anywhere_is_refused() {
    let good = good();
    let json = String::from_utf8_lossy(&good.object[12..good.header_bytes]).into_owned();
    let in_json = |part: &str| 12 + json.find(part).unwrap();
    let mut places = vec![
        ("the magic's first byte".to_owned(), 0),
        ("the magic's version".to_owned(), 7),
        ("the length, much too long".to_owned(), 8),
        ("the length, a little off".to_owned(), 11),
        ("the header's first brace".to_owned(), 12),
        ("the header's format".to_owned(), in_json("1,")),
        ("the header's instance".to_owned(), in_json("host")),
        ("the header's database".to_owned(), in_json("shop\"")),
        ("the header's id".to_owned(), in_json("20260225T")),
        ("the header's engine".to_owned(), in_json("postgres")),
        ("the header's date".to_owned(), in_json("2026-02") + 3),
        ("the header's compression".to_owned(), in_json("gzip")),
        ("the header's key id".to_owned(), in_json(&key().id())),
        ("the stream's own length".to_owned(), good.header_bytes),
        ("the salt's first byte".to_owned(), good.header_bytes + 1),
        ("the salt's last byte".to_owned(), good.header_bytes + 32),
        ("the nonce prefix's first byte".to_owned(), good.header_bytes + 33),
        ("the nonce prefix's last byte".to_owned(), good.header_bytes + 39),
    ];
    for number in 0..good.segments() {
        let segment = good.segment(number);
        let name = number + 1;
        places.push((format!("segment {name}'s first byte"), segment.start));
        places.push((format!("segment {name}'s middle"), segment.start + segment.len() / 2));
        places.push((format!("segment {name}'s last byte before its tag"), segment.end - TAG - 1));
        places.push((format!("segment {name}'s tag, first byte"), segment.end - TAG));
        places.push((format!("segment {name}'s tag, last byte"), segment.end - 1));
    }
    let mut text = Vec::new();
    for (what, at) in places {
        // What is parsed may take each bit another way; what is only authenticated can't.
        let bits = if at < good.header_bytes { 0..8 } else { 1..2 };
        for bit in bits {
            let mut bad = good.object.clone();
            bad[at] ^= 1 << bit;
            let messages = refused(&format!("{what}, bit {bit}"), &bad);
            if bit == 1 {
                text.push(shown(&what, messages));
            }
        }
    }
    insta::assert_snapshot!(text.join("\n"));
}

#[test]
fn segments_out_of_order_are_refused() {
    let good = good();
    let segments: Vec<&[u8]> = (0..good.segments()).map(|number| &good.object[good.segment(number)]).collect();
    let start = &good.object[..good.header_bytes + HEAD];
    let joined = |order: &[usize]| {
        let parts: Vec<&[u8]> = order.iter().map(|number| segments[*number]).collect();
        [start, &parts.concat()].concat()
    };
    assert!(joined(&[0, 1, 2]) == good.object);
    let mut text = Vec::new();
    for (what, order) in [
        ("segments 2 and 3 exchanged", &[0, 2, 1][..]),
        ("segments 1 and 2 exchanged", &[1, 0, 2]),
        ("segment 2 twice", &[0, 1, 1, 2]),
        ("segment 1 in the place of 2", &[0, 0, 2]),
        ("the last segment twice", &[0, 1, 2, 2]),
        ("segment 1 dropped", &[1, 2]),
        ("segment 2 dropped", &[0, 2]),
        ("the last segment dropped", &[0, 1]),
        ("only the last segment left", &[2]),
        ("only the first segment left", &[0]),
        ("no segment left", &[]),
        ("the last segment first", &[2, 0, 1]),
    ] {
        text.push(shown(what, refused(what, &joined(order))));
    }
    let what = "one byte more";
    text.push(shown(what, refused(what, &[&good.object[..], b"x"].concat())));
    let what = "the whole backup twice";
    text.push(shown(what, refused(what, &[&good.object[..], &good.object].concat())));
    insta::assert_snapshot!(text.join("\n"));
}

#[test]
fn segments_of_another_backup_are_refused() {
    let good = good();
    // The same key, names and data; only salt and nonce prefix differ, as between any two backups.
    let other = Recipe::default().fixed(99).build(&noise(2_300_000));
    assert_eq!(good.object.len(), other.object.len());
    let mut text = Vec::new();
    for number in 0..good.segments() {
        let segment = good.segment(number);
        let mut bad = good.object.clone();
        bad[segment.clone()].copy_from_slice(&other.object[segment]);
        let what = format!("segment {} of another backup", number + 1);
        text.push(shown(&what, refused(&what, &bad)));
    }
    let head = good.header_bytes..good.header_bytes + HEAD;
    let mut bad = good.object.clone();
    bad[head.clone()].copy_from_slice(&other.object[head]);
    text.push(shown("salt and nonce prefix of another backup", refused("another head", &bad)));
    insta::assert_snapshot!(text.join("\n"));
}

#[test]
fn an_edited_header_is_refused() {
    let good = good();
    let mut text = Vec::new();
    let (header, before) = Header::read(&mut &good.object[..]).unwrap();
    type Edit = fn(&mut Header);
    let edits: [(&str, Edit); 8] = [
        ("instance", |header| header.instance = "other".into()),
        ("database", |header| header.database = "other".into()),
        ("job", |header| header.job = "other".into()),
        ("id", |header| header.id = "20260226T030000Z-shop@local".into()),
        ("engine", |header| header.engine = "mysql".into()),
        ("created", |header| header.created += chrono::TimeDelta::hours(1)),
        ("compression", |header| header.compression = "none".into()),
        ("key_id", |header| header.key_id = Key::new([9; 32]).id()),
    ];
    for (what, edit) in edits {
        let mut edited = header.clone();
        edit(&mut edited);
        let bad = [&edited.to_bytes().unwrap()[..], &good.object[before.len()..]].concat();
        text.push(shown(&format!("{what} edited"), refused(what, &bad)));
        // Even where size and digest are not compared, the manifest's names are.
        assert_eq!(edited.agrees_with(&good.signed).unwrap_err().kind, Kind::Authentication, "{what}");
    }
    let mut later = header.clone();
    later.format = 2;
    let bad = [&later.to_bytes().unwrap()[..], &good.object[before.len()..]].concat();
    text.push(shown("format 2", refused("format", &bad)));
    for (what, json) in [("no JSON", &b"x"[..]), ("an empty header", b""), ("an empty object", b"{}")] {
        let length = u32::try_from(json.len()).unwrap().to_be_bytes();
        let bad = [&good.object[..8], &length, json, &good.object[before.len()..]].concat();
        text.push(shown(what, refused(what, &bad)));
    }
    // The same JSON with one space more is another header: its bytes are authenticated, not its meaning.
    let spaced = [&b" "[..], &before[12..]].concat();
    let length = u32::try_from(spaced.len()).unwrap().to_be_bytes();
    let bad = [&good.object[..8], &length, &spaced, &good.object[before.len()..]].concat();
    text.push(shown("a space before the JSON", refused("a space", &bad)));
    insta::assert_snapshot!(text.join("\n"));
}

#[test]
fn a_wrong_key_is_named() {
    let good = good();
    let other = Keyring::new([Key::new([9; 32])]);
    let whole = sample::open(&good.object[..], &good.manifest, &good.owner, &good.id, &other).unwrap_err();
    let alone = sample::open_without_manifest(&good.object[..], &other).unwrap_err();
    // One who is told that another key opens it.
    let lying = Recipe { key: Some(Key::new([9; 32])), ..Recipe::default() }.fixed(1).build(b"x");
    let (mut header, before) = Header::read(&mut &lying.object[..]).unwrap();
    header.key_id = key().id();
    let bytes = [&header.to_bytes().unwrap()[..], &lying.object[before.len()..]].concat();
    let relabelled = sample::open_without_manifest(&bytes[..], &keys()).unwrap_err();
    for error in [&whole, &alone, &relabelled] {
        assert_eq!(error.kind, Kind::Authentication, "{error:?}");
    }
    let no_keys = sample::open(&good.object[..], &good.manifest, &good.owner, &good.id, &Keyring::default());
    let text = format!(
        "with its manifest:       {whole}\nwithout a manifest:      {alone}\nunder a false key id:    {relabelled}\n\
         without any key:         {}\n",
        no_keys.unwrap_err()
    );
    insta::assert_snapshot!(text);
}

#[test]
fn two_databases_cannot_be_exchanged() {
    let shop = Recipe::default().fixed(1).build(&rows(1000));
    let bank_owner = Owner { instance: "host".into(), database: "bank".into() };
    let bank = Recipe { owner: bank_owner.clone(), ..Recipe::default() }.fixed(2).build(&rows(2000));
    let mut text = Vec::new();
    let mut refuse = |what: &str, outcome: Result<Vec<u8>, Error>| {
        let error = outcome.err().unwrap_or_else(|| panic!("{what} was taken"));
        assert_eq!(error.kind, Kind::Authentication, "{what}: {error:?}");
        text.push(format!("{what}: {error}"));
    };
    let open = |object: &Backup, manifest: &Backup, owner: &Owner, id: &BackupId| {
        sample::open(&object.object[..], &manifest.manifest, owner, id, &keys())
    };
    refuse("bank's object under shop's name", open(&bank, &shop, &shop.owner, &shop.id));
    refuse("bank's manifest under shop's name", open(&shop, &bank, &shop.owner, &shop.id));
    refuse("bank's object and manifest under shop's name", open(&bank, &bank, &shop.owner, &shop.id));
    let (header, _) = Header::read(&mut &bank.object[..]).unwrap();
    refuse("bank's header beside shop's manifest", header.agrees_with(&shop.signed).map(|()| Vec::new()));
    let elsewhere = Owner { instance: "other".into(), ..shop.owner.clone() };
    refuse("shop's files under another host's name", open(&shop, &shop, &elsewhere, &shop.id));
    let later = BackupId::parse("20260226T030000Z-shop@local").unwrap();
    refuse("shop's files under a later id", open(&shop, &shop, &shop.owner, &later));
    let job = BackupId::parse("20260225T030000Z-other").unwrap();
    refuse("shop's files under another job's id", open(&shop, &shop, &shop.owner, &job));
    insta::assert_snapshot!(text.join("\n"));
}

/// The envelope with its signed text, or its own fields, changed.
fn envelope(change: impl Fn(&mut serde_json::Value)) -> Vec<u8> {
    let mut value: serde_json::Value = serde_json::from_slice(&good().manifest).unwrap();
    change(&mut value);
    serde_json::to_vec(&value).unwrap()
}

#[test]
fn an_edited_or_forged_manifest_is_refused() {
    let good = good();
    let other = Key::new([9; 32]);
    let edit = |field: &str, to: serde_json::Value| {
        envelope(|value| {
            let mut signed: serde_json::Value = serde_json::from_str(value["signed"].as_str().unwrap()).unwrap();
            assert_ne!(signed[field], to, "{field} changes");
            signed[field] = to.clone();
            value["signed"] = signed.to_string().into();
        })
    };
    let forged = |change: fn(&mut Signed), key: Option<&Key>| {
        let mut signed = good.signed.clone();
        change(&mut signed);
        manifest::write(&signed, key).unwrap()
    };
    let mut cases = vec![
        ("signed under another key", manifest::write(&good.signed, Some(&other)).unwrap()),
        ("not signed", manifest::write(&good.signed, None).unwrap()),
        ("said to be signed under another key", envelope(|value| value["key_id"] = other.id().into())),
        ("the signature of nothing", envelope(|value| value["hmac"] = "".into())),
        ("half of the signature", envelope(|value| value["hmac"] = value["hmac"].as_str().unwrap()[..32].into())),
        ("a signature that is no hex", envelope(|value| value["hmac"] = "x".repeat(64).into())),
        ("the signature taken away", envelope(|value| value["hmac"] = serde_json::Value::Null)),
        ("the key's id taken away", envelope(|value| value["key_id"] = serde_json::Value::Null)),
        (
            "white space in the signed text",
            envelope(|value| {
                value["signed"] = format!(" {}", value["signed"].as_str().unwrap()).into();
            }),
        ),
        ("a later format", envelope(|value| value["format"] = 2.into())),
        ("no JSON", b"x".to_vec()),
        ("nothing", Vec::new()),
        ("cut", good.manifest[..good.manifest.len() / 2].to_vec()),
        ("signed, but without a key's id inside", forged(|signed| signed.key_id = None, Some(&key()))),
        ("signed, but of another database", forged(|signed| signed.database = "bank".into(), Some(&key()))),
        ("signed, but of an object elsewhere", forged(|signed| signed.object = "host/bank/x".into(), Some(&key()))),
        ("signed, but of a shorter object", forged(|signed| signed.stored_bytes -= 1, Some(&key()))),
        ("signed, but of a longer object", forged(|signed| signed.stored_bytes += 1, Some(&key()))),
        ("signed, but of a shorter dump", forged(|signed| signed.dump_bytes -= 1, Some(&key()))),
        ("signed, but of a longer dump", forged(|signed| signed.dump_bytes += 1, Some(&key()))),
        ("signed, but of another digest", forged(|signed| signed.stored_sha256 = "00".repeat(32), Some(&key()))),
        ("signed, but said to be plain gzip", forged(|signed| signed.encryption = "none".into(), Some(&key()))),
        ("signed, but said to be uncompressed", forged(|signed| signed.compression = "none".into(), Some(&key()))),
    ];
    for (field, to) in [
        ("stored_bytes", serde_json::json!(1)),
        ("stored_sha256", serde_json::json!("00")),
        ("dump_bytes", serde_json::json!(1)),
        ("encryption", serde_json::json!("none")),
        ("created", serde_json::json!("2036-02-25T03:00:00Z")),
        ("counts", serde_json::json!({})),
        ("object", serde_json::json!(format!("{}x", good.object_key))),
    ] {
        cases.push((field, edit(field, to)));
    }
    let text: Vec<String> = cases
        .iter()
        .map(|(what, manifest)| {
            let outcome = sample::open(&good.object[..], manifest, &good.owner, &good.id, &keys());
            let error = outcome.err().unwrap_or_else(|| panic!("{what} was taken"));
            assert_eq!(error.kind, Kind::Authentication, "{what}: {error:?}");
            format!("{what}: {error}")
        })
        .collect();
    insta::assert_snapshot!(text.join("\n"));
}

#[test]
fn every_flipped_bit_of_a_manifest_is_refused_or_means_nothing() {
    let good = good();
    for at in 0..good.manifest.len() {
        for bit in 0..8 {
            let mut bad = good.manifest.clone();
            bad[at] ^= 1 << bit;
            let Ok(read) = manifest::read(&bad, &good.owner, &good.id, &keys()) else { continue };
            // What still counts as authentic says what it said: white space, or the case of a hex digit.
            assert!(read.trust != Trust::Authentic || read.signed == good.signed, "byte {at}, bit {bit}");
        }
    }
}

#[test]
fn what_a_stranger_wrote_cannot_drive_the_terminal() {
    let good = good();
    let nasty = "\u{1b}[2J\u{7}\r\n\u{9b}1m\u{202e}";
    let (header, before) = Header::read(&mut &good.object[..]).unwrap();
    let headers: [fn(&mut Header, &str); 5] = [
        |header, nasty| header.instance = nasty.into(),
        |header, nasty| header.id = nasty.into(),
        |header, nasty| header.engine = nasty.into(),
        |header, nasty| header.compression = nasty.into(),
        |header, nasty| header.key_id = nasty.into(),
    ];
    let mut messages = Vec::new();
    for edit in headers {
        let mut edited = header.clone();
        edit(&mut edited, nasty);
        let bytes = [&edited.to_bytes().unwrap()[..], &good.object[before.len()..]].concat();
        messages.push(sample::open(&bytes[..], &good.manifest, &good.owner, &good.id, &keys()).unwrap_err());
    }
    let manifests: [fn(&mut Signed, &str); 4] = [
        |signed, nasty| signed.instance = nasty.into(),
        |signed, nasty| signed.database = nasty.into(),
        |signed, nasty| signed.id = nasty.into(),
        |signed, nasty| signed.object = nasty.into(),
    ];
    for edit in manifests {
        let mut signed = good.signed.clone();
        edit(&mut signed, nasty);
        let bytes = manifest::write(&signed, None).unwrap();
        messages.push(manifest::read(&bytes, &good.owner, &good.id, &keys()).unwrap_err());
    }
    for (field, value) in [("key_id", nasty.into()), ("hmac", nasty.into()), ("format", serde_json::json!(nasty))] {
        let bytes = envelope(|envelope| envelope[field] = value.clone());
        messages.extend(sample::open(&good.object[..], &bytes, &good.owner, &good.id, &keys()).err());
    }
    assert_eq!(messages.len(), 12);
    for error in messages {
        assert_eq!(error.kind, Kind::Authentication);
        assert!(!error.message.contains(|c: char| c.is_control() || c == '\u{202e}'), "{error:?}");
    }
}

#[test]
fn compressed_data_alone_shows_every_damage_with_its_manifest() {
    let backup = Recipe { encrypt: false, ..Recipe::default() }.build(&noise(2_500_000));
    let open = |object: &[u8]| sample::open(object, &backup.manifest, &backup.owner, &backup.id, &keys());
    assert!(open(&backup.object).is_ok());
    let mut messages = BTreeSet::new();
    let mut refuse = |what: &str, object: &[u8]| {
        let error = open(object).err().unwrap_or_else(|| panic!("{what} was taken"));
        assert_eq!(error.kind, Kind::Authentication, "{what}: {error:?}");
        messages.insert(without_numbers(&error.message));
    };
    // A cut between two members is a whole gzip file: only the size tells.
    let member = sample::read_out(
        voxeltron_backup::pipeline::gzip::Compressor::new(&noise(2_500_000)[..SEGMENT], 6, 1).unwrap(),
    )
    .unwrap();
    assert!(backup.object.starts_with(&member));
    refuse("a cut between two members", &backup.object[..member.len()]);
    refuse("a member dropped", &backup.object[member.len()..]);
    refuse("nothing", b"");
    refuse("a cut at the end", &backup.object[..backup.object.len() - 1]);
    refuse("a byte more", &[&backup.object[..], b"\0"].concat());
    for at in [0, 1, 3, 10, 5000, member.len() - 1, member.len() - 8, backup.object.len() - 1] {
        let mut bad = backup.object.clone();
        bad[at] ^= 1;
        refuse(&format!("a flipped bit at {at}"), &bad);
    }
    insta::assert_snapshot!(messages.into_iter().collect::<Vec<_>>().join("\n"));
}
