//! From a query's tokens to DataFusion's logical plan, typed as Flink types it.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::{DFSchema, DFSchemaRef, Result as DfResult, TableReference};
use datafusion::execution::SessionStateDefaults;
use datafusion::logical_expr::planner::{
    ContextProvider, ExprPlanner, PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
    TypePlanner,
};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{
    AggregateUDF, Expr, ExprSchemable, HigherOrderUDF, LogicalPlan, ScalarUDF, TableSource, WindowUDF,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::optimizer::analyzer::type_coercion::TypeCoercion;
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::sql::planner::{NullOrdering, ParserOptions, PlannerContext, SqlToRel};
use datafusion::sql::sqlparser::ast::{Ident, ObjectName, Query, Statement, TableAlias, TableFactor};
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Span, Token, TokenWithSpan};

use chrono_tz::Tz;

use crate::catalog::{Catalog, Relation, StreamTable, StreamView};
use crate::check::{check_expr, check_query};
use crate::cursor::find_keyword;
use crate::diagnostic::{Position, Sql, SqlError};
use crate::dialect::FlinkDialect;
use crate::errors::{carried, from_datafusion, from_parser};
use crate::functions::Functions;
use crate::join::{as_of, lateral, with_subqueries};
use crate::settings::RuntimeMode;
use crate::statement::QueryText;
use crate::tvf::{self, WindowCall, WindowInput};
use crate::types::FlinkTypes;
use crate::unnest::{UnnestCall, UnnestRelations};
use crate::weight::{Weight, weigh};
use crate::{
    arithmetic, casts, flink, forms, group_window, grouping, hint, json, nested, over, set_all, state_ttl, typing,
    unnest, window,
};
use ruslo_operators::function::World;

/// How deep sqlparser may recurse: a level of brackets takes several of its steps.
const PARSER_STEPS_MAX: usize = 4_096;

/// Plans queries over a catalog.
#[derive(Debug)]
pub(crate) struct Planner {
    functions: Functions,
    expr_planners: Vec<Arc<dyn ExprPlanner>>,
    config: Arc<ConfigOptions>,
    world: World,
}

impl Planner {
    /// A planner with every function of this build, in `world`.
    pub(crate) fn new(world: World) -> Self {
        let mut config = ConfigOptions::default();
        config.execution.time_zone = Some(crate::types::UTC.to_owned());
        let ours: Arc<dyn ExprPlanner> = Arc::new(typing::AggregatesOverCasts);
        let expr_planners = [ours, Arc::new(over::OverCalls), Arc::new(nested::MapAccess)]
            .into_iter()
            .chain(SessionStateDefaults::default_expr_planners())
            .collect();
        Self { functions: Functions::new(&world), expr_planners, config: Arc::new(config), world }
    }

    /// What functions may touch of the world outside.
    pub(crate) fn world(&self) -> &World {
        &self.world
    }

    /// The names of all functions, in lower case.
    pub(crate) fn function_names(&self) -> Vec<String> {
        self.functions.scalar_names().into_iter().chain(self.functions.aggregate_names()).collect()
    }

    /// What DataFusion's rules are configured with.
    pub(crate) fn config(&self) -> &Arc<ConfigOptions> {
        &self.config
    }

    /// The typed plan of `query`.
    pub(crate) fn query(&self, query: &QueryText, catalog: &Catalog, mode: RuntimeMode) -> Sql<(LogicalPlan, Weight)> {
        let (tokens, mut blocks) = state_ttl::extract(&query.tokens)?;
        let (tokens, mut calls) = tvf::extract(&QueryText { tokens, end: query.end })?;
        let mut ast = self.parse_query(&tokens, query.end, mode)?;
        self.parse_inputs(mode, &mut calls)?;
        let weight = weigh(&ast, catalog, &calls).map_err(|error| error.or_at(query.start()))?;
        let is_aggregate = |name: &str| self.functions.aggregate(&name.to_lowercase()).is_some();
        let unnests = give_meaning(&mut ast, &mut calls, (&mut blocks, &is_aggregate))?;
        let context = Context::new(self, catalog, calls, unnests);
        let plan = SqlToRel::new_with_options(&context, options())
            .sql_statement_to_plan(Statement::Query(ast))
            .and_then(|plan| lateral::with_row_numbers(plan, find_keyword(&query.tokens, "LATERAL")))
            .and_then(|plan| {
                with_subqueries(plan, &|plan| {
                    set_all::counted(plan)
                        .and_then(grouping::with_columns)
                        .and_then(typing::narrow_plan)
                        .and_then(arithmetic::decimal_plan)
                })
            })
            .and_then(|plan| TypeCoercion::new().analyze(plan, &self.config))
            .and_then(|plan| {
                let flinks = |plan| casts::flink_plan(plan, self.world.zone()).and_then(typing::fix_intervals);
                with_subqueries(plan, &flinks)
            });
        plan.map(|plan| (plan, weight)).map_err(|error| from_datafusion(&error, &query.tokens))
    }

    /// Parses what windows read that is a query itself.
    fn parse_inputs(&self, mode: RuntimeMode, calls: &mut [WindowCall]) -> Sql<()> {
        for call in calls {
            if let WindowInput::Subquery(text) = &call.input {
                let subquery = self.parse_query(&text.tokens, text.end, mode)?;
                let derived = TableFactor::Derived { lateral: false, subquery, alias: None, sample: None };
                call.input = WindowInput::Relation(Box::new(derived));
            }
        }
        Ok(())
    }

    fn parse_query(&self, tokens: &[TokenWithSpan], end: Position, mode: RuntimeMode) -> Sql<Box<Query>> {
        let tokens = &nested::rewrite_tokens(tokens, end)?;
        let mut parser = parser(&forms::readable(&json::readable(tokens)?));
        let query = parser.parse_query().map_err(|error| from_parser(&error, "statement", end))?;
        expect_end(&mut parser, "statement", end)?;
        check_query(&query, tokens, &self.functions, mode)?;
        Ok(query)
    }

    /// The typed expression that `tokens` say over the columns of `schema`.
    pub(crate) fn expression(&self, tokens: &[TokenWithSpan], schema: &DFSchemaRef) -> Sql<Expr> {
        let end = tokens.last().map_or(Position { line: 1, column: 1 }, |last| Position::from(last.span.end));
        let tokens = &nested::rewrite_tokens(tokens, end)?;
        let mut parser = parser(&forms::readable(&json::readable(tokens)?));
        let mut ast = parser.parse_expr().map_err(|error| from_parser(&error, "expression", end))?;
        expect_end(&mut parser, "expression", end)?;
        check_expr(&ast, tokens, &self.functions)?;
        flink::rewrite_expr(&mut ast);
        nested::rewrite(&mut ast)?;
        let catalog = Catalog::default();
        let context = Context::new(self, &catalog, Vec::new(), Vec::new());
        let planned = SqlToRel::new_with_options(&context, options())
            .sql_to_expr(ast, schema, &mut PlannerContext::new())
            .and_then(typing::narrow_expr)
            .and_then(|expr| self.typed(expr, schema));
        planned.map_err(|error| from_datafusion(&error, tokens))
    }

    /// `expr` with its casts, simplified.
    fn typed(&self, expr: Expr, schema: &DFSchemaRef) -> DfResult<Expr> {
        let info =
            SimplifyContext::builder().with_schema(schema.clone()).with_config_options(self.config.clone()).build();
        let simplifier = ExprSimplifier::new(info);
        let expr = simplifier.coerce(arithmetic::decimal_expr(expr, schema)?, schema)?;
        let expr = typing::fix_interval(expr, schema)?;
        let expr = casts::flink_expr(nested::fix_casts(expr, schema)?, schema, self.world.zone())?;
        let expr = simplifier.simplify(expr)?;
        expr.get_type(schema).map(|_| expr)
    }
}

/// Gives `query`, and what its windows read, Flink's meaning: group windows go to `calls`, UNNESTs come back.
fn give_meaning(
    query: &mut Query,
    calls: &mut Vec<WindowCall>,
    (blocks, is_aggregate): (&mut [state_ttl::Block], state_ttl::IsAggregate<'_>),
) -> Sql<Vec<UnnestCall>> {
    flink::rewrite_query(query);
    state_ttl::mark(query, blocks, is_aggregate)?;
    for call in calls.iter_mut() {
        if let WindowInput::Relation(relation) = &mut call.input
            && let TableFactor::Derived { subquery, .. } = relation.as_mut()
        {
            flink::rewrite_query(subquery);
            state_ttl::mark(subquery.as_mut(), blocks, is_aggregate)?;
        }
    }
    state_ttl::check_marked(blocks)?;
    as_of::mark(query)?;
    group_window::rewrite(query, calls)?;
    nested::rewrite(query)?;
    let mut unnests = Vec::new();
    unnest::extract(query, &mut unnests)?;
    for call in calls {
        if let WindowInput::Relation(relation) = &mut call.input {
            as_of::mark(relation.as_mut())?;
            nested::rewrite(relation.as_mut())?;
            unnest::extract(relation.as_mut(), &mut unnests)?;
        }
    }
    Ok(unnests)
}

fn parser(tokens: &[TokenWithSpan]) -> Parser<'static> {
    Parser::new(&FlinkDialect).with_recursion_limit(PARSER_STEPS_MAX).with_tokens_with_locations(tokens.to_vec())
}

fn expect_end(parser: &mut Parser<'_>, what: &str, end: Position) -> Sql<()> {
    let next = parser.peek_token();
    if next.token == Token::EOF {
        return Ok(());
    }
    let at = Position::of_span(next.span).unwrap_or(end);
    Err(SqlError::new(format!("expected the end of the {what}, found '{}'", next.token)).at(at))
}

fn options() -> ParserOptions {
    ParserOptions::new()
        .with_parse_float_as_decimal(true)
        .with_enable_ident_normalization(false)
        .with_map_string_types_to_utf8view(false)
        .with_collect_spans(true)
        // A NULL is less than every value, as in Flink.
        .with_default_null_ordering(NullOrdering::NullsMin)
}

/// What DataFusion's planner asks for while it plans one query.
struct Context<'a> {
    planner: &'a Planner,
    catalog: &'a Catalog,
    relation_planners: Vec<Arc<dyn RelationPlanner>>,
}

impl<'a> Context<'a> {
    fn new(planner: &'a Planner, catalog: &'a Catalog, calls: Vec<WindowCall>, unnests: Vec<UnnestCall>) -> Self {
        let unnests = Arc::new(UnnestRelations { calls: unnests });
        let windows = Arc::new(WindowRelations { calls, zone: planner.world.zone() });
        Self { planner, catalog, relation_planners: vec![windows, unnests] }
    }
}

impl ContextProvider for Context<'_> {
    fn get_table_source(&self, name: TableReference) -> DfResult<Arc<dyn TableSource>> {
        let TableReference::Bare { table } = &name else {
            return Err(carried(SqlError::not_yet("catalogs and databases in table names", None)));
        };
        Ok(match self.catalog.get(table).map_err(carried)? {
            Relation::Table(table) => Arc::new(StreamTable(table.clone())),
            Relation::View(view) => Arc::new(StreamView(view.clone())),
        })
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.planner.expr_planners
    }

    fn get_relation_planners(&self) -> &[Arc<dyn RelationPlanner>] {
        &self.relation_planners
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::new(FlinkTypes))
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        if name == as_of::MARK {
            return Some(as_of::mark_function());
        }
        self.planner.functions.scalar(name).cloned()
    }

    fn get_higher_order_meta(&self, _name: &str) -> Option<Arc<HigherOrderUDF>> {
        None
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.planner.functions.aggregate(name).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        over::window_function(name)
    }

    fn get_variable_type(&self, _names: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        &self.planner.config
    }

    fn udf_names(&self) -> Vec<String> {
        self.planner.functions.scalar_names()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udaf_names(&self) -> Vec<String> {
        self.planner.functions.aggregate_names()
    }

    fn udwf_names(&self) -> Vec<String> {
        over::WINDOW_FUNCTIONS.map(str::to_owned).to_vec()
    }
}

/// Puts the window node where a window call's placeholder stands.
#[derive(Debug)]
struct WindowRelations {
    calls: Vec<WindowCall>,
    /// The session's.
    zone: Tz,
}

impl RelationPlanner for WindowRelations {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> DfResult<RelationPlanning> {
        let Some(call) = self.call(&relation) else { return Ok(RelationPlanning::Original(Box::new(relation))) };
        let TableFactor::Table { alias, .. } = relation else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let input = match &call.input {
            WindowInput::Table(name, span) => named_by_base(&name.value, *span),
            WindowInput::Relation(relation) => relation.as_ref().clone(),
            WindowInput::Subquery(_) => return Err(carried(SqlError::internal("a window's query was not parsed"))),
        };
        let plan = window::assign(context.plan(input)?, call, self.zone)?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
    }
}

impl WindowRelations {
    fn call(&self, relation: &TableFactor) -> Option<&WindowCall> {
        let TableFactor::Table { name, .. } = relation else { return None };
        let [part] = name.0.as_slice() else { return None };
        let name = &part.as_ident()?.value;
        self.calls.iter().find(|call| call.placeholder == *name)
    }
}

/// The table `name` where it stands; one with hints has the name of the table that they are of, too.
fn named_by_base(name: &str, span: Span) -> TableFactor {
    let mut table = table_named(Ident::with_quote_and_span('`', span, name));
    if let (TableFactor::Table { alias, .. }, Some(base)) = (&mut table, hint::base_name(name)) {
        let name = Ident::with_quote('`', base);
        *alias = Some(TableAlias { explicit: true, name, columns: Vec::new(), at: None });
    }
    table
}

/// A table in FROM.
pub(crate) fn table_named(ident: Ident) -> TableFactor {
    TableFactor::Table {
        name: ObjectName::from(vec![ident]),
        alias: None,
        args: None,
        with_hints: Vec::new(),
        version: None,
        with_ordinality: false,
        partitions: Vec::new(),
        json_path: None,
        sample: None,
        index_hints: Vec::new(),
    }
}

/// The schema of a table's columns without qualifiers.
pub(crate) fn unqualified(schema: &arrow::datatypes::Schema) -> Sql<DFSchemaRef> {
    let schema = DFSchema::try_from(schema.clone()).map_err(|error| from_datafusion(&error, &[]))?;
    Ok(Arc::new(schema))
}
