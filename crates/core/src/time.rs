//! Event time: milliseconds since 1970-01-01 00:00:00, and the arithmetic that cannot overflow silently.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A point in event time, in milliseconds since the Unix epoch.
///
/// [`Timestamp::MIN`] is before every row and [`Timestamp::MAX`] after every row: a watermark at `MAX` says that
/// nothing more will come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Before every row.
    pub const MIN: Self = Self(i64::MIN);
    /// After every row.
    pub const MAX: Self = Self(i64::MAX);

    /// Milliseconds since the Unix epoch.
    pub fn millis(self) -> i64 {
        self.0
    }
}

impl fmt::Display for Timestamp {
    /// `2013-01-01 05:00:00.000`, or `-` before the first row and `end` after the last.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::MIN => f.write_str("-"),
            Self::MAX => f.write_str("end"),
            Self(millis) => match arrow::temporal_conversions::timestamp_ms_to_datetime(millis) {
                Some(time) => write!(f, "{}", time.format("%Y-%m-%d %H:%M:%S%.3f")),
                None => write!(f, "{millis} ms"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_a_person_writes_it() {
        assert_eq!(Timestamp(1_357_016_400_123).to_string(), "2013-01-01 05:00:00.123");
        assert_eq!(Timestamp::MIN.to_string(), "-");
        assert_eq!(Timestamp::MAX.to_string(), "end");
        assert_eq!(Timestamp(i64::MAX - 1).to_string(), "9223372036854775806 ms");
    }
}
