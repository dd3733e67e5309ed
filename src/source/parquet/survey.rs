//! Surveys the files of a source: which of them can be used, the column types that fit them all, and how many values a
//! vector has.
//!
//! The majority decides, not the first file. If columns of different files have incompatible types, the largest group
//! of files that agree is used; the width of most vectors is the width of all. Other files and rows are bad.

use arrow::datatypes::{DataType, Field};
use futures::{StreamExt, stream};

use super::file::{ParquetFile, Widths};
use super::files::VectorFile;
use super::types::wider;
use super::{Features, ParquetSpec, plain_names};
use crate::error::{Error, Result};
use crate::source::bad::{Rejects, Unread};
use crate::source::fence::fenced_async;

/// Files whose footers are read at a time.
const AT_A_TIME: usize = 16;

/// Rows that are read to find the width of vectors, spread over files and row groups; only the lengths of their lists
/// are read.
pub const WIDTH_ROWS: usize = 1000;

/// Files that those rows are in, spread evenly over all.
const WIDTH_FILES: usize = 32;

/// Most values that a vector may have.
pub const MOST_VALUES: usize = 1 << 22;

/// What was found.
#[derive(Debug)]
pub(super) struct Survey {
    /// The files that can be used, in their order.
    pub files: Vec<VectorFile>,
    /// The columns beside the vectors.
    pub plain: Vec<Field>,
    /// Whether the vectors of any file need double precision, so that all vectors have it.
    pub double: bool,
    /// Values in a vector.
    pub dim: usize,
}

/// A file whose footer was read.
struct Looked {
    file: VectorFile,
    /// The types of the columns beside the vectors; `None` for a value in a path.
    types: Vec<Option<DataType>>,
    /// The width that the type of its vectors has.
    fixed: Option<usize>,
    /// Whether its vectors need double precision.
    double: bool,
    rows: u64,
}

/// Surveys all `files`. Those that cannot be used go to `rejects`.
///
/// # Errors
/// Kind `Input` if no file can be used, or, if bad rows are errors, for the first file that cannot; `Io` if reading
/// fails.
pub(super) async fn survey(files: Vec<VectorFile>, spec: &ParquetSpec, rejects: &Rejects) -> Result<Survey> {
    let mut problems = Problems { rejects, first: None, all: files.len() };
    let mut looked = Vec::new();
    let mut looks = stream::iter(files.into_iter().map(|file| look(file, spec))).buffered(AT_A_TIME);
    while let Some((name, found)) = looks.next().await {
        match found {
            Ok(found) => looked.push(found),
            Err(e) => problems.add(&name, None, e)?,
        }
    }
    let (looked, types) = of_one_type(looked, spec, &mut problems)?;
    // A label or carried column that is null in every file stays of type null. Keys and the split become text, as
    // values in a path are.
    let settled = |at: usize, name: &String, t: Option<DataType>| {
        let open = spec.label.as_ref() == Some(name) || spec.keep.contains(name);
        let in_paths = || looked.iter().any(|found| found.types[at].is_none());
        match t {
            Some(DataType::Null) if open && !in_paths() => DataType::Null,
            Some(DataType::Null) | None => DataType::Utf8,
            Some(t) => t,
        }
    };
    let plain: Vec<Field> = plain_names(spec)
        .zip(types)
        .enumerate()
        .map(|(at, (name, t))| Field::new(name, settled(at, name, t), !spec.keys.contains(name)))
        .collect();
    let mut usable = Vec::new();
    for found in looked {
        match fits(&found.file, spec, &plain).await {
            Ok(()) => usable.push(found),
            Err(e) => problems.add(found.file.name(), Some(found.rows), e)?,
        }
    }
    if usable.is_empty() {
        return Err(problems.none_left(spec));
    }
    let dim = width(&mut usable, spec, &mut problems).await?;
    let double = usable.iter().any(|found| found.double);
    Ok(Survey { files: usable.into_iter().map(|found| found.file).collect(), plain, double, dim })
}

/// The files that cannot be used.
struct Problems<'a> {
    rejects: &'a Rejects,
    first: Option<String>,
    all: usize,
}

impl Problems<'_> {
    /// Adds a file of so many `rows`, where its footer says how many.
    fn add(&mut self, file: &str, rows: Option<u64>, e: Error) -> Result<()> {
        let message = e.to_string();
        self.rejects.reject_file_of(file, rows.filter(|rows| *rows > 0), e)?;
        self.first.get_or_insert(message);
        Ok(())
    }

    /// Adds a damaged row group.
    fn damaged(&mut self, file: &str, unread: Unread) -> Result<()> {
        self.first.get_or_insert(format!("{file}: {}", unread.reason));
        self.rejects.reject_unread(file, unread)
    }

    fn none_left(&self, spec: &ParquetSpec) -> Error {
        let first = self.first.as_deref().unwrap_or("it holds no rows");
        let all = self.all;
        Error::input(format!("{}: none of {all} files can be used, the first because: {first}", spec.path))
    }
}

async fn look(file: VectorFile, spec: &ParquetSpec) -> (String, Result<Looked>) {
    let name = file.name().to_owned();
    let looking = async {
        let open = ParquetFile::open(&file, spec).await?;
        let is_split = |name: &String| spec.split.as_ref() == Some(name);
        let types = plain_names(spec).map(|name| Ok(open.column(name)?.plain_type(is_split(name))));
        let types = types.collect::<Result<Vec<_>>>()?;
        let fixed = match &spec.features {
            Features::Column(column) => open.fixed_width(column)?,
            Features::Columns(names) => Some(names.len()),
        };
        Ok((types, fixed, open.needs_double(spec)?, open.rows()))
    };
    let found = fenced_async(&name, looking).await;
    (name, found.map(|(types, fixed, double, rows)| Looked { file, types, fixed, double, rows }))
}

/// The largest group of `looked` files whose column types are compatible, and the common types.
fn of_one_type(
    looked: Vec<Looked>,
    spec: &ParquetSpec,
    problems: &mut Problems<'_>,
) -> Result<(Vec<Looked>, Vec<Option<DataType>>)> {
    let columns = plain_names(spec).count();
    let mut kinds: Vec<(Vec<Option<DataType>>, Vec<usize>)> = Vec::new();
    for (i, found) in looked.iter().enumerate() {
        let joined = kinds.iter_mut().find_map(|(types, members)| {
            let both = types.iter().zip(&found.types).map(|(a, b)| match (a, b) {
                (Some(a), Some(b)) => wider(a, b).map(Some),
                (a, b) => Some(a.clone().or_else(|| b.clone())),
            });
            Some((both.collect::<Option<Vec<_>>>()?, types, members))
        });
        match joined {
            Some((both, types, members)) => {
                *types = both;
                members.push(i);
            }
            None => kinds.push((found.types.clone(), vec![i])),
        }
    }
    // On a tie, the first group.
    let most = kinds.iter().enumerate().max_by_key(|(at, (_, members))| (members.len(), std::cmp::Reverse(*at)));
    let Some((_, (types, members))) = most else { return Ok((Vec::new(), vec![None; columns])) };
    let model = members.first().map(|&i| looked[i].file.name().to_owned()).unwrap_or_default();
    for (_, found) in looked.iter().enumerate().filter(|(i, _)| members.binary_search(i).is_err()) {
        let conflict = plain_names(spec).zip(types.iter().zip(&found.types)).find_map(|(name, (expected, found))| {
            let (expected, found) = (expected.as_ref()?, found.as_ref()?);
            wider(expected, found).is_none().then(|| format!("column {name:?} is {found}, expected {expected}"))
        });
        let conflict = conflict.unwrap_or_else(|| "its columns are of other types".into());
        let name = found.file.name();
        problems.add(name, Some(found.rows), Error::input(format!("{name}: {conflict} as in {model}")))?;
    }
    let (types, members) = (types.clone(), members.clone());
    let kept = looked.into_iter().enumerate().filter(|(i, _)| members.binary_search(i).is_ok());
    Ok((kept.map(|(_, found)| found).collect(), types))
}

/// Checks that the values from the path or the log of `file` fit the columns.
async fn fits(file: &VectorFile, spec: &ParquetSpec, plain: &[Field]) -> Result<()> {
    if plain_names(spec).all(|name| file.constant(name).is_none()) {
        return Ok(());
    }
    let open = fenced_async(file.name(), ParquetFile::open(file, spec)).await?;
    for field in plain {
        open.column(field.name())?.check_constant(field.data_type()).map_err(|e| e.while_doing(file.name()))?;
    }
    Ok(())
}

/// How many values a vector has: as the spec says, or as most of the vectors that are read. Files whose type says
/// otherwise are removed from `files`.
async fn width(files: &mut Vec<Looked>, spec: &ParquetSpec, problems: &mut Problems<'_>) -> Result<usize> {
    let Features::Column(column) = &spec.features else { return Ok(spec.features.columns().len()) };
    let dim = match spec.dim {
        Some(dim) => dim,
        None => voted(files, column, spec, problems).await?,
    };
    if dim == 0 || dim > MOST_VALUES {
        let path = &spec.path;
        return Err(Error::input(format!(
            "{path}: column {column:?} holds vectors of {dim} values, expected 1 to {MOST_VALUES}"
        )));
    }
    let mut odd = Vec::new();
    files.retain(|found| {
        let other = found.fixed.filter(|fixed| *fixed != dim && found.rows > 0);
        odd.extend(other.map(|fixed| (found.file.name().to_owned(), found.rows, fixed)));
        other.is_none()
    });
    for (name, rows, fixed) in odd {
        let e = format!("{name}: column {column:?} holds vectors of {fixed} values, expected {dim}");
        problems.add(&name, Some(rows), Error::input(e))?;
    }
    match files.is_empty() {
        true => Err(problems.none_left(spec)),
        false => Ok(dim),
    }
}

/// The most frequent width of the vectors that are read; on a tie, the largest.
async fn voted(files: &[Looked], column: &str, spec: &ParquetSpec, problems: &mut Problems<'_>) -> Result<usize> {
    let mut votes = Widths::new();
    let sampled = files.len().min(WIDTH_FILES);
    let rows = WIDTH_ROWS.div_ceil(sampled.max(1));
    let mut damaged = Vec::new();
    // If those files have no vectors, the others are read until one has.
    let spread = (0..sampled).map(|i| i * files.len() / sampled).collect::<Vec<_>>();
    let others = (0..files.len()).filter(|i| spread.binary_search(i).is_err());
    for (nth, i) in spread.iter().copied().chain(others).enumerate() {
        if nth >= sampled && !votes.is_empty() {
            break;
        }
        let found = &files[i];
        match found.fixed {
            Some(width) if width > 0 && found.rows > 0 => {
                *votes.entry(width).or_default() += found.rows.min(rows as u64);
            }
            Some(_) => {}
            None => {
                let name = found.file.name();
                let looking = async { ParquetFile::open(&found.file, spec).await?.widths(column, rows).await };
                match fenced_async(name, looking).await {
                    Ok((widths, unread)) => {
                        widths.into_iter().for_each(|(width, count)| *votes.entry(width).or_default() += count);
                        damaged.extend(unread.into_iter().map(|unread| (i, unread)));
                    }
                    Err(e) => problems.add(name, Some(found.rows), e)?,
                }
            }
        }
    }
    let most = votes.iter().filter(|(width, _)| **width <= MOST_VALUES).max_by_key(|(width, count)| (**count, **width));
    if let Some((width, _)) = most.or_else(|| votes.iter().next()) {
        // The scan finds the damage again, and which rows it costs.
        return Ok(*width);
    }
    damaged.sort_by_key(|(i, unread)| (*i, unread.first));
    for (i, unread) in damaged {
        problems.damaged(files[i].file.name(), unread)?;
    }
    if problems.first.is_none() {
        let first = files.first().map_or(spec.path.as_str(), |found| found.file.name());
        problems.first = Some(format!("{first}: has no vectors"));
    }
    Err(problems.none_left(spec))
}
