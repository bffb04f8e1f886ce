//! Source nodes: only the columns that the query needs, then computed columns, event time and watermark.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::{Expr, TableScan, ident, lit};
use ruslo_core::connector::Bound;
use ruslo_core::graph::{Node, NodeIndex, NodeKind, SourceNode};
use ruslo_core::operator::Port;
use ruslo_core::source::RowTime;
use ruslo_operators::{NamedExpr, ProcessingTimeColumns, RowTimeAssigner, WatermarkSpec};

use crate::care::{Bad, Care, Late};
use crate::catalog::{Column, StreamTable, Table, TableWatermark};
use crate::connect::{connector_name, rows_per_second};
use crate::diagnostic::{Sql, SqlError};
use crate::errors::from_datafusion;
use crate::explain::{Detail, SOURCE_STATE, shown_expr};
use crate::interval::describe;
use crate::physical::{Physical, physical_expr};
use crate::processing_time::is_processing_time;
use crate::properties::{Properties, Time};
use crate::pushed;
use crate::repeat::{changing_function, volatile};
use crate::side::{self, Aside};
use crate::types::UTC;

/// What is read of a table and what is made of it.
pub(crate) struct Reading<'a> {
    table: &'a Table,
    /// The columns that the query wants, by place in the table.
    wanted: Vec<usize>,
    /// Those, and behind them what only the watermark needs.
    made: Vec<usize>,
    /// What the connector gives, by place among the physical columns.
    physical: Vec<usize>,
    watermark: Option<&'a TableWatermark>,
    /// Whether some window is of processing time.
    is_driven_by_clock: bool,
}

impl Physical<'_> {
    /// Adds the source that `scan` reads.
    pub(crate) fn scan(&mut self, scan: &TableScan) -> Sql<NodeIndex> {
        let table = scan.source.downcast_ref::<StreamTable>().map(|table| table.0.clone());
        let table = table.ok_or_else(|| SqlError::internal(format!("'{}' is no table", scan.table_name)))?;
        let wanted = scan.projection.clone().unwrap_or_else(|| (0..table.columns.len()).collect());
        let is_driven = self.driven_by_clock.contains(&table.name.value);
        let reading = Reading::new(&table, wanted, self.needs_time && !is_driven).driven_by_clock(is_driven);
        self.check_late(&table)?;
        let (on_error, dead_letters) = side::on_error(self.catalog, &table)?;
        let wanted = if on_error.fails() { reading.bounds(&scan.filters) } else { Vec::new() };
        let source = self.connections.source_of(&table, &reading.physical, on_error.clone(), wanted)?;
        let tells_changes = source.tells_changes();
        let row_time = reading.row_time(&source.schema())?;
        let rows_per_second = rows_per_second(&table, source.as_ref())?;
        let schema = row_time.as_ref().map_or_else(|| source.schema(), |row_time| row_time.schema());
        let name = format!("Source {}", table.name.value);
        let node = Node {
            id: self.fresh_id(&name.replacen("Source", "source", 1)),
            name,
            parallelism: table.parallelism.unwrap_or(self.parallelism),
            schema,
            kind: NodeKind::Source(SourceNode { source, row_time, rows_per_second, on_error }),
        };
        let mut detail = reading.detail()?;
        if tells_changes {
            let computed = reading.made.iter().filter_map(|place| table.columns.get(*place)?.computed.as_ref());
            if let Some(function) = computed.into_iter().find_map(changing_function) {
                return Err(volatile(&function).help("leave the column out of the table whose rows change"));
            }
            detail.properties = detail.properties.with_changes(reading.primary_key());
        }
        let index = self.add(node, None, detail);
        let letters = dead_letters.map(|table| Aside { from: index, port: Port::DEAD_LETTER, table });
        self.asides.extend(letters);
        if table.parallelism.is_some() {
            self.is_hinted(index);
        }
        if reading.made.len() == reading.wanted.len() {
            return Ok(index);
        }
        let exprs: Vec<Expr> = scan.projected_schema.columns().into_iter().map(|column| ident(column.name)).collect();
        let made = DFSchema::try_from(reading.made_schema()).map_err(|error| from_datafusion(&error, &[]))?;
        self.add_projection(index, &exprs, &made)
    }
}

impl<'a> Reading<'a> {
    pub(crate) fn new(table: &'a Table, wanted: Vec<usize>, needs_time: bool) -> Self {
        let watermark = table.watermark.as_ref().filter(|_| needs_time);
        let mut made = wanted.clone();
        if let Some(watermark) = watermark {
            let names = names_in(&watermark.expr).into_iter().chain([watermark.column.clone()]);
            for place in names.filter_map(|name| place_of(table, &name)).collect::<BTreeSet<_>>() {
                if !made.contains(&place) {
                    made.push(place);
                }
            }
        }
        let physical = physical_places(table, &made);
        Self { table, wanted, made, physical, watermark, is_driven_by_clock: false }
    }

    /// The same, with watermarks that the clock makes.
    fn driven_by_clock(self, is_driven_by_clock: bool) -> Self {
        Self { is_driven_by_clock, ..self }
    }

    /// What the connector gives, by place among the physical columns.
    pub(crate) fn physical(&self) -> &[usize] {
        &self.physical
    }

    /// What the connector is told of the query's filters: nothing, if rows that are not wanted do something all the same.
    pub(crate) fn bounds(&self, filters: &[Expr]) -> Vec<Bound> {
        let mut columns = self.made.iter().filter_map(|place| self.table.columns.get(*place));
        let has_effects = columns.any(|column| column.computed.is_some());
        if self.watermark.is_some() || self.is_driven_by_clock || has_effects {
            return Vec::new();
        }
        filters.iter().filter_map(|filter| pushed::bound(filter, self.table)).collect()
    }

    /// The columns that come out, as the table declares them.
    pub(crate) fn made_schema(&self) -> Schema {
        let columns = self.made.iter().filter_map(|place| self.table.columns.get(*place));
        Schema::new(columns.map(|column| column.field.clone()).collect::<Vec<_>>())
    }

    /// Computed columns and watermark, if there is one or the other; the reader gives `reader`.
    pub(crate) fn row_time(&self, reader: &Arc<Schema>) -> Sql<Option<Arc<dyn RowTime>>> {
        let input = DFSchema::try_from(reader.as_ref().clone()).map_err(|error| from_datafusion(&error, &[]))?;
        let columns = self.columns(&input)?;
        let columns = (!self.is_as_read(reader)).then_some(columns);
        if columns.is_none() && self.watermark.is_none() {
            return Ok(None);
        }
        let watermark = self.watermark.map(|watermark| self.watermark_spec(watermark)).transpose()?;
        let mut assigner = RowTimeAssigner::new(reader.clone(), columns, watermark)?;
        let care = Care::of(&self.table.options)?;
        if let Late::Keep(lateness_ms) = care.late {
            assigner = assigner.allow_lateness(lateness_ms);
        }
        if let Some(max_ahead_ms) = care.max_ahead_ms {
            assigner = assigner.limit_ahead(max_ahead_ms);
        }
        let times = self.processing_times();
        if times.is_empty() {
            return Ok(Some(Arc::new(assigner)));
        }
        Ok(Some(Arc::new(ProcessingTimeColumns::new(Arc::new(assigner), times, self.is_driven_by_clock)?)))
    }

    /// Which of the columns that come out are processing time.
    fn processing_times(&self) -> Vec<usize> {
        let made = self.made.iter().filter_map(|place| self.table.columns.get(*place));
        made.enumerate().filter(|(_, column)| is_processing_time(column)).map(|(place, _)| place).collect()
    }

    /// Whether the reader's columns are the table's already.
    fn is_as_read(&self, reader: &Schema) -> bool {
        let made = self.made.iter().filter_map(|place| self.table.columns.get(*place));
        made.clone().all(|column| column.computed.is_none())
            && made.map(|column| column.field.name()).eq(reader.fields().iter().map(|field| field.name()))
    }

    fn columns(&self, input: &DFSchema) -> Sql<Vec<NamedExpr>> {
        let columns = self.made.iter().filter_map(|place| self.table.columns.get(*place));
        let named = columns.map(|column| {
            let expr = match &column.computed {
                // Made when the row is read; until then it is any time.
                Some(_) if is_processing_time(column) => {
                    lit(ScalarValue::TimestampMillisecond(Some(0), Some(Arc::from(UTC))))
                }
                Some(expr) => expr.clone(),
                None => ident(column.field.name()),
            };
            let field: &Field = &column.field;
            Ok(NamedExpr { expr: physical_expr(&expr, input)?, field: Arc::new(field.clone()) })
        });
        named.collect()
    }

    fn watermark_spec(&self, watermark: &TableWatermark) -> Sql<WatermarkSpec> {
        let made = DFSchema::try_from(self.made_schema()).map_err(|error| from_datafusion(&error, &[]))?;
        let time = made.fields().iter().position(|field| *field.name() == watermark.column);
        let time_column = time.ok_or_else(|| SqlError::internal("a source lost its time column"))?;
        Ok(WatermarkSpec { time_column, expression: physical_expr(&watermark.expr, &made)? })
    }

    /// What is known of the rows that come out.
    fn properties(&self) -> Properties {
        let clock = if self.is_driven_by_clock { Time::Processing } else { Time::Event };
        let event_time = self.table.watermark.as_ref().filter(|_| !self.is_driven_by_clock);
        let is_event_time =
            |column: &Column| event_time.is_some_and(|watermark| watermark.column == *column.field.name());
        let made = self.made.iter().filter_map(|place| self.table.columns.get(*place)).enumerate();
        let times = made.filter_map(|(place, column)| match is_processing_time(column) {
            true => Some((place, Time::Processing)),
            false => is_event_time(column).then_some((place, Time::Event)),
        });
        Properties::source(clock, times.collect::<BTreeMap<_, _>>())
    }

    /// The primary key among the columns that come out, if there is one and all of it does.
    fn primary_key(&self) -> Option<BTreeSet<usize>> {
        let made = self.made_schema();
        let places = self.table.primary_key.iter().map(|name| made.index_of(name).ok());
        places.collect::<Option<BTreeSet<_>>>().filter(|places| !places.is_empty())
    }

    /// What it does, for checkpoints.
    fn compiled(&self) -> String {
        let made = self.made.iter().filter_map(|place| self.table.columns.get(*place));
        let names: Vec<&str> = made.map(|column| column.field.name().as_str()).collect();
        format!("source {} columns=[{}]", self.table.name.value, names.join(", "))
    }

    fn detail(&self) -> Sql<Detail> {
        let physical = self.table.physical_schema();
        let names = self.physical.iter().filter_map(|place| physical.fields().get(*place));
        let names: Vec<&str> = names.map(|field| field.name().as_str()).collect();
        let reads = format!("{} ({} of {} columns)", names.join(", "), names.len(), physical.fields().len());
        let mut detail = Detail::new(&format!("Source {}", self.table.name.value), "")
            .line("connector", connector_name(self.table))
            .line("reads", reads)
            .with(self.properties())
            .does(self.compiled());
        let made = self.made.iter().filter_map(|place| self.table.columns.get(*place));
        for column in made {
            if let Some(expr) = &column.computed {
                detail = detail.line("computes", format!("{} AS {}", column.field.name(), shown_expr(expr)));
            }
        }
        if !self.table.primary_key.is_empty() {
            detail = detail.line("primary key", format!("{} (not enforced)", self.table.primary_key.join(", ")));
        }
        let care = Care::of(&self.table.options)?;
        match &care.bad {
            Bad::Fail => {}
            Bad::Skip => detail = detail.line("bad records", "skipped"),
            Bad::DeadLetter(table) => detail = detail.line("bad records", format!("to '{}'", table.value)),
        }
        if self.is_driven_by_clock {
            return Ok(detail.line("watermark", "by the clock").line("state", SOURCE_STATE));
        }
        let Some(watermark) = self.watermark else { return Ok(detail.line("state", SOURCE_STATE)) };
        let mut time = watermark.text.clone();
        if let Late::Keep(lateness_ms) = care.late {
            time.push_str(&format!(", {} later", describe(lateness_ms)));
        }
        if let Some(max_ahead_ms) = care.max_ahead_ms {
            time.push_str(&format!(", at most {} ahead of the clock", describe(max_ahead_ms)));
        }
        Ok(detail.line("watermark", time).line("state", SOURCE_STATE))
    }
}

fn names_in(expr: &Expr) -> BTreeSet<String> {
    expr.column_refs().into_iter().map(|column| column.name.clone()).collect()
}

fn place_of(table: &Table, name: &str) -> Option<usize> {
    table.columns.iter().position(|column| column.field.name() == name)
}

/// The physical columns from which the columns `made` are made; one at least, so that rows can be counted.
fn physical_places(table: &Table, made: &[usize]) -> Vec<usize> {
    let mut names = BTreeSet::new();
    for column in made.iter().filter_map(|place| table.columns.get(*place)) {
        match &column.computed {
            Some(expr) => names.extend(names_in(expr)),
            None => drop(names.insert(column.field.name().clone())),
        }
    }
    let physical = table.physical_schema();
    let places = physical.fields().iter().enumerate().filter(|(_, field)| names.contains(field.name()));
    let places: Vec<usize> = places.map(|(place, _)| place).collect();
    if places.is_empty() { cheapest(&physical).into_iter().collect() } else { places }
}

/// The column that costs least to read.
fn cheapest(schema: &Schema) -> Option<usize> {
    let cost = |data_type: &DataType| data_type.primitive_width().unwrap_or(usize::MAX);
    let fields = schema.fields().iter().enumerate();
    fields.min_by_key(|(place, field)| (cost(field.data_type()), *place)).map(|(place, _)| place)
}
