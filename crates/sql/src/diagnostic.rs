//! What the planner says when it refuses a text: the sentence, the place, the line with a caret, a near name.
//!
//! Every part of this crate returns [`SqlError`], which knows a [`Position`] but not the file. [`crate::plan`] turns it
//! into the one public [`Error`] by [`SqlError::render`], which shows the user's own line:
//!
//! ```text
//! column 'dep_dela' does not exist in 'flights'
//!   --> flights.sql:3:8
//!    |
//!  3 | SELECT dep_dela FROM flights
//!    |        ^
//!    = help: did you mean 'dep_delay'?
//! ```

use datafusion::sql::sqlparser::tokenizer::{Location, Span, TokenWithSpan};
use ruslo_core::error::{Error, ErrorKind};

/// Longest part of a source line that a message shows, in characters.
const SHOWN_CHARS_MAX: usize = 120;

/// The result of planning a part of a script.
pub(crate) type Sql<T> = Result<T, SqlError>;

/// A script and the name by which messages call it: a file, or `-e`.
#[derive(Debug, Clone, Copy)]
pub struct Script<'a> {
    /// What messages call it.
    pub name: &'a str,
    /// SQL statements, separated by semicolons.
    pub text: &'a str,
}

/// A place in the user's text; both count from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) line: u64,
    pub(crate) column: u64,
}

impl Position {
    /// Where `token` begins.
    pub(crate) fn of(token: &TokenWithSpan) -> Self {
        Self::from(token.span.start)
    }

    /// Where `span` begins, if it is a place in the text at all (the parser leaves some spans empty).
    pub(crate) fn of_span(span: Span) -> Option<Self> {
        (span.start.line > 0).then(|| Self::from(span.start))
    }
}

impl From<Location> for Position {
    fn from(location: Location) -> Self {
        Self { line: location.line, column: location.column }
    }
}

/// A sentence, where it points to, and what may help.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SqlError {
    kind: ErrorKind,
    message: String,
    at: Option<Position>,
    help: Option<String>,
    detail: Option<String>,
}

impl SqlError {
    /// A mistake of the user's.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Usage, message: message.into(), at: None, help: None, detail: None }
    }

    /// A mistake of ours.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Internal, ..Self::new(message) }
    }

    /// `what` (a plural: "HOP windows") exists in Flink and not here, so far.
    pub(crate) fn not_yet(what: impl AsRef<str>, at: impl Into<Option<Position>>) -> Self {
        let what = what.as_ref();
        match at.into() {
            Some(at) => {
                let Position { line, column } = at;
                Self::new(format!("{what} are not supported yet (line {line}, column {column})")).at(at)
            }
            None => Self::new(format!("{what} are not supported yet")),
        }
    }

    /// The same, pointing to `at`.
    pub(crate) fn at(mut self, at: impl Into<Option<Position>>) -> Self {
        self.at = at.into().or(self.at);
        self
    }

    /// The same, pointing nowhere.
    pub(crate) fn nowhere(self) -> Self {
        Self { at: None, ..self }
    }

    /// The name that the sentence quotes first.
    pub(crate) fn quoted(&self) -> Option<&str> {
        self.message.split('\'').nth(1)
    }

    /// The same, pointing to `at` if it points nowhere so far.
    pub(crate) fn or_at(mut self, at: impl Into<Option<Position>>) -> Self {
        self.at = self.at.or(at.into());
        self
    }

    /// The same with a line of help.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The same with lines that show more, such as two schemas.
    pub(crate) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// The same, with `did you mean` if one of `candidates` is near to `name`.
    pub(crate) fn near<'a>(self, name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Self {
        match nearest(name, candidates) {
            Some(near) => self.help(format!("did you mean '{near}'?")),
            None => self,
        }
    }

    /// The sentence alone.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// The public error: the sentence, the place in `script`, its line with a caret, the help.
    pub(crate) fn render(&self, script: Script<'_>) -> Error {
        let mut text = self.message.clone();
        let width = self.at.map_or(1, |at| at.line.to_string().len());
        if let Some(at) = self.at {
            text.push_str(&format!("\n{:width$}--> {}:{}:{}", "", script.name, at.line, at.column));
            if let Some((shown, caret)) = excerpt(script.text, at) {
                text.push_str(&format!("\n{:width$} |\n{} | {shown}\n{:width$} | {caret}^", "", at.line, ""));
            }
        }
        if let Some(help) = &self.help {
            text.push_str(&format!("\n{:width$} = help: {help}", ""));
        }
        if let Some(detail) = &self.detail {
            text.push('\n');
            text.push_str(detail);
        }
        Error::new(self.kind, text)
    }
}

impl From<Error> for SqlError {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        let message = text.strip_prefix("internal error (please report it): ").unwrap_or(&text);
        Self { kind: error.kind(), ..Self::new(message) }
    }
}

/// The line of `text` at `at` and the blanks that bring a caret under its column. Tabs stay tabs; of a long line only
/// the part around the column is shown.
fn excerpt(text: &str, at: Position) -> Option<(String, String)> {
    let line = text.lines().nth(usize::try_from(at.line.checked_sub(1)?).ok()?)?;
    let column = usize::try_from(at.column.checked_sub(1)?).ok()?;
    let first = column.saturating_sub(SHOWN_CHARS_MAX.saturating_mul(2) / 3);
    let first = if line.chars().count() <= SHOWN_CHARS_MAX { 0 } else { first };
    let shown: String = line.chars().skip(first).take(SHOWN_CHARS_MAX).collect();
    let blank = |c: char| if c == '\t' { '\t' } else { ' ' };
    let mut caret: String = line.chars().skip(first).take(column.saturating_sub(first)).map(blank).collect();
    let missing = column.saturating_sub(first).saturating_sub(caret.chars().count());
    caret.extend(std::iter::repeat_n(' ', missing));
    Some((shown, caret))
}

/// The candidate that `name` was probably meant to be: equal but for case, or few letters away.
pub(crate) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = name.to_lowercase();
    let allowed = wanted.chars().count().div_ceil(4).clamp(1, 4);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&wanted, &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by(|a, b| a.cmp(b))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: Script<'_> = Script { name: "flights.sql", text: "-- first\nSELECT\tdep_dela\nFROM flights" };

    #[test]
    fn shows_the_line_the_caret_and_the_near_name() {
        let error = SqlError::new("column 'dep_dela' does not exist")
            .at(Position { line: 2, column: 8 })
            .near("dep_dela", ["arr_delay", "dep_delay", "origin"]);
        let expected = "column 'dep_dela' does not exist\n --> flights.sql:2:8\n  |\n2 | SELECT\tdep_dela\n  |       \t^\n  \
                        = help: did you mean 'dep_delay'?";
        assert_eq!(error.render(SCRIPT).to_string(), expected);
    }

    #[test]
    fn a_refusal_is_one_sentence_with_its_place() {
        let error = SqlError::not_yet("HOP windows", Position { line: 3, column: 12 });
        assert_eq!(error.message(), "HOP windows are not supported yet (line 3, column 12)");
    }

    #[test]
    fn a_place_behind_the_text_shows_no_line() {
        let error = SqlError::new("expected ';'").at(Position { line: 99, column: 1 });
        assert_eq!(error.render(SCRIPT).to_string(), "expected ';'\n  --> flights.sql:99:1");
    }

    #[test]
    fn a_long_line_is_cut_around_the_column() {
        let text = format!("SELECT {} x", "a, ".repeat(200));
        let at = Position { line: 1, column: text.chars().count() as u64 };
        let (shown, caret) = excerpt(&text, at).unwrap();
        assert!(shown.ends_with(" x") && shown.chars().count() <= SHOWN_CHARS_MAX);
        assert_eq!(caret.len() + 1, shown.len());
    }

    #[test]
    fn near_means_case_or_a_few_letters() {
        assert_eq!(nearest("windowstart", ["windowStart", "window_end"]), Some("windowStart"));
        assert_eq!(nearest("x", ["origin", "dest"]), None);
        assert_eq!(nearest("filesystm", ["filesystem", "print"]), Some("filesystem"));
    }
}
