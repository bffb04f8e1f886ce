//! The compiled plan that checkpoints store: each operator in words that never change. See
//! `docs/design/compiled-plan.md`.

use arrow::datatypes::{DataType, Schema, TimeUnit};
use datafusion::common::{Column, DFSchema};
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::expr::Sort;
use ruslo_core::graph::{Graph, NodeIndex, OperatorId};
use ruslo_core::plan::{CompiledPlan, PlannedOperator};

use crate::explain::Detail;
use crate::text::expr_text;
use crate::types::sql_name;

/// The release that plans.
const RELEASE: &str = env!("CARGO_PKG_VERSION");

/// The plan of `graph`, whose nodes are described by `details`.
pub(crate) fn compiled(graph: &Graph, details: &[Detail]) -> CompiledPlan {
    let mut edges: Vec<Vec<NodeIndex>> = vec![Vec::new(); graph.nodes.len()];
    for edge in &graph.edges {
        edges.get_mut(edge.to).into_iter().for_each(|inputs| inputs.push(edge.from));
    }
    let mut operators = Vec::new();
    // What stands for each node where it is an input.
    let mut stand_ins: Vec<Vec<OperatorId>> = Vec::new();
    for ((node, detail), inputs) in graph.nodes.iter().zip(details).zip(&edges) {
        let inputs: Vec<OperatorId> =
            inputs.iter().filter_map(|from| stand_ins.get(*from)).flatten().copied().collect();
        if detail.does.is_empty() {
            // It has no part in what the rows mean: what comes to it stands for it.
            stand_ins.push(inputs);
            continue;
        }
        stand_ins.push(vec![node.id]);
        operators.push(PlannedOperator {
            id: node.id,
            name: node.name.clone(),
            inputs,
            does: detail.does.clone(),
            gives: node.schema.fields().iter().map(|field| layout(field.data_type())).collect(),
            keeps: detail.keeps.as_ref().map(|(table, schema)| ((*table).to_owned(), columns(schema))),
        });
    }
    CompiledPlan::new(RELEASE, &operators)
}

/// `expr` over the columns of `schema`.
pub(crate) fn compiled_expr(expr: &Expr, schema: &DFSchema) -> String {
    expr_text(expr, &|column| compiled_column(column, schema))
}

/// `exprs` over the columns of `schema`.
pub(crate) fn compiled_exprs<'a>(exprs: impl IntoIterator<Item = &'a Expr>, schema: &DFSchema) -> String {
    exprs.into_iter().map(|expr| compiled_expr(expr, schema)).collect::<Vec<_>>().join(", ")
}

/// A column of `schema`, by its place: names of computed columns are not ours.
pub(crate) fn compiled_column(column: &Column, schema: &DFSchema) -> String {
    match schema.maybe_index_of_column(column) {
        Some(place) => format!("@{place}"),
        None => column.name.clone(),
    }
}

/// Several of them.
pub(crate) fn compiled_columns(columns: &[Column], schema: &DFSchema) -> String {
    columns.iter().map(|column| compiled_column(column, schema)).collect::<Vec<_>>().join(", ")
}

/// An order over the columns of `schema`.
pub(crate) fn compiled_order(order: &[Sort], schema: &DFSchema) -> String {
    let order = order.iter().map(|sort| {
        let (direction, nulls) =
            (if sort.asc { "asc" } else { "desc" }, if sort.nulls_first { "first" } else { "last" });
        format!("{} {direction} nulls {nulls}", compiled_expr(&sort.expr, schema))
    });
    order.collect::<Vec<_>>().join(", ")
}

fn columns(schema: &Schema) -> Vec<String> {
    schema.fields().iter().map(|field| format!("{} {}", field.name(), layout(field.data_type()))).collect()
}

/// The types of columns, exact to Arrow's layout.
pub(crate) fn layouts(schema: &Schema) -> String {
    schema.fields().iter().map(|field| layout(field.data_type())).collect::<Vec<_>>().join(", ")
}

/// The name of a type, exact to Arrow's layout.
fn layout(data_type: &DataType) -> String {
    let digits = |unit: &TimeUnit| match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    };
    match data_type {
        DataType::UInt8 => "UTINYINT".to_owned(),
        DataType::UInt16 => "USMALLINT".to_owned(),
        DataType::UInt32 => "UINT".to_owned(),
        DataType::UInt64 => "UBIGINT".to_owned(),
        DataType::Decimal256(precision, scale) => format!("DECIMAL_256({precision}, {scale})"),
        DataType::LargeUtf8 => "STRING_LARGE".to_owned(),
        DataType::Utf8View => "STRING_VIEW".to_owned(),
        DataType::LargeBinary => "BYTES_LARGE".to_owned(),
        DataType::BinaryView => "BYTES_VIEW".to_owned(),
        DataType::FixedSizeBinary(length) => format!("BYTES({length})"),
        DataType::Time32(unit) | DataType::Time64(unit) => format!("TIME({})", digits(unit)),
        DataType::Duration(unit) => format!("DURATION({})", digits(unit)),
        DataType::Interval(unit) => format!("INTERVAL {unit:?}"),
        DataType::List(element) => format!("ARRAY<{}>", layout(element.data_type())),
        DataType::LargeList(element) => format!("ARRAY_LARGE<{}>", layout(element.data_type())),
        DataType::FixedSizeList(element, length) => format!("ARRAY<{}>({length})", layout(element.data_type())),
        DataType::Map(entries, _) => format!("MAP<{}>", layout(entries.data_type())),
        DataType::Struct(fields) => {
            let fields = fields.iter().map(|field| format!("{} {}", field.name(), layout(field.data_type())));
            format!("ROW<{}>", fields.collect::<Vec<_>>().join(", "))
        }
        DataType::Dictionary(keys, values) => format!("DICTIONARY<{}, {}>", layout(keys), layout(values)),
        other => sql_name(other),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::Field;
    use datafusion::logical_expr::{col, lit};

    use ruslo_core::environment::Environment;

    use super::*;
    use crate::connect::Connections;
    use crate::logical;
    use crate::physical::{self, Target};
    use crate::program::Program;
    use crate::script::split;
    use crate::settings::{RuntimeMode, Settings};
    use crate::statement::{Job, Parsed, parse};

    const TABLE: &str = "CREATE TABLE sale (note STRING, shop INT, price INT, at_time TIMESTAMP(3),
        WATERMARK FOR at_time AS at_time) WITH ('connector' = 'filesystem', 'path' = 'sales', 'format' = 'json')";

    /// The compiled plans of a query with and without the optimiser: one release, and another.
    fn of_two_releases(query: &str) -> [CompiledPlan; 2] {
        let (registry, environment) = (ruslo_connectors::registry(), Environment::local());
        let connections = Connections { registry: &registry, environment: &environment };
        let mut program = Program::new(connections, &[], 2, RuntimeMode::Streaming);
        program.read(TABLE).unwrap();
        let Parsed::Run(Job::Select(query)) = parse(&split(query).unwrap()[0]).unwrap() else { panic!() };
        let plan = program.query(&query).unwrap().0;
        let optimized = logical::optimize(plan.clone(), &program.planner).unwrap();
        let shape = (2, &Settings::default());
        [plan, optimized].map(|plan| {
            let (graph, details) =
                physical::graph(&[(&plan, Target::Result)], connections, &program.catalog, shape).unwrap();
            compiled(&graph, &details)
        })
    }

    #[test]
    fn state_of_a_release_with_another_optimiser_is_refused_by_operator_and_column() {
        let top = "SELECT shop, price FROM (SELECT *, ROW_NUMBER() OVER (
            PARTITION BY window_start, window_end, shop ORDER BY price) AS n
            FROM TABLE(TUMBLE(TABLE sale, DESCRIPTOR(at_time), INTERVAL '1' MINUTE))) WHERE n <= 3";
        let [plain, optimized] = of_two_releases(top);
        let error = optimized.check_resumes(&plain).unwrap_err().to_string();
        let expected =
            "of the state of 'WindowTopN shop, 3', in 'rows', column 1 was `column0 STRING` and is `column0 INT`";
        assert!(error.contains(expected), "{error}");
        assert!(plain.check_resumes(&optimized).is_err());
        for plan in [plain, optimized] {
            plan.check_resumes(&plan).unwrap();
        }
    }

    #[test]
    fn a_filter_that_goes_before_the_state_is_refused_and_one_behind_all_state_is_not() {
        let pushed = "SELECT shop, n FROM (SELECT shop, window_start, COUNT(*) AS n FROM (
            SELECT * FROM TABLE(TUMBLE(TABLE sale, DESCRIPTOR(at_time), INTERVAL '1' MINUTE))) AS w
            WHERE price > 2 GROUP BY shop, window_start, window_end)";
        let [plain, optimized] = of_two_releases(pushed);
        let error = optimized.check_resumes(&plain).unwrap_err().to_string();
        assert!(error.contains("whose rows go into 'TumbleWindow shop, 1 min'"), "{error}");
        let [plain, optimized] = of_two_releases("SELECT shop FROM (SELECT * FROM sale) WHERE price > 2");
        optimized.check_resumes(&plain).unwrap();
    }

    #[test]
    fn columns_are_told_by_place_and_types_by_layout() {
        let list = DataType::List(Arc::new(Field::new_list_field(DataType::Utf8View, true)));
        let schema = Schema::new(vec![
            Field::new("a", DataType::Int64, true),
            Field::new("b", DataType::Utf8, false),
            Field::new("c", list, true),
            Field::new("d", DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from("UTC"))), true),
        ]);
        assert_eq!(columns(&schema), ["a BIGINT", "b STRING", "c ARRAY<STRING_VIEW>", "d TIMESTAMP_LTZ(6)"]);
        let schema = DFSchema::try_from(schema).unwrap();
        assert_eq!(compiled_expr(&(col("d").is_null().and(col("a").gt(lit(1i64)))), &schema), "@3 IS NULL AND @0 > 1");
        assert_eq!(compiled_order(&[col("b").sort(false, true)], &schema), "@1 desc nulls first");
    }
}
