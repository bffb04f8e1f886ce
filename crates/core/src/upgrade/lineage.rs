//! What the columns of a compiled plan are made of, as text over the columns of tables.
//!
//! A plan tells columns by place, and places move when a query changes. Followed up to the sources, `@2` becomes
//! `sale.price * 2`: by that the same column, and the same aggregate, is found in two plans.

use std::cell::RefCell;
use std::collections::HashMap;

use crate::graph::OperatorId;
use crate::key_group::hash_bytes;
use crate::plan::PlannedOperator;

/// A text that is longer is told by its hash: columns over columns over columns can double each time.
const TEXT_BYTES_MAX: usize = 2_000;

/// The columns of one plan.
pub(super) struct Lineage<'a> {
    operators: HashMap<OperatorId, &'a PlannedOperator>,
    known: RefCell<HashMap<(OperatorId, usize), String>>,
}

/// What a window aggregate does, by its parts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Aggregates<'a> {
    /// The text of its id.
    pub(super) window: &'a str,
    /// The key columns of its input.
    pub(super) keys: Vec<&'a str>,
    /// The aggregates over the columns of its input.
    pub(super) calls: Vec<&'a str>,
}

/// The parts of `does`, if it is a window aggregate's.
pub(super) fn aggregates_of(does: &str) -> Option<Aggregates<'_>> {
    const KEYS: &str = " keys=[";
    let is_place = |text: &str| text.strip_prefix('@').is_some_and(|place| place.parse::<usize>().is_ok());
    does.match_indices(KEYS).find_map(|(at, _)| {
        let (window, rest) = does.split_at_checked(at)?;
        let (keys, rest) = rest.strip_prefix(KEYS)?.split_once("] time=")?;
        let (time, calls) = rest.split_once(" calls=[")?;
        let keys = parts(keys);
        let fits = is_place(time) && keys.iter().all(|key| is_place(key));
        fits.then_some(Aggregates { window, keys, calls: parts(calls.strip_suffix(']')?) })
    })
}

/// The parts of a list that `, ` separates, outside of brackets and quotes.
pub(super) fn parts(list: &str) -> Vec<&str> {
    let (mut found, mut start, mut depth, mut quote) = (Vec::new(), 0, 0_usize, None);
    for (at, c) in list.char_indices() {
        match (c, quote) {
            (_, Some(open)) if c == open => quote = None,
            (_, Some(_)) => {}
            ('\'' | '"' | '`', None) => quote = Some(c),
            ('(' | '[', None) => depth += 1,
            (')' | ']', None) => depth = depth.saturating_sub(1),
            (',', None) if depth == 0 && list.get(at..).is_some_and(|rest| rest.starts_with(", ")) => {
                found.extend(list.get(start..at));
                start = at + 2;
            }
            _ => {}
        }
    }
    found.extend(list.get(start..).filter(|last| !last.is_empty()));
    found
}

impl<'a> Lineage<'a> {
    /// The columns of `operators`.
    pub(super) fn new(operators: &'a [PlannedOperator]) -> Self {
        let operators = operators.iter().map(|operator| (operator.id, operator)).collect();
        Self { operators, known: RefCell::default() }
    }

    /// `text` over the columns of the first input of `operator`, as text over the columns of tables.
    pub(super) fn over_input(&self, operator: &PlannedOperator, text: &str) -> String {
        let input = operator.inputs.first().and_then(|id| self.operators.get(id));
        match input {
            Some(input) => bounded(replaced(text, &|place| self.column(input, place))),
            None => text.to_owned(),
        }
    }

    /// What the columns of the first input of `operator` are made of.
    pub(super) fn input_columns(&self, operator: &PlannedOperator) -> Vec<String> {
        let input = operator.inputs.first().and_then(|id| self.operators.get(id));
        let columns = input.map(|input| (0..input.gives.len()).map(|place| self.column(input, place)).collect());
        columns.unwrap_or_default()
    }

    /// What column `place` of what `operator` gives is made of.
    fn column(&self, operator: &PlannedOperator, place: usize) -> String {
        let known = self.known.borrow().get(&(operator.id, place)).cloned();
        known.unwrap_or_else(|| {
            let text = bounded(self.made_of(operator, place));
            self.known.borrow_mut().insert((operator.id, place), text.clone());
            text
        })
    }

    fn made_of(&self, operator: &PlannedOperator, place: usize) -> String {
        // What has no better name: a column of this very operator.
        let own = || format!("{}.{place}", operator.id);
        let (kind, rest) = operator.does.split_once(' ').unwrap_or((&operator.does, ""));
        let input = operator.inputs.first().and_then(|id| self.operators.get(id)).copied();
        let is_of_input = |input: &&PlannedOperator| place < input.gives.len();
        match (kind, input) {
            ("source", _) => source_column(rest, place, operator.gives.len()).unwrap_or_else(own),
            ("project", Some(_)) => parts(rest).get(place).map_or_else(own, |text| self.over_input(operator, text)),
            ("filter" | "sort", Some(input)) => self.column(input, place),
            ("assign", Some(input)) => match is_of_input(&input) {
                true => self.column(input, place),
                false => format!("window {} of {}", place - input.gives.len(), self.over_input(operator, rest)),
            },
            ("top-n", Some(input)) if is_of_input(&input) => self.column(input, place),
            ("union", Some(_)) => {
                let inputs = operator.inputs.iter().filter_map(|id| self.operators.get(id));
                let columns: Vec<_> = inputs.map(|input| self.column(input, place)).collect();
                format!("UNION({})", columns.join(", "))
            }
            _ => match aggregates_of(&operator.does) {
                Some(aggregates) => self.aggregate_column(operator, &aggregates, place),
                None => own(),
            },
        }
    }

    fn aggregate_column(&self, operator: &PlannedOperator, of: &Aggregates<'_>, place: usize) -> String {
        let columns = of.keys.iter().chain(&of.calls);
        match columns.clone().nth(place) {
            Some(text) => self.over_input(operator, text),
            None => format!("window {} of {}", place.saturating_sub(columns.count()), operator.id),
        }
    }

    /// The conditions that rows have met before they come to `operator`, since they were last grouped or kept.
    pub(super) fn conditions(&self, operator: &PlannedOperator) -> Vec<String> {
        let mut conditions = Vec::new();
        let mut open: Vec<_> = operator.inputs.clone();
        let mut seen = Vec::new();
        while let Some(id) = open.pop() {
            let Some(input) = self.operators.get(&id).filter(|_| !seen.contains(&id)) else { continue };
            seen.push(id);
            if let Some(condition) = input.does.strip_prefix("filter ") {
                conditions.push(self.over_input(input, condition));
            }
            if input.keeps.is_none() {
                open.extend(&input.inputs);
            }
        }
        conditions.sort();
        conditions.dedup();
        conditions
    }

    /// The sources that the rows of `operator` come from.
    pub(super) fn sources(&self, operator: &PlannedOperator) -> Vec<OperatorId> {
        let (mut open, mut seen, mut sources) = (vec![operator.id], Vec::new(), Vec::new());
        while let Some(id) = open.pop() {
            let Some(operator) = self.operators.get(&id).filter(|_| !seen.contains(&id)) else { continue };
            seen.push(id);
            if operator.inputs.is_empty() {
                sources.push(id);
            }
            open.extend(&operator.inputs);
        }
        sources
    }
}

/// `table.column` of what a source does, `<table> columns=[<name>, …]`.
fn source_column(does: &str, place: usize, count: usize) -> Option<String> {
    let (table, columns) = does.rsplit_once(" columns=[")?;
    let names: Vec<_> = columns.strip_suffix(']')?.split(", ").collect();
    // A name may have a comma in it.
    let name = names.get(place).filter(|_| names.len() == count)?;
    Some(format!("{table}.{name}"))
}

/// `text` with every `@<place>` outside of quotes replaced by what `column` says, in brackets if it is made of parts.
fn replaced(text: &str, column: &dyn Fn(usize) -> String) -> String {
    let (mut made, mut rest, mut is_quoted) = (String::new(), text, false);
    while let Some(c) = rest.chars().next() {
        let behind = rest.get(c.len_utf8()..).unwrap_or_default();
        let digits = behind.find(|c: char| !c.is_ascii_digit()).unwrap_or(behind.len());
        let place = behind.get(..digits).and_then(|place| place.parse().ok());
        is_quoted ^= c == '\'';
        match place.filter(|_| c == '@' && !is_quoted) {
            Some(place) => {
                let name = column(place);
                let is_whole = made.is_empty() && digits == behind.len();
                let is_argument = made.ends_with('(') && behind.get(digits..) == Some(")");
                let is_plain = !name.contains(' ') || is_whole || is_argument;
                made.push_str(&if is_plain { name } else { format!("({name})") });
                rest = behind.get(digits..).unwrap_or_default();
            }
            None => {
                made.push(c);
                rest = behind;
            }
        }
    }
    made
}

fn bounded(text: String) -> String {
    if text.len() <= TEXT_BYTES_MAX { text } else { format!("#{:016x}", hash_bytes(text.as_bytes())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operator(id: u64, inputs: &[u64], does: &str, columns: usize) -> PlannedOperator {
        PlannedOperator {
            id: OperatorId(id),
            name: does.to_owned(),
            inputs: inputs.iter().copied().map(OperatorId).collect(),
            does: does.to_owned(),
            gives: vec!["INT".to_owned(); columns],
            keeps: None,
        }
    }

    #[test]
    fn lists_are_parted_where_they_should_be() {
        assert_eq!(parts("@0, F(@1, 'a, (b'), ARRAY[1, 2]"), ["@0", "F(@1, 'a, (b')", "ARRAY[1, 2]"]);
        assert_eq!(parts("@0 < 3, @1 >= 2"), ["@0 < 3", "@1 >= 2"]);
        assert_eq!(parts("'it''s, so', @1"), ["'it''s, so'", "@1"]);
        assert!(parts("").is_empty());
    }

    #[test]
    fn a_window_aggregate_is_read_by_its_parts() {
        let does =
            "tumble size=60000 offset=0 keys=[t.a] inputs=[source t] keys=[@0, @2] time=@1 calls=[COUNT(*), SUM(@3)]";
        let read = aggregates_of(does).unwrap();
        assert_eq!(read.window, "tumble size=60000 offset=0 keys=[t.a] inputs=[source t]");
        assert_eq!((read.keys, read.calls), (vec!["@0", "@2"], vec!["COUNT(*)", "SUM(@3)"]));
        let all = aggregates_of("session gap=1 keys=[] inputs=[source t] keys=[] time=@1 calls=[]").unwrap();
        assert!(all.keys.is_empty() && all.calls.is_empty());
        assert_eq!(aggregates_of("top-n rows=3 keys=[@1] end=@2 before=1 order=[@1 asc nulls last]"), None);
        assert_eq!(aggregates_of("sort keys=[t.a ASC NULLS FIRST] inputs=[source t]"), None);
    }

    #[test]
    fn columns_are_followed_up_to_their_tables() {
        let operators = [
            operator(1, &[], "source t columns=[a, b, at]", 3),
            operator(2, &[1], "filter @1 > 0", 3),
            operator(3, &[2], "project @2, @1 + 1, @0", 3),
            operator(4, &[3], "tumble x inputs=[source t] keys=[@2] time=@0 calls=[SUM(@1), SUM(@1 * 2)]", 6),
            operator(5, &[4], "top-n rows=1 keys=[@3] end=@4 before=1 order=[@1 desc nulls last]", 7),
        ];
        let lineage = Lineage::new(&operators);
        let over = |at: usize, text: &str| lineage.over_input(&operators[at], text);
        assert_eq!(over(3, "SUM(@1)"), "SUM(t.b + 1)");
        assert_eq!(over(3, "SUM(@1 * 2)"), "SUM((t.b + 1) * 2)");
        assert_eq!(over(4, "@0, @1, @3 '@0'"), "t.a, (SUM(t.b + 1)), (window 0 of 0000000000000004) '@0'");
        assert_eq!(lineage.conditions(&operators[3]), ["t.b > 0"]);
        assert!(lineage.conditions(&operators[4]).len() == 1, "nothing is kept in between in this plan");
        assert_eq!(lineage.sources(&operators[4]), [OperatorId(1)]);
    }

    #[test]
    fn columns_that_double_each_time_stay_short() {
        let mut operators = vec![operator(0, &[], "source t columns=[a]", 1)];
        operators.extend((1..200).map(|id| operator(id, &[id - 1], "project @0 + @0", 1)));
        let lineage = Lineage::new(&operators);
        assert!(lineage.over_input(&operators[199], "@0").len() <= TEXT_BYTES_MAX);
    }
}
