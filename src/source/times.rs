//! The times of samples, and the columns with the times of windows.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, TimestampMicrosecondArray};
use arrow::compute::max;
use arrow::datatypes::{DataType, Field, Float64Type, TimeUnit, TimestampMicrosecondType};

use super::clock::SECOND;
use crate::error::{Error, Result};

/// The column of the time of a window's first sample.
pub const START_TIME: &str = "start_time";
/// The column of the time of a window's last sample.
pub const END_TIME: &str = "end_time";

/// Times from this many seconds on are taken to count from 1970: they are after 1973, and no recording takes three
/// years.
const SINCE_1970: i64 = 100_000_000;

/// What times count from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
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

/// The newest of the times in one of their columns, in nanoseconds; `None` if it has none.
///
/// # Errors
/// Kind `Internal` for a column of another type.
pub(crate) fn newest(times: &ArrayRef) -> Result<Option<i64>> {
    match times.data_type() {
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            Ok(max(times.as_primitive::<TimestampMicrosecondType>()).map(|micros| micros.saturating_mul(1000)))
        }
        DataType::Float64 => {
            let seconds = max(times.as_primitive::<Float64Type>());
            Ok(seconds.map(|seconds| (seconds * SECOND as f64) as i64))
        }
        other => Err(Error::internal(format!("times of windows as {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_in_time_are_told_from_seconds_of_a_recording() {
        assert_eq!(Times::beginning_with(1_700_000_000 * SECOND), Times::Epoch);
        for seconds in [-5, 0, 86_400 * 365] {
            assert_eq!(Times::beginning_with(seconds * SECOND), Times::Unknown, "{seconds}");
        }
    }

    #[test]
    fn the_newest_time_is_found_in_any_unit() {
        let newest = |times: Times, values: Vec<i64>| newest(&times.array(values.into_iter())).unwrap();
        let years = 1_700_000_000 * SECOND;
        assert_eq!(newest(Times::Epoch, vec![years + 1_000, years + 5_000, years]), Some(years + 5_000));
        assert_eq!(newest(Times::Unknown, vec![SECOND / 2, 0]), Some(SECOND / 2));
        assert_eq!(newest(Times::Unknown, vec![]), None);
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
