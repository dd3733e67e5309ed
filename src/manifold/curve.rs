//! The curve of similarity by the distance d of two rows in the layout: `1 / (1 + a d^{2b})`.

/// The range over which the curve is fitted, and the number of points, as in the reference implementation.
const REACH: f64 = 3.0;
const POINTS: usize = 300;
/// The most Gauss-Newton steps; the fit converges in about a dozen.
const STEPS: usize = 100;

/// `a` and `b` of the curve that falls from 1 as `exp(-(d - min_dist))` does beyond `min_dist` (McInnes 2018, definition 11),
/// by least squares (Levenberg and Marquardt).
///
/// ```
/// use dacpipe::manifold::curve;
/// // umap.umap_.find_ab_params(1.0, 0.0) and (1.0, 0.1)
/// let (a, b) = curve(0.0);
/// assert!((a - 1.9328).abs() < 1e-3 && (b - 0.7905).abs() < 1e-3);
/// let (a, b) = curve(0.1);
/// assert!((a - 1.5769).abs() < 1e-3 && (b - 0.8951).abs() < 1e-3);
/// ```
pub fn curve(min_dist: f64) -> (f64, f64) {
    let points: Vec<(f64, f64)> = (0..POINTS)
        .map(|i| REACH * i as f64 / (POINTS - 1) as f64)
        .map(|d| (d, if d < min_dist { 1.0 } else { (min_dist - d).exp() }))
        .collect();
    let value = |d: f64, a: f64, b: f64| 1.0 / (1.0 + a * d.powf(2.0 * b));
    let error = |a: f64, b: f64| points.iter().map(|&(d, y)| (value(d, a, b) - y).powi(2)).sum::<f64>();
    let (mut a, mut b, mut damping) = (1.0, 1.0, 1e-3);
    for _ in 0..STEPS {
        // Normal equations of the linearised problem.
        let (mut aa, mut ab, mut bb, mut ra, mut rb) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for &(d, y) in points.iter().filter(|(d, _)| *d > 0.0) {
            let v = value(d, a, b);
            let power = d.powf(2.0 * b);
            let (da, db) = (-v * v * power, -v * v * a * power * 2.0 * d.ln());
            (aa, ab, bb) = (aa + da * da, ab + da * db, bb + db * db);
            (ra, rb) = (ra + da * (y - v), rb + db * (y - v));
        }
        let (daa, dbb) = (aa * (1.0 + damping), bb * (1.0 + damping));
        let determinant = daa * dbb - ab * ab;
        let (step_a, step_b) = ((ra * dbb - rb * ab) / determinant, (rb * daa - ra * ab) / determinant);
        let (next_a, next_b) = (a + step_a, b + step_b);
        if next_a > 0.0 && next_b > 0.0 && error(next_a, next_b) < error(a, b) {
            (a, b, damping) = (next_a, next_b, damping / 10.0);
            if step_a.abs() < 1e-10 && step_b.abs() < 1e-10 {
                break;
            }
        } else {
            damping *= 10.0;
        }
    }
    (a, b)
}
