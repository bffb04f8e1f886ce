//! UNNEST in FROM: `t CROSS JOIN UNNEST(t.list) AS u (x)`, `t, UNNEST(t.list)`, `t LEFT JOIN UNNEST(t.list) ON TRUE`.
//!
//! DataFusion plans the sides of a join apart, so the collection could not be a column of the left one. The pair is taken
//! out of the syntax tree before planning ([`extract`]) and a name put there; [`UnnestRelations`] plans the left side for
//! that name, and the [`Unnest`] node over it.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::{
    DFSchema, DFSchemaRef, Result as DfResult, TableReference, internal_datafusion_err, internal_err,
};
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::{
    Expr, ExprSchemable, Extension, LogicalPlan, LogicalPlanBuilder, UserDefinedLogicalNodeCore,
};
use datafusion::sql::sqlparser::ast::{
    self, FunctionArg, FunctionArgExpr, Ident, JoinConstraint, JoinOperator, Select, Spanned, TableAlias, TableFactor,
    TableFunctionArgs, TableWithJoins, Value, VisitMut, VisitorMut,
};
use ruslo_operators::{UnnestOptions, UnnestSpec, element_fields};

use crate::compiled::compiled_expr;
use crate::diagnostic::{Position, Sql, SqlError};
use crate::errors::carried;
use crate::explain::{Detail, shown_expr};
use crate::physical::{Physical, arrow_schema, physical_expr};
use crate::planner::table_named;
use crate::text::bare_text;
use crate::types::sql_name;
use ruslo_core::graph::NodeIndex;

/// Most UNNESTs in one statement: each nests the plan by a level.
const CALLS_MAX: usize = 100;

/// An UNNEST and what stands left of it.
#[derive(Debug, Clone)]
pub(crate) struct UnnestCall {
    placeholder: String,
    left: Option<TableWithJoins>,
    collection: ast::Expr,
    alias: Option<TableAlias>,
    options: UnnestOptions,
    at: Option<Position>,
}

/// Whether `factor` is `UNNEST(..)`.
pub(crate) fn is_unnest(factor: &TableFactor) -> bool {
    arguments(factor).is_some()
}

fn arguments(factor: &TableFactor) -> Option<&TableFunctionArgs> {
    let TableFactor::Table { name, args: Some(args), .. } = factor else { return None };
    match name.0.as_slice() {
        [name] if name.as_ident()?.value.eq_ignore_ascii_case("unnest") => Some(args),
        _ => None,
    }
}

/// Whether a join is one that [`extract`] takes out.
pub(crate) fn is_unnest_join(join: &ast::Join) -> bool {
    is_unnest(&join.relation) && keeps_empty(&join.join_operator).is_some()
}

/// Whether rows without elements stay, if the join is one that UNNEST knows: CROSS JOIN, or LEFT JOIN .. ON TRUE.
fn keeps_empty(operator: &JoinOperator) -> Option<bool> {
    let always = |on: &JoinConstraint| matches!(on, JoinConstraint::On(ast::Expr::Value(value)) if value.value == Value::Boolean(true));
    match operator {
        JoinOperator::CrossJoin(_) => Some(false),
        JoinOperator::Join(on) | JoinOperator::Inner(on) if always(on) => Some(false),
        JoinOperator::Left(on) | JoinOperator::LeftOuter(on) if always(on) => Some(true),
        _ => None,
    }
}

/// Takes every UNNEST out of `node`, behind `calls`.
pub(crate) fn extract(node: &mut impl VisitMut, calls: &mut Vec<UnnestCall>) -> Sql<()> {
    match node.visit(&mut Extract { calls }) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Extract<'a> {
    calls: &'a mut Vec<UnnestCall>,
}

impl VisitorMut for Extract<'_> {
    type Break = SqlError;

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<SqlError> {
        let mut from: Vec<TableWithJoins> = Vec::new();
        for item in std::mem::take(&mut select.from) {
            let left = if is_unnest(&item.relation) { from.pop() } else { None };
            match self.joined(left, item) {
                Ok(joined) => from.push(joined),
                Err(error) => return ControlFlow::Break(error),
            }
        }
        select.from = from;
        ControlFlow::Continue(())
    }
}

impl Extract<'_> {
    /// `item` with each of its UNNESTs and what stands left of it as one name. `left` stands before a comma.
    fn joined(&mut self, left: Option<TableWithJoins>, item: TableWithJoins) -> Sql<TableWithJoins> {
        let relation = match is_unnest(&item.relation) {
            true => self.call(left, item.relation, false)?,
            false => item.relation,
        };
        let mut joined = TableWithJoins { relation, joins: Vec::new() };
        for join in item.joins {
            match keeps_empty(&join.join_operator).filter(|_| is_unnest(&join.relation)) {
                Some(keeps_empty) => {
                    let relation = self.call(Some(joined), join.relation, keeps_empty)?;
                    joined = TableWithJoins { relation, joins: Vec::new() };
                }
                None => joined.joins.push(join),
            }
        }
        Ok(joined)
    }

    fn call(&mut self, left: Option<TableWithJoins>, factor: TableFactor, keeps_empty: bool) -> Sql<TableFactor> {
        let at = Position::of_span(factor.span());
        let TableFactor::Table { alias, args, with_ordinality, .. } = factor else {
            return Err(SqlError::internal("UNNEST is no table function"));
        };
        let arguments = args.map(|args| args.args).unwrap_or_default();
        let collection = match arguments.into_iter().collect::<Vec<_>>().as_slice() {
            [FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))] => expr.clone(),
            _ => return Err(SqlError::new("UNNEST takes one array or map").at(at)),
        };
        if self.calls.len() >= CALLS_MAX {
            return Err(SqlError::new(format!("a statement has {CALLS_MAX} UNNESTs at most")).at(at));
        }
        let placeholder = format!("$unnest{}", self.calls.len());
        let options = UnnestOptions { with_ordinality, keeps_empty };
        let relation = table_named(Ident::with_quote('`', placeholder.clone()));
        self.calls.push(UnnestCall { placeholder, left, collection, alias, options, at });
        Ok(relation)
    }
}

/// Puts the unnest node where a call's name stands.
#[derive(Debug)]
pub(crate) struct UnnestRelations {
    pub(crate) calls: Vec<UnnestCall>,
}

impl RelationPlanner for UnnestRelations {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> DfResult<RelationPlanning> {
        let name = match &relation {
            TableFactor::Table { name, .. } => match name.0.as_slice() {
                [name] => name.as_ident().map(|name| name.value.as_str()),
                _ => None,
            },
            _ => None,
        };
        let Some(call) = self.calls.iter().find(|call| Some(call.placeholder.as_str()) == name) else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let input = match call.left.clone() {
            None => LogicalPlanBuilder::empty(true).build()?,
            Some(TableWithJoins { relation, joins }) if joins.is_empty() => context.plan(relation)?,
            Some(joined) => {
                context.plan(TableFactor::NestedJoin { table_with_joins: Box::new(joined), alias: None })?
            }
        };
        let collection = context.sql_to_expr(call.collection.clone(), input.schema())?;
        let plan = Unnest::of(input, collection, call)?.into_plan();
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, None))))
    }
}

/// The input's rows, each once for every element of its collection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Unnest {
    pub(crate) input: LogicalPlan,
    pub(crate) collection: Expr,
    /// The input's columns that come out, ascending.
    pub(crate) kept: Vec<usize>,
    /// What the elements' columns are called.
    names: Vec<String>,
    alias: Option<TableReference>,
    pub(crate) options: UnnestOptions,
    schema: DFSchemaRef,
}

impl Unnest {
    fn of(input: LogicalPlan, collection: Expr, call: &UnnestCall) -> DfResult<Self> {
        let data_type = collection.get_type(input.schema())?;
        let Some(fields) = element_fields(&data_type) else {
            let sentence =
                format!("UNNEST needs an array or a map; '{}' is {}", bare_text(&collection), sql_name(&data_type));
            return Err(carried(SqlError::new(sentence).at(call.at)));
        };
        let mut names: Vec<String> = fields.iter().map(|field| field.name().clone()).collect();
        if call.options.with_ordinality {
            names.push("ORDINALITY".to_owned());
        }
        let listed = call.alias.iter().flat_map(|alias| &alias.columns).map(|column| column.name.value.clone());
        let listed: Vec<String> = listed.collect();
        if !listed.is_empty() && listed.len() != names.len() {
            let sentence = format!("UNNEST gives {} columns here, {} are listed", names.len(), listed.len());
            return Err(carried(SqlError::new(sentence).at(call.at)));
        }
        if !listed.is_empty() {
            names = listed;
        }
        let alias = call.alias.as_ref().map(|alias| TableReference::bare(alias.name.value.clone()));
        let kept = (0..input.schema().fields().len()).collect();
        Self::try_new(input, collection, (kept, names), (alias, call.options))
    }

    /// The first `columns` columns of `input`, each row once for every element of `collection`.
    pub(crate) fn repeating(input: LogicalPlan, collection: Expr, columns: usize) -> DfResult<LogicalPlan> {
        let options = UnnestOptions { with_ordinality: false, keeps_empty: false };
        let parts = ((0..columns).collect(), vec!["$copy".to_owned()]);
        Self::try_new(input, collection, parts, (None, options)).map(Self::into_plan)
    }

    fn try_new(
        input: LogicalPlan,
        collection: Expr,
        (kept, names): (Vec<usize>, Vec<String>),
        (alias, options): (Option<TableReference>, UnnestOptions),
    ) -> DfResult<Self> {
        let Some(elements) = element_fields(&collection.get_type(input.schema())?) else {
            return internal_err!("'{collection}' is no collection");
        };
        let mut types: Vec<(DataType, bool)> = elements.iter().map(|field| (field.data_type().clone(), true)).collect();
        if options.with_ordinality {
            types.push((DataType::Int32, options.keeps_empty));
        }
        let mut fields: Vec<(Option<TableReference>, Arc<Field>)> = Vec::new();
        for place in &kept {
            let (qualifier, field) = input.schema().qualified_field(*place);
            fields.push((qualifier.cloned(), field.clone()));
        }
        for (name, (data_type, nullable)) in names.iter().zip(types) {
            fields.push((alias.clone(), Arc::new(Field::new(name, data_type, nullable))));
        }
        let schema = Arc::new(DFSchema::new_with_metadata(fields, Default::default())?);
        Ok(Self { input, collection, kept, names, alias, options, schema })
    }

    fn into_plan(self) -> LogicalPlan {
        LogicalPlan::Extension(Extension { node: Arc::new(self) })
    }

    /// The input's column that the `index`th column is, if it is one.
    pub(crate) fn input_column(&self, index: usize) -> Option<usize> {
        self.kept.get(index).copied()
    }

    /// What it does, for checkpoints.
    fn compiled(&self) -> String {
        let (collection, options) = (compiled_expr(&self.collection, self.input.schema()), self.options);
        let (kept, empty, ordinality) = (&self.kept, options.keeps_empty, options.with_ordinality);
        format!("unnest {collection} keeps={kept:?} empty={empty} ordinality={ordinality}")
    }

    /// The same with only those of the input's columns that `is_used` names; repeating the others is for nothing.
    fn keeping(&self, is_used: impl Fn(usize) -> bool) -> DfResult<Self> {
        let kept = self.kept.iter().enumerate().filter(|(index, _)| is_used(*index)).map(|(_, place)| *place);
        let parts = (kept.collect(), self.names.clone());
        Self::try_new(self.input.clone(), self.collection.clone(), parts, (self.alias.clone(), self.options))
    }
}

impl PartialOrd for Unnest {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for Unnest {
    fn name(&self) -> &str {
        "Unnest"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        vec![self.collection.clone()]
    }

    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        self.names.iter().cloned().collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let join = if self.options.keeps_empty { "LeftJoinUnnest" } else { "Unnest" };
        write!(f, "{join}: {} AS [{}]", bare_text(&self.collection), self.names.join(", "))
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> DfResult<Self> {
        let (Some(input), Some(collection)) = (inputs.into_iter().next(), exprs.into_iter().next()) else {
            return Err(internal_datafusion_err!("UNNEST has one input and one collection"));
        };
        // The input may have lost or moved columns: those that stay are found by name.
        let columns = self.kept.iter().map(|place| self.input.schema().columns().get(*place).cloned());
        let kept = columns.flatten().filter_map(|column| input.schema().index_of_column(&column).ok());
        let parts = (kept.collect(), self.names.clone());
        Self::try_new(input, collection, parts, (self.alias.clone(), self.options))
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let own = self.collection.column_refs();
        let own = own.into_iter().filter_map(|column| self.input.schema().index_of_column(column).ok());
        let mut needed: Vec<usize> =
            output_columns.iter().filter_map(|index| self.input_column(*index)).chain(own).collect();
        needed.sort_unstable();
        needed.dedup();
        Some(vec![needed])
    }
}

/// `plan` where each unnest keeps only the columns that the projection above it uses.
pub(crate) fn prune(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    use datafusion::common::tree_node::{Transformed, TreeNode};
    let pruned = plan.transform_up(|node| match &node {
        LogicalPlan::Projection(projection) => {
            let used: HashSet<_> = projection.expr.iter().flat_map(|expr| expr.column_refs()).cloned().collect();
            let Some(input) = pruned_below(&projection.input, used)? else { return Ok(Transformed::no(node)) };
            let exprs = projection.expr.clone();
            let made = datafusion::logical_expr::Projection::try_new_with_schema(
                exprs,
                Arc::new(input),
                projection.schema.clone(),
            )?;
            Ok(Transformed::yes(LogicalPlan::Projection(made)))
        }
        _ => Ok(Transformed::no(node)),
    });
    pruned.map(|plan| plan.data)
}

/// The unnest at or, behind filters, below `plan`, keeping only `used` columns.
fn pruned_below(plan: &LogicalPlan, mut used: HashSet<datafusion::common::Column>) -> DfResult<Option<LogicalPlan>> {
    match plan {
        LogicalPlan::Filter(filter) => {
            used.extend(filter.predicate.column_refs().into_iter().cloned());
            let Some(input) = pruned_below(&filter.input, used)? else { return Ok(None) };
            let made = datafusion::logical_expr::Filter::try_new(filter.predicate.clone(), Arc::new(input))?;
            Ok(Some(LogicalPlan::Filter(made)))
        }
        _ => match crate::nodes::as_node::<Unnest>(plan) {
            Some(unnest) => {
                let columns = unnest.schema.columns();
                let is_used = |index: usize| columns.get(index).is_some_and(|column| used.contains(column));
                Ok(Some(unnest.keeping(is_used)?.into_plan()))
            }
            None => Ok(None),
        },
    }
}

impl Physical<'_> {
    /// Adds the operator of an unnest.
    pub(crate) fn unnest(&mut self, unnest: &Unnest) -> Sql<NodeIndex> {
        let input = self.node(&unnest.input)?;
        let schema = unnest.input.schema();
        let collection = physical_expr(&unnest.collection, schema)?;
        let spec = UnnestSpec::new(schema.as_arrow(), collection, &unnest.kept, unnest.options)?;
        let spec = spec.with_schema(arrow_schema(&unnest.schema))?;
        let mut detail =
            Detail::forward("Unnest").line("of", shown_expr(&unnest.collection)).line("adds", unnest.names.join(", "));
        detail = detail.with(self.properties(input).unnested(&unnest.kept)).does(unnest.compiled());
        if unnest.options.keeps_empty {
            detail = detail.line("without elements", "one row");
        }
        self.add_after(input, detail, spec.schema(), spec.factory())
    }
}
