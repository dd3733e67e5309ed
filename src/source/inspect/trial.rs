//! Tries a section: opens it as a source and counts good and bad rows.

use std::sync::Arc;

use datafusion::prelude::SessionContext;
use futures::TryStreamExt;

use crate::error::{Error, Result};
use crate::signal::window::{WindowSpec, Within};
use crate::source::bad::Rejects;
use crate::source::csv::Csv;
use crate::source::location::DataFile;
use crate::source::recording::Recordings;
use crate::source::{BadRow, BadRows, CsvSpec, OnBadRow, ParquetSpec, Source, SourceOptions, of_recordings, parquet};

/// The result of a trial.
pub(super) struct Trial {
    /// Good rows, or samples.
    pub good: u64,
    /// Rows, or samples, that were set aside.
    pub bad: u64,
    /// The first bad rows, by file and line.
    pub first: Option<BadRow>,
    /// Samples a second, where there are times.
    pub rate_hz: Option<f64>,
}

/// Reads the samples of `files`, each as a row.
pub(super) async fn samples(spec: &CsvSpec, files: Vec<DataFile>) -> Result<Trial> {
    let bad = Arc::new(BadRows::new());
    let rejects = Rejects::new(OnBadRow::Quarantine, Arc::clone(&bad));
    // Windows of one sample, so that rates and gaps are checked as for longer ones.
    let window = Some(WindowSpec { length: 1, stride: 1, within: Within::Recordings });
    let options = SourceOptions { window, on_bad_row: OnBadRow::Quarantine, ..SourceOptions::default() };
    let csv = Csv::of_files(spec, files, true, rejects.clone()).await?;
    let description = csv.describe();
    let rate_hz = spec.time.as_ref().map(|_| csv.rate_hz());
    let source = of_recordings(Arc::new(csv), description, &options, rejects)?;
    let good = count(&source).await?;
    let aside = source.samples().map_or(0, |samples| samples.set_aside);
    Ok(Trial { rate_hz, ..told(good, aside, &bad) })
}

/// Reads feature vectors.
pub(super) async fn vectors(spec: &ParquetSpec) -> Result<Trial> {
    let bad = Arc::new(BadRows::new());
    let source = parquet::open(spec, Rejects::new(OnBadRow::Quarantine, Arc::clone(&bad))).await?;
    let good = count(&source).await?;
    Ok(told(good, 0, &bad))
}

fn told(good: u64, aside: u64, bad: &BadRows) -> Trial {
    let first = bad.rows().into_iter().next();
    Trial { good, bad: aside.max(bad.count()), first, rate_hz: None }
}

async fn count(source: &Source) -> Result<u64> {
    let frame = SessionContext::new().read_table(Arc::clone(&source.provider)).map_err(Error::from)?;
    let mut stream = frame.execute_stream().await.map_err(Error::from)?;
    let mut rows = 0;
    while let Some(batch) = stream.try_next().await.map_err(Error::from)? {
        rows += batch.num_rows() as u64;
    }
    Ok(rows)
}
