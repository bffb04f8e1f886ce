//! What becomes of a job's state when its query changes: which operators keep theirs, begin anew, or drop it.
//!
//! Operators are matched by their ids (`docs/design/operator-ids.md`), aggregates of a window by what they are over the
//! columns of tables (`lineage`); the rules stand in `docs/design/savepoint.md`. Nothing is changed here: an
//! [`Upgrade`] says what fits, and how the columns of state that is kept come to stand.

mod lineage;
mod widen;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use crate::error::{Error, Result};
use crate::graph::OperatorId;
use crate::plan::{CompiledPlan, PLAN_FORMAT, PlannedOperator};

use self::lineage::{Aggregates, Lineage, aggregates_of};
use self::widen::widens;

/// What a job keeps in a checkpoint, or would.
#[derive(Debug, Clone)]
pub struct Kept {
    /// Its sources with their names: they keep how far they have read.
    pub sources: BTreeMap<OperatorId, String>,
    /// Its operators with state, and all that their rows come from.
    pub plan: CompiledPlan,
}

/// Where each column of a state table comes from that follows from the plan: its name, and its old name. None is new.
pub type Layout = BTreeMap<String, Option<String>>;

/// What becomes of an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Becomes {
    /// A source goes on where it was.
    GoesOn,
    /// A source is read from its beginning.
    Begins,
    /// State is kept; `layout` says how, unless it is as it was.
    Keeps {
        /// The columns, if they are to be laid out anew.
        layout: Option<Layout>,
    },
    /// It is new, and so are its sources: it gets all of their rows.
    Rebuilds,
    /// It is new, and its sources go on: it begins with nothing in the middle of them.
    StartsEmpty,
    /// It is not in the new query.
    Drops,
    /// Its state cannot be kept, for this reason.
    Refuses(String),
}

/// An operator, and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fate {
    /// Which.
    pub id: OperatorId,
    /// What a person calls it.
    pub name: String,
    /// What becomes of it.
    pub becomes: Becomes,
    /// What its user should know.
    pub notes: Vec<String>,
    /// Parts of its state that the new query does not have.
    pub dropped: Vec<String>,
}

/// What becomes of each operator that has state or will have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrade {
    /// In the order of the new plan, then those that are gone.
    pub fates: Vec<Fate>,
}

impl Upgrade {
    /// From what `then` keeps to what `now` does.
    ///
    /// # Errors
    /// `Usage`, if a newer release wrote the plan of `then`; `Corrupt`, if it cannot be read.
    pub fn between(then: &Kept, now: &Kept) -> Result<Self> {
        if then.plan.format > PLAN_FORMAT {
            return Err(Error::usage(format!(
                "its plan was written by Ruslo {} (plan format {}; this one reads up to {PLAN_FORMAT}); use that release",
                then.plan.release, then.plan.format
            )));
        }
        let (old, new) = (then.plan.operators()?, now.plan.operators()?);
        let comparison = Comparison { then: Side::new(then, &old), now: Side::new(now, &new) };
        Ok(Self { fates: comparison.fates(&old, &new) })
    }

    /// What the new query does not have, each by name: not to be dropped without asking.
    pub fn dropped(&self) -> Vec<String> {
        let mut dropped = Vec::new();
        for fate in &self.fates {
            if fate.becomes == Becomes::Drops {
                dropped.push(format!("'{}'", fate.name));
            }
            dropped.extend(fate.dropped.iter().map(|part| format!("{part} of '{}'", fate.name)));
        }
        dropped
    }

    /// Refuses what does not fit.
    ///
    /// # Errors
    /// `Usage`, naming each operator and the mend.
    pub fn check(&self, allow_dropped: bool) -> Result<()> {
        let refused: Vec<_> = self.fates.iter().filter_map(Fate::refusal).collect();
        if !refused.is_empty() {
            return Err(Error::usage(format!(
                "the state does not fit the query: {}; run the query that it was made by, or start without it",
                refused.join("; ")
            )));
        }
        let dropped = self.dropped();
        if dropped.is_empty() || allow_dropped {
            return Ok(());
        }
        Err(Error::usage(format!(
            "the query has no use for the state of {}; say --allow-dropped-state to go on without it",
            dropped.join(", ")
        )))
    }
}

impl Fate {
    fn of(operator: &PlannedOperator, becomes: Becomes) -> Self {
        Self { id: operator.id, name: operator.name.clone(), becomes, notes: Vec::new(), dropped: Vec::new() }
    }

    fn refusal(&self) -> Option<String> {
        match &self.becomes {
            Becomes::Refuses(why) => Some(format!("'{}': {why}", self.name)),
            _ => None,
        }
    }
}

impl fmt::Display for Upgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fates.iter().try_for_each(|fate| write!(f, "{fate}"))
    }
}

impl fmt::Display for Fate {
    /// A line, and one for each note.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, rest) = match &self.becomes {
            Becomes::GoesOn => ("keeps", ": goes on where it was"),
            Becomes::Begins => ("reads", ": from its beginning"),
            Becomes::Keeps { .. } => ("keeps", ""),
            Becomes::Rebuilds => ("rebuilds", ": from the beginning of its source"),
            Becomes::StartsEmpty => ("begins", ": empty, with what its source brings from now on"),
            Becomes::Drops => ("drops", ""),
            Becomes::Refuses(_) => ("refuses", ""),
        };
        writeln!(f, "{word:<9} {}{rest}", self.name)?;
        let why = match &self.becomes {
            Becomes::Refuses(why) => Some(why),
            _ => None,
        };
        let dropped = self.dropped.iter().map(|part| format!("drops {part}"));
        let notes = why.into_iter().chain(&self.notes).cloned().chain(dropped);
        notes.into_iter().try_for_each(|note| writeln!(f, "          {note}"))
    }
}

/// How people read the columns of an operator's state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ColumnNames {
    /// The name of each column that follows from the plan, by the name that is stored.
    pub readable: BTreeMap<String, String>,
    /// How many of the first columns are the key.
    pub keys: usize,
}

/// How people read the columns of state that follow from `plan`.
///
/// # Errors
/// `Corrupt`, if the plan cannot be read.
pub fn column_names(plan: &CompiledPlan) -> Result<BTreeMap<OperatorId, ColumnNames>> {
    let operators = plan.operators()?;
    let lineage = Lineage::new(&operators);
    let kept = operators.iter().filter_map(|operator| Some((operator, &operator.keeps.as_ref()?.1)));
    Ok(kept.map(|(operator, columns)| (operator.id, names_of(&lineage, operator, columns))).collect())
}

fn names_of(lineage: &Lineage<'_>, operator: &PlannedOperator, columns: &[String]) -> ColumnNames {
    let stored: Vec<_> = columns.iter().map(|text| column(text).0).collect();
    // Of a column of a table its name will do.
    let short = |text: String| match text.rsplit_once('.') {
        Some((_, name)) if !text.contains([' ', '(', '\'']) => name.to_owned(),
        _ => text,
    };
    let Some(aggregates) = aggregates_of(&operator.does) else {
        let inputs = lineage.input_columns(operator);
        let pairs = stored.iter().zip(inputs).map(|(name, text)| ((*name).to_owned(), short(text)));
        return ColumnNames { readable: pairs.filter(|(name, _)| name.starts_with("column")).collect(), keys: 0 };
    };
    let over = |text: &str| short(lineage.over_input(operator, text));
    let mut readable: BTreeMap<_, _> =
        aggregates.keys.iter().enumerate().map(|(at, key)| (format!("key{at}"), over(key))).collect();
    for (at, call) in aggregates.calls.iter().enumerate() {
        let (call, states) = (over(call), states_of(columns, at));
        for (number, (name, _)) in states.iter().enumerate() {
            let shown = if states.len() == 1 { call.clone() } else { format!("{call} #{}", number + 1) };
            readable.insert((*name).to_owned(), shown);
        }
    }
    ColumnNames { readable, keys: aggregates.keys.len() }
}

/// One of the two plans.
struct Side<'a> {
    kept: &'a Kept,
    by_id: HashMap<OperatorId, &'a PlannedOperator>,
    lineage: Lineage<'a>,
}

impl<'a> Side<'a> {
    fn new(kept: &'a Kept, operators: &'a [PlannedOperator]) -> Self {
        let by_id = operators.iter().map(|operator| (operator.id, operator)).collect();
        Self { kept, by_id, lineage: Lineage::new(operators) }
    }

    /// The state of the operator `id`, if it has some.
    fn stateful(&self, id: OperatorId) -> Option<&'a PlannedOperator> {
        self.by_id.get(&id).copied().filter(|operator| operator.keeps.is_some())
    }
}

struct Comparison<'a> {
    then: Side<'a>,
    now: Side<'a>,
}

impl<'a> Comparison<'a> {
    fn fates(&self, old: &'a [PlannedOperator], new: &'a [PlannedOperator]) -> Vec<Fate> {
        let source = |(id, name): (&OperatorId, &String), becomes| Fate {
            id: *id,
            name: name.clone(),
            becomes,
            notes: Vec::new(),
            dropped: Vec::new(),
        };
        let is_old = |id: &OperatorId| self.then.kept.sources.contains_key(id);
        let sources = self.now.kept.sources.iter();
        let sources = sources.map(|it| source(it, if is_old(it.0) { Becomes::GoesOn } else { Becomes::Begins }));
        let stateful = new.iter().filter(|operator| operator.keeps.is_some()).map(|operator| self.fate(operator));
        let gone = self.then.kept.sources.iter().filter(|(id, _)| !self.now.kept.sources.contains_key(id));
        let gone = gone.map(|it| source(it, Becomes::Drops));
        let dropped = old.iter().filter(|operator| operator.keeps.is_some());
        let dropped = dropped.filter(|operator| self.now.stateful(operator.id).is_none());
        let dropped = dropped.map(|operator| Fate::of(operator, Becomes::Drops));
        sources.chain(stateful).chain(gone).chain(dropped).collect()
    }

    /// What becomes of an operator of the new plan.
    fn fate(&self, now: &PlannedOperator) -> Fate {
        let Some(then) = self.then.stateful(now.id) else {
            let sources = self.now.lineage.sources(now);
            let are_new = sources.iter().all(|source| !self.then.kept.sources.contains_key(source));
            return Fate::of(now, if are_new { Becomes::Rebuilds } else { Becomes::StartsEmpty });
        };
        let mut fate = match self.kept(then, now) {
            Ok(fate) => fate,
            Err(why) => return Fate::of(now, Becomes::Refuses(why)),
        };
        let (had, has) = (self.then.lineage.conditions(then), self.now.lineage.conditions(now));
        if had != has {
            fate.notes.push(format!("what it has came {}; what comes now {}", under(&had), under(&has)));
        }
        fate
    }

    /// Or why it cannot be kept.
    fn kept(&self, then: &PlannedOperator, now: &PlannedOperator) -> Result<Fate, String> {
        let (Some((table, columns)), Some((now_table, now_columns))) = (&then.keeps, &now.keeps) else {
            return Err("it keeps nothing".to_owned());
        };
        if table != now_table {
            return Err(format!("it had its state in '{table}' and has it in '{now_table}'"));
        }
        match (aggregates_of(&then.does), aggregates_of(&now.does)) {
            (Some(had), Some(has)) => {
                let groups = Groups { then: self.then.calls(then, &had), now: self.now.calls(now, &has) };
                groups.fate(now, columns, now_columns)
            }
            (None, None) => self.same(then, now, columns, now_columns),
            _ => Err(format!("it did `{}` and does `{}`", then.does, now.does)),
        }
    }

    /// An operator that is kept only if it is what it was.
    fn same(
        &self,
        then: &PlannedOperator,
        now: &PlannedOperator,
        columns: &[String],
        now_columns: &[String],
    ) -> Result<Fate, String> {
        if columns != now_columns {
            let (had, has) = (columns.join(", "), now_columns.join(", "));
            return Err(format!("of each row it kept ({had}), and would keep ({has})"));
        }
        let (did, does) = (self.then.lineage.over_input(then, &then.does), self.now.lineage.over_input(now, &now.does));
        if did != does {
            return Err(format!("it did `{did}` and does `{does}`"));
        }
        let (had, has) = (self.then.lineage.input_columns(then), self.now.lineage.input_columns(now));
        match had.iter().zip(&has).find(|(had, has)| had != has) {
            Some((had, has)) => Err(format!("a column of its rows was {had} and is {has}")),
            None => Ok(Fate::of(now, Becomes::Keeps { layout: None })),
        }
    }
}

impl Side<'_> {
    /// The aggregates of `operator` over the columns of tables.
    fn calls(&self, operator: &PlannedOperator, aggregates: &Aggregates<'_>) -> Vec<String> {
        aggregates.calls.iter().map(|call| self.lineage.over_input(operator, call)).collect()
    }
}

fn under(conditions: &[String]) -> String {
    match conditions {
        [] => "without a condition".to_owned(),
        conditions => format!("where {}", conditions.join(" AND ")),
    }
}

/// The aggregates of a window then and now.
struct Groups {
    then: Vec<String>,
    now: Vec<String>,
}

/// A column of state: its name and its type.
fn column(text: &str) -> (&str, &str) {
    text.split_once(' ').unwrap_or((text, ""))
}

/// The columns of the state of aggregate `at`.
fn states_of(columns: &[String], at: usize) -> Vec<(&str, &str)> {
    let prefix = format!("aggregate{at}_");
    columns.iter().map(|text| column(text)).filter(|(name, _)| name.starts_with(&prefix)).collect()
}

impl Groups {
    fn fate(&self, now: &PlannedOperator, columns: &[String], now_columns: &[String]) -> Result<Fate, String> {
        let mut fate = Fate::of(now, Becomes::Keeps { layout: None });
        let mut layout = Layout::new();
        let mut is_same = columns.len() == now_columns.len();
        for text in now_columns.iter().filter(|text| !text.starts_with("aggregate")) {
            let (name, kind) = column(text);
            let had = columns.iter().map(|text| column(text)).find(|(had, _)| *had == name);
            match had {
                Some((_, had)) => is_same &= widened(had, kind, name)?,
                // Where there were no aggregates, or are none.
                None if name == "present" => is_same = false,
                None => return Err(format!("it had no {name}")),
            }
            layout.insert(name.to_owned(), had.map(|(name, _)| name.to_owned()));
        }
        let mut taken = HashSet::new();
        for (at, call) in self.now.iter().enumerate() {
            let found = self.then.iter().enumerate().find(|(old, had)| *had == call && !taken.contains(old));
            let Some((old, _)) = found else {
                is_same = false;
                layout.extend(states_of(now_columns, at).iter().map(|(name, _)| ((*name).to_owned(), None)));
                fate.notes.push(format!("{call} is new: in windows that are open it is of what comes from now on"));
                continue;
            };
            taken.insert(old);
            is_same &= old == at;
            let (had, has) = (states_of(columns, old), states_of(now_columns, at));
            if had.len() != has.len() {
                return Err(format!("the state of {call} had {} columns and has {}", had.len(), has.len()));
            }
            for ((had, had_kind), (has, has_kind)) in had.into_iter().zip(has) {
                is_same &= widened(had_kind, has_kind, call)?;
                layout.insert(has.to_owned(), Some(had.to_owned()));
            }
        }
        let gone = self.then.iter().enumerate().filter(|(old, _)| !taken.contains(old));
        fate.dropped = gone.map(|(_, call)| call.clone()).collect();
        is_same &= fate.dropped.is_empty();
        fate.becomes = Becomes::Keeps { layout: (!is_same).then_some(layout) };
        Ok(fate)
    }
}

/// Whether the types are the same.
fn widened(had: &str, has: &str, of: &str) -> Result<bool, String> {
    match (had == has, widens(had, has)) {
        (true, _) => Ok(true),
        (false, true) => Ok(false),
        (false, false) => {
            Err(format!("the state of {of} was {had} and is {has}, which does not hold every value of it"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    const WINDOW: &str = "tumble size=60000 offset=0 keys=[sale.shop] inputs=[source sale]";

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

    /// Source, filter, window with the aggregates `calls` of the states `kinds`.
    fn window(columns: &str, condition: &str, calls: &str, kinds: &[&str]) -> Vec<PlannedOperator> {
        let rows = ["INT", "INT", "TIMESTAMP(3)"];
        let source = operator(1, "Source sale", &[], &format!("source sale columns=[{columns}]"), &rows);
        let filter = operator(2, "Filter", &[1], &format!("filter {condition}"), &rows);
        let place = |name: &str| columns.split(", ").position(|column| column == name).unwrap();
        let does = format!("{WINDOW} keys=[@{}] time=@{} calls=[{calls}]", place("shop"), place("at"));
        let mut window = operator(3, "TumbleWindow shop, 1 min", &[2], &does, &["INT", "BIGINT"]);
        let states = kinds.iter().enumerate().map(|(at, kind)| format!("aggregate{at}_0 {kind}"));
        window.keeps = Some(("slices".to_owned(), ["key0 INT".to_owned()].into_iter().chain(states).collect()));
        vec![source, filter, window]
    }

    fn kept(operators: &[PlannedOperator]) -> Kept {
        let sources = operators.iter().filter(|operator| operator.inputs.is_empty());
        let sources = sources.map(|operator| (operator.id, operator.name.clone())).collect();
        Kept { sources, plan: CompiledPlan::new("0.1.0", operators) }
    }

    fn between(then: &[PlannedOperator], now: &[PlannedOperator]) -> Upgrade {
        Upgrade::between(&kept(then), &kept(now)).unwrap()
    }

    fn layout(upgrade: &Upgrade, id: u64) -> Vec<(String, Option<String>)> {
        let fate = upgrade.fates.iter().find(|fate| fate.id == OperatorId(id)).unwrap();
        match &fate.becomes {
            Becomes::Keeps { layout: Some(layout) } => layout.clone().into_iter().collect(),
            other => panic!("{other:?}"),
        }
    }

    fn pairs(of: &[(&str, Option<&str>)]) -> Vec<(String, Option<String>)> {
        of.iter().map(|(new, old)| ((*new).to_owned(), old.map(str::to_owned))).collect()
    }

    #[test]
    fn the_same_query_keeps_everything_as_it_was() {
        let plan = window("shop, price, at", "@1 > 0", "COUNT(*), SUM(@1)", &["BIGINT", "BIGINT"]);
        let upgrade = between(&plan, &plan);
        upgrade.check(false).unwrap();
        let expected = "keeps     Source sale: goes on where it was\nkeeps     TumbleWindow shop, 1 min\n";
        assert_eq!(upgrade.to_string(), expected);
    }

    #[test]
    fn aggregates_are_found_again_wherever_they_and_their_columns_stand() {
        let then = window("shop, price, at", "@1 > 0", "COUNT(*), SUM(@1), MAX(@1)", &["BIGINT", "BIGINT", "INT"]);
        let now = window("at, price, shop", "@1 > 5", "MAX(@1), MIN(@1), COUNT(*)", &["BIGINT", "INT", "BIGINT"]);
        let upgrade = between(&then, &now);
        let expected = [
            ("aggregate0_0", Some("aggregate2_0")),
            ("aggregate1_0", None),
            ("aggregate2_0", Some("aggregate0_0")),
            ("key0", Some("key0")),
        ];
        assert_eq!(layout(&upgrade, 3), pairs(&expected));
        let expected = "keeps     Source sale: goes on where it was
keeps     TumbleWindow shop, 1 min
          MIN(sale.price) is new: in windows that are open it is of what comes from now on
          what it has came where sale.price > 0; what comes now where sale.price > 5
          drops SUM(sale.price)
";
        assert_eq!(upgrade.to_string(), expected);
        let error = upgrade.check(false).unwrap_err();
        let expected = "the query has no use for the state of SUM(sale.price) of 'TumbleWindow shop, 1 min'; say \
                        --allow-dropped-state to go on without it";
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Usage, expected));
        upgrade.check(true).unwrap();
    }

    #[test]
    fn types_may_grow_and_not_shrink() {
        let small = window("shop, price, at", "@1 > 0", "MAX(@1)", &["INT"]);
        let large = window("shop, price, at", "@1 > 0", "MAX(@1)", &["BIGINT"]);
        let expected = [("aggregate0_0", Some("aggregate0_0")), ("key0", Some("key0"))];
        assert_eq!(layout(&between(&small, &large), 3), pairs(&expected));
        let error = between(&large, &small).check(true).unwrap_err().to_string();
        let expected = "'TumbleWindow shop, 1 min': the state of MAX(sale.price) was BIGINT and is INT, which does not \
                        hold every value of it";
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn two_aggregates_that_are_the_same_are_two() {
        let one = window("shop, price, at", "@1 > 0", "COUNT(*)", &["BIGINT"]);
        let two = window("shop, price, at", "@1 > 0", "COUNT(*), COUNT(*)", &["BIGINT", "BIGINT"]);
        let upgrade = between(&one, &two);
        let expected = [("aggregate0_0", Some("aggregate0_0")), ("aggregate1_0", None), ("key0", Some("key0"))];
        assert_eq!(layout(&upgrade, 3), pairs(&expected));
        assert_eq!(between(&two, &one).dropped(), ["COUNT(*) of 'TumbleWindow shop, 1 min'"]);
    }

    #[test]
    fn what_is_new_begins_and_what_is_gone_is_named() {
        let then = window("shop, price, at", "@1 > 0", "COUNT(*)", &["BIGINT"]);
        let mut now = then[..2].to_vec();
        let mut other = operator(4, "SessionWindow shop", &[2], "session x", &["INT"]);
        other.keeps = Some(("sessions".to_owned(), vec!["key0 INT".to_owned()]));
        let fresh = operator(5, "Source refund", &[], "source refund columns=[shop]", &["INT"]);
        let mut behind = operator(6, "SessionWindow refund", &[5], "session y", &["INT"]);
        behind.keeps = other.keeps.clone();
        now.extend([other, fresh, behind]);
        let upgrade = between(&then, &now);
        let expected = "\
keeps     Source sale: goes on where it was
reads     Source refund: from its beginning
begins    SessionWindow shop: empty, with what its source brings from now on
rebuilds  SessionWindow refund: from the beginning of its source
drops     TumbleWindow shop, 1 min
";
        assert_eq!(upgrade.to_string(), expected);
        assert_eq!(upgrade.dropped(), ["'TumbleWindow shop, 1 min'"]);
        let back = between(&now, &then);
        assert_eq!(back.dropped(), ["'Source refund'", "'SessionWindow shop'", "'SessionWindow refund'"]);
    }

    #[test]
    fn rows_that_are_kept_must_stay_what_they_are() {
        let top = |columns: &str, kept: &str| {
            let source = operator(1, "Source t", &[], &format!("source t columns=[{columns}]"), &["INT", "INT"]);
            let mut top = operator(2, "WindowTopN a", &[1], "top-n rows=3 keys=[@0] end=@1", &["INT", "INT", "BIGINT"]);
            top.keeps = Some(("rows".to_owned(), vec![format!("column0 {kept}"), "rank BIGINT".to_owned()]));
            [source, top]
        };
        between(&top("a, b", "INT"), &top("a, b", "INT")).check(false).unwrap();
        let refused = |now: &[PlannedOperator]| between(&top("a, b", "INT"), now).check(true).unwrap_err().to_string();
        let said = refused(&top("a, b", "BIGINT"));
        assert!(said.contains("it kept (column0 INT, rank BIGINT), and would keep (column0 BIGINT, rank"), "{said}");
        let said = refused(&top("b, a", "INT"));
        assert!(said.contains("it did `top-n rows=3 keys=[t.a] end=t.b` and does `top-n rows=3 keys=[t.b]"), "{said}");
    }

    #[test]
    fn state_has_names_that_people_read() {
        let mut plan = window("shop, price, at", "@1 > 0", "COUNT(*), AVG(@1)", &["BIGINT", "BIGINT"]);
        plan[2].keeps.as_mut().unwrap().1.push("aggregate1_1 BIGINT".to_owned());
        let names = column_names(&kept(&plan).plan).unwrap().remove(&OperatorId(3)).unwrap();
        let expected = [
            ("aggregate0_0", "COUNT(*)"),
            ("aggregate1_0", "AVG(sale.price) #1"),
            ("aggregate1_1", "AVG(sale.price) #2"),
            ("key0", "shop"),
        ];
        let expected = expected.map(|(stored, shown)| (stored.to_owned(), shown.to_owned()));
        assert_eq!((names.keys, names.readable), (1, expected.into()));
    }

    #[test]
    fn a_plan_of_a_newer_release_is_refused() {
        let plan = kept(&window("shop, price, at", "@1 > 0", "COUNT(*)", &["BIGINT"]));
        let newer = CompiledPlan { format: 9, release: "9.0.0".to_owned(), lines: vec!["?".to_owned()] };
        let error = Upgrade::between(&Kept { plan: newer, ..plan.clone() }, &plan).unwrap_err();
        assert!(error.to_string().contains("written by Ruslo 9.0.0"), "{error}");
    }
}
