//! Who wants to know what was before a change: asked from the sinks upwards, before operators are planned.
//!
//! A projection and a union pass on what they are asked for, so they ask for it if somebody asks them. Whatever
//! aggregates, joins, ranks, filters or multiplies rows has to know what goes away. A sink says so itself. An operator
//! that updates asks [`Physical::needs_before`] whether to send `-U` before `+U`: nobody pays for what nobody reads.

use std::collections::{BTreeSet, HashSet};

use datafusion::logical_expr::LogicalPlan;
use ruslo_core::graph::{NodeIndex, Partitioning};
use ruslo_core::sink::{Sink, Takes};

use crate::diagnostic::{Sql, SqlError};
use crate::physical::{Physical, Target};

/// The parts of plans of which somebody wants to know what was before.
#[derive(Debug, Default)]
pub(crate) struct Demand {
    asked: HashSet<LogicalPlan>,
}

impl Demand {
    /// Notes that who reads `plan` wants to know what was before, if `needs_before`. An equal part is planned once, so
    /// one reader that asks is enough.
    pub(crate) fn ask(&mut self, plan: &LogicalPlan, needs_before: bool) {
        if needs_before {
            self.asked.insert(plan.clone());
        }
        let passes_on =
            matches!(plan, LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) | LogicalPlan::Union(_));
        for input in plan.inputs() {
            self.ask(input, needs_before || !passes_on);
        }
    }

    /// Whether somebody who reads `plan` wants to know what was before.
    pub(crate) fn needs_before(&self, plan: &LogicalPlan) -> bool {
        self.asked.contains(plan)
    }
}

impl Physical<'_> {
    /// Whether what updates the rows of `plan` has to say what was before.
    pub(crate) fn needs_before(&self, plan: &LogicalPlan) -> bool {
        self.demand.needs_before(plan)
    }

    /// What the sinks of `flows`, and all between, ask for.
    /// `wants_before` are sinks that ask, whatever they are.
    pub(crate) fn demand_of(
        &self,
        flows: &[(&LogicalPlan, Target<'_>)],
        wants_before: &BTreeSet<String>,
    ) -> Sql<Demand> {
        let mut demand = Demand::default();
        for (plan, target) in flows {
            let needs_before = match self.takes(target)? {
                Takes::Append | Takes::Any => false,
                Takes::Retract => true,
                // By a key, the new row takes the old one's place.
                Takes::Last { key } => key.is_empty(),
            };
            let needs_before = needs_before || target.name().is_some_and(|name| wants_before.contains(name));
            demand.ask(plan, needs_before);
        }
        Ok(demand)
    }

    /// Which changes a target takes.
    pub(crate) fn takes(&self, target: &Target<'_>) -> Sql<Takes> {
        match target {
            Target::Table(table) => Ok(self.connections.sink(table, true)?.changelog()),
            Target::Result => Ok(Takes::Retract),
        }
    }

    /// Refuses rows that change where `what` takes only new ones: their event time is gone with what they were.
    pub(crate) fn must_append(&self, input: NodeIndex, what: &str) -> Sql<()> {
        let Some(culprit) = self.updates(input) else { return Ok(()) };
        let sentence = format!("{what} takes rows that are only added, but '{culprit}' below it changes its rows");
        Err(SqlError::new(sentence).help("put it below, where rows are only added"))
    }

    /// Refuses a sink that does not take what its input makes.
    pub(crate) fn check_takes(&self, input: NodeIndex, sink: &dyn Sink, target: &Target<'_>) -> Sql<()> {
        let (Some(culprit), Takes::Append) = (self.updates(input), sink.changelog()) else { return Ok(()) };
        let name = target.name().unwrap_or("result");
        let sentence = format!("the table '{name}' takes rows that are only added, but '{culprit}' changes its rows");
        let help = sink.changelog_help().unwrap_or("write into a table that takes changes, such as one of 'print'");
        Err(SqlError::new(sentence).help(help))
    }

    /// The columns by which changes of the rows of `node` are exchanged, so that those of one row keep their order.
    pub(crate) fn order_key(&self, node: NodeIndex) -> Vec<usize> {
        if let Some(key) = self.properties(node).keys().first() {
            return key.iter().copied().collect();
        }
        let schema = self.graph.nodes.get(node).map(|node| &node.schema);
        let fields = schema.into_iter().flat_map(|schema| schema.fields()).enumerate();
        fields.filter(|(_, field)| !field.data_type().is_nested()).map(|(place, _)| place).collect()
    }

    /// Has changes go by key where they leave a task although no key matters: rows that are in flight there when a checkpoint
    /// comes go to the subtask that gets those behind them, whatever the parallelism is then. Where operators get a
    /// parallelism of their own, `is_widened`, that may be anywhere.
    pub(crate) fn keep_order(&mut self, is_widened: bool) {
        for at in 0..self.graph.edges.len() {
            let Some(edge) = self.graph.edges.get(at) else { continue };
            let parts = is_widened
                || self.graph.outputs(edge.from).nth(1).is_some()
                || self.graph.inputs(edge.to).nth(1).is_some();
            if edge.partitioning != Partitioning::Forward || !parts || !self.properties(edge.from).is_updating() {
                continue;
            }
            let key = self.order_key(edge.from);
            if let Some(edge) = self.graph.edges.get_mut(at) {
                edge.partitioning = Partitioning::KeyGroup(key);
            }
        }
    }

    /// The name of what makes the rows of `node` change, if they do: of several such, the one nearest to the sources.
    fn updates(&self, node: NodeIndex) -> Option<String> {
        if !self.properties(node).is_updating() {
            return None;
        }
        let below = self.graph.inputs(node).find_map(|edge| self.updates(edge.from));
        below.or_else(|| self.graph.nodes.get(node).map(|node| node.name.clone()))
    }
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::{LogicalPlanBuilder, col, lit, table_scan};
    use datafusion::prelude::JoinType;

    use super::*;

    fn scan(name: &str) -> LogicalPlanBuilder {
        use arrow::datatypes::{DataType, Field, Schema};
        table_scan(Some(name), &Schema::new(vec![Field::new("a", DataType::Int64, true)]), None).unwrap()
    }

    /// Whether the scan is asked what was before, by a query of which it is the input, whose reader asks or not.
    fn asked(needs_before: bool, query: impl Fn(LogicalPlanBuilder) -> LogicalPlanBuilder) -> bool {
        let mut demand = Demand::default();
        demand.ask(&query(scan("t")).build().unwrap(), needs_before);
        demand.needs_before(&scan("t").build().unwrap())
    }

    #[test]
    fn what_passes_rows_on_asks_if_it_is_asked() {
        for needs_before in [false, true] {
            assert_eq!(asked(needs_before, |t| t), needs_before);
            assert_eq!(
                asked(needs_before, |t| t.project([col("a") + lit(1)]).unwrap().alias("x").unwrap()),
                needs_before
            );
            let united = |t: LogicalPlanBuilder| t.union(scan("u").build().unwrap()).unwrap();
            assert_eq!(asked(needs_before, united), needs_before);
        }
    }

    #[test]
    fn what_has_to_know_asks_by_itself() {
        assert!(asked(false, |t| t.filter(col("a").gt(lit(1))).unwrap()));
        assert!(asked(false, |t| t.aggregate([col("a")], Vec::<datafusion::prelude::Expr>::new()).unwrap()));
        let join = |t: LogicalPlanBuilder| {
            t.join(scan("u").build().unwrap(), JoinType::Inner, (vec!["t.a"], vec!["u.a"]), None).unwrap()
        };
        assert!(asked(false, join));
    }

    #[test]
    fn one_reader_of_two_is_enough() {
        let mut demand = Demand::default();
        let plan = scan("t").build().unwrap();
        demand.ask(&plan, true);
        demand.ask(&plan, false);
        assert!(demand.needs_before(&plan));
    }
}
