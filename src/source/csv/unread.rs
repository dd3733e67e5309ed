//! Which rows of Parquet files of samples could not be read, so that samples before and after them are not taken for
//! neighbours.

use crate::source::bad::Unread;

/// The rows that could not be read, in the files so far.
#[derive(Debug, Default)]
pub(super) struct UnreadRows {
    /// How many in the files before the current one.
    before_file: u64,
    /// In the current file: the first row of each stretch, and how many there are up to its end.
    stretches: Vec<(u64, u64)>,
}

impl UnreadRows {
    /// Another file begins.
    pub(super) fn next_file(&mut self) {
        self.before_file += self.in_file();
        self.stretches.clear();
    }

    /// Rows of the current file could not be read; they come after those that were added before.
    pub(super) fn add(&mut self, unread: &Unread) {
        self.stretches.push((unread.first, self.in_file() + unread.rows));
    }

    /// How many in the files before the current one.
    pub(super) fn before_file(&self) -> u64 {
        self.before_file
    }

    /// How many in the current file.
    pub(super) fn in_file(&self) -> u64 {
        self.stretches.last().map_or(0, |(_, rows)| *rows)
    }

    /// How many in all files before row `row` of the current one.
    pub(super) fn before(&self, row: u64) -> u64 {
        let stretches = self.stretches.partition_point(|(first, _)| *first < row);
        self.before_file + stretches.checked_sub(1).map_or(0, |last| self.stretches[last].1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_counted_over_stretches_and_files() {
        let unread = |first, rows| Unread { group: first, first, rows, reason: String::new() };
        let mut rows = UnreadRows::default();
        assert_eq!((rows.before(7), rows.in_file()), (0, 0));
        rows.add(&unread(1, 5));
        rows.add(&unread(11, 10));
        assert_eq!([6, 10, 21, 30].map(|row| rows.before(row)), [5, 5, 15, 15]);
        rows.next_file();
        assert_eq!((rows.before(1), rows.before_file(), rows.in_file()), (15, 15, 0));
        rows.add(&unread(3, 1));
        assert_eq!([2, 4].map(|row| rows.before(row)), [15, 16]);
    }
}
