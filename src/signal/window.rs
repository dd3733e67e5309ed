//! Windows of a recording.

use crate::error::{Error, Result};

/// Where windows are cut.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Within {
    /// Inside each labelled interval, from its first sample on and never past its last.
    Labels,
    /// Over each whole recording, labelled or not.
    #[default]
    Recordings,
}

/// Which label a window over a recording has.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum WindowLabel {
    /// The label that all of its samples have, or none.
    #[default]
    Whole,
    /// The one that most of its samples have; of several, the one that comes first. The share of the samples that have it
    /// is in a column of its own, whose name is the label's with _share behind it.
    Mode,
}

/// How a recording is cut into windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct WindowSpec {
    /// Samples in a window.
    pub length: usize,
    /// Samples from the start of a window to the start of the next.
    pub stride: usize,
    /// Where windows are cut.
    pub within: Within,
}

impl WindowSpec {
    /// The most samples in a window.
    pub const LONGEST: usize = 1 << 24;

    /// Checks that windows have at least one sample and at most [`LONGEST`](Self::LONGEST), and that each starts after the
    /// one before it.
    ///
    /// # Errors
    /// A [`Kind::Config`](crate::Kind::Config) error when `length` or `stride` is 0, or `length` is too long.
    pub fn validate(&self) -> Result<()> {
        if self.length == 0 {
            return Err(Error::config("window length is 0; it must be 1 sample or more"));
        }
        if self.length > Self::LONGEST {
            let (length, most) = (self.length, Self::LONGEST);
            return Err(Error::config(format!("window length is {length}; it must be {most} samples or fewer")));
        }
        if self.stride == 0 {
            return Err(Error::config("window stride is 0; it must be 1 sample or more"));
        }
        Ok(())
    }

    /// The first sample of every window of the interval `first..last` (`last` itself is outside), in order. No window
    /// reaches past the interval; one shorter than a window has none. A stride of 0, which
    /// [`validate`](Self::validate) refuses, counts as 1.
    ///
    /// ```
    /// use dacpipe::signal::window::{WindowSpec, Within};
    /// let spec = WindowSpec { length: 128, stride: 64, within: Within::Labels };
    /// assert_eq!(spec.starts(249, 505).collect::<Vec<_>>(), [249, 313, 377]);
    /// assert_eq!(spec.starts(249, 504).len(), 2);
    /// assert_eq!(spec.starts(249, 376).len(), 0);
    /// ```
    pub fn starts(&self, first: usize, last: usize) -> std::iter::StepBy<std::ops::Range<usize>> {
        let end = last.saturating_add(1).saturating_sub(self.length.max(1));
        (first..end.max(first)).step_by(self.stride.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spec(length: usize, stride: usize) -> WindowSpec {
        WindowSpec { length, stride, within: Within::Recordings }
    }

    #[test]
    fn zero_sizes_are_refused() {
        assert!(spec(0, 1).validate().unwrap_err().message().contains("length is 0"));
        assert!(spec(1, 0).validate().unwrap_err().message().contains("stride is 0"));
        assert!(spec(1, 1).validate().is_ok() && spec(WindowSpec::LONGEST, usize::MAX).validate().is_ok());
        assert!(spec(usize::MAX, 1).validate().unwrap_err().message().contains("16777216 samples or fewer"));
    }

    #[test]
    fn an_interval_that_ends_before_it_starts_has_no_windows() {
        assert_eq!(spec(4, 2).starts(10, 3).len(), 0);
        assert_eq!(spec(4, 2).starts(0, 0).len(), 0);
    }

    proptest! {
        #[test]
        fn windows_are_the_positions_that_fit(
            length in 1usize..40, stride in 1usize..40, first in 0usize..100, samples in 0usize..200,
        ) {
            let last = first + samples;
            let expected: Vec<usize> =
                (first..last).filter(|s| (s - first) % stride == 0 && s + length <= last).collect();
            prop_assert_eq!(spec(length, stride).starts(first, last).collect::<Vec<_>>(), expected);
        }
    }
}
