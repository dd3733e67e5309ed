//! Fisher's correlation ratio of each feature.

use crate::error::{Error, Result};
use crate::kernel::{Rows, fold};
use crate::stage::FitContext;

/// Sums over some rows.
#[derive(Clone)]
struct Sums {
    counts: Vec<u64>,
    /// `classes x dim`: sums of the values minus the origin.
    values: Vec<f64>,
    /// `dim`: sums of their squares.
    squares: Vec<f64>,
}

/// For each feature the fraction of its variance that lies between the means of the classes, `sum_c n_c (m_c - m)^2 /
/// sum_p (x_p - m)^2`; 0 for a constant feature. Also the number of rows of each class. Rows without a class are left
/// out. `O(rows x dim)`, one pass.
///
/// # Errors
/// Kind `Input` if no row has a class, a value is not finite, or every weight is 0; `Cancelled`; errors of reading.
pub(super) fn weights(rows: &dyn Rows, classes: &[Option<u32>], cx: &FitContext<'_>) -> Result<(Vec<f32>, Vec<u64>)> {
    let (count, dim) = (classes.iter().flatten().max().map_or(1, |c| *c as usize + 1), rows.dim());
    let sums = 8 * (fold::parts(rows.len(), fold::MAX_PARTS).len() as u128 + 2);
    cx.room(&format!("weighing {dim} features by {count} classes"), sums * count as u128 * dim as u128)?;
    let mut origin = vec![0.0; dim];
    rows.read(0..1, &mut origin)?;
    let none = Sums { counts: vec![0; count], values: vec![0.0; count * dim], squares: vec![0.0; dim] };
    let parts = fold::fold(
        rows,
        cx.device.pool(),
        || none.clone(),
        |sums, first, block| {
            cx.control.check()?;
            for (row, class) in block.chunks_exact(dim).zip(&classes[first..]) {
                let Some(class) = *class else { continue };
                sums.counts[class as usize] += 1;
                let of_class = &mut sums.values[class as usize * dim..][..dim];
                for (((&x, &o), value), square) in row.iter().zip(&origin).zip(of_class).zip(&mut sums.squares) {
                    let x = f64::from(x) - f64::from(o);
                    *value += x;
                    *square += x * x;
                }
            }
            Ok(())
        },
    )?;
    let mut all = none;
    for part in parts {
        all.counts.iter_mut().zip(part.counts).for_each(|(a, b)| *a += b);
        all.values.iter_mut().zip(part.values).for_each(|(a, b)| *a += b);
        all.squares.iter_mut().zip(part.squares).for_each(|(a, b)| *a += b);
    }
    let n = all.counts.iter().sum::<u64>() as f64;
    if n == 0.0 {
        return Err(Error::input("no row has a label; feature_weights needs labelled rows, or no label column at all"));
    }
    let weight = |i: usize| {
        let sums = || (0..count).map(|c| (all.counts[c] as f64, all.values[c * dim + i]));
        let mean = sums().map(|(_, sum)| sum).sum::<f64>() / n;
        let total = all.squares[i] - n * mean * mean;
        let between: f64 = sums().filter(|(n, _)| *n > 0.0).map(|(n, sum)| n * (sum / n - mean).powi(2)).sum();
        // The rounding errors of a constant feature do not count as variance.
        let varies = total > all.squares[i] * n * f64::EPSILON;
        (i, if varies { (between / total).clamp(0.0, 1.0) as f32 } else { 0.0 }, total)
    };
    let weighed: Vec<(usize, f32, f64)> = (0..dim).map(weight).collect();
    if let Some((feature, ..)) = weighed.iter().find(|(_, _, total)| !total.is_finite()) {
        return Err(Error::input(format!("feature {feature} is not a finite number in every row")));
    }
    match weighed.iter().any(|(_, weight, _)| *weight > 0.0) {
        true => Ok((weighed.into_iter().map(|(_, weight, _)| weight).collect(), all.counts)),
        false => Err(Error::input("every feature weight is 0: no feature differs between classes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Cpu;
    use crate::event::Control;
    use crate::kernel::Dense;
    use crate::seed::Seed;
    use crate::stage::NoCheckpoint;

    /// The definition, feature by feature.
    fn by_hand(rows: &[f32], dim: usize, classes: &[Option<u32>], feature: usize) -> f64 {
        let value = |i: usize| f64::from(rows[i * dim + feature]);
        let labelled: Vec<usize> = (0..classes.len()).filter(|&i| classes[i].is_some()).collect();
        let mean = |of: &[usize]| of.iter().map(|&i| value(i)).sum::<f64>() / of.len() as f64;
        let m = mean(&labelled);
        let total: f64 = labelled.iter().map(|&i| (value(i) - m).powi(2)).sum();
        let between: f64 = (0..3)
            .map(|c| labelled.iter().copied().filter(|&i| classes[i] == Some(c)).collect::<Vec<_>>())
            .map(|of| of.len() as f64 * (mean(&of) - m).powi(2))
            .sum();
        between / total
    }

    #[test]
    fn weights_are_the_definition_s_for_any_number_of_threads() {
        let dim = 4;
        let classes: Vec<Option<u32>> = (0..5000).map(|i| (i % 7 != 0).then_some(i % 3)).collect();
        let mut rows: Vec<f32> = (0..5000 * dim).map(|i| ((i * i) as f32 * 0.01).sin() + 1000.0).collect();
        rows.chunks_exact_mut(dim).zip(&classes).for_each(|(row, class)| {
            row[1] += class.unwrap_or(0) as f32;
            row[3] = 5.0;
        });
        let of = |threads| {
            let (device, control) = (Cpu::new(threads), Control::default());
            let cx = FitContext {
                seed: Seed(1),
                device: &device,
                control: &control,
                checkpoint: &NoCheckpoint,
                memory: u64::MAX,
            };
            weights(&Dense::new(&rows, dim), &classes, &cx).unwrap()
        };
        let (found, counts) = of(1);
        for (feature, &weight) in found.iter().enumerate().take(3) {
            let expected = by_hand(&rows, dim, &classes, feature);
            assert!((f64::from(weight) - expected).abs() < 1e-6, "{feature}: {weight} {expected}");
        }
        assert_eq!(found[3], 0.0);
        assert_eq!(counts.iter().sum::<u64>() as usize, classes.iter().flatten().count());
        assert_eq!(of(3), (found, counts));
    }
}
