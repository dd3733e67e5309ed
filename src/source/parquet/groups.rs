//! Where the reading of a file is among its row groups. Damage in one of them costs its own rows alone: reading goes on
//! with the next.

use parquet::file::metadata::ParquetMetaData;

use crate::error::{Error, Kind, Result};
use crate::source::bad::{Unread, without_name};

/// The row group that is read next, and how many of its rows are left.
#[derive(Debug)]
pub(in crate::source) struct Groups {
    /// The rows of each row group.
    rows: Vec<u64>,
    at: usize,
    /// Rows of the file in the row groups before.
    before: u64,
    /// Rows of this row group that were not given yet.
    left: u64,
}

impl Groups {
    /// At the first row group of a file.
    pub(in crate::source) fn of(metadata: &ParquetMetaData) -> Self {
        Self::with_rows(metadata.row_groups().iter().map(|group| group.num_rows().max(0) as u64).collect())
    }

    fn with_rows(rows: Vec<u64>) -> Self {
        let left = rows.first().copied().unwrap_or(0);
        Self { rows, at: 0, before: 0, left }
    }

    /// The index of the row group; `None` after the last one.
    pub(in crate::source) fn current(&self) -> Option<usize> {
        (self.at < self.rows.len()).then_some(self.at)
    }

    /// How many rows of the file come before the next one.
    pub(in crate::source) fn row(&self) -> u64 {
        self.before + self.rows.get(self.at).map_or(0, |rows| rows - self.left)
    }

    /// So many rows of the row group were given.
    ///
    /// # Errors
    /// Kind `Input` if it does not have so many.
    pub(in crate::source) fn give(&mut self, rows: usize) -> Result<()> {
        self.left = self.left.checked_sub(rows as u64).ok_or_else(|| Error::input("it gives more rows than it has"))?;
        Ok(())
    }

    /// Goes on to the next row group after all rows of this one were given.
    ///
    /// # Errors
    /// Kind `Input` if some are left: Arrow's reader does not report columns that end early.
    pub(in crate::source) fn end(&mut self) -> Result<()> {
        match self.left {
            0 => {
                self.pass();
                Ok(())
            }
            left => Err(Error::input(format!("it ends {left} rows early"))),
        }
    }

    /// Goes on to the next row group, whatever is left of this one.
    pub(super) fn pass(&mut self) {
        self.before += self.rows.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        self.left = self.rows.get(self.at).copied().unwrap_or(0);
    }

    /// Gives up the row group because of `e`, and goes on to the next. Returns which rows of `file` were not read.
    ///
    /// # Errors
    /// `e` itself, with the name of the file, if it is not about the data.
    pub(in crate::source) fn give_up(&mut self, file: &str, e: Error) -> Result<Unread> {
        if e.kind() != Kind::Input {
            return Err(if e.to_string().starts_with(file) { e } else { e.while_doing(file) });
        }
        let (at, all) = (self.at, self.rows.len());
        let (group, last) = (self.before + 1, self.before + self.rows.get(at).copied().unwrap_or(0));
        let (first, rows) = (last - self.left + 1, self.left);
        let what = match rows {
            0 => "damaged after its last row, rows of it may be wrong".to_owned(),
            1 => format!("its row {first} cannot be read"),
            _ if first == group => format!("none of its {rows} rows {first} to {last} can be read"),
            _ => format!("its {rows} rows from {first} to {last} cannot be read"),
        };
        let reason = format!("row group {at} (of {all}, counted from 0): {what}: {}", without_name(&e, file));
        self.pass();
        Ok(Unread { group, first: first.min(last.max(1)), rows, reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_row_group_loses_is_named_and_counted() {
        let mut groups = Groups::with_rows(vec![3, 0, 500, 1, 4]);
        let damage = || Error::input("a.parquet: snappy: corrupt input");
        assert_eq!((groups.current(), groups.row()), (Some(0), 0));
        groups.give(2).unwrap();
        assert_eq!(groups.row(), 2);
        assert_eq!(groups.end().unwrap_err().to_string(), "it ends 1 rows early");
        assert_eq!(groups.give(2).unwrap_err().kind(), Kind::Input);
        let lost = groups.give_up("a.parquet", damage()).unwrap();
        let reason = "row group 0 (of 5, counted from 0): its row 3 cannot be read: snappy: corrupt input";
        assert_eq!(lost, Unread { group: 1, first: 3, rows: 1, reason: reason.into() });
        groups.end().unwrap();
        assert_eq!((groups.current(), groups.row()), (Some(2), 3));
        groups.give(100).unwrap();
        let lost = groups.give_up("b", damage()).unwrap();
        assert_eq!((lost.group, lost.first, lost.rows), (4, 104, 400));
        assert!(lost.reason.contains("its 400 rows from 104 to 503 cannot be read: a.parquet: snappy"), "{lost:?}");
        // The last row of the file is row 508.
        groups.give(1).unwrap();
        let lost = groups.give_up("b", damage()).unwrap();
        assert_eq!((lost.first, lost.rows), (504, 0));
        let lost = groups.give_up("b", damage()).unwrap();
        assert!(lost.reason.contains("none of its 4 rows 505 to 508 can be read"), "{lost:?}");
        assert_eq!((groups.current(), groups.row()), (None, 508));
    }

    #[test]
    fn a_disk_that_fails_is_no_damage() {
        let mut groups = Groups::with_rows(vec![3]);
        let e = groups.give_up("a", Error::io("no disk")).unwrap_err();
        assert_eq!((e.kind(), e.to_string().as_str()), (Kind::Io, "a: no disk"));
        assert_eq!(groups.current(), Some(0));
    }
}
