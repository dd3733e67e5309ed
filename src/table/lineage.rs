//! The lineage beside a table: what became of each of its clusters, from the first run on. An overwrite keeps it, and so
//! does a restore, so that no id is given twice.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use arrow::array::{ArrayRef, AsArray, Float64Array, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Int32Type, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;

use super::schema::MODEL;
use crate::error::Result;
use crate::identity::{Change, What};

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("event", DataType::Utf8, false),
        Field::new("cluster", DataType::Int32, false),
        Field::new("other", DataType::Int32, true),
        Field::new("rows", DataType::Int64, true),
        Field::new("share", DataType::Float64, true),
        Field::new("moved_by", DataType::Float64, true),
        Field::new(MODEL, DataType::Utf8, false),
        Field::new("run", DataType::Utf8, false),
        Field::new("happened_at", time, false),
    ]))
});

/// The columns of a table's lineage, a row for each [`Change`]: `event` (born, moved, split, merged or died), the
/// `cluster`, the `other` that it split from or merged into, `rows`, `share` and distance (`moved_by`) as a [`Change`] has them, the
/// `model` that made it so, its `run`, and when that was.
pub fn lineage_schema() -> SchemaRef {
    Arc::clone(&SCHEMA)
}

/// What a commit does to a table's lineage.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Lineage {
    /// It stays as it is.
    #[default]
    Keep,
    /// These changes follow the earlier ones. A table that has clusters and no lineage, as an older dacpipe wrote it, gets
    /// the births of those first.
    Add(Vec<Change>),
    /// It ends: clusters are numbered from 0 again.
    Forget,
}

/// The ids that a table has given to clusters so far, and the model that gave the last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// The hash of the model of the newest run; `None` where there is no table, or none that dacpipe wrote.
    pub model: Option<String>,
    /// The ids of the clusters that live.
    pub newest: BTreeSet<i32>,
    /// The hashes of all models that gave ids.
    pub models: BTreeSet<String>,
    /// All ids, of living clusters and of dead ones.
    pub ids: BTreeSet<i32>,
}

impl History {
    /// The first id above all that were given.
    pub fn next_id(&self) -> i32 {
        self.ids.last().map_or(0, |id| id.saturating_add(1).max(0))
    }

    /// What rows of [`lineage_schema`] say.
    pub(super) fn of_lineage(rows: &RecordBatch) -> Self {
        let mut history = Self::default();
        let (events, ids) = (rows.column(0).as_string::<i32>(), rows.column(1).as_primitive::<Int32Type>());
        for (event, &id) in events.iter().flatten().zip(ids.values()) {
            history.ids.insert(id);
            if event == What::Born.name() {
                history.newest.insert(id);
            } else if event == What::Died.name() {
                history.newest.remove(&id);
            }
        }
        history.models.extend(rows.column(6).as_string::<i32>().iter().flatten().map(str::to_owned));
        history
    }

    /// What rows of [`clusters_schema`](super::clusters_schema) say, of which `newest` is the newest model.
    pub(super) fn of_clusters(rows: &RecordBatch, newest: &str) -> Self {
        let mut history = Self::default();
        let (ids, models) = (rows.column(0).as_primitive::<Int32Type>(), rows.column(4).as_string::<i32>());
        for (&id, model) in ids.values().iter().zip(models.iter().flatten()) {
            history.ids.insert(id);
            history.models.insert(model.to_owned());
            if model == newest {
                history.newest.insert(id);
            }
        }
        history
    }
}

/// Where and when changes happened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Happened<'a> {
    /// The hash of the model that made them.
    pub model: &'a str,
    /// Its run.
    pub run: &'a str,
    /// When.
    pub at: SystemTime,
}

/// The rows of changes, of [`lineage_schema`].
///
/// # Errors
/// Kind `Internal` if Arrow refuses the columns.
pub(super) fn rows(changes: &[Change], happened: Happened<'_>) -> Result<RecordBatch> {
    let since = happened.at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let micros = i64::try_from(since.as_micros()).unwrap_or(i64::MAX);
    let text = |text: &str| Arc::new(StringArray::from_iter_values(std::iter::repeat_n(text, changes.len())));
    let numbers = |of: fn(&Change) -> Option<f64>| Arc::new(changes.iter().map(of).collect::<Float64Array>());
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(changes.iter().map(|change| change.what.name()))),
        Arc::new(Int32Array::from_iter_values(changes.iter().map(|change| change.cluster))),
        Arc::new(changes.iter().map(|change| change.other).collect::<Int32Array>()),
        Arc::new(changes.iter().map(|change| change.rows.map(|rows| rows as i64)).collect::<Int64Array>()),
        numbers(|change| change.share),
        numbers(|change| change.distance),
        text(happened.model),
        text(happened.run),
        Arc::new(TimestampMicrosecondArray::from(vec![micros; changes.len()]).with_timezone("UTC")),
    ];
    Ok(RecordBatch::try_new(lineage_schema(), columns)?)
}

/// The births of the clusters that a table of an older dacpipe has, of [`clusters_schema`](super::clusters_schema): each
/// id once, by the first model that has it.
pub(super) fn births(clusters: &RecordBatch, run: &str, at: SystemTime) -> Result<Vec<RecordBatch>> {
    let mut seen = BTreeSet::new();
    let (ids, models) = (clusters.column(0).as_primitive::<Int32Type>(), clusters.column(4).as_string::<i32>());
    let mut of_models: Vec<(&str, Vec<Change>)> = Vec::new();
    for (id, model) in ids.values().iter().zip(models.iter().flatten()).filter(|(id, _)| seen.insert(**id)) {
        match of_models.last_mut() {
            Some((last, changes)) if *last == model => changes.push(Change::born(*id)),
            _ => of_models.push((model, vec![Change::born(*id)])),
        }
    }
    of_models.into_iter().map(|(model, changes)| rows(&changes, Happened { model, run, at })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_id_is_above_all_that_were_given() {
        assert_eq!(History::default().next_id(), 0);
        let changes = [Change::born(4), Change::born(9), Change::died(9), Change::moved(4, 0.5)];
        let happened = Happened { model: "m", run: "r", at: SystemTime::UNIX_EPOCH };
        let mut history = History::of_lineage(&rows(&changes, happened).unwrap());
        assert_eq!((history.next_id(), &history.newest, history.models.len()), (10, &[4].into(), 1));
        history.ids.insert(i32::MAX);
        assert_eq!(history.next_id(), i32::MAX, "of which none is left");
        let damaged = History { ids: [-7].into(), ..History::default() };
        assert_eq!(damaged.next_id(), 0);
    }

    #[test]
    fn changes_are_rows() {
        let change = Change { rows: Some(3), share: Some(0.75), ..Change::moved(2, 1.5) };
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(7);
        let batch = rows(&[change, Change::died(1)], Happened { model: "m", run: "r", at }).unwrap();
        let shown = arrow::util::pretty::pretty_format_batches(&[batch]).unwrap().to_string();
        let cells = |line: usize| shown.lines().nth(line).unwrap().split('|').map(str::trim).collect::<Vec<_>>();
        assert_eq!(cells(3)[1..10], ["moved", "2", "", "3", "0.75", "1.5", "m", "r", "1970-01-01T00:00:07Z"]);
        assert_eq!(cells(4)[1..10], ["died", "1", "", "", "", "", "m", "r", "1970-01-01T00:00:07Z"]);
    }
}
