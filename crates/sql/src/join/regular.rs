//! The regular join: every row of one side with every row of the other that has the same key, as long as both are there.
//!
//! Its rows come by the join keys from both sides. What it keeps of a side follows from what is known of its rows: whether
//! they change, and what tells them apart. Without `table.exec.state.ttl` it keeps them for ever, and EXPLAIN says so.

use std::collections::BTreeSet;
use std::time::Duration;

use datafusion::common::{Column, JoinType};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Expr, LogicalPlan};
use ruslo_core::graph::{Node, NodeIndex, NodeKind};
use ruslo_operators::{RegularJoinInput, RegularJoinKind, RegularJoinSpec};

use super::node::JoinSide;
use super::{JoinInputs, JoinParts, StreamJoin};
use crate::compiled::{compiled_column, compiled_expr};
use crate::diagnostic::{Sql, SqlError};
use crate::errors::from_datafusion;
use crate::explain::Detail;
use crate::interval;
use crate::physical::{Physical, arrow_schema, physical_expr};
use crate::properties::Properties;
use crate::repeat::changing_function;
use crate::text::expr_text;
use crate::window::bare_column;

/// How many keys of its rows are kept in mind.
const KEYS_MAX: usize = 8;

impl Physical<'_> {
    /// Adds the operator of a regular join.
    pub(crate) fn regular_join(&mut self, node: &StreamJoin) -> Sql<NodeIndex> {
        let parts = &node.parts;
        let inputs = self.join_inputs(node)?;
        let sides = [Side::new(self, &inputs, JoinSide::Left), Side::new(self, &inputs, JoinSide::Right)];
        let both = parts.both().map_err(|error| from_datafusion(&error, &[]))?;
        let condition = parts.filter.as_ref().map(|filter| physical_expr(filter, &both)).transpose()?;
        let [left_ttl, right_ttl] = self.lifetimes(parts);
        let given = [(&sides[0], &parts.left, left_ttl), (&sides[1], &parts.right, right_ttl)];
        let given = given.map(|(side, plan, lifetime)| RegularJoinInput {
            schema: arrow_schema(plan.schema()),
            keys: side.keys.clone(),
            is_append_only: !side.properties.is_updating(),
            unique: side.unique(),
            lifetime,
        });
        let null_equals = vec![parts.nulls_are_equal; parts.keys.len()];
        let spec = RegularJoinSpec::new(kind_of(parts.join_type)?, given, &null_equals, condition.as_ref())?;
        let [left, right] = &sides;
        let keys = keys_of(parts.join_type, left, right, parts.left_columns());
        let properties = left.properties.regularly_joined(&right.properties, keys, !spec.is_append_only());
        let mut detail = self.regular_detail(node, &spec).with(properties).does(does(node, &spec)?);
        if let Some(table) = spec.state_tables().into_iter().next() {
            detail = detail.keeps(table);
        }
        let added = Node {
            id: self.fresh_id(&node.lineage),
            name: detail.name.clone(),
            parallelism: self.join_parallelism(&inputs),
            schema: spec.schema(),
            kind: NodeKind::Operator(spec.factory()),
        };
        Ok(self.add_join(added, &inputs, detail))
    }

    /// How long the rows of left and right are kept; for ever, if none.
    fn lifetimes(&self, parts: &JoinParts) -> [Option<Duration>; 2] {
        parts.ttl.map(|ttl| ttl.or(self.state_ttl))
    }

    fn regular_detail(&self, node: &StreamJoin, spec: &RegularJoinSpec) -> Detail {
        let parts = &node.parts;
        let is_keyed = !parts.keys.is_empty();
        let name = |side: fn(&(Column, Column)) -> String| parts.keys.iter().map(side).collect::<Vec<_>>().join(", ");
        let (left, right) = (name(|(left, _)| left.name.clone()), name(|(_, right)| right.name.clone()));
        let input = match is_keyed {
            true => format!("left by key {left}, right by key {right}"),
            false => "all rows of both to one subtask".to_owned(),
        };
        let mut detail = Detail::new(&format!("RegularJoin {}", parts.join_name()), &input);
        if is_keyed {
            detail = detail.line("keys", parts.keys_text());
        }
        if let Some(filter) = &parts.filter {
            detail = detail.line("if", expr_text(filter, &Column::flat_name));
        }
        let per = |keys: &str| if is_keyed { format!("per ({keys})") } else { "once".to_owned() };
        let [of_left, of_right] = spec.kept();
        detail = detail.line("state left", format!("{}: {of_left}", per(&left)));
        detail = detail.line("state right", format!("{}: {of_right}", per(&right)));
        detail = match self.lifetimes(parts) {
            [None, None] => detail.line("warning", GROWS),
            [left, right] if left == right => detail.line("state goes", goes(left)),
            [left, right] => {
                detail = detail.line("state left goes", goes(left)).line("state right goes", goes(right));
                if left.is_none() || right.is_none() { detail.line("warning", GROWS_HALF) } else { detail }
            }
        };
        match is_keyed {
            true => detail,
            false => detail.line("warning", "without an equality of both sides one subtask joins each row with each"),
        }
    }
}

/// When the rows of a side go.
fn goes(lifetime: Option<Duration>) -> String {
    let ms = |ttl: Duration| i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
    lifetime.map_or_else(
        || "never".to_owned(),
        |ttl| format!("{} after a row was last written", interval::describe(ms(ttl))),
    )
}

/// What EXPLAIN says of state without a bound.
const GROWS: &str = "this state only grows; SET 'table.exec.state.ttl' = '1 d' drops rows that were not written for a day, \
                     a bound such as a.ts BETWEEN b.ts - INTERVAL '1' HOUR AND b.ts drops them as time goes on";

/// The same, if the rows of one side go.
const GROWS_HALF: &str = "the state of the side that never goes only grows";

/// One input, as far as it is known.
struct Side {
    keys: Vec<usize>,
    properties: Properties,
}

impl Side {
    fn new(physical: &Physical<'_>, inputs: &JoinInputs, side: JoinSide) -> Self {
        let (index, keys) = match side {
            JoinSide::Left => (inputs.left, &inputs.left_keys),
            JoinSide::Right => (inputs.right, &inputs.right_keys),
        };
        Self { keys: keys.clone(), properties: physical.properties(index) }
    }

    /// The columns beside the join keys by which rows of one join key differ: of several sets the smallest.
    fn unique(&self) -> Option<Vec<usize>> {
        let beside = |key: &BTreeSet<usize>| key.iter().filter(|column| !self.keys.contains(column)).count();
        self.properties.keys().iter().min_by_key(|key| beside(key)).map(|key| key.iter().copied().collect())
    }

    /// Whether a join key has one row at most.
    fn is_one(&self) -> bool {
        self.properties.keys().iter().any(|key| key.iter().all(|column| self.keys.contains(column)))
    }

    /// The keys that tell rows apart behind the join, too. A row that changes its join key goes on in another subtask, and
    /// what that says may come out before what it takes back: so of rows that change only those that have the join key.
    fn stable(&self) -> Vec<BTreeSet<usize>> {
        let has_join_keys = |key: &&BTreeSet<usize>| self.keys.iter().all(|column| key.contains(column));
        let is_stable = |key: &&BTreeSet<usize>| !self.properties.is_updating() || has_join_keys(key);
        self.properties.keys().iter().filter(is_stable).cloned().collect()
    }
}

/// Sets of columns by which the rows of a join differ; those of the right side stand behind `columns` others.
fn keys_of(join_type: JoinType, left: &Side, right: &Side, columns: usize) -> Vec<BTreeSet<usize>> {
    let of_left = left.stable();
    if matches!(join_type, JoinType::LeftSemi | JoinType::LeftAnti) {
        return of_left;
    }
    // Rows that are NULL but for one side may be equal to others in the keys of both.
    if join_type == JoinType::Full {
        return Vec::new();
    }
    let behind = |key: &BTreeSet<usize>| key.iter().map(|place| place + columns).collect::<BTreeSet<_>>();
    let of_right: Vec<BTreeSet<usize>> = right.stable().iter().map(behind).collect();
    let mut keys = Vec::new();
    // Who has one partner at most is there once.
    if right.is_one() && join_type != JoinType::Right {
        keys.extend(of_left.iter().cloned());
    }
    if left.is_one() && join_type != JoinType::Left {
        keys.extend(of_right.iter().cloned());
    }
    keys.extend(of_left.iter().flat_map(|left| of_right.iter().map(move |right| left | right)));
    keys.truncate(KEYS_MAX);
    keys
}

fn kind_of(join_type: JoinType) -> Sql<RegularJoinKind> {
    Ok(match join_type {
        JoinType::Inner => RegularJoinKind::Inner,
        JoinType::Left => RegularJoinKind::Left,
        JoinType::Right => RegularJoinKind::Right,
        JoinType::Full => RegularJoinKind::Full,
        JoinType::LeftSemi => RegularJoinKind::Semi,
        JoinType::LeftAnti => RegularJoinKind::Anti,
        other => return Err(SqlError::internal(format!("no operator for a {other} join"))),
    })
}

/// Refuses what would not be exact.
pub(super) fn check(parts: &JoinParts) -> Sql<()> {
    if parts.filter.as_ref().and_then(changing_function).is_some() {
        let sentence =
            "the condition of this join has another value each time, so what it gave could not be taken back";
        return Err(
            SqlError::new(sentence).help("compute the value in a column of one side, in a query below the join")
        );
    }
    let may_be_null =
        parts.keys.iter().any(|(left, right)| is_nullable(&parts.left, left) || is_nullable(&parts.right, right));
    if parts.null_aware && may_be_null {
        let sentence = "NOT IN gives no row as soon as one NULL is among the values; these may be NULL";
        let help = "write NOT EXISTS (SELECT .. WHERE ..), or WHERE .. IS NOT NULL on both sides of NOT IN";
        return Err(SqlError::new(sentence).help(help));
    }
    Ok(())
}

/// Whether a column may be NULL: it is declared so, and no filter right above it takes NULLs out.
fn is_nullable(plan: &LogicalPlan, column: &Column) -> bool {
    let Some(place) = plan.schema().maybe_index_of_column(column) else { return true };
    if !plan.schema().field(place).is_nullable() {
        return false;
    }
    match plan {
        LogicalPlan::Filter(filter) => {
            let takes_nulls_out = |expr: &Expr| match expr {
                Expr::IsNotNull(of) => bare_column(of) == Some(column),
                _ => false,
            };
            let conjuncts = split_conjunction(&filter.predicate);
            !conjuncts.into_iter().any(takes_nulls_out) && is_nullable(&filter.input, column)
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let below = Column::from(alias.input.schema().qualified_field(place));
            is_nullable(&alias.input, &below)
        }
        LogicalPlan::Projection(projection) => {
            projection.expr.get(place).and_then(cast_column).is_none_or(|below| is_nullable(&projection.input, below))
        }
        _ => true,
    }
}

/// The column that `expr` is, perhaps of another type.
fn cast_column(expr: &Expr) -> Option<&Column> {
    match expr {
        Expr::Cast(cast) => cast_column(&cast.expr),
        Expr::Alias(alias) => cast_column(&alias.expr),
        other => bare_column(other),
    }
}

/// What it does, for checkpoints.
fn does(node: &StreamJoin, spec: &RegularJoinSpec) -> Sql<String> {
    let parts = &node.parts;
    let (left, right) = (parts.left.schema(), parts.right.schema());
    let keys = parts.keys.iter().map(|(l, r)| format!("{} = {}", compiled_column(l, left), compiled_column(r, right)));
    let both = parts.both().map_err(|error| from_datafusion(&error, &[]))?;
    let condition = parts.filter.as_ref().map(|filter| compiled_expr(filter, &both)).unwrap_or_default();
    let [of_left, of_right] = spec.layout();
    let keys = keys.collect::<Vec<_>>().join(", ");
    Ok(format!("{} on=[{keys}] where=[{condition}] left={of_left} right={of_right}", node.lineage))
}
