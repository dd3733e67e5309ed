//! Helpers for unit tests of several modules.

use std::ops::Range;

use proptest::prelude::*;

use crate::error::Result;
use crate::kernel::{Dense, Rows};

/// Rows that are not one slice in memory, like those of a spill file.
pub(crate) struct Scattered<'a>(pub Dense<'a>);

impl Rows for Scattered<'_> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn dim(&self) -> usize {
        self.0.dim()
    }

    fn read(&self, range: Range<usize>, out: &mut [f32]) -> Result<()> {
        self.0.read(range, out)
    }
}

/// The number of features, the rows, and the class of each.
pub(crate) type Labelled = (usize, Vec<f32>, Vec<Option<u32>>);

/// Rows of up to `classes` classes (often one only), `n` or twice as many, with values in `[0, 1]`, each of the `dim`
/// features of one kind: spread out, constant, zeros and ones, or denormal. Half the time each row occurs twice.
pub(crate) fn labelled(
    dim: impl Strategy<Value = usize>,
    n: impl Strategy<Value = usize>,
    classes: u32,
) -> impl Strategy<Value = Labelled> {
    (dim, n, 1..=classes, any::<bool>()).prop_flat_map(|(dim, n, classes, doubled)| {
        let values = prop::collection::vec(0.0f32..=1.0, n * dim);
        let classes = prop::collection::vec(prop::option::weighted(0.9, 0..classes), n);
        (values, classes, prop::collection::vec(0u8..6, dim)).prop_map(move |(mut rows, mut classes, kinds)| {
            for (i, x) in rows.iter_mut().enumerate() {
                *x = match kinds[i % dim] {
                    0 => 0.3,
                    1 => x.round(),
                    2 => *x * 1e-40,
                    _ => *x,
                };
            }
            if doubled {
                rows.extend(rows.clone());
                classes.extend(classes.clone());
            }
            (dim, rows, classes)
        })
    })
}
