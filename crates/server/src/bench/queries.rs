//! The queries of Nexmark that can be measured, in Flink's text: the files of `bench/nexmark/sql`.

use ruslo::{Error, Result};

/// A query and its text; the first line says what its sink's columns are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Query {
    pub(crate) name: &'static str,
    text: &'static str,
}

macro_rules! queries {
    ($($name:literal),* $(,)?) => {
        &[$(Query { name: $name, text: include_str!(concat!("../../../../bench/nexmark/sql/", $name, ".sql")) }),*]
    };
}

/// Every query there is. `q5_windows` and its like are the window aggregates of a query, without its join.
pub(crate) const QUERIES: &[Query] =
    queries!["q0", "q1", "q2", "q5_windows", "q7_windows", "q8_windows", "q11", "q12", "q21", "q22"];

/// The tables, with `${DATA}`, `${FMT}` and `${FMTOPTS}` to be filled in.
const TABLES: &str = include_str!("../../../../bench/nexmark/sql/ddl.sql");

impl Query {
    /// The columns of its result.
    fn sink(self) -> &'static str {
        let first = self.text.lines().next().unwrap_or_default();
        first.trim_start_matches("-- sink:").trim()
    }

    /// The script that runs it over `source`, its result into nothing.
    pub(crate) fn script(self, source: &Source) -> String {
        let tables = source.tables();
        let sink = self.sink();
        format!(
            "{tables}\nCREATE TABLE results_out ({sink}) WITH ('connector' = 'blackhole');\n\nINSERT INTO results_out\n{}",
            self.text
        )
    }
}

/// The queries that `names`, a comma list, asks for; all of them for `all`.
///
/// # Errors
/// `Usage`, naming those there are.
pub(crate) fn chosen(names: &str) -> Result<Vec<Query>> {
    if names == "all" {
        return Ok(QUERIES.to_vec());
    }
    names.split(',').map(|name| find(name.trim())).collect()
}

fn find(name: &str) -> Result<Query> {
    QUERIES.iter().find(|query| query.name == name).copied().ok_or_else(|| {
        let known: Vec<_> = QUERIES.iter().map(|query| query.name).collect();
        Error::usage(format!("there is no query '{name}'; there are {}", known.join(", ")))
    })
}

/// Where the events come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// They are made up as they are read: so many of all three kinds.
    Generator { events: u64 },
    /// JSON files in the folders `person`, `auction` and `bid` of `FOLDER/json`.
    Json { folder: String },
}

impl Source {
    fn tables(&self) -> String {
        match self {
            Self::Json { folder } => {
                let format = "'format' = 'json', 'json.timestamp-format.standard' = 'SQL'";
                let folder = folder.replace('\'', "''");
                TABLES.replace("${DATA}", &folder).replace("${FMTOPTS}", format).replace("${FMT}", "json")
            }
            Self::Generator { events } => {
                let with = format!("WITH ('connector' = 'nexmark', 'events.num' = '{events}');");
                let table = |part: &str| match part.split_once(") WITH (") {
                    Some((columns, _)) => format!("{columns}) {with}\n"),
                    None => String::new(),
                };
                TABLES.split(';').map(table).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ruslo::Program;

    use super::*;

    #[test]
    fn every_query_is_planned_over_both_sources() {
        let sources = [Source::Generator { events: 1000 }, Source::Json { folder: "no/such".to_owned() }];
        for (query, source) in QUERIES.iter().flat_map(|query| sources.iter().map(move |source| (query, source))) {
            let script = query.script(source);
            Program::new(query.name, script).plan().unwrap_or_else(|error| panic!("{}: {error}", query.name));
        }
    }

    #[test]
    fn an_unknown_query_names_those_there_are() {
        assert_eq!(chosen("q0, q11").unwrap().len(), 2);
        assert_eq!(chosen("all").unwrap().len(), QUERIES.len());
        let error = chosen("q0,q99").unwrap_err().to_string();
        assert!(error.starts_with("there is no query 'q99'; there are q0, q1"), "{error}");
    }
}
