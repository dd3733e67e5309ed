//! What runs set aside is a table of its own, which agrees with the commits of the labelled table.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int64Type};
use dacpipe::config::PipelineFile;
use dacpipe::pipeline::{Pipeline, RunOptions};
use dacpipe::source::bad::Rejects;
use dacpipe::source::{BadRows, MOST_TEXT, OnBadRow};
use dacpipe::store::Location;
use dacpipe::table::{CommitInfo, LabelTable, Marks, Mode, TableWriter, WriteOptions};
use datafusion::prelude::SessionContext;

use crate::table_support::{labels, rows};

fn bad_rows(lines: &[u64]) -> RecordBatch {
    let bad = Arc::new(BadRows::new());
    let rejects = Rejects::new(OnBadRow::Quarantine, Arc::clone(&bad));
    lines.iter().for_each(|line| rejects.reject("a.csv", *line, "text").unwrap());
    bad.to_batch().unwrap()
}

async fn commit(place: &Location, run: &str, from: i64, info: CommitInfo) {
    let mut writer = TableWriter::begin(place, WriteOptions::new(Mode::Append, run)).await.unwrap();
    let batch = rows(from, from + 2);
    writer.sink(batch.schema(), labels("m")).unwrap().write(&batch).await.unwrap();
    writer.commit(info).await.unwrap();
}

/// What SQL shows: run, line, whether its run is in the table, and the run that replayed it.
async fn shown(place: &Location) -> Vec<String> {
    let ctx = SessionContext::new();
    let options = dacpipe::sql::Options::new().table("t", &place.to_string());
    dacpipe::sql::register(&ctx, options).await.unwrap();
    let query = "SELECT run || ' ' || line || ' ' || in_table || ' ' || coalesce(replayed_by, '-') AS said
                 FROM t_quarantine ORDER BY 1";
    texts(&ctx, query).await
}

async fn texts(ctx: &SessionContext, query: &str) -> Vec<String> {
    let mut found = Vec::new();
    for batch in ctx.sql(query).await.unwrap().collect().await.unwrap() {
        let text = arrow::compute::cast(batch.column(0), &DataType::Utf8).unwrap();
        found.extend(text.as_string::<i32>().iter().map(|text| text.unwrap_or("null").to_owned()));
    }
    found
}

/// A writer that dies between its commit and that of the quarantine: readers see what it set aside all the same, and the
/// next writer brings it there, once.
#[tokio::test]
async fn what_a_dead_writer_set_aside_is_seen_and_comes_there_once() {
    let dir = tempfile::tempdir().unwrap();
    let place = Location::parse(&dir.path().join("t").display().to_string()).unwrap();
    let log = dir.path().join("t/quarantine/_delta_log");
    let aside = |lines: &[u64]| CommitInfo { quarantine: Some(bad_rows(lines)), ..CommitInfo::default() };
    let entries = || fs::read_dir(&log).map_or(0, |entries| entries.count());
    commit(&place, "r1", 0, aside(&[3, 9])).await;
    assert_eq!(entries(), 1);
    let first = ["r1 3 true -", "r1 9 true -"];
    assert_eq!(shown(&place).await, first);
    // As if the process had been killed before that entry was written.
    fs::remove_dir_all(&log).unwrap();
    assert_eq!(shown(&place).await, first);
    commit(&place, "r2", 10, CommitInfo::default()).await;
    assert_eq!((entries(), shown(&place).await), (1, first.map(String::from).to_vec()));
    // The same where there is a quarantine already, and with rows that were replayed.
    commit(&place, "r3", 20, aside(&[4])).await;
    let mut replayed = Marks::default();
    replayed.add("r1", "a.csv", 9);
    replayed.add("r3", "a.csv", 4);
    commit(&place, "r4", 30, CommitInfo { replayed, ..CommitInfo::default() }).await;
    let all = ["r1 3 true -", "r1 9 true r4", "r3 4 true r4"];
    assert_eq!((entries(), shown(&place).await), (3, all.map(String::from).to_vec()));
    for version in [2, 1] {
        fs::remove_file(log.join(format!("{version:020}.json"))).unwrap();
        assert_eq!(shown(&place).await, all);
    }
    commit(&place, "r5", 40, CommitInfo::default()).await;
    assert_eq!((entries(), shown(&place).await), (3, all.map(String::from).to_vec()));
    let there = LabelTable::open_at(&place.join("quarantine").unwrap(), None).await.unwrap();
    let ctx = SessionContext::new();
    ctx.register_table("q", Arc::new(there)).unwrap();
    let said = texts(&ctx, "SELECT version || ' ' || line || coalesce(replayed_by, '') FROM q ORDER BY 1").await;
    assert_eq!(said, ["0 3", "0 9r4", "2 4r4"]);
    // A restored version has what its runs set aside.
    dacpipe::table::restore(&place, 1).await.unwrap();
    assert_eq!(shown(&place).await, ["r1 3 true -", "r1 9 true r4", "r3 4 false r4"]);
}

/// Files of writers that died before their commit are removed with their other files.
#[tokio::test]
async fn a_writer_without_a_commit_leaves_nothing_in_the_quarantine() {
    let dir = tempfile::tempdir().unwrap();
    let place = Location::parse(&dir.path().join("t").display().to_string()).unwrap();
    commit(&place, "r1", 0, CommitInfo::default()).await;
    // Two overwrites at a time: the second one fails at its commit, when its files are there.
    let begin = async |run: &str| {
        let mut writer = TableWriter::begin(&place, WriteOptions::new(Mode::Overwrite, run)).await.unwrap();
        let batch = rows(0, 2);
        writer.sink(batch.schema(), labels("m")).unwrap().write(&batch).await.unwrap();
        writer
    };
    let (first, second) = (begin("r2").await, begin("r3").await);
    let aside = || CommitInfo { quarantine: Some(bad_rows(&[5])), ..CommitInfo::default() };
    first.commit(aside()).await.unwrap();
    assert_eq!(second.commit(aside()).await.unwrap_err().kind(), dacpipe::Kind::Table);
    assert_eq!(shown(&place).await, ["r2 5 true -"]);
    let data = dir.path().join("t/quarantine/data");
    let left: Vec<_> = fs::read_dir(data).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["r2"]);
}

fn pipeline(dir: &Path, more: &str) -> Pipeline {
    let text = format!(
        "name = \"t\"\non_bad_row = \"quarantine\"\n[source]\nkind = \"csv\"\npath = {:?}\nchannels = [\"x\", \"y\"]\n\
         {more}\n[[stage]]\nkind = \"kmeans\"\nk = 2\n[sink]\npath = {:?}\n",
        dir.join("in").display().to_string(),
        dir.join("t").display().to_string()
    );
    Pipeline::new(PipelineFile::parse("t.toml", &text, &[], &|_| None).unwrap().plan).unwrap()
}

/// Each entry has the row as it is in its file, where it begins there, and how long it is.
#[tokio::test]
async fn entries_have_the_text_and_the_place_of_the_row() {
    let long = format!("7,{}", "ü".repeat(2000));
    for (end, mark) in [("\n", ""), ("\r\n", "\u{feff}"), ("\r", "")] {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("in")).unwrap();
        let bad = ["1,\u{1b}[31mred", "2", "\"open,3", long.as_str(), "a\0b,1"];
        let mut text = format!("{mark}x,y{end}");
        let mut expected = Vec::new();
        for (at, row) in bad.iter().enumerate() {
            text += &format!("{at},1{end}{at},2{end}");
            expected.push((text.len() as i64, row.len() as i64, row.chars().take(1000).collect::<String>()));
            text += &format!("{row}{end}");
        }
        text += &format!("9,9{end}");
        fs::write(dir.path().join("in/a.csv"), &text).unwrap();
        let report = pipeline(dir.path(), "").run(&RunOptions::default()).await.unwrap();
        assert_eq!(report.quarantined_rows, bad.len() as u64, "{end:?}");
        let ctx = SessionContext::new();
        let options = dacpipe::sql::Options::new().table("t", dir.path().join("t").to_str().unwrap());
        dacpipe::sql::register(&ctx, options).await.unwrap();
        let query = "SELECT \"offset\", length, text, stage, kind, line FROM t_quarantine ORDER BY line";
        let found = ctx.sql(query).await.unwrap().collect().await.unwrap();
        let found = arrow::compute::concat_batches(&found[0].schema(), &found).unwrap();
        for (row, (offset, length, begins)) in expected.iter().enumerate() {
            let number = |column: usize| found.column(column).as_primitive::<Int64Type>().value(row);
            let text = |column: usize| {
                let text = arrow::compute::cast(found.column(column), &DataType::Utf8).unwrap();
                text.as_string::<i32>().value(row).to_owned()
            };
            // Behind a quote that nobody closes, lines are read again, without their CR.
            let lost = found.column(0).is_null(row) && end == "\r\n" && row > 2;
            assert!(lost || number(0) == *offset, "{end:?} {begins:?}");
            assert_eq!(number(1), *length, "{end:?} {begins:?}");
            let kept = text(2);
            assert!(kept.len() <= MOST_TEXT && kept.chars().take(1000).zip(begins.chars()).all(|(a, b)| a == b));
            assert!(kept.len() as i64 == *length || kept.len() + 4 > MOST_TEXT, "{kept}");
            assert_eq!((text(3).as_str(), text(4).as_str(), number(5)), ("source", "row", 3 * row as i64 + 4));
        }
    }
}
