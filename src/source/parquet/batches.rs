//! The stored batches of one file, row group by row group.
//!
//! A local file is read page by page, so that memory does not depend on the size of its row groups, which often have a
//! million rows. Of a remote file, each row group is fetched at once.

use arrow::record_batch::RecordBatch;
use futures::TryStreamExt;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;
use parquet::arrow::async_reader::ParquetRecordBatchStream;

use super::direct::{DirectColumn, Vectors};
use super::file::{Exact, ParquetFile};
use super::groups::Groups;
use super::number::Number;
use super::reader::{LocalFile, ObjectReader};
use crate::error::{Error, Result};
use crate::source::bad::Unread;

/// What is read of each row group.
pub(super) struct Asked {
    /// What Arrow's reader reads.
    pub columns: ProjectionMask,
    pub exact: Option<Exact>,
    /// The column of lists among `columns`, and how many values they should have.
    pub lists: Option<(String, usize)>,
    /// The column of lists that is read directly, and how many values they should have.
    pub direct: Option<(DirectColumn, usize)>,
    /// Rows at a time.
    pub rows: usize,
}

/// What is wrong with each row, if anything.
pub(super) type Reasons = Vec<Option<String>>;

/// Stored rows.
pub(super) struct Stored<T> {
    /// All columns, or all but the vectors.
    pub batch: RecordBatch,
    /// The 96-bit times again, in nanoseconds, which overflow outside the years 1677 to 2262.
    pub exact: Option<RecordBatch>,
    /// The vectors, `rows x dim`, if they were read directly, and what is wrong with each row.
    pub vectors: Option<(Vec<T>, Reasons)>,
}

/// The batches of one file.
pub(super) struct Batches<T> {
    open: ParquetFile,
    /// The file, if it is a local one.
    file: Option<LocalFile>,
    asked: Asked,
    groups: Groups,
    /// The readers of the current row group, once it was begun.
    group: Option<Group<T>>,
}

/// The readers of one row group.
enum Group<T> {
    Local(Box<LocalGroup<T>>),
    /// The plain columns, and the 96-bit times in nanoseconds.
    Remote(Box<(RemoteBatches, Option<RemoteBatches>)>),
}

/// Plain columns by Arrow's reader, and beside them the vectors.
struct LocalGroup<T> {
    plain: ParquetRecordBatchReader,
    /// The 96-bit times in nanoseconds.
    exact: Option<ParquetRecordBatchReader>,
    vectors: Option<(Vectors<T>, usize)>,
}

type RemoteBatches = ParquetRecordBatchStream<ObjectReader>;

impl<T: Number> Batches<T> {
    pub(super) fn new(open: ParquetFile, file: Option<LocalFile>, asked: Asked) -> Self {
        let groups = Groups::of(open.metadata().metadata());
        Self { open, file, asked, groups, group: None }
    }

    /// The next batch; `None` at the end of the file.
    ///
    /// # Errors
    /// Kind `Input` if the row group is damaged; after it, or after a panic of a decoder, only
    /// [`give_up`](Self::give_up) may be called. `Io` if the file cannot be read.
    pub(super) async fn next(&mut self) -> Result<Option<Stored<T>>> {
        while let Some(at) = self.groups.current() {
            let group = match &mut self.group {
                Some(group) => group,
                none => none.insert(Group::begin(&self.open, self.file.as_ref(), &self.asked, at)?),
            };
            match group.next().await? {
                Some(stored) => {
                    self.groups.give(stored.batch.num_rows())?;
                    return Ok(Some(stored));
                }
                None => {
                    self.groups.end()?;
                    self.group = None;
                }
            }
        }
        Ok(None)
    }

    /// Gives up the row group because of the error `e`, and goes on with the next. Returns which rows were not read.
    ///
    /// # Errors
    /// `e` itself if it is not about the data.
    pub(super) fn give_up(&mut self, e: Error) -> Result<Unread> {
        self.group = None;
        self.groups.give_up(self.open.name(), e)
    }
}

impl<T: Number> Group<T> {
    fn begin(open: &ParquetFile, file: Option<&LocalFile>, asked: &Asked, at: usize) -> Result<Self> {
        let Asked { columns, exact, lists, direct, rows } = asked;
        if let Some((name, dim)) = lists {
            open.check_lists(at, name, *dim)?;
        }
        let Some(file) = file else {
            let plain = open.remote_group(open.metadata(), at, columns.clone(), *rows)?;
            let exact = exact.as_ref().map(|(metadata, times)| open.remote_group(metadata, at, times.clone(), *rows));
            return Ok(Self::Remote(Box::new((plain, exact.transpose()?))));
        };
        let plain = open.group(open.metadata(), file, at, columns.clone(), *rows)?;
        let exact = exact.as_ref().map(|(metadata, times)| open.group(metadata, file, at, times.clone(), *rows));
        let vectors = direct.as_ref().map(|(column, dim)| -> Result<_> {
            Ok((column.open(file.again()?, open.metadata().metadata(), at)?, *dim))
        });
        let (exact, vectors) = (exact.transpose()?, vectors.transpose()?);
        Ok(Self::Local(Box::new(LocalGroup { plain, exact, vectors })))
    }

    async fn next(&mut self) -> Result<Option<Stored<T>>> {
        match self {
            Self::Local(group) => {
                let LocalGroup { plain, exact, vectors } = group.as_mut();
                let Some(batch) = plain.next().transpose()? else {
                    if let Some((vectors, _)) = vectors {
                        vectors.check_end()?;
                    }
                    return Ok(None);
                };
                let exact = match exact {
                    Some(exact) => Some(as_many(exact.next().transpose()?, &batch)?),
                    None => None,
                };
                let vectors = vectors.as_mut().map(|(column, dim)| -> Result<_> {
                    let rows = batch.num_rows();
                    let (mut out, mut reasons) = (Vec::with_capacity(rows * *dim), Vec::with_capacity(rows));
                    column.read(rows, *dim, &mut out, &mut reasons)?;
                    Ok((out, reasons))
                });
                let vectors = vectors.transpose()?;
                Ok(Some(Stored { batch, exact, vectors }))
            }
            Self::Remote(group) => {
                let (plain, exact) = group.as_mut();
                let Some(batch) = plain.try_next().await? else { return Ok(None) };
                let exact = match exact {
                    Some(exact) => Some(as_many(exact.try_next().await?, &batch)?),
                    None => None,
                };
                Ok(Some(Stored { batch, exact, vectors: None }))
            }
        }
    }
}

/// The 96-bit times again, for the rows of `batch`.
fn as_many(times: Option<RecordBatch>, batch: &RecordBatch) -> Result<RecordBatch> {
    let fits = times.filter(|times| times.num_rows() == batch.num_rows());
    fits.ok_or_else(|| Error::input("its 96-bit times end early"))
}
