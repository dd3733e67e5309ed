//! All integration tests in one program: each file here would otherwise link DataFusion again.

mod allocations;
mod cli;
mod config;
mod examples;
mod features_hapt;
mod golden;
mod kmeans;
mod layering;
mod metrics;
mod oracle;
mod pipeline;
mod readme;
mod reconstruct;
mod report;
mod schemas;
mod seam;
mod simulate;
mod small_run;
mod sources;
mod sql;
mod stages_compliance;
mod table;
mod table_crash;
mod table_support;
mod vectors;
mod windows_hapt;
