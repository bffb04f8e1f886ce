//! What the row counts of an operator must satisfy at every barrier.

use serde::{Deserialize, Serialize};

use crate::metrics::RowCounts;

/// What an operator does with its rows, as an equation of what it counts. Stored in checkpoints under these names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Equation {
    /// How many rows come out depends on what is in them.
    #[default]
    Open,
    /// A source: what it reads comes out, is skipped, or is a dead letter.
    Reads,
    /// Each row that comes in goes out.
    Same,
    /// Each row goes out or is filtered.
    Filters,
    /// Each row goes out or is late.
    Sifts,
    /// Each row is late or goes into the state.
    Keeps,
    /// Each row goes out, is late or waits to go out.
    Waits,
    /// The same, but of equal rows one goes out.
    Deduplicates,
    /// A sink that shows rows in a second phase: each row is committed, or will be by this checkpoint.
    Commits,
}

impl Equation {
    /// The equation in words.
    pub fn text(self) -> &'static str {
        match self {
            Self::Open => "rows out follow from values",
            Self::Reads => "in = out + skipped + dead letters",
            Self::Same => "in = out",
            Self::Filters => "in = out + filtered",
            Self::Sifts => "in = out + late",
            Self::Keeps => "in = late + kept",
            Self::Waits => "in = out + late + waiting",
            Self::Deduplicates => "in = out + duplicates + late + waiting",
            Self::Commits => "in = committed + pending",
        }
    }

    /// Rows that came in, and rows that are accounted for; none, if nothing can be said.
    pub fn sides(self, counts: &RowCounts) -> Option<(u64, u64)> {
        let waits = || counts.rows_out.saturating_add(counts.late_rows).saturating_add(counts.waiting_rows);
        let accounted = match self {
            Self::Open => return None,
            Self::Reads => counts.rows_out.saturating_add(counts.skipped_rows).saturating_add(counts.dead_letter_rows),
            Self::Same => counts.rows_out,
            Self::Filters => counts.rows_out.saturating_add(counts.filtered_rows),
            Self::Sifts => counts.rows_out.saturating_add(counts.late_rows),
            Self::Keeps => counts.late_rows.saturating_add(counts.kept_rows),
            Self::Waits => waits(),
            Self::Deduplicates => waits().saturating_add(counts.duplicate_rows),
            Self::Commits => counts.committed_rows.saturating_add(counts.pending_rows),
        };
        Some((counts.rows_in, accounted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_equation_has_two_sides() {
        let counts = RowCounts {
            rows_in: 100,
            rows_out: 1,
            late_rows: 2,
            skipped_rows: 4,
            dead_letter_rows: 8,
            filtered_rows: 16,
            kept_rows: 32,
            duplicate_rows: 64,
            waiting_rows: 128,
            committed_rows: 256,
            pending_rows: 512,
            ..RowCounts::default()
        };
        let accounted = |equation: Equation| equation.sides(&counts);
        assert_eq!(accounted(Equation::Open), None);
        let old = [Equation::Reads, Equation::Same, Equation::Filters, Equation::Sifts, Equation::Keeps];
        let new = [Equation::Waits, Equation::Deduplicates, Equation::Commits];
        let found: Vec<_> = old.into_iter().chain(new).filter_map(accounted).collect();
        assert_eq!(found, [13, 1, 17, 3, 34, 131, 195, 768].map(|accounted| (100, accounted)));
    }

    #[test]
    fn names_are_stored() {
        assert_eq!(serde_json::to_string(&Equation::Filters).unwrap(), "\"filters\"");
        assert_eq!(serde_json::to_string(&Equation::Deduplicates).unwrap(), "\"deduplicates\"");
    }
}
