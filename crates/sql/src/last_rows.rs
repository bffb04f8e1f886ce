//! What stands before a sink that takes the last state of its table: an operator that keeps it until the input ends.

use std::collections::BTreeSet;

use ruslo_core::graph::{Node, NodeIndex, NodeKind, Partitioning};
use ruslo_operators::LastRowsSpec;

use crate::diagnostic::{Sql, SqlError};
use crate::explain::Detail;
use crate::physical::Physical;
use crate::properties::Properties;

impl Physical<'_> {
    /// Adds the operator that keeps the last row of each `key` of the rows of `input`, or of each row how often it is
    /// there, if there is no key; for the sink called `sink`. Where rows only come and none takes another's place, it is
    /// not needed.
    pub(crate) fn last_rows(&mut self, input: NodeIndex, key: &[usize], sink: &str) -> Sql<NodeIndex> {
        let properties = self.properties(input);
        let wanted: BTreeSet<usize> = key.iter().copied().collect();
        let is_key = properties.keys().contains(&wanted);
        if !properties.is_updating() && (key.is_empty() || is_key) {
            return Ok(input);
        }
        let (schema, _) = self.output(input)?;
        let names = |places: &mut dyn Iterator<Item = &usize>| {
            let names = places.filter_map(|place| Some(schema.fields().get(*place)?.name().as_str()));
            names.collect::<Vec<_>>().join(", ")
        };
        let key_text = names(&mut key.iter());
        if properties.is_updating() && !key.is_empty() && !is_key {
            let sentence =
                format!("the rows that change are not told apart by the PRIMARY KEY ({key_text}) of '{sink}'");
            let told = properties.keys().first().map(|own| names(&mut own.iter()));
            let help = told.map_or_else(
                || "leave PRIMARY KEY out: then every row is kept".to_owned(),
                |own| format!("declare PRIMARY KEY ({own}) NOT ENFORCED, or leave it out: then every row is kept"),
            );
            return Err(SqlError::new(sentence).help(help));
        }
        let spec = LastRowsSpec::new(&schema, key.to_vec()).map_err(|error| {
            let sentence = format!("the last state of '{sink}' cannot be kept: {error}");
            SqlError::new(sentence).help("declare a PRIMARY KEY of columns that can be compared")
        })?;
        let columns: Vec<usize> = if key.is_empty() { (0..schema.fields().len()).collect() } else { key.to_vec() };
        let text = format!("last rows of {sink} keys=[{key_text}]");
        let (by, kept) = match key.is_empty() {
            true => ("by row".to_owned(), "each row, and how often it is there, until the input ends".to_owned()),
            false => (format!("by key {key_text}"), format!("per ({key_text}): its last row, until the input ends")),
        };
        let mut detail = Detail::new("LastRows", &by)
            .line("state", kept)
            .with(Properties::last(&properties, (!key.is_empty()).then_some(wanted)))
            .does(text.clone());
        if let Some(table) = spec.state_tables().pop() {
            detail = detail.keeps(table);
        }
        let node = Node {
            id: self.fresh_id(&text),
            name: detail.name.clone(),
            parallelism: self.parallelism,
            schema: spec.schema(),
            kind: NodeKind::Operator(spec.factory()),
        };
        Ok(self.add(node, Some((input, Partitioning::KeyGroup(columns))), detail))
    }
}
