//! The largest of each window of an image, and the repetition of each value in a block, with their gradients.
//!
//! Both work on planes: one channel of one image each, row after row.

use super::Pool;
use super::isa::vectorised;

/// Values that one task takes, at least.
const TASK_VALUES: usize = 1 << 14;

/// Windows that slide over planes of `height x width` values and of which the largest value is kept.
///
/// Without padding; what is left over at the end of a row or column is in no window.
///
/// ```
/// use dacpipe_kernel::Pool;
/// use dacpipe_kernel::pooling::MaxPooling;
/// let pooling = MaxPooling::new([2, 4], [2, 2], [2, 2]).expect("a window fits");
/// let (mut out, mut places) = ([0.0; 2], [0; 2]);
/// pooling.forward(&Pool::new(1), &[1.0, 2.0, 7.0, 0.0, 4.0, 3.0, 0.0, 7.0], &mut out, &mut places);
/// // Of the two sevens the first one counts.
/// assert_eq!((out, places), ([4.0, 7.0], [4, 2]));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxPooling {
    size: [usize; 2],
    window: [usize; 2],
    stride: [usize; 2],
    output: [usize; 2],
}

impl MaxPooling {
    /// Windows of `window` over planes of `size`, `stride` apart, all pairs in the order of rows and columns.
    ///
    /// # Errors
    /// What does not fit, in words: an extent or stride of zero, or a window larger than the plane.
    pub fn new(size: [usize; 2], window: [usize; 2], stride: [usize; 2]) -> Result<Self, String> {
        if size.into_iter().chain(window).chain(stride).any(|extent| extent == 0) {
            return Err(format!(
                "a plane of {size:?}, a window of {window:?}, a stride of {stride:?}: none may be zero"
            ));
        }
        if window[0] > size[0] || window[1] > size[1] {
            return Err(format!("a window of {window:?} does not fit in a plane of {size:?}"));
        }
        if size[0].checked_mul(size[1]).is_none_or(|values| u32::try_from(values).is_err()) {
            return Err(format!("a plane of {size:?} is too large"));
        }
        let output = [0, 1].map(|i| (size[i] - window[i]) / stride[i] + 1);
        Ok(Self { size, window, stride, output })
    }

    /// Height and width of a plane of maxima.
    pub fn output(&self) -> [usize; 2] {
        self.output
    }

    /// The largest value of each window and its index in its plane; of equal ones the first, in the order of rows. A
    /// NaN is larger than every number.
    ///
    /// Panics if the slices do not hold as many planes.
    pub fn forward(&self, pool: &Pool, planes: &[f32], out: &mut [f32], places: &mut [u32]) {
        let (plane, output) = self.check(planes.len(), out.len(), places.len());
        let task = TASK_VALUES.div_ceil(plane);
        let mut parts: Vec<_> = out.chunks_mut(task * output).zip(places.chunks_mut(task * output)).collect();
        pool.for_each_chunk_mut(&mut parts, 1, |i, part| {
            let (out, places) = &mut part[0];
            let planes = planes[i * task * plane..].chunks_exact(plane);
            for ((plane, out), places) in planes.zip(out.chunks_exact_mut(output)).zip(places.chunks_exact_mut(output))
            {
                largest(self, plane, out, places);
            }
        });
    }

    /// The gradient at the planes: that at each maximum goes to the place it was found at.
    ///
    /// Panics if the slices do not hold as many planes or a place lies outside its plane.
    pub fn backward(&self, pool: &Pool, d_out: &[f32], places: &[u32], d_planes: &mut [f32]) {
        let (plane, output) = self.check(d_planes.len(), d_out.len(), places.len());
        let task = TASK_VALUES.div_ceil(plane);
        pool.for_each_chunk_mut(d_planes, task * plane, |i, d_planes| {
            d_planes.fill(0.0);
            let (d_out, places) = (&d_out[i * task * output..], &places[i * task * output..]);
            let outputs = d_out.chunks_exact(output).zip(places.chunks_exact(output));
            for (d_plane, (d_out, places)) in d_planes.chunks_exact_mut(plane).zip(outputs) {
                for (&d, &place) in d_out.iter().zip(places) {
                    d_plane[place as usize] += d;
                }
            }
        });
    }

    /// Values in a plane, before and after.
    fn check(&self, planes: usize, out: usize, places: usize) -> (usize, usize) {
        let (plane, output) = (self.size[0] * self.size[1], self.output[0] * self.output[1]);
        let n = planes / plane;
        assert!(planes == n * plane && out == n * output && places == out, "planes of {:?}", self.size);
        (plane, output)
    }
}

vectorised! {
    /// The maxima of one plane and their places.
    fn largest(pooling: &MaxPooling, plane: &[f32], out: &mut [f32], places: &mut [u32]) {
        let (width, [stride_y, stride_x]) = (pooling.size[1], pooling.stride);
        let rows = out.chunks_exact_mut(pooling.output[1]).zip(places.chunks_exact_mut(pooling.output[1]));
        for (y, (out, places)) in rows.enumerate() {
            for ky in 0..pooling.window[0] {
                let start = (y * stride_y + ky) * width;
                let row = &plane[start..start + width];
                for kx in 0..pooling.window[1] {
                    let (at, first) = ((start + kx) as u32, ky + kx == 0);
                    match stride_x {
                        1 => take_larger::<1>(1, &row[kx..], at, first, out, places),
                        2 => take_larger::<2>(2, &row[kx..], at, first, out, places),
                        _ => take_larger::<0>(stride_x, &row[kx..], at, first, out, places),
                    }
                }
            }
        }
    }
}

/// One tap of the windows of a row: where its value is larger than what is there, it and its index replace that. Its
/// values are every `STRIDE`th of `row`, or every `stride`th where `STRIDE` is zero; the first has index `at`.
#[inline(always)]
fn take_larger<const STRIDE: usize>(
    stride: usize,
    row: &[f32],
    at: u32,
    first: bool,
    out: &mut [f32],
    places: &mut [u32],
) {
    let stride = if STRIDE > 0 { STRIDE } else { stride };
    let row = &row[..(out.len() - 1) * stride + 1];
    for (i, (best, place)) in out.iter_mut().zip(places).enumerate() {
        let value = row[i * stride];
        // Not `>=`, so that the first of equal values stays; NaN beats what is not NaN.
        let better = first | (value > *best) | (value.is_nan() & !best.is_nan());
        *best = if better { value } else { *best };
        *place = if better { at + (i * stride) as u32 } else { *place };
    }
}

/// Nearest-neighbour upsampling: planes of `height x width` values of which each becomes a block of equal ones.
///
/// ```
/// use dacpipe_kernel::Pool;
/// use dacpipe_kernel::pooling::Upsampling;
/// let upsampling = Upsampling::new([1, 2], [2, 3]).expect("no extent is zero");
/// let mut out = [0.0; 12];
/// upsampling.forward(&Pool::new(1), &[1.0, 2.0], &mut out);
/// assert_eq!(out, [1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0]);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upsampling {
    size: [usize; 2],
    factor: [usize; 2],
}

impl Upsampling {
    /// Planes of `size` and the size of a block, both in the order of rows and columns.
    ///
    /// # Errors
    /// What does not fit, in words: an extent or factor of zero.
    pub fn new(size: [usize; 2], factor: [usize; 2]) -> Result<Self, String> {
        if size.into_iter().chain(factor).any(|extent| extent == 0) {
            return Err(format!("a plane of {size:?}, a factor of {factor:?}: none may be zero"));
        }
        let values = size.into_iter().chain(factor).try_fold(1_usize, usize::checked_mul);
        values.ok_or_else(|| format!("a plane of {size:?} by {factor:?} is too large"))?;
        Ok(Self { size, factor })
    }

    /// Height and width of a plane of blocks.
    pub fn output(&self) -> [usize; 2] {
        [0, 1].map(|i| self.size[i] * self.factor[i])
    }

    /// Every value, as often as a block has places.
    ///
    /// Panics if the slices do not hold as many planes.
    pub fn forward(&self, pool: &Pool, planes: &[f32], out: &mut [f32]) {
        let (row, rows) = self.check(planes.len(), out.len());
        let task = TASK_VALUES.div_ceil(rows);
        pool.for_each_chunk_mut(out, task * rows, |i, out| {
            let planes = planes[i * task * row..].chunks_exact(row);
            for (row, rows) in planes.zip(out.chunks_exact_mut(rows)) {
                repeat(self, row, rows);
            }
        });
    }

    /// The gradient at the planes: the sum of that at each block, in the order of its rows.
    ///
    /// Panics if the slices do not hold as many planes.
    pub fn backward(&self, pool: &Pool, d_out: &[f32], d_planes: &mut [f32]) {
        let (row, rows) = self.check(d_planes.len(), d_out.len());
        let task = TASK_VALUES.div_ceil(rows);
        pool.for_each_chunk_mut(d_planes, task * row, |i, d_planes| {
            let blocks = d_out[i * task * rows..].chunks_exact(rows);
            for (rows, row) in blocks.zip(d_planes.chunks_exact_mut(row)) {
                add_blocks(self, rows, row);
            }
        });
    }

    /// Values in a row, and in the rows of blocks that it becomes.
    fn check(&self, planes: usize, out: usize) -> (usize, usize) {
        let (plane, [fy, fx]) = (self.size[0] * self.size[1], self.factor);
        assert!(planes.is_multiple_of(plane) && out == planes * fy * fx, "planes of {:?}", self.size);
        (self.size[1], self.size[1] * fy * fx)
    }
}

vectorised! {
    /// One row as rows of blocks.
    fn repeat(upsampling: &Upsampling, row: &[f32], rows: &mut [f32]) {
        let [_, factor] = upsampling.factor;
        let (first, others) = rows.split_at_mut(row.len() * factor);
        match factor {
            1 => first.copy_from_slice(row),
            2 => first.as_chunks_mut().0.iter_mut().zip(row).for_each(|(block, &value)| *block = [value; 2]),
            _ => first.chunks_exact_mut(factor).zip(row).for_each(|(block, &value)| block.fill(value)),
        }
        others.chunks_exact_mut(first.len()).for_each(|other| other.copy_from_slice(first));
    }
}

vectorised! {
    /// One row of the sums of blocks.
    fn add_blocks(upsampling: &Upsampling, rows: &[f32], row: &mut [f32]) {
        let [_, factor] = upsampling.factor;
        row.fill(0.0);
        for line in rows.chunks_exact(row.len() * factor) {
            match factor {
                2 => {
                    let (blocks, _) = line.as_chunks::<2>();
                    row.iter_mut().zip(blocks).for_each(|(sum, [a, b])| *sum = *sum + a + b);
                }
                _ => row.iter_mut().zip(line.chunks_exact(factor)).for_each(|(sum, block)| {
                    *sum = block.iter().fold(*sum, |sum, v| sum + v);
                }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::on_each;
    use proptest::prelude::*;

    /// Small whole numbers, so that windows have equal values and sums are exact.
    fn values(len: usize, salt: usize) -> Vec<f32> {
        (0..len).map(|i| (((i + salt) * 2_654_435_761) >> 7) as u8 as f32 % 9.0 - 4.0).collect()
    }

    /// Maxima and places, one window after the other.
    fn pooled(planes: &[f32], size: [usize; 2], window: [usize; 2], stride: [usize; 2]) -> (Vec<f32>, Vec<u32>) {
        let [height, width] = size;
        let mut both = (Vec::new(), Vec::new());
        for plane in planes.chunks(height * width) {
            for y in (0..=height - window[0]).step_by(stride[0]) {
                for x in (0..=width - window[1]).step_by(stride[1]) {
                    let mut best = y * width + x;
                    for ky in 0..window[0] {
                        for kx in 0..window[1] {
                            let at = (y + ky) * width + x + kx;
                            if plane[at] > plane[best] || plane[at].is_nan() && !plane[best].is_nan() {
                                best = at;
                            }
                        }
                    }
                    both.0.push(plane[best]);
                    both.1.push(best as u32);
                }
            }
        }
        both
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn maxima_equal_those_of_one_window_after_the_other(
            window in [1_usize..4, 1_usize..4], stride in [1_usize..4, 1_usize..4],
            more in [0_usize..20, 0_usize..40], planes in 0_usize..9, nan in any::<bool>()
        ) {
            let size = [window[0] + more[0], window[1] + more[1]];
            let pooling = MaxPooling::new(size, window, stride).expect("a window fits");
            let mut x = values(planes * size[0] * size[1], more[0]);
            x.iter_mut().skip(3).step_by(11).for_each(|v| if nan { *v = f32::NAN });
            let (twin, twin_places) = pooled(&x, size, window, stride);
            prop_assert_eq!(twin.len(), planes * pooling.output().iter().product::<usize>());
            let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            let pool = Pool::new(1);
            on_each(|isa| {
                let (mut out, mut places) = (vec![7.0; twin.len()], vec![7; twin.len()]);
                pooling.forward(&pool, &x, &mut out, &mut places);
                assert_eq!((bits(&out), &places), (bits(&twin), &twin_places), "{isa:?}");
            });
            // Backward is the transpose of choosing: <choose(a), d> = <a, backward(d)> for any a.
            let (a, d) = (values(x.len(), 5), values(twin.len(), 6));
            let mut d_x = vec![f32::NAN; x.len()];
            pooling.backward(&pool, &d, &twin_places, &mut d_x);
            let output: usize = pooling.output().iter().product();
            let chosen = twin_places.iter().enumerate().map(|(i, &at)| a[i / output * size[0] * size[1] + at as usize]);
            let left: f32 = chosen.zip(&d).map(|(a, d)| a * d).sum();
            prop_assert_eq!(left, a.iter().zip(&d_x).map(|(a, d)| a * d).sum::<f32>());
        }

        #[test]
        fn upsampling_repeats_and_its_gradient_adds_up(
            size in [1_usize..9, 1_usize..20], factor in [1_usize..4, 1_usize..4], planes in 0_usize..9
        ) {
            let upsampling = Upsampling::new(size, factor).expect("no extent is zero");
            let [height, width] = upsampling.output();
            let x = values(planes * size[0] * size[1], 1);
            let source = |plane: usize, i: usize| {
                (plane * size[0] + i / width / factor[0]) * size[1] + i % width / factor[1]
            };
            let places: Vec<usize> = (0..planes).flat_map(|p| (0..height * width).map(move |i| source(p, i))).collect();
            let d = values(places.len(), 2);
            let mut sums = vec![0.0; x.len()];
            places.iter().zip(&d).for_each(|(&at, d)| sums[at] += d);
            let pool = Pool::new(1);
            on_each(|isa| {
                let mut out = vec![f32::NAN; places.len()];
                upsampling.forward(&pool, &x, &mut out);
                assert!(out.iter().zip(&places).all(|(&value, &at)| value == x[at]), "{isa:?}");
                let mut d_x = vec![f32::NAN; x.len()];
                upsampling.backward(&pool, &d, &mut d_x);
                assert_eq!(d_x, sums, "{isa:?}");
            });
        }
    }

    #[test]
    fn any_number_of_threads_and_many_planes() {
        let (pooling, upsampling) = (
            MaxPooling::new([28, 28], [3, 3], [2, 2]).expect("a window fits"),
            Upsampling::new([13, 13], [2, 2]).expect("no extent is zero"),
        );
        let x = values(300 * 784, 3);
        let run = |threads: usize| {
            let pool = Pool::new(threads);
            let (mut out, mut places) = (vec![0.0; 300 * 169], vec![0; 300 * 169]);
            pooling.forward(&pool, &x, &mut out, &mut places);
            let mut d_x = vec![f32::NAN; x.len()];
            pooling.backward(&pool, &out, &places, &mut d_x);
            let mut large = vec![f32::NAN; 300 * 676];
            upsampling.forward(&pool, &out, &mut large);
            let mut back = vec![f32::NAN; out.len()];
            upsampling.backward(&pool, &large, &mut back);
            assert!(back.iter().zip(&out).all(|(b, o)| *b == 4.0 * o));
            (out, places, d_x)
        };
        let one = run(1);
        assert_eq!((one.0.clone(), one.1.clone()), pooled(&x, [28, 28], [3, 3], [2, 2]));
        assert!((2..4).all(|threads| run(threads) == one));
    }

    #[test]
    fn what_does_not_fit_is_told() {
        assert!(MaxPooling::new([4, 4], [5, 1], [1, 1]).is_err_and(|e| e.contains("does not fit")));
        assert!(MaxPooling::new([4, 4], [1, 1], [0, 1]).is_err_and(|e| e.contains("zero")));
        assert!(MaxPooling::new([1 << 16, 1 << 16], [1, 1], [1, 1]).is_err_and(|e| e.contains("too large")));
        assert!(Upsampling::new([4, 4], [0, 1]).is_err_and(|e| e.contains("zero")));
        assert!(Upsampling::new([usize::MAX, 2], [1, 1]).is_err_and(|e| e.contains("too large")));
    }
}
