//! The figures of a stream, as OpenMetrics names them.
//!
//! Labels with values from the data are few, and short: features are the ten that drifted the furthest, reasons and
//! clusters beyond a number share one label.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::Batch;
use crate::drift::{Finding, Measure};
use crate::memory;

/// The most clusters and the most kinds of reasons with a label of their own.
const MOST_LABELS: usize = 200;
/// The most features whose drift is shown.
const MOST_FEATURES: usize = 10;
/// The most characters of a label's value.
const MOST_CHARACTERS: usize = 80;
/// The label of everything else.
const OTHER: &str = "other";

type Labels = Vec<(&'static str, String)>;

/// Counters by a label that has few values: those beyond a number count together.
#[derive(Debug)]
struct Few {
    label: &'static str,
    family: Family<Labels, Counter>,
    known: Mutex<BTreeSet<String>>,
}

impl Few {
    fn of(label: &'static str) -> Self {
        Self { label, family: Family::default(), known: Mutex::default() }
    }

    fn add(&self, value: String, count: u64) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let value = match known.contains(&value) || known.len() < MOST_LABELS {
            true => value,
            false => OTHER.to_owned(),
        };
        self.family.get_or_create(&vec![(self.label, value.clone())]).inc_by(count);
        known.insert(value);
    }
}

type Float = Gauge<f64, AtomicU64>;

#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    read: Counter,
    labelled: Counter,
    skipped: Counter,
    set_aside: Few,
    clusters: Few,
    commits: Counter,
    committed_bytes: Counter,
    batch: Histogram,
    commit: Histogram,
    lag_rows: Gauge,
    lag: Float,
    version: Gauge,
    drift: Family<Labels, Float>,
    features: Family<Labels, Float>,
    thresholds: Family<Labels, Float>,
    judgements: Counter,
    models: Family<Labels, Gauge>,
    learned: Counter,
    polled: Float,
    committed: Float,
    memory: Gauge,
}

impl Metrics {
    pub(super) fn new(name: &str) -> Self {
        // From a millisecond to about a minute.
        let seconds = || Histogram::new(exponential_buckets(0.001, 2.0, 17));
        let mut made = Self {
            registry: Registry::default(),
            read: Counter::default(),
            labelled: Counter::default(),
            skipped: Counter::default(),
            set_aside: Few::of("reason"),
            clusters: Few::of("cluster"),
            commits: Counter::default(),
            committed_bytes: Counter::default(),
            batch: seconds(),
            commit: seconds(),
            lag_rows: Gauge::default(),
            lag: Float::default(),
            version: Gauge::default(),
            drift: Family::default(),
            features: Family::default(),
            thresholds: Family::default(),
            judgements: Counter::default(),
            models: Family::default(),
            learned: Counter::default(),
            polled: Float::default(),
            committed: Float::default(),
            memory: Gauge::default(),
        };
        let mut all = Registry::default();
        let info = Info::new(vec![("version", env!("CARGO_PKG_VERSION").to_owned()), ("pipeline", shortened(name))]);
        all.register("dacpipe_build", "The program, and the pipeline that it runs", info);
        let begun = Float::default();
        begun.set(seconds_since_1970());
        all.register_with_unit("process_start_time", "When the stream began, since 1970", Unit::Seconds, begun);
        all.register_with_unit("process_resident_memory", "Memory of the process", Unit::Bytes, made.memory.clone());
        let out = all.sub_registry_with_prefix("dacpipe");
        out.register("rows_read", "Lines or rows taken from the source", made.read.clone());
        out.register("rows_labelled", "Rows labelled and committed", made.labelled.clone());
        out.register("rows_skipped", "Rows left out, since the table had their keys", made.skipped.clone());
        out.register("rows_set_aside", "Rows set aside, by the kind of reason", made.set_aside.family.clone());
        out.register("cluster_rows", "Rows labelled, by the id of the cluster", made.clusters.family.clone());
        out.register("commits", "Commits made", made.commits.clone());
        out.register_with_unit("committed", "Bytes added to the table", Unit::Bytes, made.committed_bytes.clone());
        out.register_with_unit(
            "batch",
            "Reading and labelling the rows of a commit",
            Unit::Seconds,
            made.batch.clone(),
        );
        out.register_with_unit("commit", "Making a commit", Unit::Seconds, made.commit.clone());
        out.register("lag_rows", "Rows taken or waiting that are not committed, estimated", made.lag_rows.clone());
        let lag = "Age of the newest row when it was committed, or of the oldest file where rows have no times";
        out.register_with_unit("lag", lag, Unit::Seconds, made.lag.clone());
        out.register("table_version", "Version of the table after the last commit", made.version.clone());
        out.register("drift_psi", "Population stability index: of features the greatest", made.drift.clone());
        out.register("drift_feature_psi", "The ten features of the greatest index", made.features.clone());
        out.register("drift_threshold", "The index to watch, and the one to act on", made.thresholds.clone());
        out.register("drift_judgements", "How often drift was measured", made.judgements.clone());
        out.register("model_active", "1 for the model that labels rows", made.models.clone());
        out.register("models_learned", "Models learned anew, because of drift", made.learned.clone());
        let last = "since 1970";
        out.register_with_unit(
            "last_poll_time",
            format!("When rows were last looked for, {last}"),
            Unit::Seconds,
            made.polled.clone(),
        );
        out.register_with_unit(
            "last_commit_time",
            format!("When the last commit was made, {last}"),
            Unit::Seconds,
            made.committed.clone(),
        );
        made.registry = all;
        made
    }

    pub(super) fn model(&self, hash: &str) {
        self.models.clear();
        self.models.get_or_create(&vec![("model", shortened(hash))]).set(1);
    }

    pub(super) fn polled(&self) {
        self.polled.set(seconds_since_1970());
    }

    pub(super) fn took(&self, rows: u64, behind: u64) {
        self.read.inc_by(rows);
        self.lag_rows.set(whole(rows.saturating_add(behind)));
    }

    pub(super) fn learned(&self) {
        self.learned.inc();
    }

    pub(super) fn committed(&self, batch: &Batch<'_>) {
        self.labelled.inc_by(batch.rows);
        self.skipped.inc_by(batch.skipped);
        for (reason, rows) in &batch.set_aside {
            self.set_aside.add(kind_of(reason), *rows);
        }
        for (id, rows) in &batch.clusters {
            self.clusters.add(id.to_string(), *rows);
        }
        self.commits.inc();
        self.committed_bytes.inc_by(batch.bytes);
        self.batch.observe(batch.label_seconds);
        self.commit.observe(batch.commit_seconds);
        self.lag_rows.set(whole(batch.behind_rows));
        if let Some(seconds) = batch.behind_seconds {
            self.lag.set(seconds);
        }
        self.version.set(whole(batch.version));
        self.committed.set(seconds_since_1970());
        let Some((judgement, spec)) = batch.drift else { return };
        self.judgements.inc();
        for (level, threshold) in [("watch", spec.watch), ("act", spec.act)] {
            self.thresholds.get_or_create(&vec![("level", level.to_owned())]).set(threshold);
        }
        for (measure, name) in
            [(Measure::Features, "features"), (Measure::Clusters, "clusters"), (Measure::Distances, "distances")]
        {
            if let Some(finding) = judgement.greatest(measure) {
                self.drift.get_or_create(&vec![("measure", name.to_owned())]).set(finding.psi);
            }
        }
        let mut features: Vec<&Finding> =
            judgement.findings.iter().filter(|finding| finding.measure == Measure::Features).collect();
        features.sort_by(|a, b| b.psi.total_cmp(&a.psi));
        self.features.clear();
        // Names that begin alike may be one label: the first is the greatest.
        let mut shown = BTreeMap::new();
        for finding in features.into_iter().take(MOST_FEATURES) {
            let name = shortened(finding.name.as_deref().unwrap_or_default());
            shown.entry(name).or_insert(finding.psi);
        }
        for (name, psi) in shown {
            self.features.get_or_create(&vec![("feature", name)]).set(psi);
        }
    }

    pub(super) fn page(&self) -> String {
        if let Some(bytes) = memory::resident() {
            self.memory.set(whole(bytes));
        }
        let mut page = String::new();
        // Writing into a string does not fail.
        let _ = encode(&mut page, &self.registry);
        page
    }
}

fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn seconds_since_1970() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// A label's value from the data: without control characters, and not long.
fn shortened(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MOST_CHARACTERS).collect()
}

/// The kind of a reason: it without what differs from row to row, quoted values and numbers, and what stands in brackets or behind the
/// first comma or semicolon.
fn kind_of(reason: &str) -> String {
    let mut kind = String::new();
    let mut characters = reason.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            ',' | ';' | '(' => break,
            '"' => {
                // The end of what is quoted, behind quotes that were escaped.
                let mut escaped = false;
                for c in characters.by_ref() {
                    match (c, escaped) {
                        ('"', false) => break,
                        ('\\', false) => escaped = true,
                        _ => escaped = false,
                    }
                }
                kind.push('…');
            }
            c if c.is_ascii_digit() => {
                while characters.next_if(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '+' | '_')).is_some() {}
                kind.push('…');
            }
            c => kind.push(c),
        }
    }
    shortened(kind.trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drift::{Counts, DriftSpec, Reference};
    use crate::live::exposition::parse;
    use proptest::prelude::*;

    fn judged(names: &[&str]) -> (crate::drift::Judgement, DriftSpec) {
        let dim = names.len();
        let rows: Vec<f32> = (0..dim * 200).map(|i| (i / dim) as f32).collect();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let (found, spec) = ((vec![1; 200], vec![0.5; 200]), DriftSpec::default());
        let reference = Reference::of(&rows, dim, &names, Some((&found.0, &found.1)), &spec);
        let mut counts = Counts::of(&reference);
        // The first feature has moved the furthest.
        let moved: Vec<f32> = rows.iter().enumerate().map(|(i, x)| x + 100.0 / (1 + i % dim) as f32).collect();
        counts.add(&reference, &moved, Some((&found.0, &found.1))).unwrap();
        (reference.judge(&counts, &spec), spec)
    }

    #[test]
    fn a_page_is_openmetrics_with_the_figures_of_the_stream() {
        let metrics = Metrics::new("pump");
        metrics.model("3f1c");
        metrics.polled();
        metrics.took(500, 70);
        assert_eq!(parse(&metrics.page()).unwrap().value("dacpipe_lag_rows", &[]), Some(570.0));
        let names: Vec<String> = (0..40).map(|i| format!("f{i:02}")).collect();
        let (judgement, spec) = judged(&names.iter().map(String::as_str).collect::<Vec<_>>());
        metrics.committed(&Batch {
            rows: 480,
            skipped: 3,
            set_aside: vec![("column \"x\" is \"bad\", expected a number".into(), 2)],
            clusters: vec![(0, 300), (7, 180)],
            label_seconds: 0.25,
            commit_seconds: 0.5,
            bytes: 1000,
            version: 4,
            behind_rows: 70,
            behind_seconds: Some(1.5),
            drift: Some((&judgement, &spec)),
        });
        let page = parse(&metrics.page()).unwrap();
        for (name, labels, value) in [
            ("dacpipe_rows_read_total", &[][..], 500.0),
            ("dacpipe_rows_labelled_total", &[], 480.0),
            ("dacpipe_rows_skipped_total", &[], 3.0),
            ("dacpipe_rows_set_aside_total", &[("reason", "column … is …")], 2.0),
            ("dacpipe_cluster_rows_total", &[("cluster", "7")], 180.0),
            ("dacpipe_commits_total", &[], 1.0),
            ("dacpipe_committed_bytes_total", &[], 1000.0),
            ("dacpipe_batch_seconds_sum", &[], 0.25),
            ("dacpipe_commit_seconds_bucket", &[("le", "+Inf")], 1.0),
            ("dacpipe_lag_rows", &[], 70.0),
            ("dacpipe_lag_seconds", &[], 1.5),
            ("dacpipe_table_version", &[], 4.0),
            ("dacpipe_drift_threshold", &[("level", "act")], 0.25),
            ("dacpipe_drift_judgements_total", &[], 1.0),
            ("dacpipe_drift_psi", &[("measure", "clusters")], 0.0),
            ("dacpipe_model_active", &[("model", "3f1c")], 1.0),
        ] {
            assert_eq!(page.value(name, labels), Some(value), "{name}");
        }
        assert_eq!(page.by("dacpipe_drift_feature_psi", "feature").count(), MOST_FEATURES);
        let first = page.value("dacpipe_drift_feature_psi", &[("feature", "f00")]).unwrap();
        assert_eq!(page.value("dacpipe_drift_psi", &[("measure", "features")]), Some(first));
        if cfg!(target_os = "linux") {
            assert!(page.value("process_resident_memory_bytes", &[]).unwrap() > 1e6);
        }
        // Another model, and no trace of the one before.
        metrics.model("aaaa");
        assert_eq!(parse(&metrics.page()).unwrap().by("dacpipe_model_active", "model").count(), 1);
    }

    #[test]
    fn reasons_are_kinds() {
        for (reason, kind) in [
            ("column \"x\" is \"a, \\\"b\\\"\", expected a number", "column … is …"),
            ("3 values, expected 5", "… values"),
            ("time 12.5e-3 s is before that of line 7 (late)", "time … s is before that of line …"),
            ("not UTF-8", "not UTF-…"),
        ] {
            assert_eq!(kind_of(reason), kind);
        }
    }

    #[test]
    fn labels_are_bounded() {
        let metrics = Metrics::new("s");
        for id in 0..1000 {
            metrics.committed(&Batch { clusters: vec![(id, 1)], ..Batch::default() });
        }
        let page = parse(&metrics.page()).unwrap();
        assert_eq!(page.by("dacpipe_cluster_rows_total", "cluster").count(), MOST_LABELS + 1);
        assert_eq!(page.value("dacpipe_cluster_rows_total", &[("cluster", OTHER)]), Some((1000 - MOST_LABELS) as f64));
        let long = "r".repeat(10_000);
        metrics.committed(&Batch { set_aside: vec![(long, 1)], ..Batch::default() });
        assert!(metrics.page().lines().all(|line| line.len() < 300));
    }

    proptest! {
        #[test]
        fn any_reason_and_any_name_make_a_page(reason in "\\PC{0,40}|[\"\\\\\n{},= ]{0,20}", name in "\\PC{0,20}") {
            let metrics = Metrics::new(&name);
            let (judgement, spec) = judged(&[&name]);
            let drift = Some((&judgement, &spec));
            metrics.committed(&Batch { set_aside: vec![(reason, 1)], drift, ..Batch::default() });
            let page = metrics.page();
            prop_assert!(parse(&page).is_ok(), "{}", page);
        }
    }
}
