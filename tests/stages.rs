//! Every stage of the pipeline, whatever comes in: portions of any size, interruptions, errors that happen once. A
//! stage that has failed once fails for ever, so that nobody can read on and find an end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::io::{self, Cursor, Read};

use common::faults::{FailingOnce, Stuttering};
use common::sample::{FIRST, LATER, Recipe, SEGMENT, key, noise, ours, read_out, rows};
use proptest::prelude::*;
use voxeltron_backup::error::{Error, Kind};
use voxeltron_backup::pipeline::encrypt::{Opener, Sealer};
use voxeltron_backup::pipeline::gzip::{Compressor, Decompressor};
use voxeltron_backup::pipeline::meter::{Expected, Meter};
use voxeltron_backup::world::World;

const BEFORE: &[u8] = b"what stands before";

type Stream = Box<dyn Read>;
type Stage = fn(Stream) -> Stream;

/// Every stage, with a good input for it.
fn stages() -> Vec<(&'static str, Vec<u8>, Stage)> {
    let data = noise(1_500_000);
    let packed = read_out(Compressor::new(&data[..], 6, 2).unwrap()).unwrap();
    let sealed = read_out(Sealer::new(&data[..], &key(), BEFORE.to_vec(), &World::system()).unwrap()).unwrap();
    let counted = |inner| -> Stream {
        Box::new(Meter::expecting(inner, Expected { what: "it", bytes: 1_500_000, sha256: None }))
    };
    vec![
        ("counting meter", data.clone(), |inner| Box::new(Meter::counting(inner))),
        ("digesting meter", data.clone(), |inner| Box::new(Meter::digesting(inner))),
        ("expecting meter", data.clone(), counted),
        ("compressor", data.clone(), |inner| Box::new(Compressor::new(inner, 6, 2).unwrap())),
        ("decompressor", packed, |inner| Box::new(Decompressor::new(inner))),
        ("sealer", data, |inner| Box::new(Sealer::new(inner, &key(), BEFORE.to_vec(), &World::system()).unwrap())),
        ("opener", sealed[BEFORE.len()..].to_vec(), |inner| Box::new(Opener::new(inner, &key(), BEFORE).unwrap())),
    ]
}

#[test]
fn an_error_that_happens_once_is_an_error_for_ever() {
    let error = Error::new(Kind::Tool, "pg_dump died").hint("look").tail(vec!["last words".into()]);
    for (name, input, stage) in stages() {
        // In the middle, and where the end should be: the reader that failed goes on as if nothing had been.
        for at in [100, input.len() / 2, input.len()] {
            let source = FailingOnce { inner: Cursor::new(input.clone()), at, error: Some(error.clone()) };
            let mut stage = stage(Box::new(source));
            let first = loop {
                match stage.read(&mut [0; 64 * 1024]) {
                    Ok(0) => panic!("{name} ends well although its input failed at {at}"),
                    Ok(_) => {}
                    Err(failure) => break ours(failure),
                }
            };
            assert_eq!(first, error, "{name}, at {at}: the source's own error comes through");
            for _ in 0..3 {
                let again = stage.read(&mut [0; 64 * 1024]);
                assert!(again.is_err(), "{name}, at {at}: read on after its error, it gave {again:?}");
            }
        }
    }
}

#[test]
fn interruptions_mean_nothing() {
    for (name, input, stage) in stages() {
        let plain = read_out(stage(Box::new(Cursor::new(input.clone())))).unwrap();
        for at_once in [4_099, 1 << 20] {
            let source = Stuttering { inner: Cursor::new(input.clone()), at_once, turn: 0 };
            // A stage may hand the interruption on, which every caller retries, or take it.
            let read = read_out(stage(Box::new(source)));
            let read = read.unwrap_or_else(|error| panic!("{name}, {at_once} at once: {error:?}"));
            // Salt and prefix differ from run to run.
            assert!(name == "sealer" || read == plain, "{name}, {at_once} at once");
        }
    }
}

#[test]
fn asking_for_nothing_is_not_the_end() {
    for (name, input, stage) in stages() {
        let mut stage = stage(Box::new(Cursor::new(input)));
        assert_eq!(stage.read(&mut []).unwrap(), 0);
        assert!(!read_out(stage).unwrap().is_empty(), "{name}");
    }
}

#[test]
fn after_its_end_a_stage_stays_at_its_end() {
    for (name, input, stage) in stages() {
        let mut stage = stage(Box::new(Cursor::new(input)));
        io::copy(&mut stage, &mut io::sink()).unwrap();
        for _ in 0..3 {
            assert_eq!(stage.read(&mut [0; 16]).unwrap(), 0, "{name}");
        }
    }
}

#[test]
fn a_compressed_stream_with_nothing_in_it_is_refused() {
    let error = read_out(Decompressor::new(&b""[..])).unwrap_err();
    assert_eq!((error.kind, error.message.contains("is cut")), (Kind::Authentication, true), "{error:?}");
}

/// Reads in portions of the given sizes, over and over.
fn in_portions(mut input: impl Read, sizes: &[usize]) -> Vec<u8> {
    let mut out = Vec::new();
    for size in sizes.iter().cycle() {
        let mut portion = vec![0; *size];
        match input.read(&mut portion).unwrap() {
            0 => break,
            count => out.extend_from_slice(&portion[..count]),
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_goes_in_comes_out(
        length in prop_oneof![
            0..2000usize, (FIRST - 2)..(FIRST + 3), (SEGMENT - 2)..(SEGMENT + 3), (FIRST + LATER - 2)..(FIRST + LATER + 3)
        ],
        portions in prop::collection::vec(1..300_000usize, 1..5),
        at_once in 1_000..200_000usize,
        level in 1..=9u8,
        compress: bool,
    ) {
        let data = if compress { rows(length) } else { noise(length) };
        let source = Stuttering { inner: Cursor::new(data.clone()), at_once, turn: 0 };
        let packed: Stream = match compress {
            true => Box::new(Compressor::new(source, level, 2).unwrap()),
            false => Box::new(source),
        };
        let sealed = in_portions(Sealer::new(packed, &key(), BEFORE.to_vec(), &World::system()).unwrap(), &portions);
        prop_assert!(sealed.starts_with(BEFORE));
        let opened = Opener::new(Cursor::new(sealed[BEFORE.len()..].to_vec()), &key(), BEFORE).unwrap();
        let back = if compress { in_portions(Decompressor::new(opened), &portions) } else { in_portions(opened, &portions) };
        prop_assert!(back == data);
    }

    #[test]
    fn names_go_both_ways(instance in ".{1,20}", database in ".{1,20}", job in ".{1,20}") {
        use voxeltron_backup::format::name::{Found, Owner, parse};
        let owner = Owner { instance, database };
        let backup = Recipe { owner: owner.clone(), job: job.clone(), ..Recipe::default() }.build(b"x");
        prop_assert_eq!(parse(&backup.object_key), Some(Found::Object(owner.clone(), backup.id.clone())));
        prop_assert_eq!(parse(&backup.manifest_key), Some(Found::Manifest(owner, backup.id.clone())));
        prop_assert_eq!(backup.id.job(), Some(job));
    }
}
