//! From the logical plan to one that DataFusion runs: every node of ours becomes nodes of DataFusion's, or is refused
//! by name.

use std::sync::{Arc, Mutex, PoisonError};

use datafusion::common::Result as DfResult;
use datafusion::common::tree_node::Transformed;
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::{LogicalPlan, TableScan};

use super::BatchShape;
use super::scan::{BatchTable, Letters};
use super::{sets, unnest, window};
use crate::catalog::{Catalog, StreamTable, Table};
use crate::connect::Connections;
use crate::diagnostic::{Sql, SqlError};
use crate::errors::carried;
use crate::nodes::{WindowAssign, as_node};
use crate::side;
use crate::unnest::Unnest;

/// Lowers the plans of a job, and keeps the tables that they read.
pub(super) struct Lowering<'a> {
    connections: Connections<'a>,
    catalog: &'a Catalog,
    shape: &'a BatchShape,
    tables: Mutex<Vec<Arc<BatchTable>>>,
}

impl<'a> Lowering<'a> {
    pub(super) fn new(connections: Connections<'a>, catalog: &'a Catalog, shape: &'a BatchShape) -> Self {
        Self { connections, catalog, shape, tables: Mutex::default() }
    }

    /// The tables and views of the script.
    pub(super) fn catalog(&self) -> &Catalog {
        self.catalog
    }

    /// `plan` without nodes of ours.
    pub(super) fn lower(&self, plan: LogicalPlan) -> DfResult<LogicalPlan> {
        let lowered = plan.transform_up_with_subqueries(|node| match &node {
            LogicalPlan::Aggregate(aggregate) => sets::hidden(aggregate).map(Transformed::yes),
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
        let table = Arc::new(self.table(&table.0).map_err(carried)?);
        self.tables.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&table));
        Ok(LogicalPlan::TableScan(TableScan { source: provider_as_source(table), ..scan.clone() }))
    }

    /// One reading of `table`. Of several, one gives the dead letters.
    fn table(&self, table: &Arc<Table>) -> Sql<BatchTable> {
        let (on_error, side) = side::on_error(self.catalog, table)?;
        let known = self.tables();
        let letters = known.iter().find(|other| other.name() == table.name.value).map(|other| other.letters());
        let letters = letters.unwrap_or_else(|| Arc::new(Letters::new(on_error, side)));
        let (name, id) = BatchTable::node(&table.name.value, known.len());
        let partitions = self.shape.of_operator(&name, id).or(table.parallelism).unwrap_or(self.shape.parallelism);
        BatchTable::new(table.clone(), id, self.connections, partitions, letters)
    }

    /// The tables that the lowered plans read, in the order in which they were met.
    pub(super) fn tables(&self) -> Vec<Arc<BatchTable>> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
