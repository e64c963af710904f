//! The canonical encoding of identity columns and its digest.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::LazyLock;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Float64Type, Int64Type};

use super::normalise::{Text, normalise};
use super::own_names::OwnNames;
use crate::catalog::{ColumnSpec, ColumnType, Normaliser, OWN_COLUMNS, Role, Strength, TableSpec};

/// Version of the encoding; stored in the manifest, with test vectors below.
pub const ENCODING_VERSION: u32 = 1;

/// Bytes of an id: 128 bits of BLAKE3. Cryptographic because the host is hostile: with a fast hash it could pick a row
/// that collides with a common one.
pub const ID_BYTES: i32 = 16;

/// An id.
pub type Id = [u8; ID_BYTES as usize];

/// The three ids of a row, in the order by which rows are sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowId {
    /// The same thing.
    pub loose: Id,
    /// The same thing with the same content.
    pub strict: Id,
    /// The same line of prevalence: equal in all comparable columns but for own names.
    pub grain: Id,
}

/// The ids of the rows of a batch.
#[derive(Debug, Default)]
pub struct RowIds {
    /// Ids; the same ones may be there more than once.
    pub distinct: Vec<RowId>,
    /// Of each row, the place of its ids.
    pub of_row: Vec<u32>,
}

impl RowIds {
    /// The ids of a row.
    pub fn of(&self, row: usize) -> &RowId {
        &self.distinct[self.of_row[row] as usize]
    }

    /// The ids of the next row, which are new.
    fn add(&mut self, id: RowId) -> u32 {
        let code = self.distinct.len() as u32;
        self.distinct.push(id);
        self.of_row.push(code);
        code
    }
}

/// Computes ids for the batches of one table.
#[derive(Debug)]
pub struct Identifier {
    table: String,
    columns: Vec<IdentityColumn>,
}

#[derive(Debug)]
struct IdentityColumn {
    spec: ColumnSpec,
    in_grain: bool,
}

impl Identifier {
    /// For a table, leaving the columns named in `without` out of the grain of prevalence. A table that no schema
    /// declares takes all columns that its batches have.
    pub fn new(spec: &TableSpec, batch_columns: &[String], without: &[String]) -> Self {
        let declared: Vec<ColumnSpec> =
            if spec.declared { spec.columns.clone() } else { undeclared_columns(batch_columns) };
        let mut columns: Vec<IdentityColumn> = declared
            .into_iter()
            .filter(ColumnSpec::is_comparable)
            .map(|spec| IdentityColumn { in_grain: !without.contains(&spec.name), spec })
            .collect();
        // The encoding must not depend on the order in a schema file.
        columns.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
        Self { table: spec.name.clone(), columns }
    }

    /// Names of the columns of a prevalence line, sorted.
    pub fn grain_columns(&self) -> impl Iterator<Item = &ColumnSpec> {
        self.columns.iter().filter(|column| column.in_grain).map(|column| &column.spec)
    }

    /// The ids of each row. A column that is null (unknown) or not in the batch is not part of the ids.
    ///
    /// `hosts` says whose rows these are: ranges one after another, with the names of each. Rows that are equal to the
    /// last byte and say no own name have the same ids, whoever's they are, so these are computed once: a fleet's rows
    /// are nearly all the same row.
    pub fn identify(&self, batch: &RecordBatch, hosts: &[(Range<usize>, &OwnNames)]) -> RowIds {
        let present: Vec<Present<'_>> = self
            .columns
            .iter()
            .filter_map(|column| {
                let cells = Cells::of(batch.column_by_name(&column.spec.name)?);
                Some(Present { column, cells, says_own_names: says_own_names(&column.spec) })
            })
            .collect();
        let mut hasher = Hashing { identifier: self, present, encodings: [(); 3].map(|()| Encoding::new()) };
        let mut ids = RowIds { distinct: Vec::new(), of_row: Vec::with_capacity(batch.num_rows()) };
        let mut known: HashMap<Box<[u8]>, u32> = HashMap::new();
        let mut raw = Vec::with_capacity(512);
        for (rows, own) in hosts {
            let telling = hasher.telling(rows.clone(), own);
            for row in rows.clone() {
                if telling.iter().any(|at| hasher.present[*at].cells.names(row, own)) {
                    ids.add(hasher.id(row, own));
                    continue;
                }
                raw.clear();
                hasher.present.iter().for_each(|present| present.cells.append_to(row, &mut raw));
                match known.get(raw.as_slice()) {
                    Some(code) => ids.of_row.push(*code),
                    None => {
                        known.insert(raw.as_slice().into(), ids.add(hasher.id(row, &NOBODY)));
                    }
                }
            }
        }
        ids
    }

    fn encode_row(&self, row: usize, present: &[Present<'_>], own: &OwnNames, encodings: &mut [Encoding; 3]) {
        for (encoding, kind) in encodings.iter_mut().zip([b'l', b's', b'g']) {
            encoding.start(kind, &self.table);
        }
        let [loose, strict, grain] = encodings;
        for Present { column, cells, .. } in present {
            let Some(text) = cells.text(row) else { continue };
            let spec = &column.spec;
            if spec.in_identity(Strength::Loose) {
                loose.push(&spec.name, &normalise(&text, &spec.normalise, Strength::Loose, own));
            }
            if spec.in_identity(Strength::Strict) {
                strict.push(&spec.name, &normalise(&text, &spec.normalise, Strength::Strict, own));
            }
            if column.in_grain {
                grain.push(&spec.name, &without_own_names(&text, spec, own));
            }
        }
    }
}

/// A value as a prevalence line shows it: raw, but for own names.
pub(crate) fn without_own_names<'a>(text: &'a str, spec: &ColumnSpec, own: &OwnNames) -> Text<'a> {
    if says_own_names(spec) { own.replace(text) } else { Text::Borrowed(text) }
}

fn says_own_names(spec: &ColumnSpec) -> bool {
    spec.normalise.contains(&Normaliser::SelfNames) || spec.normalise.contains(&Normaliser::Addr)
}

static NOBODY: LazyLock<OwnNames> = LazyLock::new(OwnNames::default);

/// A column of the identity that a batch has.
struct Present<'a> {
    column: &'a IdentityColumn,
    cells: Cells<'a>,
    /// Whether own names are replaced in it.
    says_own_names: bool,
}

/// What computing ids needs.
struct Hashing<'a> {
    identifier: &'a Identifier,
    present: Vec<Present<'a>>,
    encodings: [Encoding; 3],
}

impl Hashing<'_> {
    /// The columns in which a host may have said an own name anywhere in these rows.
    fn telling(&self, rows: Range<usize>, own: &OwnNames) -> Vec<usize> {
        let may_tell =
            |present: &Present<'_>| present.says_own_names && present.cells.may_name(rows.clone(), own);
        self.present.iter().enumerate().filter(|(_, present)| may_tell(present)).map(|(at, _)| at).collect()
    }

    fn id(&mut self, row: usize, own: &OwnNames) -> RowId {
        self.identifier.encode_row(row, &self.present, own, &mut self.encodings);
        let [loose, strict, grain] = &self.encodings;
        RowId { loose: loose.id(), strict: strict.id(), grain: grain.id() }
    }
}

fn undeclared_columns(batch_columns: &[String]) -> Vec<ColumnSpec> {
    let is_theirs = |name: &&String| !OWN_COLUMNS.contains(&name.as_str());
    let column = |name: &String| ColumnSpec {
        name: name.clone(),
        osquery_name: None,
        kind: ColumnType::Text,
        role: Role::Identity,
        strength: None,
        normalise: vec![Normaliser::SelfNames],
        unit: None,
        since: None,
        sensitive: false,
        description: String::new(),
    };
    batch_columns.iter().filter(is_theirs).map(column).collect()
}

/// The cells of one column as the text that osquery would print.
#[derive(Debug)]
pub(crate) enum Cells<'a> {
    Text(&'a datafusion::arrow::array::StringArray),
    Integer(&'a datafusion::arrow::array::Int64Array),
    Double(&'a datafusion::arrow::array::Float64Array),
    Unknown,
}

impl<'a> Cells<'a> {
    /// Those of an array that a table column can be.
    pub(crate) fn of(array: &'a ArrayRef) -> Self {
        match array.data_type() {
            DataType::Utf8 => Self::Text(array.as_string()),
            DataType::Int64 => Self::Integer(array.as_primitive::<Int64Type>()),
            DataType::Float64 => Self::Double(array.as_primitive::<Float64Type>()),
            _ => Self::Unknown,
        }
    }

    fn text(&self, row: usize) -> Option<Text<'a>> {
        match self {
            Self::Text(array) => array.is_valid(row).then(|| Text::Borrowed(array.value(row))),
            Self::Integer(array) => array.is_valid(row).then(|| Text::Owned(array.value(row).to_string())),
            Self::Double(array) => array.is_valid(row).then(|| Text::Owned(array.value(row).to_string())),
            Self::Unknown => None,
        }
    }

    /// Whether an own name may stand somewhere in these rows: all of their bytes are looked at as one text.
    fn may_name(&self, rows: Range<usize>, own: &OwnNames) -> bool {
        match self {
            Self::Text(array) => {
                let bytes = |row: usize| array.value_offsets().get(row).map_or(0, |offset| *offset as usize);
                let text = array.value_data().get(bytes(rows.start)..bytes(rows.end));
                text.is_none_or(|text| own.stand_in(text))
            }
            Self::Integer(_) | Self::Double(_) => true,
            Self::Unknown => false,
        }
    }

    /// Whether an own name stands in this cell, or could.
    fn names(&self, row: usize, own: &OwnNames) -> bool {
        self.text(row).is_some_and(|text| own.stand_in(text.as_bytes()))
    }

    /// The cell, told apart from every other and from what follows.
    pub(crate) fn append_to(&self, row: usize, raw: &mut Vec<u8>) {
        match self {
            Self::Text(array) if array.is_valid(row) => {
                let text = array.value(row);
                raw.extend_from_slice(&(text.len() as u64 + 1).to_le_bytes());
                raw.extend_from_slice(text.as_bytes());
            }
            Self::Integer(array) if array.is_valid(row) => {
                raw.push(1);
                raw.extend_from_slice(&array.value(row).to_le_bytes());
            }
            Self::Double(array) if array.is_valid(row) => {
                raw.push(1);
                raw.extend_from_slice(&array.value(row).to_bits().to_le_bytes());
            }
            Self::Text(_) => raw.extend_from_slice(&[0; 8]),
            Self::Integer(_) | Self::Double(_) => raw.push(0),
            Self::Unknown => {}
        }
    }
}

/// Length-prefixed pairs, so that no two different rows encode alike.
struct Encoding(Vec<u8>);

impl Encoding {
    fn new() -> Self {
        Self(Vec::with_capacity(512))
    }

    fn start(&mut self, kind: u8, table: &str) {
        self.0.clear();
        self.0.extend_from_slice(b"diffy-id-1");
        self.0.push(kind);
        self.bytes(table.as_bytes());
    }

    fn push(&mut self, name: &str, value: &str) {
        self.bytes(name.as_bytes());
        self.bytes(value.as_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        self.0.extend_from_slice(bytes);
    }

    fn id(&self) -> Id {
        let mut id = [0; ID_BYTES as usize];
        id.copy_from_slice(&blake3::hash(&self.0).as_bytes()[..ID_BYTES as usize]);
        id
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{Int64Array, StringArray};
    use proptest::prelude::*;

    use super::*;

    fn spec() -> TableSpec {
        TableSpec::parse(
            r##"
            name = "t"
            description = "T."
            platforms = ["linux"]
            weight = 1.0
            query = "SELECT * FROM t"
            column = [
                { name = "b", type = "text", role = "identity", normalise = ["self", "num"], description = "B." },
                { name = "a", type = "integer", role = "identity", strength = "strict", description = "A." },
                { name = "c", type = "text", role = "context", description = "C." },
                { name = "pid", type = "integer", role = "volatile", description = "P." },
            ]
            "##,
            "t.toml",
        )
        .unwrap()
    }

    fn batch(b: &str, a: Option<i64>, c: &str, pid: i64) -> RecordBatch {
        RecordBatch::try_from_iter([
            ("b", Arc::new(StringArray::from(vec![b])) as ArrayRef),
            ("a", Arc::new(Int64Array::from(vec![a])) as ArrayRef),
            ("c", Arc::new(StringArray::from(vec![c])) as ArrayRef),
            ("pid", Arc::new(Int64Array::from(vec![pid])) as ArrayRef),
        ])
        .unwrap()
    }

    fn ids(batch: &RecordBatch) -> [String; 3] {
        let own = OwnNames::new(["web-0001"]);
        let ids = Identifier::new(&spec(), &[], &[]).identify(batch, &[(0..1, &own)]);
        let RowId { loose, strict, grain } = ids.of(0);
        [loose, strict, grain].map(|id| hex(id))
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Vectors of encoding version 1: if one changes, stored ids no longer compare and the version must rise.
    #[test]
    fn vectors_of_version_1() {
        let expected = [
            "373a5ce43ee108f51921e7307692686b",
            "f390f7d07e5d5e608f633e013cdd3364",
            "f0e7e8faab575447250c1f4416883723",
        ];
        assert_eq!(ids(&batch("x web-0001 7", Some(3), "ctx", 9)), expected);
        // Where they come from: the loose one, byte by byte.
        let encoding = b"diffy-id-1l\x01\0\0\0\0\0\0\0t\x01\0\0\0\0\0\0\0b\x0a\0\0\0\0\0\0\0x <self> #";
        assert_eq!(hex(&blake3::hash(encoding).as_bytes()[..16]), expected[0]);
    }

    #[test]
    fn volatile_columns_and_own_names_are_in_no_id() {
        assert_eq!(ids(&batch("web-0001", Some(1), "c", 1)), ids(&batch(SELF, Some(1), "c", 2)));
    }

    const SELF: &str = super::super::SELF_PLACEHOLDER;

    #[test]
    fn strict_columns_are_in_the_strict_id_only_and_context_only_in_the_grain() {
        let [loose, strict, grain] = ids(&batch("x", Some(1), "c", 1));
        let [other_loose, other_strict, other_grain] = ids(&batch("x", Some(2), "c", 1));
        assert_eq!(loose, other_loose);
        assert_ne!(strict, other_strict);
        assert_ne!(grain, other_grain);
        let [loose, strict, grain2] = ids(&batch("x", Some(1), "d", 1));
        assert_eq!(
            [loose, strict],
            [ids(&batch("x", Some(1), "c", 1))[0].clone(), ids(&batch("x", Some(1), "c", 1))[1].clone()]
        );
        assert_ne!(grain, grain2);
    }

    #[test]
    fn unknown_is_not_empty() {
        let unknown = batch("x", None, "c", 1);
        assert_ne!(ids(&unknown)[1], ids(&batch("x", Some(0), "c", 1))[1]);
    }

    #[test]
    fn rows_of_many_hosts_have_the_ids_that_each_has_alone() {
        let names = ["web-0001", "web-0002", "123456"];
        let own = names.map(|name| OwnNames::new([name]));
        let texts = ["x", "web-0001", "x web-0002", "x", "web-0001", "at 123456"];
        let rows: Vec<RecordBatch> =
            texts.iter().map(|text| batch(text, Some(123_456), "ctx web-0002", 1)).collect();
        let all = datafusion::arrow::compute::concat_batches(&rows[0].schema(), &rows).unwrap();
        let identifier = Identifier::new(&spec(), &[], &[]);
        let together =
            identifier.identify(&all, &[(0..2, &own[0]), (2..2, &own[1]), (2..5, &own[1]), (5..6, &own[2])]);
        for (row, host) in [0, 0, 1, 1, 1, 2].into_iter().enumerate() {
            let alone = identifier.identify(&rows[row], &[(0..1, &own[host])]);
            assert_eq!(together.of(row), alone.of(0), "row {row}");
        }
        assert_eq!(together.of_row[0], together.of_row[3], "computed once");
        assert_ne!(together.of(1), together.of(4), "another host's name is no placeholder");
    }

    proptest! {
        #[test]
        fn different_raw_values_have_different_strict_ids(a in "[a-z/]{0,12}", b in "[a-z/]{0,12}") {
            let same = ids(&batch(&a, Some(1), "c", 1))[1] == ids(&batch(&b, Some(1), "c", 1))[1];
            prop_assert_eq!(same, a == b);
        }
    }
}
