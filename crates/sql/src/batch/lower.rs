//! From the logical plan to one that DataFusion runs: every node of ours becomes nodes of DataFusion's, or is refused
//! by name.

use std::sync::{Arc, Mutex, PoisonError};

use datafusion::common::Result as DfResult;
use datafusion::common::tree_node::Transformed;
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::{LogicalPlan, TableScan};

use super::scan::BatchTable;
use super::{unnest, window};
use crate::catalog::StreamTable;
use crate::connect::Connections;
use crate::diagnostic::SqlError;
use crate::errors::carried;
use crate::nodes::{WindowAssign, as_node};
use crate::unnest::Unnest;

/// Lowers one plan, and keeps the tables that it reads.
pub(super) struct Lowering<'a> {
    connections: Connections<'a>,
    parallelism: usize,
    tables: Mutex<Vec<Arc<BatchTable>>>,
}

impl<'a> Lowering<'a> {
    pub(super) fn new(connections: Connections<'a>, parallelism: usize) -> Self {
        Self { connections, parallelism, tables: Mutex::default() }
    }

    /// `plan` without nodes of ours.
    pub(super) fn lower(&self, plan: LogicalPlan) -> DfResult<LogicalPlan> {
        let lowered = plan.transform_up_with_subqueries(|node| match &node {
            LogicalPlan::TableScan(scan) => self.scan(scan).map(Transformed::yes),
            LogicalPlan::Extension(extension) => match (as_node::<WindowAssign>(&node), as_node::<Unnest>(&node)) {
                (Some(assign), _) => window::lower(assign).map(Transformed::yes),
                (_, Some(node)) => unnest::lower(node).map(Transformed::yes),
                _ => {
                    Err(carried(SqlError::not_yet(format!("{} operators in batch mode", extension.node.name()), None)))
                }
            },
            _ => node.recompute_schema().map(Transformed::yes),
        });
        lowered.map(|plan| plan.data)
    }

    fn scan(&self, scan: &TableScan) -> DfResult<LogicalPlan> {
        let Some(table) = scan.source.downcast_ref::<StreamTable>() else {
            return Err(carried(SqlError::internal(format!("'{}' is no table", scan.table_name))));
        };
        let table = BatchTable::new(table.0.clone(), self.connections, self.parallelism).map_err(carried)?;
        let table = Arc::new(table);
        self.tables.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&table));
        Ok(LogicalPlan::TableScan(TableScan { source: provider_as_source(table), ..scan.clone() }))
    }

    /// The tables that the lowered plan reads, in the order in which they were met.
    pub(super) fn tables(&self) -> Vec<Arc<BatchTable>> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
