//! A page for a terminal: lines of coloured pieces that never pass its right edge.

use std::io::Write;

use super::escape::{cut, cut_end, escape, width};
use super::write_failed;
use crate::error::Result;

/// Colour of a piece of text: the basic ones, which every theme keeps readable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Bold,
    Dim,
    Red,
    Yellow,
    Green,
    Cyan,
}

impl Tone {
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Bold => "\u{1b}[1m",
            Self::Dim => "\u{1b}[2m",
            Self::Red => "\u{1b}[1;31m",
            Self::Yellow => "\u{1b}[33m",
            Self::Green => "\u{1b}[32m",
            Self::Cyan => "\u{1b}[36m",
        }
    }
}

/// A piece of a line; its text is escaped.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    tone: Tone,
    text: String,
    is_prose: bool,
}

/// A piece of a line, escaped here.
pub(super) fn piece(tone: Tone, text: impl AsRef<str>) -> Piece {
    Piece { tone, text: escape(text.as_ref()).into_owned(), is_prose: false }
}

/// A sentence on a line, escaped here; where it does not fit, its end is what goes.
pub(super) fn prose(tone: Tone, text: impl AsRef<str>) -> Piece {
    Piece { is_prose: true, ..piece(tone, text) }
}

/// Where the lines go.
pub(super) struct Page<'a> {
    out: &'a mut dyn Write,
    width: usize,
    color: bool,
}

/// Below this nothing can be laid out.
const MIN_WIDTH: usize = 40;
/// Above this the eye loses the line.
const SENTENCE_WIDTH: usize = 110;

impl<'a> Page<'a> {
    pub(super) fn new(out: &'a mut dyn Write, width: usize, color: bool) -> Self {
        Self { out, width: width.max(MIN_WIDTH), color }
    }

    pub(super) fn blank(&mut self) -> Result<()> {
        self.out.write_all(b"\n").map_err(write_failed)
    }

    /// One line of pieces after `indent` spaces; the piece that would pass the edge is cut, later ones are left out.
    pub(super) fn line(&mut self, indent: usize, pieces: &[Piece]) -> Result<()> {
        let mut line = " ".repeat(indent);
        let mut room = self.width.saturating_sub(indent);
        for piece in pieces {
            let text = if piece.is_prose { cut_end(&piece.text, room) } else { cut(&piece.text, room) };
            room -= width(&text);
            self.paint(&mut line, piece.tone, &text);
        }
        line.truncate(line.trim_end_matches(' ').len());
        line.push('\n');
        self.out.write_all(line.as_bytes()).map_err(write_failed)
    }

    /// Whether all pieces fit on one line after `indent` spaces.
    pub(super) fn fits(&self, indent: usize, pieces: &[Piece]) -> bool {
        indent + pieces.iter().map(|piece| width(&piece.text)).sum::<usize>() <= self.width
    }

    /// Columns that are left after `indent` spaces.
    pub(super) fn room(&self, indent: usize) -> usize {
        self.width.saturating_sub(indent)
    }

    /// Lines as they stand, whatever their width: for commands to be pasted, made of nothing that deceives.
    pub(super) fn command(&mut self, text: &str) -> Result<()> {
        debug_assert!(!text.chars().any(|c| c != '\n' && super::escape::deceives(c)));
        self.out.write_all(text.as_bytes()).and_then(|()| self.out.write_all(b"\n")).map_err(write_failed)
    }

    /// Cells side by side, two spaces apart, in columns of these widths; what does not fit goes on below, and nothing
    /// is cut.
    pub(super) fn cells(&mut self, indent: usize, cells: &[(Piece, usize)]) -> Result<()> {
        let chopped: Vec<Vec<String>> = cells.iter().map(|(piece, room)| chop(&piece.text, *room)).collect();
        let lines = chopped.iter().map(Vec::len).max().unwrap_or_default();
        for at in 0..lines {
            let mut pieces = Vec::new();
            for ((piece, room), lines) in cells.iter().zip(&chopped) {
                let text = lines.get(at).cloned().unwrap_or_default();
                let pad = " ".repeat(room.saturating_sub(width(&text)) + 2);
                pieces.push(Piece { text, ..piece.clone() });
                pieces.push(Piece { tone: Tone::Plain, text: pad, is_prose: true });
            }
            pieces.pop();
            self.line(indent, &pieces)?;
        }
        Ok(())
    }

    /// A sentence after a label, in a column of this width, on as many lines as it takes.
    pub(super) fn told(&mut self, indent: usize, (label, room): (Piece, usize), text: &str) -> Result<()> {
        let left = self.room(indent + room + 2);
        let mut label = label;
        for line in wrap(&escape(text), left) {
            let said = Piece { tone: Tone::Plain, text: line, is_prose: true };
            self.cells(indent, &[(label, room), (said, left)])?;
            label = piece(Tone::Plain, "");
        }
        Ok(())
    }

    /// A sentence, on as many lines as it takes.
    pub(super) fn sentence(&mut self, indent: usize, tone: Tone, text: &str) -> Result<()> {
        let room = self.width.min(SENTENCE_WIDTH + indent).saturating_sub(indent);
        for line in wrap(&escape(text), room) {
            self.line(indent, &[Piece { tone, text: line, is_prose: true }])?;
        }
        Ok(())
    }

    /// Groups of pieces side by side, two spaces apart, on at most `lines` lines; what does not fit is counted by
    /// `more`.
    pub(super) fn flow(
        &mut self,
        indent: usize,
        groups: Vec<Vec<Piece>>,
        lines: usize,
        more: &dyn Fn(usize) -> String,
    ) -> Result<()> {
        let room = self.width.saturating_sub(indent);
        let total = groups.len();
        let mut rows: Vec<Vec<Piece>> = Vec::new();
        let mut used = room;
        for (done, group) in groups.into_iter().enumerate() {
            let size: usize = group.iter().map(|piece| width(&piece.text)).sum();
            if used + 2 + size <= room {
                used += 2 + size;
                rows.last_mut().into_iter().for_each(|row| row.push(piece(Tone::Plain, "  ")));
            } else if rows.len() == lines {
                rows.push(vec![piece(Tone::Dim, more(total - done))]);
                break;
            } else {
                used = size;
                rows.push(Vec::new());
            }
            rows.last_mut().into_iter().for_each(|row| row.extend_from_slice(&group));
        }
        rows.iter().try_for_each(|row| self.line(indent, row))
    }

    fn paint(&self, line: &mut String, tone: Tone, text: &str) {
        if !self.color || tone == Tone::Plain || text.is_empty() {
            line.push_str(text);
            return;
        }
        line.push_str(tone.code());
        line.push_str(text);
        line.push_str("\u{1b}[0m");
    }
}

/// Breaks `text`, which must be escaped, at spaces into lines of at most `room` columns; a word that is longer than a
/// line is broken wherever the line ends.
fn wrap(text: &str, room: usize) -> Vec<String> {
    let room = room.max(1);
    let mut lines: Vec<String> = vec![String::new()];
    let mut used = 0;
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let size = width(word);
        if used > 0 && used + 1 + size > room {
            lines.push(String::new());
            used = 0;
        }
        if used > 0 {
            push(&mut lines, ' ');
            used += 1;
        }
        for c in word.chars() {
            let one = width(c.encode_utf8(&mut [0; 4]));
            if used + one > room {
                lines.push(String::new());
                used = 0;
            }
            push(&mut lines, c);
            used += one;
        }
    }
    lines
}

/// Breaks `text`, which must be escaped, into lines of at most `room` columns, and loses nothing of it.
fn chop(text: &str, room: usize) -> Vec<String> {
    let mut lines: Vec<String> = vec![String::new()];
    let mut used = 0;
    for c in text.chars() {
        let one = width(c.encode_utf8(&mut [0; 4]));
        if used > 0 && used + one > room {
            lines.push(String::new());
            used = 0;
        }
        push(&mut lines, c);
        used += one;
    }
    lines
}

fn push(lines: &mut [String], c: char) {
    if let Some(line) = lines.last_mut() {
        line.push(c);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sentences_break_at_spaces_and_long_words_anywhere() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("abcdefgh ij", 3), ["abc", "def", "gh", "ij"]);
        assert_eq!(wrap("", 3), [""]);
    }

    #[test]
    fn cells_go_on_below_and_lose_nothing() {
        let mut bytes = Vec::new();
        let mut page = Page::new(&mut bytes, 40, false);
        let cells = [
            (piece(Tone::Plain, "name"), 6),
            (piece(Tone::Bold, "日本語日本語 a  b"), 8),
            (piece(Tone::Dim, "x"), 3),
        ];
        page.cells(2, &cells).unwrap();
        assert_eq!(
            String::from_utf8(bytes).unwrap(),
            "  name    日本語日  x\n          本語 a  \n          b\n".replace("a  \n", "a\n")
        );
        assert_eq!(chop("ab  cd", 2).concat(), "ab  cd");
    }

    proptest! {
        #[test]
        fn no_line_passes_the_edge(text in any::<String>(), limit in 40usize..100) {
            let mut bytes = Vec::new();
            let mut page = Page::new(&mut bytes, limit, false);
            page.sentence(4, Tone::Bold, &text).unwrap();
            page.line(2, &[piece(Tone::Red, &text), piece(Tone::Dim, &text)]).unwrap();
            let groups = vec![vec![piece(Tone::Plain, &text)]; 5];
            page.flow(6, groups, 2, &|more| format!("+ {more}")).unwrap();
            for line in String::from_utf8(bytes).unwrap().lines() {
                prop_assert!(width(line) <= limit, "{line:?}");
            }
        }
    }
}
