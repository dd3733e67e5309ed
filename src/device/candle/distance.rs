//! Squared distances from rows to centroids over tensors, and the least of them.

use candle_core::{D, Result, Tensor};

/// The squared distance of each of `rows` (`n x dim`) to each of `centroids` (`k x dim`): `n x k`. Differences are taken
/// before they are squared, so nothing cancels, and a row's distance to itself is 0. Needs `n x k x dim` values.
pub(super) fn squared(rows: &Tensor, centroids: &Tensor) -> Result<Tensor> {
    let ((n, dim), k) = (rows.dims2()?, centroids.dim(0)?);
    let differences = rows.reshape((n, 1, dim))?.broadcast_sub(&centroids.reshape((1, k, dim))?)?;
    differences.sqr()?.sum(D::Minus1)
}

/// The squared distance of each row to the centroid that its label names.
pub(super) fn own(rows: &Tensor, centroids: &Tensor, labels: &Tensor) -> Result<Tensor> {
    (rows - centroids.index_select(labels, 0)?)?.sqr()?.sum(D::Minus1)
}

/// The number of the least of each row of `distances` (`n x k`), in a tie the lowest, and the least itself.
pub(super) fn nearest(distances: &Tensor) -> Result<(Tensor, Tensor)> {
    let k = distances.dim(1)?;
    let numbers = Tensor::arange(0, k as u32, distances.device())?.reshape((1, k))?.broadcast_as(distances.shape())?;
    let (least, labels) = least(distances, &numbers, k)?;
    Ok((labels, least))
}

/// The least of each row of `distances` (`n x c`), and its number by `numbers` (as many, below `k`), in a tie the lowest.
///
/// `argmin` would not do: which of several equals it names is left open on a GPU.
pub(super) fn least(distances: &Tensor, numbers: &Tensor, k: usize) -> Result<(Tensor, Tensor)> {
    let least = distances.min_keepdim(1)?;
    let last = Tensor::full(k as u32 - 1, distances.shape(), distances.device())?;
    let labels = distances.broadcast_eq(&least)?.where_cond(numbers, &last)?.min(1)?;
    Ok((least.squeeze(1)?, labels))
}

/// The least of each row of `distances` without the one that `labels` names; infinite where there is no other.
pub(super) fn second(distances: &Tensor, labels: &Tensor) -> Result<Tensor> {
    let infinite = Tensor::full(f32::INFINITY, distances.shape(), distances.device())?;
    of_cluster(labels, distances.dim(1)?)?.where_cond(&infinite, distances)?.min(1)
}

/// `n x k`: 1 where the row has the label, else 0.
pub(super) fn of_cluster(labels: &Tensor, k: usize) -> Result<Tensor> {
    let numbers = Tensor::arange(0, k as u32, labels.device())?.reshape((1, k))?;
    labels.reshape(((), 1))?.broadcast_eq(&numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::tested_device;

    fn tensor(values: &[f32], dim: usize) -> Tensor {
        Tensor::from_slice(values, (values.len() / dim, dim), &tested_device()).unwrap()
    }

    #[test]
    fn ties_go_to_the_lower_number_and_a_single_centroid_has_no_second() {
        let rows = tensor(&[0.0, 5.0, 7.0], 1);
        let distances = squared(&rows, &tensor(&[10.0, 0.0, 10.0, 0.0], 1)).unwrap();
        let (labels, least) = nearest(&distances).unwrap();
        assert_eq!(labels.to_vec1::<u32>().unwrap(), [1, 0, 0]);
        assert_eq!(least.to_vec1::<f32>().unwrap(), [0.0, 25.0, 9.0]);
        assert_eq!(second(&distances, &labels).unwrap().to_vec1::<f32>().unwrap(), [0.0, 25.0, 9.0]);
        let distances = squared(&rows, &tensor(&[1.0], 1)).unwrap();
        let (labels, _) = nearest(&distances).unwrap();
        assert_eq!(labels.to_vec1::<u32>().unwrap(), [0; 3]);
        assert_eq!(second(&distances, &labels).unwrap().to_vec1::<f32>().unwrap(), [f32::INFINITY; 3]);
    }

    #[test]
    fn close_rows_far_from_zero_do_not_cancel() {
        let distances = squared(&tensor(&[4096.5, -4096.25], 2), &tensor(&[4096.25, -4096.25, 4096.0, -4096.0], 2));
        assert_eq!(distances.unwrap().to_vec2::<f32>().unwrap(), [[0.0625, 0.3125]]);
    }

    #[test]
    fn distances_too_large_for_32_bits_are_infinite_and_still_have_a_nearest() {
        let distances = squared(&tensor(&[1e30], 1), &tensor(&[0.0, 1.0], 1)).unwrap();
        let (labels, least) = nearest(&distances).unwrap();
        assert_eq!((labels.to_vec1::<u32>().unwrap(), least.to_vec1::<f32>().unwrap()), (vec![0], vec![f32::INFINITY]));
    }

    #[test]
    fn own_distances_are_those_to_the_labels() {
        let labels = Tensor::new(&[2u32, 0], &tested_device()).unwrap();
        let own = own(&tensor(&[1.0, 2.0, 3.0, 4.0], 2), &tensor(&[0.0, 0.0, 9.0, 9.0, 1.0, 1.0], 2), &labels).unwrap();
        assert_eq!(own.to_vec1::<f32>().unwrap(), [1.0, 25.0]);
    }
}
