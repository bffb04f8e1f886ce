//! `SELECT /*+ STATE_TTL('o' = '1 d', 'c' = '0') */`: how long one input of a regular join or of a GROUP BY is kept.
//!
//! The keys are names of the FROM of that SELECT. The hint goes through DataFusion's planner as an alias below the input's
//! own, and out again where a join or a GROUP BY is planned over it; one that is left over then was for nothing, and is
//! refused.
//!
//! ```text
//! FROM orders AS o      →  FROM (SELECT * FROM orders AS `o /*+ STATE_TTL 86400000000000 */`) AS o
//! ```

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Result as DfResult, TableReference};
use datafusion::logical_expr::{Aggregate, LogicalPlan, SubqueryAlias};
use datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion::sql::sqlparser::ast::{
    Expr, GroupByExpr, Ident, Query, Select, SetExpr, TableAlias, TableFactor, TableWithJoins, VisitMut, VisitorMut,
    visit_expressions,
};
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::TokenWithSpan;

use crate::cursor::{At, is_keyword};
use crate::diagnostic::{Position, Sql, SqlError};
use crate::dialect::FlinkDialect;
use crate::errors::carried;
use crate::{hint, settings};

/// What stands between a name and its nanoseconds in the alias of a hinted input.
const MARK: &str = " /*+ STATE_TTL ";

/// What ends it.
const END: &str = " */";

/// How long an input is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) enum StateTtl {
    /// As `table.exec.state.ttl` says.
    #[default]
    Setting,
    /// As a hint says; for ever, if it is zero.
    Hint(Duration),
}

impl StateTtl {
    /// The lifetime, where the setting says `setting`; for ever, if none.
    pub(crate) fn or(self, setting: Option<Duration>) -> Option<Duration> {
        match self {
            Self::Setting => setting,
            Self::Hint(lifetime) => Some(lifetime).filter(|lifetime| !lifetime.is_zero()),
        }
    }
}

/// Whether an aggregate function has this name.
pub(crate) type IsAggregate<'a> = &'a dyn Fn(&str) -> bool;

/// The hints of one SELECT.
#[derive(Debug)]
pub(crate) struct Block {
    /// Where its SELECT stands.
    select: Position,
    /// Where the hint does.
    at: Position,
    lifetimes: Vec<(At<String>, Duration)>,
    is_used: bool,
}

/// `tokens` without the hints behind SELECT, and those hints.
pub(crate) fn extract(tokens: &[TokenWithSpan]) -> Sql<(Vec<TokenWithSpan>, Vec<Block>)> {
    let mut kept: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let mut blocks = Vec::new();
    for token in tokens {
        let select = kept.last().filter(|last| hint::is_hint(&token.token) && is_keyword(&last.token, "SELECT"));
        match select {
            Some(select) => {
                let select = Position::of(select);
                blocks.push(Block { select, at: Position::of(token), lifetimes: lifetimes(token)?, is_used: false });
            }
            None => kept.push(token.clone()),
        }
    }
    Ok((kept, blocks))
}

/// The names in a hint behind SELECT, each with its lifetime.
pub(crate) fn lifetimes(token: &TokenWithSpan) -> Sql<Vec<(At<String>, Duration)>> {
    let mut lifetimes: Vec<(At<String>, Duration)> = Vec::new();
    for (name, value) in hint::state_ttl(token)? {
        let lifetime = settings::duration(&value.value).map_err(|why| SqlError::new(why).at(value.at))?;
        if lifetimes.iter().any(|(known, _)| known.value == name.value) {
            return Err(SqlError::new(format!("STATE_TTL of '{}' is given twice", name.value)).at(name.at));
        }
        lifetimes.push((name, lifetime));
    }
    Ok(lifetimes)
}

/// Marks the inputs that `blocks` name in the SELECTs of `node`; `is_aggregate` tells functions by name.
pub(crate) fn mark(node: &mut impl VisitMut, blocks: &mut [Block], is_aggregate: IsAggregate<'_>) -> Sql<()> {
    if blocks.is_empty() {
        return Ok(());
    }
    match node.visit(&mut Marking { blocks, is_aggregate }) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// Refuses a hint of which no SELECT was seen.
pub(crate) fn check_marked(blocks: &[Block]) -> Sql<()> {
    match blocks.iter().find(|block| !block.is_used) {
        Some(block) => Err(SqlError::new("the hint STATE_TTL stands behind the SELECT of a query").at(block.at)),
        None => Ok(()),
    }
}

struct Marking<'a> {
    blocks: &'a mut [Block],
    is_aggregate: IsAggregate<'a>,
}

impl VisitorMut for Marking<'_> {
    type Break = SqlError;

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<SqlError> {
        let at = Position::of_span(select.select_token.0.span);
        let Some(block) = self.blocks.iter_mut().find(|block| Some(block.select) == at) else {
            return ControlFlow::Continue(());
        };
        block.is_used = true;
        mark_block(select, block, self.is_aggregate).map_or_else(ControlFlow::Break, ControlFlow::Continue)
    }
}

fn mark_block(select: &mut Select, block: &Block, is_aggregate: IsAggregate<'_>) -> Sql<()> {
    if !keeps_state(select, is_aggregate) {
        let sentence = "STATE_TTL is for the inputs of a regular join or of a GROUP BY; this SELECT has neither";
        return Err(SqlError::new(sentence)
            .at(block.at)
            .help("write it behind the SELECT that has the JOIN or GROUP BY"));
    }
    let mut inputs = Vec::new();
    select.from.iter_mut().for_each(|item| inputs_of(item, &mut inputs));
    let names: Vec<String> = inputs.iter().map(|(name, _)| name.value.clone()).collect();
    for (name, lifetime) in &block.lifetimes {
        let Some((alias, factor)) = inputs.iter_mut().find(|(input, _)| input.value == name.value) else {
            return Err(no_input(name).near(&name.value, names.iter().map(String::as_str)));
        };
        wrap(factor, alias.clone(), format!("{}{MARK}{}{END}", name.value, lifetime.as_nanos()))?;
    }
    Ok(())
}

fn no_input(name: &At<String>) -> SqlError {
    let sentence = format!("'{}' is no input of a regular join or of a GROUP BY without a window here", name.value);
    SqlError::new(sentence).at(name.at).help("STATE_TTL names tables of the FROM of its SELECT, by their aliases")
}

/// Whether `select` may have what keeps rows of its FROM.
fn keeps_state(select: &Select, is_aggregate: IsAggregate<'_>) -> bool {
    let is_grouped = match &select.group_by {
        GroupByExpr::All(_) => true,
        GroupByExpr::Expressions(keys, sets) => !keys.is_empty() || !sets.is_empty(),
    };
    let is_joined = select.from.len() > 1 || select.from.iter().any(|item| !item.joins.is_empty());
    let keeps = |expr: &Expr| match expr {
        Expr::InSubquery { .. } | Expr::Exists { .. } | Expr::Subquery(_) => ControlFlow::Break(()),
        Expr::Function(call) if call.over.is_none() && is_aggregate(&call.name.to_string()) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    is_grouped
        || is_joined
        || select.distinct.is_some()
        || visit_expressions(&select.projection, keeps).is_break()
        || visit_expressions(&select.selection, keeps).is_break()
}

/// The tables and queries of `item`, by the names that the SELECT knows them by.
fn inputs_of<'a>(item: &'a mut TableWithJoins, inputs: &mut Vec<(Ident, &'a mut TableFactor)>) {
    let joined = item.joins.iter_mut().map(|join| &mut join.relation);
    for factor in std::iter::once(&mut item.relation).chain(joined) {
        if let TableFactor::NestedJoin { table_with_joins, alias: None } = factor {
            inputs_of(table_with_joins, inputs);
            continue;
        }
        let name = match &*factor {
            TableFactor::Table { alias: Some(alias), version: None, args: None, .. }
            | TableFactor::Derived { alias: Some(alias), lateral: false, .. } => Some(alias.name.clone()),
            TableFactor::Table { name, alias: None, version: None, args: None, .. } => {
                name.0.last().and_then(|part| part.as_ident()).cloned()
            }
            _ => None,
        };
        inputs.extend(name.map(|name| (name, factor)));
    }
}

/// `factor` as a query of its own, called `alias`, that calls it `marked`.
fn wrap(factor: &mut TableFactor, alias: Ident, marked: String) -> Sql<()> {
    let broken = || SqlError::internal("a hinted table could not be wrapped");
    let aliased = |name: Ident, columns| TableAlias { explicit: true, name, columns, at: None };
    let mut subquery: Box<Query> = Parser::new(&FlinkDialect)
        .try_with_sql("SELECT * FROM t")
        .and_then(|mut parser| parser.parse_query())
        .map_err(|_| broken())?;
    let SetExpr::Select(select) = subquery.body.as_mut() else { return Err(broken()) };
    // Its own place is not one of the script's.
    select.select_token = AttachedToken::empty();
    let below = select.from.first_mut().ok_or_else(broken)?;
    if let TableFactor::Table { alias, .. } | TableFactor::Derived { alias, .. } = factor {
        let columns = alias.take().map(|alias| alias.columns).unwrap_or_default();
        *alias = Some(aliased(Ident::with_quote('`', marked), columns));
    }
    std::mem::swap(&mut below.relation, factor);
    *factor = TableFactor::Derived { lateral: false, subquery, alias: Some(aliased(alias, Vec::new())), sample: None };
    Ok(())
}

/// The name and the lifetime that an alias marks.
fn marked(alias: &TableReference) -> Option<(&str, Duration)> {
    let (name, rest) = alias.table().rsplit_once(MARK)?;
    let lifetime: u64 = rest.strip_suffix(END)?.parse().ok()?;
    Some((name, Duration::from_nanos(lifetime)))
}

/// `plan`, an input, without the mark of its hint, if it is the input of just one name; and what the hint says.
///
/// # Errors
/// None, if `plan` was made by the planner.
pub(crate) fn take(plan: LogicalPlan) -> DfResult<(LogicalPlan, StateTtl)> {
    match &plan {
        LogicalPlan::Filter(_) | LogicalPlan::Projection(_) => {
            let Some(below) = plan.inputs().first().copied().cloned() else { return Ok((plan, StateTtl::Setting)) };
            match take(below)? {
                (_, StateTtl::Setting) => Ok((plan, StateTtl::Setting)),
                (below, ttl) => Ok((plan.with_new_exprs(plan.expressions(), vec![below])?, ttl)),
            }
        }
        LogicalPlan::SubqueryAlias(own) => {
            if let LogicalPlan::Projection(all) = own.input.as_ref()
                && let LogicalPlan::SubqueryAlias(mark) = all.input.as_ref()
                && let Some((_, lifetime)) = marked(&mark.alias)
            {
                let bare = match mark.input.as_ref() {
                    // It had no alias but its name.
                    LogicalPlan::TableScan(scan) if scan.table_name == own.alias => mark.input.as_ref().clone(),
                    _ => {
                        LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::clone(&mark.input), own.alias.clone())?)
                    }
                };
                return Ok((bare, StateTtl::Hint(lifetime)));
            }
            Ok((plan, StateTtl::Setting))
        }
        _ => Ok((plan, StateTtl::Setting)),
    }
}

/// `aggregate` over its input without a mark, and what the mark says.
pub(crate) fn take_grouped(aggregate: &Aggregate) -> DfResult<(Aggregate, StateTtl)> {
    match take(aggregate.input.as_ref().clone())? {
        (_, StateTtl::Setting) => Ok((aggregate.clone(), StateTtl::Setting)),
        (input, ttl) => {
            let (keys, calls) = (aggregate.group_expr.clone(), aggregate.aggr_expr.clone());
            Ok((Aggregate::try_new_with_schema(Arc::new(input), keys, calls, aggregate.schema.clone())?, ttl))
        }
    }
}

/// Refuses marks that nothing took out of `plan`; `tokens` are the query's, with their hints.
pub(crate) fn check_taken(plan: &LogicalPlan, tokens: &[TokenWithSpan]) -> DfResult<()> {
    let mut left = None;
    plan.apply(|node| {
        if let LogicalPlan::SubqueryAlias(alias) = node
            && let Some((name, _)) = marked(&alias.alias)
        {
            left = Some(name.to_owned());
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    let Some(name) = left else { return Ok(()) };
    let (_, blocks) = extract(tokens).map_err(carried)?;
    let at = blocks.iter().flat_map(|block| &block.lifetimes).find(|(known, _)| known.value == name);
    Err(carried(match at {
        Some((name, _)) => no_input(name),
        None => SqlError::internal(format!("the STATE_TTL of '{name}' was not used")),
    }))
}
