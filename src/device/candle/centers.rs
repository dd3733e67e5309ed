//! Centroids on a candle device, and the nearest of them.
//!
//! Where rows are wide and centroids many, scores `|c|²/2 - x·c` about the centroids' mean, which a product of matrices
//! gives, name four centroids a row, and only those are measured. Rounding may hide the nearest from the scores: rows of
//! which a fifth comes near enough are measured against all. So the answer is the one of measuring every centroid.

use candle_core::{D, DType, Device, Result, Tensor};

use super::distance::{least, nearest, of_cluster, second, squared};
use super::rows::blocks;

/// Centroids that the scores name for each row.
const NAMED: usize = 4;
/// From this many values a row and this many centroids on, scores come first.
const SCREEN: (usize, usize) = (32, 4 * NAMED);

fn pays(k: usize, dim: usize) -> bool {
    dim >= SCREEN.0 && k >= SCREEN.1
}

/// Values that a row makes on its way to the nearest of `k` centroids of `dim` values. The CUDA kernel keeps none.
pub(super) fn row_values(k: usize, dim: usize, device: &Device) -> usize {
    if device.is_cuda() {
        return dim;
    }
    if pays(k, dim) { 3 * (k + (NAMED + 1) * dim) } else { k * dim }
}

/// Centroids, ready to be compared with rows.
#[derive(Debug)]
pub(super) struct Centers {
    /// `k x dim`.
    values: Tensor,
    screen: Option<Screen>,
}

/// What scores are made of.
#[derive(Debug)]
struct Screen {
    /// The centroids' mean, `1 x dim`.
    mean: Tensor,
    /// The centroids less their mean, `k x dim`.
    centred: Tensor,
    /// Half of their squared norms, `1 x k`.
    halves: Tensor,
    /// The largest norm.
    largest: f64,
}

impl Screen {
    fn new(values: &Tensor) -> Result<Self> {
        let mean = values.mean_keepdim(0)?;
        let centred = values.broadcast_sub(&mean)?;
        let squares = centred.sqr()?.sum(D::Minus1)?;
        let largest = f64::from(squares.max(0)?.to_scalar::<f32>()?).sqrt();
        Ok(Self { mean, centred, halves: (squares * 0.5)?.unsqueeze(0)?, largest })
    }

    /// The scores of each row, `n x k`, and by how much one must be greater than another so that its centroid is surely
    /// measured to be farther, `n x 1`.
    fn scores(&self, rows: &Tensor) -> Result<(Tensor, Tensor)> {
        let centred = rows.broadcast_sub(&self.mean)?;
        let scores = centred.matmul(&self.centred.t()?)?.neg()?.broadcast_add(&self.halves)?;
        // Twice the rounding of a score, and that of a measured distance, each at most so many units in the last place of
        // the longest that the distance can be.
        let units = (4 * rows.dim(1)? + 64) as f64 * f64::from(f32::EPSILON);
        let longest = (centred.sqr()?.sum_keepdim(D::Minus1)?.sqrt()? + self.largest)?.sqr()?;
        Ok((scores, (longest * units)?))
    }
}

/// The nearest centroid of each row, its squared distance, and that of the second nearest where it was asked for.
pub(super) struct Nearest {
    pub labels: Tensor,
    pub squared: Tensor,
    pub second: Option<Tensor>,
}

impl Centers {
    /// Centroids from their values, `dim` each.
    pub fn new(values: &[f32], dim: usize, device: &Device) -> Result<Self> {
        let k = values.len() / dim;
        let values = Tensor::from_slice(values, (k, dim), device)?;
        let screen = (pays(k, dim) && !device.is_cuda()).then(|| Screen::new(&values)).transpose()?;
        Ok(Self { values, screen })
    }

    /// `k x dim`.
    pub fn values(&self) -> &Tensor {
        &self.values
    }

    /// Number of centroids.
    pub fn k(&self) -> usize {
        self.values.dims()[0]
    }

    /// Values that a row makes on its way to the nearest.
    pub fn row_values(&self) -> usize {
        row_values(self.k(), self.values.dims()[1], self.values.device())
    }

    /// The nearest centroid of each of `rows` (`n x dim`), in a tie the lowest number; `two` asks for the second nearest.
    pub fn nearest(&self, rows: &Tensor, two: bool) -> Result<Nearest> {
        #[cfg(feature = "cuda")]
        if rows.device().is_cuda() {
            let [labels, squared, second] = crate::cuda::tensors::nearest(rows, &self.values)?;
            return Ok(Nearest { labels, squared, second: two.then_some(second) });
        }
        match &self.screen {
            Some(screen) => self.screened(screen, rows, two),
            None => self.measured(rows, two),
        }
    }

    /// By measuring every centroid.
    fn measured(&self, rows: &Tensor, two: bool) -> Result<Nearest> {
        let distances = squared(rows, &self.values)?;
        let (labels, least) = nearest(&distances)?;
        let second = two.then(|| second(&distances, &labels)).transpose()?;
        Ok(Nearest { labels, squared: least, second })
    }

    /// By measuring those that the scores name.
    fn screened(&self, screen: &Screen, rows: &Tensor, two: bool) -> Result<Nearest> {
        let (n, dim) = rows.dims2()?;
        let (mut scores, margin) = screen.scores(rows)?;
        let infinite = Tensor::full(f32::INFINITY, scores.shape(), scores.device())?;
        let (mut named, mut limit) = (Vec::new(), None);
        for place in 0..NAMED {
            let (labels, score) = nearest(&scores)?;
            if place == usize::from(two) {
                limit = Some(score.unsqueeze(1)?);
            }
            scores = of_cluster(&labels, self.k())?.where_cond(&infinite, &scores)?;
            named.push(labels);
        }
        let named = Tensor::stack(&named, 1)?;
        let measured = self.values.index_select(&named.flatten_all()?, 0)?.reshape((n, NAMED, dim))?;
        let distances = rows.reshape((n, 1, dim))?.broadcast_sub(&measured)?.sqr()?.sum(D::Minus1)?;
        let (squared, labels) = least(&distances, &named, self.k())?;
        let second = match two {
            true => {
                let own = named.broadcast_eq(&labels.unsqueeze(1)?)?;
                let infinite = Tensor::full(f32::INFINITY, distances.shape(), distances.device())?;
                Some(own.where_cond(&infinite, &distances)?.min(1)?)
            }
            false => None,
        };
        let found = Nearest { labels, squared, second };
        let Some(limit) = limit else { return Ok(found) };
        let sure = scores.min_keepdim(1)?.gt(&(limit + margin)?)?.squeeze(1)?.to_vec1::<u8>()?;
        let unsure: Vec<u32> = (0..n as u32).filter(|&row| sure[row as usize] == 0).collect();
        if unsure.is_empty() { Ok(found) } else { self.measure_again(rows, &unsure, two, found) }
    }

    /// `found`, with the rows `again` measured against every centroid.
    fn measure_again(&self, rows: &Tensor, again: &[u32], two: bool, found: Nearest) -> Result<Nearest> {
        let (mut labels, mut squared) = (found.labels.to_vec1::<u32>()?, found.squared.to_vec1::<f32>()?);
        let mut second = found.second.map(|second| second.to_vec1::<f32>()).transpose()?;
        for range in blocks(again.len(), self.values.elem_count()) {
            let again = &again[range];
            let numbers = Tensor::from_slice(again, again.len(), rows.device())?;
            let exact = self.measured(&rows.index_select(&numbers, 0)?, two)?;
            let (exact_labels, exact_squared) = (exact.labels.to_vec1::<u32>()?, exact.squared.to_vec1::<f32>()?);
            for (i, &row) in again.iter().enumerate() {
                (labels[row as usize], squared[row as usize]) = (exact_labels[i], exact_squared[i]);
            }
            if let (Some(second), Some(exact)) = (&mut second, exact.second) {
                again.iter().zip(exact.to_vec1::<f32>()?).for_each(|(&row, d)| second[row as usize] = d);
            }
        }
        let (n, device) = (labels.len(), rows.device());
        Ok(Nearest {
            labels: Tensor::from_vec(labels, n, device)?,
            squared: Tensor::from_vec(squared, n, device)?,
            second: second.map(|second| Tensor::from_vec(second, n, device)).transpose()?,
        })
    }

    /// The sums of the rows of each label (`k x dim`) and how many they are (`k`), in `f64`. A product of matrices or
    /// a kernel of ours, so that the order in which rows are added is the same every time.
    pub fn sums(&self, rows: &Tensor, labels: &Tensor) -> Result<(Tensor, Tensor)> {
        #[cfg(feature = "cuda")]
        if rows.device().is_cuda() {
            let (k, dim) = (self.k(), rows.dim(1)?);
            let both = crate::cuda::tensors::cluster_sums(rows, labels, k)?;
            return Ok((both.narrow(1, 0, dim)?.contiguous()?, both.narrow(1, dim, 1)?.contiguous()?.flatten_all()?));
        }
        let of_cluster = of_cluster(labels, self.k())?.to_dtype(DType::F64)?;
        let sums = of_cluster.t()?.matmul(&rows.to_dtype(DType::F64)?.contiguous()?)?;
        Ok((sums, of_cluster.sum(0)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::tested_device;

    fn tensor(values: &[f32], dim: usize) -> Tensor {
        Tensor::from_slice(values, (values.len() / dim, dim), &tested_device()).unwrap()
    }

    fn unit(len: usize, salt: u32) -> Vec<f32> {
        let mix = |i: usize| (i as u32).wrapping_add(salt).wrapping_mul(2_654_435_761);
        let hash = |i: usize| (mix(i) ^ (mix(i) >> 15)).wrapping_mul(2_246_822_519);
        (0..len).map(|i| (hash(i) >> 8) as f32 / 16_777_216.0).collect()
    }

    fn found(nearest: Nearest) -> (Vec<u32>, Vec<f32>, Option<Vec<f32>>) {
        let second = nearest.second.map(|second| second.to_vec1().unwrap());
        (nearest.labels.to_vec1().unwrap(), nearest.squared.to_vec1().unwrap(), second)
    }

    #[test]
    fn scores_change_nothing() {
        let (n, k, dim) = (300, 40, 50);
        let rows = unit(n * dim, 1);
        let plain = unit(k * dim, 2);
        // Far from zero, where scores round away what sets centroids apart.
        let far: Vec<f32> = plain.iter().map(|x| x * 1e-3 + 1000.0).collect();
        let far_rows: Vec<f32> = rows.iter().map(|x| x * 1e-3 + 1000.0).collect();
        // Five of each: more equals than the scores name.
        let equal: Vec<f32> = plain[..8 * dim].iter().copied().cycle().take(k * dim).collect();
        let mut huge = plain.clone();
        huge[3 * dim] = 1e30;
        let mut one_far = plain.clone();
        one_far[7 * dim] = 1e6;
        let on_rows: Vec<f32> = rows[..k * dim].to_vec();
        for (rows, centroids) in
            [(&rows, &plain), (&far_rows, &far), (&rows, &equal), (&rows, &huge), (&rows, &one_far), (&rows, &on_rows)]
        {
            let centers = Centers::new(centroids, dim, &tested_device()).unwrap();
            assert!(centers.screen.is_some() || tested_device().is_cuda());
            let rows = tensor(rows, dim);
            for two in [false, true] {
                let screened = found(centers.nearest(&rows, two).unwrap());
                let measured = found(centers.measured(&rows, two).unwrap());
                if rows.device().is_cuda() {
                    // A kernel that rounds in another order.
                    let near = |(a, b): (&f32, &f32)| a == b || (a - b).abs() <= 1e-4 * b.abs();
                    assert!(screened.1.iter().zip(&measured.1).all(near), "{:?} {:?}", screened.1, measured.1);
                } else {
                    assert_eq!(screened, measured);
                }
                assert_eq!(screened.2.is_some(), two);
            }
        }
    }

    #[test]
    fn sums_are_by_label_and_in_double_precision() {
        let rows = tensor(&[1.0, 2.0, 1e9, 4.0, 0.5, 6.0], 2);
        let labels = Tensor::new(&[2u32, 0, 0], &tested_device()).unwrap();
        let centers = Centers::new(&[0.0; 6], 2, &tested_device()).unwrap();
        let (sums, counts) = centers.sums(&rows, &labels).unwrap();
        assert_eq!(sums.to_vec2::<f64>().unwrap(), [[1_000_000_000.5, 10.0], [0.0, 0.0], [1.0, 2.0]]);
        assert_eq!(counts.to_vec1::<f64>().unwrap(), [2.0, 0.0, 1.0]);
    }
}
