//! Tests of pages for all kinds of findings.

use std::collections::BTreeMap;

use serde_json::json;

use super::super::findings::{Agreement, Apart, Drawn, Portrait, Rebuilt};
use super::super::run::{RunReport, Scores, StageReport};
use super::*;

const EVIL: &str = "</script></style></svg><script>alert('1')</script>\"'><img src=x onerror=alert(2)>&amp;\u{0}";

/// Findings of a table of `rows` rows in `k` clusters of `width` features; `name` makes the names in them.
fn findings(rows: u64, k: i32, width: usize, name: &dyn Fn(usize) -> String) -> Findings {
    let drawn = rows.min(20_000) as usize;
    let place = |i: usize| (i as f64 * 0.754_877_666).fract();
    let cluster = |i: usize| (i as i32 * 7) % k;
    let mut agreement = Agreement { column: name(0), unlabelled: 3, ..Agreement::default() };
    let mut sizes: BTreeMap<i32, u64> = (0..k).map(|cluster| (cluster, 0)).collect();
    for i in 0..drawn {
        let share = rows / drawn as u64;
        *sizes.get_mut(&cluster(i)).unwrap() += share;
        *agreement.counts.entry(cluster(i)).or_default().entry(name(i % 11)).or_default() += share;
    }
    let figures = json!({"epochs": 40, "loss": vec![0.5; 40], "sizes": [1, 2, 3]});
    let scores = |ari| BTreeMap::from([(name(1), Scores { rows, ari, nmi: 0.5, acc: None })]);
    let run = RunReport {
        dacpipe: name(2),
        name: name(3),
        run: name(4),
        pipeline: name(5),
        seed: 7,
        started_at: name(6),
        seconds: 1.0,
        source: name(7),
        simulated: true,
        fit_rows: 10,
        labelled_rows: rows,
        quarantined_rows: 0,
        left_alone: vec![],
        left_out: None,
        notes: vec![],
        drift: vec![],
        samples: None,
        skipped_rows: 0,
        replaced_rows: 0,
        threads: 1,
        memory_limit: 1,
        spilled_rows: 0,
        stages: vec![StageReport {
            stage: name(8),
            seconds: 1.0,
            summary: name(9),
            figures: figures.as_object().unwrap().clone(),
        }],
        cluster_ids: vec![],
        cluster_sizes: vec![],
        vectors: None,
        label_column: Some(name(0)),
        labels_used: false,
        scores: scores(0.9),
        raw_kmeans: scores(0.1),
        model: name(10),
        model_path: name(10),
        table: name(11),
        table_version: 0,
        report: None,
    };
    let portrait = |cluster: i32| Portrait {
        cluster,
        apart: (0..8)
            .map(|i| Apart { feature: name(i), mean: 0.0, overall: 1.0, difference: i as f64 - 4.5 })
            .collect(),
        image: None,
    };
    let values = |shift: f64| (0..width).map(|i| place(i) + shift).collect::<Vec<f64>>();
    Findings {
        name: name(3),
        table: name(11),
        version: 4,
        model: name(10),
        rows,
        sizes,
        run: Ok(run),
        agreement: Ok(agreement),
        sample: Ok(Drawn {
            points: (0..drawn).map(|i| [place(i) + f64::from(cluster(i)), place(i * i)]).collect(),
            shares: [0.5, 0.25],
            clusters: (0..drawn).map(cluster).collect(),
            labels: (0..drawn).map(|i| (i % 13 > 0).then(|| name(i % 11))).collect(),
            embedded: true,
        }),
        weights: Ok(values(0.0)),
        portraits: Ok((0..k).map(portrait).collect()),
        rebuilt: Ok((0..9)
            .map(|i| Rebuilt { cluster: i, label: Some(name(i as usize)), input: values(0.0), output: values(0.1) })
            .collect()),
        notes: vec![name(12)],
        features: (0..width).map(name).collect(),
        width,
    }
}

/// The names of all elements in a page or a file.
fn elements(text: &str) -> std::collections::BTreeSet<&str> {
    text.split('<').skip(1).map(|rest| rest.trim_start_matches('/').split([' ', '>', '/']).next().unwrap()).collect()
}

#[test]
fn nothing_of_the_data_is_markup() {
    let evil = |i: usize| format!("{EVIL}{i}");
    let page = Page::of(&findings(500, 5, 30, &evil)).unwrap();
    let ours = |i: usize| format!("name {i}");
    let plain = Page::of(&findings(500, 5, 30, &ours)).unwrap();
    for (name, text) in page.files() {
        assert!(!name.contains(['<', '/', '"']), "{name}");
        for broken in ["<script", "<img", "</svg><script", "\u{0}"] {
            assert!(!text.contains(broken), "{name}: {broken}");
        }
    }
    assert_eq!(elements(&page.html), elements(&plain.html));
    assert_eq!(page.html.matches("</style>").count(), 1);
    assert!(page.html.contains("&lt;script&gt;alert(&#39;1&#39;)"));
}

#[test]
fn every_part_is_drawn_once_and_under_its_own_name() {
    let page = Page::of(&findings(500, 5, 30, &|i| format!("group{}-{i}", i % 3))).unwrap();
    let names: Vec<&str> = page.figures.iter().map(|figure| figure.name.as_str()).collect();
    let expected = [
        "embedding-clusters",
        "embedding-labels",
        "sizes",
        "contingency",
        "group2-8-loss",
        "feature-weights",
        "reconstructions",
    ];
    assert_eq!(names, expected);
    assert!(!page.html.contains("group2-8-sizes"), "a list that is not by epoch is no loss");
}

#[test]
fn many_clusters_and_rows_make_a_page_of_bounded_size() {
    for (rows, k) in [(100, 3), (1_000_000, 12), (70_000, 100)] {
        let page = Page::of(&findings(rows, k, 561, &|i| format!("feature-{i}"))).unwrap();
        assert!(page.html.len() < 700_000, "{rows} rows, {k} clusters: {} bytes", page.html.len());
        assert!(!page.html.contains("NaN"));
    }
}

#[test]
fn rows_of_a_square_number_of_unnamed_values_are_images() {
    let mut findings = findings(500, 5, 64, &|i| i.to_string());
    findings.features = (0..64).map(|i| format!("pixels[{i}]")).collect();
    for portrait in findings.portraits.as_mut().unwrap() {
        portrait.image = Some(vec![0.5; 64]);
    }
    let page = Page::of(&findings).unwrap();
    assert!(page.figures.iter().any(|figure| figure.name == "cluster-means"));
    findings.width = 63;
    assert_eq!(findings.side(), None);
}

#[test]
fn what_is_missing_is_a_sentence() {
    let mut findings = findings(500, 1, 30, &|i| format!("name {i}"));
    findings.run = Err("no <run>".into());
    findings.agreement = Err("no labels".into());
    findings.sample = Err("no sample".into());
    findings.weights = Err("no weights".into());
    findings.portraits = Err("no profile".into());
    findings.rebuilt = Err("no decoder".into());
    let page = Page::of(&findings).unwrap();
    for words in ["no &lt;run&gt;", "no labels", "no sample", "no weights", "no profile", "no decoder"] {
        assert_eq!(page.html.matches(&format!("<p class=\"missing\">{words}</p>")).count(), 1, "{words}");
    }
    assert_eq!(page.figures.len(), 1, "the sizes are left");
}
