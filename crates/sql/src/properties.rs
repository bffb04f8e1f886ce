//! What the planner knows of the rows that leave a node: which changes they stand for, which of their columns are time
//! attributes, and which tell one row from every other. EXPLAIN shows it.
//!
//! There is a function for each kind of node, from what is known of its input to what is known of its output; columns
//! are meant by their place.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use arrow::datatypes::Schema;
use datafusion::common::DFSchema;
use datafusion::logical_expr::Expr;

use crate::nodes::{WindowAggregate, WindowColumn};
use crate::window::bare_column;
use crate::window_spec::{WindowSpec, WindowZone};

/// Which changes the rows of a node stand for; the later one of two can say what the earlier can.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Changelog {
    /// Each row is a new one.
    #[default]
    Insert,
    /// Rows change and go; of a change comes only what the row has become.
    Upsert,
    /// Rows change and go; of a change comes what was before, too.
    Retract,
}

impl Changelog {
    /// Of rows that change; with what was before, if that is asked for.
    pub(crate) fn updating(needs_before: bool) -> Self {
        if needs_before { Self::Retract } else { Self::Upsert }
    }
}

impl fmt::Display for Changelog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Insert => "[I]",
            Self::Upsert => "[I,UA,D]",
            Self::Retract => "[I,UB,UA,D]",
        })
    }
}

/// How many keys of pairs of rows are kept in mind.
const KEYS_MAX: usize = 8;

/// What a time attribute says, and what watermarks follow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Time {
    /// When it happened.
    #[default]
    Event,
    /// When it was read.
    Processing,
}

/// What is known of the rows of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Properties {
    changelog: Changelog,
    /// What their watermarks follow.
    clock: Time,
    /// The time attributes.
    times: BTreeMap<usize, Time>,
    /// Sets of columns of which no two rows have the same values.
    keys: Vec<BTreeSet<usize>>,
}

impl Properties {
    /// Of a source whose watermarks follow `clock`. A primary key is only declared, so it tells nothing apart.
    pub(crate) fn source(clock: Time, times: BTreeMap<usize, Time>) -> Self {
        Self { changelog: Changelog::Insert, clock, times, keys: Vec::new() }
    }

    /// The same of a source whose records are changes of rows with the primary key `key`: whoever tells them sees to it.
    pub(crate) fn with_changes(self, key: Option<BTreeSet<usize>>) -> Self {
        Self { changelog: Changelog::Retract, times: BTreeMap::new(), keys: key.into_iter().collect(), ..self }
    }

    /// Which changes they stand for.
    pub(crate) fn changelog(&self) -> Changelog {
        self.changelog
    }

    /// Whether rows change or go.
    pub(crate) fn is_updating(&self) -> bool {
        self.changelog != Changelog::Insert
    }

    /// Sets of columns of which no two rows that are there have the same values: the upsert keys.
    pub(crate) fn keys(&self) -> &[BTreeSet<usize>] {
        &self.keys
    }

    /// Of rows that follow from these and change with them; no two rows that are there have the same values in any of
    /// `keys`. What was before comes too, if `needs_before` ([`crate::demand`]).
    pub(crate) fn updating(&self, keys: Vec<BTreeSet<usize>>, needs_before: bool) -> Self {
        Self { changelog: Changelog::updating(needs_before), keys, ..self.bare() }
    }

    /// Of the values of the first `columns` columns, each once.
    pub(crate) fn distinct(&self, columns: usize) -> Self {
        Self { keys: vec![(0..columns).collect()], ..self.bare() }
    }

    /// Of pairs of these rows with rows of `right`, whose columns stand behind the first `columns`; `changelog` says which
    /// changes the pairs stand for.
    pub(crate) fn paired(&self, right: &Self, columns: usize, changelog: Changelog) -> Self {
        let behind = |key: &BTreeSet<usize>| key.iter().map(|place| place + columns).collect::<BTreeSet<_>>();
        let pairs = self.keys.iter().flat_map(|left| right.keys.iter().map(move |right| left | &behind(right)));
        let clock = if self.clock == right.clock { self.clock } else { Time::Event };
        Self { changelog, clock, times: BTreeMap::new(), keys: pairs.take(KEYS_MAX).collect() }
    }

    /// Of what is left of these rows when they have ended: one of each `key`, if there is one.
    pub(crate) fn last(&self, key: Option<BTreeSet<usize>>) -> Self {
        Self { changelog: Changelog::Insert, keys: key.into_iter().collect(), ..self.bare() }
    }

    /// Of what is given aside: rows as they came, under columns of their own.
    pub(crate) fn aside(&self) -> Self {
        Self { changelog: self.changelog, ..Self::default() }
    }

    /// Of `exprs` over these rows, whose columns are those of `input`.
    pub(crate) fn projected(&self, exprs: &[Expr], input: &DFSchema) -> Self {
        let from = |expr: &Expr| input.index_of_column(bare_column(expr)?).ok();
        let passed: Vec<Option<usize>> = exprs.iter().map(from).collect();
        self.with_columns(&passed)
    }

    /// Of the input's columns `kept`, each row as often as it has elements.
    pub(crate) fn unnested(&self, kept: &[usize]) -> Self {
        let passed: Vec<Option<usize>> = kept.iter().copied().map(Some).collect();
        Self { keys: Vec::new(), ..self.with_columns(&passed) }
    }

    /// The same rows with columns of which each is one of the input's, or none.
    fn with_columns(&self, passed: &[Option<usize>]) -> Self {
        let place_of = |column: &usize| passed.iter().position(|from| *from == Some(*column));
        let keys = self.keys.iter().filter_map(|key| key.iter().map(place_of).collect());
        let times =
            passed.iter().enumerate().filter_map(|(place, from)| Some((place, *self.times.get(from.as_ref()?)?)));
        Self { times: times.collect(), keys: keys.collect(), ..self.bare() }
    }

    /// The same without what is said of columns.
    pub(crate) fn bare(&self) -> Self {
        Self { changelog: self.changelog, clock: self.clock, ..Self::default() }
    }

    /// Of these rows with the columns of their windows behind the first `columns`; the windows are of the column `time`.
    pub(crate) fn assigned(&self, columns: usize, time: usize, window: WindowSpec) -> Self {
        let [_, end, window_time] = window_places(columns);
        let mut made = self.clone();
        made.times.insert(window_time, self.times.get(&time).copied().unwrap_or(self.clock));
        if !matches!(window, WindowSpec::Tumble { .. }) {
            // A row is there once for each of its windows.
            made.keys.iter_mut().for_each(|key| key.extend([end]));
        }
        made
    }

    /// Of a window aggregate over these rows: its windows fire once.
    pub(crate) fn aggregated(&self, node: &WindowAggregate) -> Self {
        let [start, end, time] = window_places(node.own_columns());
        let key = |told_by: usize| (0..node.keys.len()).chain([told_by]).collect();
        let keys = told_apart_by(node.window, node.zone).iter().map(|column| match column {
            WindowColumn::Start => key(start),
            WindowColumn::End => key(end),
            WindowColumn::Time => key(time),
        });
        Self { times: [(time, self.clock)].into(), keys: keys.collect(), ..self.bare() }
    }

    /// Of the first `limit` rows of each of `keys` and each window with the column `end`, the rank behind them.
    pub(crate) fn ranked(&self, keys: &[usize], end: usize, limit: usize, rank: usize) -> Self {
        let mut made = self.clone();
        let rank = (limit > 1).then_some(rank);
        made.keys.push(keys.iter().copied().chain([end]).chain(rank).collect());
        made
    }

    /// Of the first row of each of `keys`.
    pub(crate) fn deduplicated(&self, keys: &[usize]) -> Self {
        let mut made = self.clone();
        made.keys.push(keys.iter().copied().collect());
        made
    }

    /// Of these rows joined with those of `right`, whose columns stand behind the first `columns`; the time attributes
    /// of the places that `keeps` says stay.
    pub(crate) fn joined(&self, right: &Self, columns: usize, keeps: impl Fn(usize) -> bool) -> Self {
        let of_left = self.times.iter().map(|(place, time)| (*place, *time));
        let of_right = right.times.iter().map(|(place, time)| (place.saturating_add(columns), *time));
        let times = of_left.chain(of_right).filter(|(place, _)| keeps(*place)).collect();
        Self { times, ..self.paired(right, columns, self.changelog.max(right.changelog)) }
    }

    /// Of these rows, each once at most, beside one of another side; of the time attributes that of the column `time` stays.
    pub(crate) fn looked_up(&self, time: usize) -> Self {
        let mut made = self.clone();
        made.times.retain(|place, _| *place == time);
        made
    }

    /// Of what a regular join makes of these rows and those of `right`: rows that differ by each of `keys`.
    pub(crate) fn regularly_joined(&self, right: &Self, keys: Vec<BTreeSet<usize>>, is_updating: bool) -> Self {
        let clock = if self.clock == right.clock { self.clock } else { Time::Event };
        let changelog = if is_updating { Changelog::Retract } else { Changelog::Insert };
        Self { changelog, clock, times: BTreeMap::new(), keys }
    }

    /// Of the rows of all `inputs`.
    pub(crate) fn united(inputs: &[Self]) -> Self {
        let Some((first, rest)) = inputs.split_first() else { return Self::default() };
        let mut made = Self { keys: Vec::new(), ..first.clone() };
        for input in rest {
            made.changelog = made.changelog.max(input.changelog);
            made.clock = if input.clock == made.clock { made.clock } else { Time::Event };
            // Each of several sources would have to follow the clock.
            made.times.retain(|place, time| *time == Time::Event && input.times.get(place) == Some(time));
        }
        made
    }

    /// Changelog and time attributes as EXPLAIN shows them; the columns are those of `schema`.
    pub(crate) fn text(&self, schema: &Schema) -> String {
        let mut text = format!("changelog {}", self.changelog);
        for (time, name) in [(Time::Event, "rowtime"), (Time::Processing, "proctime")] {
            let places = self.times.iter().filter(|(_, of)| **of == time).map(|(place, _)| place);
            let names = names(schema, places);
            if !names.is_empty() {
                text.push_str(&format!(", {name} {names}"));
            }
        }
        text
    }

    /// The columns of `schema` by which its rows differ, if there are such.
    pub(crate) fn key_text(&self, schema: &Schema) -> Option<String> {
        let key = self.keys.first()?;
        Some(if key.is_empty() { "nothing: there is one row".to_owned() } else { names(schema, key.iter()) })
    }
}

/// Start, end and time of a window whose columns stand behind the first `columns`.
fn window_places(columns: usize) -> [usize; 3] {
    [columns, columns + 1, columns + 2]
}

/// By which of its columns one window of a key is told from the others.
fn told_apart_by(window: WindowSpec, zone: WindowZone) -> &'static [WindowColumn] {
    match (window, zone.shifts()) {
        // Where the clocks are set back, two sessions may have the same local times, and two windows one window_time.
        (WindowSpec::Session { .. }, true) => &[],
        (WindowSpec::Cumulate { .. }, true) => &[WindowColumn::End],
        (WindowSpec::Cumulate { .. }, false) => &[WindowColumn::End, WindowColumn::Time],
        (_, true) => &[WindowColumn::Start, WindowColumn::End],
        (_, false) => &WindowColumn::ALL,
    }
}

fn names<'a>(schema: &Schema, places: impl Iterator<Item = &'a usize>) -> String {
    let fields = places.filter_map(|place| schema.fields().get(*place));
    fields.map(|field| field.name().as_str()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field};
    use datafusion::logical_expr::{col, lit};

    use super::*;

    fn schema(names: &[&str]) -> Schema {
        Schema::new(names.iter().map(|name| Field::new(*name, DataType::Int64, true)).collect::<Vec<_>>())
    }

    /// Rows of `(key, window_start, window_end, window_time)`, one of each key and window.
    fn windows() -> Properties {
        let keys = [1, 2, 3].map(|told_by| BTreeSet::from([0, told_by]));
        Properties { times: [(3, Time::Event)].into(), keys: keys.into(), ..Properties::default() }
    }

    #[test]
    fn a_projection_keeps_what_it_passes_on_under_its_new_name() {
        let input = DFSchema::try_from(schema(&["key", "window_start", "window_end", "window_time"])).unwrap();
        let exprs = [
            col("window_time").alias("t"),
            col("window_end"),
            (col("key") + lit(1)).alias("key"),
            col("key").alias("k"),
        ];
        let made = windows().projected(&exprs, &input);
        let output = schema(&["t", "window_end", "key", "k"]);
        assert_eq!(made.text(&output), "changelog [I], rowtime t");
        assert_eq!(made.key_text(&output).as_deref(), Some("window_end, k"), "the start is gone, the end is as good");

        let made = windows().projected(&[col("window_end"), col("window_time") + lit(1)], &input);
        assert_eq!((made.text(&output), made.key_text(&output)), ("changelog [I]".to_owned(), None));
    }

    #[test]
    fn a_union_has_event_time_where_all_inputs_have_it_and_no_key() {
        let both = Properties::united(&[windows(), windows()]);
        let names = schema(&["a", "b", "c", "d"]);
        assert_eq!((both.text(&names), both.key_text(&names)), ("changelog [I], rowtime d".to_owned(), None));
        let without = Properties { times: BTreeMap::new(), ..windows() };
        assert_eq!(Properties::united(&[windows(), without]).text(&names), "changelog [I]");
        let processing = Properties { times: [(3, Time::Processing)].into(), ..windows() };
        assert_eq!(Properties::united(&[processing.clone(), processing]).text(&names), "changelog [I]");
    }

    #[test]
    fn a_row_of_several_windows_is_told_apart_by_the_window_too() {
        let rows =
            Properties { times: [(1, Time::Processing)].into(), keys: vec![[0].into()], ..Properties::default() };
        let names = schema(&["k", "p", "window_start", "window_end", "window_time"]);
        let hop = WindowSpec::Hop { slide_ms: 1, size_ms: 2, offset_ms: 0 };
        let made = rows.assigned(2, 1, hop);
        assert_eq!(made.text(&names), "changelog [I], proctime p, window_time");
        assert_eq!(made.key_text(&names).as_deref(), Some("k, window_end"));
        let made = rows.assigned(2, 1, WindowSpec::Tumble { size_ms: 2, offset_ms: 0 });
        assert_eq!(made.key_text(&names).as_deref(), Some("k"));
    }

    #[test]
    fn changes_are_told_from_new_rows_and_have_no_time() {
        let names = schema(&["k", "n", "window_end", "window_time"]);
        let made = windows().updating(vec![[0].into()], false);
        assert_eq!((made.text(&names), made.key_text(&names)), ("changelog [I,UA,D]".to_owned(), Some("k".to_owned())));
        let before = windows().updating(Vec::new(), true);
        assert_eq!((before.text(&names), before.is_updating()), ("changelog [I,UB,UA,D]".to_owned(), true));
        assert_eq!(Properties::united(&[windows(), made]).text(&names), "changelog [I,UA,D]");
        assert_eq!(windows().with_changes(None).text(&names), "changelog [I,UB,UA,D]");
    }

    #[test]
    fn a_pair_of_rows_is_told_apart_by_a_key_of_each() {
        let left = Properties { keys: vec![[0].into(), [1].into()], ..Properties::default() };
        let right = Properties { keys: vec![[1].into()], ..Properties::default() };
        let made = left.paired(&right, 2, Changelog::Insert);
        assert_eq!(made.keys(), [[0, 3].into(), [1, 3].into()]);
        assert_eq!(left.paired(&Properties::default(), 2, Changelog::Retract).keys(), []);
    }

    #[test]
    fn a_rank_tells_rows_apart_and_a_single_one_needs_none() {
        let rows = Properties { times: [(1, Time::Event)].into(), ..Properties::default() };
        let names = schema(&["k", "t", "window_end", "rank"]);
        assert_eq!(rows.ranked(&[0], 2, 3, 3).key_text(&names).as_deref(), Some("k, window_end, rank"));
        assert_eq!(rows.ranked(&[0], 2, 1, 3).key_text(&names).as_deref(), Some("k, window_end"));
        assert_eq!(rows.unnested(&[1]).text(&names), "changelog [I], rowtime k", "the place counts, not the name");
    }
}
