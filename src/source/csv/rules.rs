//! How lines become the samples of recordings.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::source::span::Span;

/// How lines become the samples of recordings. By default nothing is repaired: what does not fit is a bad row, or
/// counted as unused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SampleRules {
    /// How far a step between two samples may be from the sample period: up to that, and up to half of the period,
    /// it is no gap, and times are regular enough to tell a rate from.
    pub jitter: Option<Jitter>,
    /// How far a line may be from where its time belongs: so far apart, lines are put in order.
    pub disorder: Disorder,
    /// What several samples under one time are.
    pub same_time: SameTime,
    /// What to do with a line whose time, values and label equal those of the line before it.
    pub repeated: Repeated,
    /// What an empty channel is, or one that is NaN.
    pub fill: Fill,
    /// Whether recordings at another rate are interpolated to that of the pipeline, up to 64 times theirs.
    pub resample: bool,
    /// What a recording is whose keys were in an earlier file.
    pub across_files: AcrossFiles,
}

impl SampleRules {
    /// The greatest [`disorder`](Self::disorder): so many lines are held.
    pub const MOST_DISORDER: usize = 100_000;
    /// The greatest [`jitter`](Self::jitter).
    pub const MOST_JITTER: f64 = 10.0;

    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The longest step that is no gap, in sample periods of so many nanoseconds.
    pub(super) fn gap(&self, period: f64) -> f64 {
        GAP.max(1.0 + self.jitter_in(period))
    }

    /// The jitter as a part of a sample period of so many nanoseconds; 0 without one.
    pub(super) fn jitter_in(&self, period: f64) -> f64 {
        match self.jitter {
            Some(Jitter::Part(part)) => part,
            Some(Jitter::Time(time)) => time.nanoseconds() as f64 / period,
            None => 0.0,
        }
    }

    /// That the bounds are some.
    ///
    /// # Errors
    /// Kind `Config`, naming the one that is none.
    pub(super) fn check(&self) -> Result<()> {
        if let Some(Jitter::Part(part)) = self.jitter.filter(|jitter| !jitter.is_bound()) {
            let most = Self::MOST_JITTER;
            return Err(Error::config(format!(
                "jitter is {part}, expected a part of the sample period, from 0 to {most}, or a time such as \"20 ms\""
            )));
        }
        if let Disorder::Lines(found) = self.disorder
            && found > Self::MOST_DISORDER
        {
            let most = Self::MOST_DISORDER;
            return Err(Error::config(format!("disorder is {found}, expected at most {most} lines")));
        }
        Ok(())
    }

    /// That a jitter that is a time is one for samples of this period.
    ///
    /// # Errors
    /// Kind `Config` if it is too long.
    pub(super) fn check_period(&self, period: Option<f64>) -> Result<()> {
        let (Some(Jitter::Time(time)), Some(period)) = (self.jitter, period) else { return Ok(()) };
        let (part, most) = (time.nanoseconds() as f64 / period, Self::MOST_JITTER);
        match part > most {
            true => Err(Error::config(format!(
                "jitter is {time}, which is {part:.1} sample periods, expected at most {most}"
            ))),
            false => Ok(()),
        }
    }
}

/// Steps up to this many sample periods are no gap.
pub(super) const GAP: f64 = 1.5;

/// How far a step in time may be from the sample period.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Jitter {
    /// By this part of the period.
    Part(#[schemars(range(min = 0, max = 10))] f64),
    /// By so much time.
    Time(Span),
}

impl Jitter {
    /// Whether it is a bound, as far as that is known without the period.
    fn is_bound(&self) -> bool {
        match self {
            Self::Part(part) => (0.0..=SampleRules::MOST_JITTER).contains(part),
            Self::Time(_) => true,
        }
    }
}

impl From<f64> for Jitter {
    fn from(part: f64) -> Self {
        Self::Part(part)
    }
}

/// How far a line may be from where its time belongs. A sample that comes later than that is out of order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Disorder {
    /// So many lines.
    Lines(usize),
    /// Behind lines whose times are later by so much; of more than [`SampleRules::MOST_DISORDER`] lines, those.
    Time(Span),
}

impl Disorder {
    /// Whether lines have to be in order already.
    pub fn is_none(self) -> bool {
        self == Self::default()
    }
}

impl Default for Disorder {
    fn default() -> Self {
        Self::Lines(0)
    }
}

impl From<usize> for Disorder {
    fn from(lines: usize) -> Self {
        Self::Lines(lines)
    }
}

/// Several samples under one time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SameTime {
    /// Bad rows, but for the first.
    #[default]
    Refuse,
    /// Taken evenly from that time up to the next.
    Spread,
}

/// What to do with a line that equals the line before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Repeated {
    /// A bad row.
    #[default]
    Refuse,
    /// Left out, and counted among the unused samples.
    Drop,
}

/// An empty channel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fill {
    /// A bad row.
    #[default]
    Refuse,
    /// The value that the channel had last in the recording, since the last gap; a bad row if there is none.
    Hold,
}

/// Keys that were in an earlier file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AcrossFiles {
    /// A bad row: their windows would have the keys of the earlier ones. "file" among the keys tells such recordings apart.
    #[default]
    Refuse,
    /// The same recording, which goes on: files are read in the order of their first times, `start` goes on counting,
    /// and windows reach across two files where one recording ends the first and begins the second, without a gap. Lines
    /// that are out of order between two files are put in order as those of one. Of two files that overlap in time since
    /// 1970, the later one's lines are bad up to the end of the earlier one.
    Continue,
}
