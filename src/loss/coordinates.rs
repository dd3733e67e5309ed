//! The distance of the embedding from given coordinates.

use candle_core::Tensor;

use super::{EmbeddingLoss, Placed};
use crate::kernel::Matrix;

/// The mean squared difference of a row's embedding from its coordinates in a layout, `sum_j (z_j - t_j)^2 / dim`: a
/// locality-preserving loss (Aljalbout et al. 2018, section 2.4), since the layout keeps neighbourhoods. The loss of
/// rows without coordinates is 0.
#[derive(Debug, Clone)]
pub struct CoordinateLoss<'a> {
    /// The index of each training row's coordinates; [`NOWHERE`](Placed::NOWHERE) for a row without any.
    places: Vec<u32>,
    values: &'a [f32],
    dim: usize,
    factor: f64,
    /// The weight of a row with coordinates, such that rows without do not lower the mean.
    share: f64,
}

impl<'a> CoordinateLoss<'a> {
    /// `factor` times the loss for `len` training rows, of which `rows` have the coordinates `values` (`rows x dim`).
    ///
    /// # Panics
    /// If lengths do not fit together or a row is not below `len`.
    pub fn new(len: usize, rows: &[u32], values: &'a [f32], dim: usize, factor: f64) -> Self {
        assert_eq!(rows.len() * dim, values.len(), "coordinates each row");
        let mut places = vec![Placed::NOWHERE; len];
        rows.iter().zip(0..).for_each(|(&row, place)| places[row as usize] = place);
        Self { places, values, dim, factor, share: 1.0 }
    }

    /// The same, with `share` times the loss of each row that has coordinates: the number of rows over the number of
    /// rows with coordinates, so that the mean is over the latter.
    pub fn sharing(mut self, share: f64) -> Self {
        self.share = share;
        self
    }

    /// The loss of the embeddings of a batch (`rows x dim`), a scalar without the factor, as a formula over tensors. `rows`
    /// are the numbers of its rows among the training rows.
    ///
    /// # Errors
    /// Candle's, for embeddings of another width.
    pub fn of_batch(&self, embedding: &Tensor, rows: &[u32]) -> candle_core::Result<Tensor> {
        let mut targets = vec![0.0; rows.len() * self.dim];
        let mut placed = vec![0.0_f32; rows.len()];
        for ((target, placed), &row) in targets.chunks_exact_mut(self.dim).zip(&mut placed).zip(rows) {
            if let Some(values) = self.of(row) {
                target.copy_from_slice(values);
                *placed = 1.0;
            }
        }
        let device = embedding.device();
        let targets = Tensor::from_vec(targets, (rows.len(), self.dim), device)?;
        let placed = Tensor::from_vec(placed, (rows.len(), 1), device)?;
        let squares = (embedding - targets)?.sqr()?.broadcast_mul(&placed)?;
        squares.sum_all()? * (self.share / (self.dim * rows.len()) as f64)
    }

    /// The coordinates of a training row, if it has any.
    pub fn of(&self, row: u32) -> Option<&'a [f32]> {
        match self.places[row as usize] {
            Placed::NOWHERE => None,
            place => Some(&self.values[place as usize * self.dim..][..self.dim]),
        }
    }
}

impl EmbeddingLoss for CoordinateLoss<'_> {
    /// The sum is without the factor, the gradient with it.
    fn sum_and_gradient(&self, embedding: &Matrix, rows: &[u32], batch_rows: usize, gradient: &mut Matrix) -> f64 {
        let scale = (2.0 * self.factor * self.share / (self.dim * batch_rows) as f64) as f32;
        let mut sum = 0.0;
        for (i, &row) in rows.iter().enumerate() {
            let (slopes, z) = (gradient.row_mut(i), embedding.row(i));
            let Some(target) = self.of(row) else {
                slopes.fill(0.0);
                continue;
            };
            for ((slope, z), t) in slopes.iter_mut().zip(z).zip(target) {
                let error = z - t;
                sum += f64::from(error) * f64::from(error);
                *slope = scale * error;
            }
        }
        sum * self.share / self.dim as f64
    }

    fn placed(&self) -> Option<Placed<'_>> {
        let &Self { ref places, values: targets, dim, factor, share } = self;
        Some(Placed { places, targets, dim, factor, share })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gradient_is_that_of_the_mean() {
        let (dim, batch) = (3, 4);
        let values: Vec<f32> = (0..9).map(|i| (i as f32).sin()).collect();
        // Training rows 1, 4 and 5 of 6 have coordinates; the batch is the rows 4, 0, 5, 1.
        let loss = CoordinateLoss::new(6, &[1, 4, 5], &values, dim, 0.7);
        assert_eq!(loss.of(5), Some(&values[6..]));
        let shared = loss.clone().sharing(2.0);
        assert_eq!(loss.of(0), None);
        let mut embedding = Matrix::zeros(batch, dim);
        embedding.copy_from(&(0..12).map(|i| (i as f32).cos()).collect::<Vec<_>>());
        let mut gradient = Matrix::zeros(batch, dim);
        gradient.row_mut(1).fill(9.0);
        let rows = [4, 0, 5, 1];
        let sum = loss.sum_and_gradient(&embedding, &rows, batch, &mut gradient);
        let by_hand: f64 = [(0, 1), (2, 2), (3, 0)]
            .into_iter()
            .flat_map(|(i, place)| (0..dim).map(move |d| (i, place * dim + d, d)))
            .map(|(i, v, d)| f64::from(embedding.row(i)[d] - values[v]).powi(2) / dim as f64)
            .sum();
        assert!((sum - by_hand).abs() < 1e-6);
        let mut twice = Matrix::zeros(batch, dim);
        assert!((shared.sum_and_gradient(&embedding, &rows, batch, &mut twice) - 2.0 * by_hand).abs() < 1e-6);
        assert!((twice.row(0)[1] - 2.0 * gradient.row(0)[1]).abs() < 1e-6);
        assert_eq!(gradient.row(1), [0.0; 3]);
        let step = 1e-2_f32;
        for (i, d) in [(0, 1), (2, 0), (3, 2)] {
            let mut moved = [embedding.clone(), embedding.clone()];
            moved[0].row_mut(i)[d] += step;
            moved[1].row_mut(i)[d] -= step;
            let [up, down] = moved.map(|m| loss.sum_and_gradient(&m, &rows, batch, &mut Matrix::zeros(batch, dim)));
            let slope = 0.7 * (up - down) / (2.0 * f64::from(step) * batch as f64);
            let sum = loss.sum_and_gradient(&embedding, &rows, batch, &mut gradient);
            assert!(sum.is_finite());
            assert!((f64::from(gradient.row(i)[d]) - slope).abs() < 1e-4, "{i} {d}");
        }
    }
}
