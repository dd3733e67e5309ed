//! Projects rows to the plane of their first two principal components.

/// The most steps of the power method.
const STEPS: usize = 300;
/// The power method ends when a direction moves less than this.
const STILL: f64 = 1e-10;

/// Rows in the plane.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plane {
    /// One point per row.
    pub points: Vec<[f64; 2]>,
    /// The share of the variance that each of the two components has.
    pub shares: [f64; 2],
}

/// The first two principal components of `rows` (row-major, `dim` values each), by the power method on the rows
/// themselves: `O(steps x rows x dim)` time, and no covariance matrix in memory. The sign of a component is chosen so
/// that its largest weight is positive.
pub(super) fn principal(rows: &[f32], dim: usize) -> Plane {
    let n = rows.len() / dim.max(1);
    if n == 0 || dim == 0 {
        return Plane { points: vec![[0.0; 2]; n], shares: [0.0; 2] };
    }
    // Differences from the first row are exactly zero for a constant value, and so is their mean.
    let origin = &rows[..dim];
    let mut centred: Vec<f64> =
        rows.iter().zip(origin.iter().cycle()).map(|(x, o)| f64::from(*x) - f64::from(*o)).collect();
    let mut mean = vec![0.0; dim];
    for row in centred.chunks_exact(dim) {
        mean.iter_mut().zip(row).for_each(|(mean, value)| *mean += value / n as f64);
    }
    for row in centred.chunks_exact_mut(dim) {
        row.iter_mut().zip(&mean).for_each(|(value, mean)| *value -= mean);
    }
    let total: f64 = centred.iter().map(|value| value * value).sum();
    let first = direction(&centred, dim, None);
    let second = direction(&centred, dim, Some(&first));
    let point = |row: &[f64]| [dot(row, &first), dot(row, &second)];
    let points: Vec<[f64; 2]> = centred.chunks_exact(dim).map(point).collect();
    let share = |axis: usize| match total > 0.0 {
        true => points.iter().map(|point| point[axis] * point[axis]).sum::<f64>() / total,
        false => 0.0,
    };
    let shares = [share(0), share(1)];
    Plane { points, shares }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The direction of the most variance orthogonal to `before`; zeros if there is none.
fn direction(rows: &[f64], dim: usize, before: Option<&[f64]>) -> Vec<f64> {
    let straighten = |vector: &mut [f64]| {
        if let Some(before) = before {
            let along = dot(vector, before);
            vector.iter_mut().zip(before).for_each(|(value, before)| *value -= along * before);
        }
        let length = dot(vector, vector).sqrt();
        match length > 0.0 {
            true => vector.iter_mut().for_each(|value| *value /= length),
            false => vector.fill(0.0),
        }
    };
    // Starts from the row that is longest orthogonal to `before`, which cannot be orthogonal to all variance.
    let mut found = rows.chunks_exact(dim).map(<[f64]>::to_vec).fold((0.0, vec![0.0; dim]), |longest, mut row| {
        if let Some(before) = before {
            let along = dot(&row, before);
            row.iter_mut().zip(before).for_each(|(value, before)| *value -= along * before);
        }
        let length = dot(&row, &row);
        if length > longest.0 { (length, row) } else { longest }
    });
    straighten(&mut found.1);
    let mut found = found.1;
    for _ in 0..STEPS {
        let mut next = vec![0.0; dim];
        for row in rows.chunks_exact(dim) {
            let along = dot(row, &found);
            next.iter_mut().zip(row).for_each(|(next, value)| *next += along * value);
        }
        straighten(&mut next);
        let moved: f64 = next.iter().zip(&found).map(|(a, b)| (a - b) * (a - b)).sum();
        found = next;
        if moved < STILL {
            break;
        }
    }
    let largest =
        found.iter().fold(0.0_f64, |largest, value| if value.abs() > largest.abs() { *value } else { largest });
    if largest < 0.0 {
        found.iter_mut().for_each(|value| *value = -*value);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows around (5, 5, 5) along (3, 4, 0) / 5 with a wide spread and along (-4, 3, 0) / 5 with a narrow one.
    fn rows() -> Vec<f32> {
        let spread = |i: usize| ((i * 37 % 101) as f32 / 50.0 - 1.0, (i * 53 % 97) as f32 / 48.0 - 1.0);
        (0..500)
            .flat_map(|i| {
                let (a, b) = spread(i);
                [5.0 + 3.0 * a - 0.4 * b, 5.0 + 4.0 * a + 0.3 * b, 5.0]
            })
            .collect()
    }

    #[test]
    fn components_are_the_directions_of_the_spread() {
        let Plane { points, shares } = principal(&rows(), 3);
        assert!(shares[0] > 0.98 && (shares[0] + shares[1] - 1.0).abs() < 1e-9, "{shares:?}");
        // A rotation keeps all distances.
        let rows = rows();
        for (a, b) in [(0, 1), (17, 400), (250, 251)] {
            let far: f32 = (0..3).map(|i| (rows[3 * a + i] - rows[3 * b + i]).powi(2)).sum::<f32>();
            let [dx, dy] = [points[a][0] - points[b][0], points[a][1] - points[b][1]];
            assert!((f64::from(far) - dx * dx - dy * dy).abs() < 1e-4, "{a} {b}");
        }
    }

    #[test]
    fn rows_without_a_second_direction_lie_on_a_line_or_a_point() {
        let line: Vec<f32> = (0..50).flat_map(|i| [i as f32, 2.0 * i as f32]).collect();
        let Plane { points, shares } = principal(&line, 2);
        assert!((shares[0] - 1.0).abs() < 1e-9 && shares[1] < 1e-9, "{shares:?}");
        assert!(points.iter().all(|point| point[1].abs() < 1e-6));
        assert_eq!(principal(&[3.0; 40], 4), Plane { points: vec![[0.0; 2]; 10], shares: [0.0; 2] });
        assert_eq!(principal(&[1.0, 2.0, 3.0], 1).points.len(), 3);
        assert_eq!(principal(&[], 3).points, Vec::<[f64; 2]>::new());
    }
}
