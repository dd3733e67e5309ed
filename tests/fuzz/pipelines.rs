//! Target: pipeline files.

use dacpipe::config::PipelineFile;
use dacpipe::pipeline::Pipeline;

use super::damage::damaged;
use super::fuzz;

/// Keywords of a pipeline file.
const WORDS: &[&str] = &[
    "\"",
    "'",
    "[",
    "]",
    "[[",
    "]]",
    "{",
    "}",
    "=",
    ".",
    ",",
    "#",
    "\n",
    "\r",
    "\0",
    "ü",
    "${",
    "}",
    "${HOME}",
    "$$",
    "-1",
    "0",
    "1e999",
    "nan",
    "true",
    "99999999999999999999",
    "18446744073709551615",
    "[[stage]]\n",
    "kind = \"kmeans\"\n",
    "kind",
    "k = 1000000\n",
    "\"\"\"",
    "1979-05-27",
    "encoder = [65536, 65536]\n",
    "length = 16777216\n",
    "all",
    "start",
    "features",
];

#[test]
fn damaged_pipeline_files() {
    for file in ["hapt", "mnist", "sensor-csv", "hapt-dac"] {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("pipelines/{file}.toml"));
        let text = std::fs::read(path).unwrap();
        let parse =
            |text: &str| PipelineFile::parse("fuzz.toml", text, &[], &|name| (name != "HOME").then(String::new));
        parse(std::str::from_utf8(&text).unwrap()).unwrap_or_else(|problems| panic!("{problems}"));
        fuzz(&format!("pipeline, {file}"), damaged(text, WORDS), |bytes| {
            let Ok(text) = String::from_utf8(bytes) else { return Ok(()) };
            match parse(&text) {
                Ok(loaded) => drop(Pipeline::new(loaded.plan)),
                Err(problems) => {
                    let shown = problems.to_string();
                    proptest::prop_assert!(shown.contains("fuzz.toml"), "no file is named: {}", shown);
                }
            }
            Ok(())
        });
    }
}
