//! Which windows a query asks for: what its text says, what EXPLAIN shows, what ids are made of, and the operators'
//! shape.

use std::fmt;

use arrow::datatypes::DataType;
use chrono_tz::Tz;
use ruslo_operators::{WindowClock, WindowShape};

use crate::diagnostic::{Sql, SqlError};
use crate::interval::describe;

/// Windows of event time; all lengths in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum WindowSpec {
    /// `[k × size + offset, (k + 1) × size + offset)`.
    Tumble { size_ms: i64, offset_ms: i64 },
    /// One of `size` every `slide`.
    Hop { slide_ms: i64, size_ms: i64, offset_ms: i64 },
    /// From each `k × size + offset` on, one that ends every `step` until the size is reached.
    Cumulate { step_ms: i64, size_ms: i64, offset_ms: i64 },
    /// From a row of a key to the last one that follows within `gap`.
    Session { gap_ms: i64 },
}

impl WindowSpec {
    /// Its name in operators and plans.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::Tumble { .. } => "Tumble",
            Self::Hop { .. } => "Hop",
            Self::Cumulate { .. } => "Cumulate",
            Self::Session { .. } => "Session",
        }
    }

    /// Its lengths as the logical plan shows them.
    pub(crate) fn parameters(self) -> String {
        match self {
            Self::Tumble { .. } => format!("size={self}"),
            Self::Hop { slide_ms, size_ms, offset_ms } => {
                format!("slide={}, size={}{}", describe(slide_ms), describe(size_ms), offset(offset_ms))
            }
            Self::Cumulate { step_ms, size_ms, offset_ms } => {
                format!("step={}, size={}{}", describe(step_ms), describe(size_ms), offset(offset_ms))
            }
            Self::Session { gap_ms } => format!("gap={}", describe(gap_ms)),
        }
    }

    /// What the ids of its operators begin with. Stored for ever: docs/design/operator-ids.md.
    pub(crate) fn identity(self, zone: WindowZone) -> String {
        let zone = match zone {
            WindowZone(Some(zone)) if zone != Tz::UTC => format!(" zone={zone}"),
            _ => String::new(),
        };
        let window = match self {
            Self::Tumble { size_ms, offset_ms } => format!("tumble size={size_ms} offset={offset_ms}"),
            Self::Hop { slide_ms, size_ms, offset_ms } => {
                format!("hop slide={slide_ms} size={size_ms} offset={offset_ms}")
            }
            Self::Cumulate { step_ms, size_ms, offset_ms } => {
                format!("cumulate step={step_ms} size={size_ms} offset={offset_ms}")
            }
            // The zone matters to what is shown of it, not to what it is.
            Self::Session { gap_ms } => return format!("session gap={gap_ms}"),
        };
        format!("{window}{zone}")
    }

    /// The operators' windows.
    pub(crate) fn shape(self, zone: WindowZone) -> Sql<WindowShape> {
        let shape = match self {
            Self::Tumble { size_ms, offset_ms } => WindowShape::tumble(size_ms, offset_ms)?,
            Self::Hop { slide_ms, size_ms, offset_ms } => WindowShape::hop(slide_ms, size_ms, offset_ms)?,
            Self::Cumulate { step_ms, size_ms, offset_ms } => WindowShape::cumulate(step_ms, size_ms, offset_ms)?,
            Self::Session { .. } => return Err(SqlError::internal("a session has no shape of its own")),
        };
        Ok(zone.0.map_or(shape, |zone| shape.in_zone(zone)))
    }
}

/// The zone whose local time windows are of; none if the rows' time is a TIMESTAMP, which has no zone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct WindowZone(pub(crate) Option<Tz>);

impl WindowZone {
    /// For windows over times of this type.
    pub(crate) fn of(time: &DataType, session: Tz) -> Self {
        Self(matches!(time, DataType::Timestamp(_, Some(_))).then_some(session))
    }

    /// Whether local time is another than that of the instant.
    pub(crate) fn shifts(self) -> bool {
        self.0.is_some_and(|zone| zone != Tz::UTC)
    }

    /// The operators' clock.
    pub(crate) fn clock(self) -> WindowClock {
        self.0.map_or(WindowClock::plain(), WindowClock::in_zone)
    }

    /// What EXPLAIN says of it behind the time column.
    pub(crate) fn shown(self) -> String {
        self.0.filter(|_| self.shifts()).map(|zone| format!(" in {zone}")).unwrap_or_default()
    }
}

/// As a person says it.
impl fmt::Display for WindowSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Tumble { size_ms, offset_ms } => write!(f, "{}{}", describe(size_ms), offset(offset_ms)),
            Self::Hop { slide_ms, size_ms, offset_ms } => {
                write!(f, "{} every {}{}", describe(size_ms), describe(slide_ms), offset(offset_ms))
            }
            Self::Cumulate { step_ms, size_ms, offset_ms } => {
                write!(f, "up to {} by {}{}", describe(size_ms), describe(step_ms), offset(offset_ms))
            }
            Self::Session { gap_ms } => write!(f, "gap {}", describe(gap_ms)),
        }
    }
}

fn offset(offset_ms: i64) -> String {
    if offset_ms == 0 { String::new() } else { format!(" offset {}", describe(offset_ms)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_plans_say_what_the_window_is() {
        let specs = [
            (WindowSpec::Tumble { size_ms: 3_600_000, offset_ms: 0 }, "tumble size=3600000 offset=0", "1 h"),
            (
                WindowSpec::Tumble { size_ms: 1000, offset_ms: -500 },
                "tumble size=1000 offset=-500",
                "1 s offset -500 ms",
            ),
            (
                WindowSpec::Hop { slide_ms: 2000, size_ms: 10_000, offset_ms: 0 },
                "hop slide=2000 size=10000 offset=0",
                "10 s every 2 s",
            ),
            (
                WindowSpec::Cumulate { step_ms: 2000, size_ms: 10_000, offset_ms: 1000 },
                "cumulate step=2000 size=10000 offset=1000",
                "up to 10 s by 2 s offset 1 s",
            ),
            (WindowSpec::Session { gap_ms: 5000 }, "session gap=5000", "gap 5 s"),
        ];
        for (spec, identity, shown) in specs {
            assert_eq!(
                (spec.identity(WindowZone(Some(Tz::UTC))).as_str(), spec.to_string().as_str()),
                (identity, shown)
            );
            assert_eq!(spec.identity(WindowZone::default()), identity);
        }
        let berlin = WindowZone(Some(Tz::Europe__Berlin));
        let identity = WindowSpec::Tumble { size_ms: 1000, offset_ms: 0 }.identity(berlin);
        assert_eq!(identity, "tumble size=1000 offset=0 zone=Europe/Berlin");
        assert_eq!(WindowSpec::Session { gap_ms: 5 }.identity(berlin), "session gap=5");
    }
}
