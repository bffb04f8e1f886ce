//! Plans that read the same tables read them once: the scans of a table become equal, over all columns that one of them
//! wants, and each narrows its rows right above. [`crate::physical`] plans equal parts once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, Result as DfResult};
use datafusion::logical_expr::{Expr, LogicalPlan, Projection, TableScan, TableScanBuilder};

use crate::window::bare_column;

/// What is read of each table; none is all of its columns.
type Wanted = BTreeMap<String, Of>;

/// What is read of a table.
struct Of {
    places: Option<BTreeSet<usize>>,
    /// How many scans there are.
    scans: usize,
}

/// `plans` with one scan for each table.
pub(crate) fn share_scans(plans: Vec<LogicalPlan>) -> DfResult<Vec<LogicalPlan>> {
    share_scans_of(plans, |_| true)
}

/// The same for the tables whose scans `is_shared` says.
pub(crate) fn share_scans_of(
    plans: Vec<LogicalPlan>,
    is_shared: impl Fn(&TableScan) -> bool,
) -> DfResult<Vec<LogicalPlan>> {
    let mut wanted = Wanted::new();
    for plan in &plans {
        plan.apply(|node| {
            if let LogicalPlan::TableScan(scan) = node
                && is_shared(scan)
            {
                want(&mut wanted, scan);
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
    }
    plans.into_iter().map(|plan| widen(plan, &wanted)).collect()
}

fn want(wanted: &mut Wanted, scan: &TableScan) {
    let places = scan.projection.as_ref().map(|places| places.iter().copied().collect::<BTreeSet<_>>());
    let name = scan.table_name.to_string();
    let Some(of) = wanted.get_mut(&name) else {
        wanted.insert(name, Of { places, scans: 1 });
        return;
    };
    of.scans = of.scans.saturating_add(1);
    match (&mut of.places, places) {
        (Some(all), Some(places)) => all.extend(places),
        (all, _) => *all = None,
    }
}

fn widen(plan: LogicalPlan, wanted: &Wanted) -> DfResult<LogicalPlan> {
    let widened = plan.transform_up(|node| match node {
        LogicalPlan::TableScan(scan) => wide(scan, wanted),
        LogicalPlan::Projection(projection) => without_narrowing(projection),
        other => Ok(Transformed::no(other)),
    });
    widened.map(|plan| plan.data)
}

/// The scan over all that is wanted of its table, and a projection to what it wants itself.
fn wide(scan: TableScan, wanted: &Wanted) -> DfResult<Transformed<LogicalPlan>> {
    let Some(of) = wanted.get(&scan.table_name.to_string()) else {
        return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
    };
    let all = of.places.clone().map(|places| places.into_iter().collect::<Vec<_>>());
    let is_shared = of.scans > 1;
    // One of them does not want what another one does.
    let scan = if is_shared { TableScan { filters: Vec::new(), ..scan } } else { scan };
    if scan.projection == all && is_shared {
        return Ok(Transformed::yes(LogicalPlan::TableScan(scan)));
    }
    if scan.projection == all {
        return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
    }
    let own: Vec<Expr> = scan.projected_schema.columns().into_iter().map(Expr::Column).collect();
    let wide = TableScanBuilder::from(scan).with_projection(all).build()?;
    let narrow = Projection::try_new(own, Arc::new(LogicalPlan::TableScan(wide)))?;
    Ok(Transformed::yes(LogicalPlan::Projection(narrow)))
}

/// A projection over one that only leaves columns of a table out takes what it needs from the table itself.
fn without_narrowing(projection: Projection) -> DfResult<Transformed<LogicalPlan>> {
    let LogicalPlan::Projection(below) = projection.input.as_ref() else {
        return Ok(Transformed::no(LogicalPlan::Projection(projection)));
    };
    let is_narrowing = matches!(below.input.as_ref(), LogicalPlan::TableScan(_))
        && below.expr.iter().zip(below.schema.columns()).all(|(expr, column)| is_same(expr, &column));
    if !is_narrowing {
        return Ok(Transformed::no(LogicalPlan::Projection(projection)));
    }
    let made = Projection::try_new_with_schema(projection.expr, below.input.clone(), projection.schema)?;
    Ok(Transformed::yes(LogicalPlan::Projection(made)))
}

fn is_same(expr: &Expr, column: &Column) -> bool {
    matches!(expr, Expr::Column(_)) && bare_column(expr) == Some(column)
}
