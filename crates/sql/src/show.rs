//! SHOW and DESCRIBE: what a script has declared so far, as a table of text.

use crate::catalog::{Catalog, Relation, Table};
use crate::cursor::{At, Cursor, unquoted};
use crate::ddl::{ColumnKind, TableDdl};
use crate::diagnostic::{Sql, SqlError};
use crate::ids;
use crate::types::{name_text, sql_name};

/// What is shown.
#[derive(Debug, Clone)]
pub(crate) enum Show {
    Tables,
    Views,
    Functions,
    CreateTable(At<String>),
    CreateView(At<String>),
    Describe(At<String>),
}

/// Reads what follows SHOW.
pub(crate) fn parse_show(cursor: &mut Cursor<'_>) -> Sql<Show> {
    let at = cursor.position();
    let show = if cursor.eat(&["TABLES"]) {
        Show::Tables
    } else if cursor.eat(&["VIEWS"]) {
        Show::Views
    } else if cursor.eat(&["FUNCTIONS"]) {
        Show::Functions
    } else if cursor.eat(&["CREATE", "TABLE"]) {
        Show::CreateTable(cursor.table_name("the table's name")?)
    } else if cursor.eat(&["CREATE", "VIEW"]) {
        Show::CreateView(cursor.table_name("the view's name")?)
    } else if cursor.peeks(0, "JOBS") {
        let error = SqlError::new("SHOW JOBS needs a server that runs jobs; a script is one job of its own");
        return Err(error.at(at));
    } else {
        return Err(match cursor.peek(0).and_then(unquoted) {
            Some(word) => SqlError::not_yet(format!("SHOW {} statements", word.value.to_uppercase()), at),
            None => cursor.expected("TABLES, VIEWS, FUNCTIONS, CREATE TABLE or CREATE VIEW"),
        });
    };
    cursor.expect_done().map(|()| show)
}

/// The text of `show`; `functions` are the names of all functions.
///
/// # Errors
/// A sentence, if there is no such table or view.
pub(crate) fn text(show: &Show, catalog: &Catalog, functions: impl FnOnce() -> Vec<String>) -> Sql<String> {
    let named = |views_only: bool| {
        let relations = catalog.relations();
        let wanted = relations.filter(move |(_, relation)| !views_only || matches!(relation, Relation::View(_)));
        wanted.map(|(name, _)| vec![name.to_owned()]).collect::<Vec<_>>()
    };
    match show {
        Show::Tables => Ok(table(&["table name"], &named(false))),
        Show::Views => Ok(table(&["view name"], &named(true))),
        Show::Functions => {
            let mut names = functions();
            names.sort();
            names.dedup();
            let rows: Vec<_> = names.into_iter().map(|name| vec![name]).collect();
            Ok(table(&["function name"], &rows))
        }
        Show::CreateTable(name) => match relation(catalog, name)? {
            Relation::Table(table) => Ok(create_table(&table.ddl)),
            Relation::View(_) => Err(wrong(name, "a view", "SHOW CREATE VIEW")),
        },
        Show::CreateView(name) => match relation(catalog, name)? {
            Relation::View(view) => Ok(format!("{}\n", view.canonical)),
            Relation::Table(_) => Err(wrong(name, "a table", "SHOW CREATE TABLE")),
        },
        Show::Describe(name) => Ok(match relation(catalog, name)? {
            Relation::Table(table) => describe(table),
            Relation::View(view) => {
                let rows =
                    view.schema.fields().iter().map(|field| {
                        vec![field.name().clone(), sql_name(field.data_type()), truth(field.is_nullable())]
                    });
                self::table(&["name", "type", "null"], &rows.collect::<Vec<_>>())
            }
        }),
    }
}

fn relation<'a>(catalog: &'a Catalog, name: &At<String>) -> Sql<&'a Relation> {
    catalog.get(&name.value).map_err(|error| error.at(name.at))
}

fn wrong(name: &At<String>, what: &str, instead: &str) -> SqlError {
    SqlError::new(format!("'{}' is {what}", name.value)).at(name.at).help(format!("write {instead} {}", name.value))
}

fn truth(value: bool) -> String {
    if value { "TRUE".to_owned() } else { "FALSE".to_owned() }
}

fn describe(table: &Table) -> String {
    let rows = table.columns.iter().zip(&table.ddl.columns).map(|(column, ddl)| {
        let name = column.field.name();
        let key = if table.primary_key.contains(name) {
            format!("PRI({})", table.primary_key.join(", "))
        } else {
            String::new()
        };
        let extras = match &ddl.kind {
            ColumnKind::Physical { .. } => String::new(),
            ColumnKind::Computed(tokens) => format!("AS {}", ids::canonical(tokens)),
            ColumnKind::Metadata { key, is_virtual, .. } => metadata(key, *is_virtual),
        };
        let watermark = table.watermark.as_ref().filter(|watermark| watermark.column == *name);
        let watermark = watermark.map(|watermark| watermark.text.clone()).unwrap_or_default();
        let data_type = sql_name(column.field.data_type());
        vec![name.clone(), data_type, truth(column.field.is_nullable()), key, extras, watermark]
    });
    self::table(&["name", "type", "null", "key", "extras", "watermark"], &rows.collect::<Vec<_>>())
}

fn metadata(key: &str, is_virtual: bool) -> String {
    let is_virtual = if is_virtual { " VIRTUAL" } else { "" };
    format!("METADATA FROM '{key}'{is_virtual}")
}

/// The declaration of a table, LIKE written out.
fn create_table(ddl: &TableDdl) -> String {
    let names = |names: &[At<String>]| names.iter().map(|name| name_text(&name.value)).collect::<Vec<_>>().join(", ");
    let mut parts: Vec<String> = Vec::new();
    for column in &ddl.columns {
        let name = name_text(&column.name.value);
        let null = |nullable: bool| if nullable { "" } else { " NOT NULL" };
        parts.push(match &column.kind {
            ColumnKind::Physical { data_type, nullable } => {
                format!("{name} {}{}", sql_name(data_type), null(*nullable))
            }
            ColumnKind::Computed(tokens) => format!("{name} AS {}", ids::canonical(tokens)),
            ColumnKind::Metadata { data_type, nullable, key, is_virtual } => {
                format!("{name} {}{} {}", sql_name(data_type), null(*nullable), metadata(key, *is_virtual))
            }
        });
    }
    if let Some(watermark) = &ddl.watermark {
        let column = name_text(&watermark.column.value);
        parts.push(format!("WATERMARK FOR {column} AS {}", ids::canonical(&watermark.expression)));
    }
    if !ddl.primary_key.is_empty() {
        parts.push(format!("PRIMARY KEY ({}) NOT ENFORCED", names(&ddl.primary_key)));
    }
    let mut text = format!("CREATE TABLE {} (\n  {}\n)", name_text(&ddl.name.value), parts.join(",\n  "));
    if !ddl.partition_keys.is_empty() {
        text.push_str(&format!(" PARTITIONED BY ({})", names(&ddl.partition_keys)));
    }
    let quoted = |text: &str| text.replace('\'', "''");
    let options: Vec<String> = ddl
        .options
        .iter()
        .map(|(key, value)| format!("'{}' = '{}'", quoted(&key.value), quoted(&value.value)))
        .collect();
    text.push_str(&format!(" WITH (\n  {}\n)\n", options.join(",\n  ")));
    text
}

/// Rows under headings, as a SELECT is printed.
fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let width = |place: usize| {
        let cells = rows.iter().filter_map(|row| row.get(place)).map(|cell| cell.chars().count());
        cells.chain(headings.get(place).map(|heading| heading.chars().count())).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!(" {cell:width$} "));
        format!("{}\n", padded.collect::<Vec<_>>().join("|").trim_end())
    };
    let rule: Vec<String> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
    let mut text = format!("{}{}\n", line(headings.to_vec()), rule.join("+"));
    for row in rows {
        text.push_str(&line(row.iter().map(String::as_str).collect()));
    }
    text.push('\n');
    text
}
