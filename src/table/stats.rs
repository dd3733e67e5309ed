//! What a file's footer says about its columns, as text in the log and back as DataFusion's statistics.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Schema};
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, ScalarValue, Statistics};
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::file::metadata::ParquetMetaData;

use super::log::{ColumnRange, DataFile};
use crate::error::Result;

/// Whether the log keeps the range of columns of this type.
fn has_range(data_type: &DataType) -> bool {
    use DataType::{Boolean, Date32, Date64, Timestamp, Utf8};
    data_type.is_integer()
        || data_type.is_floating()
        || matches!(data_type, Boolean | Date32 | Date64 | Timestamp(..) | Utf8)
}

/// Whether the footer holds the least and the greatest value themselves: long strings are cut there, NaN is left out.
fn is_exact(data_type: &DataType) -> bool {
    has_range(data_type) && !data_type.is_floating() && *data_type != DataType::Utf8
}

/// The ranges of the columns of a file, from its footer.
pub(super) fn ranges(metadata: &ParquetMetaData, schema: &Schema) -> Result<BTreeMap<String, ColumnRange>> {
    let mut ranges = BTreeMap::new();
    for field in schema.fields().iter().filter(|f| has_range(f.data_type())) {
        let converter = StatisticsConverter::try_new(field.name(), schema, metadata.file_metadata().schema_descr())?;
        let groups = metadata.row_groups();
        let nulls = converter.row_group_null_counts(groups)?;
        let nulls = (nulls.null_count() == 0).then(|| nulls.iter().flatten().sum());
        let mut range = ColumnRange { nulls, ..ColumnRange::default() };
        let (mins, maxes) = (converter.row_group_mins(groups)?, converter.row_group_maxes(groups)?);
        // A group of nulls alone has no range and needs none; a missing one elsewhere makes the file's unknown.
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

fn extreme(values: &ArrayRef, greatest: bool) -> Result<Option<String>> {
    let options = arrow::compute::SortOptions { descending: greatest, nulls_first: false };
    let first = arrow::compute::sort_to_indices(values, Some(options), Some(1))?;
    let value = arrow::compute::take(values, &first, None)?;
    let text = cast(&value, &DataType::Utf8)?;
    let text = text
        .as_any()
        .downcast_ref::<StringArray>()
        .and_then(|t| (!t.is_empty() && t.is_valid(0)).then(|| t.value(0).to_owned()));
    Ok(text)
}

/// How far the statistics of a file are to be taken at their word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// Every bound counts as exact: right for leaving out files, where a bound is as good as the value.
    AsBounds,
    /// Only what is exact is called so: an optimizer may answer `max(x)` from it.
    AsValues,
}

/// The statistics of a file.
pub(super) fn statistics(file: &DataFile, schema: &Schema, taken: Taken) -> Statistics {
    let rows = usize::try_from(file.rows).unwrap_or(usize::MAX);
    let column = |field: &Arc<arrow::datatypes::Field>| {
        let data_type = field.data_type();
        if let Some(value) = file.partition.get(field.name()) {
            return constant(&scalar(value.as_deref(), data_type), rows);
        }
        let Some(range) = file.columns.get(field.name()) else { return ColumnStatistics::new_unknown() };
        let bound = |text: &Option<String>| match text.as_deref().map(|text| scalar(Some(text), data_type)) {
            None => Precision::Absent,
            Some(value) if value.is_null() => Precision::Absent,
            Some(value) if taken == Taken::AsBounds || is_exact(data_type) => Precision::Exact(value),
            Some(value) => Precision::Inexact(value),
        };
        let nulls = range.nulls.and_then(|n| usize::try_from(n).ok());
        ColumnStatistics {
            null_count: nulls.map_or(Precision::Absent, Precision::Exact),
            min_value: bound(&range.min),
            max_value: bound(&range.max),
            ..ColumnStatistics::new_unknown()
        }
    };
    Statistics {
        num_rows: Precision::Exact(rows),
        total_byte_size: Precision::Inexact(usize::try_from(file.bytes).unwrap_or(usize::MAX)),
        column_statistics: schema.fields().iter().map(column).collect(),
    }
}

fn constant(value: &ScalarValue, rows: usize) -> ColumnStatistics {
    if value.is_null() {
        return ColumnStatistics { null_count: Precision::Exact(rows), ..ColumnStatistics::new_unknown() };
    }
    ColumnStatistics {
        null_count: Precision::Exact(0),
        min_value: Precision::Exact(value.clone()),
        max_value: Precision::Exact(value.clone()),
        ..ColumnStatistics::new_unknown()
    }
}

/// The value that `text` of the log stands for; null where it stands for none of the type.
pub(super) fn scalar(text: Option<&str>, data_type: &DataType) -> ScalarValue {
    let null = || ScalarValue::try_from(data_type).unwrap_or(ScalarValue::Null);
    match text {
        None => null(),
        Some(text) => ScalarValue::try_from_string(text.to_owned(), data_type).unwrap_or_else(|_| null()),
    }
}
