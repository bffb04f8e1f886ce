//! The options of `print`.

use ruslo_core::connector::OptionSpec;
use ruslo_core::error::Result;

use crate::option::{self, Options};

const IDENTIFIER: &str = "print-identifier";
const STYLE: &str = "style";

/// What a table may say.
pub(super) const SPECS: [OptionSpec; 2] = [
    OptionSpec { key: IDENTIFIER, required: false, doc: "Text in front of every row: 'identifier> +I[..]'." },
    OptionSpec {
        key: STYLE,
        required: false,
        doc: "'row' prints '+I[a, b]' a row, 'table' an aligned table (default 'row').",
    },
];

/// How rows are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// `+I[a, b]`
    Row,
    /// Aligned columns under one header.
    Table,
}

/// The options, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PrintOptions {
    pub(super) identifier: String,
    pub(super) style: Style,
}

impl PrintOptions {
    pub(super) fn parse(options: &Options) -> Result<Self> {
        let styles = [("row", Style::Row), ("table", Style::Table)];
        Ok(Self {
            identifier: options.get(IDENTIFIER).cloned().unwrap_or_default(),
            style: option::choice(options, STYLE, &styles, Style::Row)?,
        })
    }

    /// What stands in front of a row of this subtask, as in Flink.
    pub(super) fn prefix(&self, index: usize, parallelism: usize) -> String {
        match (self.identifier.as_str(), parallelism) {
            ("", 0 | 1) => String::new(),
            ("", _) => format!("{}> ", index.saturating_add(1)),
            (identifier, 0 | 1) => format!("{identifier}> "),
            (identifier, _) => format!("{identifier}:{}> ", index.saturating_add(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_is_flinks() {
        let cases = [("", 1, ""), ("", 3, "2> "), ("late", 1, "late> "), ("late", 3, "late:2> ")];
        for (identifier, parallelism, expected) in cases {
            let options = PrintOptions { identifier: identifier.into(), style: Style::Row };
            assert_eq!(options.prefix(1, parallelism), expected);
        }
    }

    #[test]
    fn the_style_is_one_of_two() {
        let given = |style: &str| Options::from([("style".to_owned(), style.to_owned())]);
        assert_eq!(PrintOptions::parse(&Options::new()).unwrap().style, Style::Row);
        assert_eq!(PrintOptions::parse(&given("table")).unwrap().style, Style::Table);
        let error = PrintOptions::parse(&given("pretty")).unwrap_err();
        assert_eq!(error.to_string(), "option 'style' = 'pretty': expected 'row' or 'table'");
    }
}
