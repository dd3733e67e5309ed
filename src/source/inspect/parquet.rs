//! Inspects Parquet files of feature vectors or of samples.

use std::collections::{BTreeMap, HashSet};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::{can_cast_types, cast};
use arrow::datatypes::{DataType, Int64Type};
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::TryStreamExt;
use parquet::arrow::ParquetRecordBatchStreamBuilder;

use super::columns::{Column, ColumnKind};
use super::recordings::{Table, understand};
use super::roles::{Rows, roles};
use super::section::Section;
use super::{FILES, Inspection, LOOKED_AT, fact, in_a_cell, judge, trial};
use crate::error::{Error, Result};
use crate::source::csv::guess::number;
use crate::source::csv::{Record, is_table};
use crate::source::fence::fenced_async;
use crate::source::location::DataFile;
use crate::source::parquet::{ObjectReader, is_number, item_type};
use crate::source::{Dialect, Features, ParquetSpec};
use crate::terminal::shown_name;

/// Rows that are read.
const ROWS: usize = 10_000;
/// Rows that are read of each file of samples but the first.
const OTHERS: usize = 1000;
/// Usual names of a column of vectors, the most likely first.
const VECTORS: [&str; 6] = ["features", "embedding", "embeddings", "vector", "vectors", "x"];

/// The first rows of a file.
struct Start {
    batch: RecordBatch,
    rows: i64,
    groups: usize,
}

/// Inspects the Parquet `files` of the source at `path`.
pub(super) async fn inspect(path: &str, files: &[DataFile], rows: usize) -> Result<Inspection> {
    let mut unusable = Vec::new();
    let mut usable = None;
    let mut left = files.iter().take(FILES);
    for file in left.by_ref() {
        match fenced_async(file.name(), start_of(file, ROWS)).await {
            Ok(start) => {
                usable = Some((file, start));
                break;
            }
            Err(e) => unusable.push(e),
        }
    }
    let Some((file, start)) = usable else {
        let none = || Error::input(format!("{}: no Parquet files there", shown_name(path)));
        return Err(unusable.into_iter().next().unwrap_or_else(none));
    };
    let batch = &start.batch;
    let columns = columns_of(batch)?;
    let list = list_column(batch);
    let table = if list.is_none() { samples(file, batch, &columns)? } else { None };
    let mut others = Vec::new();
    for other in left.filter(|_| table.is_some()) {
        let rows = async { start_of(other, OTHERS).await.map(|start| start.batch) };
        match fenced_async(other.name(), rows).await {
            Ok(batch) => others.extend(samples(other, &batch, &columns_of(&batch)?)?),
            Err(e) => unusable.push(e),
        }
    }
    let looked =
        if (batch.num_rows() as i64) < start.rows { format!(", the first {ROWS} looked at") } else { String::new() };
    let groups = if start.groups == 1 { "row group" } else { "row groups" };
    let mut found = Inspection {
        path: path.into(),
        file: file.name().to_string(),
        files: files.len(),
        facts: vec![
            fact("format", "Parquet"),
            fact("rows", format!("{} in {} {groups}{looked}", start.rows, start.groups)),
        ],
        columns,
        first_rows: first_rows(batch, rows)?,
        notes: Vec::new(),
        source: None,
    };
    if let Some(e) = unusable.first() {
        found.notes.push(format!("{} files cannot be read, the first: {e}", unusable.len()));
    }
    let mut names = HashSet::new();
    let twice = found.columns.iter().find(|column| !names.insert(column.name.as_str()));
    if let Some(column) = twice {
        found.notes.push(format!("two columns are named {:?}, which no source reads", column.name));
        return Ok(found);
    }
    let small = size_of_all(files)? <= LOOKED_AT;
    if let Some(table) = table {
        let understood = understand(path, &table, &others, &Dialect::default());
        if let Some(spec) = understood.spec.filter(|spec| spec.time.is_some()) {
            found.facts.push(fact("content", "samples in the order of time"));
            found.facts.extend(understood.facts);
            found.notes.extend(understood.notes);
            for column in &mut found.columns {
                let told = understood.columns.iter().find(|told| told.name == column.name);
                column.role = told.map(|told| told.role.clone()).unwrap_or_default();
            }
            if !is_table(file) {
                found
                    .notes
                    .push("the source reads samples from files whose names end with .parquet or .pq: rename it".into());
            } else if small {
                let tried = trial::samples(&spec, files.to_vec()).await;
                judge(tried, "rows", &mut found.facts, &mut found.notes)?;
            }
            found.source = Some(Section::samples(&spec, understood.comments));
            return Ok(found);
        }
    }
    let spec = vectors(path, list, &mut found, batch.num_rows());
    if let Some(spec) = spec.filter(|_| small) {
        judge(trial::vectors(&spec).await, "rows", &mut found.facts, &mut found.notes)?;
    }
    Ok(found)
}

/// The first rows of `file`, no more than `most`.
async fn start_of(file: &DataFile, most: usize) -> Result<Start> {
    let damaged = |e: parquet::errors::ParquetError| {
        Error::input(format!("{}: not a readable Parquet file", file.name())).with_source(e)
    };
    let builder = ParquetRecordBatchStreamBuilder::new(ObjectReader::new(file)?).await.map_err(damaged)?;
    let (rows, groups) = (builder.metadata().file_metadata().num_rows(), builder.metadata().num_row_groups());
    let schema = builder.schema().clone();
    let batches: Vec<RecordBatch> =
        builder.with_limit(most).build().map_err(damaged)?.try_collect().await.map_err(damaged)?;
    Ok(Start { batch: arrow::compute::concat_batches(&schema, &batches)?, rows, groups })
}

fn size_of_all(files: &[DataFile]) -> Result<u64> {
    files.iter().try_fold(0u64, |sum, file| Ok(sum.saturating_add(file.object()?.2)))
}

/// The column of lists of numbers that most likely holds the vectors.
fn list_column(batch: &RecordBatch) -> Option<String> {
    let schema = batch.schema();
    let lists = || schema.fields().iter().filter(|field| item_type(field.data_type()).is_some_and(is_number));
    let said = |field: &&arrow::datatypes::FieldRef| VECTORS.contains(&field.name().to_lowercase().as_str());
    lists().find(said).or(lists().next()).map(|field| field.name().clone())
}

/// The rows as samples, if a column of times puts them in order.
fn samples(file: &DataFile, batch: &RecordBatch, columns: &[Column]) -> Result<Option<Table>> {
    if batch.num_rows() < 2 {
        return Ok(None);
    }
    let mut texts = Vec::new();
    for (values, column) in batch.columns().iter().zip(columns) {
        // Values that cannot be written as text are left empty.
        let plain = column.kind != ColumnKind::Other && column.kind != ColumnKind::List;
        texts.push(plain.then(|| cast(values, &DataType::Utf8)).transpose()?);
    }
    let mut rows = Vec::with_capacity(batch.num_rows());
    for at in 0..batch.num_rows() {
        let value = |texts: &Option<ArrayRef>| {
            let texts = texts.as_ref().map(|texts| texts.as_string::<i32>());
            texts.filter(|texts| texts.is_valid(at)).map_or("", |texts| texts.value(at)).as_bytes().to_vec()
        };
        let fields: Vec<Vec<u8>> = texts.iter().map(value).collect();
        let mut record = Record::default();
        record.set(at as u64 + 1, fields.iter().map(Vec::as_slice));
        rows.push(record);
    }
    let names = columns.iter().map(|column| column.name.clone()).collect();
    Ok(Some(Table { file: file.name().to_string(), names, rows }))
}

/// How to read the rows as vectors; `None` if there are no numbers.
fn vectors(path: &str, list: Option<String>, found: &mut Inspection, rows: usize) -> Option<ParquetSpec> {
    let guessed = roles(&mut found.columns, rows, Rows::Vectors);
    let name = |at: usize| found.columns[at].name.clone();
    let mut comments = BTreeMap::new();
    let features = match list {
        Some(list) => Features::Column(list),
        None if guessed.numbers.is_empty() => {
            found.notes.push("no column holds numbers or lists of numbers".into());
            return None;
        }
        None => Features::Columns(guessed.numbers.iter().map(|&at| name(at)).collect()),
    };
    let spec = ParquetSpec {
        path: path.into(),
        features,
        dim: None,
        label: guessed.label.map(name),
        keys: guessed.keys.iter().map(|&at| name(at)).collect(),
        split: guessed.split.map(name),
        keep: Vec::new(),
    };
    if spec.keys.is_empty() {
        found.notes.push("no column tells rows apart by its name and its values; keys = [...] may name some".into());
    }
    if spec.label.is_some() {
        comments.insert("label", "known classes, to evaluate against; not learned from".into());
    }
    if let Features::Column(list) = &spec.features {
        for column in &mut found.columns {
            match column.name == *list {
                true => column.role = "feature".into(),
                false if column.role == "feature" => column.role.clear(),
                false => {}
            }
        }
    }
    found.facts.push(fact("content", "feature vectors, one a row"));
    found.source = Some(Section::vectors(&spec, comments));
    Some(spec)
}

/// The first rows as text.
pub(super) fn first_rows(batch: &RecordBatch, rows: usize) -> Result<Vec<Vec<String>>> {
    let options = FormatOptions::default();
    let shown: Vec<ArrayFormatter<'_>> = batch
        .columns()
        .iter()
        .map(|column| ArrayFormatter::try_new(column, &options).map_err(Error::from))
        .collect::<Result<_>>()?;
    let cell = |column: &ArrayFormatter<'_>, row| {
        let text = column.value(row).try_to_string().map_err(Error::from)?;
        Ok(in_a_cell(text.as_bytes()))
    };
    (0..batch.num_rows().min(rows)).map(|row| shown.iter().map(|column| cell(column, row)).collect()).collect()
}

/// What the columns hold.
pub(super) fn columns_of(batch: &RecordBatch) -> Result<Vec<Column>> {
    let schema = batch.schema();
    let columns = batch.columns().iter().zip(schema.fields());
    columns.map(|(values, field)| describe(field.name(), values)).collect()
}

/// What the column `name` holds.
fn describe(name: &str, values: &ArrayRef) -> Result<Column> {
    let list = item_type(values.data_type()).is_some_and(is_number);
    let stored = values.data_type();
    if list || stored.is_nested() || !can_cast_types(stored, &DataType::Utf8) {
        let mut column = Column::of(name, std::iter::empty(), |_| None);
        column.kind = if list { ColumnKind::List } else { ColumnKind::Other };
        column.values = widths(values).filter(|_| list).unwrap_or_else(|| stored.to_string());
        column.missing = values.null_count();
        return Ok(column);
    }
    let texts = cast(values, &DataType::Utf8)?;
    let texts = texts.as_string::<i32>();
    let read = |value: &[u8]| number(&Dialect::default(), value);
    let mut column = Column::of(name, texts.iter().map(|text| text.unwrap_or_default().as_bytes()), read);
    // The stored type is more reliable than the values.
    column.kind = match stored {
        DataType::Null => ColumnKind::Empty,
        t if t.is_integer() => ColumnKind::Integer,
        t if t.is_numeric() => ColumnKind::Number,
        t if t.is_temporal() => ColumnKind::Time,
        DataType::Boolean => ColumnKind::Integer,
        _ if column.kind == ColumnKind::Empty => ColumnKind::Empty,
        _ => ColumnKind::Text,
    };
    Ok(column)
}

/// The lengths of the lists of a column.
fn widths(values: &ArrayRef) -> Option<String> {
    if let DataType::FixedSizeList(_, width) = values.data_type() {
        return Some(format!("{width} values each"));
    }
    let lengths = arrow::compute::kernels::length::length(values).ok()?;
    let lengths = cast(&lengths, &DataType::Int64).ok()?;
    let lengths = lengths.as_primitive::<Int64Type>();
    let (least, most) = (arrow::compute::min(lengths)?, arrow::compute::max(lengths)?);
    Some(if least == most { format!("{most} values each") } else { format!("{least} to {most} values") })
}
