//! UTF-16 as UTF-8, piece by piece.

use std::io::{self, BufRead, Read};

/// Reads UTF-16 and gives UTF-8. Half of a surrogate pair, which is no character, becomes the three bytes of
/// generalised UTF-8, so that nothing is lost; a last byte without its other half stays as it is.
pub(super) struct Utf16<R> {
    inner: R,
    is_big_endian: bool,
    /// The first half of a pair whose second is not read yet.
    high: Option<u16>,
    /// UTF-8 that is not taken yet, and how much of it was.
    ready: Vec<u8>,
    taken: usize,
    /// At the first unit, which is the mark of byte order and says nothing.
    at_start: bool,
}

/// Units that are turned at once.
const UNITS: usize = 4096;

impl<R: BufRead> Utf16<R> {
    pub(super) fn new(inner: R, is_big_endian: bool) -> Self {
        Self { inner, is_big_endian, high: None, ready: Vec::new(), taken: 0, at_start: true }
    }

    /// Turns some more; nothing is ready afterwards only at the end.
    fn fill(&mut self) -> io::Result<()> {
        self.ready.clear();
        self.taken = 0;
        while self.ready.is_empty() {
            let mut bytes = Vec::with_capacity(2 * UNITS);
            self.inner.by_ref().take(2 * UNITS as u64).read_to_end(&mut bytes)?;
            let units = bytes.chunks_exact(2);
            let odd = units.remainder().first().copied();
            let is_over = bytes.is_empty();
            for unit in units {
                let unit = [unit[0], unit[1]];
                self.unit(if self.is_big_endian {
                    u16::from_be_bytes(unit)
                } else {
                    u16::from_le_bytes(unit)
                });
            }
            if is_over || odd.is_some() {
                self.end_pair();
            }
            self.ready.extend(odd);
            if is_over {
                return Ok(());
            }
        }
        Ok(())
    }

    fn unit(&mut self, unit: u16) {
        if std::mem::take(&mut self.at_start) && unit == 0xFEFF {
            return;
        }
        match (self.high.take(), unit) {
            (Some(high), 0xDC00..=0xDFFF) => {
                let code = 0x1_0000 + (u32::from(high & 0x3FF) << 10) + u32::from(unit & 0x3FF);
                self.push(code);
            }
            (before, unit) => {
                if let Some(lone) = before {
                    self.push(u32::from(lone));
                }
                match unit {
                    0xD800..=0xDBFF => self.high = Some(unit),
                    _ => self.push(u32::from(unit)),
                }
            }
        }
    }

    fn end_pair(&mut self) {
        if let Some(lone) = self.high.take() {
            self.push(u32::from(lone));
        }
    }

    fn push(&mut self, code: u32) {
        match char::from_u32(code) {
            Some(character) => {
                self.ready.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
            None => {
                self.ready.extend([0xED, 0x80 | (code >> 6 & 0x3F) as u8, 0x80 | (code & 0x3F) as u8]);
            }
        }
    }
}

impl<R: BufRead> Read for Utf16<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.ready.len() {
            self.fill()?;
        }
        let left = &self.ready[self.taken..];
        let length = left.len().min(buffer.len());
        buffer[..length].copy_from_slice(&left[..length]);
        self.taken += length;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn turned(bytes: &[u8], is_big_endian: bool) -> Vec<u8> {
        let mut out = Vec::new();
        Utf16::new(bytes, is_big_endian).read_to_end(&mut out).unwrap();
        out
    }

    #[test]
    fn halves_of_pairs_are_kept() {
        assert_eq!(turned(&[0xFF, 0xFE, 0x00, 0xD8, b'a', 0], false), [0xED, 0xA0, 0x80, b'a']);
        assert_eq!(turned(&[0xFE, 0xFF, 0, b'a', 0xD8], true), [b'a', 0xD8]);
    }

    proptest! {
        #[test]
        fn every_text_survives(text in "(\u{FEFF}|\\PC){0,50}") {
            let marked: Vec<u16> = "\u{FEFF}".encode_utf16().chain(text.encode_utf16()).collect();
            let little: Vec<u8> = marked.iter().flat_map(|unit| unit.to_le_bytes()).collect();
            let big: Vec<u8> = marked.iter().flat_map(|unit| unit.to_be_bytes()).collect();
            prop_assert_eq!(turned(&little, false), text.as_bytes());
            prop_assert_eq!(turned(&big, true), text.as_bytes());
        }
    }
}
