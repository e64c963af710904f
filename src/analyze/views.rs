//! How a column is seen: one code per line of prevalence, so that equal values are equal numbers.
//!
//! Each column has up to two views. The *raw* one is evened out as far as both ids are; the *masked* one goes further:
//! numbers, hex digits, addresses and keys become their kind, so that what differs by counting alone is one value. A
//! third kind of view stands for the whole row: its loose id, and its strict id.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::LazyLock;

use regex::Regex;
use roaring::RoaringBitmap;

use super::cells::Cells;
pub(super) use super::cells::UNKNOWN;
use super::lines::{Line, Lines, Loaded};
use crate::catalog::{ColumnSpec, ColumnType, Strength};
use crate::identity::evened_out;

/// Share of the hosts that an unknown identity column must have before rows without it are compared whole.
const OWN_KIND: f64 = 0.2;

/// What a view shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Shows {
    /// A column, as both ids see it.
    Raw,
    /// A column with its numbers, addresses and keys masked.
    Masked,
    /// The row as its loose id sees it.
    Loose,
    /// The row as its strict id sees it.
    Strict,
}

/// One way of seeing one column, or the whole row.
#[derive(Debug)]
pub(super) struct View {
    /// The column; none for a whole row.
    pub(super) column: Option<String>,
    pub(super) shows: Shows,
    /// Whether the values are numbers.
    pub(super) is_number: bool,
    /// By line: equal values have equal codes; [`UNKNOWN`] where the host did not say.
    pub(super) codes: Vec<u32>,
    /// How many codes there are.
    pub(super) distinct: u32,
    pub(super) by_code: ByCode,
    /// Hosts with rows that know nothing of it.
    pub(super) ignorant: RoaringBitmap,
}

/// Lines by their codes; those whose code is not known are left out.
#[derive(Debug)]
pub(super) struct ByCode {
    lines: Vec<u32>,
    /// By code: where its lines begin; and the end of all.
    starts: Vec<u32>,
}

impl ByCode {
    fn new(codes: &[u32], distinct: u32) -> Self {
        let mut starts = vec![0_u32; distinct as usize + 1];
        let known = || (0_u32..).zip(codes).filter(|(_, code)| **code != UNKNOWN);
        known().for_each(|(_, code)| starts[*code as usize + 1] += 1);
        for code in 1..starts.len() {
            starts[code] += starts[code - 1];
        }
        let mut lines = vec![0; starts.last().map_or(0, |end| *end as usize)];
        let mut next = starts.clone();
        for (line, code) in known() {
            lines[next[*code as usize] as usize] = line;
            next[*code as usize] += 1;
        }
        Self { lines, starts }
    }

    /// All lines, those of the same code beside each other, and of these the first first.
    pub(super) fn lines(&self) -> &[u32] {
        &self.lines
    }

    /// The lines of a code.
    pub(super) fn of(&self, code: u32) -> &[u32] {
        &self.lines[self.starts[code as usize] as usize..self.starts[code as usize + 1] as usize]
    }
}

/// The views of one table.
pub(super) fn views(table: &Loaded<'_>) -> Vec<View> {
    let lines = &table.lines;
    let mut views = Vec::new();
    for column in lines.spec.columns.iter().filter(|column| column.is_comparable()) {
        if let Some(cells) = lines.cells(&column.name) {
            views.extend(of_column(lines, column, cells));
        }
    }
    views.extend(of_rows(table, &views));
    views
}

/// By line: a number that rows share whose identity columns, masked, are the same.
pub(super) fn masked_rows(table: &Loaded<'_>, views: &[View]) -> impl Fn(usize) -> u64 {
    let masked = |column: &ColumnSpec| {
        // The masked view stands after the raw one; a column without one is the same either way.
        views.iter().rfind(|view| view.column.as_deref() == Some(&column.name))
    };
    let columns: Vec<&View> = table.lines.spec.identity(Strength::Strict).filter_map(masked).collect();
    move |line: usize| {
        let mut hasher = DefaultHasher::new();
        columns.iter().for_each(|view| view.codes[line].hash(&mut hasher));
        hasher.finish()
    }
}

fn of_column(lines: &Lines, column: &ColumnSpec, cells: &Cells) -> Vec<View> {
    let (raw, distinct) = recoded(cells, |text| evened_out(text, column, Strength::Strict));
    let view = |shows, recoded: &[u32], distinct| {
        let by_line = cells.codes.iter().map(|code| recoded.get(*code as usize).copied().unwrap_or(UNKNOWN));
        View::new(lines, Some(column), shows, (by_line.collect(), distinct))
    };
    let mut views = vec![view(Shows::Raw, &raw, distinct)];
    views[0].is_number |= are_numbers(cells);
    let (masked, masks) = recoded(cells, |text| match evened_out(text, column, Strength::Loose) {
        Cow::Borrowed(text) => mask(text),
        Cow::Owned(text) => Cow::Owned(mask(&text).into_owned()),
    });
    if masks < distinct && masks > 1 {
        let masked = View { is_number: views[0].is_number, ..view(Shows::Masked, &masked, masks) };
        views.push(masked);
    }
    views
}

/// Minutes, sizes and ids are numbers, whatever the type of their column.
fn are_numbers(cells: &Cells) -> bool {
    let (mut all, mut numbers) = (0, 0);
    for text in cells.distinct() {
        all += 1;
        numbers += usize::from(text.parse::<f64>().is_ok());
    }
    numbers * 2 > all
}

/// By code: the code of what `change` makes of its value; and how many there are.
fn recoded<'a>(cells: &'a Cells, change: impl Fn(&'a str) -> Cow<'a, str>) -> (Vec<u32>, u32) {
    let mut numbers: HashMap<Cow<'a, str>, u32> = HashMap::new();
    let number = |text| {
        let next = numbers.len() as u32;
        *numbers.entry(change(text)).or_insert(next)
    };
    let codes = cells.distinct().map(number).collect();
    (codes, numbers.len() as u32)
}

/// Rows as a whole. A row of which a host left identity columns out is no row of its own kind for that.
fn of_rows(table: &Loaded<'_>, columns: &[View]) -> [View; 2] {
    let lines = &table.lines;
    let mut with_rows = RoaringBitmap::new();
    lines.lines.iter().for_each(|line| with_rows |= &line.members);
    let is_partial = |view: &&View| {
        let ignorant = view.ignorant.len() as f64;
        view.shows == Shows::Raw
            && !view.ignorant.is_empty()
            && ignorant < with_rows.len() as f64 * OWN_KIND
            && view.spec(lines).is_some_and(|column| column.in_identity(Strength::Strict))
    };
    let partial: Vec<&View> = columns.iter().filter(is_partial).collect();
    let is_whole = |line: usize| partial.iter().all(|view| view.codes[line] != UNKNOWN);
    let loose = |a: &Line, b: &Line| a.loose == b.loose;
    let strict = |a: &Line, b: &Line| (a.loose, a.strict) == (b.loose, b.strict);
    [
        View::new(lines, None, Shows::Loose, numbered(lines, loose, is_whole)),
        View::new(lines, None, Shows::Strict, numbered(lines, strict, is_whole)),
    ]
}

/// Codes for runs of lines that are the same; those that are not `whole` have none.
fn numbered(
    lines: &Lines,
    is_same: impl Fn(&Line, &Line) -> bool,
    is_whole: impl Fn(usize) -> bool,
) -> (Vec<u32>, u32) {
    let mut codes = Vec::with_capacity(lines.lines.len());
    let mut last: Option<&Line> = None;
    let mut count = 0;
    for (number, line) in lines.lines.iter().enumerate() {
        if !is_whole(number) {
            codes.push(UNKNOWN);
            continue;
        }
        if last.replace(line).is_none_or(|last| !is_same(last, line)) {
            count += 1;
        }
        codes.push(count - 1);
    }
    (codes, count)
}

impl View {
    /// What the schema says of its column; none for a whole row.
    pub(super) fn spec<'a>(&self, lines: &'a Lines) -> Option<&'a ColumnSpec> {
        lines.spec.column(self.column.as_deref()?)
    }

    fn new(
        lines: &Lines,
        column: Option<&ColumnSpec>,
        shows: Shows,
        (codes, distinct): (Vec<u32>, u32),
    ) -> Self {
        Self {
            column: column.map(|column| column.name.clone()),
            shows,
            is_number: column.is_some_and(|column| column.kind != ColumnType::Text),
            distinct,
            by_code: ByCode::new(&codes, distinct),
            ignorant: ignorant(lines, &codes),
            codes,
        }
    }
}

/// Hosts with rows of which none has a code.
fn ignorant(lines: &Lines, codes: &[u32]) -> RoaringBitmap {
    let mut ignorant = RoaringBitmap::new();
    if !codes.contains(&UNKNOWN) {
        return ignorant;
    }
    let mut knowing = RoaringBitmap::new();
    for (line, code) in lines.lines.iter().zip(codes) {
        if *code == UNKNOWN { ignorant |= &line.members } else { knowing |= &line.members }
    }
    ignorant - knowing
}

/// What counts, names or hides by chance becomes its kind: `ip-10-1-2-3` and `sess_4f2a9c` are one value on every host.
pub(super) fn mask(text: &str) -> Cow<'_, str> {
    static KINDS: LazyLock<[(Regex, &str); 5]> = LazyLock::new(|| {
        let kind = |pattern: &str, kind| {
            #[expect(clippy::expect_used, reason = "constant patterns, compiled by the tests")]
            let pattern = Regex::new(pattern).expect("constant pattern");
            (pattern, kind)
        };
        [
            kind(r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b", "<U>"),
            kind(r"\b\d{1,3}[.-]\d{1,3}[.-]\d{1,3}[.-]\d{1,3}\b", "<I>"),
            kind(r"[A-Za-z0-9+/]{24,}={0,2}", "<B>"),
            kind(r"[0-9a-fA-F]{6,}", "<H>"),
            kind(r"\d+", "<D>"),
        ]
    });
    let is_plain = text.is_ascii();
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    let count = |sought: &[u8]| text.bytes().filter(|byte| sought.contains(byte)).count();
    // Most texts can have few of the kinds, and searching for each takes most of the time.
    let may_be = [
        count(b"-") >= 4,
        digits >= 4 && count(b".-") >= 3,
        digits > 3 && text.len() >= 24,
        digits > 0 && text.len() >= 6,
        digits > 0,
    ];
    let mut text = Cow::Borrowed(text);
    for (number, (pattern, kind)) in KINDS.iter().enumerate() {
        if is_plain && !may_be[number] {
            continue;
        }
        let is_kind = |word: &str| match number {
            // Paths are long words too, and words are made of hex digits: chance shows in digits among letters.
            2 => word.bytes().filter(u8::is_ascii_digit).count() > 3 && word.matches('/').count() < 3,
            3 => word.bytes().any(|byte| byte.is_ascii_digit()),
            _ => true,
        };
        if let Some(replaced) = replaced(&text, (pattern, kind), is_kind) {
            text = Cow::Owned(replaced);
        }
    }
    text
}

/// A text with what matches and is of the kind replaced; none when nothing is.
fn replaced(text: &str, (pattern, kind): (&Regex, &str), is_kind: impl Fn(&str) -> bool) -> Option<String> {
    let mut replaced = String::new();
    let mut end = 0;
    for found in pattern.find_iter(text).filter(|found| is_kind(found.as_str())) {
        replaced.push_str(&text[end..found.start()]);
        replaced.push_str(kind);
        end = found.end();
    }
    (end > 0).then(|| replaced + &text[end..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::Fleet;
    use super::*;

    fn view<'a>(views: &'a [View], column: &str, shows: Shows) -> Option<&'a View> {
        views.iter().find(|view| view.column.as_deref() == Some(column) && view.shows == shows)
    }

    /// The lines of these hosts, in the order of the hosts.
    fn lines(table: &Loaded<'_>, hosts: &[u32]) -> Vec<usize> {
        let line = |host| table.lines.lines.iter().position(|line| line.members.contains(host));
        hosts.iter().map(|host| line(*host).unwrap()).collect()
    }

    #[test]
    fn equal_values_are_equal_codes_and_unknown_ones_are_none() {
        let mut fleet = Fleet::new(4, |host| format!("web-{host}"));
        fleet.row("users", "username=root|uid=0|shell=/bin/sh", 0..2);
        fleet.row("users", "username=toor|uid=0|shell=/bin/bash", [2]);
        fleet.row("users", "username=app|uid=7", [3]);
        let loaded = fleet.loaded();
        let views = views(&loaded[0]);
        let at = lines(&loaded[0], &[0, 2, 3]);
        let uid = view(&views, "uid", Shows::Raw).unwrap();
        assert_eq!((uid.codes[at[0]], uid.distinct, uid.is_number), (uid.codes[at[1]], 2, true));
        assert_ne!(uid.codes[at[0]], uid.codes[at[2]]);
        let shell = view(&views, "shell", Shows::Raw).unwrap();
        assert_eq!((shell.codes[at[2]], shell.distinct, shell.is_number), (UNKNOWN, 2, false));
        assert_eq!(shell.ignorant, RoaringBitmap::from_iter([3]));
        assert!(view(&views, "shell", Shows::Masked).is_none(), "nothing to mask: no second view");
    }

    #[test]
    fn a_masked_view_stands_after_the_raw_one_where_it_makes_fewer_values() {
        let mut fleet = Fleet::new(3, |host| format!("web-{host}"));
        for (host, name) in ["ci-1", "ci-22", "eve"].into_iter().enumerate() {
            fleet.row("users", &format!("username={name}|uid=7"), [host as u32]);
        }
        let loaded = fleet.loaded();
        let views = views(&loaded[0]);
        let of_name: Vec<(Shows, u32)> = views
            .iter()
            .filter(|view| view.column.as_deref() == Some("username"))
            .map(|view| (view.shows, view.distinct))
            .collect();
        assert_eq!(of_name, [(Shows::Raw, 3), (Shows::Masked, 2)]);
    }

    #[test]
    fn rows_that_differ_by_counting_share_a_masked_number() {
        let mut fleet = Fleet::new(3, |host| format!("web-{host}"));
        fleet.row("users", "username=ci-1|uid=7|directory=/home/ci-1", [0]);
        fleet.row("users", "username=ci-22|uid=7|directory=/home/ci-22", [1]);
        fleet.row("users", "username=eve|uid=7|directory=/home/eve", [2]);
        let loaded = fleet.loaded();
        let views = views(&loaded[0]);
        let masked = masked_rows(&loaded[0], &views);
        let at = lines(&loaded[0], &[0, 1, 2]);
        assert_eq!(masked(at[0]), masked(at[1]));
        assert_ne!(masked(at[0]), masked(at[2]));
    }

    #[test]
    fn a_row_without_a_column_that_the_others_return_is_no_row_of_its_own_kind() {
        let mut fleet = Fleet::new(20, |host| format!("web-{host}"));
        fleet.row("processes", "name=sshd|path=/usr/sbin/sshd|euid=0|on_disk=1", 0..19);
        fleet.row("processes", "name=sshd|path=/usr/sbin/sshd|euid=0", [19]);
        let loaded = fleet.loaded();
        let views = views(&loaded[0]);
        let at = lines(&loaded[0], &[0, 19]);
        for whole in views.iter().filter(|view| view.column.is_none()) {
            assert_ne!(whole.codes[at[0]], UNKNOWN);
            assert_eq!(whole.codes[at[1]], UNKNOWN, "{:?}", whole.shows);
        }
    }

    #[test]
    fn values_that_differ_by_chance_mask_alike() {
        let same = |a: &str, b: &str| assert_eq!(mask(a), mask(b));
        same("sess-1234567", "sess-7654321");
        same("job-a1b2c3d", "job-0f9e8d7");
        same("job-1234567", "job-a1b2c3d");
        same("ip-10-1-2-3.ec2.internal", "ip-10-22-0-103.ec2.internal");
        same("3d813cbb-47fb-32ba-91df-831e1593ac29", "0d813cbb-47fb-32ba-91df-831e1593ac20");
        same("kworker/0:1", "kworker/12:4");
        same("AAAAC3NzaC1lZDI1NTE5AAAAI3a40817823a6b05", "AAAAC3NzaC1lZDI1NTE5AAAAIff40817823a6bff");
    }

    /// The kinds one after the other, without any shortcut.
    fn masked_slowly(text: &str) -> String {
        let kinds = [
            (r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b", "<U>"),
            (r"\b\d{1,3}([.-])\d{1,3}[.-]\d{1,3}[.-]\d{1,3}\b", "<I>"),
            (r"[A-Za-z0-9+/]{24,}={0,2}", "<B>"),
            (r"[0-9a-fA-F]{6,}", "<H>"),
            (r"\d+", "<D>"),
        ];
        let mut text = text.to_owned();
        for (number, (pattern, kind)) in kinds.into_iter().enumerate() {
            let replace = |found: &regex::Captures<'_>| {
                let digits = found[0].bytes().filter(u8::is_ascii_digit).count();
                let is_kind = match number {
                    2 => digits > 3 && found[0].matches('/').count() < 3,
                    3 => digits > 0,
                    _ => true,
                };
                if is_kind { kind.to_owned() } else { found[0].to_owned() }
            };
            text = Regex::new(pattern).unwrap().replace_all(&text, replace).into_owned();
        }
        text
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn shortcuts_mask_what_the_patterns_do(
            parts in prop::collection::vec(
                prop_oneof![
                    "[0-9a-f]{1,14}", "[A-Za-z0-9+/]{20,40}", "[-.=/ ]{1,3}", "[0-9]{1,3}[.-][0-9]{1,3}",
                    Just("٣é".to_owned()), "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
                    Just("abcdefab-abcd-abcd-abcd-abcdefabcdef".to_owned()),
                ],
                0..8,
            ),
        ) {
            let text = parts.concat();
            prop_assert_eq!(mask(&text), masked_slowly(&text));
        }
    }

    #[test]
    fn words_are_no_keys() {
        assert_eq!(mask("/usr/lib/openssh/sftp/server"), "/usr/lib/openssh/sftp/server");
        assert_eq!(mask("prometheusnodeexporterdaemon"), "prometheusnodeexporterdaemon");
        assert_eq!(mask("deadbeef"), "deadbeef");
    }
}
