//! The file and the line of each sample, stored as runs of consecutive lines.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::saved::shared;

/// The places of the samples of a recording. Memory grows with the number of runs: blank and bad lines, sorting,
/// another file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Places {
    /// The first sample of each run, and its line.
    lines: Vec<(usize, u64)>,
    /// The first sample in each file.
    files: Vec<(usize, File)>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct File(#[serde(with = "shared")] Arc<str>);

impl Places {
    /// Samples on consecutive lines of `file`, from `line` on.
    ///
    /// ```
    /// let places = dacpipe::source::places::Places::starting("a.csv".into(), 2);
    /// assert_eq!(places.of(40), ("a.csv", 42));
    /// ```
    pub fn starting(file: Arc<str>, line: u64) -> Self {
        Self { lines: vec![(0, line)], files: vec![(0, File(file))] }
    }

    /// Records that `sample` is on `line` of `file`. Called for samples in ascending order.
    pub fn set(&mut self, sample: usize, file: &Arc<str>, line: u64) {
        if self.lines.last().is_none_or(|(first, before)| before + (sample - first) as u64 != line) {
            self.lines.push((sample, line));
        }
        if self.files.last().is_none_or(|(_, File(before))| before != file) {
            self.files.push((sample, File(Arc::clone(file))));
        }
    }

    /// The file of `sample`, and its line, counted from 1.
    pub fn of(&self, sample: usize) -> (&str, u64) {
        let before = |at: usize| at.checked_sub(1);
        let line = before(self.lines.partition_point(|(first, _)| *first <= sample)).map(|at| self.lines[at]);
        let file = before(self.files.partition_point(|(first, _)| *first <= sample)).map(|at| &*self.files[at].1.0);
        (file.unwrap_or_default(), line.map_or(0, |(first, line)| line + (sample - first) as u64))
    }

    /// The file of `sample`.
    pub fn file(&self, sample: usize) -> Arc<str> {
        let after = self.files.partition_point(|(first, _)| *first <= sample);
        after.checked_sub(1).map_or_else(|| "".into(), |at| Arc::clone(&self.files[at].1.0))
    }

    /// Splits off the samples from `at` on, which are counted from 0 then.
    pub fn split_off(&mut self, at: usize) -> Self {
        let (file, (_, line)) = (self.file(at), self.of(at));
        let mut rest = Self::starting(file, line);
        let lines = self.lines.split_off(self.lines.partition_point(|(first, _)| *first < at));
        let files = self.files.split_off(self.files.partition_point(|(first, _)| *first < at));
        rest.lines.extend(lines.into_iter().map(|(first, line)| (first - at, line)).filter(|(first, _)| *first > 0));
        rest.files.extend(files.into_iter().map(|(first, file)| (first - at, file)).filter(|(first, _)| *first > 0));
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_that_follow_each_other_are_one_run() {
        let file: Arc<str> = "a".into();
        let mut places = Places::default();
        for (sample, line) in [2, 3, 4, 8, 9, 5, 6].into_iter().enumerate() {
            places.set(sample, &file, line);
        }
        assert_eq!(places.lines, [(0, 2), (3, 8), (5, 5)]);
        assert_eq!((0..8).map(|sample| places.of(sample).1).collect::<Vec<_>>(), [2, 3, 4, 8, 9, 5, 6, 7]);
        assert_eq!(Places::default().of(3), ("", 0));
    }

    proptest! {
        /// Every sample has the place that was set, also after samples were split off.
        #[test]
        fn places_are_those_that_were_told(
            told in prop::collection::vec((0usize..2, 1u64..6), 1..40), at in 0usize..40,
        ) {
            let files: [Arc<str>; 2] = ["a".into(), "b".into()];
            let mut places = Places::default();
            for (sample, (file, line)) in told.iter().enumerate() {
                places.set(sample, &files[*file], *line);
            }
            let at = at % told.len();
            let of = |places: &Places, sample: usize| { let (file, line) = places.of(sample); (file.to_string(), line) };
            let expected: Vec<_> = told.iter().map(|(file, line)| (files[*file].to_string(), *line)).collect();
            prop_assert_eq!((0..told.len()).map(|i| of(&places, i)).collect::<Vec<_>>(), expected.clone());
            let rest = places.split_off(at);
            prop_assert_eq!((0..at).map(|i| of(&places, i)).collect::<Vec<_>>(), &expected[..at]);
            prop_assert_eq!((at..told.len()).map(|i| of(&rest, i - at)).collect::<Vec<_>>(), &expected[at..]);
        }
    }
}
