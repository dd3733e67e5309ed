//! The files of a source of vectors: the files at its path, or those in the log of the Delta table there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use parquet::file::metadata::ParquetMetaDataReader;

use crate::error::{Error, Result};
use crate::source::csv::TABLE_ENDINGS;
use crate::source::fence::caught;
use crate::source::hive;
use crate::source::location::{DataFile, LeftOut, blocking, list_every};
use crate::store::Location;
use crate::table::Log;

/// The directory that makes its parent a Delta table.
const LOG: &str = "_delta_log";

/// Where a value comes from that is not in a file, for messages.
const PATH: &str = "its path";
const PARTITION: &str = "its table's log";
/// The origin of a null in a column that was added to the table after the file was written.
pub(super) const ABSENT: &str = "a file older than the column";

/// A file, and the columns whose values are not in it.
#[derive(Debug, Clone)]
pub(in crate::source) struct VectorFile {
    file: DataFile,
    /// Their values, by the names of its directories or by its table's log.
    constants: BTreeMap<String, Option<String>>,
    /// The columns of the Delta table that it belongs to.
    table: Option<SchemaRef>,
}

impl VectorFile {
    /// A file of no table.
    pub(in crate::source) fn plain(file: DataFile) -> Self {
        Self { constants: hive::columns(file.name()), file, table: None }
    }

    /// The file itself.
    pub(in crate::source) fn file(&self) -> &DataFile {
        &self.file
    }

    /// Its name in messages.
    pub(super) fn name(&self) -> &str {
        self.file.name()
    }

    /// The names of the columns that need not be in it.
    pub(super) fn constants(&self) -> impl Iterator<Item = &str> {
        self.constants.keys().map(String::as_str)
    }

    /// The value of column `name` in all rows, its type if known, and where it comes from; `None` if neither path nor
    /// log gives it.
    pub(super) fn constant(&self, name: &str) -> Option<(Option<String>, Option<DataType>, &'static str)> {
        let declared = self.table.as_ref().and_then(|table| table.field_with_name(name).ok());
        let declared = declared.map(|field| field.data_type().clone());
        match (self.constants.get(name), declared) {
            (Some(value), Some(t)) => Some((value.clone(), Some(t), PARTITION)),
            (Some(value), None) => Some((value.clone(), None, PATH)),
            (None, Some(t)) => Some((None, Some(t), ABSENT)),
            (None, None) => None,
        }
    }
}

/// The files at `path`, in the order in which they are read, and what is there beside them. For a Delta table these are the files of its newest
/// version, in the order in which they were added: other files in its directory were replaced or removed.
///
/// # Errors
/// As for [`list_every`]; kind `Table` if the table's log is damaged, or uses unsupported features; `Input` if the files
/// lie in a Delta table but the path is not the table itself.
pub(super) async fn find(path: &str) -> Result<(Vec<VectorFile>, LeftOut)> {
    if let Some(table) = table_at(path)?
        && let Some(snapshot) = Log::new(table.clone()).snapshot(None).await?
    {
        let file = |file: crate::table::DataFile| {
            let data = DataFile::in_table(&table, &file.path, file.bytes)?;
            Ok(VectorFile { file: data, constants: file.partition, table: Some(Arc::clone(&snapshot.schema)) })
        };
        let files = snapshot.files.iter().cloned().map(file).collect::<Result<Vec<_>>>()?;
        if files.is_empty() {
            return Err(Error::input(format!("{path}: version {} of this table has no rows", snapshot.version)));
        }
        return Ok((files, LeftOut::default()));
    }
    let (files, left_out) = list_every(path, &TABLE_ENDINGS).await?;
    let single = files.len() == 1 && files[0].name() == path;
    if !single {
        let local: Vec<PathBuf> = files.iter().filter_map(|file| file.local_path().map(Path::to_path_buf)).collect();
        if let Some(table) = blocking(move || Ok(table_around(&local))).await? {
            let table = table.display();
            return Err(Error::input(format!(
                "{path}: these are files of the Delta table {table}, whose log says which of them count: give the path \
                 of the table itself"
            )));
        }
    }
    Ok((files.into_iter().map(VectorFile::plain).collect(), left_out))
}

/// The rows of a local file by its footer; `None` if it cannot be read.
pub(in crate::source) fn rows_in(file: &DataFile) -> Option<u64> {
    let open = file.local().ok()??;
    let read = caught(|| ParquetMetaDataReader::new().parse_and_finish(&open).ok());
    u64::try_from(read.ok()??.file_metadata().num_rows()).ok()
}

/// The place of a table, if `path` is one that may hold a table.
fn table_at(path: &str) -> Result<Option<Location>> {
    // A web server cannot be listed, and a path with the ending of a file is not a table.
    let file = path.ends_with(".parquet") || path.ends_with(".pq") || path.contains(['*', '?']);
    if path.is_empty() || path.starts_with("http") || (file && !Path::new(path).is_dir()) {
        return Ok(None);
    }
    let place = Location::parse(path.trim_end_matches('/'))?;
    let holds_one = place.local_path().is_none_or(|local| local.join(LOG).is_dir());
    Ok(Some(place).filter(|_| holds_one))
}

/// The Delta table that contains one of `files`.
fn table_around(files: &[PathBuf]) -> Option<PathBuf> {
    let mut seen = BTreeSet::new();
    for file in files {
        let Ok(file) = std::path::absolute(file) else { continue };
        for dir in file.ancestors().skip(1) {
            if !seen.insert(dir.to_path_buf()) {
                break;
            }
            if dir.join(LOG).is_dir() {
                return Some(dir.to_path_buf());
            }
        }
    }
    None
}
