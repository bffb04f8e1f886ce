//! GROUP BY without a window, SELECT DISTINCT, UNION, and grouping sets: aggregates that change as rows come and go.
//!
//! ```text
//! Aggregate: keys, aggregates         Projection: names as they were
//!   …                            →      GroupBy: keys, aggregates
//!                                         Projection: keys, arguments
//!                                           …
//! ```
//!
//! Of GROUPING SETS, CUBE and ROLLUP each row comes once for each set, with NULL for the keys that are not in it, and the
//! number of the set as one key more:
//!
//! ```text
//! GroupBy: keys, $grouping_id
//!   Union
//!     Projection: a, b, 0, arguments            one for each set
//!     Projection: a, NULL, 1, arguments
//! ```

use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::DataType;
use datafusion::common::{
    Column, DFSchema, DFSchemaRef, ExprSchema, Result as DfResult, ScalarValue, internal_datafusion_err, internal_err,
};
use datafusion::logical_expr::utils::grouping_set_to_exprlist;
use datafusion::logical_expr::{
    Aggregate, Expr, ExprSchemable, Extension, GroupingSet, LogicalPlan, Projection, Union, UserDefinedLogicalNodeCore,
    lit,
};
use ruslo_core::graph::{Node, NodeIndex, NodeKind, Partitioning};
use ruslo_operators::{LocalGroupBySpec, MiniBatch, UpdatingAggregateSpec, UpdatingChanges};

use crate::aggregates::{aggregate_call, function_name};
use crate::compiled::{compiled_columns, compiled_exprs};
use crate::diagnostic::Sql;
use crate::explain::Detail;
use crate::interval;
use crate::physical::{Physical, arrow_schema, index_of};
use crate::state_ttl::{self, StateTtl};
use crate::stream::Columns;
use crate::text::{bare_text, expr_text};
use crate::window::{inputs, lineage};

/// The column that tells grouping sets apart.
const SET: &str = "$grouping_id";

/// Aggregates by key. Its input has a column for each key and each aggregate's argument; its output is the keys and the
/// aggregates.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct GroupBy {
    pub(crate) input: LogicalPlan,
    keys: Vec<Column>,
    /// Aggregate calls whose arguments are columns of the input or constants.
    aggregates: Vec<Expr>,
    /// What the aggregates' columns are called.
    names: Vec<String>,
    /// What the operator's id is a hash of.
    lineage: String,
    /// How long it keeps a key.
    ttl: StateTtl,
    schema: DFSchemaRef,
}

/// The plan of `aggregate`, which no window bounds: its columns.
pub(crate) fn group_by(aggregate: &Aggregate) -> DfResult<LogicalPlan> {
    let (aggregate, ttl) = &state_ttl::take_grouped(aggregate)?;
    let lineage = lineage_of(aggregate)?;
    let mut columns = Columns::default();
    let mut keys = Vec::new();
    for expr in grouping_set_to_exprlist(&aggregate.group_expr)? {
        // Never shared with an argument: a key is NULL in some grouping sets.
        keys.push(columns.push(expr.clone(), name_of(expr)));
    }
    let (mut aggregates, mut names) = (Vec::new(), Vec::new());
    for expr in &aggregate.aggr_expr {
        aggregates.push(columns.take_written(expr)?);
        names.push(columns.free_name(bare_text(expr)));
    }
    if columns.is_empty() {
        // Rows without columns cannot be counted.
        columns.push(lit(true), "$row".to_owned());
    }
    let input = Projection::try_new(columns.into_exprs(), Arc::clone(&aggregate.input)).map(LogicalPlan::Projection)?;
    let input = match sets_of(aggregate)? {
        None => input,
        Some(sets) => {
            let input = expanded(input, keys.len(), &sets)?;
            keys.push(Column::new_unqualified(SET));
            input
        }
    };
    let out: Vec<Column> = keys.iter().cloned().chain(names.iter().map(Column::new_unqualified)).collect();
    let node = GroupBy { ttl: *ttl, ..GroupBy::try_new(input, keys, aggregates, names, lineage)? };
    let node = LogicalPlan::Extension(Extension { node: Arc::new(node) });
    let named = out
        .into_iter()
        .zip(aggregate.schema.iter())
        .map(|(column, (qualifier, field))| Expr::Column(column).alias_qualified(qualifier.cloned(), field.name()));
    Projection::try_new(named.collect(), Arc::new(node)).map(LogicalPlan::Projection)
}

fn name_of(expr: &Expr) -> String {
    match expr {
        Expr::Column(column) => column.name.clone(),
        computed => bare_text(computed),
    }
}

/// Which keys each set has, and the type of the number of a set.
type Sets = (Vec<Vec<bool>>, DataType);

/// The grouping sets of `aggregate`, if it has any.
fn sets_of(aggregate: &Aggregate) -> DfResult<Option<Sets>> {
    let Some(Expr::GroupingSet(sets)) = aggregate.group_expr.first() else { return Ok(None) };
    let keys = sets.distinct_expr();
    let sets: Vec<Vec<bool>> = match sets {
        GroupingSet::GroupingSets(sets) => {
            sets.iter().map(|set| keys.iter().map(|key| set.contains(key)).collect()).collect()
        }
        GroupingSet::Rollup(_) => (0..=keys.len()).map(|of| (0..keys.len()).map(|key| key < of).collect()).collect(),
        GroupingSet::Cube(_) => {
            let bit = |set: usize, key: usize| set >> (keys.len() - 1 - key) & 1 == 0;
            (0..1usize << keys.len()).map(|set| (0..keys.len()).map(|key| bit(set, key)).collect()).collect()
        }
    };
    match aggregate.schema.fields().get(keys.len()) {
        Some(field) => Ok(Some((sets, field.data_type().clone()))),
        None => internal_err!("grouping sets lost their number"),
    }
}

/// The rows of `input`, whose first `keys` columns are the keys, once for each set.
fn expanded(input: LogicalPlan, keys: usize, (sets, number): &Sets) -> DfResult<LogicalPlan> {
    let input = Arc::new(input);
    let mut seen: HashMap<&[bool], u64> = HashMap::new();
    let mut parts = Vec::new();
    for set in sets {
        // As DataFusion numbers them: a bit for each key that is missing, the last key's lowest; above, which of several
        // equal sets it is.
        let missing = set.iter().fold(0u64, |bits, there| bits << 1 | u64::from(!there));
        let times = seen.entry(set.as_slice()).or_default();
        let of_set = ScalarValue::UInt64(Some(missing | *times << set.len())).cast_to(number)?;
        *times += 1;
        let mut exprs = Vec::new();
        for (place, column) in input.schema().columns().into_iter().enumerate() {
            if place == keys {
                exprs.push(lit(of_set.clone()).alias(SET));
            }
            let name = column.name.clone();
            exprs.push(match set.get(place) {
                Some(false) => lit(ScalarValue::try_from(input.schema().field(place).data_type())?).alias(name),
                _ => Expr::Column(column),
            });
        }
        if input.schema().fields().len() == keys {
            exprs.push(lit(of_set).alias(SET));
        }
        parts.push(Arc::new(Projection::try_new(exprs, Arc::clone(&input)).map(LogicalPlan::Projection)?));
    }
    match parts.as_slice() {
        [one] => Ok(one.as_ref().clone()),
        _ => Union::try_new(parts).map(LogicalPlan::Union),
    }
}

/// Stored for ever: docs/design/operator-ids.md.
fn lineage_of(aggregate: &Aggregate) -> DfResult<String> {
    let keys = grouping_set_to_exprlist(&aggregate.group_expr)?;
    let keys = keys.iter().map(|key| expr_text(key, &|column| lineage(&aggregate.input, column)));
    let keys = keys.collect::<Vec<_>>().join(", ");
    let sets = match sets_of(aggregate)? {
        None => String::new(),
        Some((sets, _)) => {
            let shown = |set: &Vec<bool>| set.iter().map(|there| if *there { '1' } else { '0' }).collect::<String>();
            format!(" sets=[{}]", sets.iter().map(shown).collect::<Vec<_>>().join(", "))
        }
    };
    Ok(format!("group by keys=[{keys}]{sets} inputs=[{}]", inputs(&aggregate.input).join(", ")))
}

impl GroupBy {
    fn try_new(
        input: LogicalPlan,
        keys: Vec<Column>,
        aggregates: Vec<Expr>,
        names: Vec<String>,
        lineage: String,
    ) -> DfResult<Self> {
        let mut fields = Vec::new();
        for key in &keys {
            let field = input.schema().field_from_column(key)?;
            fields.push((key.relation.clone(), Arc::new(field.as_ref().clone())));
        }
        for (aggregate, name) in aggregates.iter().zip(&names) {
            let (_, field) = aggregate.to_field(input.schema())?;
            fields.push((None, Arc::new(field.as_ref().clone().with_name(name))));
        }
        let schema = Arc::new(DFSchema::new_with_metadata(fields, Default::default())?);
        Ok(Self { input, keys, aggregates, names, lineage, ttl: StateTtl::Setting, schema })
    }

    /// What operator ids call it.
    pub(crate) fn lineage(&self) -> &str {
        &self.lineage
    }

    fn keys_text(&self) -> String {
        let keys: Vec<&str> = self.keys.iter().map(|key| key.name.as_str()).collect();
        if keys.is_empty() { "all rows".to_owned() } else { keys.join(", ") }
    }

    /// What is kept of each key.
    fn kept(&self, takes_back: bool) -> String {
        let mut functions: Vec<&str> = Vec::new();
        for name in self.aggregates.iter().filter_map(function_name) {
            if !functions.contains(&name) {
                functions.push(name);
            }
        }
        let there = if takes_back { "how many rows there are" } else { "that there was a row" };
        let mut kept = vec![there.to_owned()];
        kept.extend((!functions.is_empty()).then(|| functions.join(", ")));
        kept.extend(self.keeps_values(takes_back).then(|| "every value of arguments".to_owned()));
        kept.join("; ")
    }

    /// What its operator is called.
    fn name_text(&self) -> String {
        let is_distinct = !self.keys.is_empty() && self.aggregates.is_empty();
        format!("{} {}", if is_distinct { "Distinct" } else { "GroupBy" }, self.keys_text())
    }

    /// Whether values are kept one by one.
    fn keeps_values(&self, takes_back: bool) -> bool {
        self.aggregates.iter().any(|expr| {
            let is_extreme = function_name(expr).is_some_and(|name| matches!(name, "min" | "max"));
            is_distinct(expr) && !is_extreme || takes_back && is_extreme
        })
    }
}

fn is_distinct(expr: &Expr) -> bool {
    matches!(expr, Expr::AggregateFunction(call) if call.params.distinct)
}

impl PartialOrd for GroupBy {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for GroupBy {
    fn name(&self) -> &str {
        "GroupBy"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        self.keys.iter().cloned().map(Expr::Column).chain(self.aggregates.iter().cloned()).collect()
    }

    // Every output column keeps predicates above: one on a key could go below, but changes are few.

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<&str> = self.keys.iter().map(|key| key.name.as_str()).collect();
        write!(f, "GroupBy: keys=[{}], [{}]", keys.join(", "), self.names.join(", "))
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> DfResult<Self> {
        let broken = || internal_datafusion_err!("a GROUP BY lost its columns");
        let mut exprs = exprs.into_iter();
        let mut keys = Vec::new();
        for _ in 0..self.keys.len() {
            let Some(Expr::Column(column)) = exprs.next() else { return Err(broken()) };
            keys.push(column);
        }
        let input = inputs.into_iter().next().ok_or_else(broken)?;
        let made = Self::try_new(input, keys, exprs.collect(), self.names.clone(), self.lineage.clone())?;
        Ok(Self { ttl: self.ttl, ..made })
    }
}

/// What groups before the exchange, and how much it holds.
type Local = Option<(LocalGroupBySpec, MiniBatch)>;

impl Physical<'_> {
    /// Adds the operator of `node`, which is the root of `plan`.
    pub(crate) fn group_by(&mut self, node: &GroupBy, plan: &LogicalPlan) -> Sql<NodeIndex> {
        let input = self.node(&node.input)?;
        let schema = node.input.schema();
        let properties = self.properties(input);
        let takes_back = properties.is_updating();
        let keys = node.keys.iter().map(|key| index_of(schema, key)).collect::<Sql<Vec<_>>>()?;
        let calls = node.aggregates.iter().zip(&node.names);
        let calls = calls.map(|(expr, name)| aggregate_call(expr, schema, name)).collect::<Sql<Vec<_>>>()?;
        let changes = UpdatingChanges { takes_back, says_before: self.needs_before(plan) };
        let ttl = node.ttl.or(self.state_ttl);
        let spec = UpdatingAggregateSpec::new(&arrow_schema(schema), keys.clone(), calls, changes, ttl)?;
        let properties = match node.aggregates.is_empty() && !takes_back {
            true => properties.distinct(keys.len()),
            false => properties.updating(vec![(0..keys.len()).collect()], changes.says_before),
        };
        let (local, spec, why_one) = self.in_two_phases(spec);
        let detail = self.group_by_detail(node, takes_back, local.is_some());
        let mut detail = detail.with(properties).does(does(node, takes_back));
        if let Some(why) = why_one {
            detail = detail.line("phases", format!("one, because {why}"));
        }
        if let Some(table) = spec.state_tables().into_iter().next() {
            detail = detail.keeps(table);
        }
        let (input, keys) = match local {
            // The keys are in front.
            Some((local, bounds)) => (self.add_local(input, node, local, bounds)?, (0..keys.len()).collect()),
            None => (input, keys),
        };
        let added = Node {
            id: self.fresh_id(&node.lineage),
            name: detail.name.clone(),
            parallelism: if keys.is_empty() { 1 } else { self.parallelism },
            schema: spec.schema(),
            kind: NodeKind::Operator(spec.factory()),
        };
        Ok(self.add(added, Some((input, Partitioning::KeyGroup(keys))), detail))
    }

    /// What groups before the exchange, where that is wanted and possible, and what merges it; or why it is not possible.
    fn in_two_phases(&self, spec: UpdatingAggregateSpec) -> (Local, UpdatingAggregateSpec, Option<String>) {
        match self.mini_batch.map(|bounds| (bounds, spec.two_phases(bounds))) {
            None => (None, spec, None),
            Some((bounds, Ok((local, global)))) => (Some((local, bounds)), global, None),
            Some((_, Err(why))) => (None, spec, Some(why)),
        }
    }

    fn add_local(
        &mut self,
        input: NodeIndex,
        node: &GroupBy,
        local: LocalGroupBySpec,
        bounds: MiniBatch,
    ) -> Sql<NodeIndex> {
        let held = format!("{} rows or {} at most, none over a checkpoint", bounds.rows, shown(bounds.latency));
        let groups = format!("per ({}): {}; {held}", node.keys_text(), node.kept(false));
        let detail = Detail::forward(&format!("Local{}", node.name_text())).line("partial groups", groups);
        let detail = detail.with(self.properties(input).bare());
        self.add_after(input, detail, local.schema(), local.factory())
    }

    fn group_by_detail(&self, node: &GroupBy, takes_back: bool, is_of_partials: bool) -> Detail {
        let keys = node.keys_text();
        let input = match (node.keys.is_empty(), is_of_partials) {
            (true, false) => "all rows to one subtask".to_owned(),
            (true, true) => "all partial groups to one subtask".to_owned(),
            (false, false) => format!("by key {keys}"),
            (false, true) => format!("partial groups by key {keys}"),
        };
        let mut detail = Detail::new(&node.name_text(), &input);
        if !node.aggregates.is_empty() {
            detail = detail.line("aggregates", node.names.join(", "));
        }
        let per = if node.keys.is_empty() { "once".to_owned() } else { format!("per ({keys})") };
        detail = detail.line("state", format!("{per}: {}", node.kept(takes_back)));
        match node.ttl.or(self.state_ttl) {
            Some(ttl) => detail.line("state goes", format!("{} after the last row of its key", shown(ttl))),
            None if node.keys.is_empty() && !node.keeps_values(takes_back) => detail,
            None => detail.line("warning", GROWS),
        }
    }
}

/// A time as a person writes it.
fn shown(time: Duration) -> String {
    interval::describe(i64::try_from(time.as_millis()).unwrap_or(i64::MAX))
}

/// What EXPLAIN says of state without a bound.
pub(crate) const GROWS: &str = "this state only grows; SET 'table.exec.state.ttl' = '1 d' drops what was not written for a \
                                day, a window in GROUP BY drops it as time goes on";

/// What a GROUP BY does, for checkpoints.
fn does(node: &GroupBy, takes_back: bool) -> String {
    let schema = node.input.schema();
    let (keys, calls) = (compiled_columns(&node.keys, schema), compiled_exprs(&node.aggregates, schema));
    let takes_back = if takes_back { " updated" } else { "" };
    format!("{} keys=[{keys}] calls=[{calls}]{takes_back}", node.lineage)
}
