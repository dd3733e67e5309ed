//! Sums over channels: the gradients of biases.

use super::{Accumulate, PARTS};
use crate::Pool;
use crate::isa::vectorised;

/// Sums of `values` (images of `channels` channels of `positions` values) over images and positions, channel by
/// channel, in double precision: the gradient of biases that were added to them.
///
/// Panics if a slice does not have the length that the extents say.
pub fn sum_channels(
    pool: &Pool,
    values: &[f32],
    channels: usize,
    positions: usize,
    accumulate: Accumulate,
    sums: &mut [f32],
) {
    let image = channels * positions;
    assert!(
        image > 0 && sums.len() == channels && values.len().is_multiple_of(image),
        "images of {channels} x {positions}"
    );
    let in_part = (values.len() / image).div_ceil(PARTS).max(1) * image;
    let parts = pool.map(values.len().div_ceil(in_part), |part| {
        let mut sums = vec![0.0; channels];
        add_channels(&values[part * in_part..values.len().min((part + 1) * in_part)], positions, &mut sums);
        sums
    });
    for (c, sum) in sums.iter_mut().enumerate() {
        accumulate.write(sum, parts.iter().map(|part| part[c]).sum::<f64>() as f32);
    }
}

vectorised! {
    /// Adds the runs of `positions` values to the sums of the channels, image after image.
    fn add_channels(values: &[f32], positions: usize, sums: &mut [f64]) {
        for image in values.chunks_exact(positions * sums.len()) {
            for (sum, run) in sums.iter_mut().zip(image.chunks_exact(positions)) {
                let (eights, rest) = run.as_chunks::<8>();
                let mut lanes = [0.0_f64; 8];
                for eight in eights {
                    lanes.iter_mut().zip(eight).for_each(|(lane, &v)| *lane += f64::from(v));
                }
                let pairs: [f64; 4] = std::array::from_fn(|l| lanes[l] + lanes[l + 4]);
                let total = (pairs[0] + pairs[2]) + (pairs[1] + pairs[3]);
                *sum += rest.iter().fold(total, |total, &v| total + f64::from(v));
            }
        }
    }
}
