//! Backups made of the library's own parts, and the way back: what a run and a restore do, without the engines.

use std::io::{self, Read};
use std::sync::Arc;

use voxeltron_backup::error::{Error, Kind, Result};
use voxeltron_backup::format::FORMAT;
use voxeltron_backup::format::header::Header;
use voxeltron_backup::format::key::{Key, Keyring};
use voxeltron_backup::format::manifest::{self, ENCRYPTION, Signed, Trust};
use voxeltron_backup::format::name::{self, BackupId, ObjectKey, Owner};
use voxeltron_backup::format::time::parse_compact;
use voxeltron_backup::pipeline::encrypt::{Opener, Sealer};
use voxeltron_backup::pipeline::gzip::{Compressor, Decompressor};
use voxeltron_backup::pipeline::meter::{Expected, Meter};
use voxeltron_backup::world::{Random, World};

/// Ciphertext bytes of a segment, its tag included.
pub const SEGMENT: usize = 1024 * 1024;
/// What stands before the first segment and takes its place from it.
pub const HEAD: usize = 40;
/// A tag.
pub const TAG: usize = 16;
/// Plaintext bytes in the first segment.
pub const FIRST: usize = SEGMENT - HEAD - TAG;
/// Plaintext bytes in every later one.
pub const LATER: usize = SEGMENT - TAG;

/// The key of every sample.
pub fn key() -> Key {
    Key::new([0x2a; 32])
}

/// Bytes that don't compress, the same every time.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut out = Vec::with_capacity(length + 8);
    while out.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(length);
    out
}

/// Bytes that compress as a dump does.
pub fn rows(length: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(length + 64);
    let mut row = 0u32;
    while out.len() < length {
        out.extend_from_slice(
            format!("{row}\tcustomer {}\t{:x}\n", row % 97, row.wrapping_mul(2_654_435_761)).as_bytes(),
        );
        row += 1;
    }
    out.truncate(length);
    out
}

/// Randomness that is always the same: for files that are made once.
#[derive(Debug)]
pub struct FixedRandom(pub u8);

impl Random for FixedRandom {
    fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        bytes.iter_mut().enumerate().for_each(|(at, byte)| *byte = self.0.wrapping_add(at as u8));
        Ok(())
    }
}

/// What a backup is made of.
pub struct Recipe {
    pub owner: Owner,
    pub job: String,
    pub key: Option<Key>,
    pub compress: bool,
    pub encrypt: bool,
    pub world: World,
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            owner: Owner { instance: "host".into(), database: "shop".into() },
            job: "shop@local".into(),
            key: Some(key()),
            compress: true,
            encrypt: true,
            world: World::system(),
        }
    }
}

/// A finished backup, in memory.
#[derive(Clone)]
pub struct Backup {
    pub owner: Owner,
    pub id: BackupId,
    pub signed: Signed,
    pub object_key: ObjectKey,
    pub manifest_key: ObjectKey,
    pub object: Vec<u8>,
    pub manifest: Vec<u8>,
    /// How many bytes stand before the ciphertext.
    pub header_bytes: usize,
}

impl Recipe {
    /// The same with fixed randomness.
    pub fn fixed(self, seed: u8) -> Self {
        Self { world: World { random: Arc::new(FixedRandom(seed)), ..self.world }, ..self }
    }

    pub fn build(&self, dump: &[u8]) -> Backup {
        let at = parse_compact("20260225T030000Z").expect("an instant");
        let id = BackupId::new(at, &self.job);
        let compression = if self.compress { "gzip" } else { "none" };
        let header = self.encrypt.then(|| Header {
            format: FORMAT,
            instance: self.owner.instance.clone(),
            database: self.owner.database.clone(),
            job: self.job.clone(),
            id: id.to_string(),
            engine: "postgres".into(),
            created: at,
            compression: compression.into(),
            key_id: self.key.as_ref().expect("a key to encrypt with").id(),
        });
        let mut stream: Box<dyn Read + '_> = Box::new(dump);
        if self.compress {
            stream = Box::new(Compressor::new(stream, 6, 2).expect("a compressor"));
        }
        let mut header_bytes = 0;
        if let (Some(header), Some(key)) = (&header, &self.key) {
            let before = header.to_bytes().expect("a header");
            header_bytes = before.len();
            stream = Box::new(Sealer::new(stream, key, before, &self.world).expect("a sealer"));
        }
        let mut meter = Meter::digesting(stream);
        let measured = meter.result();
        let mut object = Vec::new();
        meter.read_to_end(&mut object).expect("a stream that ends well");
        let measured = measured.get().expect("a measured stream");
        let random = self.world.random_hex(4).expect("random hex");
        let object_key =
            name::object_key(&self.owner, &id, &random, "pgdump", self.compress, self.encrypt).expect("a key");
        let signed = Signed {
            id: id.to_string(),
            instance: self.owner.instance.clone(),
            database: self.owner.database.clone(),
            job: self.job.clone(),
            engine: "postgres".into(),
            tool_version: Some("15.5".into()),
            server_version: Some("15.5".into()),
            created: at,
            scheduled_for: Some(at),
            duration_ms: 1234,
            object: object_key.to_string(),
            stored_bytes: measured.bytes,
            stored_sha256: measured.sha256.expect("a digest"),
            dump_bytes: dump.len() as u64,
            compression: compression.into(),
            encryption: if self.encrypt { ENCRYPTION } else { "none" }.into(),
            key_id: self.key.as_ref().map(Key::id),
            end_mark: "end of archive".into(),
            counts: [("public.customer".to_owned(), Some(3)), ("public.view".to_owned(), None)].into(),
            partial: None,
            program_version: "0.1.0".into(),
        };
        let manifest = manifest::write(&signed, self.key.as_ref()).expect("a manifest");
        let manifest_key = name::manifest_key(&self.owner, &id).expect("a key");
        Backup { owner: self.owner.clone(), id, signed, object_key, manifest_key, object, manifest, header_bytes }
    }
}

impl Backup {
    /// Reads it back as a restore does; see [`open`].
    pub fn open(&self, keys: &Keyring) -> Result<Vec<u8>> {
        open(&self.object[..], &self.manifest, &self.owner, &self.id, keys)
    }

    /// Where a segment begins in the object, and where it ends.
    pub fn segment(&self, number: usize) -> std::ops::Range<usize> {
        let start = match number {
            0 => self.header_bytes + HEAD,
            later => self.header_bytes + later * SEGMENT,
        };
        start..(self.header_bytes + (number + 1) * SEGMENT).min(self.object.len())
    }

    pub fn segments(&self) -> usize {
        (self.object.len() - self.header_bytes).div_ceil(SEGMENT)
    }
}

/// From object and manifest to the dump: manifest, size and digest, header, segments, compression, size of the dump.
pub fn open(object: impl Read, manifest: &[u8], owner: &Owner, id: &BackupId, keys: &Keyring) -> Result<Vec<u8>> {
    let manifest = manifest::read(manifest, owner, id, keys)?;
    if let Trust::Unauthenticated(why) = manifest.trust {
        return Err(Error::new(Kind::Authentication, why));
    }
    let signed = manifest.signed;
    let sha256 = Some(signed.stored_sha256.clone());
    let mut stored = Meter::expecting(object, Expected { what: "the backup", bytes: signed.stored_bytes, sha256 });
    let plain: Box<dyn Read + '_> = if signed.is_encrypted() {
        let (header, before) = Header::read(&mut stored)?;
        header.agrees_with(&signed)?;
        let key = keys
            .find(&header.key_id)
            .ok_or_else(|| Error::new(Kind::Authentication, format!("it is encrypted under key {}", header.key_id)))?;
        Box::new(Opener::new(stored, key, &before)?)
    } else {
        Box::new(stored)
    };
    let dump: Box<dyn Read + '_> = match signed.compression.as_str() {
        "gzip" => Box::new(Decompressor::new(plain)),
        _ => plain,
    };
    read_out(Meter::expecting(dump, Expected { what: "the dump", bytes: signed.dump_bytes, sha256: None }))
}

/// The format alone, without a manifest: header, segments, compression.
pub fn open_without_manifest(mut object: impl Read, keys: &Keyring) -> Result<Vec<u8>> {
    let (header, before) = Header::read(&mut object)?;
    let key = keys
        .find(&header.key_id)
        .ok_or_else(|| Error::new(Kind::Authentication, format!("it is encrypted under key {}", header.key_id)))?;
    let plain = Opener::new(object, key, &before)?;
    match header.compression.as_str() {
        "gzip" => read_out(Decompressor::new(plain)),
        _ => read_out(plain),
    }
}

/// Everything, or the error of ours that came through.
pub fn read_out(mut input: impl Read) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    match input.read_to_end(&mut out) {
        Ok(_) => Ok(out),
        Err(error) => Err(ours(error)),
    }
}

/// The error of ours inside an I/O error.
pub fn ours(error: io::Error) -> Error {
    Error::from_io(error, Kind::Other, "an error of the system's")
}
