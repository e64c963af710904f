//! The canonical encoding of identity columns and its digest.

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeBinaryArray, FixedSizeBinaryBuilder, RecordBatch,
};
use datafusion::arrow::datatypes::{DataType, Float64Type, Int64Type};

use super::normalise::{Text, normalise};
use super::own_names::OwnNames;
use crate::catalog::{ColumnSpec, ColumnType, Normaliser, OWN_COLUMNS, Role, Strength, TableSpec};
use crate::error::{Error, Result};

/// Version of the encoding; stored in the manifest, with test vectors below.
pub const ENCODING_VERSION: u32 = 1;

/// Bytes of an id: 128 bits of BLAKE3. Cryptographic because the host is hostile: with a fast hash it could pick a row
/// that collides with a common one.
pub const ID_BYTES: i32 = 16;

/// The three ids of each row of a batch, each 16 bytes.
#[derive(Debug)]
pub struct Ids {
    /// The same thing.
    pub loose: FixedSizeBinaryArray,
    /// The same thing with the same content.
    pub strict: FixedSizeBinaryArray,
    /// The same line of prevalence: equal in all comparable columns but for own names.
    pub grain: FixedSizeBinaryArray,
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
    /// # Errors
    /// Never for batches of the decoder; `Internal` when Arrow refuses the ids.
    pub fn identify(&self, batch: &RecordBatch, own: &OwnNames) -> Result<Ids> {
        let rows = batch.num_rows();
        let present: Vec<(&IdentityColumn, Cells<'_>)> = self
            .columns
            .iter()
            .filter_map(|column| Some((column, Cells::of(batch.column_by_name(&column.spec.name)?))))
            .collect();
        let mut builders = [(); 3].map(|()| FixedSizeBinaryBuilder::with_capacity(rows, ID_BYTES));
        let mut encodings = [Encoding::new(), Encoding::new(), Encoding::new()];
        for row in 0..rows {
            self.encode_row(row, &present, own, &mut encodings);
            for (builder, encoding) in builders.iter_mut().zip(&encodings) {
                builder.append_value(encoding.id()).map_err(|source| {
                    Error::internal("cannot build ids").source(source).with("table", &self.table)
                })?;
            }
        }
        let [mut loose, mut strict, mut grain] = builders;
        Ok(Ids { loose: loose.finish(), strict: strict.finish(), grain: grain.finish() })
    }

    fn encode_row(
        &self,
        row: usize,
        present: &[(&IdentityColumn, Cells<'_>)],
        own: &OwnNames,
        encodings: &mut [Encoding; 3],
    ) {
        for (encoding, kind) in encodings.iter_mut().zip([b'l', b's', b'g']) {
            encoding.start(kind, &self.table);
        }
        let [loose, strict, grain] = encodings;
        for (column, cells) in present {
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
    let says_own_names =
        spec.normalise.contains(&Normaliser::SelfNames) || spec.normalise.contains(&Normaliser::Addr);
    if says_own_names { own.replace(text) } else { Text::Borrowed(text) }
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
enum Cells<'a> {
    Text(&'a datafusion::arrow::array::StringArray),
    Integer(&'a datafusion::arrow::array::Int64Array),
    Double(&'a datafusion::arrow::array::Float64Array),
    Unknown,
}

impl<'a> Cells<'a> {
    fn of(array: &'a ArrayRef) -> Self {
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

    fn id(&self) -> [u8; ID_BYTES as usize] {
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
        let ids = Identifier::new(&spec(), &[], &[]).identify(batch, &OwnNames::new(["web-0001"])).unwrap();
        [ids.loose, ids.strict, ids.grain].map(|array| hex(array.value(0)))
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

    proptest! {
        #[test]
        fn different_raw_values_have_different_strict_ids(a in "[a-z/]{0,12}", b in "[a-z/]{0,12}") {
            let same = ids(&batch(&a, Some(1), "c", 1))[1] == ids(&batch(&b, Some(1), "c", 1))[1];
            prop_assert_eq!(same, a == b);
        }
    }
}
