//! A matrix whose rows begin on cache lines.

use super::aligned::Aligned;
use super::isa::LANES;
use super::rows::gather;

/// Up to a fixed number of rows of `f32`. Rows begin on cache lines, an odd number of lines apart: an even one would
/// crowd the same column of many rows into a few sets of the cache.
#[derive(Debug, Clone, Default)]
pub struct Matrix {
    values: Aligned,
    rows: usize,
    columns: usize,
    stride: usize,
}

impl Matrix {
    /// `rows x columns` zeros.
    pub fn zeros(rows: usize, columns: usize) -> Self {
        let stride = (columns.div_ceil(LANES) | 1) * LANES;
        Self { values: Aligned::zeros(rows * stride), rows, columns, stride }
    }

    /// Uses the first `rows` rows from now on. Panics if there is no room for them.
    pub fn set_rows(&mut self, rows: usize) {
        assert!(rows * self.stride <= self.values.len(), "no room for {rows} rows");
        self.rows = rows;
    }

    /// Number of rows in use.
    #[inline]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Values in a row.
    #[inline]
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Values from the start of a row to the start of the next.
    #[inline]
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// The rows in use with what lies between them, which means nothing.
    #[inline]
    pub fn values(&self) -> &[f32] {
        &self.values[..self.rows * self.stride]
    }

    /// The same, to be changed.
    #[inline]
    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values[..self.rows * self.stride]
    }

    /// One row.
    #[inline]
    pub fn row(&self, i: usize) -> &[f32] {
        &self.values()[i * self.stride..][..self.columns]
    }

    /// One row, to be changed.
    #[inline]
    pub fn row_mut(&mut self, i: usize) -> &mut [f32] {
        let (stride, columns) = (self.stride, self.columns);
        &mut self.values_mut()[i * stride..][..columns]
    }

    /// Copies the rows of `values` that `indices` name, one for each row in use. Panics if there are not as many, or if
    /// one lies past the end of `values`.
    pub fn gather(&mut self, values: &[f32], indices: &[u32]) {
        assert_eq!(indices.len(), self.rows, "as many indices as rows");
        let (columns, mut i) = (self.columns, 0);
        gather(values, columns, indices, |row| {
            self.row_mut(i).copy_from_slice(row);
            i += 1;
        });
    }

    /// Copies rows that lie one after the other. Panics if they are not as many values as the rows in use have.
    pub fn copy_from(&mut self, rows: &[f32]) {
        assert_eq!(rows.len(), self.rows * self.columns, "{} rows of {}", self.rows, self.columns);
        for (i, row) in rows.chunks_exact(self.columns.max(1)).enumerate() {
            self.row_mut(i).copy_from_slice(row);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_begin_an_odd_number_of_lines_apart() {
        for columns in [1, 16, 17, 32, 256, 561] {
            let m = Matrix::zeros(3, columns);
            assert!(m.stride() >= columns && (m.stride() / LANES) % 2 == 1 && m.stride().is_multiple_of(LANES));
        }
    }

    #[test]
    fn keeps_what_is_copied_in() {
        let mut m = Matrix::zeros(4, 3);
        m.set_rows(2);
        m.copy_from(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        m.row_mut(1)[2] = 9.0;
        assert_eq!((m.rows(), m.row(0), m.row(1)), (2, &[1.0, 2.0, 3.0][..], &[4.0, 5.0, 9.0][..]));
    }

    #[test]
    fn gathers_rows_in_any_order() {
        let values: Vec<f32> = (0..70).map(|v| v as f32).collect();
        let indices = [9, 0, 0, 5, 8, 3, 9];
        let mut m = Matrix::zeros(7, 7);
        m.gather(&values, &indices);
        for (i, &index) in indices.iter().enumerate() {
            assert_eq!(m.row(i), &values[7 * index as usize..][..7]);
        }
    }

    #[test]
    #[should_panic(expected = "no room for 3 rows")]
    fn refuses_more_rows_than_it_has_room_for() {
        Matrix::zeros(2, 3).set_rows(3);
    }
}
