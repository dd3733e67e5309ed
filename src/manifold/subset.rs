//! A subset of the rows.

use std::ops::Range;

use rand::Rng;
use rand::seq::index;

use crate::kernel::{self, Rows};

/// A subset of rows, in order.
pub struct Subset<'a> {
    rows: &'a dyn Rows,
    /// The row numbers, ascending; `None` for all rows.
    numbers: Option<Vec<u32>>,
}

impl<'a> Subset<'a> {
    /// The rows with these numbers.
    pub fn of(rows: &'a dyn Rows, numbers: Vec<u32>) -> Self {
        Self { rows, numbers: Some(numbers) }
    }

    /// `most` rows drawn without replacement, or all if there are no more.
    pub fn drawn(rows: &'a dyn Rows, most: usize, rng: &mut impl Rng) -> Self {
        if rows.len() <= most {
            return Self { rows, numbers: None };
        }
        let mut numbers: Vec<u32> = index::sample(rng, rows.len(), most).into_iter().map(|i| i as u32).collect();
        numbers.sort_unstable();
        Self { rows, numbers: Some(numbers) }
    }

    /// The numbers of its rows among all rows.
    pub fn numbers(&self) -> Vec<u32> {
        self.numbers.clone().unwrap_or_else(|| (0..self.rows.len() as u32).collect())
    }
}

impl Rows for Subset<'_> {
    fn len(&self) -> usize {
        self.numbers.as_ref().map_or(self.rows.len(), Vec::len)
    }

    fn dim(&self) -> usize {
        self.rows.dim()
    }

    fn read(&self, range: Range<usize>, out: &mut [f32]) -> kernel::Result<()> {
        match &self.numbers {
            Some(numbers) => self.rows.gather(&numbers[range], out),
            None => self.rows.read(range, out),
        }
    }

    fn gather(&self, indices: &[u32], out: &mut [f32]) -> kernel::Result<()> {
        match &self.numbers {
            Some(numbers) => {
                let numbers: Vec<u32> = indices.iter().map(|&i| numbers[i as usize]).collect();
                self.rows.gather(&numbers, out)
            }
            None => self.rows.gather(indices, out),
        }
    }

    fn as_slice(&self) -> Option<&[f32]> {
        match self.numbers {
            Some(_) => None,
            None => self.rows.as_slice(),
        }
    }
}
