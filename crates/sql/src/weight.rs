//! How large a query becomes once its views and WITH queries are written out: text that is short may name a view twice,
//! which names another twice, and so on. Counted on the syntax tree, before anything is written out.

use std::collections::HashMap;

use datafusion::sql::sqlparser::ast::{Query, Select, SetExpr, TableFactor, TableWithJoins};

use crate::catalog::{Catalog, Relation};
use crate::diagnostic::{Sql, SqlError};
use crate::tvf::{WindowCall, WindowInput};

/// Most queries and tables that one query may be made of, its views written out.
const PARTS_MAX: usize = 2_000;
/// Most queries inside each other, views written out.
const DEPTH_MAX: usize = 200;

/// The size of a query.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Weight {
    /// Queries and tables.
    parts: usize,
    /// Queries inside each other.
    depth: usize,
}

impl Weight {
    /// Both beside each other.
    fn and(self, other: Self) -> Self {
        Self { parts: self.parts.saturating_add(other.parts), depth: self.depth.max(other.depth) }
    }

    /// One around it.
    fn inside(self) -> Self {
        Self { parts: self.parts.saturating_add(1), depth: self.depth.saturating_add(1) }
    }
}

/// The size of `query`, views of `catalog` written out.
///
/// # Errors
/// A sentence, if that is too large.
pub(crate) fn weigh(query: &Query, catalog: &Catalog, windows: &[WindowCall]) -> Sql<Weight> {
    let weight = Scale { catalog, windows, named: HashMap::new() }.query(query);
    if weight.parts > PARTS_MAX {
        let sentence = format!("the query has more than {PARTS_MAX} parts, its views and WITH queries written out");
        return Err(SqlError::new(sentence).help("write the results of some of them into a table"));
    }
    if weight.depth > DEPTH_MAX {
        let sentence = format!("queries are nested deeper than {DEPTH_MAX} levels, views written out");
        return Err(SqlError::new(sentence));
    }
    Ok(weight)
}

struct Scale<'a> {
    catalog: &'a Catalog,
    /// What stands for the windows in the query.
    windows: &'a [WindowCall],
    /// The WITH queries that were read so far.
    named: HashMap<&'a str, Weight>,
}

impl<'a> Scale<'a> {
    fn query(&mut self, query: &'a Query) -> Weight {
        for named in query.with.iter().flat_map(|with| &with.cte_tables) {
            let weight = self.query(&named.query);
            self.named.insert(&named.alias.name.value, weight);
        }
        self.body(&query.body)
    }

    fn body(&mut self, mut body: &'a SetExpr) -> Weight {
        let mut weight = Weight::default();
        // A long UNION leans to the left.
        while let SetExpr::SetOperation { left, right, .. } = body {
            weight = weight.and(self.body(right));
            body = left;
        }
        weight.and(match body {
            SetExpr::Select(select) => self.select(select),
            SetExpr::Query(query) => self.query(query).inside(),
            _ => Weight { parts: 1, depth: 1 },
        })
    }

    fn select(&mut self, select: &'a Select) -> Weight {
        let from = select.from.iter().map(|from| self.joined(from));
        from.fold(Weight::default(), Weight::and).inside()
    }

    fn joined(&mut self, from: &'a TableWithJoins) -> Weight {
        let first = self.factor(&from.relation);
        from.joins.iter().fold(first, |weight, join| weight.and(self.factor(&join.relation)).inside())
    }

    fn factor(&mut self, factor: &'a TableFactor) -> Weight {
        match factor {
            TableFactor::Table { name, .. } => match name.0.last().and_then(|name| name.as_ident()) {
                Some(name) => self.table(&name.value),
                None => Weight { parts: 1, depth: 1 },
            },
            TableFactor::Derived { subquery, .. } => self.query(subquery).inside(),
            TableFactor::NestedJoin { table_with_joins, .. } => self.joined(table_with_joins).inside(),
            _ => Weight { parts: 1, depth: 1 },
        }
    }

    fn table(&mut self, name: &str) -> Weight {
        let windows = self.windows;
        if let Some(call) = windows.iter().find(|call| call.placeholder == name) {
            return match &call.input {
                WindowInput::Table(table, _) => self.table(&table.value).inside(),
                WindowInput::Relation(relation) => self.factor(relation).inside(),
                WindowInput::Subquery(_) => Weight { parts: 1, depth: 1 },
            };
        }
        if let Some(weight) = self.named.get(name) {
            return weight.inside();
        }
        match self.catalog.get(name) {
            Ok(Relation::View(view)) => view.weight.inside(),
            _ => Weight { parts: 1, depth: 1 },
        }
    }
}
