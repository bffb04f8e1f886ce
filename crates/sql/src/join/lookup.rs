//! The lookup join: `JOIN t FOR SYSTEM_TIME AS OF o.proctime ON o.k = t.k`.
//!
//! ```text
//! Join: o.k = t.k, mark(o.proctime)            LookupJoin: t, keys, condition
//!   orders AS o                          →       orders AS o, its computed keys
//!   t
//! ```
//!
//! The table is no input: the operator asks it. In batch mode it is joined as it is when it is read.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, DFSchemaRef, JoinType, Result as DfResult, internal_datafusion_err};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    BinaryExpr, Expr, ExprSchemable, Extension, Filter, Join, LogicalPlan, Operator, Projection,
    UserDefinedLogicalNodeCore, build_join_schema,
};
use ruslo_core::error::Result as CoreResult;
use ruslo_core::graph::{Node, NodeIndex, NodeKind};
use ruslo_core::io::IoFuture;
use ruslo_core::lookup::{Found, LookupSource};
use ruslo_operators::{LookupJoinKind, LookupJoinSpec, Reload, WholeTable};

use super::as_of::{Mark, MarkKind};
use super::{Side, key_text};
use crate::care::{Bad, Care};
use crate::catalog::{StreamTable, Table};
use crate::compiled::{compiled_column, compiled_expr};
use crate::connect::connector_name;
use crate::diagnostic::{Position, Sql, SqlError};
use crate::errors::{carried, from_datafusion};
use crate::explain::Detail;
use crate::interval::describe;
use crate::lookup_options::{Kept, TableLookup};
use crate::nodes::as_node;
use crate::physical::{Physical, arrow_schema, index_of, physical_expr};
use crate::processing_time::has_processing_time;
use crate::properties::Properties;
use crate::scan::Reading;
use crate::text::expr_text;
use crate::types::sql_name;
use crate::window::{bare_column, inputs, lineage, table_column};

/// A stream beside what a table has under its keys.
#[derive(Debug, Clone)]
pub(crate) struct LookupJoin {
    pub(crate) input: LogicalPlan,
    pub(crate) table: Arc<Table>,
    /// The table's columns that are read, and their places there.
    right: DFSchemaRef,
    read: Vec<usize>,
    /// Columns of the input, and the places in the table of those that they are equal to.
    keys: Vec<(Column, usize)>,
    /// What else must hold, over the columns of both.
    filter: Option<Expr>,
    join_type: JoinType,
    /// What the operator's id is a hash of.
    pub(crate) lineage: String,
    schema: DFSchemaRef,
}

/// Whether `mark` means a lookup: the time is when a row of the left side is read.
pub(super) fn is_lookup(join: &Join, mark: &Mark) -> bool {
    let MarkKind::SystemTime(time) = &mark.kind else { return false };
    let found = bare_column(time).and_then(|column| table_column(&join.left, column));
    found.is_some_and(|(table, name)| has_processing_time(table, &name))
}

/// The node of a marked join.
pub(super) fn lookup_join(join: &Join, mark: Mark, at: Position) -> DfResult<LogicalPlan> {
    let at = mark.at.unwrap_or(at);
    let parts = Parts::of(join, mark.rest, at)?;
    let Parts { table, keys, filter, left } = parts;
    let is_computed = !left.computed.is_empty();
    let input = left.into_plan()?;
    let lineage = lineage_of(&input, &table, join, &keys, filter.as_ref());
    let node = LookupJoin::try_new(
        input,
        LookupParts {
            table,
            right: Arc::clone(join.right.schema()),
            read: (0..join.right.schema().fields().len()).collect(),
            keys,
            filter,
        },
        (join.join_type, lineage),
    )?;
    let node = node.into_plan();
    if !is_computed {
        return Ok(node);
    }
    let own = join.schema.columns().into_iter().map(Expr::Column);
    Projection::try_new(own.collect(), Arc::new(node)).map(LogicalPlan::Projection)
}

/// The batch engine's form of a marked join: with the table as it is when it is read.
pub(super) fn in_batch(join: &Join, mark: Mark) -> DfResult<LogicalPlan> {
    let filter = conjunction(mark.rest);
    Join::try_new(
        Arc::clone(&join.left),
        Arc::clone(&join.right),
        join.on.clone(),
        filter,
        join.join_type,
        join.join_constraint,
        join.null_equality,
        join.null_aware,
    )
    .map(LogicalPlan::Join)
}

struct Parts<'a> {
    table: Arc<Table>,
    keys: Vec<(Column, usize)>,
    filter: Option<Expr>,
    left: Side<'a>,
}

impl<'a> Parts<'a> {
    fn of(join: &'a Join, rest: Vec<Expr>, at: Position) -> DfResult<Self> {
        let table = table_of(&join.right).ok_or_else(|| {
            let error = SqlError::new("a lookup join asks a table; the right side of this one is a query").at(at);
            carried(error.help("join the table itself, and filter its rows in ON or WHERE"))
        })?;
        let mut left = Side::of(&join.left, "$left");
        let (mut keys, mut others) = (Vec::new(), Vec::new());
        let on = join.on.iter().map(|(left, right)| left.clone().eq(right.clone()));
        for conjunct in on.chain(rest).flat_map(split_conjunction_owned) {
            match key_of(&conjunct, join, at)? {
                Some((of_left, place)) => keys.push((left.column(&of_left), place)),
                None => others.push(conjunct),
            }
        }
        if keys.is_empty() {
            let name = &table.name.value;
            let error = SqlError::new(format!("a lookup join needs a key: an equality of a column of '{name}'")).at(at);
            return Err(carried(error.help(format!("write ON o.key = {name}.key"))));
        }
        Ok(Self { table, keys, filter: conjunction(others), left })
    }
}

/// The table that `plan` is, under any alias.
fn table_of(plan: &LogicalPlan) -> Option<Arc<Table>> {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => table_of(&alias.input),
        LogicalPlan::TableScan(scan) if scan.filters.is_empty() && scan.projection.is_none() => {
            scan.source.downcast_ref::<StreamTable>().map(|table| table.0.clone())
        }
        _ => None,
    }
}

/// The expression of the left side and the place of the table's column that `conjunct` says are equal, if it does.
fn key_of(conjunct: &Expr, join: &Join, at: Position) -> DfResult<Option<(Expr, usize)>> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = conjunct else { return Ok(None) };
    let is_of = |expr: &Expr, schema: &DFSchema| {
        let columns = expr.column_refs();
        !columns.is_empty() && columns.iter().all(|column| schema.has_column(column))
    };
    let (of_left, of_right) = (join.left.schema(), join.right.schema());
    let (of_stream, of_table) =
        match (is_of(left, of_left) && is_of(right, of_right), is_of(right, of_left) && is_of(left, of_right)) {
            (true, _) => (left.as_ref(), right.as_ref()),
            (_, true) => (right.as_ref(), left.as_ref()),
            _ => return Ok(None),
        };
    if let Expr::Cast(cast) = of_table
        && let Some(column) = bare_column(&cast.expr)
    {
        let own = sql_name(&column_type(column, of_right)?);
        let sentence =
            format!("the key '{}' is {own}, and is compared with a {}", column.name, sql_name(cast.field.data_type()));
        let help = format!("write CAST(.. AS {own}) on the other side: a table is asked by its own values");
        return Err(carried(SqlError::new(sentence).at(at).help(help)));
    }
    let Some(column) = bare_column(of_table) else { return Ok(None) };
    let place = of_right.index_of_column(column)?;
    let is_same = of_stream.get_type(of_left)? == *of_right.field(place).data_type();
    Ok(is_same.then(|| (of_stream.clone(), place)))
}

fn column_type(column: &Column, schema: &DFSchema) -> DfResult<arrow::datatypes::DataType> {
    Ok(schema.field(schema.index_of_column(column)?).data_type().clone())
}

/// Stored for ever: docs/design/operator-ids.md.
fn lineage_of(
    input: &LogicalPlan,
    table: &Table,
    join: &Join,
    keys: &[(Column, usize)],
    filter: Option<&Expr>,
) -> String {
    let column = |place: usize| table.columns.get(place).map_or("?", |column| column.field.name().as_str());
    let keys = keys.iter().map(|(left, place)| format!("{} = {}", key_text(input, left), column(*place)));
    let keys = keys.collect::<Vec<_>>().join(", ");
    let name = |column: &Column| match join.left.schema().has_column(column) {
        true => lineage(input, column),
        false => format!("{}.{}", table.name.value, column.name),
    };
    let condition = filter.map(|filter| expr_text(filter, &name)).unwrap_or_default();
    let (kind, inputs) = (kind_text(join.join_type), inputs(input).join(", "));
    format!("lookup join {} type={kind} keys=[{keys}] if=[{condition}] inputs=[{inputs}]", table.name.value)
}

fn kind_text(join_type: JoinType) -> &'static str {
    if join_type == JoinType::Left { "left" } else { "inner" }
}

struct LookupParts {
    table: Arc<Table>,
    right: DFSchemaRef,
    read: Vec<usize>,
    keys: Vec<(Column, usize)>,
    filter: Option<Expr>,
}

impl LookupJoin {
    fn try_new(input: LogicalPlan, parts: LookupParts, (join_type, lineage): (JoinType, String)) -> DfResult<Self> {
        let LookupParts { table, right, read, keys, filter } = parts;
        let schema = Arc::new(build_join_schema(input.schema(), &right, &join_type)?);
        Ok(Self { input, table, right, read, keys, filter, join_type, lineage, schema })
    }

    fn into_plan(self) -> LogicalPlan {
        LogicalPlan::Extension(Extension { node: Arc::new(self) })
    }

    /// The same without the table's columns that nobody asks for: neither those `used` above, nor itself.
    fn reading(&self, used: &HashSet<Column>) -> DfResult<Self> {
        let own: HashSet<&Column> = self.filter.iter().flat_map(Expr::column_refs).collect();
        let is_key = |place: usize| self.keys.iter().any(|(_, key)| *key == place);
        let kept = self.read.iter().zip(self.right.columns()).zip(self.right.iter());
        let kept = kept.filter(|((place, column), _)| is_key(**place) || used.contains(column) || own.contains(column));
        let (read, fields): (Vec<usize>, Vec<_>) =
            kept.map(|((place, _), (relation, field))| (*place, (relation.cloned(), Arc::clone(field)))).unzip();
        let right = Arc::new(DFSchema::new_with_metadata(fields, Default::default())?);
        let (table, keys, filter) = (Arc::clone(&self.table), self.keys.clone(), self.filter.clone());
        let parts = LookupParts { table, right, read, keys, filter };
        Self::try_new(self.input.clone(), parts, (self.join_type, self.lineage.clone()))
    }

    /// The place of a key among the columns that are read.
    fn place_read(&self, key: usize) -> usize {
        self.read.iter().position(|place| *place == key).unwrap_or_default()
    }

    /// How many columns are the input's; the table's stand behind them.
    pub(crate) fn input_columns(&self) -> usize {
        self.input.schema().fields().len()
    }

    fn keys_text(&self) -> String {
        let name = |place: usize| Column::from(self.right.qualified_field(self.place_read(place))).flat_name();
        let keys = self.keys.iter().map(|(left, place)| format!("{} = {}", left.flat_name(), name(*place)));
        keys.collect::<Vec<_>>().join(", ")
    }

    /// Which columns of the table are read.
    fn read_text(&self) -> String {
        let names: Vec<&str> = self.right.fields().iter().map(|field| field.name().as_str()).collect();
        format!("{} ({} of {} columns)", names.join(", "), names.len(), self.table.columns.len())
    }

    /// The columns of both.
    fn both(&self) -> DfResult<DFSchema> {
        self.input.schema().join(&self.right)
    }

    fn identity(&self) -> Identity<'_> {
        Identity {
            input: &self.input,
            table: &self.table.canonical,
            lineage: &self.lineage,
            keys: &self.keys,
            filter: self.filter.as_ref(),
            schema: &self.schema,
        }
    }
}

/// What tells nodes apart.
#[derive(PartialEq, Eq, Hash)]
struct Identity<'a> {
    input: &'a LogicalPlan,
    table: &'a str,
    lineage: &'a str,
    keys: &'a [(Column, usize)],
    filter: Option<&'a Expr>,
    schema: &'a DFSchemaRef,
}

impl PartialEq for LookupJoin {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for LookupJoin {}

impl std::hash::Hash for LookupJoin {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

impl PartialOrd for LookupJoin {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for LookupJoin {
    fn name(&self) -> &str {
        "LookupJoin"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        self.keys.iter().map(|(left, _)| Expr::Column(left.clone())).collect()
    }

    // What the stream's columns say may be asked before.
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        self.right.fields().iter().map(|field| field.name().clone()).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LookupJoin: {}, {}, keys=[{}]", self.table.name.value, kind_text(self.join_type), self.keys_text())?;
        match &self.filter {
            Some(filter) => write!(f, ", if={}", expr_text(filter, &Column::flat_name)),
            None => Ok(()),
        }
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> DfResult<Self> {
        let broken = || internal_datafusion_err!("a lookup join lost its columns");
        let columns = exprs.into_iter().map(|expr| match expr {
            Expr::Column(column) => Ok(column),
            _ => Err(broken()),
        });
        let keys = columns.zip(&self.keys).map(|(column, (_, place))| Ok((column?, *place)));
        let keys = keys.collect::<DfResult<Vec<_>>>()?;
        let input = inputs.into_iter().next().filter(|_| keys.len() == self.keys.len()).ok_or_else(broken)?;
        let (table, right, filter) = (Arc::clone(&self.table), Arc::clone(&self.right), self.filter.clone());
        let read = self.read.clone();
        Self::try_new(input, LookupParts { table, right, read, keys, filter }, (self.join_type, self.lineage.clone()))
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let (schema, columns) = (self.input.schema(), self.input_columns());
        let filter = self.filter.iter().flat_map(Expr::column_refs);
        let own = self.keys.iter().map(|(left, _)| left).chain(filter);
        let own = own.filter_map(|column| schema.maybe_index_of_column(column));
        let passed = output_columns.iter().copied().filter(|place| *place < columns);
        let mut needed: Vec<usize> = passed.chain(own).collect();
        needed.sort_unstable();
        needed.dedup();
        Some(vec![needed])
    }
}

/// `plan` where each lookup join reads only the columns of its table that the projection above it uses.
pub(crate) fn prune(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let pruned = plan.transform_up(|node| match &node {
        LogicalPlan::Projection(projection) => {
            let used = projection.expr.iter().flat_map(Expr::column_refs).cloned().collect();
            let Some(input) = pruned_below(&projection.input, used)? else { return Ok(Transformed::no(node)) };
            let (exprs, schema) = (projection.expr.clone(), Arc::clone(&projection.schema));
            let made = Projection::try_new_with_schema(exprs, Arc::new(input), schema)?;
            Ok(Transformed::yes(LogicalPlan::Projection(made)))
        }
        _ => Ok(Transformed::no(node)),
    });
    pruned.map(|plan| plan.data)
}

/// The lookup join at or, behind filters, below `plan`, for who asks for `used`.
fn pruned_below(plan: &LogicalPlan, mut used: HashSet<Column>) -> DfResult<Option<LogicalPlan>> {
    if let LogicalPlan::Filter(filter) = plan {
        used.extend(filter.predicate.column_refs().into_iter().cloned());
        let Some(input) = pruned_below(&filter.input, used)? else { return Ok(None) };
        return Ok(Some(LogicalPlan::Filter(Filter::try_new(filter.predicate.clone(), Arc::new(input))?)));
    }
    as_node::<LookupJoin>(plan).map(|join| Ok(join.reading(&used)?.into_plan())).transpose()
}

/// Of the rows of another table some columns.
struct Narrow {
    source: Arc<dyn LookupSource>,
    columns: Arc<[usize]>,
    schema: SchemaRef,
}

impl Narrow {
    fn of(source: &Arc<dyn LookupSource>, columns: &[usize]) -> Self {
        let all = source.schema();
        let fields = columns.iter().filter_map(|place| all.fields().get(*place)).cloned();
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        Self { source: Arc::clone(source), columns: columns.into(), schema }
    }

    fn narrowed(columns: &[usize], found: Found) -> Found {
        let kept = columns.iter().filter_map(|place| found.columns.get(*place)).cloned();
        Found { columns: kept.collect(), requests: found.requests }
    }
}

impl LookupSource for Narrow {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn lookup(&self, keys: RecordBatch) -> IoFuture<CoreResult<Found>> {
        let (asked, columns) = (self.source.lookup(keys), Arc::clone(&self.columns));
        Box::pin(async move { Ok(Self::narrowed(&columns, asked.await?)) })
    }

    fn look(&self, keys: &RecordBatch) -> Option<CoreResult<Found>> {
        self.source.look(keys).map(|found| Ok(Self::narrowed(&self.columns, found?)))
    }

    fn is_in_memory(&self) -> bool {
        self.source.is_in_memory()
    }

    fn bytes(&self) -> u64 {
        self.source.bytes()
    }
}

/// How a table is asked, and what EXPLAIN says of it.
struct Asked {
    source: Arc<dyn LookupSource>,
    table: TableLookup,
    kept: String,
}

impl Physical<'_> {
    /// Adds the operator of a lookup join.
    pub(crate) fn lookup_join(&mut self, node: &LookupJoin) -> Sql<NodeIndex> {
        let input = self.node(&node.input)?;
        self.must_append(input, "a lookup join")?;
        let Asked { source, table, kept } = self.asked(node)?;
        let schema = node.input.schema();
        let keys = node.keys.iter().map(|(left, _)| index_of(schema, left)).collect::<Sql<Vec<_>>>()?;
        let both = node.both().map_err(|error| from_datafusion(&error, &[]))?;
        let condition = node.filter.as_ref().map(|filter| physical_expr(filter, &both)).transpose()?;
        let kind = if node.join_type == JoinType::Left { LookupJoinKind::Left } else { LookupJoinKind::Inner };
        let (name, left) = (node.table.name.value.as_str(), arrow_schema(schema));
        let options = table.options(&self.async_lookup);
        let order = match (options.is_ordered, source.is_in_memory()) {
            (_, true) => None,
            (true, false) => Some("as they came"),
            (false, false) => Some("as they are answered, between two watermarks"),
        };
        let spec = LookupJoinSpec::new((name, source), (&left, keys), kind, condition, options)?;
        let columns = node.input_columns();
        let properties = self.properties(input).joined(&Properties::default(), columns, |place| place < columns);
        let mut detail = Detail::forward(&format!("LookupJoin {name}, {}", kind_text(node.join_type)))
            .line("table", format!("{}, {kept}", connector_name(&node.table)))
            .line("reads", node.read_text())
            .line("keys", node.keys_text());
        if let Some(filter) = &node.filter {
            detail = detail.line("if", expr_text(filter, &Column::flat_name));
        }
        if let Some(order) = order {
            detail = detail.line("order", order);
        }
        detail = detail
            .line("state", "rows that wait for an answer")
            .with(properties)
            .does(does(node, &both))
            .keeps(spec.state_table());
        let (_, parallelism) = self.output(input)?;
        let added = Node {
            id: self.fresh_id(&node.lineage),
            name: detail.name.clone(),
            parallelism,
            schema: arrow_schema(&node.schema),
            kind: NodeKind::Operator(spec.with_schema(arrow_schema(&node.schema))?.factory()),
        };
        let partitioning = self.between(input, parallelism);
        Ok(self.add(added, Some((input, partitioning)), detail))
    }

    fn asked(&self, node: &LookupJoin) -> Sql<Asked> {
        let table = &node.table;
        let lookup = TableLookup::of(table)?;
        let places: Vec<usize> = node.keys.iter().map(|(_, place)| *place).collect();
        if let Some(source) = self.connections.lookup(table, &places)? {
            let kept = match lookup.kept.as_ref().map(|kept| (kept.value, kept.at)) {
                None | Some((Kept::Nothing, _)) => "asked for each batch".to_owned(),
                Some((Kept::Some, _)) => format!("asked, {} rows kept in each subtask", lookup.cache.rows_max),
                Some((Kept::All, at)) => {
                    let sentence =
                        format!("'{}' can only be asked by key, so it cannot be kept whole", table.name.value);
                    return Err(SqlError::new(sentence).at(at).help("write 'lookup.cache' = 'PARTIAL'"));
                }
            };
            return Ok(Asked { source: Arc::new(Narrow::of(&source, &node.read)), table: lookup, kept });
        }
        if let Some(kept) = lookup.kept.as_ref().filter(|kept| kept.value != Kept::All) {
            let sentence = format!("'{}' cannot be asked by key, so it is kept whole", table.name.value);
            return Err(SqlError::new(sentence).at(kept.at).help("write 'lookup.cache' = 'FULL', or nothing"));
        }
        let kept = match lookup.reload {
            Reload::WhenChanged(_) => "kept whole, read again when it changes".to_owned(),
            Reload::Every(interval) => {
                let millis = i64::try_from(interval.as_millis()).unwrap_or(i64::MAX);
                format!("kept whole, read again every {}", describe(millis))
            }
        };
        Ok(Asked { source: self.whole(node, lookup.reload)?, table: lookup, kept })
    }

    /// The table of `node`, read whole.
    fn whole(&self, node: &LookupJoin, reload: Reload) -> Sql<Arc<dyn LookupSource>> {
        let (table, keys) = (&node.table, node.keys.iter().map(|(_, place)| node.place_read(*place)).collect());
        let on_error = match Care::of(&table.options)?.bad {
            Bad::Fail => ruslo_core::dead_letter::OnError::Fail,
            Bad::Skip => ruslo_core::dead_letter::OnError::Skip,
            Bad::DeadLetter(side) => {
                return Err(SqlError::not_yet("dead letters of a table that a lookup join asks", side.at));
            }
        };
        let reading = Reading::new(table, node.read.clone(), false);
        let source = self.connections.source_of(table, reading.physical(), on_error, Vec::new())?;
        let row_time = reading.row_time(&source.schema())?;
        let whole = WholeTable::new(&table.name.value, (source, row_time), keys, reload, self.connections.environment);
        Ok(Arc::new(whole.map_err(|error| SqlError::from(error).at(table.name.at))?))
    }
}

/// What it does, for checkpoints.
fn does(node: &LookupJoin, both: &DFSchema) -> String {
    let schema = node.input.schema();
    let keys = node.keys.iter().map(|(left, place)| format!("{} {place}", compiled_column(left, schema)));
    let condition = node.filter.as_ref().map(|filter| compiled_expr(filter, both)).unwrap_or_default();
    format!("{} keys=[{}] if=[{condition}]", node.lineage, keys.collect::<Vec<_>>().join(", "))
}
