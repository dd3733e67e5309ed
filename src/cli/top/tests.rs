use super::watched::Watched;
use super::*;
use crate::live::exposition::parse;

/// Figures of a stream after so many rows.
fn figures(rows: u64) -> Exposition {
    let page = format!(
        r#"# TYPE dacpipe_build info
dacpipe_build_info{{version="0.1.0",pipeline="pump"}} 1
# TYPE process_resident_memory_bytes gauge
process_resident_memory_bytes 123456789
# TYPE dacpipe_rows_read counter
dacpipe_rows_read_total {}
# TYPE dacpipe_rows_labelled counter
dacpipe_rows_labelled_total {rows}
# TYPE dacpipe_rows_set_aside counter
dacpipe_rows_set_aside_total{{reason="column … is …"}} 12
dacpipe_rows_set_aside_total{{reason="time … is before that of line …"}} 3
# TYPE dacpipe_cluster_rows counter
dacpipe_cluster_rows_total{{cluster="0"}} 1500
dacpipe_cluster_rows_total{{cluster="7"}} 700
dacpipe_cluster_rows_total{{cluster="12"}} 20
# TYPE dacpipe_commits counter
dacpipe_commits_total 42
# TYPE dacpipe_batch_seconds histogram
dacpipe_batch_seconds_sum 2.1
dacpipe_batch_seconds_count 42
dacpipe_batch_seconds_bucket{{le="0.064"}} 40
dacpipe_batch_seconds_bucket{{le="0.128"}} 42
dacpipe_batch_seconds_bucket{{le="+Inf"}} 42
# TYPE dacpipe_commit_seconds histogram
dacpipe_commit_seconds_sum 84
dacpipe_commit_seconds_count 42
dacpipe_commit_seconds_bucket{{le="+Inf"}} 42
# TYPE dacpipe_lag_rows gauge
dacpipe_lag_rows 570
# TYPE dacpipe_lag_seconds gauge
dacpipe_lag_seconds 1.25
# TYPE dacpipe_table_version gauge
dacpipe_table_version 41
# TYPE dacpipe_drift_psi gauge
dacpipe_drift_psi{{measure="features"}} 0.512
dacpipe_drift_psi{{measure="clusters"}} 0.14
dacpipe_drift_psi{{measure="distances"}} 0.02
# TYPE dacpipe_drift_feature_psi gauge
dacpipe_drift_feature_psi{{feature="x-mean"}} 0.512
dacpipe_drift_feature_psi{{feature="a feature of a very long name"}} 0.3
# TYPE dacpipe_drift_threshold gauge
dacpipe_drift_threshold{{level="watch"}} 0.1
dacpipe_drift_threshold{{level="act"}} 0.25
# TYPE dacpipe_model_active gauge
dacpipe_model_active{{model="3f1c0123456789abcdef"}} 1
# EOF
"#,
        rows * 4
    );
    parse(&page).unwrap()
}

fn watched() -> Watched {
    let mut watched = Watched::new("127.0.0.1:9464");
    let mut rows = 0;
    for second in 0..30_u32 {
        watched.add(f64::from(second), Ok(figures(rows)));
        rows += 100 * u64::from(second % 10);
    }
    watched
}

#[test]
fn the_page_of_a_terminal() {
    insta::assert_snapshot!(plain(&watched(), 80, 24).unwrap(), @r"
    pump at 127.0.0.1:9464   q ends
    model 3f1c0123456789ab   version 41
    ┌ rows/s: 800, at most 900 ────────────────────────────────────────────────────┐
    │        ▄█        ▄█        ▄                                                 │
    │     ▁▅███     ▁▅███     ▁▅██                                                 │
    │   ▂▆█████   ▂▆█████   ▂▆████                                                 │
    │ ▃▇███████ ▃▇███████ ▃▇██████                                                 │
    └──────────────────────────────────────────────────────────────────────────────┘
    ┌ stream ──────────────────────────────────────────────────────────────────────┐
    │rows     12 600 labelled of 50 400 read                                       │
    │         15 set aside   memory 123.5 MB                                       │
    │lag      1.2 s, 570 rows                                                      │
    │batch    50 ms (99 % below 128 ms)                                            │
    │commit   2.0 s (1 % above 65 s)   42 commits                                  │
    └──────────────────────────────────────────────────────────────────────────────┘
    ┌ rows by cluster ─────────────────────┐┌ drift (watch 0.1, act 0.25) ─────────┐
    │ 0 █████████████████████████████ 1 500││features                 0.512 act    │
    │ 7 ██████████████                  700││clusters                 0.140 watch  │
    │12                                  20││distances                0.020        │
    │                                      │└──────────────────────────────────────┘
    │                                      │┌ set aside, by reason ────────────────┐
    │                                      ││      12  column … is …               │
    │                                      ││       3  time … is before that of lin│
    └──────────────────────────────────────┘└──────────────────────────────────────┘
    ");
}

#[test]
fn the_page_of_a_narrow_terminal() {
    insta::assert_snapshot!(plain(&watched(), 42, 30).unwrap(), @r"
    pump at 127.0.0.1:9464   q ends
    model 3f1c0123456789ab   version 41
    ┌ rows/s: 800, at most 900 ──────────────┐
    │        ▄█        ▄█        ▄           │
    │     ▁▅███     ▁▅███     ▁▅██           │
    │   ▂▆█████   ▂▆█████   ▂▆████           │
    │ ▃▇███████ ▃▇███████ ▃▇██████           │
    └────────────────────────────────────────┘
    ┌ stream ────────────────────────────────┐
    │rows     12 600 labelled of 50 400 read │
    │         15 set aside   memory 123.5 MB │
    │lag      1.2 s, 570 rows                │
    │batch    50 ms (99 % below 128 ms)      │
    │commit   2.0 s (1 % above 65 s)   42 com│
    └────────────────────────────────────────┘
    ┌ rows by cluster ───────────────────────┐
    │ 0 ███████████████████████████████ 1 500│
    │ 7 ██████████████                    700│
    │12                                    20│
    │                                        │
    │                                        │
    │                                        │
    └────────────────────────────────────────┘
    ┌ drift (watch 0.1, act 0.25) ───────────┐
    │features                 0.512 act      │
    └────────────────────────────────────────┘
    ┌ set aside, by reason ──────────────────┐
    │      12  column … is …                 │
    │       3  time … is before that of line │
    └────────────────────────────────────────┘
    ");
}

#[test]
fn a_stream_that_is_gone_is_said_to_be() {
    let mut watched = watched();
    watched.add(30.0, Err("nobody serves there".into()));
    watched.add(34.0, Err("nobody serves there".into()));
    let page = plain(&watched, 80, 24).unwrap();
    assert!(page.contains("gone for 4 s: nobody serves there; trying again"), "{page}");
    assert!(page.contains("rows     12 600 labelled"), "what was seen last stays: {page}");
    // It is there again, and counts from 0.
    watched.add(40.0, Ok(figures(50)));
    assert_eq!(watched.rates.back(), Some(&(50.0 / 11.0)));
    assert!(!plain(&watched, 80, 24).unwrap().contains("gone"));
    let mut never = Watched::new("x:1");
    assert!(plain(&never, 80, 24).unwrap().contains("connecting"));
    never.add(0.0, Err("why".into()));
    assert!(plain(&never, 80, 24).unwrap().contains("not there for 0 s: why; trying again"));
}

#[test]
fn any_size_can_be_drawn() {
    let watched = watched();
    for width in [1, 2, 3, 10, 25, 63, 64, 65, 200] {
        for height in [1, 2, 3, 7, 8, 13, 14, 16, 60] {
            plain(&watched, width, height).unwrap();
        }
    }
}

#[test]
fn addresses_and_urls_are_places() {
    for (text, shown) in [
        ("127.0.0.1:9464", "127.0.0.1:9464"),
        ("http://host:1/metrics", "host:1"),
        ("http://host:1/", "host:1"),
        ("[::1]:80", "[::1]:80"),
        ("host:1/other", "host:1/other"),
    ] {
        assert_eq!(Place::parse(text).unwrap().shown(), shown);
    }
    for text in ["host", "host:port", "https://host:1", "a b:1", "host:70000", "", "h:1/\u{1b}"] {
        assert_eq!(Place::parse(text).unwrap_err().kind(), crate::Kind::Config, "{text:?}");
    }
}
