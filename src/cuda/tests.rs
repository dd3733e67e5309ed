//! The kernels on the emulated machine or a GPU, beside those of the processor.

use super::machine::{Buffer, View};
use super::{Machine, ops, tested};
use crate::kernel::adam::Adam;
use crate::kernel::dense::{sum_of_squares, weighted_squared_error};

/// Numbers about zero by a fixed rule.
fn some(len: usize, salt: f32) -> Vec<f32> {
    (0..len).map(|i| (i as f32 * 0.7 + salt).sin() * 1.5).collect()
}

fn near(ours: &[f32], theirs: &[f32], error: f32) {
    assert_eq!(ours.len(), theirs.len());
    for (i, (a, b)) in ours.iter().zip(theirs).enumerate() {
        assert!((a - b).abs() <= error * b.abs().max(1.0), "{i}: {a} {b}");
    }
}

fn read(machine: &dyn Machine, view: View<'_, f32>) -> Vec<f32> {
    view.read(machine).unwrap()
}

#[test]
fn products_are_row_major_and_of_transposed_matrices() {
    let Some(machine) = tested() else { return };
    let on = &*machine;
    let (rows, columns, inner) = (3, 5, 4);
    let (left, right) = (some(rows * inner, 0.1), some(inner * columns, 0.5));
    let transposed = |values: &[f32], width: usize| -> Vec<f32> {
        (0..width).flat_map(|j| values.chunks(width).map(move |row| row[j])).collect()
    };
    let expected: Vec<f32> = (0..rows * columns)
        .map(|at| (0..inner).map(|p| left[at / columns * inner + p] * right[p * columns + at % columns]).sum())
        .collect();
    for flags in [[false, false], [true, false], [false, true], [true, true]] {
        let left = if flags[0] { transposed(&left, inner) } else { left.clone() };
        let right = if flags[1] { transposed(&right, columns) } else { right.clone() };
        let (left, right) = (Buffer::of(on, &left).unwrap(), Buffer::of(on, &right).unwrap());
        let out = Buffer::zeros(on, rows * columns).unwrap();
        ops::multiply(on, [rows, columns, inner], [left.all(), right.all()], flags, out.all()).unwrap();
        near(&read(on, out.all()), &expected, 1e-6);
    }
}

#[test]
fn adam_is_the_processor_s() {
    let Some(machine) = tested() else { return };
    let on = &*machine;
    let len = 700;
    let adam = Adam { weight_decay: 0.1, ..Adam::default() };
    let (mut parameters, mut first, mut second) = (some(len, 0.2), vec![0.0; len], vec![0.0; len]);
    let arrays = [&parameters, &first, &first, &second].map(|values| Buffer::of(on, values).unwrap());
    let views = || arrays.each_ref().map(Buffer::all);
    for step in 1..5u64 {
        let gradient = some(len, step as f32);
        views()[1].write(on, &gradient).unwrap();
        let (rate, l2) = (0.01, 0.003);
        adam.step(step, rate, l2).apply(&mut parameters, &gradient, &mut first, &mut second);
        let correction = |beta: f32| 1.0 - f64::from(beta).powf(step as f64);
        let numbers = [
            adam.beta1,
            adam.beta2,
            adam.epsilon,
            (rate / correction(adam.beta1)) as f32,
            (1.0 / correction(adam.beta2).sqrt()) as f32,
            l2 as f32,
            (rate * f64::from(adam.weight_decay)) as f32,
        ];
        ops::adam_told(on, views(), numbers).unwrap();
    }
    near(&read(on, views()[0]), &parameters, 1e-6);
    near(&read(on, views()[2]), &first, 1e-6);
    near(&read(on, views()[3]), &second, 1e-6);
}

#[test]
fn errors_and_squares_are_the_processor_s() {
    let Some(machine) = tested() else { return };
    let on = &*machine;
    // More values than all threads of all blocks take in one go.
    let (rows, width) = (90, 800);
    let (x, y, weights) = (some(rows * width, 0.3), some(rows * width, 0.9), some(width, 2.0));
    let [on_x, on_y, on_weights] = [&x, &y, &weights].map(|values| Buffer::of(on, values).unwrap());
    let (d, sums) = (Buffer::zeros(on, rows * width).unwrap(), Buffer::zeros(on, ops::SUMS).unwrap());
    for (host, device) in [(&weights[..], Some(on_weights.all())), (&[], None)] {
        let mut gradient = vec![0.0; rows * width];
        let expected: f64 = (0..rows)
            .map(|row| {
                let range = row * width..(row + 1) * width;
                weighted_squared_error(&x[range.clone()], &y[range.clone()], host, 0.25, &mut gradient[range])
            })
            .sum();
        let arrays = [on_x.all(), on_y.all(), d.all()];
        ops::weighted_error(on, arrays, device, sums.all(), [rows, width], 0.5).unwrap();
        let sum: f64 = sums.all().read(on).unwrap()[..ops::sums_of(rows * width)].iter().sum();
        assert!((sum - expected).abs() < 1e-5 * expected.abs(), "{sum} {expected}");
        near(&read(on, d.all()), &gradient, 1e-6);
    }
    ops::sum_of_squares(on, on_x.all(), sums.all()).unwrap();
    let sum: f64 = sums.all().read(on).unwrap()[..ops::sums_of(x.len())].iter().sum();
    assert!((sum - sum_of_squares(&x)).abs() < 1e-9 * sum, "{sum}");
}

/// The nearest two by plain loops, in a tie the lower number.
fn nearest_two(row: &[f32], centroids: &[f32]) -> (u32, f64, f64) {
    let squared = |c: &[f32]| row.iter().zip(c).map(|(x, c)| f64::from(x - c).powi(2)).sum::<f64>();
    let mut found = (0, f64::INFINITY, f64::INFINITY);
    for (label, distance) in centroids.chunks_exact(row.len()).map(squared).enumerate() {
        if distance < found.1 {
            found = (label as u32, distance, found.1);
        } else if distance < found.2 {
            found.2 = distance;
        }
    }
    found
}

#[test]
fn nearest_centroids_and_sums_of_clusters_are_those_of_plain_loops() {
    let Some(machine) = tested() else { return };
    let on = &*machine;
    // Below, at and above the sizes of tiles and blocks; a single centroid.
    for (n, k, dim) in [(1, 1, 1), (130, 5, 3), (128, 16, 16), (257, 37, 50), (40, 33, 17)] {
        let rows = some(n * dim, 0.1);
        let mut centroids = some(k * dim, 1.3);
        // Two that are the same: the lower number is the nearest, and the second is as near.
        if k > 4 {
            let (head, tail) = centroids.split_at_mut(4 * dim);
            tail[..dim].copy_from_slice(&head[dim..2 * dim]);
        }
        let [on_rows, on_centroids] = [&rows, &centroids].map(|values| Buffer::of(on, values).unwrap());
        let labels = Buffer::zeros(on, n).unwrap();
        let [squared, second] = [(); 2].map(|()| Buffer::<f32>::zeros(on, n).unwrap());
        let arrays = [on_rows.all(), on_centroids.all()];
        ops::nearest(on, arrays, labels.all(), [squared.all(), second.all()], dim).unwrap();
        let found = labels.all().read(on).unwrap();
        let (squared, second) = (read(on, squared.all()), read(on, second.all()));
        for (i, row) in rows.chunks_exact(dim).enumerate() {
            let (label, least, next) = nearest_two(row, &centroids);
            assert_eq!(found[i], label, "{n} {k} {dim} row {i}");
            assert!((f64::from(squared[i]) - least).abs() <= 1e-5 * least.max(1e-3), "{} {least}", squared[i]);
            let same = second[i] == next as f32 || (f64::from(second[i]) - next).abs() <= 1e-5 * next;
            assert!(same, "{n} {k} {dim} row {i}: {} {next}", second[i]);
        }
        let sums = Buffer::zeros(on, k * (dim + 1)).unwrap();
        let part = Buffer::zeros(on, ops::cluster_parts(n, k, dim) * k * (dim + 1)).unwrap();
        ops::cluster_sums(on, on_rows.all(), labels.all(), [part.all(), sums.all()], [k, dim]).unwrap();
        let mut expected = vec![0.0; k * (dim + 1)];
        for (row, &label) in rows.chunks_exact(dim).zip(&found) {
            let sums = &mut expected[label as usize * (dim + 1)..][..dim + 1];
            sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
            sums[dim] += 1.0;
        }
        for (a, b) in sums.all().read(on).unwrap().iter().zip(&expected) {
            assert!((a - b).abs() < 1e-10, "{a} {b}");
        }
    }
}

/// Equal distances, infinite ones, and values that are none.
#[test]
fn distances_too_large_for_32_bits_still_have_a_nearest() {
    let Some(machine) = tested() else { return };
    let on = &*machine;
    let [rows, centroids] = [vec![1e30, 0.5], vec![0.0, 1.0]].map(|values: Vec<f32>| Buffer::of(on, &values).unwrap());
    let labels = Buffer::zeros(on, 2).unwrap();
    let [squared, second] = [(); 2].map(|()| Buffer::<f32>::zeros(on, 2).unwrap());
    ops::nearest(on, [rows.all(), centroids.all()], labels.all(), [squared.all(), second.all()], 1).unwrap();
    assert_eq!(labels.all().read(on).unwrap(), [0, 0]);
    assert_eq!(read(on, squared.all()), [f32::INFINITY, 0.25]);
    assert_eq!(read(on, second.all()), [f32::INFINITY, 0.25]);
}

#[test]
fn gathered_rows_are_those_of_the_numbers() {
    let Some(machine) = tested() else { return };
    let on = &*machine;
    let dim = 300;
    let all = some(20 * dim, 0.0);
    let on_all = Buffer::of(on, &all).unwrap();
    let numbers = [7u32, 0, 19, 7];
    let on_numbers = Buffer::of(on, &numbers).unwrap();
    let out = Buffer::zeros(on, numbers.len() * dim).unwrap();
    ops::gather_rows(on, on_all.all(), on_numbers.all(), out.all(), dim).unwrap();
    let expected: Vec<f32> = numbers.iter().flat_map(|&row| all[row as usize * dim..][..dim].to_vec()).collect();
    assert_eq!(read(on, out.all()), expected);
}

#[test]
fn lengths_that_do_not_fit_never_reach_a_kernel() {
    let Some(machine) = tested() else { return };
    let on = &*machine;
    let (long, short) = (Buffer::<f32>::zeros(on, 12).unwrap(), Buffer::<f32>::zeros(on, 11).unwrap());
    let refused = |task: &dyn Fn()| std::panic::catch_unwind(std::panic::AssertUnwindSafe(task)).is_err();
    assert!(refused(&|| drop(ops::bias_activation(on, short.all(), long.part(0..4), 3, 0))));
    assert!(refused(&|| drop(ops::adam_told(on, [long.all(), long.all(), short.all(), long.all()], [0.0; 7]))));
    assert!(refused(&|| assert_eq!(short.part(5..12).len(), 7)));
    assert!(refused(&|| drop(ops::multiply(on, [3, 2, 2], [long.all(), short.all()], [false; 2], long.all()))));
}

/// What is recorded is not done until it is repeated, and then as often.
#[test]
fn recorded_work_is_repeated() {
    let Some(machine) = tested() else { return };
    let on = &*machine;
    let (values, more) = (Buffer::of(on, &[1.0f32, 2.0]).unwrap(), Buffer::of(on, &[0.5f32, 0.25]).unwrap());
    let recorded = on.record(&mut || ops::add_to(on, values.all(), more.all())).unwrap();
    assert_eq!(read(on, values.all()), [1.0, 2.0]);
    recorded.replay().unwrap();
    recorded.replay().unwrap();
    assert_eq!(read(on, values.all()), [2.0, 2.5]);
}
