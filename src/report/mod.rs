//! The outputs of a run beside its table: progress on stderr, a summary on stdout, `run.json`, and a report as an HTML
//! page.
//!
//! The page (`dacpipe report`, or `report = true` in the pipeline file) is made in three steps: [`gather()`] reads a
//! table into [`Findings`], plain values; [`page`] lays them out, with the figures of [`draw`]; and [`write()`] writes
//! the files. Data reach the page only as escaped text, see `markup`.

pub mod draw;
pub mod findings;
pub mod gather;
mod markup;
pub mod page;
mod plane;
pub mod progress;
pub mod run;
pub mod summary;
pub mod write;

pub use findings::Findings;
pub use gather::{USUAL_LABELS, gather};
pub use progress::Progress;
pub use run::{FELL_TOGETHER, FellTogether, Follows, MATCHED, RunReport, Scores, StageReport, VectorsReport};
pub use write::{Written, page_of, write};
