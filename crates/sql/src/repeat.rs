//! Refuses functions that have another value each time, such as UUID(), over rows that are taken back: what is taken back
//! would not be what was said.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, Volatility};
use ruslo_core::graph::NodeIndex;

use crate::diagnostic::{Sql, SqlError};
use crate::physical::Physical;
use crate::processing_time::is_marker;
use crate::properties::Changelog;

/// The name of the first function in `expr` that has another value each time; the time at which a row was read is none.
pub(crate) fn changing_function(expr: &Expr) -> Option<String> {
    let mut found = None;
    let visited = expr.apply(|expr| match expr {
        Expr::ScalarFunction(call) if call.func.signature().volatility == Volatility::Volatile && !is_marker(expr) => {
            found = Some(call.name().to_uppercase());
            Ok(TreeNodeRecursion::Stop)
        }
        _ => Ok(TreeNodeRecursion::Continue),
    });
    visited.ok().and(found)
}

impl Physical<'_> {
    /// Refuses such functions in `exprs` over the rows of `input`, if what was before is said of them.
    pub(crate) fn must_repeat<'e>(&self, input: NodeIndex, exprs: impl IntoIterator<Item = &'e Expr>) -> Sql<()> {
        if self.properties(input).changelog() != Changelog::Retract {
            return Ok(());
        }
        let Some(name) = exprs.into_iter().find_map(changing_function) else { return Ok(()) };
        Err(volatile(&name))
    }
}

/// Says that `function` cannot be taken back.
pub(crate) fn volatile(function: &str) -> SqlError {
    let sentence = format!("{function} has another value each time, so a row that changes could not be taken back");
    SqlError::new(sentence).help("compute it below, where rows are only added")
}
