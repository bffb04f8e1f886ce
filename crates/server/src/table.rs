//! Columns of text that stand under each other.

/// On which side a column's cells are flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Left,
    Right,
}

/// A heading and rows of as many cells.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<(String, Side)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(columns: &[(&str, Side)]) -> Self {
        Self { columns: columns.iter().map(|(name, side)| ((*name).to_owned(), *side)).collect(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Every line begins with `indent`; two spaces stand between columns, none at the end of a line.
    pub(crate) fn render(&self, indent: &str) -> String {
        let heading: Vec<_> = self.columns.iter().map(|(name, _)| name.clone()).collect();
        let lines: Vec<_> = std::iter::once(&heading).chain(&self.rows).collect();
        let width = |column: usize| {
            lines.iter().filter_map(|cells| cells.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..self.columns.len()).map(width).collect();
        let mut text = String::new();
        for cells in lines {
            let padded = cells.iter().zip(&self.columns).zip(&widths).map(|((cell, (_, side)), width)| match side {
                Side::Left => format!("{cell:<width$}"),
                Side::Right => format!("{cell:>width$}"),
            });
            text.push_str(indent);
            text.push_str(padded.collect::<Vec<_>>().join("  ").trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_stand_under_their_heading() {
        let mut table = Table::new(&[("name", Side::Left), ("rows", Side::Right), ("", Side::Left)]);
        table.row(["a".to_owned(), "1,000".to_owned(), String::new()]);
        table.row(["Größe".to_owned(), "1".to_owned(), "x".to_owned()]);
        assert_eq!(table.render(" "), " name    rows\n a      1,000\n Größe      1  x\n");
    }
}
