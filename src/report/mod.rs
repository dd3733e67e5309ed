//! What a run tells people and programs: progress on stderr, a summary on stdout, and `run.json`.

pub mod progress;
pub mod run;
pub mod summary;

pub use progress::Progress;
pub use run::{RunReport, Scores, StageReport, VectorsReport};
