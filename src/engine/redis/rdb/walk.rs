//! The parser's way through one record: lengths, strings, and what is repeated. Flows in: bytes. Flows out: how many were
//! taken. Pure.

use super::shapes::{self, Shape};
use super::{KEEP_BYTES, Parser, Todo, signed};
use crate::engine::redis::marks::MARKER;
use crate::error::Result;

impl Parser {
    /// Does what is to be done next; gives how many bytes it took.
    pub(super) fn advance(&mut self, todo: Todo, bytes: &[u8]) -> Result<usize> {
        match todo {
            Todo::Shapes(shapes) => match shapes.split_first() {
                Some((first, rest)) => self.shape(*first, rest, shapes, bytes),
                None => Ok(0),
            },
            Todo::Loop(0, _) => Ok(0),
            Todo::Loop(left, body) => {
                self.stack.extend([Todo::Loop(left - 1, body), Todo::Shapes(body)]);
                Ok(0)
            }
            Todo::Skip(left) => Ok(self.skip(left, bytes)),
            Todo::PackedLength | Todo::Packed(_) => match self.length(bytes)? {
                (taken, None) => {
                    self.stack.push(todo);
                    Ok(taken)
                }
                (_, Some((_, true))) => Err(self.damaged("a length is none")),
                (taken, Some((length, false))) => {
                    self.stack.push(if let Todo::Packed(here) = todo {
                        Todo::Skip(here)
                    } else {
                        Todo::Packed(length)
                    });
                    Ok(taken)
                }
            },
            Todo::NameEnds => {
                self.name.end = self.at;
                Ok(0)
            }
            Todo::ModuleValue => match self.length(bytes)? {
                (taken, None) => {
                    self.stack.push(todo);
                    Ok(taken)
                }
                (taken, Some((code, _))) => {
                    let shapes = shapes::of_module(code).ok_or_else(|| self.unknown("value of a module", code))?;
                    if !shapes.is_empty() {
                        self.stack.extend([Todo::ModuleValue, Todo::Shapes(shapes)]);
                    }
                    Ok(taken)
                }
            },
        }
    }

    fn skip(&mut self, left: u64, bytes: &[u8]) -> usize {
        let count = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if let Some((keeping, _)) = &mut self.keeping {
            let room = KEEP_BYTES.saturating_sub(keeping.len());
            keeping.extend(bytes.iter().take(count.min(room)));
        }
        self.at += count as u64;
        let left = left.saturating_sub(count as u64);
        if left > 0 {
            self.stack.push(Todo::Skip(left));
        } else if let Some((kept, number)) = self.keeping.take() {
            self.kept.push(if number {
                signed(&kept).to_string()
            } else {
                String::from_utf8_lossy(&kept).into_owned()
            });
        }
        count
    }

    /// A length: how many bytes were taken, and once it is whole its number and whether it stands for an encoding.
    fn length(&mut self, bytes: &[u8]) -> Result<(usize, Option<(u64, bool)>)> {
        let first = match (self.have, bytes.first()) {
            (0, Some(first)) => *first,
            (0, None) => return Ok((0, None)),
            _ => self.small[0],
        };
        let want = match (first >> 6, first) {
            (1, _) => 2,
            (2, 0x80) => 5,
            (2, 0x81) => 9,
            (2, _) => return Err(self.damaged("a length is none")),
            _ => 1,
        };
        let (taken, whole) = self.gather(bytes, want);
        if !whole {
            return Ok((taken, None));
        }
        self.have = 0;
        self.number = match want {
            1 => u64::from(first & 0x3f),
            2 => self.big_endian(0, 2) & 0x3fff,
            want => self.big_endian(1, want),
        };
        Ok((taken, Some((self.number, first >> 6 == 3))))
    }

    /// Reads the first of `all`, whose others are `rest`.
    fn shape(&mut self, shape: Shape, rest: &'static [Shape], all: &'static [Shape], bytes: &[u8]) -> Result<usize> {
        let taken = match shape {
            Shape::Bytes(count) if count > 8 => {
                self.stack.extend([Todo::Shapes(rest), Todo::Skip(count.into())]);
                return Ok(0);
            }
            Shape::Module => {
                self.stack.extend([Todo::Shapes(rest), Todo::ModuleValue]);
                return Ok(0);
            }
            Shape::Bytes(count) => {
                let (taken, whole) = self.gather(bytes, count.into());
                if whole {
                    self.have = 0;
                    self.number = self.little_endian(count.into());
                    self.stack.push(Todo::Shapes(rest));
                    return Ok(taken);
                }
                taken
            }
            Shape::Float => {
                let (taken, _) = self.gather(bytes, 1);
                self.have = 0;
                let digits = u64::from(self.small[0]);
                self.stack.push(Todo::Shapes(rest));
                if digits < 253 {
                    self.stack.push(Todo::Skip(digits));
                }
                return Ok(taken);
            }
            Shape::Len | Shape::Many(_) | Shape::Str | Shape::Keep | Shape::Name => match self.length(bytes)? {
                (taken, None) => taken,
                (taken, Some((number, encoded))) => {
                    self.stack.push(Todo::Shapes(rest));
                    self.behind_length(shape, number, encoded)?;
                    return Ok(taken);
                }
            },
        };
        // Not whole yet: the same again with the next bytes.
        self.stack.push(Todo::Shapes(all));
        Ok(taken)
    }

    fn behind_length(&mut self, shape: Shape, number: u64, encoded: bool) -> Result<()> {
        match shape {
            Shape::Many(body) if !encoded => self.stack.push(Todo::Loop(number, body)),
            Shape::Len if !encoded => {}
            Shape::Str | Shape::Keep | Shape::Name => {
                if shape == Shape::Keep || (shape == Shape::Name && !encoded && number == MARKER.len() as u64) {
                    self.keeping = Some((Vec::new(), encoded && number < 3));
                }
                match (encoded, number) {
                    (false, length) => self.stack.push(Todo::Skip(length)),
                    (true, 0..=2) => self.stack.push(Todo::Skip(1 << number)),
                    (true, 3) => self.stack.push(Todo::PackedLength),
                    (true, other) => return Err(self.unknown("form of a string", other)),
                }
            }
            _ => return Err(self.damaged("a length is none")),
        }
        Ok(())
    }
}
