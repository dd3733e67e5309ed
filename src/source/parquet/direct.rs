//! The vectors of a column of lists, straight from its pages.
//!
//! Arrow's reader makes a list array of them first: levels of every value, bitmaps and offsets made of the levels, then a
//! cast of the values. For vectors of bytes that is three quarters of the work of reading a file. Here the levels are
//! only held against those of a row without gaps, and the values become single precision on the way to their place.

use std::fs::File;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use parquet::basic::Type as PhysicalType;
use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::{DataType as ParquetType, DoubleType, FloatType, Int32Type, Int64Type};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::serialized_reader::SerializedPageReader;

use crate::error::{Error, Result};

/// Where a column of lists is in a file, and how its values are stored.
#[derive(Debug, Clone)]
pub(super) struct DirectColumn {
    /// Its place among the columns that hold values.
    leaf: usize,
    values: Stored,
    levels: Levels,
}

/// What the bits of a value mean.
#[derive(Debug, Clone, Copy)]
enum Stored {
    Int32,
    Uint32,
    Int64,
    Uint64,
    Float,
    Double,
}

/// The definition levels of a list of numbers.
#[derive(Debug, Clone, Copy)]
struct Levels {
    /// That of a number.
    full: i16,
    /// The least of a list with an item; below is an empty list.
    item: i16,
    /// Whether level 0 is no list at all.
    nullable: bool,
}

/// Values decoded at a time, so that they and their levels stay in the second-level cache.
const VALUES: usize = 1 << 16;

/// The next vectors of one row group.
pub(super) trait Vectors: Send {
    /// Reads as many vectors as `reasons` are long into `out`, `rows x dim`. What is wrong with one goes to `reasons`; its
    /// row in `out` then means nothing.
    ///
    /// # Errors
    /// Kind `Input` if pages are damaged or end early, `Io` if the disk fails.
    fn read(&mut self, dim: usize, out: &mut [f32], reasons: &mut [Option<String>]) -> Result<()>;
}

impl DirectColumn {
    /// The column that `field` is, where its pages can be read by themselves: a list of integers of up to 64 bits or of
    /// floats of 32 or 64, at the top of the file's schema.
    pub(super) fn of(metadata: &ParquetMetaData, field: &Field) -> Option<Self> {
        let (DataType::FixedSizeList(item, _) | DataType::List(item) | DataType::LargeList(item)) = field.data_type()
        else {
            return None;
        };
        let schema = metadata.file_metadata().schema_descr();
        let mut leaves = (0..schema.num_columns()).filter(|&leaf| schema.get_column_root(leaf).name() == field.name());
        let (leaf, None) = (leaves.next()?, leaves.next()) else { return None };
        let column = schema.column(leaf);
        use DataType::*;
        let values = match (column.physical_type(), item.data_type()) {
            (PhysicalType::INT32, Int8 | Int16 | Int32 | UInt8 | UInt16) => Stored::Int32,
            (PhysicalType::INT32, UInt32) => Stored::Uint32,
            (PhysicalType::INT64, Int64) => Stored::Int64,
            (PhysicalType::INT64, UInt64) => Stored::Uint64,
            (PhysicalType::FLOAT, Float32) => Stored::Float,
            (PhysicalType::DOUBLE, Float64) => Stored::Double,
            _ => return None,
        };
        let item_level = i16::from(field.is_nullable()) + 1;
        let levels = Levels { full: column.max_def_level(), item: item_level, nullable: field.is_nullable() };
        let as_expected = column.max_rep_level() == 1 && levels.full == item_level + i16::from(item.is_nullable());
        as_expected.then_some(Self { leaf, values, levels })
    }

    /// Its vectors in row group `group` of `file`.
    pub(super) fn open(&self, file: File, metadata: &ParquetMetaData, group: usize) -> Result<Box<dyn Vectors>> {
        let group = metadata.row_group(group);
        let chunk = group.column(self.leaf);
        let rows = usize::try_from(group.num_rows()).map_err(|_| Error::input("a row group of fewer than no rows"))?;
        let pages = Box::new(SerializedPageReader::new(Arc::new(file), chunk, rows, None)?);
        let (column, levels) = (chunk.column_descr_ptr(), self.levels);
        macro_rules! leaf {
            ($stored:ty, $convert:expr) => {
                Box::new(Leaf::<$stored, _>::new(ColumnReaderImpl::new(column, pages), levels, $convert))
            };
        }
        Ok(match self.values {
            Stored::Int32 => leaf!(Int32Type, |v: i32| v as f32),
            Stored::Uint32 => leaf!(Int32Type, |v: i32| v as u32 as f32),
            Stored::Int64 => leaf!(Int64Type, |v: i64| v as f32),
            Stored::Uint64 => leaf!(Int64Type, |v: i64| v as u64 as f32),
            Stored::Float => leaf!(FloatType, |v: f32| v),
            Stored::Double => leaf!(DoubleType, |v: f64| v as f32),
        })
    }
}

/// Vectors whose values are stored as `T`.
struct Leaf<T: ParquetType, C> {
    column: ColumnReaderImpl<T>,
    levels: Levels,
    convert: C,
    values: Vec<T::T>,
    definition: Vec<i16>,
    repetition: Vec<i16>,
}

impl<T: ParquetType, C> Leaf<T, C> {
    fn new(column: ColumnReaderImpl<T>, levels: Levels, convert: C) -> Self {
        Self { column, levels, convert, values: vec![], definition: vec![], repetition: vec![] }
    }
}

impl<T: ParquetType, C: Fn(T::T) -> f32 + Copy + Send> Vectors for Leaf<T, C>
where
    T::T: Copy,
{
    fn read(&mut self, dim: usize, out: &mut [f32], reasons: &mut [Option<String>]) -> Result<()> {
        let rows = VALUES.div_ceil(dim);
        let mut parts = out.chunks_mut(rows * dim).zip(reasons.chunks_mut(rows));
        parts.try_for_each(|(out, reasons)| self.read_part(dim, out, reasons))
    }
}

impl<T: ParquetType, C: Fn(T::T) -> f32 + Copy> Leaf<T, C>
where
    T::T: Copy,
{
    fn read_part(&mut self, dim: usize, out: &mut [f32], reasons: &mut [Option<String>]) -> Result<()> {
        let Self { column, levels, convert, values, definition, repetition } = self;
        values.clear();
        definition.clear();
        repetition.clear();
        let (rows, ..) = column.read_records(reasons.len(), Some(&mut *definition), Some(&mut *repetition), values)?;
        if rows != reasons.len() {
            return Err(Error::input(format!("the vectors' pages end {} rows early", reasons.len() - rows)));
        }
        let (mut definition, mut repetition, mut values) = (&definition[..], &repetition[..], &values[..]);
        for (row, reason) in out.chunks_exact_mut(dim).zip(reasons) {
            let len = record_len(repetition, dim);
            let (of_row, rest) = definition.split_at(len);
            let numbers = of_row.iter().map(|&level| usize::from(level == levels.full)).sum();
            let (stored, left) = values.split_at(numbers);
            (definition, repetition, values) = (rest, &repetition[len..], left);
            if numbers == dim && len == dim {
                row.iter_mut().zip(stored).for_each(|(slot, &value)| *slot = convert(value));
                // Every value is looked at, so that the loop has no way out in the middle and runs on vectors.
                if row.iter().fold(true, |all, value| all & value.is_finite()) {
                    continue;
                }
            }
            let mut stored = stored.iter().map(|&value| convert(value));
            *reason = Some(levels.problem(of_row, dim, &mut stored));
        }
        Ok(())
    }
}

/// How many levels the first record has: up to the next that begins one. Most have `dim`, which is seen without a search.
fn record_len(repetition: &[i16], dim: usize) -> usize {
    if repetition.len() >= dim
        && repetition.get(dim).is_none_or(|&level| level == 0)
        && repetition[1..dim].iter().fold(true, |all, &level| all & (level != 0))
    {
        return dim;
    }
    repetition.iter().skip(1).position(|&level| level == 0).map_or(repetition.len(), |at| at + 1)
}

impl Levels {
    /// What is wrong with a list that is not `dim` finite numbers, by the levels of its items and its numbers.
    fn problem(self, levels: &[i16], dim: usize, numbers: &mut dyn Iterator<Item = f32>) -> String {
        let first = levels.first().copied().unwrap_or(0);
        if self.nullable && first == 0 {
            return format!("null, expected {dim} numbers");
        }
        let len = if first < self.item { 0 } else { levels.len() };
        if len != dim {
            return format!("{len} values, expected {dim}");
        }
        let problem_at = |(position, &level): (usize, &i16)| {
            let number = (level == self.full).then(|| numbers.next()).flatten();
            let problem = super::lists::problem_of(number)?;
            Some(format!("value {position} is {problem}"))
        };
        levels.iter().enumerate().find_map(problem_at).unwrap_or_else(|| "unreadable".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::parquet::lists::Lists;
    use arrow::array::{ArrayRef, FixedSizeListBuilder, Float64Builder, ListBuilder, RecordBatch};
    use arrow::compute::cast;
    use parquet::arrow::ArrowWriter;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use parquet::file::properties::WriterProperties;
    use proptest::prelude::*;

    /// Vectors of `dim` numbers, and every way in which a row may be none.
    fn rows(dim: usize, fixed: bool) -> impl Strategy<Value = Vec<Option<Vec<Option<f64>>>>> {
        let number = prop_oneof![
            20 => (0u8..100).prop_map(f64::from),
            1 => prop::sample::select(vec![0.5, 1e300, f64::NAN, f64::INFINITY, -3.0]),
        ];
        let good = prop::collection::vec(number.clone().prop_map(Some), dim);
        let item = prop_oneof![5 => number.prop_map(Some), 1 => Just(None)];
        let gaps = prop::collection::vec(item.clone(), dim);
        let short = prop::collection::vec(item, if fixed { dim..dim + 1 } else { 0..dim + 3 });
        let row =
            prop_oneof![8 => good.prop_map(Some), 1 => gaps.prop_map(Some), 1 => short.prop_map(Some), 1 => Just(None)];
        prop::collection::vec(row, 1..60)
    }

    fn column(rows: &[Option<Vec<Option<f64>>>], dim: usize, fixed: bool) -> ArrayRef {
        if fixed {
            let mut lists = FixedSizeListBuilder::new(Float64Builder::new(), dim as i32);
            for row in rows {
                for i in 0..dim {
                    lists.values().append_option(row.as_ref().and_then(|row| row[i]));
                }
                lists.append(row.is_some());
            }
            return Arc::new(lists.finish());
        }
        let mut lists = ListBuilder::new(Float64Builder::new());
        for row in rows {
            if let Some(row) = row {
                row.iter().for_each(|&value| lists.values().append_option(value));
            }
            lists.append(row.is_some());
        }
        Arc::new(lists.finish())
    }

    /// Vectors, and what is wrong with each.
    type Read = (Vec<f32>, Vec<Option<String>>);

    /// By Arrow's reader, and by the pages, some rows at a time.
    fn both(file: &File, dim: usize, step: usize) -> [Read; 2] {
        let builder = ParquetRecordBatchReaderBuilder::try_new(file.try_clone().expect("open")).expect("a file");
        let metadata = Arc::clone(builder.metadata());
        let field = builder.schema().field(0).clone();
        let (mut slow, mut fast) = (Read::default(), Read::default());
        for batch in builder.build().expect("readable") {
            let lists = Lists::of(batch.expect("readable").column(0)).expect("lists");
            for i in 0..lists.len() {
                let mut row = vec![0.0; dim];
                slow.1.push(lists.copy(i, &mut row).err());
                slow.0.extend(row);
            }
        }
        let column = DirectColumn::of(&metadata, &field).expect("can be read directly");
        for group in 0..metadata.num_row_groups() {
            let mut vectors = column.open(file.try_clone().expect("open"), &metadata, group).expect("opens");
            let rows = metadata.row_group(group).num_rows() as usize;
            for first in (0..rows).step_by(step) {
                let count = step.min(rows - first);
                let (mut out, mut reasons) = (vec![0.0; count * dim], vec![None; count]);
                vectors.read(dim, &mut out, &mut reasons).expect("reads");
                fast.0.extend(out);
                fast.1.extend(reasons);
            }
        }
        [slow, fast]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        #[test]
        fn pages_give_what_arrow_s_reader_gives(
            (dim, fixed, rows) in (1usize..6, any::<bool>())
                .prop_flat_map(|(dim, fixed)| (Just(dim), Just(fixed), rows(dim, fixed))),
            kind in prop::sample::select(vec![
                DataType::Float64, DataType::Float32, DataType::UInt8, DataType::Int8, DataType::UInt16, DataType::Int16,
                DataType::UInt32, DataType::Int32, DataType::UInt64, DataType::Int64,
            ]),
            dictionary in any::<bool>(), group in 1usize..30, page in 1usize..9, step in 1usize..20
        ) {
            let lists = column(&rows, dim, fixed);
            let item = Arc::new(Field::new("item", kind, true));
            let kind = if fixed { DataType::FixedSizeList(item, dim as i32) } else { DataType::List(item) };
            let lists = cast(&lists, &kind).expect("numbers to numbers");
            let batch = RecordBatch::try_from_iter([("v", lists)]).expect("one column");
            let file = tempfile::tempfile().expect("a temporary file");
            let properties = WriterProperties::builder()
                .set_max_row_group_row_count(Some(group))
                .set_data_page_row_count_limit(page)
                .set_write_batch_size(page)
                .set_dictionary_enabled(dictionary)
                .build();
            let mut writer = ArrowWriter::try_new(&file, batch.schema(), Some(properties)).expect("a writer");
            writer.write(&batch).expect("writes");
            writer.close().expect("closes");
            let [slow, fast] = both(&file, dim, step);
            prop_assert_eq!(&slow.1, &fast.1);
            for (i, reason) in slow.1.iter().enumerate().filter(|(_, reason)| reason.is_none()) {
                prop_assert_eq!(&slow.0[i * dim..][..dim], &fast.0[i * dim..][..dim], "{:?}", reason);
            }
        }
    }
}
