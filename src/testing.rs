//! Helpers for unit tests of several modules.

use std::ops::Range;

use crate::kernel::{Dense, Result, Rows};

#[path = "../kernel/src/testing.rs"]
mod labelled;
pub(crate) use labelled::{Labelled, labelled};

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
