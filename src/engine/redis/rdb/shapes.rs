//! What stands behind each opcode and each type of an RDB, as tables. Flows in: a number and whose format it is. Flows
//! out: the shape of what follows. Pure.

use super::Family;

/// A part of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// A length or a number in the form of one.
    Len,
    /// A string: plain, a number, or compressed.
    Str,
    /// A string whose first bytes are kept.
    Keep,
    /// The name of a key, which is kept if it is as long as that of the mark.
    Name,
    /// So many bytes; up to eight are kept as a number.
    Bytes(u8),
    /// A float as text behind one byte of length, three of whose values are infinities and NaN.
    Float,
    /// A length, and so many times what is listed.
    Many(&'static [Shape]),
    /// Values of a module, each behind its opcode, up to the one that ends them.
    Module,
}

use Shape::{Bytes, Float, Keep, Len, Many, Module, Str};

/// Opcodes, which begin a record that is no key.
pub(super) const SLOT_INFO: u8 = 244;
pub(super) const FUNCTION: u8 = 245;
pub(super) const MODULE_AUX: u8 = 247;
pub(super) const IDLE: u8 = 248;
pub(super) const FREQ: u8 = 249;
pub(super) const AUX: u8 = 250;
pub(super) const RESIZE: u8 = 251;
pub(super) const EXPIRE_MS: u8 = 252;
pub(super) const EXPIRE_S: u8 = 253;
pub(super) const SELECT: u8 = 254;
pub(super) const END: u8 = 255;

/// The type of a string.
pub(super) const STRING: u8 = 0;
/// Types of hashes whose fields expire.
pub(super) const FADING: std::ops::RangeInclusive<u8> = 22..=25;

/// What follows an opcode, if it is one.
pub(super) fn of_opcode(code: u8) -> Option<&'static [Shape]> {
    Some(match code {
        SLOT_INFO => &[Len, Len, Len],
        FUNCTION => &[Str],
        MODULE_AUX => &[Len, Len, Len, Module],
        IDLE | SELECT => &[Len],
        FREQ => &[Bytes(1)],
        AUX => &[Keep, Keep],
        RESIZE => &[Len, Len],
        EXPIRE_MS => &[Bytes(8)],
        EXPIRE_S => &[Bytes(4)],
        _ => return None,
    })
}

/// Pending entries of a consumer: their ids.
const IDS: Shape = Many(&[Bytes(16)]);
/// Pending entries of a group: id, when it was delivered, how often.
const PENDING: Shape = Many(&[Bytes(16), Bytes(8), Len]);
/// A stream's nodes.
const NODES: Shape = Many(&[Str, Str]);

/// What follows a key of this type, if it is one that is known.
pub(super) fn of_type(code: u8, family: Family) -> Option<&'static [Shape]> {
    Some(match (code, family) {
        (0 | 9..=13 | 16 | 17 | 20, _) => &[Str],
        (1 | 2 | 14, _) => &[Many(&[Str])],
        (3, _) => &[Many(&[Str, Float])],
        (4, _) => &[Many(&[Str, Str])],
        (5, _) => &[Many(&[Str, Bytes(8)])],
        (7, _) => &[Len, Module],
        (18, _) => &[Many(&[Len, Str])],
        // Length, last id; since 7.0 first id, highest deleted id, entries added; groups.
        (15, _) => &[NODES, Len, Len, Len, Many(&[Str, Len, Len, PENDING, Many(&[Str, Bytes(8), IDS])])],
        (19, _) => &[
            NODES,
            Len,
            Len,
            Len,
            Len,
            Len,
            Len,
            Len,
            Len,
            Many(&[Str, Len, Len, Len, PENDING, Many(&[Str, Bytes(8), IDS])]),
        ],
        (21, _) => &[
            NODES,
            Len,
            Len,
            Len,
            Len,
            Len,
            Len,
            Len,
            Len,
            Many(&[Str, Len, Len, Len, PENDING, Many(&[Str, Bytes(8), Bytes(8), IDS])]),
        ],
        // Hashes whose fields expire: field, value, instant; or in Redis the time left behind the least instant.
        (22, Family::Valkey) => &[Many(&[Str, Str, Bytes(8)])],
        (22, Family::Redis) => &[Many(&[Len, Str, Str])],
        (23, Family::Redis) => &[Str],
        (24, Family::Redis) => &[Bytes(8), Many(&[Len, Str, Str])],
        (25, Family::Redis) => &[Bytes(8), Str],
        _ => return None,
    })
}

/// What stands behind an opcode of a module's values; `None` for one that is unknown, an empty list for the end.
pub(super) fn of_module(code: u64) -> Option<&'static [Shape]> {
    Some(match code {
        0 => &[],
        1 | 2 => &[Len],
        3 => &[Bytes(4)],
        4 => &[Bytes(8)],
        5 => &[Str],
        _ => return None,
    })
}
