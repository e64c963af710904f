//! SQL functions of our own: Roaring bitmaps of host ordinals, ids in hex, and rows as JSON text.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::mem::size_of;
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, BinaryArray, BinaryBuilder, BooleanArray, BooleanBuilder, FixedSizeBinaryBuilder,
    Float64Array, Int64Array, ListBuilder, StringArray, StringBuilder, UInt32Array, UInt32Builder,
    UInt64Array, UInt64Builder,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::common::{ScalarValue, exec_err};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, ColumnarValue, EmitTo, GroupsAccumulator,
    ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use roaring::RoaringBitmap;

use crate::model::hex;

/// Bytes of a row id.
const ID_BYTES: i32 = 16;

type Run = fn(&[ArrayRef]) -> Result<ArrayRef>;

/// All scalar functions that queries may use.
pub(super) fn scalars() -> Vec<ScalarUDF> {
    let list = DataType::List(Arc::new(Field::new_list_field(DataType::UInt32, true)));
    vec![
        scalar("bitmap", 1, DataType::Binary, bitmap),
        scalar("bitmap_count", 1, DataType::UInt64, bitmap_count),
        scalar("bitmap_to_list", 1, list, bitmap_to_list),
        scalar("bitmap_contains", 2, DataType::Boolean, bitmap_contains),
        scalar("hex_id", 1, DataType::Utf8, hex_id),
        scalar("unhex", 1, DataType::Binary, unhex),
        scalar("id", 1, DataType::FixedSizeBinary(ID_BYTES), id),
    ]
}

/// `bitmap_or(members)`: the union of bitmaps.
pub(super) fn bitmap_or() -> AggregateUDF {
    AggregateUDF::from(BitmapOr { signature: Signature::any(1, Volatility::Immutable) })
}

fn scalar(name: &'static str, arguments: usize, returns: DataType, run: Run) -> ScalarUDF {
    let signature = Signature::any(arguments, Volatility::Immutable);
    ScalarUDF::from(Function { name, signature, returns, run })
}

/// A function from arrays to an array; its name stands for it.
struct Function {
    name: &'static str,
    signature: Signature,
    returns: DataType,
    run: Run,
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Function {}

impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(self.returns.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        invoke(&args.args, args.number_rows, self.run)
    }
}

/// Runs `run` over arrays; constant arguments give a constant, so that it can be pushed into Parquet.
fn invoke(
    arguments: &[ColumnarValue],
    rows: usize,
    run: impl Fn(&[ArrayRef]) -> Result<ArrayRef>,
) -> Result<ColumnarValue> {
    let constant = arguments.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
    let rows = if constant { 1 } else { rows };
    let arrays = arguments.iter().map(|argument| argument.to_array(rows)).collect::<Result<Vec<_>>>()?;
    let result = run(&arrays)?;
    if constant {
        return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?));
    }
    Ok(ColumnarValue::Array(result))
}

fn bytes_of(array: &ArrayRef) -> Result<BinaryArray> {
    Ok(as_array::<BinaryArray>(&cast(array, &DataType::Binary)?)?.clone())
}

fn text_of(array: &ArrayRef) -> Result<StringArray> {
    Ok(as_array::<StringArray>(&cast(array, &DataType::Utf8)?)?.clone())
}

fn as_array<T: 'static>(array: &ArrayRef) -> Result<&T> {
    let Some(typed) = array.as_any().downcast_ref() else {
        return exec_err!("a column of type {} is not what was expected", array.data_type());
    };
    Ok(typed)
}

pub(super) fn read_bitmap(function: &str, bytes: &[u8]) -> Result<RoaringBitmap> {
    RoaringBitmap::deserialize_from(bytes)
        .or_else(|error| exec_err!("{function}: this is no bitmap of hosts: {error}"))
}

/// The host of a set of one, without building the set: most lines of prevalence are of one host.
///
/// Such a set is always written the same way: the cookie of sets without runs, one container with its key and
/// cardinality less one, where it starts, and the value's lower half
/// (<https://github.com/RoaringBitmap/RoaringFormatSpec>).
pub(super) fn only_host(bytes: &[u8]) -> Option<u32> {
    const COOKIE_AND_ONE_CONTAINER: [u8; 8] = [0x3a, 0x30, 0, 0, 1, 0, 0, 0];
    const ONE_VALUE_AT_16: [u8; 6] = [0, 0, 16, 0, 0, 0];
    let (head, rest) = bytes.split_first_chunk::<8>()?;
    let (key, rest) = rest.split_first_chunk::<2>()?;
    let (place, rest) = rest.split_first_chunk::<6>()?;
    let low: [u8; 2] = rest.try_into().ok()?;
    let single = *head == COOKIE_AND_ONE_CONTAINER && *place == ONE_VALUE_AT_16;
    single.then(|| u32::from(u16::from_le_bytes(*key)) << 16 | u32::from(u16::from_le_bytes(low)))
}

pub(super) fn write_bitmap(bitmap: &RoaringBitmap) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(bitmap.serialized_size());
    bitmap.serialize_into(&mut bytes).map_err(DataFusionError::IoError)?;
    Ok(bytes)
}

/// The bitmap of one host.
fn bitmap(arguments: &[ArrayRef]) -> Result<ArrayRef> {
    let hosts = cast(&arguments[0], &DataType::UInt32)?;
    let mut bitmaps = BinaryBuilder::new();
    for host in as_array::<UInt32Array>(&hosts)? {
        let bytes = host.map(|host| write_bitmap(&RoaringBitmap::from_iter([host]))).transpose()?;
        bitmaps.append_option(bytes);
    }
    Ok(Arc::new(bitmaps.finish()))
}

fn bitmap_count(arguments: &[ArrayRef]) -> Result<ArrayRef> {
    let mut counts = UInt64Builder::new();
    for bytes in &bytes_of(&arguments[0])? {
        counts.append_option(bytes.map(count).transpose()?);
    }
    Ok(Arc::new(counts.finish()))
}

fn count(bytes: &[u8]) -> Result<u64> {
    match only_host(bytes) {
        Some(_) => Ok(1),
        None => Ok(read_bitmap("bitmap_count", bytes)?.len()),
    }
}

fn bitmap_to_list(arguments: &[ArrayRef]) -> Result<ArrayRef> {
    let mut lists = ListBuilder::new(UInt32Builder::new());
    for bytes in &bytes_of(&arguments[0])? {
        if let Some(bytes) = bytes {
            match only_host(bytes) {
                Some(host) => lists.values().append_value(host),
                None => lists.values().extend(read_bitmap("bitmap_to_list", bytes)?.iter().map(Some)),
            }
        }
        lists.append(bytes.is_some());
    }
    Ok(Arc::new(lists.finish()))
}

fn bitmap_contains(arguments: &[ArrayRef]) -> Result<ArrayRef> {
    let sets = bytes_of(&arguments[0])?;
    let hosts = cast(&arguments[1], &DataType::UInt64)?;
    let hosts = as_array::<UInt64Array>(&hosts)?;
    let mut contained = BooleanBuilder::new();
    for (bytes, host) in sets.iter().zip(hosts) {
        let (Some(bytes), Some(host)) = (bytes, host) else {
            contained.append_null();
            continue;
        };
        let set = read_bitmap("bitmap_contains", bytes)?;
        contained.append_value(u32::try_from(host).is_ok_and(|host| set.contains(host)));
    }
    Ok(Arc::new(contained.finish()))
}

fn hex_id(arguments: &[ArrayRef]) -> Result<ArrayRef> {
    let mut texts = StringBuilder::new();
    for bytes in &bytes_of(&arguments[0])? {
        texts.append_option(bytes.map(hex));
    }
    Ok(Arc::new(texts.finish()))
}

fn unhex(arguments: &[ArrayRef]) -> Result<ArrayRef> {
    let mut binary = BinaryBuilder::new();
    for text in &text_of(&arguments[0])? {
        binary.append_option(text.map(|text| from_hex("unhex", text)).transpose()?);
    }
    Ok(Arc::new(binary.finish()))
}

fn id(arguments: &[ArrayRef]) -> Result<ArrayRef> {
    let mut ids = FixedSizeBinaryBuilder::new(ID_BYTES);
    for text in &text_of(&arguments[0])? {
        let Some(text) = text else {
            ids.append_null();
            continue;
        };
        let bytes = from_hex("id", text)?;
        if ids.append_value(&bytes).is_err() {
            return exec_err!("id: `{}` is no row id: it takes 32 hex digits", text.escape_debug());
        }
    }
    Ok(Arc::new(ids.finish()))
}

fn from_hex(function: &str, text: &str) -> Result<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    match digits {
        Some(digits) if digits.len() % 2 == 0 => {
            Ok(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
        }
        _ => exec_err!("{function}: `{}` is not made of pairs of hex digits", text.escape_debug()),
    }
}

/// A function that makes a JSON object of its arguments, under these names: rows of any table as one column.
pub(super) fn row_json(names: Vec<String>) -> ScalarUDF {
    let signature = Signature::variadic_any(Volatility::Immutable);
    ScalarUDF::from(RowJson { names, signature })
}

/// Its name.
#[cfg(feature = "ballista")]
pub(super) const ROW_JSON: &str = "row_json";

/// What it was made with, if a function is this one.
#[cfg(feature = "ballista")]
pub(super) fn row_json_names(function: &ScalarUDF) -> Option<&[String]> {
    function.inner().downcast_ref::<RowJson>().map(|function| function.names.as_slice())
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct RowJson {
    names: Vec<String>,
    signature: Signature,
}

impl ScalarUDFImpl for RowJson {
    fn name(&self) -> &'static str {
        "row_json"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        invoke(&args.args, args.number_rows, |arrays| self.run(arrays))
    }
}

impl RowJson {
    fn run(&self, arrays: &[ArrayRef]) -> Result<ArrayRef> {
        let columns = arrays.iter().map(Values::new).collect::<Result<Vec<_>>>()?;
        let mut texts = StringBuilder::new();
        for row in 0..arrays.first().map_or(0, Array::len) {
            let object: serde_json::Map<_, _> =
                self.names.iter().cloned().zip(columns.iter().map(|column| column.json(row))).collect();
            texts.append_value(serde_json::Value::Object(object).to_string());
        }
        Ok(Arc::new(texts.finish()))
    }
}

/// A column whose values can be JSON.
enum Values {
    Integers(Int64Array),
    Doubles(Float64Array),
    Texts(StringArray),
}

impl Values {
    fn new(array: &ArrayRef) -> Result<Self> {
        if array.data_type().is_integer() {
            let integers = cast(array, &DataType::Int64)?;
            return Ok(Self::Integers(as_array::<Int64Array>(&integers)?.clone()));
        }
        if array.data_type().is_floating() {
            let doubles = cast(array, &DataType::Float64)?;
            return Ok(Self::Doubles(as_array::<Float64Array>(&doubles)?.clone()));
        }
        text_of(array).map(Self::Texts)
    }

    fn json(&self, row: usize) -> serde_json::Value {
        match self {
            Self::Integers(column) => column.is_valid(row).then(|| column.value(row)).into(),
            Self::Doubles(column) => column.is_valid(row).then(|| column.value(row)).into(),
            Self::Texts(column) => column.is_valid(row).then(|| column.value(row)).into(),
        }
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct BitmapOr {
    signature: Signature,
}

impl AggregateUDFImpl for BitmapOr {
    fn name(&self) -> &'static str {
        "bitmap_or"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Binary)
    }

    fn accumulator(&self, _args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Union::default()))
    }

    fn groups_accumulator_supported(&self, _args: AccumulatorArgs<'_>) -> bool {
        true
    }

    fn create_groups_accumulator(&self, _args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(Unions::default()))
    }
}

/// The union of one group.
#[derive(Debug, Default)]
struct Union(RoaringBitmap);

impl Accumulator for Union {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for bytes in bytes_of(&values[0])?.iter().flatten() {
            self.0 |= read_bitmap("bitmap_or", bytes)?;
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Binary(Some(write_bitmap(&self.0)?)))
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.0.serialized_size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }
}

/// The unions of many groups at once.
#[derive(Debug, Default)]
struct Unions {
    groups: Vec<RoaringBitmap>,
    /// Bytes below the groups, about.
    bytes: usize,
}

impl GroupsAccumulator for Unions {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.groups.resize_with(total_num_groups, RoaringBitmap::new);
        for (row, (bytes, group)) in bytes_of(&values[0])?.iter().zip(group_indices).enumerate() {
            let wanted = opt_filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
            let (Some(bytes), true) = (bytes, wanted) else { continue };
            let union = &mut self.groups[*group];
            let before = union.serialized_size();
            *union |= read_bitmap("bitmap_or", bytes)?;
            self.bytes += union.serialized_size().saturating_sub(before);
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let mut unions = BinaryBuilder::new();
        for union in emit_to.take_needed(&mut self.groups) {
            self.bytes = self.bytes.saturating_sub(union.serialized_size());
            unions.append_value(write_bitmap(&union)?);
        }
        Ok(Arc::new(unions.finish()))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.evaluate(emit_to)?])
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        total_num_groups: usize,
    ) -> Result<()> {
        self.update_batch(values, group_indices, None, total_num_groups)
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        opt_filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let mut states = BinaryBuilder::new();
        for (row, bytes) in bytes_of(&values[0])?.iter().enumerate() {
            let wanted = opt_filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
            states.append_option(bytes.filter(|_| wanted));
        }
        Ok(vec![Arc::new(states.finish())])
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.groups.capacity() * size_of::<RoaringBitmap>() + self.bytes
    }
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::SessionContext;

    use super::*;

    fn context() -> SessionContext {
        let context = SessionContext::new();
        scalars().into_iter().for_each(|function| context.register_udf(function));
        context.register_udaf(bitmap_or());
        context
    }

    fn bitmap(hosts: &[u32]) -> String {
        hex(&write_bitmap(&hosts.iter().copied().collect()).unwrap())
    }

    async fn ask(sql: &str) -> std::result::Result<String, String> {
        let frame = context().sql(sql).await.map_err(|error| error.to_string())?;
        let batches = frame.collect().await.map_err(|error| error.to_string())?;
        Ok(datafusion::arrow::util::pretty::pretty_format_batches(&batches).unwrap().to_string())
    }

    #[tokio::test]
    async fn bitmaps_are_united_per_group_and_counted() {
        let (a, b) = (bitmap(&[1, 2]), bitmap(&[2, 70_000]));
        let values = format!("(values ('x', unhex('{a}')), ('x', unhex('{b}')), ('y', null)) t(k, m)");
        let text = ask(&format!(
            "select k, bitmap_count(bitmap_or(m)) n, bitmap_to_list(bitmap_or(m)) l from {values} group by k order by k"
        ))
        .await
        .unwrap();
        assert!(text.contains("| x | 3 | [1, 2, 70000] |"), "{text}");
        assert!(text.contains("| y | 0 | []"), "{text}");
        let text = ask(&format!("select bitmap_count(bitmap_or(m)) from {values}")).await.unwrap();
        assert!(text.contains("| 3 "), "{text}");
        let text = ask(&format!("select bitmap_contains(m, 70000) c from {values} where m is not null"))
            .await
            .unwrap();
        assert!(text.contains("| false |") && text.contains("| true  |"), "{text}");
    }

    #[test]
    fn a_set_of_one_is_read_without_building_it() {
        for hosts in [
            vec![0],
            vec![7],
            vec![65_535],
            vec![65_536],
            vec![u32::MAX],
            vec![],
            vec![1, 2],
            vec![1, 70_000],
        ] {
            let bytes = write_bitmap(&hosts.iter().copied().collect()).unwrap();
            let only = if hosts.len() == 1 { Some(hosts[0]) } else { None };
            assert_eq!(only_host(&bytes), only, "{hosts:?}");
            assert_eq!(only_host(&bytes[..bytes.len() - 1]), None, "cut");
        }
    }

    #[tokio::test]
    async fn what_is_no_bitmap_or_id_is_an_error_that_names_the_function() {
        for (function, argument) in [
            ("bitmap_count", "unhex('0011')"),
            ("bitmap_or", "unhex('0011')"),
            ("bitmap_to_list", "'x'"),
            ("unhex", "'abc'"),
            ("unhex", "'zz'"),
            ("id", "'00'"),
        ] {
            let error = ask(&format!("select {function}({argument})")).await.unwrap_err();
            assert!(error.contains(&format!("{function}: ")), "{error}");
        }
    }

    #[tokio::test]
    async fn ids_go_to_hex_and_back() {
        let text = ask("select hex_id(id('00FFaa00000000000000000000000001')) h").await.unwrap();
        assert!(text.contains("00ffaa00000000000000000000000001"), "{text}");
    }

    #[test]
    fn rows_become_json_objects() {
        let function = RowJson {
            names: ["name", "n", "x"].map(str::to_owned).to_vec(),
            signature: Signature::variadic_any(Volatility::Immutable),
        };
        let columns: [ArrayRef; 3] = [
            Arc::new(StringArray::from(vec!["a\"b"])),
            Arc::new(Int64Array::from(vec![7])),
            Arc::new(Float64Array::from(vec![None])),
        ];
        let texts = function.run(&columns).unwrap();
        assert_eq!(as_array::<StringArray>(&texts).unwrap().value(0), r#"{"name":"a\"b","n":7,"x":null}"#);
    }
}
