//! The queries of Nexmark that can be measured, in Flink's text: the files of `bench/nexmark/sql`. Their first lines say what
//! is not SQL: `-- sink:` the columns of the result, `-- partitioned by:` that it goes into files, by these columns, `-- looks up:`
//! the table that it asks, which only the files have.

use std::path::Path;

use ruslo::{Error, Result};

/// A query and its text.
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
pub(crate) const QUERIES: &[Query] = queries![
    "q0",
    "q1",
    "q2",
    "q3",
    "q4",
    "q5",
    "q5_windows",
    "q6",
    "q7",
    "q7_windows",
    "q8",
    "q8_windows",
    "q9",
    "q10",
    "q11",
    "q12",
    "q13",
    "q14",
    "q15",
    "q16",
    "q17",
    "q18",
    "q19",
    "q20",
    "q21",
    "q22",
];

/// The tables, with `${DATA}`, `${FMT}` and `${FMTOPTS}` to be filled in.
const TABLES: &str = include_str!("../../../../bench/nexmark/sql/ddl.sql");

impl Query {
    /// What the lines before the query say of `what`.
    fn said(self, what: &str) -> Option<&'static str> {
        let lines = self.text.lines().map_while(|line| line.strip_prefix("-- "));
        lines.filter_map(|line| line.split_once(": ")).find(|(name, _)| *name == what).map(|(_, value)| value.trim())
    }

    /// The table of its result: into nothing, or into files below `folder`.
    fn result(self, folder: &Path) -> String {
        let columns = self.said("sink").unwrap_or_default();
        match self.said("partitioned by") {
            None => format!("CREATE TABLE results_out ({columns}) WITH ('connector' = 'blackhole');"),
            Some(partition) => format!(
                "CREATE TABLE results_out ({columns}) PARTITIONED BY ({partition}) \
                 WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'csv');",
                quoted(&folder.display().to_string())
            ),
        }
    }

    /// The script that runs it over `source`; what it has to write, it writes below `folder`.
    pub(crate) fn script(self, source: &Source, folder: &Path) -> String {
        let (tables, result) = (source.tables(), self.result(folder));
        format!("{tables}\n{result}\n\nINSERT INTO results_out\n{}", self.text)
    }
}

/// What stands between quotes for `text`.
fn quoted(text: &str) -> String {
    text.replace('\'', "''")
}

/// The queries that `names`, a comma list, asks for; for `all`, every one that `source` has the tables of.
///
/// # Errors
/// `Usage`, naming those there are, or the source that a query needs.
pub(crate) fn chosen(names: &str, source: &Source) -> Result<Vec<Query>> {
    if names == "all" {
        return Ok(QUERIES.iter().filter(|query| source.has_tables_of(**query)).copied().collect());
    }
    let chosen: Vec<_> = names.split(',').map(|name| find(name.trim())).collect::<Result<_>>()?;
    match chosen.iter().find(|query| !source.has_tables_of(**query)) {
        Some(query) => {
            Err(Error::usage(format!("{} asks a table that only files have; give --source json", query.name)))
        }
        None => Ok(chosen),
    }
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
    fn has_tables_of(&self, query: Query) -> bool {
        matches!(self, Self::Json { .. }) || query.said("looks up").is_none()
    }

    fn tables(&self) -> String {
        match self {
            Self::Json { folder } => {
                let format = "'format' = 'json', 'json.timestamp-format.standard' = 'SQL'";
                TABLES.replace("${DATA}", &quoted(folder)).replace("${FMTOPTS}", format).replace("${FMT}", "json")
            }
            Self::Generator { events } => {
                let with = format!("WITH ('connector' = 'nexmark', 'events.num' = '{events}');");
                let table = |part: &str| match part.split_once(") WITH (") {
                    Some((columns, _)) => format!("{columns}) {with}\n"),
                    // What is like another table goes by another name.
                    None => part.replace(" LIKE auction", " WITH ('table' = 'auction') LIKE auction") + ";\n",
                };
                TABLES.trim_end().trim_end_matches(';').split(';').map(table).collect()
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
            if !source.has_tables_of(*query) {
                continue;
            }
            let script = query.script(source, Path::new("no/such/result"));
            Program::new(query.name, script).plan().unwrap_or_else(|error| panic!("{}: {error}", query.name));
        }
    }

    #[test]
    fn an_unknown_query_names_those_there_are() {
        let (files, generator) = (Source::Json { folder: "no/such".to_owned() }, Source::Generator { events: 1000 });
        assert_eq!(chosen("q0, q11", &generator).unwrap().len(), 2);
        assert_eq!(chosen("all", &files).unwrap().len(), QUERIES.len());
        assert_eq!(chosen("all", &generator).unwrap().len(), QUERIES.len() - 1);
        let error = chosen("q13", &generator).unwrap_err().to_string();
        assert_eq!(error, "q13 asks a table that only files have; give --source json");
        let error = chosen("q0,q99", &generator).unwrap_err().to_string();
        assert!(error.starts_with("there is no query 'q99'; there are q0, q1"), "{error}");
    }
}
