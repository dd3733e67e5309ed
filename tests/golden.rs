//! The exact output of the command.
//!
//! The texts are in tests/golden/; `UPDATE_GOLDEN=1 cargo test --test all` rewrites them, and `git diff` shows what
//! changed. Snapshots inside the tests are insta's: `cargo insta review`, or by hand.

use std::path::Path;
use std::process::Command;

use crate::small_run::{finish, small_run};

/// Compares `output` with the file `name` in tests/golden.
pub fn golden(name: &str, output: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, output).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(output, expected, "{} differs; UPDATE_GOLDEN=1 rewrites it", path.display());
}

const COMMANDS: [&str; 18] = [
    "",
    "run",
    "check",
    "inspect",
    "label",
    "sql",
    "evaluate",
    "report",
    "table",
    "table history",
    "table optimize",
    "table vacuum",
    "table restore",
    "replay",
    "top",
    "simulate",
    "simulate hapt",
    "simulate stream",
];

fn help(command: &str, flag: &str) -> String {
    let mut dacpipe = Command::new(env!("CARGO_BIN_EXE_dacpipe"));
    // The width of the lines, since there is no terminal.
    finish(dacpipe.args(command.split_whitespace()).arg(flag).env("COLUMNS", "100"), 0).0
}

#[test]
fn help_is_what_it_was() {
    for command in COMMANDS {
        let name = format!("dacpipe {command}").trim_end().replace(' ', "-");
        golden(&format!("help/{name}.txt"), &help(command, "--help"));
    }
}

#[test]
fn every_command_and_flag_says_what_it_does() {
    let listed: Vec<String> = help("", "-h")
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .map(|line| line.split_whitespace().next().unwrap().to_string())
        .collect();
    let known = COMMANDS.iter().filter(|command| !command.is_empty() && !command.contains(' '));
    assert_eq!(listed, known.copied().chain(["help"]).collect::<Vec<_>>());
    for command in COMMANDS {
        let text = help(command, "-h");
        // The last paragraphs are examples.
        let flags = text.split("\n\n").find(|paragraph| paragraph.starts_with("Options:")).unwrap().lines();
        for flag in flags.filter(|line| line.trim_start().starts_with('-')) {
            // A flag with its value, two spaces, and the description, or the description on the next line.
            let described = flag.trim().contains("  ") || text.contains(&format!("{flag}\n          "));
            assert!(described, "dacpipe {command} -h: {flag}");
        }
        assert!(text.contains("\nExamples") || text.contains("\nFirst steps"), "dacpipe {command} -h has no example");
    }
}

#[test]
fn a_run_ends_with_this_summary() {
    let run = small_run();
    insta::with_settings!({filters => [
        (r"-?\d\.\d{4}", "[score]"),
        (r"\d+\.\d\d", "[s]"),
        (r"of sizes [\d ]+", "of sizes [sizes]"),
        (r"[0-9a-f]{16}", "[model]"),
    ]}, {
        insta::assert_snapshot!(run.summary, @r#"
        hapt: 40 recordings of 6 channels at 50 Hz in examples/data/hapt (SIMULATED recordings, not real ones)
          rows      2584 learned from, 3689 labelled
          samples   373323 read: 286656 in windows, 0 set aside, 86667 unused (60669 without a label, 24865 behind the last window, 1133 in labelled stretches shorter than a window)
          clusters  12 of sizes [sizes]
          layout    trustworthiness [score]; of 129 rows held out [score], their coordinates off by [score]
          against activity (labels of the fit split weighted the loss):
            part           rows     ARI    NMI    ACC   raw k-means    ARI    NMI    ACC
            all            3689  [score] [score] [score]               [score] [score] [score]
            test           1105  [score] [score] [score]               [score] [score] [score]
            train          2584  [score] [score] [score]               [score] [score] [score]
          seconds   [s]: source [s] scale [s] feature_weights [s] manifold [s] raw k-means [s] autoencoder [s] kmeans [s] label [s]
          model     out/hapt/models/[model]
          table     out/hapt (version 0)
          report    out/hapt/report/index.html

        Try next:
          dacpipe sql --table hapt=out/hapt -c 'SELECT "activity", cluster, count(*) AS n FROM hapt GROUP BY "activity", cluster ORDER BY n DESC LIMIT 20'
        "#);
    });
}
