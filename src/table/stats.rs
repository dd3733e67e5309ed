//! Statistics of a file's columns: from its footer to a Delta log, and from there to DataFusion.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Schema, TimeUnit};
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, ScalarValue, Statistics};
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::file::metadata::ParquetMetaData;
use serde_json::{Map, Value, json};

use super::log::DataFile;
use crate::error::Result;

/// The most columns of a file whose ranges are kept; more would make a log entry longer than a small file.
const MOST_COLUMNS: usize = 64;

/// Bounds of the values of a column in one file, and its number of nulls. The actual least and greatest value may be
/// inside the bounds (long strings are cut).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ColumnRange {
    /// The lower bound, in Delta's JSON; absent if unknown.
    pub min: Option<Value>,
    /// The upper bound.
    pub max: Option<Value>,
    /// The number of nulls, if known.
    pub nulls: Option<u64>,
}

impl ColumnRange {
    /// The number of rows of a file and the ranges of its columns, from the statistics in a log; nothing for an empty
    /// text.
    ///
    /// # Errors
    /// A message, if it is not a JSON object, or its number of rows is not a number.
    pub(super) fn from_delta(stats: &str) -> std::result::Result<(Option<u64>, BTreeMap<String, Self>), String> {
        if stats.is_empty() {
            return Ok((None, BTreeMap::new()));
        }
        let stats: Map<String, Value> = serde_json::from_str(stats).map_err(|e| format!("that are no JSON: {e}"))?;
        let count = |value: &Value| value.as_u64().ok_or_else(|| format!("that count {value} rows"));
        let rows = stats.get("numRecords").filter(|rows| !rows.is_null()).map(count).transpose()?;
        // The statistics of a file with deleted rows are only bounds.
        let loose = stats.get("tightBounds") == Some(&Value::Bool(false));
        let mut columns: BTreeMap<String, Self> = BTreeMap::new();
        let mut each = |key: &str, set: fn(&mut Self, &Value)| {
            for (name, value) in stats.get(key).and_then(Value::as_object).into_iter().flatten() {
                set(columns.entry(name.clone()).or_default(), value);
            }
        };
        each("nullCount", |range, value| range.nulls = value.as_u64());
        if !loose {
            each("minValues", |range, value| range.min = Some(value.clone()));
            each("maxValues", |range, value| range.max = Some(value.clone()));
        }
        Ok((rows, columns))
    }

    /// The JSON that [`from_delta`](Self::from_delta) reads.
    pub(super) fn to_delta(rows: Option<u64>, columns: &BTreeMap<String, Self>) -> String {
        let of = |value: fn(&Self) -> Option<Value>| -> Value {
            columns.iter().filter_map(|(name, range)| Some((name.clone(), value(range)?))).collect::<Map<_, _>>().into()
        };
        json!({
            "numRecords": rows,
            "minValues": of(|range| range.min.clone()),
            "maxValues": of(|range| range.max.clone()),
            "nullCount": of(|range| range.nulls.map(Value::from)),
        })
        .to_string()
    }
}

/// Whether the log keeps the range of columns of this type.
fn has_range(data_type: &DataType) -> bool {
    use DataType::{Date32, Timestamp, Utf8};
    data_type.is_integer() || data_type.is_floating() || matches!(data_type, Date32 | Timestamp(..) | Utf8)
}

/// Whether the bounds of this type are exact: long strings are cut, NaN is left out, and some programs cut times to
/// milliseconds.
fn is_exact(data_type: &DataType) -> bool {
    data_type.is_integer() || *data_type == DataType::Date32
}

/// The ranges of the columns of a file, from its footer.
pub(super) fn ranges(metadata: &ParquetMetaData, schema: &Schema) -> Result<BTreeMap<String, ColumnRange>> {
    let mut ranges = BTreeMap::new();
    for field in schema.fields().iter().filter(|f| has_range(f.data_type())).take(MOST_COLUMNS) {
        let converter = StatisticsConverter::try_new(field.name(), schema, metadata.file_metadata().schema_descr())?;
        let groups = metadata.row_groups();
        let nulls = converter.row_group_null_counts(groups)?;
        let nulls = (nulls.null_count() == 0).then(|| nulls.iter().flatten().sum());
        let mut range = ColumnRange { nulls, ..ColumnRange::default() };
        let (mins, maxes) = (converter.row_group_mins(groups)?, converter.row_group_maxes(groups)?);
        // A row group of only nulls needs no range; in any other group a missing range makes the file's range unknown.
        let unknown = (0..groups.len()).any(|g| {
            (mins.is_null(g) || maxes.is_null(g)) && nulls_of(&converter, groups, g) != Some(groups[g].num_rows())
        });
        if !unknown {
            range.min = extreme(&mins, false)?;
            range.max = extreme(&maxes, true)?;
        }
        ranges.insert(field.name().clone(), range);
    }
    Ok(ranges)
}

fn nulls_of(
    converter: &StatisticsConverter<'_>,
    groups: &[parquet::file::metadata::RowGroupMetaData],
    group: usize,
) -> Option<i64> {
    let counts = converter.row_group_null_counts([&groups[group]]).ok()?;
    counts.iter().next().flatten().and_then(|n| i64::try_from(n).ok())
}

/// The least or the greatest of `values` in Delta's JSON; `None` if JSON cannot represent it.
fn extreme(values: &ArrayRef, greatest: bool) -> Result<Option<Value>> {
    let options = arrow::compute::SortOptions { descending: greatest, nulls_first: false };
    let first = arrow::compute::sort_to_indices(values, Some(options), Some(1))?;
    let value = arrow::compute::take(values, &first, None)?;
    let text = cast(&value, &DataType::Utf8)?;
    let text = text
        .as_any()
        .downcast_ref::<StringArray>()
        .and_then(|t| (!t.is_empty() && t.is_valid(0)).then(|| t.value(0).to_owned()));
    let data_type = values.data_type();
    Ok(text.and_then(|text| match data_type {
        _ if data_type.is_integer() => serde_json::from_str(&text).ok(),
        // JSON has no infinity.
        _ if data_type.is_floating() => text.parse::<f64>().ok().filter(|x| x.is_finite()).map(Value::from),
        _ => Some(Value::String(text)),
    }))
}

/// How the statistics of a file are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// To skip files: every bound may count as exact, since a bound is as good as the value.
    AsBounds,
    /// By an optimizer, which may answer `max(x)` from them: only exact values are called exact.
    AsValues,
}

/// The statistics of the columns of `schema` in a file.
pub(super) fn statistics(file: &DataFile, schema: &Schema, taken: Taken) -> Statistics {
    let rows = file.rows.and_then(|rows| usize::try_from(rows).ok());
    let column = |field: &Arc<arrow::datatypes::Field>| {
        let data_type = field.data_type();
        if let Some(value) = file.partition.get(field.name()) {
            return constant(&scalar(value.as_deref(), data_type), rows);
        }
        let Some(range) = file.columns.get(field.name()) else { return ColumnStatistics::new_unknown() };
        let bound = |value: &Option<Value>, greatest: bool| match value.as_ref().map(|v| read(v, data_type)) {
            None => Precision::Absent,
            Some(value) if value.is_null() => Precision::Absent,
            Some(value) if taken == Taken::AsBounds => Precision::Exact(if greatest { above(value) } else { value }),
            Some(value) if is_exact(data_type) => Precision::Exact(value),
            Some(value) => Precision::Inexact(value),
        };
        let nulls = range.nulls.and_then(|n| usize::try_from(n).ok());
        ColumnStatistics {
            null_count: nulls.map_or(Precision::Absent, Precision::Exact),
            min_value: bound(&range.min, false),
            max_value: bound(&range.max, true),
            ..ColumnStatistics::new_unknown()
        }
    };
    Statistics {
        num_rows: rows.map_or(Precision::Absent, Precision::Exact),
        total_byte_size: Precision::Inexact(usize::try_from(file.bytes).unwrap_or(usize::MAX)),
        column_statistics: schema.fields().iter().map(column).collect(),
    }
}

fn constant(value: &ScalarValue, rows: Option<usize>) -> ColumnStatistics {
    if value.is_null() {
        let null_count = rows.map_or(Precision::Absent, Precision::Exact);
        return ColumnStatistics { null_count, ..ColumnStatistics::new_unknown() };
    }
    ColumnStatistics {
        null_count: Precision::Exact(0),
        min_value: Precision::Exact(value.clone()),
        max_value: Precision::Exact(value.clone()),
        ..ColumnStatistics::new_unknown()
    }
}

/// The value of a log's statistics, from JSON; null if it is not a value of the type.
fn read(value: &Value, data_type: &DataType) -> ScalarValue {
    match value {
        Value::String(text) => scalar(Some(text), data_type),
        Value::Number(number) if data_type.is_numeric() => scalar(Some(&number.to_string()), data_type),
        _ => scalar(None, data_type),
    }
}

/// The last time of the millisecond to which a program may have cut the greatest time.
fn above(value: ScalarValue) -> ScalarValue {
    match value {
        ScalarValue::TimestampMicrosecond(Some(at), zone) if at % 1000 == 0 => {
            ScalarValue::TimestampMicrosecond(Some(at.saturating_add(999)), zone)
        }
        value => value,
    }
}

/// The value of `text` in the log; null if it is not a value of the type.
pub(super) fn scalar(text: Option<&str>, data_type: &DataType) -> ScalarValue {
    let null = || ScalarValue::try_from(data_type).unwrap_or(ScalarValue::Null);
    let Some(text) = text else { return null() };
    let value = ScalarValue::try_from_string(text.to_owned(), data_type);
    match (value, data_type) {
        // delta-rs and Spark write times in partition values without the T and the zone.
        (Err(_), DataType::Timestamp(TimeUnit::Microsecond, Some(_))) => {
            ScalarValue::try_from_string(format!("{text}Z"), data_type).unwrap_or_else(|_| null())
        }
        (value, _) => value.unwrap_or_else(|_| null()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_survive_the_log() {
        let range = |min: Value, max: Value| ColumnRange { min: Some(min), max: Some(max), nulls: Some(1) };
        let columns = BTreeMap::from([
            ("i".to_owned(), range(json!(-3), json!(7))),
            ("s".to_owned(), range(json!("a"), json!("b"))),
            ("n".to_owned(), ColumnRange { nulls: Some(5), ..ColumnRange::default() }),
        ]);
        let text = ColumnRange::to_delta(Some(5), &columns);
        assert_eq!(ColumnRange::from_delta(&text), Ok((Some(5), columns)));
        assert_eq!(ColumnRange::from_delta(""), Ok((None, BTreeMap::new())));
        assert!(ColumnRange::from_delta("[]").is_err());
        assert!(ColumnRange::from_delta("{\"numRecords\": -1}").unwrap_err().contains("count -1 rows"));
    }

    #[test]
    fn a_greatest_time_may_have_been_cut_to_a_millisecond() {
        let time = |at| ScalarValue::TimestampMicrosecond(Some(at), None);
        assert_eq!(above(time(5_000)), time(5_999));
        assert_eq!(above(time(5_123)), time(5_123));
    }
}
