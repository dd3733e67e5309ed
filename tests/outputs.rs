//! docs/outputs.md describes what a run writes: this test runs its pipeline, and compares every table and key that it
//! lists with the result.

use std::collections::BTreeSet;
use std::path::Path;

use dacpipe::config::PipelineFile;
use dacpipe::pipeline::{Pipeline, RunOptions};
use dacpipe::source::samples::Unused;
use dacpipe::sql::{self, Options};
use dacpipe::table::LabelTable;
use datafusion::arrow::datatypes::Schema;
use datafusion::prelude::SessionContext;

const PAGE: &str = include_str!("../docs/outputs.md");

/// The cells of the table under a heading, without the line of dashes; the first row names the columns.
fn cells(heading: &str) -> Vec<Vec<String>> {
    let (_, section) = PAGE.split_once(&format!("## {heading}\n")).unwrap_or_else(|| panic!("no heading {heading:?}"));
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with('|') && !line.starts_with("|---"));
    let cell = |cell: &str| cell.trim().trim_matches('`').to_string();
    rows.map(|row| row.trim_matches('|').split('|').map(cell).collect()).collect()
}

/// Names, types and nullability under a heading.
fn listed(heading: &str) -> Vec<[String; 3]> {
    let rows = cells(heading);
    assert_eq!(rows[0][..3], ["column", "type", "null"], "{heading}");
    rows[1..].iter().map(|row| [row[0].clone(), row[1].clone(), row[2].clone()]).collect()
}

fn written(schema: &Schema) -> Vec<[String; 3]> {
    let null = |nullable: bool| if nullable { "yes" } else { "no" };
    let field = schema.fields().iter();
    field.map(|f| [f.name().clone(), f.data_type().to_string(), null(f.is_nullable()).to_string()]).collect()
}

/// Two machines, a bad line.
fn recording() -> String {
    let mut text = String::from("machine,time,x,y,state,part,operator,load,valve\n");
    for (machine, part) in [("a", "train"), ("b", "test")] {
        for i in 0..40 {
            let x = if machine == "a" && i == 21 { "none".into() } else { format!("{}", i % 7) };
            let state = if i % 8 < 3 { "on" } else { "off" };
            text += &format!("{machine},{},{x},{},{state},{part},o,{i},open\n", 1_700_000_000 + i, i % 5);
        }
    }
    text
}

#[tokio::test]
async fn the_page_of_outputs_says_what_a_run_writes() {
    let dir = tempfile::tempdir().unwrap();
    let (input, out) = (dir.path().join("pump.csv"), dir.path().join("out"));
    std::fs::write(&input, recording()).unwrap();
    let pipeline = PAGE.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let place = |key: &str, path: &Path| format!("{key}={:?}", path.display().to_string());
    let sets = [place("source.path", &input), place("sink.path", &out)];
    let loaded = PipelineFile::parse("outputs.md", pipeline, &sets, &|_| None).unwrap_or_else(|e| panic!("{e}"));
    let report = Pipeline::new(loaded.plan).unwrap().run(&RunOptions::default()).await.unwrap();
    assert!(report.quarantined_rows == 1 && report.labelled_rows > 0);

    let ctx = SessionContext::new_with_config(sql::session_config());
    sql::register(&ctx, Options::new().table("pump", out.to_str().unwrap())).await.unwrap();
    let schema = async |query: &str| ctx.sql(query).await.unwrap().schema().as_arrow().clone();
    for (heading, table) in [
        ("The labelled table", "pump"),
        ("The clusters", "pump_clusters"),
        ("What became of the clusters", "pump_lineage"),
        ("The features of the clusters", "cluster_profile('pump')"),
    ] {
        assert_eq!(listed(heading), written(&schema(&format!("SELECT * FROM {table}")).await), "{table}");
    }
    // For a view, a query cannot always know that nothing is null.
    let typed = |columns: Vec<[String; 3]>| columns.into_iter().map(|[name, kind, _]| [name, kind]).collect::<Vec<_>>();
    for (heading, view) in [("The labelled table", "pump_latest"), ("What was set aside", "pump_quarantine")] {
        assert_eq!(typed(listed(heading)), typed(written(&schema(&format!("SELECT * FROM {view}")).await)), "{view}");
    }
    let set_aside = LabelTable::open(out.join("quarantine").to_str().unwrap(), None).await.unwrap();
    let columns = written(&set_aside.snapshot().schema);
    assert_eq!(listed("What was set aside")[..columns.len()], columns);

    let run = std::fs::read_to_string(out.join("run.json")).unwrap();
    let run: serde_json::Value = serde_json::from_str(&run).unwrap();
    let keys: BTreeSet<&str> = run.as_object().unwrap().keys().map(String::as_str).collect();
    let rows = cells("run.json");
    let all: BTreeSet<&str> = rows[1..].iter().map(|row| row[0].as_str()).collect();
    let always: BTreeSet<&str> =
        rows[1..].iter().filter(|row| !row[2].ends_with("not always")).map(|row| row[0].as_str()).collect();
    assert_eq!(all.len() + 1, rows.len(), "each key once");
    assert!(keys.is_subset(&all), "not on the page: {:?}", keys.difference(&all));
    assert!(always.is_subset(&keys), "not in run.json: {:?}", always.difference(&keys));
    for row in &rows[1..] {
        let Some(value) = run.get(&row[0]) else { continue };
        let fits = match row[1].as_str() {
            "text" => value.is_string(),
            "number" => value.is_number(),
            "true or false" => value.is_boolean(),
            "table" => value.is_object(),
            "text or null" => value.is_string() || value.is_null(),
            _ => value.is_array(),
        };
        assert!(fits, "{}: {value} is not {}", row[0], row[1]);
    }

    let samples: Vec<String> = cells("samples in run.json")[1..].iter().map(|row| row[0].clone()).collect();
    let written: Vec<&String> = run["samples"].as_object().unwrap().keys().collect();
    assert_eq!(written.into_iter().cloned().collect::<BTreeSet<_>>(), samples.into_iter().collect());
    let reasons: Vec<String> = cells("unused in run.json")[1..].iter().map(|row| row[0].clone()).collect();
    for reason in &reasons {
        assert!(serde_json::from_value::<Unused>(reason.as_str().into()).is_ok(), "{reason} is no reason");
    }
    let unused = run["samples"]["unused"].as_object().unwrap();
    assert!(!unused.is_empty() && unused.keys().all(|reason| reasons.contains(reason)), "{unused:?}");
}
