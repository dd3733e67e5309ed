//! Reads the vectors of a column of lists directly from its pages.
//!
//! Arrow's reader builds a list array first: it decodes the levels of every value, makes bitmaps and offsets from them,
//! and casts the values. For vectors of bytes that is three quarters of the time to read a file. Here the levels are
//! only compared with those of a row without nulls, and the values are converted to floating-point numbers as they are
//! copied.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use parquet::basic::Type as PhysicalType;
use parquet::column::page::{Page, PageReader};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::ChunkReader;
use parquet::file::serialized_reader::SerializedPageReader;

use super::batches::Reasons;
use super::number::Number;
use super::page::{DataPage, Dictionary, Stored, is_readable};
use crate::error::{Error, Result};

/// Where a column of lists is in a file, and how its values are stored.
#[derive(Debug, Clone)]
pub(super) struct DirectColumn {
    /// Its index among the leaf columns.
    leaf: usize,
    stored: Stored,
    levels: Levels,
}

/// The definition levels of a list of numbers.
#[derive(Debug, Clone, Copy)]
struct Levels {
    /// The definition level of a number.
    full: u32,
    /// The least definition level of a list with an item; below it, the list is empty.
    item: u32,
    /// Whether level 0 means a null list.
    nullable: bool,
}

impl DirectColumn {
    /// The column of `field`, if its pages can be read directly: a list of integers of up to 64 bits or of floats of 32
    /// or 64 bits, at the top of the file's schema, with plain or dictionary encoding.
    pub(super) fn of(metadata: &ParquetMetaData, field: &Field) -> Option<Self> {
        let (DataType::FixedSizeList(item, _) | DataType::List(item) | DataType::LargeList(item)) = field.data_type()
        else {
            return None;
        };
        let schema = metadata.file_metadata().schema_descr();
        let mut leaves = (0..schema.num_columns()).filter(|&leaf| schema.get_column_root(leaf).name() == field.name());
        let (leaf, None) = (leaves.next()?, leaves.next()) else { return None };
        if !metadata.row_groups().iter().all(|group| group.column(leaf).encodings().all(is_readable)) {
            return None;
        }
        let column = schema.column(leaf);
        use DataType::*;
        let stored = match (column.physical_type(), item.data_type()) {
            (PhysicalType::INT32, Int8 | Int16 | Int32 | UInt8 | UInt16) => Stored::Int32,
            (PhysicalType::INT32, UInt32) => Stored::Uint32,
            (PhysicalType::INT64, Int64) => Stored::Int64,
            (PhysicalType::INT64, UInt64) => Stored::Uint64,
            (PhysicalType::FLOAT, Float32) => Stored::Float,
            (PhysicalType::DOUBLE, Float64) => Stored::Double,
            _ => return None,
        };
        let item_level = u32::from(field.is_nullable()) + 1;
        let full = item_level + u32::from(item.is_nullable());
        let as_expected = column.max_rep_level() == 1 && u32::try_from(column.max_def_level()) == Ok(full);
        let levels = Levels { full, item: item_level, nullable: field.is_nullable() };
        as_expected.then_some(Self { leaf, stored, levels })
    }

    /// Its vectors in row group `group` of `file`.
    ///
    /// # Errors
    /// Kind `Input` if the metadata of the row group makes no sense.
    pub(super) fn open<T: Number>(
        &self,
        file: impl ChunkReader + 'static,
        metadata: &ParquetMetaData,
        group: usize,
    ) -> Result<Vectors<T>> {
        let group = metadata.row_group(group);
        let rows = usize::try_from(group.num_rows()).map_err(|_| Error::input("a row group of fewer than no rows"))?;
        let pages = SerializedPageReader::new(Arc::new(file), group.column(self.leaf), rows, None)?;
        Ok(Vectors::new(self, Box::new(pages)))
    }
}

/// The next vectors of one row group.
pub(super) struct Vectors<T> {
    pages: Box<dyn PageReader>,
    stored: Stored,
    levels: Levels,
    dictionary: Dictionary<T>,
    page: Option<DataPage>,
}

impl<T: Number> Vectors<T> {
    fn new(column: &DirectColumn, pages: Box<dyn PageReader>) -> Self {
        let (stored, levels) = (column.stored, column.levels);
        Self { pages, stored, levels, dictionary: Dictionary::default(), page: None }
    }

    /// Appends `rows` vectors of `dim` numbers to `out`, and what is wrong with each to `reasons`; a row that is not
    /// such a vector becomes zeros.
    ///
    /// # Errors
    /// Kind `Input` if pages are damaged or end early, `Io` if the disk fails.
    pub(super) fn read(&mut self, rows: usize, dim: usize, out: &mut Vec<T>, reasons: &mut Reasons) -> Result<()> {
        for row in 0..rows {
            if self.next_page()?.is_none() {
                return Err(Error::input(format!("the vectors' pages end {} rows early", rows - row)));
            }
            let end = out.len() + dim;
            reasons.push(self.read_list(dim, out)?);
            out.resize(end, T::default());
        }
        Ok(())
    }

    /// Checks that there are no more lists: if there are, the file is damaged, and the lists before may be wrong.
    ///
    /// # Errors
    /// As for [`read`](Self::read), and kind `Input` if there are more.
    pub(super) fn check_end(&mut self) -> Result<()> {
        match self.next_page()? {
            Some(_) => Err(Error::input("there are more vectors than rows")),
            None => Ok(()),
        }
    }

    /// How many items the next list has; `None` if it is null. Only its levels are read, however long it is.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    pub(super) fn length(&mut self) -> Result<Option<usize>> {
        if self.next_page()?.is_none() {
            return Err(Error::input("the vectors' pages end early"));
        }
        let page = present(&mut self.page)?;
        let mut len = page.skip_list(false)?;
        let first = page.definition()?;
        page.skip_definitions(len - 1)?;
        while self.continues()? {
            let page = present(&mut self.page)?;
            let more = page.skip_list(true)?;
            page.skip_definitions(more)?;
            len += more;
        }
        Ok((first >= self.levels.item).then_some(len))
    }

    /// The page with the next levels, if there is one.
    fn next_page(&mut self) -> Result<Option<&mut DataPage>> {
        while self.page.as_ref().is_none_or(DataPage::is_empty) {
            match self.pages.get_next_page()? {
                Some(Page::DictionaryPage { buf, .. }) => self.dictionary = Dictionary::of(&buf, self.stored),
                Some(page) => self.page = DataPage::of(page, self.stored, self.levels.full)?,
                None => return Ok(None),
            }
        }
        Ok(self.page.as_mut())
    }

    /// Appends the next list; or says what is wrong with it if it is not `dim` finite numbers.
    fn read_list(&mut self, dim: usize, out: &mut Vec<T>) -> Result<Option<String>> {
        let mut list = List::new(dim);
        let (page, dictionary) = (present(&mut self.page)?, &self.dictionary);
        let len = page.skip_list(false)?;
        let numbers = page.skip_full(len)?;
        let mut continues = if (len, numbers) == (dim, dim) {
            let first = out.len();
            let finite = page.read(dictionary, dim, out)?;
            let continues = self.continues()?;
            if finite && !continues {
                return Ok(None);
            }
            list.push(out.drain(first..), self.levels.full);
            continues
        } else {
            list.read(page, dictionary, numbers, len)?;
            self.continues()?
        };
        while continues {
            let page = present(&mut self.page)?;
            let len = page.skip_list(true)?;
            let numbers = page.skip_full(len)?;
            list.read(page, &self.dictionary, numbers, len)?;
            continues = self.continues()?;
        }
        if list.is_vector() {
            out.append(&mut list.numbers);
            return Ok(None);
        }
        Ok(Some(self.levels.problem(&list, dim)))
    }

    /// Whether this page ended in the middle of a list, as data pages of version 1 may, and the next one continues it.
    fn continues(&mut self) -> Result<bool> {
        if self.page.as_ref().is_some_and(|page| !page.is_empty()) {
            return Ok(false);
        }
        self.next_page()?.map_or(Ok(false), DataPage::continues)
    }
}

fn present(page: &mut Option<DataPage>) -> Result<&mut DataPage> {
    page.as_mut().ok_or_else(|| Error::internal("a list without a page"))
}

/// A list that did not match on the fast path.
#[derive(Debug)]
struct List<T> {
    dim: usize,
    /// How many items it has; an empty or null list has one level and no item.
    len: usize,
    /// The definition levels of the first `dim` items.
    definition: Vec<u32>,
    /// Those of the first `dim` items that are numbers.
    numbers: Vec<T>,
}

/// How many items are read at a time: a damaged list may claim to have any number.
const ITEMS: usize = 1024;

impl<T: Number> List<T> {
    fn new(dim: usize) -> Self {
        Self { dim, len: 0, definition: vec![], numbers: vec![] }
    }

    /// Adds `dim` items, all of which are numbers.
    fn push(&mut self, numbers: impl Iterator<Item = T>, full: u32) {
        self.numbers.extend(numbers);
        self.len = self.dim;
        self.definition.resize(self.dim, full);
    }

    /// Adds the next `len` items of `page`, the levels of the first `full_ones` of which have been skipped.
    fn read(&mut self, page: &mut DataPage, dictionary: &Dictionary<T>, full_ones: usize, len: usize) -> Result<()> {
        for at in (0..len).step_by(ITEMS) {
            let items = ITEMS.min(len - at);
            let full_ones = full_ones.saturating_sub(at).min(items);
            let mut numbers = full_ones;
            self.definition.resize((self.len + full_ones).min(self.dim), page.full());
            self.len += full_ones;
            for _ in full_ones..items {
                let level = page.definition()?;
                numbers += usize::from(level == page.full());
                if self.len < self.dim {
                    self.definition.push(level);
                }
                self.len += 1;
            }
            page.read(dictionary, numbers, &mut self.numbers)?;
            self.numbers.truncate(self.dim);
        }
        Ok(())
    }

    /// Whether it is a valid vector after all.
    fn is_vector(&self) -> bool {
        let whole = self.len == self.dim && self.numbers.len() == self.dim;
        whole && self.numbers.iter().all(|number| number.is_single())
    }
}

impl Levels {
    /// What is wrong with a list that does not have `dim` finite numbers.
    fn problem<T: Number>(self, list: &List<T>, dim: usize) -> String {
        let first = list.definition.first().copied().unwrap_or(0);
        if self.nullable && first == 0 {
            return format!("null, expected {dim} numbers");
        }
        let len = if first < self.item { 0 } else { list.len };
        if len != dim {
            return format!("{len} values, expected {dim}");
        }
        let mut numbers = list.numbers.iter().copied();
        let problem_at = |(position, &level): (usize, &u32)| {
            let number = (level == self.full).then(|| numbers.next()).flatten();
            let problem = super::lists::problem_of(number)?;
            Some(format!("value {position} is {problem}"))
        };
        list.definition.iter().enumerate().find_map(problem_at).unwrap_or_else(|| "unreadable".into())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::source::parquet::hybrid::tests::encode;
    use crate::source::parquet::lists::Lists;
    use arrow::array::{ArrayRef, FixedSizeListBuilder, Float64Builder, ListBuilder, RecordBatch};
    use arrow::compute::cast;
    use bytes::Bytes;
    use parquet::arrow::ArrowWriter;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use parquet::basic::Encoding;
    use parquet::column::page::PageMetadata;
    use parquet::file::properties::{WriterProperties, WriterVersion};
    use proptest::prelude::*;

    /// Vectors of `dim` numbers, and every kind of row that is not one.
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
    type Read<T> = (Vec<T>, Reasons);

    /// Read by Arrow's reader, and directly, some rows at a time.
    fn both<T: Number>(file: &File, dim: usize, step: usize) -> (Read<T>, Option<Read<T>>) {
        let builder = ParquetRecordBatchReaderBuilder::try_new(file.try_clone().expect("open")).expect("a file");
        let metadata = Arc::clone(builder.metadata());
        let field = builder.schema().field(0).clone();
        let mut slow = Read::<T>::default();
        for batch in builder.build().expect("readable") {
            let lists = Lists::<T>::of(batch.expect("readable").column(0)).expect("lists");
            for i in 0..lists.len() {
                let mut row = vec![T::default(); dim];
                slow.1.push(lists.copy(i, &mut row, false).err());
                slow.0.extend(row);
            }
        }
        let Some(column) = DirectColumn::of(&metadata, &field) else { return (slow, None) };
        let mut fast = Read::<T>::default();
        for group in 0..metadata.num_row_groups() {
            let mut vectors = column.open(file.try_clone().expect("open"), &metadata, group).expect("opens");
            let rows = metadata.row_group(group).num_rows() as usize;
            for first in (0..rows).step_by(step) {
                let count = step.min(rows - first);
                vectors.read(count, dim, &mut fast.0, &mut fast.1).expect("reads");
            }
        }
        (slow, Some(fast))
    }

    /// Checks that both readers give the same vectors, in one precision, and the same problems.
    fn same<T: Number>(file: &File, dim: usize, step: usize, second: bool) -> Result<(), TestCaseError> {
        let (slow, fast) = both::<T>(file, dim, step);
        // Version 2 pages store integers with delta encoding, which is left to Arrow's reader.
        let Some(fast) = fast else {
            prop_assert!(second);
            return Ok(());
        };
        prop_assert_eq!(&slow.1, &fast.1);
        for (i, reason) in slow.1.iter().enumerate().filter(|(_, reason)| reason.is_none()) {
            prop_assert_eq!(&slow.0[i * dim..][..dim], &fast.0[i * dim..][..dim], "{:?}", reason);
        }
        Ok(())
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
            dictionary in any::<bool>(), second in any::<bool>(), group in 1usize..30, page in 1usize..9, step in 1usize..20
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
                .set_writer_version(if second { WriterVersion::PARQUET_2_0 } else { WriterVersion::PARQUET_1_0 })
                .build();
            let mut writer = ArrowWriter::try_new(&file, batch.schema(), Some(properties)).expect("a writer");
            writer.write(&batch).expect("writes");
            writer.close().expect("closes");
            same::<f32>(&file, dim, step, second)?;
            same::<f64>(&file, dim, step, second)?;
        }

        #[test]
        fn pages_that_end_anywhere_give_the_same_lists(
            (dim, rows) in (1usize..20).prop_flat_map(|dim| (Just(dim), rows(dim, false))),
            dictionary in any::<bool>(), ends in prop::collection::vec(1usize..40, 1..6),
            cuts in prop::collection::vec(0usize..60, 1..6)
        ) {
            let mut lengths = vectors(pages(&rows, dictionary, &ends, &cuts));
            for row in &rows {
                let expected = row.as_ref().map(Vec::len).filter(|len| *len > 0);
                prop_assert_eq!(lengths.length().expect("reads"), expected);
            }
            lengths.check_end().expect("no more rows");
            let mut vectors = vectors(pages(&rows, dictionary, &ends, &cuts));
            prop_assert!(vectors.check_end().is_err());
            let (mut out, mut reasons) = Read::<f32>::default();
            vectors.read(rows.len(), dim, &mut out, &mut reasons).expect("reads");
            for (i, row) in rows.iter().enumerate() {
                let expected: Option<Vec<f32>> = row.as_ref().filter(|row| row.len() == dim).and_then(|row| {
                    row.iter().map(|v| v.map(|v| v as f32).filter(|v| v.is_finite())).collect()
                });
                prop_assert_eq!(reasons[i].is_none(), expected.is_some(), "{:?}", reasons[i]);
                if let Some(expected) = expected {
                    prop_assert_eq!(&out[i * dim..][..dim], &expected[..]);
                }
            }
            let error = vectors.read(1, dim, &mut out, &mut reasons).expect_err("no more rows");
            prop_assert_eq!(error.to_string(), "the vectors' pages end 1 rows early");
        }

        #[test]
        fn damaged_pages_do_not_panic(
            rows in rows(4, false), dictionary in any::<bool>(), damage in prop::collection::vec(any::<(u16, u8)>(), 1..6)
        ) {
            let mut pages = pages(&rows, dictionary, &[30], &[7, 2]);
            for (at, byte) in damage {
                let count = pages.len();
                let page = &mut pages[usize::from(at) % count];
                let mut bytes = page.buffer().to_vec();
                let len = bytes.len().max(1);
                if let Some(damaged) = bytes.get_mut(usize::from(at) / count % len) {
                    *damaged = byte;
                }
                *page = match page.clone() {
                    Page::DictionaryPage { num_values, encoding, is_sorted, .. } => {
                        Page::DictionaryPage { buf: bytes.into(), num_values, encoding, is_sorted }
                    }
                    other => data_page(bytes.into(), other.num_values(), other.encoding()),
                };
            }
            // The damage may go unnoticed, or be an error; a panic is a failure.
            vectors(pages).read(rows.len(), 4, &mut vec![], &mut vec![]).ok();
        }
    }

    /// Pages in memory.
    struct Pages(std::vec::IntoIter<Page>);

    impl Iterator for Pages {
        type Item = parquet::errors::Result<Page>;

        fn next(&mut self) -> Option<Self::Item> {
            self.0.next().map(Ok)
        }
    }

    impl PageReader for Pages {
        fn get_next_page(&mut self) -> parquet::errors::Result<Option<Page>> {
            Ok(self.0.next())
        }

        fn peek_next_page(&mut self) -> parquet::errors::Result<Option<PageMetadata>> {
            unreachable!("pages are read in order")
        }

        fn skip_next_page(&mut self) -> parquet::errors::Result<()> {
            unreachable!("all pages are read")
        }
    }

    /// Nullable lists of nullable 64-bit items.
    fn vectors(pages: Vec<Page>) -> Vectors<f32> {
        let levels = Levels { full: 3, item: 2, nullable: true };
        let column = DirectColumn { leaf: 0, stored: Stored::Double, levels };
        Vectors::new(&column, Box::new(Pages(pages.into_iter())))
    }

    fn data_page(buf: Bytes, num_values: u32, encoding: Encoding) -> Page {
        let (def_level_encoding, rep_level_encoding) = (Encoding::RLE, Encoding::RLE);
        Page::DataPage { buf, num_values, encoding, def_level_encoding, rep_level_encoding, statistics: None }
    }

    /// `rows` in pages of version 1 that have as many levels as `ends` says, in runs as `cuts` says.
    fn pages(rows: &[Option<Vec<Option<f64>>>], dictionary: bool, ends: &[usize], cuts: &[usize]) -> Vec<Page> {
        let (mut levels, mut named) = (vec![], vec![]);
        for row in rows {
            match row.as_deref() {
                None => levels.push((0, 0, None)),
                Some([]) => levels.push((0, 1, None)),
                Some(items) => levels.extend(
                    items.iter().enumerate().map(|(i, item)| (u32::from(i > 0), 2 + u32::from(item.is_some()), *item)),
                ),
            }
        }
        let mut data = vec![];
        let (mut rest, mut ends) = (&levels[..], ends.iter().cycle());
        while !rest.is_empty() {
            let (page, more) = rest.split_at(rest.len().min(*ends.next().expect("some ends")));
            rest = more;
            let mut buf = vec![];
            let sections: [Vec<u32>; 2] = [page.iter().map(|l| l.0).collect(), page.iter().map(|l| l.1).collect()];
            for (section, width) in sections.iter().zip([1, 2]) {
                let bytes = encode(section, width, cuts);
                buf.extend((bytes.len() as u32).to_le_bytes());
                buf.extend(bytes);
            }
            let numbers: Vec<f64> = page.iter().filter_map(|level| level.2).collect();
            let encoding = if dictionary {
                let first = named.len() as u32;
                named.extend(&numbers);
                buf.push(12);
                buf.extend(encode(&(first..named.len() as u32).collect::<Vec<_>>(), 12, cuts));
                Encoding::RLE_DICTIONARY
            } else {
                buf.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
                Encoding::PLAIN
            };
            data.push(data_page(buf.into(), page.len() as u32, encoding));
        }
        let buf: Vec<u8> = named.iter().flat_map(|number: &f64| number.to_le_bytes()).collect();
        let (num_values, encoding) = (named.len() as u32, Encoding::PLAIN);
        let first = Page::DictionaryPage { buf: buf.into(), num_values, encoding, is_sorted: false };
        std::iter::once(first).filter(|_| dictionary).chain(data).collect()
    }
}
