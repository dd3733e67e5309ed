//! How the Parquet reader gets at the bytes of a file.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, TryFutureExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

use crate::error::Error;
use crate::source::location::DataFile;

/// Reads byte ranges of one file, local or in an object store.
#[derive(Debug, Clone)]
pub(in crate::source) struct ObjectReader {
    store: Arc<dyn ObjectStore>,
    path: Path,
    size: u64,
}

impl ObjectReader {
    /// A reader of `file`.
    ///
    /// # Errors
    /// Kind `Input` if it is not there or is empty.
    pub(in crate::source) fn new(file: &DataFile) -> crate::Result<Self> {
        let (store, path, size) = file.object()?;
        match size {
            0 => Err(Error::input(format!("{}: empty, expected a Parquet file", file.name()))),
            _ => Ok(Self { store, path, size }),
        }
    }
}

fn io(e: object_store::Error) -> ParquetError {
    ParquetError::External(Box::new(Error::from(e)))
}

impl AsyncFileReader for ObjectReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        self.store.get_range(&self.path, range).map_err(io).boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>>> {
        async move { self.store.get_ranges(&self.path, &ranges).await.map_err(io) }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>>> {
        let size = self.size;
        let reader = ParquetMetaDataReader::new().with_arrow_reader_options(options);
        async move { Ok(Arc::new(reader.load_and_finish(self, size).await?)) }.boxed()
    }
}
