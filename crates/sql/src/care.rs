//! Options that every table may have, whatever its connector: what becomes of records that cannot become rows, of late
//! rows, and of rows from the future.
//!
//! They are read twice: when the table is declared, for what is wrong with them by themselves, and when it is read, by
//! which time the tables that they name are known.

use ruslo_core::connector::OptionSpec;

use crate::cursor::At;
use crate::diagnostic::{Sql, SqlError};
use crate::settings::duration;

const ON_ERROR: &str = "on-error";
pub(crate) const ON_ERROR_TABLE: &str = "on-error.table";
const LATE_DATA: &str = "late-data";
pub(crate) const LATE_DATA_TABLE: &str = "late-data.table";
const ALLOWED_LATENESS: &str = "allowed-lateness";
const MAX_AHEAD: &str = "watermark.max-ahead";

/// What the options mean.
pub(crate) const SPECS: [OptionSpec; 6] = [
    OptionSpec {
        key: ON_ERROR,
        required: false,
        doc: "Source: what becomes of a record that cannot become a row: 'fail' (the default), 'skip' or 'dead-letter'.",
    },
    OptionSpec { key: ON_ERROR_TABLE, required: false, doc: "Source: the table that takes the dead letters." },
    OptionSpec {
        key: LATE_DATA,
        required: false,
        doc: "Source: what becomes of late rows: 'drop' (the default), 'side-table' or 'keep'.",
    },
    OptionSpec { key: LATE_DATA_TABLE, required: false, doc: "Source: the table that takes the late rows." },
    OptionSpec {
        key: ALLOWED_LATENESS,
        required: false,
        doc: "Source: how much later windows fire with 'late-data' = 'keep', such as '10 s'.",
    },
    OptionSpec {
        key: MAX_AHEAD,
        required: false,
        doc: "Source: a row that is further ahead of the clock than this, such as '1 h', does not move the watermark.",
    },
];

type Options = [(At<String>, At<String>)];

/// Whether `key` is one of these.
pub(crate) fn is_care(key: &str) -> bool {
    SPECS.iter().any(|spec| spec.key == key)
}

/// What a table says about difficult rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Care {
    pub(crate) bad: Bad,
    pub(crate) late: Late,
    pub(crate) max_ahead_ms: Option<i64>,
}

/// What becomes of records that cannot become rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Bad {
    Fail,
    Skip,
    /// To this table.
    DeadLetter(At<String>),
}

/// What becomes of late rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Late {
    Drop,
    /// To this table.
    Side(At<String>),
    /// Windows fire so much later.
    Keep(i64),
}

impl Care {
    /// What the WITH clause `options` says.
    pub(crate) fn of(options: &Options) -> Sql<Self> {
        Ok(Self { bad: bad(options)?, late: late(options)?, max_ahead_ms: max_ahead(options)? })
    }
}

fn find<'a>(options: &'a Options, key: &str) -> Option<&'a At<String>> {
    options.iter().find(|(known, _)| known.value == key).map(|(_, value)| value)
}

fn bad(options: &Options) -> Sql<Bad> {
    let word = word(options, ON_ERROR, &["fail", "skip", "dead-letter"])?;
    let table = companion(options, ON_ERROR_TABLE, ON_ERROR, "dead-letter", word)?;
    Ok(match (word, table) {
        (_, Some(table)) => Bad::DeadLetter(table.clone()),
        ("skip", None) => Bad::Skip,
        _ => Bad::Fail,
    })
}

fn late(options: &Options) -> Sql<Late> {
    let word = word(options, LATE_DATA, &["drop", "side-table", "keep"])?;
    let table = companion(options, LATE_DATA_TABLE, LATE_DATA, "side-table", word)?;
    let lateness = companion(options, ALLOWED_LATENESS, LATE_DATA, "keep", word)?;
    Ok(match (table, lateness) {
        (Some(table), _) => Late::Side(table.clone()),
        (_, Some(lateness)) => Late::Keep(milliseconds(ALLOWED_LATENESS, lateness)?),
        _ => Late::Drop,
    })
}

fn max_ahead(options: &Options) -> Sql<Option<i64>> {
    find(options, MAX_AHEAD).map(|value| milliseconds(MAX_AHEAD, value)).transpose()
}

/// The word that `key` says, the first of `words` if it says nothing.
fn word<'a>(options: &Options, key: &str, words: &[&'a str]) -> Sql<&'a str> {
    let Some(given) = find(options, key) else { return Ok(words.first().copied().unwrap_or_default()) };
    words.iter().find(|word| **word == given.value).copied().ok_or_else(|| {
        let known: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
        let sentence = format!("option '{key}' = '{}': expected {}", given.value, known.join(", "));
        SqlError::new(sentence).at(given.at).near(&given.value, words.iter().copied())
    })
}

/// The option `key`, which `owner` needs where it says `wanted`, and which means nothing elsewhere.
fn companion<'a>(
    options: &'a Options,
    key: &str,
    owner: &str,
    wanted: &str,
    word: &str,
) -> Sql<Option<&'a At<String>>> {
    match (find(options, key), word == wanted) {
        (Some(value), true) => Ok(Some(value)),
        (None, false) => Ok(None),
        (Some(value), false) => {
            let sentence = format!("'{key}' means something only with '{owner}' = '{wanted}'");
            Err(SqlError::new(sentence).at(value.at))
        }
        (None, true) => {
            let at = find(options, owner).map(|value| value.at);
            let doc = SPECS.iter().find(|spec| spec.key == key).map_or("", |spec| spec.doc);
            let error = SqlError::new(format!("'{owner}' = '{wanted}' needs the option '{key}'"));
            Err(at.map_or(error.clone(), |at| error.at(at)).help(format!("'{key}': {doc}")))
        }
    }
}

fn milliseconds(key: &str, value: &At<String>) -> Sql<i64> {
    let time = duration(&value.value).map_err(|sentence| SqlError::new(format!("'{key}': {sentence}")).at(value.at))?;
    i64::try_from(time.as_millis()).map_err(|_| SqlError::new(format!("'{key}' is too long")).at(value.at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::Position;

    fn options(given: &[(&str, &str)]) -> Vec<(At<String>, At<String>)> {
        let at = |column, value: &str| At { value: value.to_owned(), at: Position { line: 1, column } };
        given.iter().zip(1..).map(|((key, value), column)| (at(0, key), at(column, value))).collect()
    }

    fn refused(given: &[(&str, &str)]) -> String {
        Care::of(&options(given)).unwrap_err().message().to_owned()
    }

    #[test]
    fn without_options_jobs_fail_and_late_rows_go() {
        let care = Care::of(&options(&[("path", "x")])).unwrap();
        assert_eq!(care, Care { bad: Bad::Fail, late: Late::Drop, max_ahead_ms: None });
    }

    #[test]
    fn options_come_with_their_companions() {
        let care = |given| Care::of(&options(given)).unwrap();
        assert_eq!(care(&[("on-error", "skip")]).bad, Bad::Skip);
        let bad = care(&[("on-error.table", "b"), ("on-error", "dead-letter")]).bad;
        assert!(matches!(bad, Bad::DeadLetter(table) if table.value == "b"));
        let late = care(&[("late-data", "keep"), ("allowed-lateness", "2 s")]).late;
        assert_eq!(late, Late::Keep(2_000));
        let late = care(&[("late-data", "side-table"), ("late-data.table", "l")]).late;
        assert!(matches!(late, Late::Side(table) if table.value == "l"));
        assert_eq!(care(&[("watermark.max-ahead", "1 h")]).max_ahead_ms, Some(3_600_000));
    }

    #[test]
    fn what_does_not_fit_is_a_sentence() {
        let cases: [(&[(&str, &str)], &str); 8] = [
            (&[("on-error", "ignore")], "option 'on-error' = 'ignore': expected 'fail', 'skip', 'dead-letter'"),
            (&[("on-error", "dead-letter")], "'on-error' = 'dead-letter' needs the option 'on-error.table'"),
            (&[("on-error.table", "b")], "'on-error.table' means something only with 'on-error' = 'dead-letter'"),
            (&[("late-data", "keep")], "'late-data' = 'keep' needs the option 'allowed-lateness'"),
            (&[("late-data", "side")], "option 'late-data' = 'side': expected 'drop', 'side-table', 'keep'"),
            (
                &[("late-data", "drop"), ("allowed-lateness", "1 s")],
                "'allowed-lateness' means something only with 'late-data' = 'keep'",
            ),
            (
                &[("late-data", "keep"), ("allowed-lateness", "soon")],
                "'allowed-lateness': 'soon' is not a time such as '10 s', '500 ms' or '1 min'",
            ),
            (
                &[("watermark.max-ahead", "-1 s")],
                "'watermark.max-ahead': '-1 s' is not a time such as '10 s', '500 ms' or '1 min'",
            ),
        ];
        for (given, sentence) in cases {
            assert_eq!(refused(given), sentence);
        }
    }
}
