//! Pipeline files: what is accepted, and how every problem of a broken one is shown.
//!
//! The expected outputs are in tests/golden/config/; `UPDATE_GOLDEN=1` rewrites them, `UPDATE_SCHEMAS=1` the JSON
//! Schema.

use std::path::PathBuf;

use dacpipe::config::{Loaded, PipelineFile, Plan, Problems, pipeline_schema};
use proptest::prelude::*;

const GOOD: &str = include_str!("golden/config/good.toml");

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn nothing_set(_: &str) -> Option<String> {
    None
}

fn parse(text: &str, sets: &[&str]) -> Result<Loaded, Problems> {
    let sets: Vec<String> = sets.iter().map(|set| set.to_string()).collect();
    PipelineFile::parse("pipeline.toml", text, &sets, &nothing_set)
}

/// The messages alone.
fn messages(result: Result<Loaded, Problems>) -> Vec<String> {
    match result {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(|problem| problem.message().to_string()).collect(),
    }
}

/// `GOOD` with `from` replaced, as messages.
fn with(from: &str, to: &str) -> Vec<String> {
    assert!(GOOD.contains(from), "{from}");
    messages(parse(&GOOD.replacen(from, to, 1), &[]))
}

/// Compares `output` with the file `name` in tests/golden/config.
fn golden(name: &str, output: &str) {
    crate::golden::golden(&format!("config/{name}"), output);
}

fn broken(name: &str, sets: &[&str]) -> String {
    let text = std::fs::read_to_string(root().join("tests/golden/config").join(name)).unwrap();
    let sets: Vec<String> = sets.iter().map(|set| set.to_string()).collect();
    PipelineFile::parse(name, &text, &sets, &nothing_set).unwrap_err().to_string() + "\n"
}

#[test]
fn every_problem_of_a_broken_file_is_shown_at_once() {
    golden("shape.txt", &broken("shape.toml", &[]));
    golden("meaning.txt", &broken("meaning.toml", &[]));
    golden("sensors.txt", &broken("sensors.toml", &[]));
    golden("syntax.txt", &broken("syntax.toml", &[]));
}

#[test]
fn colors_are_for_terminals() {
    let problems = parse("name = 3", &[]).unwrap_err();
    assert!(problems.render(true).contains("\u{1b}["));
    assert!(!problems.to_string().contains('\u{1b}'));
}

#[test]
fn problems_of_overrides_name_the_override() {
    let sets = [
        "memory_limit=3MB",
        "stage.kmean.k=3",
        "stage.9.k=3",
        "stage.autoencoder.epoch=5",
        "stage.autoencoder.epochs=x",
        "seed.x=1",
        "split.fit=trian",
        "name",
        "sink..path=x",
        "source.path=${NOWHERE}",
    ];
    golden("overrides.txt", &broken("good.toml", &sets));
}

#[test]
fn a_missing_file_is_a_problem_that_names_its_neighbour() {
    let path = root().join("pipelines/hapd.toml");
    let problems = PipelineFile::load(&path, &[]).unwrap_err();
    assert_eq!(problems.len(), 1);
    let help = problems.iter().next().and_then(|problem| problem.help_text()).unwrap_or_default();
    assert!(help.ends_with("pipelines/hapt.toml"), "{help}");
    let error = dacpipe::Error::from(problems);
    assert_eq!(error.kind(), dacpipe::Kind::Config);
}

#[test]
fn nonsense_is_a_problem_and_no_panic() {
    for text in ["", "\u{feff}", "x", "[[[", "stage = 3", "[stage]", "source = []", "name = 2020-01-01", "[[stage]]\n"]
    {
        assert!(!messages(parse(text, &[])).is_empty(), "{text:?}");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("latin.toml");
    std::fs::write(&path, b"name = \"a\"\n# caf\xe9\n").unwrap();
    assert!(messages(PipelineFile::load(&path, &[]))[0].ends_with("line 2 is not UTF-8"));
}

#[test]
fn values_are_held_against_each_other() {
    assert_eq!(messages(parse(GOOD, &[])), [""; 0]);
    assert_eq!(with("name = \"good\"", "name = \"Good\""), ["\"Good\" cannot name a table in SQL"]);
    assert_eq!(with("name = \"good\"", "name = \"select\"").len(), 1);
    dacpipe::secret::keep("hushed_0815_name");
    let named = with("name = \"good\"", "name = \"a_hushed_0815_name\"");
    assert_eq!(named, ["the name has the value of a secret variable in it"]);
    assert_eq!(with("\"1 GiB\"", "\"10 MB\""), ["a memory limit of 10 MB is too small"]);
    assert_eq!(with("length = 128", "length = 100"), ["hapt561 needs windows of 128 samples, not 100"]);
    assert_eq!(with("labels = \"activity\"", "labels = \"activty\""), ["the source yields no column \"activty\""]);
    assert_eq!(with("labels = \"activity\"", "labels = \"activity\"\nk = 3"), ["both `labels` and `k` are given"]);
    assert_eq!(with("labels = \"activity\"", "method = \"uniform\""), [""; 0]);
    assert_eq!(with("labels = \"activity\"", "sample = 1000"), [""; 0]);
    assert_eq!(
        with("labels = \"activity\"", "sample = 1000\nmethod = \"uniform\""),
        ["`sample` is given, but uniform weights come from no classes"]
    );
    assert_eq!(with("labels = \"activity\"", "labels = \"activity\"\nmethod = \"fisher\""), [""; 0]);
    let manifold = |keys: &str| {
        with("kind = \"autoencoder\"", &format!("kind = \"manifold\"\n{keys}\n[[stage]]\nkind = \"autoencoder\""))
    };
    assert_eq!(manifold("neighbors = 20\nmin_dist = 0.0"), [""; 0]);
    assert_eq!(manifold("neighbors = 1"), ["`neighbors` must be at least 2 and at most 1000, got 1"]);
    assert_eq!(manifold("metric = \"hamming\""), ["`metric` cannot be \"hamming\""]);
    assert_eq!(manifold("weighted = true"), [""; 0]);
    assert_eq!(
        messages(parse(
            &GOOD.replacen(
                "kind = \"autoencoder\"",
                "kind = \"manifold\"\nweighted = true\n[[stage]]\nkind = \"autoencoder\"",
                1
            ),
            &["stage.feature_weights=null"]
        )),
        ["`weighted` is true, but no stage learns weights"]
    );
    let width = "a layout of 3 dimensions for a representation of 10";
    assert_eq!(manifold("dim = 3"), [width]);
    assert_eq!(
        with("kind = \"autoencoder\"", "kind = \"autoencoder\"\ncoordinates = 2.0"),
        ["`coordinates` is given, but no manifold stage lays rows out"]
    );
    assert_eq!(
        with("kind = \"autoencoder\"", "kind = \"autoencoder\"\nreconstruction = 0.0"),
        ["the loss has no part that is not 0"]
    );
    assert_eq!(
        with("kind = \"kmeans\"", "kind = \"kmeans\"\nbegin = \"layout\""),
        ["`begin` is \"layout\", but no manifold stage lays rows out"]
    );
    assert_eq!(with("\"min_max\"", "\"standard\""), ["standard scaling before an autoencoder"]);
    assert_eq!(with("kind = \"kmeans\"", "kind = \"kmeans\"\nbatch_size = 10").len(), 1);
    assert_eq!(with("kind = \"kmeans\"", "kind = \"kmeans\"\nmethod = \"mini_batch\"\nbatch_size = 10"), [""; 0]);
    let online = |keys: &str| with("kind = \"kmeans\"", &format!("kind = \"kmeans\"\nmethod = \"online\"\n{keys}"));
    for good in
        ["", "batch_size = 10\ndecay = 0.9", "half_life = \"5000 rows\"", "half_life = \"0.5 batches\"", "decay = 1"]
    {
        assert_eq!(online(good), [""; 0], "{good}");
    }
    let zero = "`half_life`: a half-life of \"0 rows\" forgets everything at once; a number above 0, or leave the key out to forget \
                nothing";
    assert_eq!(online("half_life = \"0 rows\""), [zero]);
    assert_eq!(
        online("half_life = \"2 h\""),
        ["a half-life of 2 h, but the rows to learn from have no event times here"]
    );
    assert_eq!(
        online("half_life = 5000"),
        ["`half_life` must be a half-life such as \"5000 rows\" or \"20 batches\", got 5000"]
    );
    assert_eq!(online("half_life = \"5000\"").len(), 1);
    assert_eq!(online("decay = -0.5"), ["`decay` must be at least 0 and at most 1, got -0.5"]);
    assert_eq!(online("decay = nan").len(), 1);
    assert_eq!(online("decay = 0.5\nhalf_life = \"1 batch\""), ["both `decay` and `half_life` are given"]);
    assert_eq!(
        online("max_iterations = 5\ntolerance = 0.5"),
        [
            "`max_iterations` is given, but method \"online\" passes over the rows once",
            "`tolerance` is given, but method \"online\" passes over the rows once"
        ]
    );
    assert_eq!(
        online("normalize = \"within\""),
        ["`normalize` is \"within\", which takes several passes; method \"online\" takes one"]
    );
    assert_eq!(online("begin = \"layout\"").len(), 2);
    for method in ["lloyd", "mini_batch"] {
        let keys = format!("kind = \"kmeans\"\nmethod = \"{method}\"\nhalf_life = \"1 batch\"");
        assert_eq!(with("kind = \"kmeans\"", &keys), ["`half_life` is given, but only method \"online\" forgets rows"]);
    }
    assert_eq!(with("fit = \"train\"", "fit = \"training\""), ["there is no split \"training\""]);
    assert_eq!(with("fit = \"train\"", "fit = \"3\"\ncolumn = \"user\""), [""; 0]);
    assert_eq!(with("\"out/good\"", "\"data/hapt/\""), ["the table would be written into the source"]);
    assert_eq!(with("\"start\"]", "\"begin\"]"), ["the source yields no column \"begin\""]);
    assert_eq!(with("\"start\"]", "\"user\"]"), ["column \"user\" is named twice"]);
}

/// The messages, and the help of the first.
fn with_help(from: &str, to: &str, sets: &[&str]) -> (Vec<String>, String) {
    assert!(GOOD.contains(from), "{from}");
    let result = parse(&GOOD.replacen(from, to, 1), sets);
    let help = result.as_ref().err().and_then(|p| p.iter().next().and_then(|p| p.help_text().map(String::from)));
    (messages(result), help.unwrap_or_default())
}

#[test]
fn what_is_written_of_the_autoencoder_must_be_there() {
    let error = "sink.reconstruction_error=true";
    assert_eq!(messages(parse(GOOD, &[error])), [""; 0]);
    assert_eq!(messages(parse(GOOD, &["stage.autoencoder.keep_decoder=false"])), [""; 0]);
    let left_out = ["stage.autoencoder.keep_decoder=false", error];
    let (said, help) = with_help("seed = 7", "seed = 7", &left_out);
    assert_eq!(said, ["rows are reconstructed by the decoder, and the autoencoder stage has keep_decoder = false"]);
    assert_eq!(help, "keep_decoder = true, which is the default");
    let untaught = messages(parse(GOOD, &["stage.autoencoder.reconstruction=0", error]));
    let said = "the decoder learns nothing, for the autoencoder stage has reconstruction = 0";
    assert!(untaught.iter().any(|message| message == said), "{untaught:?}");
    let network = &GOOD[GOOD.find("[[stage]]\nkind = \"feature_weights\"").unwrap()..];
    let network = &network[..network.find("[[stage]]\nkind = \"kmeans\"").unwrap()];
    let (said, help) = with_help(network, "", &[error]);
    assert_eq!(said, ["there is no autoencoder stage that reconstructs rows"]);
    assert!(help.contains("kind = \"autoencoder\""), "{help}");
    let (said, help) = with_help(network, "", &["sink.embedding=true"]);
    assert_eq!(said, ["there is no autoencoder stage whose embedding could be written"]);
    assert!(help.starts_with("vectors = \"list\" or \"columns\" writes the features"), "{help}");
    // Where it is written, with its line and column.
    let text = GOOD.replacen("[sink]", "[sink]\nreconstruction_error = true", 1).replacen(network, "", 1);
    let shown = parse(&text, &[]).unwrap_err().to_string();
    assert!(shown.contains("pipeline.toml:32:24\n") && shown.contains("32 | reconstruction_error = true"), "{shown}");
}

#[test]
fn a_pipeline_without_clusters_says_what_it_writes() {
    let kmeans = "[[stage]]\nkind = \"kmeans\"\nk = 12";
    let (said, help) = with_help(kmeans, "", &[]);
    assert_eq!(said, ["there is no kmeans stage"]);
    assert!(help.contains("[sink] vectors = \"columns\""), "{help}");
    for set in ["sink.vectors=columns", "sink.vectors=list", "sink.embedding=true", "sink.reconstruction_error=true"] {
        assert_eq!(with_help(kmeans, "", &[set]).0, [""; 0], "{set}");
        assert_eq!(messages(parse(GOOD, &[set])), [""; 0], "{set}");
    }
    assert_eq!(messages(parse(GOOD, &["sink.vectors=rows"])), ["`vectors` cannot be \"rows\""]);
    let by_cluster = ["sink.vectors=list", "sink.partition_by=[\"cluster\"]"];
    assert_eq!(with_help(kmeans, "", &by_cluster).0, ["the source yields no column \"cluster\""]);
    let text = GOOD.replacen(kmeans, "", 1).replacen("labels = \"activity\"\n", "", 1);
    let set = ["sink.vectors=list".to_string()];
    let pseudo = messages(PipelineFile::parse("x.toml", &text, &set, &nothing_set));
    assert_eq!(pseudo, ["pseudo-labels, but there is no kmeans stage whose `k` could be theirs"]);
    let weights = text.replacen("kind = \"feature_weights\"", "kind = \"feature_weights\"\nk = 6", 1);
    assert_eq!(messages(PipelineFile::parse("x.toml", &weights, &set, &nothing_set)), [""; 0]);
}

#[test]
fn choices_of_features_fit_the_sensors() {
    let summary = |choice: &str| with("set = \"hapt561\"", &format!("set = \"summary\"\n{choice}"));
    assert_eq!(
        summary(
            "statistics = [\"mean\", \"ar\"]\nspectrum = []\nbands = 4\njerk = true\nmedian = 3\n\
             low_pass = { order = 3, cutoff_hz = 20 }\nmagnitudes = { acc = [\"acc_x\", \"acc_y\", \"acc_z\"] }"
        ),
        [""; 0]
    );
    assert_eq!(summary("statistics = [\"mean\", \"sdt\"]"), ["`statistics[1]` cannot be \"sdt\""]);
    assert_eq!(summary("bands = 65"), ["65 bands, but a window of 128 samples has 64 frequencies"]);
    assert_eq!(summary("median = 4"), ["a running median of 4 samples has no middle"]);
    assert_eq!(summary("low_pass = { order = 3, cutoff_hz = 25 }"), ["a corner of 25 Hz at 50 samples a second"]);
    assert_eq!(summary("low_pass = { order = 0 }").len(), 2);
    assert_eq!(summary("magnitudes = { acc_x = [\"acc_y\"] }"), ["\"acc_x\" is a channel already"]);
    assert_eq!(summary("magnitudes = { acc = [\"ac_x\"] }"), ["the source has no channel \"ac_x\""]);
    assert_eq!(summary("magnitudes = { acc = 3 }"), ["`acc` must be a list of strings, got 3"]);
    assert_eq!(
        with("set = \"hapt561\"", "set = \"hapt561\"\nbands = 4"),
        ["`bands` is given, but the set has no such choice"]
    );
}

/// All invalid settings of text files are reported at once.
#[test]
fn dialects_of_text_files_do_not_contradict_themselves() {
    let source = |keys: &str| {
        let text = format!(
            "name = \"a\"\n[source]\nkind = \"csv\"\npath = \"a\"\nchannels = [\"x\"]\n{keys}\n[[stage]]\nkind = \"kmeans\"\n\
             k = 2\n[sink]\npath = \"out\"\n"
        );
        messages(parse(&text, &[]))
    };
    for good in [
        "encoding = \"utf-16le\"\ndelimiter = \"tab\"",
        "delimiter = \"whitespace\"\ndecimal = \",\"",
        "decimal = \",\"\nthousands = \".\"",
        "quote = \"\"\ncomment = \"//\"\nrow_end = \";\"",
        "skip_lines = 10\nskip_after_header = 1",
        "escape = \"\\\\\"",
        "escape = \"^\"\nquote = \"'\"",
    ] {
        assert_eq!(source(good), [""; 0], "{good}");
    }
    assert_eq!(source("encoding = \"utf8\""), ["`encoding` cannot be \"utf8\""]);
    assert_eq!(source("delimiter = \"\""), ["`delimiter` must have at least 1 character, got the string \"\""]);
    assert_eq!(
        source("escape = \"\\\\\\\\\""),
        ["`escape` must have exactly 1 character, got the string \"\\\\\\\\\""]
    );
    assert_eq!(source("escape = \"\\\"\""), ["'\"' is the quote, which stands for itself where it is written twice"]);
    assert_eq!(source("escape = \"/\"\nquote = \"\""), ["it stands inside of quotes, and quote is none"]);
    let all = "delimiter = \"::\"\ndecimal = \",\"\nthousands = \",\"\ncomment = \"-\"\nrow_end = \",\"\nheader = false\n\
               skip_after_header = 1";
    assert_eq!(
        source(all),
        [
            "\"::\" cannot separate fields",
            "',' is the decimal sign as well",
            "\"-\" cannot begin a comment",
            "',' cannot end a row",
            "rows behind the header, but header is false"
        ]
    );
    assert_eq!(source("delimiter = \",\"\ndecimal = \",\""), ["',' separates fields, and is the decimal sign as well"]);
}

/// Bounds on times are parts and counts, or times.
#[test]
fn jitter_and_disorder_may_be_times() {
    let source = |keys: &str| {
        let text = format!(
            "name = \"a\"\n[source]\nkind = \"csv\"\npath = \"a\"\nchannels = [\"x\"]\ntime = \"t\"\n{keys}\n[[stage]]\n\
             kind = \"kmeans\"\nk = 2\n[sink]\npath = \"out\"\n"
        );
        messages(parse(&text, &[]))
    };
    for good in [
        "jitter = 0.5",
        "jitter = 1",
        "jitter = \"20 ms\"",
        "disorder = 4",
        "disorder = \"1.5 s\"",
        "disorder = \"2min\"",
    ] {
        assert_eq!(source(good), [""; 0], "{good}");
    }
    assert_eq!(source("jitter = 11"), ["`jitter` must be at least 0 and at most 10, got 11"]);
    let span = "is not a time span; write \"20 ms\" or \"2 min\" (ns, us, ms, s, min, h)";
    assert_eq!(source("jitter = \"20\""), [format!("`jitter`: \"20\" {span}")]);
    assert_eq!(source("disorder = \"2 lines\""), [format!("`disorder`: \"2 lines\" {span}")]);
    let either = "`disorder` must be a whole number or a time such as \"20 ms\", got true";
    assert_eq!(source("disorder = true"), [either]);
    let set = |set: &str| messages(parse(GOOD, &["source.kind=csv", "source.channels=[\"x\"]", "source.time=t", set]));
    assert_eq!(set("source.jitter=20 ms"), set("source.jitter=0.5"));
}

#[test]
fn learning_rates_fall_in_the_ways_there_are() {
    let decay = |value: &str| with("epochs = 200", &format!("epochs = 200\ndecay = {value}"));
    for good in ["{ kind = \"none\" }", "{ kind = \"cosine\" }", "{ kind = \"step\", every = 50, factor = 0.5 }"] {
        assert_eq!(decay(good), [""; 0], "{good}");
    }
    assert_eq!(decay("{ kind = \"exponential\", rate = 0 }"), ["`rate` must be above 0 and at most 1, got 0"]);
    assert_eq!(decay("{ kind = \"cosine\", rate = 1 }"), ["unknown key `rate` in [decay]"]);
    let problems = parse(GOOD, &["stage.autoencoder.decay=cosine"]).unwrap_err();
    let help = problems.iter().next().and_then(|problem| problem.help_text().map(String::from));
    assert_eq!(help.as_deref(), Some("write decay = { kind = \"cosine\" }"));
    assert_eq!(messages(parse(GOOD, &["stage.autoencoder.decay.kind=none"])), [""; 0]);
    let stop = with("epochs = 200", "early_stop = { patience = 5, min_delta = 1 }");
    assert_eq!(stop, ["`min_delta` must be at least 0 and below 1, got 1"]);
}

#[test]
fn stages_come_in_an_order_that_can_run() {
    assert_eq!(with("kind = \"scale\"\nmethod = \"min_max\"", "kind = \"kmeans\"\nk = 2").len(), 4);
    assert_eq!(with("[[stage]]\nkind = \"kmeans\"\nk = 12", ""), ["there is no kmeans stage"]);
    let window = "[[stage]]\nkind = \"window\"\nlength = 128\nstride = 64\nwithin = \"labels\"\n";
    assert_eq!(with(window, ""), ["features are computed from windows, and no window stage cuts them"]);
}

#[test]
fn devices_are_named_and_numbered() {
    use dacpipe::device::DeviceChoice;
    let device = |set: &str| parse(GOOD, &[set]).unwrap().plan.device;
    assert_eq!(parse(GOOD, &[]).unwrap().plan.device, DeviceChoice::Auto);
    assert_eq!(device("device=cpu"), DeviceChoice::Cpu);
    assert_eq!(device("device=cuda"), DeviceChoice::Cuda(0));
    assert_eq!(device("device=\"cuda:1\""), DeviceChoice::Cuda(1));
    let file = parse(GOOD, &["device=cuda:3"]).unwrap().file;
    assert_eq!(serde_json::to_value(&file).unwrap()["device"], "cuda:3");
    let accepted = "\"auto\", \"cpu\", \"cuda\" or \"cuda:N\", where N is the number of a GPU, from 0 on";
    let named = |value: &str| with("name = \"good\"", &format!("name = \"good\"\ndevice = {value}"));
    assert_eq!(named("\"cuda:1\""), [""; 0]);
    assert_eq!(named("\"gpu\""), [format!("`device`: \"gpu\" is no device; expected {accepted}")]);
    assert_eq!(
        named("\"cuda:x\""),
        [
            "`device`: \"cuda:x\" names no GPU; expected \"cuda:N\", where N is its number, from 0 on (nvidia-smi -L lists them)"
        ]
    );
    assert_eq!(named("1"), [format!("`device` must be {accepted} or a table, got 1")]);
    let unfused = parse(GOOD, &["device.fused=false"]).unwrap().plan;
    assert_eq!((unfused.device, unfused.fused), (DeviceChoice::Auto, false));
    assert_eq!(named("{ name = \"cpu\", fused = false }"), [""; 0]);
    assert!(named("{ fused = 3 }")[0].contains("must be true or false"));
    assert!(named("{ fuse = true }")[0].contains("unknown key `fuse`"));
}

#[test]
fn variables_are_replaced_in_strings_after_parsing() {
    let text = GOOD.replace("\"data/hapt\"", "\"${DATA:-data}/${NAME}/$${x}\"");
    let environment = |name: &str| (name == "NAME").then(|| "a\"\nseed = 1\n# ".to_string());
    let loaded = PipelineFile::parse("x.toml", &text, &[], &environment).unwrap();
    let dacpipe::config::SourceTable::Hapt(source) = &loaded.file.source else { panic!("{:?}", loaded.file.source) };
    assert_eq!(source.path, "data/a\"\nseed = 1\n# /${x}");
    assert_eq!(loaded.file.seed, 7);
    let problems = parse(&text, &[]).unwrap_err();
    assert_eq!(messages(Err(problems)), ["the environment variable NAME is not set"]);
}

#[test]
fn overrides_replace_and_add() {
    let sets = [
        "stage.autoencoder.epochs=5",
        "stage.4.batch_size = 32",
        "stage.autoencoder.encoder=[8, 4]",
        "memory_limit=300MB",
        "name=other_name",
        "source.path=2024",
        "sink.mode=append",
        "split.fit=\"test\"",
        "threads=2",
    ];
    let plan = parse(GOOD, &sets).unwrap().plan;
    assert_eq!((plan.name.as_str(), plan.memory_limit, plan.threads), ("other_name", 300_000_000, Some(2)));
    let changed = GOOD
        .replace("epochs = 200", "epochs = 5")
        .replace("batch_size = 256", "batch_size = 32")
        .replace("[256, 128, 64, 32, 16, 12, 10]", "[8, 4]")
        .replace("\"1 GiB\"", "300000000\nthreads = 2")
        .replace("name = \"good\"", "name = \"other_name\"")
        .replace("\"data/hapt\"", "\"2024\"")
        .replace("[sink]", "[sink]\nmode = \"append\"")
        .replace("fit = \"train\"", "fit = \"test\"");
    assert_eq!(plan, parse(&changed, &[]).unwrap().plan);
}

#[test]
fn null_takes_keys_and_stages_away() {
    let plan = parse(GOOD, &["threads=2", "threads=null", "stage.feature_weights=null"]).unwrap().plan;
    assert_eq!(plan.threads, None);
    assert!(format!("{:?}", parse(GOOD, &[]).unwrap().plan.stages).contains("FeatureWeights"));
    assert!(!format!("{:?}", plan.stages).contains("FeatureWeights"));
    assert_eq!(messages(parse(GOOD, &["sink.nothing=null"])), ["there is no `sink.nothing` to remove"]);
    assert_eq!(messages(parse(GOOD, &["stage.scales=null"])), ["`stage` has no element of kind `scales`"]);
}

#[test]
fn the_fingerprint_is_of_what_decides_the_result() {
    let of = |sets: &[&str]| parse(GOOD, sets).unwrap().plan.fingerprint;
    let plain = of(&[]);
    assert_eq!(plain.len(), 64);
    assert_eq!(plain, of(&["memory_limit=2GiB", "threads=1", "source.path=elsewhere", "sink.path=there"]));
    assert_eq!(plain, of(&["stage.kmeans.n_init=10"]), "a default that is spelled out changes nothing");
    for set in ["seed=8", "stage.kmeans.k=11", "stage.autoencoder.epochs=1", "split.fit=all", "stage.window.stride=32"]
    {
        assert_ne!(plain, of(&[set]), "{set}");
    }
}

#[test]
fn the_json_schema_is_current() {
    let path = root().join("schemas/pipeline.schema.json");
    let schema = pipeline_schema();
    if std::env::var_os("UPDATE_SCHEMAS").is_some() {
        std::fs::write(&path, serde_json::to_string_pretty(&schema).unwrap() + "\n").unwrap();
    }
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let written: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    assert_eq!(written, schema, "{} is not current; UPDATE_SCHEMAS=1 rewrites it", path.display());
}

#[test]
fn every_key_is_described() {
    fn undescribed(path: &str, schema: &serde_json::Value, found: &mut Vec<String>) {
        for (key, property) in schema["properties"].as_object().into_iter().flatten() {
            if property.get("description").is_none() && key != "kind" {
                found.push(format!("{path}.{key}"));
            }
        }
        let branches = schema["oneOf"].as_array().into_iter().flatten();
        branches.for_each(|branch| undescribed(path, branch, found));
    }
    let schema = pipeline_schema();
    let mut found = Vec::new();
    undescribed("", &schema, &mut found);
    for (name, definition) in schema["$defs"].as_object().unwrap() {
        undescribed(name, definition, &mut found);
    }
    assert_eq!(found, [""; 0]);
}

#[test]
fn every_pipeline_of_the_repository_is_good() {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(root().join("pipelines")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let loaded = PipelineFile::parse(&path.display().to_string(), &text, &[], &nothing_set);
        let loaded = loaded.unwrap_or_else(|problems| panic!("{problems}"));
        names.push(loaded.plan.name);
        assert!(text.starts_with("#:schema ../schemas/pipeline.schema.json\n"), "{}", path.display());
    }
    names.sort();
    let methods = ["mnist_aljalbout", "mnist_dec", "mnist_dec_manifold", "mnist_k_dae"];
    let others = ["fashion_mnist", "hapt", "hapt_dac", "hapt_features", "mnist"];
    assert_eq!(names, others.iter().chain(&methods).chain(&["pump"]).copied().collect::<Vec<_>>());
}

#[test]
fn the_example_of_a_sensor_file_is_what_its_pipeline_reads() {
    let text = std::fs::read_to_string(root().join("examples/data/pump.csv")).unwrap();
    assert!(text.len() < 200_000);
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("machine,time_ms,vibration_x,vibration_y,vibration_z"));
    let mut machines = std::collections::BTreeMap::new();
    for line in lines {
        let fields: Vec<&str> = line.split(',').collect();
        let numbers: Vec<f64> = fields[1..].iter().map(|field| field.parse().unwrap()).collect();
        let samples = machines.entry(fields[0]).or_insert(0usize);
        assert_eq!(numbers[0], 20.0 * *samples as f64, "50 samples a second, without a gap");
        assert!(numbers.len() == 4 && numbers.iter().all(|number| number.is_finite()), "{line}");
        *samples += 1;
    }
    assert_eq!(machines.into_values().collect::<Vec<_>>(), [1500; 4]);
}

#[test]
fn the_pipelines_read_what_their_variables_name() {
    let path = root().join("pipelines/hapt.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let source = |data: Option<&str>| {
        let environment = |name: &str| data.filter(|_| name == "HAPT_DATA").map(String::from);
        let loaded = PipelineFile::parse("hapt.toml", &text, &[], &environment).unwrap();
        serde_json::to_value(&loaded.file).unwrap()["source"]["path"].as_str().unwrap().to_string()
    };
    assert_eq!(source(None), "examples/data/hapt");
    assert_eq!(source(Some("/data/hapt")), "/data/hapt");
}

prop_compose! {
    /// Pipeline files of any values that are within bounds.
    fn any_file()(
        seed in 0..=i64::MAX as u64,
        memory in 4_000u64..10_000,
        threads in proptest::option::of(1usize..64),
        widths in proptest::collection::vec(1usize..2000, 1..8),
        decoder in proptest::option::of(proptest::collection::vec(1usize..2000, 0..8)),
        epochs in 1usize..1000,
        rate in (1u32..1_000_000).prop_map(|rate| f64::from(rate) / 1e6),
        k in 1usize..100,
        keys in proptest::sample::subsequence(vec!["experiment", "user", "split", "activity", "start"], 0..5),
        path in "[ -~äß€]{1,20}",
        method in proptest::sample::select(vec![
            "",
            "method = \"mini_batch\"\nbatch_size = 10",
            "method = \"online\"\nbatch_size = 10\nhalf_life = \"5e3 rows\"",
            "method = \"online\"\ndecay = 0.3",
        ]),
    ) -> String {
        let mut lines = vec![
            "name = \"any\"".to_string(),
            format!("seed = {seed}\nmemory_limit = \"{memory} MiB\""),
        ];
        lines.extend(threads.map(|n| format!("threads = {n}")));
        lines.push("[source]\nkind = \"hapt\"\npath = \"in\"".into());
        lines.push("[[stage]]\nkind = \"window\"\nlength = 64\nstride = 32".into());
        lines.push("[[stage]]\nkind = \"features\"\nset = \"summary\"\n[[stage]]\nkind = \"scale\"".into());
        lines.push(format!("[[stage]]\nkind = \"autoencoder\"\nencoder = {widths:?}\nepochs = {epochs}"));
        lines.push(format!("learning_rate = {rate:?}"));
        lines.extend(decoder.map(|widths| format!("decoder = {widths:?}")));
        lines.push(format!("[[stage]]\nkind = \"kmeans\"\nk = {k}"));
        lines.push(method.into());
        let path = path.replace("${", "$${").replace('\\', "/").replace('"', "'");
        lines.push(format!("[sink]\npath = \"out {path}\"\nkeys = {keys:?}"));
        lines.join("\n")
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_read_writes_and_reads_back(text in any_file()) {
        let first = parse(&text, &[]).map_err(|problems| TestCaseError::fail(format!("{problems}\n{text}")))?;
        let written = toml::to_string(&first.file).unwrap().replace("${", "$${");
        let second = parse(&written, &[]).map_err(|problems| TestCaseError::fail(format!("{problems}\n{written}")))?;
        prop_assert_eq!(&first.file, &second.file);
        prop_assert_eq!(&first.plan, &second.plan);
        let json = serde_json::to_string(&first.plan).unwrap();
        prop_assert_eq!(serde_json::from_str::<Plan>(&json).unwrap(), second.plan);
    }

    #[test]
    fn no_text_makes_it_panic(text in "(?s).{0,200}", set in ".{0,30}") {
        let _ = parse(&text, &[&set]);
        let _ = parse(GOOD, &[&set, &format!("stage.0.{set}"), &format!("sink.path={set}")]);
    }

    #[test]
    fn no_damage_to_a_good_file_makes_it_panic(at in 0usize..GOOD.len(), length in 0usize..40, with in ".{0,5}") {
        let mut bytes = GOOD.as_bytes().to_vec();
        let end = (at + length).min(bytes.len());
        bytes.splice(at..end, with.bytes());
        let _ = parse(&String::from_utf8_lossy(&bytes), &[]);
    }
}

#[test]
fn the_width_of_vectors_goes_with_a_column_of_lists() {
    let source = |features: &str, dim: usize| {
        let text = format!(
            "name = \"a\"\nseed = 1\n[source]\nkind = \"parquet\"\npath = \"a\"\nfeatures = {features}\ndim = {dim}\n\
             [[stage]]\nkind = \"kmeans\"\nk = 2\n[sink]\npath = \"out\"\n"
        );
        messages(parse(&text, &[]))
    };
    assert!(source("\"v\"", 4).is_empty());
    for dim in [0, 5_000_000] {
        assert_eq!(source("\"v\"", dim), [format!("`dim` must be at least 1 and at most 4194304, got {dim}")]);
    }
    assert_eq!(source("[\"x\", \"y\"]", 2), ["the columns of features say how many values there are"]);
}
