//! The drift beside a table: how far rows had drifted from those that a model learned from, whenever it was measured.
//! An overwrite keeps it. Of many measurements the newest are there; earlier versions of the table have the earlier ones.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray,
};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;

use super::schema::MODEL;
use crate::drift::{Finding, Judgement, Level, Measure};
use crate::error::Result;

/// About so many rows are kept: the file is written anew with each measurement.
const MOST_ROWS: usize = 1 << 15;
/// The place of the column `run`.
const RUN: usize = 11;

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("measure", DataType::Utf8, false),
        Field::new("name", DataType::Utf8, true),
        Field::new("position", DataType::Int32, true),
        Field::new("psi", DataType::Float64, false),
        Field::new("chance", DataType::Float64, true),
        Field::new("level", DataType::Utf8, true),
        Field::new("expected", DataType::Float64, true),
        Field::new("actual", DataType::Float64, true),
        Field::new("rows", DataType::Int64, false),
        Field::new("reference_rows", DataType::Int64, false),
        Field::new(MODEL, DataType::Utf8, false),
        Field::new("run", DataType::Utf8, false),
        Field::new("measured_at", time, false),
    ]))
});

/// The columns of a table's drift, a row for each [`Finding`]: `measure` (feature, clusters, cluster or distances), `name`
/// and `position` (the feature's, or the cluster's id), the index `psi`, what `chance` alone stays below, the `level`
/// (stable, watch or act), of a cluster its `expected` and `actual` share, the `rows` that were compared with
/// `reference_rows` of those that the `model` learned from, the `run`, and when that was.
pub fn drift_schema() -> SchemaRef {
    Arc::clone(&SCHEMA)
}

/// How far rows have drifted from those that a model learned from.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// The model's hash.
    pub model: String,
    /// What was found.
    pub judgement: Judgement,
}

/// The rows of measurements, of [`drift_schema`].
///
/// # Errors
/// Kind `Internal` if Arrow refuses the columns.
pub(super) fn rows(measured: &[Measured], run: &str, at: SystemTime) -> Result<RecordBatch> {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let micros = i64::try_from(since.as_micros()).unwrap_or(i64::MAX);
    let all: Vec<(&Measured, &Finding)> =
        measured.iter().flat_map(|of| of.judgement.findings.iter().map(move |finding| (of, finding))).collect();
    let numbers = |of: fn(&Finding) -> Option<f64>| Arc::new(all.iter().map(|(_, f)| of(f)).collect::<Float64Array>());
    let counts = |of: fn(&Judgement) -> u64| {
        Arc::new(Int64Array::from_iter_values(
            all.iter().map(|(m, _)| i64::try_from(of(&m.judgement)).unwrap_or(i64::MAX)),
        ))
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(all.iter().map(|(_, finding)| name(finding)))),
        Arc::new(all.iter().map(|(_, finding)| finding.name.as_deref()).collect::<StringArray>()),
        Arc::new(all.iter().map(|(_, finding)| finding.position).collect::<Int32Array>()),
        numbers(|finding| Some(finding.psi)),
        numbers(|finding| finding.chance),
        Arc::new(all.iter().map(|(_, finding)| finding.level.map(Level::name)).collect::<StringArray>()),
        numbers(|finding| finding.expected),
        numbers(|finding| finding.actual),
        counts(|judgement| judgement.rows),
        counts(|judgement| judgement.reference_rows),
        Arc::new(StringArray::from_iter_values(all.iter().map(|(of, _)| &of.model))),
        Arc::new(StringArray::from_iter_values(std::iter::repeat_n(run, all.len()))),
        Arc::new(TimestampMicrosecondArray::from(vec![micros; all.len()]).with_timezone("UTC")),
    ];
    Ok(RecordBatch::try_new(drift_schema(), columns)?)
}

/// What is measured, in the column `measure`.
fn name(finding: &Finding) -> &'static str {
    match (finding.measure, finding.level) {
        (Measure::Features, _) => "feature",
        (Measure::Clusters, Some(_)) => "clusters",
        (Measure::Clusters, None) => "cluster",
        (Measure::Distances, _) => "distances",
    }
}

/// The drift of a table that had `old`, with the `new` measurements after it. The oldest fall out, whole runs at a time.
pub(super) fn merge(old: &RecordBatch, new: &RecordBatch) -> Result<RecordBatch> {
    let room = MOST_ROWS.saturating_sub(new.num_rows());
    let runs = old.column(RUN).as_string::<i32>();
    let mut first = old.num_rows().saturating_sub(room);
    while first > 0 && first < runs.len() && runs.value(first - 1) == runs.value(first) {
        first += 1;
    }
    Ok(concat_batches(&SCHEMA, [&old.slice(first, old.num_rows() - first), new])?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drift::{Counts, DriftSpec, Reference};

    fn measured(features: usize) -> Measured {
        let values: Vec<f32> = (0..features * 40).map(|i| (i * 7 % 13) as f32).collect();
        let (clusters, distances) = (vec![3; 40], vec![0.5; 40]);
        let names: Vec<String> = (0..features).map(|i| format!("f{i}")).collect();
        let spec = DriftSpec::default();
        let reference = Reference::of(&values, features, &names, Some((&clusters, &distances)), &spec);
        let mut counts = Counts::of(&reference);
        counts.add(&reference, &values, Some((&[4; 40], &distances))).unwrap();
        Measured { model: "m".into(), judgement: reference.judge(&counts, &spec) }
    }

    #[test]
    fn findings_are_rows() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(7);
        let batch = rows(&[measured(1)], "r", at).unwrap();
        let shown = arrow::util::pretty::pretty_format_batches(&[batch]).unwrap().to_string();
        let cells = |line: usize| shown.lines().nth(line).unwrap().split('|').map(str::trim).collect::<Vec<_>>();
        assert_eq!(cells(3)[1..5], ["feature", "f0", "0", "0.0"]);
        assert_eq!(cells(4)[1..4], ["clusters", "", ""]);
        assert_eq!(cells(5)[1..4], ["cluster", "3", "3"]);
        assert_eq!(cells(5)[5..10], ["", "", "1.0", "0.0", "40"]);
        assert_eq!(cells(6)[7..14], ["0.0", "1.0", "40", "40", "m", "r", "1970-01-01T00:00:07Z"]);
        assert_eq!(cells(7)[1..4], ["distances", "", ""]);
    }

    #[test]
    fn the_oldest_runs_fall_out_whole() {
        let run = |name: &str| rows(&[measured(1000)], name, SystemTime::UNIX_EPOCH).unwrap();
        let each = run("0").num_rows();
        let mut all = run("0");
        for number in 1..40 {
            all = merge(&all, &run(&number.to_string())).unwrap();
        }
        assert_eq!(all.num_rows(), MOST_ROWS / each * each);
        let runs = all.column(RUN).as_string::<i32>();
        assert_eq!(
            (runs.value(0), runs.value(all.num_rows() - 1)),
            ((40 - MOST_ROWS / each).to_string().as_str(), "39")
        );
        // More at once than is kept: the newest are there all the same.
        let many = rows(&vec![measured(1000); 40], "many", SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(merge(&all, &many).unwrap().num_rows(), many.num_rows());
    }
}
