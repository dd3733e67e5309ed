//! The passes of batch normalisation (Ioffe and Szegedy 2015): mean and variance of every channel, values normalised by
//! them, and the way back.
//!
//! Sums are in double precision. Each channel is summed by one task in a fixed order, so the result does not
//! depend on the number of threads.

use super::Pool;
use super::dense::total;
use super::isa::{LANES, vectorised};

/// Channels of rows that one task sums: four cache lines of each row.
const COLUMNS: usize = 64;
/// About as many values as one task normalises.
const CHUNK: usize = 1 << 14;

/// How values lie: samples one after the other, each `channels` planes of `plane` values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Channels {
    /// Planes of a sample; at least 1.
    pub channels: usize,
    /// Values of a plane: the pixels of an image, or 1 for rows of features; at least 1.
    pub plane: usize,
}

impl Channels {
    /// The values of one sample.
    pub fn sample(&self) -> usize {
        self.channels * self.plane
    }

    /// The mean and the biased variance of every channel.
    ///
    /// # Panics
    /// If `values` is not a whole number of samples, or none.
    ///
    /// ```
    /// use dacpipe_kernel::{Pool, batch_norm::Channels};
    /// let rows = Channels { channels: 2, plane: 1 };
    /// let (mean, variance) = rows.moments(&Pool::new(1), &[1.0, 5.0, 3.0, 5.0]);
    /// assert_eq!((mean, variance), (vec![2.0, 5.0], vec![1.0, 0.0]));
    /// ```
    pub fn moments(&self, pool: &Pool, values: &[f32]) -> (Vec<f64>, Vec<f64>) {
        let samples = values.len() / self.sample();
        assert!(samples > 0 && values.len() == samples * self.sample(), "no samples, or not whole ones");
        let [mut mean, mut variance] = self.sums(pool, |first, [sums, squares]| match self.plane {
            1 => column_moments(&values[first..], self.channels, sums, squares),
            plane => {
                (sums[0], squares[0]) = plane_moments(&values[first * plane..], self.sample(), plane);
            }
        });
        let count = (samples * self.plane) as f64;
        for (c, (mean, variance)) in mean.iter_mut().zip(&mut variance).enumerate() {
            let offset = *mean / count;
            let spread = *variance / count - offset * offset;
            // Rounding may leave a little less than nothing. NaN stays NaN.
            *variance = if spread < 0.0 { 0.0 } else { spread };
            *mean = f64::from(values[c * self.plane]) + offset;
        }
        (mean, variance)
    }

    /// `(x - mean) scale + shift` for every value, with the three numbers of its channel.
    ///
    /// # Panics
    /// If `values` is not a whole number of samples, or there are not three numbers a channel.
    ///
    /// ```
    /// use dacpipe_kernel::{Pool, batch_norm::Channels};
    /// let images = Channels { channels: 2, plane: 2 };
    /// let normalised = images.normalise(&Pool::new(1), &[1.0, 3.0, 5.0, 5.0], [&[2.0, 5.0], &[1.0, 9.0], &[0.0, 0.5]]);
    /// assert_eq!(normalised, [-1.0, 1.0, 0.5, 0.5]);
    /// ```
    pub fn normalise(&self, pool: &Pool, values: &[f32], by: [&[f32]; 3]) -> Vec<f32> {
        self.check(values, &by);
        let mut out = vec![0.0; values.len()];
        self.for_each_part(pool, &mut out, |part, out| {
            let x = &values[part..][..out.len()];
            let [mean, scale, shift] = by;
            if self.plane == 1 {
                return normalise_rows(x, mean, scale, shift, out);
            }
            for (i, (x, out)) in x.chunks(self.plane).zip(out.chunks_mut(self.plane)).enumerate() {
                let c = i % self.channels;
                normalise_plane(x, mean[c], scale[c], shift[c], out);
            }
        });
        out
    }

    /// For every channel the sum of the gradient `d` and that of `d (x - mean)`.
    ///
    /// # Panics
    /// If `values` is not a whole number of samples, or anything has another length.
    pub fn gradient_sums(&self, pool: &Pool, values: &[f32], d: &[f32], mean: &[f32]) -> [Vec<f64>; 2] {
        self.check(values, &[mean]);
        assert_eq!(values.len(), d.len(), "values and gradients differ in number");
        if values.is_empty() {
            return [(); 2].map(|()| vec![0.0; self.channels]);
        }
        self.sums(pool, |first, [sums, products]| match self.plane {
            1 => column_products(&values[first..], &d[first..], self.channels, &mean[first..], sums, products),
            plane => {
                let at = first * plane;
                (sums[0], products[0]) = plane_products(&values[at..], &d[at..], self.sample(), plane, mean[first]);
            }
        })
    }

    /// The gradient at the values: `a d + b (x - mean) + c`, with the numbers `[mean, a, b, c]` of each channel.
    ///
    /// # Panics
    /// If `values` is not a whole number of samples, or anything has another length.
    pub fn input_gradient(&self, pool: &Pool, values: &[f32], d: &[f32], by: [&[f32]; 4]) -> Vec<f32> {
        self.check(values, &by);
        assert_eq!(values.len(), d.len(), "values and gradients differ in number");
        let mut out = vec![0.0; values.len()];
        self.for_each_part(pool, &mut out, |part, out| {
            let (x, d) = (&values[part..][..out.len()], &d[part..][..out.len()]);
            if self.plane == 1 {
                return input_gradient_rows(x, d, by, out);
            }
            let planes = x.chunks(self.plane).zip(d.chunks(self.plane)).zip(out.chunks_mut(self.plane));
            for (i, ((x, d), out)) in planes.enumerate() {
                input_gradient_plane(x, d, by.map(|by| by[i % self.channels]), out);
            }
        });
        out
    }

    fn check(&self, values: &[f32], by: &[&[f32]]) {
        assert!(values.len().is_multiple_of(self.sample()), "not a whole number of samples");
        assert!(by.iter().all(|by| by.len() == self.channels), "not a number for each channel");
    }

    /// Two sums for every channel. A task computes those of some channels of rows, or of one of images; it is told the
    /// first of them.
    fn sums(&self, pool: &Pool, task: impl Fn(usize, [&mut [f64]; 2]) + Sync) -> [Vec<f64>; 2] {
        let width = if self.plane == 1 { COLUMNS } else { 1 };
        let bounds: Vec<[usize; 2]> =
            (0..=self.channels.div_ceil(width)).map(|i| [(i * width).min(self.channels); 2]).collect();
        let (mut a, mut b) = (vec![0.0; self.channels], vec![0.0; self.channels]);
        pool.for_each_part_mut([&mut a[..], &mut b[..]], &bounds, |i, parts| task(i * width, parts));
        [a, b]
    }

    /// Calls `task` with parts of `out` of whole samples, and where each begins.
    fn for_each_part(&self, pool: &Pool, out: &mut [f32], task: impl Fn(usize, &mut [f32]) + Sync) {
        let len = (CHUNK / self.sample()).max(1) * self.sample();
        pool.for_each_chunk_mut(out, len, |i, out| task(i * len, out));
    }
}

// Sums of squares are about the channel's first value: about zero they would lose the variance of values that are large
// beside their spread.
vectorised! {
    /// For some channels of rows, which begin `stride` values apart, the sums of `x - x0` and of their squares, where
    /// `x0` is the first row.
    fn column_moments(values: &[f32], stride: usize, sums: &mut [f64], squares: &mut [f64]) {
        let origin = &values[..sums.len()];
        for row in values.chunks(stride) {
            for (((sum, square), &x), &x0) in sums.iter_mut().zip(&mut *squares).zip(row).zip(origin) {
                let offset = f64::from(x) - f64::from(x0);
                *sum += offset;
                *square += offset * offset;
            }
        }
    }
}

vectorised! {
    /// For one channel of images, whose planes begin `stride` values apart, the sums of `x - x0` and of their squares,
    /// where `x0` is the first value.
    fn plane_moments(values: &[f32], stride: usize, plane: usize) -> (f64, f64) {
        let (mut sums, mut squares) = ([0.0; LANES], [0.0; LANES]);
        let origin = f64::from(values[0]);
        for image in values.chunks(stride) {
            let (chunks, rest) = image[..plane].as_chunks::<LANES>();
            for chunk in chunks {
                for l in 0..LANES {
                    let offset = f64::from(chunk[l]) - origin;
                    sums[l] += offset;
                    squares[l] += offset * offset;
                }
            }
            for (l, &x) in rest.iter().enumerate() {
                let offset = f64::from(x) - origin;
                sums[l] += offset;
                squares[l] += offset * offset;
            }
        }
        (total(sums), total(squares))
    }
}

vectorised! {
    /// As `column_moments`, of `d` and of `d (x - mean)`.
    fn column_products(
        values: &[f32],
        d: &[f32],
        stride: usize,
        mean: &[f32],
        sums: &mut [f64],
        products: &mut [f64],
    ) {
        for (row, d) in values.chunks(stride).zip(d.chunks(stride)) {
            let channels = sums.iter_mut().zip(&mut *products).zip(mean);
            for (((sum, product), &mean), (&x, &d)) in channels.zip(row.iter().zip(d)) {
                *sum += f64::from(d);
                *product += f64::from(d) * f64::from(x - mean);
            }
        }
    }
}

vectorised! {
    /// As `plane_moments`, of `d` and of `d (x - mean)`.
    fn plane_products(values: &[f32], d: &[f32], stride: usize, plane: usize, mean: f32) -> (f64, f64) {
        let (mut sums, mut products) = ([0.0; LANES], [0.0; LANES]);
        for (image, d) in values.chunks(stride).zip(d.chunks(stride)) {
            let ((chunks, rest), (ds, d_rest)) = (image[..plane].as_chunks::<LANES>(), d[..plane].as_chunks::<LANES>());
            for (chunk, d) in chunks.iter().zip(ds) {
                for l in 0..LANES {
                    sums[l] += f64::from(d[l]);
                    products[l] += f64::from(d[l]) * f64::from(chunk[l] - mean);
                }
            }
            for (l, (&x, &d)) in rest.iter().zip(d_rest).enumerate() {
                sums[l] += f64::from(d);
                products[l] += f64::from(d) * f64::from(x - mean);
            }
        }
        (total(sums), total(products))
    }
}

vectorised! {
    fn normalise_rows(x: &[f32], mean: &[f32], scale: &[f32], shift: &[f32], out: &mut [f32]) {
        for (row, out) in x.chunks_exact(mean.len()).zip(out.chunks_exact_mut(mean.len())) {
            let by = mean.iter().zip(scale).zip(shift);
            for ((out, &x), ((&mean, &scale), &shift)) in out.iter_mut().zip(row).zip(by) {
                *out = (x - mean).mul_add(scale, shift);
            }
        }
    }
}

vectorised! {
    fn normalise_plane(x: &[f32], mean: f32, scale: f32, shift: f32, out: &mut [f32]) {
        for (out, &x) in out.iter_mut().zip(x) {
            *out = (x - mean).mul_add(scale, shift);
        }
    }
}

vectorised! {
    fn input_gradient_rows(x: &[f32], d: &[f32], by: [&[f32]; 4], out: &mut [f32]) {
        let [mean, a, b, c] = by;
        let width = mean.len();
        for ((x, d), out) in x.chunks_exact(width).zip(d.chunks_exact(width)).zip(out.chunks_exact_mut(width)) {
            let by = mean.iter().zip(a).zip(b.iter().zip(c));
            for ((out, (&x, &d)), ((&mean, &a), (&b, &c))) in out.iter_mut().zip(x.iter().zip(d)).zip(by) {
                *out = d.mul_add(a, (x - mean).mul_add(b, c));
            }
        }
    }
}

vectorised! {
    fn input_gradient_plane(x: &[f32], d: &[f32], by: [f32; 4], out: &mut [f32]) {
        let [mean, a, b, c] = by;
        for ((out, &x), &d) in out.iter_mut().zip(x).zip(d) {
            *out = d.mul_add(a, (x - mean).mul_add(b, c));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::on_each;

    const SHAPES: [(usize, usize, usize); 8] =
        [(1, 1, 1), (2, 3, 1), (7, 64, 1), (300, 130, 1), (1, 2, 17), (5, 3, 16), (9, 2, 49), (40, 5, 300)];

    /// The values of channel `c` in their order.
    fn channel(values: &[f32], shape: Channels, c: usize) -> Vec<f64> {
        let planes = values.chunks(shape.plane).skip(c).step_by(shape.channels);
        planes.flatten().map(|&x| f64::from(x)).collect()
    }

    fn some(len: usize, salt: f32) -> Vec<f32> {
        (0..len).map(|i| (i as f32 * 0.7 + salt).sin() * 2.0 + 0.3 * salt).collect()
    }

    fn close(a: f64, b: f64, scale: f64) -> bool {
        (a - b).abs() <= 1e-12 * scale.max(1.0)
    }

    #[test]
    fn moments_and_sums_equal_their_definitions() {
        for (n, channels, plane) in SHAPES {
            let shape = Channels { channels, plane };
            let (x, d) = (some(n * shape.sample(), 1.0), some(n * shape.sample(), 5.0));
            let pool = Pool::new(2);
            let (mean, variance) = shape.moments(&pool, &x);
            let about: Vec<f32> = mean.iter().map(|&m| m as f32).collect();
            let [sums, products] = shape.gradient_sums(&pool, &x, &d, &about);
            for c in 0..channels {
                let (x, d) = (channel(&x, shape, c), channel(&d, shape, c));
                let count = x.len() as f64;
                let m = x.iter().sum::<f64>() / count;
                let v = x.iter().map(|x| (x - m) * (x - m)).sum::<f64>() / count;
                assert!(close(mean[c], m, 1.0) && close(variance[c], v, 1.0), "{n} {shape:?} {c}");
                let product: f64 = x.iter().zip(&d).map(|(x, d)| d * f64::from(*x as f32 - about[c])).sum();
                assert!(close(sums[c], d.iter().sum(), count) && close(products[c], product, count));
            }
        }
    }

    #[test]
    fn large_values_keep_their_variance_and_constant_ones_have_none() {
        let shape = Channels { channels: 2, plane: 1 };
        let rows: Vec<f32> = (0..2000).map(|i| if i % 2 == 0 { 1e7 + (i % 4) as f32 } else { 0.1 }).collect();
        let (mean, variance) = shape.moments(&Pool::new(1), &rows);
        assert_eq!((mean[0], variance[0]), (1e7 + 1.0, 1.0));
        assert_eq!((mean[1], variance[1]), (f64::from(0.1_f32), 0.0));
    }

    #[test]
    fn every_instruction_set_and_any_number_of_threads_gives_the_same_bits() {
        for (n, channels, plane) in SHAPES {
            let shape = Channels { channels, plane };
            let (x, d) = (some(n * shape.sample(), 1.0), some(n * shape.sample(), 5.0));
            let by = [1.0, 2.0, 3.0, 4.0].map(|salt| some(channels, salt));
            let [mean, a, b, c] = by.each_ref().map(|by| &by[..]);
            let all = |pool: &Pool| {
                (
                    shape.moments(pool, &x),
                    shape.gradient_sums(pool, &x, &d, mean),
                    shape.normalise(pool, &x, [mean, a, b]),
                    shape.input_gradient(pool, &x, &d, [mean, a, b, c]),
                )
            };
            let whole = all(&Pool::new(1));
            assert_eq!(whole, all(&Pool::new(3)));
            on_each(|isa| assert_eq!(whole, all(&Pool::new(1)), "{isa:?}"));
            for (i, (&x, &d)) in x.iter().zip(&d).enumerate() {
                let k = i / plane % channels;
                assert_eq!(whole.2[i], (x - mean[k]).mul_add(a[k], b[k]));
                assert_eq!(whole.3[i], d.mul_add(a[k], (x - mean[k]).mul_add(b[k], c[k])));
            }
        }
    }

    #[test]
    fn no_samples_give_nothing() {
        let (pool, shape) = (Pool::new(1), Channels { channels: 2, plane: 3 });
        assert!(shape.normalise(&pool, &[], [&[0.0; 2]; 3]).is_empty());
        assert_eq!(shape.gradient_sums(&pool, &[], &[], &[0.0; 2]), [vec![0.0; 2], vec![0.0; 2]]);
        assert!(shape.input_gradient(&pool, &[], &[], [&[0.0; 2]; 4]).is_empty());
    }
}
