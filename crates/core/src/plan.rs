//! The compiled plan as checkpoints keep it: the operators that have state, and all that their rows come from.
//!
//! State is columns that a plan has laid out. A release that plans the same text in another way would read them wrongly,
//! so a checkpoint says how it was planned, and who resumes from it compares. `docs/design/compiled-plan.md` has the
//! format; it is stored, and never changes.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::graph::OperatorId;

/// The format of plans that this build writes, and the newest that it reads.
pub const PLAN_FORMAT: u32 = 1;

/// A compiled plan as text. Plans of every format have these three fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompiledPlan {
    /// What the lines mean.
    pub format: u32,
    /// The release of Ruslo that planned; for people.
    pub release: String,
    /// Each operator's lines, inputs first.
    pub lines: Vec<String>,
}

/// An operator of a compiled plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedOperator {
    /// Names its state.
    pub id: OperatorId,
    /// What a person calls it; not compared.
    pub name: String,
    /// Where its rows come from.
    pub inputs: Vec<OperatorId>,
    /// What it does with them.
    pub does: String,
    /// The types of the columns that come out.
    pub gives: Vec<String>,
    /// The table of its state whose columns follow from the plan, and these: name and type.
    pub keeps: Option<(String, Vec<String>)>,
}

impl CompiledPlan {
    /// The plan of `operators`, inputs first, of which only those matter that some state follows from.
    pub fn new(release: &str, operators: &[PlannedOperator]) -> Self {
        let mut needed = HashSet::new();
        for operator in operators.iter().rev() {
            if operator.keeps.is_some() || needed.contains(&operator.id) {
                needed.insert(operator.id);
                needed.extend(&operator.inputs);
            }
        }
        let lines = operators.iter().filter(|operator| needed.contains(&operator.id)).flat_map(lines_of);
        Self { format: PLAN_FORMAT, release: release.to_owned(), lines: lines.collect() }
    }

    /// Whether state of `stored` means in this plan what it meant in that.
    ///
    /// # Errors
    /// `Usage`, saying what differs, or that a newer release wrote it; `Corrupt`, if `stored` cannot be read.
    pub fn check_resumes(&self, stored: &Self) -> Result<()> {
        if stored.format > PLAN_FORMAT {
            return Err(Error::usage(format!(
                "their plan was written by Ruslo {} (plan format {}; this one reads up to {PLAN_FORMAT}); resume with \
                 that release, or start over with --fresh",
                stored.release, stored.format
            )));
        }
        match Comparison::new(&stored.operators()?, &self.operators()?).difference() {
            None => Ok(()),
            Some(difference) => Err(Error::usage(format!(
                "this release plans the query in another way than Ruslo {}, which made them: {difference}; resume with \
                 that release, or start over with --fresh",
                stored.release
            ))),
        }
    }

    /// Its operators, inputs first.
    ///
    /// # Errors
    /// `Corrupt`, if a line has no meaning.
    pub fn operators(&self) -> Result<Vec<PlannedOperator>> {
        let mut operators: Vec<PlannedOperator> = Vec::new();
        for line in &self.lines {
            let read = match line.strip_prefix("operator ") {
                Some(rest) => operator_of(rest).map(|operator| operators.push(operator)),
                None => operators.last_mut().and_then(|operator| read_line(operator, line)),
            };
            read.ok_or_else(|| Error::corrupt(format!("their plan cannot be read: no meaning in the line '{line}'")))?;
        }
        Ok(operators)
    }
}

fn lines_of(operator: &PlannedOperator) -> Vec<String> {
    let mut lines = vec![format!("operator {} {}", operator.id, operator.name)];
    lines.extend(operator.inputs.iter().map(|input| format!("from {input}")));
    lines.push(format!("does {}", operator.does));
    lines.extend(operator.gives.iter().map(|column| format!("gives {column}")));
    if let Some((table, columns)) = &operator.keeps {
        lines.extend(columns.iter().map(|column| format!("keeps {table} {column}")));
    }
    lines
}

fn operator_of(text: &str) -> Option<PlannedOperator> {
    let (id, name) = text.split_once(' ')?;
    let (inputs, does, gives, keeps) = Default::default();
    Some(PlannedOperator { id: id_of(id)?, name: name.to_owned(), inputs, does, gives, keeps })
}

fn id_of(text: &str) -> Option<OperatorId> {
    u64::from_str_radix(text, 16).ok().map(OperatorId)
}

fn read_line(operator: &mut PlannedOperator, line: &str) -> Option<()> {
    let (word, rest) = line.split_once(' ')?;
    match word {
        "from" => operator.inputs.push(id_of(rest)?),
        "does" => operator.does = rest.to_owned(),
        "gives" => operator.gives.push(rest.to_owned()),
        "keeps" => {
            let (table, column) = rest.split_once(' ')?;
            let (_, columns) = operator.keeps.get_or_insert_with(|| (table.to_owned(), Vec::new()));
            columns.push(column.to_owned());
        }
        _ => return None,
    }
    Some(())
}

type Operators<'a> = HashMap<OperatorId, &'a PlannedOperator>;

/// A plan beside another.
struct Comparison<'a> {
    then: &'a [PlannedOperator],
    now: &'a [PlannedOperator],
    then_by_id: Operators<'a>,
    now_by_id: Operators<'a>,
}

impl<'a> Comparison<'a> {
    fn new(then: &'a [PlannedOperator], now: &'a [PlannedOperator]) -> Self {
        let by_id =
            |operators: &'a [PlannedOperator]| operators.iter().map(|operator| (operator.id, operator)).collect();
        Self { then, now, then_by_id: by_id(then), now_by_id: by_id(now) }
    }

    /// The first difference that matters to state, if there is one.
    fn difference(&self) -> Option<String> {
        let kept = |operators: &'a [PlannedOperator]| operators.iter().filter(|operator| operator.keeps.is_some());
        let mut compared = HashSet::new();
        let changed = kept(self.then).find_map(|then| match self.now_by_id.get(&then.id) {
            None => Some(format!("'{}' has state in them, and is not in the plan", then.name)),
            Some(now) => keeps_difference(then, now).or_else(|| self.source_difference(then, now, &mut compared)),
        });
        changed.or_else(|| {
            let new = kept(self.now).find(|now| !self.then_by_id.contains_key(&now.id))?;
            Some(format!("'{}' has no state in them", new.name))
        })
    }

    /// The first difference in what an operator does, or in what its rows come from.
    fn source_difference(
        &self,
        then: &'a PlannedOperator,
        now: &'a PlannedOperator,
        compared: &mut HashSet<(OperatorId, OperatorId)>,
    ) -> Option<String> {
        let of = |it: &PlannedOperator| {
            if it.id == then.id { String::new() } else { format!(", whose rows go into '{}',", then.name) }
        };
        let mut open = vec![(then, now)];
        while let Some((then, now)) = open.pop() {
            if !compared.insert((then.id, now.id)) {
                continue;
            }
            if then.does != now.does {
                return Some(format!("'{}'{} did `{}` and does `{}`", then.name, of(then), then.does, now.does));
            }
            if let Some(column) = column_difference(&then.gives, &now.gives) {
                return Some(format!("of what '{}'{} gives, {column}", then.name, of(then)));
            }
            if then.inputs.len() != now.inputs.len() {
                let (had, has) = (then.inputs.len(), now.inputs.len());
                return Some(format!("'{}'{} had {had} inputs and has {has}", then.name, of(then)));
            }
            for (then_input, now_input) in then.inputs.iter().zip(&now.inputs) {
                match (self.then_by_id.get(then_input), self.now_by_id.get(now_input)) {
                    (Some(then), Some(now)) => open.push((then, now)),
                    _ => return Some(format!("an input of '{}' is not in the plan", then.name)),
                }
            }
        }
        None
    }
}

fn keeps_difference(then: &PlannedOperator, now: &PlannedOperator) -> Option<String> {
    let (Some((table, columns)), Some((now_table, now_columns))) = (&then.keeps, &now.keeps) else {
        return Some(format!("'{}' had state and has none", then.name));
    };
    if table != now_table {
        return Some(format!("'{}' had its state in '{table}' and has it in '{now_table}'", then.name));
    }
    let column = column_difference(columns, now_columns)?;
    Some(format!("of the state of '{}', in '{table}', {column}", then.name))
}

/// The first column that is another.
fn column_difference(then: &[String], now: &[String]) -> Option<String> {
    let count = then.len().max(now.len());
    (0..count).find_map(|place| match (then.get(place), now.get(place)) {
        (Some(then), Some(now)) if then == now => None,
        (Some(then), Some(now)) => Some(format!("column {} was `{then}` and is `{now}`", place + 1)),
        (Some(then), None) => Some(format!("column {}, `{then}`, is gone", place + 1)),
        (None, now) => Some(format!("column {}, `{}`, is new", place + 1, now.map_or("", String::as_str))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn operator(id: u64, name: &str, inputs: &[u64], does: &str, gives: &[&str]) -> PlannedOperator {
        PlannedOperator {
            id: OperatorId(id),
            name: name.to_owned(),
            inputs: inputs.iter().copied().map(OperatorId).collect(),
            does: does.to_owned(),
            gives: gives.iter().map(|column| (*column).to_owned()).collect(),
            keeps: None,
        }
    }

    /// Source, filter, Top-N with state, projection.
    fn operators() -> Vec<PlannedOperator> {
        let rows = ["BIGINT", "STRING"];
        let mut top = operator(3, "WindowTopN a, 3", &[2], "top-n rows=3", &["BIGINT", "STRING", "BIGINT"]);
        let kept = ["column0 BIGINT", "column1 STRING", "rank BIGINT"].map(str::to_owned);
        top.keeps = Some(("rows".to_owned(), kept.to_vec()));
        vec![
            operator(1, "Source t", &[], "source t", &rows),
            operator(2, "Filter", &[1], "filter @0 > 1", &rows),
            top,
            operator(4, "Project", &[3], "project @0", &["BIGINT"]),
        ]
    }

    fn plan(operators: &[PlannedOperator]) -> CompiledPlan {
        CompiledPlan::new("0.1.0", operators)
    }

    /// What is said if `operators` are to go on from state of [`operators`].
    fn refusal(operators: &[PlannedOperator]) -> String {
        let error = plan(operators).check_resumes(&plan(&self::operators())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        error.to_string()
    }

    #[test]
    fn lines_say_all_that_state_follows_from_and_no_more() {
        let lines = plan(&operators()).lines;
        let expected = [
            "operator 0000000000000001 Source t",
            "does source t",
            "gives BIGINT",
            "gives STRING",
            "operator 0000000000000002 Filter",
            "from 0000000000000001",
            "does filter @0 > 1",
            "gives BIGINT",
            "gives STRING",
            "operator 0000000000000003 WindowTopN a, 3",
            "from 0000000000000002",
            "does top-n rows=3",
            "gives BIGINT",
            "gives STRING",
            "gives BIGINT",
            "keeps rows column0 BIGINT",
            "keeps rows column1 STRING",
            "keeps rows rank BIGINT",
        ];
        assert_eq!(lines, expected, "nothing of the projection behind the state");
        assert_eq!(plan(&operators()).operators().unwrap(), operators()[..3]);
    }

    #[test]
    fn names_and_what_stands_behind_all_state_may_change() {
        let mut changed = operators();
        changed[1].name = "Sieve".to_owned();
        changed[3].does = "project @0 + 1".to_owned();
        plan(&changed).check_resumes(&plan(&operators())).unwrap();
        let stateless = &operators()[..2];
        assert!(plan(stateless).lines.is_empty());
        plan(&changed[..1]).check_resumes(&plan(stateless)).unwrap();
    }

    #[test]
    fn another_state_column_is_refused_by_name() {
        let mut changed = operators();
        changed[2].keeps.as_mut().unwrap().1[1] = "column1 INT".to_owned();
        let said = refusal(&changed);
        let expected =
            "of the state of 'WindowTopN a, 3', in 'rows', column 2 was `column1 STRING` and is `column1 INT`";
        assert!(said.contains(expected), "{said}");
        assert!(said.ends_with("resume with that release, or start over with --fresh"), "{said}");
        changed[2].keeps.as_mut().unwrap().1.truncate(1);
        assert!(refusal(&changed).contains("column 2, `column1 STRING`, is gone"));
    }

    #[test]
    fn columns_that_change_places_are_refused() {
        let mut changed = operators();
        changed[1].gives.reverse();
        let said = refusal(&changed);
        let expected =
            "of what 'Filter', whose rows go into 'WindowTopN a, 3', gives, column 1 was `BIGINT` and is `STRING`";
        assert!(said.contains(expected), "{said}");
    }

    #[test]
    fn a_filter_that_moved_past_the_state_is_refused() {
        let mut changed = operators();
        changed.remove(1);
        changed[1].inputs = vec![OperatorId(1)];
        let said = refusal(&changed);
        assert!(
            said.contains("'Filter', whose rows go into 'WindowTopN a, 3', did `filter @0 > 1` and does `source t`"),
            "{said}"
        );
    }

    #[test]
    fn state_that_nobody_reads_or_nobody_has_written_is_refused() {
        assert!(refusal(&operators()[..2]).contains("'WindowTopN a, 3' has state in them, and is not in the plan"));
        let mut changed = operators();
        changed[3].keeps = Some(("sort".to_owned(), vec!["a BIGINT".to_owned()]));
        assert!(refusal(&changed).contains("'Project' has no state in them"));
        changed[2].keeps = None;
        assert!(refusal(&changed).contains("'WindowTopN a, 3' had state and has none"));
    }

    #[test]
    fn a_newer_format_is_refused_and_a_senseless_line_is_damage() {
        let newer = CompiledPlan { format: 2, release: "9.0.0".to_owned(), lines: vec!["?".to_owned()] };
        let error = plan(&operators()).check_resumes(&newer).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(
            error.to_string().contains("written by Ruslo 9.0.0 (plan format 2; this one reads up to 1)"),
            "{error}"
        );
        for line in ["", "does x", "operator", "operator g x"] {
            let broken = CompiledPlan { lines: vec![line.to_owned()], ..plan(&operators()) };
            assert_eq!(plan(&operators()).check_resumes(&broken).unwrap_err().kind(), ErrorKind::Corrupt, "{line}");
        }
    }

    #[test]
    fn a_deep_plan_with_diamonds_is_compared_once() {
        let mut operators = vec![operator(0, "Source", &[], "source", &["INT"])];
        operators.extend((1..20_000).map(|id| operator(id, "Union", &[id - 1, id - 1], "union", &["INT"])));
        operators.last_mut().unwrap().keeps = Some(("rows".to_owned(), vec!["a INT".to_owned()]));
        plan(&operators).check_resumes(&plan(&operators)).unwrap();
    }
}
