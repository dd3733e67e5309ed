//! The windows of the real HAPT recordings are the official ones, in the official order.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int32Type;
use dacpipe::signal::window::{WindowSpec, Within};
use dacpipe::source::{BadRows, HaptSpec, SourceOptions, SourceSpec, open};
use datafusion::prelude::{SessionConfig, SessionContext};

/// The directory of the real recordings, if the environment names one.
fn directory() -> Option<PathBuf> {
    let directory = std::env::var_os("DACPIPE_DATA").map(|data| PathBuf::from(data).join("hapt"));
    if directory.is_none() {
        println!("skipped: DACPIPE_DATA does not name a directory with hapt/");
    }
    directory
}

/// User and activity of each window for which `condition` is true, in order.
async fn windows(context: &SessionContext, condition: &str) -> Vec<(i32, String)> {
    let query = format!("SELECT \"user\", activity FROM hapt WHERE {condition}");
    let mut rows = Vec::new();
    for batch in context.sql(&query).await.unwrap().collect().await.unwrap() {
        let users = batch.column(0).as_primitive::<Int32Type>();
        let activities = batch.column(1).as_string::<i32>();
        rows.extend((0..batch.num_rows()).map(|i| (users.value(i), activities.value(i).to_string())));
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_are_the_official_ones_in_order() {
    let Some(directory) = directory() else { return };
    let window = WindowSpec { length: 128, stride: 64, within: Within::Labels };
    let options = SourceOptions { window: Some(window), threads: 2, ..Default::default() };
    let spec = SourceSpec::Hapt(HaptSpec { path: directory.display().to_string() });
    let source = open(&spec, &options, Arc::new(BadRows::new())).await.unwrap();
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    context.register_table("hapt", source.provider).unwrap();

    let read = |path: &str| fs::read_to_string(directory.join(path)).unwrap();
    let names: Vec<String> =
        read("activity_labels.txt").lines().map(|l| l.split_whitespace().nth(1).unwrap().to_string()).collect();
    let mut total = 0;
    for (split, folder, count) in [("train", "Train", 7767), ("test", "Test", 3162)] {
        let users = read(&format!("{folder}/subject_id_{split}.txt"));
        let activities = read(&format!("{folder}/y_{split}.txt"));
        let official: Vec<(i32, String)> = users
            .split_whitespace()
            .zip(activities.split_whitespace())
            .map(|(user, activity)| (user.parse().unwrap(), names[activity.parse::<usize>().unwrap() - 1].clone()))
            .collect();
        assert_eq!(official.len(), count);
        assert!(windows(&context, &format!("split = '{split}'")).await == official, "{split} differs");
        total += count;
    }
    assert_eq!(windows(&context, "true").await.len(), total);
    assert_eq!(total, 10_929);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_window_of_a_recording_is_cut_without_labels() {
    let Some(directory) = directory() else { return };
    let window = WindowSpec { length: 128, stride: 64, within: Within::Recordings };
    let options = SourceOptions { window: Some(window), threads: 2, ..Default::default() };
    let spec = SourceSpec::Hapt(HaptSpec { path: directory.display().to_string() });
    let source = open(&spec, &options, Arc::new(BadRows::new())).await.unwrap();
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    context.register_table("hapt", source.provider).unwrap();
    let batches = context.sql("SELECT activity FROM hapt").await.unwrap().collect().await.unwrap();
    let rows: usize = batches.iter().map(|b| b.num_rows()).sum();
    let labelled: usize = batches.iter().map(|b| b.num_rows() - b.column(0).null_count()).sum();
    let mut expected = 0;
    for entry in fs::read_dir(directory.join("RawData")).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().starts_with("acc_") {
            expected += (fs::read_to_string(path).unwrap().lines().count() - 128) / 64 + 1;
        }
    }
    assert_eq!(rows, expected);
    assert!(labelled > 0 && labelled < rows);
}
