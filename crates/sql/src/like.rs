//! `CREATE TABLE t (..) WITH (..) LIKE base (INCLUDING .. EXCLUDING .. OVERWRITING ..)`: what comes from the other table.

use datafusion::sql::sqlparser::tokenizer::Token;

use crate::cursor::{At, Cursor};
use crate::ddl::{ColumnDdl, ColumnKind, TableDdl};
use crate::diagnostic::{Sql, SqlError};

/// What a table has, as LIKE calls it.
const FEATURES: [&str; 7] = ["ALL", "CONSTRAINTS", "GENERATED", "METADATA", "OPTIONS", "PARTITIONS", "WATERMARKS"];

/// How the other table's part and one's own come together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Merge {
    /// Both; what both have is an error.
    Including,
    /// One's own.
    Excluding,
    /// Both; one's own counts where both have it.
    Overwriting,
}

/// The LIKE clause.
#[derive(Debug, Clone)]
pub(crate) struct LikeDdl {
    pub(crate) base: At<String>,
    merges: Vec<(&'static str, Merge)>,
}

impl LikeDdl {
    /// The last word on `feature`; by default everything is taken over and options may be given anew.
    fn merge(&self, feature: &str) -> Merge {
        let said = self.merges.iter().rev().find(|(named, _)| *named == feature);
        let all = self.merges.iter().rev().find(|(named, _)| *named == "ALL");
        let default = if feature == "OPTIONS" { Merge::Overwriting } else { Merge::Including };
        said.or(all).map_or(default, |(_, merge)| *merge)
    }
}

/// Reads what follows LIKE.
pub(crate) fn parse(cursor: &mut Cursor<'_>) -> Sql<LikeDdl> {
    let base = cursor.table_name("the name of the table to be like")?;
    let mut merges = Vec::new();
    if cursor.eat_token(&Token::LParen) {
        while !cursor.eat_token(&Token::RParen) {
            let merge = match () {
                () if cursor.eat(&["INCLUDING"]) => Merge::Including,
                () if cursor.eat(&["EXCLUDING"]) => Merge::Excluding,
                () if cursor.eat(&["OVERWRITING"]) => Merge::Overwriting,
                () => return Err(cursor.expected("INCLUDING, EXCLUDING, OVERWRITING or ')'")),
            };
            let named = FEATURES.iter().copied().find(|feature| cursor.peeks(0, feature));
            let Some(feature) = named else { return Err(cursor.expected(&FEATURES.join(", "))) };
            if merge == Merge::Overwriting && matches!(feature, "ALL" | "CONSTRAINTS" | "PARTITIONS") {
                let error = SqlError::new(format!("OVERWRITING {feature} has no meaning")).at(cursor.position());
                return Err(error.help("INCLUDING or EXCLUDING it has"));
            }
            cursor.advance();
            merges.push((feature, merge));
        }
    }
    Ok(LikeDdl { base, merges })
}

/// `own`, a table that is LIKE `base`, with what it takes over.
pub(crate) fn merged(own: &TableDdl, like: &LikeDdl, base: &TableDdl) -> Sql<TableDdl> {
    let twice = |what: String, at| {
        let error = SqlError::new(format!("{what} is in '{}' too", like.base.value)).at(at);
        Err(error.help("EXCLUDING leaves the other table's out"))
    };
    let mut made = TableDdl { like: None, ..own.clone() };
    made.columns = columns(own, like, base)?;
    made.watermark = match (like.merge("WATERMARKS"), &own.watermark, &base.watermark) {
        (Merge::Including, Some(own), Some(_)) => return twice("a watermark".to_owned(), own.column.at),
        (Merge::Excluding, own, _) | (_, own @ Some(_), _) => own.clone(),
        (_, None, theirs) => theirs.clone(),
    };
    if like.merge("CONSTRAINTS") == Merge::Including && !base.primary_key.is_empty() {
        match own.primary_key.first() {
            Some(key) => return twice("a primary key".to_owned(), key.at),
            None => made.primary_key.clone_from(&base.primary_key),
        }
    }
    if like.merge("PARTITIONS") == Merge::Including && !base.partition_keys.is_empty() {
        match own.partition_keys.first() {
            Some(key) => return twice("PARTITIONED BY".to_owned(), key.at),
            None => made.partition_keys.clone_from(&base.partition_keys),
        }
    }
    let theirs = if like.merge("OPTIONS") == Merge::Excluding { &[] } else { base.options.as_slice() };
    for (key, value) in theirs {
        match own.options.iter().find(|(known, _)| known.value == key.value) {
            Some((known, _)) if like.merge("OPTIONS") == Merge::Including => {
                return twice(format!("the option '{}'", known.value), known.at);
            }
            Some(_) => {}
            None => made.options.push((key.clone(), value.clone())),
        }
    }
    Ok(made)
}

/// The other table's columns, then one's own.
fn columns(own: &TableDdl, like: &LikeDdl, base: &TableDdl) -> Sql<Vec<ColumnDdl>> {
    let mut columns = Vec::new();
    for column in &base.columns {
        let merge = match column.kind {
            ColumnKind::Physical { .. } => Merge::Including,
            ColumnKind::Computed(_) => like.merge("GENERATED"),
            ColumnKind::Metadata { .. } => like.merge("METADATA"),
        };
        match (merge, own.columns.iter().find(|other| other.name.value == column.name.value)) {
            (Merge::Including, Some(other)) => {
                let (name, base) = (&other.name.value, &like.base.value);
                return Err(SqlError::new(format!("the column '{name}' is in '{base}' too")).at(other.name.at));
            }
            (Merge::Excluding, _) | (Merge::Overwriting, Some(_)) => {}
            (_, None) => columns.push(column.clone()),
        }
    }
    columns.extend(own.columns.iter().cloned());
    Ok(columns)
}
