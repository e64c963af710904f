//! Tables of Fleet's UI.
//!
//! Own parser: the UI writes each cell as a JSON string (`"a \"quoted\" word"`), which no CSV crate reads back, and a
//! quote that is never closed must not read the whole file into memory. Spreadsheets that save the file again write
//! quotes as RFC 4180 says; both are read, and the first line tells which.

use memchr::memchr;

use super::excerpt;
use super::records::Gather;
use super::source::{Place, Source};
use super::utf8::{json_text, show};
use crate::error::Result;

/// Columns that name the host, the best one first.
pub(super) const HOST: [&str; 4] = ["host_display_name", "host_hostname", "hostname", "host"];
const FETCHED: &str = "last_fetched";
/// What the UI exports of hosts that failed.
const ERRORS: [&str; 2] = ["error", "osquery_version"];
/// Most columns of a table.
const MOST_COLUMNS: usize = 4_096;
/// Said once of each file.
const ON_SCREEN: &str =
    "a table exported by Fleet's UI holds the rows that were on screen; hosts without rows are not in it";

/// How cells are quoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quoting {
    /// As JSON strings.
    Json,
    /// A quote within a cell stands twice.
    Doubled,
}

/// Reads one file.
pub(super) fn read(gather: &mut Gather<'_>, source: &mut Source<'_>, table: &str) -> Result<()> {
    let limit = gather.options.limits.row_bytes;
    for byte in "\u{FEFF}".bytes() {
        if source.peek() == Some(byte) {
            source.skip();
        }
    }
    let mut buffer = Vec::new();
    let Some((place, _)) = record(source, (&mut buffer, limit), Quoting::Doubled) else {
        source
            .problem(Place { line: 1, column: 1 }, || "expected a line with the names of columns".to_owned());
        return Ok(());
    };
    let quoting = if is_all_quoted(&buffer) { Quoting::Json } else { Quoting::Doubled };
    let header = match cells(&buffer, quoting) {
        Ok(header) if header.len() <= MOST_COLUMNS => header,
        _ => {
            source.problem(place, || "the names of the columns cannot be read".to_owned());
            return Ok(());
        }
    };
    let Some(columns) = Columns::of(&header) else {
        let shown = show(&buffer[..buffer.len().min(256)]).0;
        let message = format!("no column names the host ({}): `{}`", HOST.join(", "), excerpt(&shown));
        source.problem(place, || message);
        return Ok(());
    };
    if !columns.is_errors {
        gather.note(format!("`{table}`: {ON_SCREEN}"));
    }
    while let Some((place, is_whole)) = record(source, (&mut buffer, limit), quoting) {
        if buffer.is_empty() {
            continue;
        }
        let read = match is_whole {
            true => cells(&buffer, quoting),
            false => Err(format!("this line is over the limit of {limit} bytes, or a quote is not closed")),
        };
        let trouble = match read {
            Ok(cells) => columns.take(gather, (&cells, table), place)?,
            Err(why) => Some((None, why)),
        };
        let Some((host, why)) = trouble else { continue };
        if let Some(host) = host {
            gather.skipped((&host, table), &why);
        }
        source.problem(place, || why);
    }
    Ok(())
}

/// What the columns of a table are.
struct Columns {
    /// Bytes of names, as JSON strings.
    names: Vec<String>,
    host: usize,
    fetched: Option<usize>,
    error: Option<usize>,
    is_errors: bool,
    /// Neither of the query nor of use.
    dropped: Vec<usize>,
}

/// The host of a row that cannot be taken, where it is known, and what is wrong.
type Trouble = Option<(Option<String>, String)>;

impl Columns {
    fn of(header: &[Vec<u8>]) -> Option<Self> {
        let at = |name: &str| header.iter().position(|cell| cell == name.as_bytes());
        let host = HOST.iter().find_map(|name| at(name))?;
        let rest = header.iter().enumerate().filter(|(place, _)| *place != host);
        let is_errors = at("error").is_some()
            && rest.map(|(_, cell)| cell).all(|cell| ERRORS.iter().any(|name| cell == name.as_bytes()));
        let dropped = HOST[..2].iter().filter_map(|name| at(name)).collect();
        Some(Self {
            names: header.iter().map(|cell| quoted(cell)).collect(),
            host,
            fetched: at(FETCHED),
            error: at("error").filter(|_| is_errors),
            is_errors,
            dropped,
        })
    }

    fn take(
        &self,
        gather: &mut Gather<'_>,
        (cells, table): (&[Vec<u8>], &str),
        place: Place,
    ) -> Result<Trouble> {
        let name = cells.get(self.host).map(|cell| show(cell).0).unwrap_or_default();
        let taken = match gather.owner(&name, None) {
            Ok(name) => gather.host(&name)?.map(|()| name),
            Err(why) => Err(why),
        };
        let host = match taken {
            Ok(host) => host,
            Err(why) => return Ok(Some((None, why))),
        };
        let to = (host.as_str(), table);
        if cells.len() != self.names.len() {
            let why =
                format!("this row has {} cells and there are {} columns", cells.len(), self.names.len());
            return Ok(Some((Some(host), why)));
        }
        let time = self.fetched.and_then(|at| show(&cells[at]).0.parse().ok());
        gather.answered(to, time);
        if let Some(at) = self.error {
            gather.failed(to, &show(&cells[at]).0);
            return Ok(None);
        }
        let is_of_query =
            |at: &usize| *at != self.host && Some(*at) != self.fetched && !self.dropped.contains(at);
        let fields: Vec<String> = (0..cells.len())
            .filter(is_of_query)
            .map(|at| format!("{}:{}", self.names[at], quoted(&cells[at])))
            .collect();
        gather.row(to, &format!("{{{}}}", fields.join(",")), place)?;
        Ok(None)
    }
}

/// The bytes as a JSON string, in transport encoding.
fn quoted(cell: &[u8]) -> String {
    let mut json = Vec::with_capacity(cell.len() + 2);
    json.push(b'"');
    for byte in cell {
        if matches!(byte, b'"' | b'\\') {
            json.push(b'\\');
        }
        json.push(*byte);
    }
    json.push(b'"');
    // Control characters are escaped there, and what is no UTF-8 is encoded.
    json_text(&json).map_or_else(|_| "\"\"".to_owned(), |text| text.into_owned())
}

/// Reads one line, or several where a cell has line breaks, without its end. Whether it could be kept whole; none at the
/// end of the file.
fn record(
    source: &mut Source<'_>,
    (buffer, limit): (&mut Vec<u8>, usize),
    quoting: Quoting,
) -> Option<(Place, bool)> {
    source.peek()?;
    let place = source.place();
    buffer.clear();
    buffer.shrink_to(1 << 20);
    let (mut in_quotes, mut escaped) = (false, false);
    let taken = source.take(Some((&mut *buffer, limit)), |piece| {
        for (at, byte) in piece.iter().enumerate() {
            match byte {
                _ if std::mem::take(&mut escaped) => {}
                b'\\' if in_quotes && quoting == Quoting::Json => escaped = true,
                b'"' => in_quotes = !in_quotes,
                // A JSON string has no line break: there a quote that is not closed costs its line only.
                b'\n' if !in_quotes || quoting == Quoting::Json => return (at + 1, true),
                _ => {}
            }
        }
        (piece.len(), false)
    });
    while buffer.last().is_some_and(|last| matches!(last, b'\n' | b'\r')) {
        buffer.pop();
    }
    Some((place, taken.bytes <= limit && !in_quotes))
}

/// Whether every cell begins with a quote, as the UI writes them.
fn is_all_quoted(line: &[u8]) -> bool {
    cells(line, Quoting::Json).is_ok() && line.starts_with(b"\"") && {
        let mut rest = line;
        let mut all = true;
        while let Some(at) = memchr(b',', rest) {
            rest = &rest[at + 1..];
            all &= rest.starts_with(b"\"");
        }
        all
    }
}

/// The cells of a line.
fn cells(line: &[u8], quoting: Quoting) -> Result<Vec<Vec<u8>>, String> {
    let mut cells = Vec::new();
    let mut rest = line;
    loop {
        let (cell, after) = cell(rest, quoting)?;
        cells.push(cell);
        match after {
            [] => return Ok(cells),
            [b',', more @ ..] => rest = more,
            _ => {
                return Err(format!(
                    "expected a comma, found `{}`",
                    excerpt(&show(&after[..after.len().min(64)]).0)
                ));
            }
        }
        if cells.len() > MOST_COLUMNS {
            return Err(format!("there are more than {MOST_COLUMNS} cells in this line"));
        }
    }
}

/// The first cell, and what follows it.
fn cell(text: &[u8], quoting: Quoting) -> Result<(Vec<u8>, &[u8]), String> {
    if !text.starts_with(b"\"") {
        let end = memchr(b',', text).unwrap_or(text.len());
        return Ok((text[..end].to_vec(), &text[end..]));
    }
    match quoting {
        Quoting::Doubled => doubled(&text[1..]),
        Quoting::Json => {
            let mut escaped = false;
            let end = text[1..].iter().position(|byte| match byte {
                _ if std::mem::take(&mut escaped) => false,
                b'\\' => {
                    escaped = true;
                    false
                }
                byte => *byte == b'"',
            });
            let end = end.ok_or("a quote is not closed")? + 2;
            let value = json_text(&text[..end]).and_then(|text| serde_json::from_str::<String>(&text));
            let value = value.map_err(|_| "a cell is no JSON string".to_owned())?;
            // Back to the bytes of the file: they are encoded again with the row.
            Ok((super::utf8::original_bytes(&value).into_owned(), &text[end..]))
        }
    }
}

fn doubled(mut rest: &[u8]) -> Result<(Vec<u8>, &[u8]), String> {
    let mut cell = Vec::new();
    loop {
        let end = memchr(b'"', rest).ok_or("a quote is not closed")?;
        cell.extend_from_slice(&rest[..end]);
        rest = &rest[end + 1..];
        match rest {
            [b'"', more @ ..] => {
                cell.push(b'"');
                rest = more;
            }
            _ => return Ok((cell, rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(cells: Vec<Vec<u8>>) -> Vec<String> {
        cells.into_iter().map(|cell| String::from_utf8_lossy(&cell).into_owned()).collect()
    }

    #[test]
    fn cells_are_read_as_they_are_quoted() {
        let check = |line: &str, quoting: Quoting, expect: &[&str]| {
            assert_eq!(text(cells(line.as_bytes(), quoting).unwrap()), expect, "{line}");
        };
        check(r#""a","b \"c\", d","line\nbreak","""#, Quoting::Json, &["a", "b \"c\", d", "line\nbreak", ""]);
        check(r#""a",,"b""#, Quoting::Json, &["a", "", "b"]);
        check(r#"a,"b ""c"", d","C:\dir\""#, Quoting::Doubled, &["a", "b \"c\", d", r"C:\dir\"]);
        check("", Quoting::Doubled, &[""]);
        for line in [r#""a"b,c"#, r#""a"#] {
            assert!(cells(line.as_bytes(), Quoting::Doubled).is_err(), "{line}");
            assert!(cells(line.as_bytes(), Quoting::Json).is_err(), "{line}");
        }
    }

    #[test]
    fn the_first_line_tells_how_cells_are_quoted() {
        assert!(is_all_quoted(br#""host_display_name","last_fetched","pid""#));
        assert!(!is_all_quoted(b"host_display_name,last_fetched,pid"));
        assert!(!is_all_quoted(br#""host_display_name",pid"#));
    }

    fn records(text: &[u8], quoting: Quoting) -> Vec<(u64, Vec<u8>, bool)> {
        let mut reader = text;
        let mut source = Source::new(&mut reader, "f");
        let (mut buffer, mut found) = (Vec::new(), Vec::new());
        while let Some((place, whole)) = record(&mut source, (&mut buffer, 40), quoting) {
            found.push((place.line, buffer.clone(), whole));
        }
        found
    }

    #[test]
    fn lines_end_where_no_quote_is_open() {
        let found = records(b"a,b\r\n\"c\n\"\"d\",e\nf", Quoting::Doubled);
        let expect =
            [(1, b"a,b".to_vec(), true), (2, b"\"c\n\"\"d\",e".to_vec(), true), (4, b"f".to_vec(), true)];
        assert_eq!(found, expect);
        // With JSON strings a line is a line, whatever a cell says.
        let found = records(b"\"a\\\"\n\"b\"\n", Quoting::Json);
        assert_eq!(found, [(1, b"\"a\\\"".to_vec(), false), (2, b"\"b\"".to_vec(), true)]);
        assert!(!records(&[b'x'; 100], Quoting::Doubled)[0].2);
    }

    proptest! {
        #[test]
        fn every_cell_survives_both_ways(line in prop::collection::vec("\\PC{0,12}|[\"\\\\,\n\r]{1,4}", 1..6)) {
            let json: Vec<String> = line.iter().map(|cell| serde_json::Value::from(cell.as_str()).to_string()).collect();
            prop_assert_eq!(&text(cells(json.join(",").as_bytes(), Quoting::Json).unwrap()), &line);
            let plain: Vec<String> = line.iter().map(|cell| format!("\"{}\"", cell.replace('"', "\"\""))).collect();
            prop_assert_eq!(&text(cells(plain.join(",").as_bytes(), Quoting::Doubled).unwrap()), &line);
            for cell in &line {
                prop_assert_eq!(&serde_json::from_str::<String>(&quoted(cell.as_bytes())).unwrap(), cell);
            }
        }

        #[test]
        fn any_bytes_are_read_to_their_end(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            for quoting in [Quoting::Json, Quoting::Doubled] {
                for (_, record, _) in records(&bytes, quoting) {
                    let _ = cells(&record, quoting);
                    let json = quoted(&record);
                    prop_assert!(serde_json::from_str::<String>(&json).is_ok(), "{}", json);
                }
            }
        }
    }
}
