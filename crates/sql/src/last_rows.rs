//! What stands before a sink that takes the last state of its table: an operator that keeps it until the input ends.

use std::collections::BTreeSet;

use ruslo_core::graph::{Node, NodeIndex, NodeKind, Partitioning};
use ruslo_operators::{LastRowsSpec, UpsertMaterializeSpec};

use crate::diagnostic::{Sql, SqlError};
use crate::explain::Detail;
use crate::physical::Physical;
use crate::properties::Changelog;

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
        let input = match properties.is_updating() && !key.is_empty() && !is_key {
            true => self.materialize(input, key, (&key_text, sink))?,
            false => input,
        };
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
            .with(properties.last((!key.is_empty()).then_some(wanted)))
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

    /// Adds the operator that lets the last of several rows stand for their `key`, which tells the rows of `input` not
    /// apart; `text` is the key's columns, and the name of the sink.
    fn materialize(&mut self, input: NodeIndex, key: &[usize], (text, sink): (&str, &str)) -> Sql<NodeIndex> {
        let properties = self.properties(input);
        if properties.changelog() != Changelog::Retract {
            // This plan is given up for one in which what was before comes, too.
            self.wants_before.insert(sink.to_owned());
            return Ok(input);
        }
        let (schema, _) = self.output(input)?;
        let spec = UpsertMaterializeSpec::new(&schema, key.to_vec()).map_err(|error| {
            SqlError::new(format!("the last state of '{sink}' cannot be kept: {error}"))
                .help("declare a PRIMARY KEY of columns that can be compared")
        })?;
        let does = format!("upsert materialize of {sink} keys=[{text}]");
        let mut detail = Detail::new(&format!("UpsertMaterialize {text}"), &format!("by key {text}"))
            .line("why", "the rows are not told apart by this key, and may come in any order")
            .line("state", format!("per ({text}): all rows that are there"))
            .with(properties.updating(vec![key.iter().copied().collect()], false))
            .does(does.clone());
        if let Some(table) = spec.state_tables().pop() {
            detail = detail.keeps(table);
        }
        let node = Node {
            id: self.fresh_id(&does),
            name: detail.name.clone(),
            parallelism: self.parallelism,
            schema: spec.schema(),
            kind: NodeKind::Operator(spec.factory()),
        };
        Ok(self.add(node, Some((input, Partitioning::KeyGroup(key.to_vec()))), detail))
    }
}
