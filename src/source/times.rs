//! The times of samples, and the columns with the times of windows.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, TimeUnit};

use super::clock::SECOND;

/// The column of the time of a window's first sample.
pub const START_TIME: &str = "start_time";
/// The column of the time of a window's last sample.
pub const END_TIME: &str = "end_time";

/// Times from this many seconds on are taken to count from 1970: they are after 1973, and no recording takes three
/// years.
const SINCE_1970: i64 = 100_000_000;

/// What times count from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    /// 1970, in UTC: they are points in time.
    Epoch,
    /// Anything else, such as the start of the recording.
    Unknown,
}

impl Times {
    /// What the times of a source count from whose first time is `nanoseconds`.
    pub(super) fn beginning_with(nanoseconds: i64) -> Self {
        if nanoseconds / SECOND >= SINCE_1970 { Self::Epoch } else { Self::Unknown }
    }

    /// The columns of the times of windows: `Timestamp(µs, "UTC")`, or `Float64` in seconds.
    pub(super) fn fields(self) -> [Field; 2] {
        let data_type = match self {
            Self::Epoch => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::Unknown => DataType::Float64,
        };
        [START_TIME, END_TIME].map(|name| Field::new(name, data_type.clone(), false))
    }

    /// A column of times in nanoseconds; microseconds are rounded down.
    pub(super) fn array(self, nanoseconds: impl Iterator<Item = i64>) -> ArrayRef {
        match self {
            Self::Epoch => {
                let micros = nanoseconds.map(|ns| ns.div_euclid(1000));
                Arc::new(TimestampMicrosecondArray::from_iter_values(micros).with_timezone("UTC"))
            }
            Self::Unknown => Arc::new(Float64Array::from_iter_values(nanoseconds.map(|ns| ns as f64 / SECOND as f64))),
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::{Float64Type, TimestampMicrosecondType};

    use super::*;

    #[test]
    fn points_in_time_are_told_from_seconds_of_a_recording() {
        assert_eq!(Times::beginning_with(1_700_000_000 * SECOND), Times::Epoch);
        for seconds in [-5, 0, 86_400 * 365] {
            assert_eq!(Times::beginning_with(seconds * SECOND), Times::Unknown, "{seconds}");
        }
    }

    #[test]
    fn times_keep_their_unit() {
        let array = Times::Epoch.array([1_999, -1].into_iter());
        assert_eq!(array.as_primitive::<TimestampMicrosecondType>().values(), &[1, -1]);
        assert_eq!(array.data_type(), Times::Epoch.fields()[0].data_type());
        let array = Times::Unknown.array([1_500_000_000].into_iter());
        assert_eq!(array.as_primitive::<Float64Type>().values(), &[1.5]);
    }
}
