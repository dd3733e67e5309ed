//! Reads data files of a table and checks every byte that is read against the checksums in its commit.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::ParquetFileReaderFactory;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::ObjectStore;
use object_store::path::Path;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::ParquetError;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};

use super::checksum::Checksums;
use crate::error::Error;
use crate::store::{Location, failed};

/// Opens the files of one scan.
#[derive(Debug)]
pub(super) struct CheckedReads {
    location: Location,
    sums: HashMap<Path, Checksums>,
}

impl CheckedReads {
    /// For files at `location`; those in `sums` have checksums.
    pub(super) fn new(location: Location, sums: HashMap<Path, Checksums>) -> Self {
        Self { location, sums }
    }
}

impl ParquetFileReaderFactory for CheckedReads {
    fn create_reader(
        &self,
        _partition: usize,
        file: PartitionedFile,
        hint: Option<usize>,
        _metrics: &ExecutionPlanMetricsSet,
    ) -> datafusion::error::Result<Box<dyn AsyncFileReader + Send>> {
        let path = file.object_meta.location;
        Ok(Box::new(CheckedFile {
            location: self.location.clone(),
            store: Arc::clone(self.location.store()),
            sums: self.sums.get(&path).cloned(),
            path,
            bytes: file.object_meta.size,
            hint,
        }))
    }
}

/// A file being read.
struct CheckedFile {
    location: Location,
    store: Arc<dyn ObjectStore>,
    path: Path,
    bytes: u64,
    sums: Option<Checksums>,
    hint: Option<usize>,
}

impl CheckedFile {
    /// The file's name for messages.
    fn shown(&self) -> String {
        let below = self.path.prefix_match(self.location.prefix());
        let parts: Vec<String> = below.into_iter().flatten().map(|part| part.as_ref().to_owned()).collect();
        self.location.show(&parts.join("/"))
    }

    async fn read(&self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, Error> {
        let failed = |e| failed("reading", &self.shown(), e);
        if ranges.iter().any(|range| range.start > range.end || range.end > self.bytes) {
            return Err(damaged(&self.location, &self.shown(), "says that a part of it lies beyond its end"));
        }
        let Some(sums) = &self.sums else {
            return self.store.get_ranges(&self.path, ranges).await.map_err(failed);
        };
        let blocks: Vec<Range<u64>> = ranges.iter().map(|range| Checksums::blocks(range, self.bytes)).collect();
        let merged = merged(&blocks);
        let read = self.store.get_ranges(&self.path, &merged).await.map_err(failed)?;
        for (range, content) in merged.iter().zip(&read) {
            let whole = content.len() as u64 == range.end - range.start;
            if !whole || !sums.fit(range.start, content) {
                return Err(damaged(
                    &self.location,
                    &self.shown(),
                    "has other bytes than were written (its checksum differs)",
                ));
            }
        }
        let cut = |range: &Range<u64>| {
            let at = merged.iter().position(|all| all.start <= range.start && range.end <= all.end)?;
            let start = (range.start - merged[at].start) as usize;
            Some(read[at].slice(start..start + (range.end - range.start) as usize))
        };
        let cut = |range| cut(range).ok_or_else(|| Error::internal("a range that was not read"));
        ranges.iter().map(cut).collect()
    }
}

/// Ascending ranges that cover `ranges` without overlap.
fn merged(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut sorted = ranges.to_vec();
    sorted.sort_by_key(|range| range.start);
    let mut out: Vec<Range<u64>> = Vec::with_capacity(sorted.len());
    for range in sorted {
        match out.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => out.push(range),
        }
    }
    out
}

/// The error for a file of a table that differs from what the log says.
pub(super) fn damaged(location: &Location, file: &str, what: &str) -> Error {
    Error::table(format!("the table {location} is damaged: {file} {what}; restore the file, or write the table anew"))
}

fn outside(e: Error) -> ParquetError {
    ParquetError::External(Box::new(e))
}

impl AsyncFileReader for CheckedFile {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        let ranges = vec![range];
        async move {
            let mut read = self.read(&ranges).await.map_err(outside)?;
            read.pop().ok_or_else(|| outside(Error::internal("a range that was not read")))
        }
        .boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        async move { self.read(&ranges).await.map_err(outside) }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        async move {
            let (column, offset) = match options {
                Some(options) => (options.column_index_policy(), options.offset_index_policy()),
                None => (PageIndexPolicy::Skip, PageIndexPolicy::Skip),
            };
            let reader = ParquetMetaDataReader::new()
                .with_metadata_options(options.map(|options| options.metadata_options().clone()))
                .with_column_index_policy(column)
                .with_offset_index_policy(offset)
                .with_prefetch_hint(self.hint);
            let bytes = self.bytes;
            Ok(Arc::new(reader.load_and_finish(self, bytes).await?))
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_meet_are_read_once() {
        assert_eq!(merged(&[8..10, 0..4, 4..5, 3..4]), [0..5, 8..10]);
        assert_eq!(merged(&[]), []);
    }
}
