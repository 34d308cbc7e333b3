//! What is stored, as text and bytes: object names, the header of an encrypted backup, the manifest, the keys that are
//! derived for them. Pure; `man/voxeltron-backup-format.5` says the same for a stranger.

pub mod header;
pub mod key;
pub mod manifest;
pub mod name;
pub mod time;

/// The format that is written. Readers take this one.
pub const FORMAT: u32 = 1;

/// A number of things, in words: `1 table`, `2 tables`.
pub fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// Bytes in lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
