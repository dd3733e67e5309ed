//! The accounting of whole runs: rows read = rows labelled + rows set aside, whatever is wrong with any of them, and no
//! key is in the table twice. `samples.rs` checks the same for the samples of recordings.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Builder, Int64Array, ListBuilder, RecordBatch};
use arrow::datatypes::Int64Type;
use dacpipe::config::PipelineFile;
use dacpipe::pipeline::{Pipeline, RunOptions};
use dacpipe::report::RunReport;
use dacpipe::sql::{Options, register, session_config};
use datafusion::prelude::SessionContext;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use proptest::prelude::*;
use tempfile::TempDir;

const DIM: usize = 3;

/// What may be wrong with a row.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Damage {
    None,
    NoVector,
    Null,
    NotANumber,
    TooGreat,
    Short,
    Long,
    NoKey,
}

fn damage() -> impl Strategy<Value = Damage> {
    use Damage::*;
    let bad = prop::sample::select(vec![NoVector, Null, NotANumber, TooGreat, Short, Long, NoKey]);
    prop_oneof![6 => Just(None), 1 => bad]
}

/// Writes rows whose ids count on from `first`.
fn write(path: &Path, first: i64, rows: &[Damage], group: usize) {
    let id = |(i, damage): (usize, &Damage)| (*damage != Damage::NoKey).then_some(first + i as i64);
    let ids: Int64Array = rows.iter().enumerate().map(id).collect();
    let mut vectors = ListBuilder::new(Float64Builder::new());
    for (i, damage) in rows.iter().enumerate() {
        let value = |at: usize| ((first as usize + i) * 37 % 101 + at * 11) as f64;
        let width = match damage {
            Damage::NoVector => {
                vectors.append(false);
                continue;
            }
            Damage::Short => DIM - 1,
            Damage::Long => DIM + 2,
            _ => DIM,
        };
        for at in 0..width {
            vectors.values().append_option(match damage {
                Damage::Null if at == 1 => None,
                Damage::NotANumber if at == 2 => Some(f64::NAN),
                Damage::TooGreat if at == 0 => Some(1e300),
                _ => Some(value(at)),
            });
        }
        vectors.append(true);
    }
    let columns: [(&str, ArrayRef); 2] = [("id", Arc::new(ids)), ("v", Arc::new(vectors.finish()))];
    // Built by hand, since keys may be missing in one file and not in another.
    let fields =
        columns.iter().map(|(name, column)| arrow::datatypes::Field::new(*name, column.data_type().clone(), true));
    let schema = Arc::new(arrow::datatypes::Schema::new(fields.collect::<Vec<_>>()));
    let batch =
        RecordBatch::try_new(Arc::clone(&schema), columns.into_iter().map(|(_, column)| column).collect()).unwrap();
    let groups = WriterProperties::builder().set_max_row_group_row_count(Some(group)).build();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), schema, Some(groups)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

async fn run(dir: &Path, sink: &str) -> dacpipe::Result<RunReport> {
    let text = format!(
        "name = \"t\"\non_bad_row = \"quarantine\"\n[source]\nkind = \"parquet\"\npath = {:?}\nfeatures = \"v\"\n\
         keys = [\"id\"]\ndim = {DIM}\n[[stage]]\nkind = \"kmeans\"\nk = 1\nn_init = 1\n[sink]\npath = {:?}\n{sink}",
        dir.join("in"),
        dir.join("out"),
    );
    let plan = PipelineFile::parse("t.toml", &text, &[], &|_| None).unwrap_or_else(|e| panic!("{e}")).plan;
    Pipeline::new(plan)?.run(&RunOptions::default()).await
}

/// The ids of the table, as they are in it.
async fn ids(dir: &Path) -> Vec<i64> {
    let context = SessionContext::new_with_config(session_config());
    register(&context, Options::new().table("t", &dir.join("out").display().to_string())).await.unwrap();
    let batches = context.sql("SELECT id FROM t").await.unwrap().collect().await.unwrap();
    batches.iter().flat_map(|batch| batch["id"].as_primitive::<Int64Type>().values().to_vec()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever else is wrong with their rows.
    #[test]
    fn rows_of_damaged_row_groups_are_set_aside(
        rows in prop::collection::vec(damage(), 1..60), group in 1usize..20, spoilt in prop::collection::btree_map(0usize..60, any::<bool>(), 0..6),
    ) {
        let dir = TempDir::new().unwrap();
        fs::create_dir(dir.path().join("in")).unwrap();
        let path = dir.path().join("in/0.parquet");
        write(&path, 0, &rows, group);
        let groups = rows.len().div_ceil(group);
        let spoilt: BTreeMap<usize, bool> = spoilt.into_iter().filter(|(at, _)| *at < groups).collect();
        for (at, keys) in &spoilt {
            crate::parquet_files::spoil(&path, *at, if *keys { "id" } else { "v" });
        }
        let all = rows.iter().enumerate();
        let whole = all.filter(|(row, damage)| !spoilt.contains_key(&(row / group)) && **damage == Damage::None);
        let good: BTreeSet<i64> = whole.map(|(row, _)| row as i64).collect();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        match runtime.block_on(run(dir.path(), "")) {
            Ok(report) => {
                prop_assert_eq!(report.labelled_rows + report.quarantined_rows, rows.len() as u64);
                prop_assert_eq!(runtime.block_on(ids(dir.path())).into_iter().collect::<BTreeSet<_>>(), good);
            }
            Err(e) => prop_assert!(good.is_empty() && e.kind() == dacpipe::Kind::Input, "{:?}: {}", e.kind(), e),
        }
    }

    #[test]
    fn rows_read_are_labelled_or_set_aside(
        files in prop::collection::vec(prop::collection::vec(damage(), 1..40), 1..4), group in 1usize..30, cut in 0usize..4,
    ) {
        let dir = TempDir::new().unwrap();
        fs::create_dir(dir.path().join("in")).unwrap();
        let (mut good, mut first) = (BTreeSet::new(), 0);
        let mut rows = 0;
        for (i, file) in files.iter().enumerate() {
            let path = dir.path().join(format!("in/{i}.parquet"));
            write(&path, first, file, group);
            // A truncated file is set aside as a whole.
            if i == cut {
                let bytes = fs::read(&path).unwrap();
                fs::write(&path, &bytes[..bytes.len() - 5]).unwrap();
                rows += 1;
            } else {
                rows += file.len();
                good.extend((first..).zip(file).filter(|(_, damage)| **damage == Damage::None).map(|(id, _)| id));
            }
            first += file.len() as i64;
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let report = match runtime.block_on(run(dir.path(), "")) {
            Ok(report) => report,
            Err(e) => {
                prop_assert!(good.is_empty() && e.kind() == dacpipe::Kind::Input, "{:?}: {}", e.kind(), e);
                return Ok(());
            }
        };
        prop_assert_eq!(report.labelled_rows + report.quarantined_rows, rows as u64);
        let found = runtime.block_on(ids(dir.path()));
        prop_assert_eq!(found.len(), good.len(), "a row is lost or there twice");
        prop_assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), good.clone());
        // The same rows again: the table already has them.
        let again = runtime.block_on(run(dir.path(), "mode = \"append\"\n")).unwrap();
        prop_assert_eq!((again.labelled_rows, again.skipped_rows), (0, good.len() as u64));
        prop_assert_eq!(runtime.block_on(ids(dir.path())).len(), good.len());
    }
}
