//! The cost of a commit and of a query when the table has many versions: `cargo bench --bench table`.
//!
//! Each version appends one row in one file. Single commits are timed around the number of versions, from the begin of
//! the run to its end; a query is opening the newest version and `SELECT count(*)`.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch};
use dacpipe::Result;
use dacpipe::store::Location;
use dacpipe::table::{CommitInfo, LabelTable, Labels, Mode, TableWriter, WriteOptions};
use datafusion::prelude::SessionContext;

/// The numbers of versions at which costs are measured.
const AT: [usize; 3] = [1, 100, 10_000];
/// Measurements; the median is printed.
const TIMES: usize = 9;

#[tokio::main]
async fn main() -> Result<()> {
    let most: usize = std::env::var("COMMITS").ok().and_then(|text| text.parse().ok()).unwrap_or(AT[2]);
    let dir = std::env::temp_dir().join(format!("dacpipe-bench-table-{}", std::process::id()));
    let place = Location::parse(&dir.to_string_lossy())?;
    println!("| versions | commit, ms | open and count, ms |\n|---|---|---|");
    let mut commits = Vec::new();
    for version in 0..most + TIMES {
        let began = Instant::now();
        append(&place, version).await?;
        commits.push(began.elapsed().as_secs_f64() * 1e3);
        let Some(&at) = AT.iter().find(|&&at| at + TIMES == version + 1) else { continue };
        let mut looks = Vec::new();
        for _ in 0..TIMES {
            let began = Instant::now();
            look(&place).await?;
            looks.push(began.elapsed().as_secs_f64() * 1e3);
        }
        println!("| {at} | {:.1} | {:.1} |", median(&commits[at..]), median(&looks));
    }
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

async fn append(place: &Location, version: usize) -> Result<()> {
    let columns: [(&str, ArrayRef); 2] = [
        ("id", Arc::new(Int64Array::from(vec![version as i64]))),
        ("cluster", Arc::new(Int32Array::from(vec![(version % 7) as i32]))),
    ];
    let batch = RecordBatch::try_from_iter(columns)?;
    let mut writer = TableWriter::begin(place, WriteOptions::new(Mode::Append, format!("run-{version}"))).await?;
    let labels = Labels { model: "a".repeat(64), labelled_at: SystemTime::now() };
    writer.sink(batch.schema(), labels)?.write(&batch).await?;
    writer.commit(CommitInfo::default()).await?;
    Ok(())
}

async fn look(place: &Location) -> Result<()> {
    let table = LabelTable::open_at(place, None).await?;
    let context = SessionContext::new();
    context.register_table("t", Arc::new(table))?;
    context.sql("SELECT count(*) FROM t").await?.collect().await?;
    Ok(())
}

fn median(values: &[f64]) -> f64 {
    let mut values = values[..values.len().min(TIMES)].to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
