//! k-means from outside: bad input is refused with a message, and edge cases give a result.

use dacpipe::device::Cpu;
use dacpipe::event::Control;
use dacpipe::kernel::Dense;
use dacpipe::kmeans::{KMeans, KMeansSpec, Method, fit, fit_from};
use dacpipe::{Kind, Result, Seed};

fn clusters(rows: &[f32], dim: usize, spec: &KMeansSpec) -> Result<KMeans> {
    fit(&Dense::new(rows, dim), spec, Seed(7), &Cpu::new(2), &Control::default())
}

fn refused(rows: &[f32], dim: usize, spec: &KMeansSpec, kind: Kind, message: &str) {
    let error = clusters(rows, dim, spec).unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(message), "{error}, expected {message}");
}

#[test]
fn what_cannot_be_clustered_is_refused() {
    refused(&[1.0, 2.0], 1, &KMeansSpec::new(3), Kind::Input, "k = 3 clusters need at least 3 rows, there are 2");
    refused(&[1.0; 9], 1, &KMeansSpec::new(2), Kind::Input, "only 1 of the 9 rows are distinct");
    refused(&[0.0, 1.0, f32::NAN, 3.0], 2, &KMeansSpec::new(1), Kind::Input, "row 1, feature 0 is NaN");
    refused(&[f32::INFINITY, 1.0], 1, &KMeansSpec::new(1), Kind::Input, "row 0, feature 0 is inf");
    refused(&[-1e20, 1e20], 1, &KMeansSpec::new(1), Kind::Input, "scale them first");
    refused(&[1.0], 1, &KMeansSpec::new(0), Kind::Config, "k = 0");
    let spec = KMeansSpec { tolerance: f64::NAN, ..KMeansSpec::new(1) };
    refused(&[1.0], 1, &spec, Kind::Config, "tolerance = NaN");
    let spec = KMeansSpec { method: Method::MiniBatch { batch_size: 0 }, ..KMeansSpec::new(1) };
    refused(&[1.0], 1, &spec, Kind::Config, "batch_size = 0");
}

#[test]
fn edges_have_their_answers() {
    let one = clusters(&[3.0, 4.0], 2, &KMeansSpec::new(1)).unwrap();
    assert_eq!((one.centroids, one.inertia, one.sizes), (vec![3.0, 4.0], 0.0, vec![1]));
    let zeros = clusters(&[0.0; 20], 4, &KMeansSpec::new(1)).unwrap();
    assert_eq!((zeros.centroids, zeros.inertia, zeros.sizes), (vec![0.0; 4], 0.0, vec![5]));
    // As many clusters as rows: each row is its own.
    let rows: Vec<f32> = (0..50).map(|i| (i * 17 % 50) as f32).collect();
    let all = clusters(&rows, 1, &KMeansSpec::new(50)).unwrap();
    assert_eq!((all.inertia, all.sizes), (0.0, vec![1; 50]));
    assert_eq!(all.centroids, (0..50).map(|i| i as f32).collect::<Vec<_>>());
}

#[test]
fn mini_batches_come_near_to_lloyd_and_repeat_themselves() {
    let rows: Vec<f32> = (0..40_000).map(|i| (i % 4 * 10) as f32 + (i * 7919 % 1000) as f32 / 1000.0).collect();
    let lloyd = clusters(&rows, 1, &KMeansSpec::new(4)).unwrap();
    let spec = KMeansSpec { method: Method::MiniBatch { batch_size: 1000 }, ..KMeansSpec::new(4) };
    let batches = clusters(&rows, 1, &spec).unwrap();
    assert!(batches.inertia <= lloyd.inertia * 1.02, "{} {}", batches.inertia, lloyd.inertia);
    assert_eq!(batches.sizes, lloyd.sizes);
    let again = fit(&Dense::new(&rows, 1), &spec, Seed(7), &Cpu::new(3), &Control::default()).unwrap();
    assert_eq!(batches, again);
}

#[test]
fn an_interrupt_is_obeyed_and_given_centroids_must_fit() {
    let control = Control::default();
    control.cancel();
    let rows = [0.0, 1.0, 5.0, 6.0];
    let dense = Dense::new(&rows, 1);
    let error = fit(&dense, &KMeansSpec::new(2), Seed(1), &Cpu::new(1), &control).unwrap_err();
    assert_eq!(error.kind(), Kind::Cancelled);
    let from = |initial| fit_from(&dense, &KMeansSpec::new(2), initial, &Cpu::new(1), &Control::default());
    assert_eq!(from(vec![0.0, 1.0]).unwrap().centroids, [0.5, 5.5]);
    assert!(from(vec![0.0]).unwrap_err().to_string().contains("expected 2 centroids of 1 values"));
}
