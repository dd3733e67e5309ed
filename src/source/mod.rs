//! Where rows come from: sensor recordings cut into windows, or feature vectors, as DataFusion tables.
//!
//! [`open`] checks a source and gives a [`Source`]: a [`TableProvider`] whose scans yield key columns, the split, the
//! label and a column `features` of vectors, in an order that depends only on the data. Scans read on blocking tasks
//! behind bounded channels, hold at most one recording per thread, and stop when their stream is dropped.
//!
//! A missing value is a bad row, and bad rows are never dropped silently: see [`OnBadRow`].

use std::sync::Arc;

use datafusion::catalog::TableProvider;

use crate::error::{Error, Result};
use crate::origin::Fallen;
use crate::signal::features::{FeatureExtractor, FeatureSet};
use crate::signal::window::{WindowLabel, WindowSpec, Within};
use crate::terminal::shown_name;

mod again;
pub mod bad;
mod clock;
pub mod csv;
pub mod fence;
pub mod filter;
pub mod follow;
pub mod hapt;
pub mod hive;
pub mod inspect;
pub mod keep;
pub mod location;
mod overlap;
pub mod parquet;
pub mod part;
pub mod places;
pub(crate) mod plain;
pub mod recording;
pub mod samples;
mod saved;
mod span;
pub mod times;
pub mod windows;

mod text;

pub use again::{Again, Then, changed, open_again};
pub use bad::{BadRow, BadRows, Fault, MOST_TEXT, Missing, OnBadRow, Raw, RefusedBy, Rejects};
pub use clock::TimeUnit;
pub(crate) use clock::check_format;
pub use csv::{
    AcrossFiles, CsvSpec, Delimiter, Dialect, Disorder, Encoding, Fill, Jitter, Repeated, SameTime, SampleRules,
    TextFormat, TimeColumn,
};
pub use hapt::HaptSpec;
pub use keep::{Aggregate, Keep};
pub use location::LeftOut;
pub use overlap::overlap;
pub use parquet::{Features, ParquetSpec};
pub use span::Span;

use recording::Recordings;
use samples::Samples;
use windows::WindowTable;

/// The name of the column that says which part of the data a row belongs to.
pub const SPLIT: &str = "split";

/// Where rows come from.
#[expect(clippy::large_enum_variant, reason = "a pipeline has one source")]
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum SourceSpec {
    /// A directory of smartphone recordings in the layout of the HAPT data set.
    Hapt(HaptSpec),
    /// Sensor recordings in CSV files.
    Csv(CsvSpec),
    /// Feature vectors in Parquet files.
    Parquet(ParquetSpec),
}

impl SourceSpec {
    /// The path or URL that it reads, as it was given.
    pub fn path(&self) -> &str {
        match self {
            Self::Hapt(spec) => &spec.path,
            Self::Csv(spec) => &spec.path,
            Self::Parquet(spec) => &spec.path,
        }
    }

    /// The same source at another path or URL.
    pub fn at(mut self, place: &str) -> Self {
        let path = match &mut self {
            Self::Hapt(spec) => &mut spec.path,
            Self::Csv(spec) => &mut spec.path,
            Self::Parquet(spec) => &mut spec.path,
        };
        place.clone_into(path);
        self
    }
}

/// What a pipeline asks of its source.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceOptions {
    /// How recordings are cut into windows; without it each sample is a row. Not for feature vectors.
    pub window: Option<WindowSpec>,
    /// Which label a window gets. Not for feature vectors.
    pub window_label: WindowLabel,
    /// Which features are computed from a window; without it, its samples are the features. Not for feature vectors.
    pub features: Option<FeatureSet>,
    /// What happens to rows that cannot be used.
    pub on_bad_row: OnBadRow,
    /// Whether a missing value of a feature vector is NaN, which the stages replace, rather than a fault of its row.
    pub missing: bool,
    /// How many recordings are worked on at a time.
    pub threads: usize,
}

impl Default for SourceOptions {
    fn default() -> Self {
        Self {
            window: None,
            window_label: WindowLabel::default(),
            features: None,
            on_bad_row: OnBadRow::Fail,
            missing: false,
            threads: 1,
        }
    }
}

/// An open source.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its rows: keys, split, label, `start` (of windows), what is carried along and `features`.
    pub provider: Arc<dyn TableProvider>,
    /// The key columns; with `start`, where there is one, they identify a row.
    pub keys: Vec<String>,
    /// The label column, if there is one.
    pub label: Option<String>,
    /// The split column, if there is one.
    pub split: Option<String>,
    /// The further columns for the table, which do not identify a row: columns that are kept, the times of windows, the
    /// share of a window's label.
    pub carried: Vec<String>,
    /// The names of the values of a feature vector.
    pub feature_names: Vec<String>,
    /// Values in a feature vector.
    pub dim: usize,
    /// A description in one line.
    pub description: String,
    /// What is not read of the directory that it is in.
    pub left_out: LeftOut,
    /// The features of which different values became the same number as they were read.
    pub rounded: Vec<Fallen>,
    /// The same table again, if it cuts windows.
    windows: Option<WindowTable>,
    rejects: Rejects,
}

impl Source {
    /// Why a scan that ran to its end gave no row. `None` if the source does not know, as for a filter that no row
    /// passes.
    pub fn why_no_rows(&self) -> Option<String> {
        let short = self.windows.as_ref().and_then(WindowTable::too_short);
        let samples = self.samples().filter(|samples| samples.read > 0).map(|samples| format!("samples: {samples}"));
        let bad = self.rejects.first().map(|first| format!("the first row set aside is {first}"));
        let why: Vec<String> = short.into_iter().chain(samples).chain(bad).collect();
        (!why.is_empty()).then(|| why.join("; "))
    }

    /// What became of the samples of the last scan that ran to its end; `None` before the first one, and for feature
    /// vectors.
    pub fn samples(&self) -> Option<Samples> {
        self.windows.as_ref().and_then(WindowTable::samples)
    }

    /// The files read so far that have something after their compressed data, which was not read.
    pub fn left_alone(&self) -> Vec<String> {
        self.windows.as_ref().map(WindowTable::left_alone).unwrap_or_default()
    }

    /// Samples per second of its recordings, as given or as their times show; `None` for feature vectors.
    pub fn rate_hz(&self) -> Option<f64> {
        self.windows.as_ref().map(WindowTable::rate_hz)
    }
}

/// Opens a source: finds its files, and reads as much of them as the schema needs. Bad rows go to `bad` or are errors,
/// as `options.on_bad_row` says.
///
/// # Errors
/// Kind `Input` if files are missing, malformed, or lack a column that `spec` names; `Config` if `options` ask for
/// what the source does not have; `Io` if a disk, network or object store fails.
///
/// ```
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// use dacpipe::signal::window::{WindowSpec, Within};
/// use dacpipe::source::{BadRows, CsvSpec, SourceOptions, SourceSpec, open};
/// use datafusion::prelude::SessionContext;
///
/// let dir = tempfile::tempdir()?;
/// let path = dir.path().join("walk.csv");
/// std::fs::write(&path, "x,activity\n1,walk\n2,walk\n3,walk\n4,walk\n5,\n")?;
/// let mut csv = CsvSpec::new(path.display().to_string(), &["x"]);
/// csv.label = Some("activity".into());
/// let window = Some(WindowSpec { length: 2, stride: 1, within: Within::Labels });
/// let options = SourceOptions { window, ..Default::default() };
/// let source = open(&SourceSpec::Csv(csv), &options, BadRows::new().into()).await?;
/// assert_eq!(source.feature_names, ["x-0", "x-1"]);
///
/// let context = SessionContext::new();
/// context.register_table("walk", source.provider)?;
/// let windows = context.sql("SELECT start, features FROM walk").await?.collect().await?;
/// assert_eq!(windows.iter().map(|batch| batch.num_rows()).sum::<usize>(), 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub async fn open(spec: &SourceSpec, options: &SourceOptions, bad: Arc<BadRows>) -> Result<Source> {
    let rejects = Rejects::new(options.on_bad_row, bad).with_missing(options.missing);
    match spec {
        SourceSpec::Hapt(spec) => {
            let labels_needed = options.window.is_some_and(|w| w.within == Within::Labels);
            let recordings = hapt::Hapt::open(spec, labels_needed, rejects.clone()).await?;
            let description = recordings.describe();
            of_recordings(Arc::new(recordings), description, options, rejects)
        }
        SourceSpec::Csv(spec) => {
            let whole = options.window.is_some();
            if spec.label.is_none() && options.window.is_some_and(|w| w.within == Within::Labels) {
                return Err(Error::config(
                    "windows within labels need a label column; name one in `label`, or cut within recordings",
                ));
            }
            let recordings = csv::Csv::open(spec, whole, rejects.clone()).await?;
            let description = recordings.describe();
            of_recordings(Arc::new(recordings), description, options, rejects)
        }
        SourceSpec::Parquet(spec) => {
            if options.window.is_some() || options.features.is_some() {
                return Err(Error::config(
                    "a parquet source holds feature vectors already: remove the window and features stages, or read \
                     sensor recordings with a csv or hapt source",
                ));
            }
            parquet::open(spec, rejects).await
        }
    }
}

/// A source that cuts windows from `recordings`.
///
/// # Errors
/// Kind `Config` if windows or features cannot be made of these recordings, `Input` if two columns share a name.
fn of_recordings(
    recordings: Arc<dyn Recordings>,
    description: String,
    options: &SourceOptions,
    rejects: Rejects,
) -> Result<Source> {
    let window = options.window.unwrap_or(WindowSpec { length: 1, stride: 1, within: Within::Recordings });
    let set = options.features.clone().unwrap_or(FeatureSet::Samples);
    let extractor = Arc::new(FeatureExtractor::new(&set, recordings.channels(), recordings.rate_hz(), &window)?);
    let names: Vec<String> = recordings.constants().fields().iter().map(|f| f.name().clone()).collect();
    let split = recordings.split().map(str::to_string);
    let keys = names.into_iter().filter(|n| Some(n) != split.as_ref()).collect();
    let label = recordings.label().map(str::to_string);
    let (feature_names, dim) = (extractor.names().to_vec(), extractor.dim());
    let left_out = recordings.left_out();
    let table = WindowTable::new(recordings, window, options.window_label, extractor, options.threads, rejects.clone());
    check_names(&table.schema())?;
    let carried = table.carried();
    let provider = Arc::new(table.clone());
    let description = shown_name(&description);
    let windows = Some(table);
    Ok(Source {
        provider,
        keys,
        label,
        split,
        carried,
        feature_names,
        dim,
        description,
        left_out,
        rounded: Vec::new(),
        windows,
        rejects,
    })
}

/// Checks that no two columns share a name.
fn check_names(schema: &arrow::datatypes::Schema) -> Result<()> {
    let mut seen = std::collections::BTreeSet::new();
    match schema.fields().iter().find(|f| !seen.insert(f.name())) {
        Some(field) => Err(Error::input(format!(
            "two columns of the source would be named {:?}; `start`, `features` and the times of windows are made by the \
             source, and a key, the label, the split and what is kept are each a column of their own",
            field.name()
        ))),
        None => Ok(()),
    }
}

/// The error for a column `name` that `file` does not have; suggests the nearest name of `there`.
fn no_column<'a>(file: &str, name: &str, there: impl Iterator<Item = &'a str>) -> Error {
    let there: Vec<&str> = there.collect();
    let plain = |c: &str| !c.chars().any(char::is_control) && c.len() <= 60;
    let likeness = |c: &&&str| (strsim::jaro_winkler(c, name) * 1e6) as u64;
    let near = there.iter().filter(|c| likeness(c) > 800_000).max_by_key(likeness);
    let hint = near
        .map(|c| match plain(c) {
            true => format!("; did you mean \"{c}\"?"),
            false => format!("; did you mean {}?", bad::shown(c.as_bytes())),
        })
        .unwrap_or_default();
    // A damaged header may have any number of names.
    const MOST: usize = 32;
    let listed = |c: &&str| {
        if plain(c) { c.to_string() } else { bad::shown(c.as_bytes()) }
    };
    let mut columns: Vec<String> = there.iter().take(MOST).map(listed).collect();
    columns.extend(there.len().checked_sub(MOST + 1).map(|more| format!("and {} more", more + 1)));
    Error::input(format!("{file}: no column {name:?}{hint} (columns: {})", columns.join(", ")))
}
