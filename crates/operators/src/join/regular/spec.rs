//! What is joined, and how: checked once, cheap to clone.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::compute::prep_null_mask_filter;
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::utils::collect_columns;
use ruslo_core::error::{Error, Result};
use ruslo_core::operator::SharedFactory;

use super::operator::RegularJoin;
use super::side::{LEFT, RIGHT, Side};
use crate::StateTable;
use crate::expression::{evaluate_condition, execution_error};

/// Which rows a join gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RegularJoinKind {
    /// Pairs.
    Inner,
    /// Pairs, and left rows without a partner beside NULLs.
    Left,
    /// Pairs, and right rows without a partner beside NULLs.
    Right,
    /// Pairs, and rows of either side without a partner beside NULLs.
    Full,
    /// Left rows that have a partner, alone.
    Semi,
    /// Left rows that have none, alone.
    Anti,
}

impl RegularJoinKind {
    /// Whether rows go out in pairs.
    pub(super) fn has_pairs(self) -> bool {
        !matches!(self, Self::Semi | Self::Anti)
    }

    /// Whether rows of `side` that have no partner go out.
    pub(super) fn preserves(self, side: usize) -> bool {
        match self {
            Self::Inner | Self::Semi => false,
            Self::Left | Self::Anti => side == LEFT,
            Self::Right => side == RIGHT,
            Self::Full => true,
        }
    }

    /// Whether rows of `side` go out by how many partners they have.
    pub(super) fn counts(self, side: usize) -> bool {
        self.preserves(side) || (self == Self::Semi && side == LEFT)
    }
}

/// One of the two inputs.
#[derive(Debug, Clone)]
pub struct RegularJoinInput {
    /// Its columns, without hidden ones.
    pub schema: SchemaRef,
    /// The columns that are equal to those of the other side, in the same order and of the same types. Without any, each
    /// row is beside each.
    pub keys: Vec<usize>,
    /// Whether rows only come, and never go.
    pub is_append_only: bool,
    /// Columns by which rows of one key differ, if it is known; none of them, if a key has one row at most.
    pub unique: Option<Vec<usize>>,
    /// How long after it was last written a row is forgotten; never, if none.
    pub lifetime: Option<Duration>,
}

/// A join; cheap to clone.
#[derive(Debug, Clone)]
pub struct RegularJoinSpec {
    pub(super) kind: RegularJoinKind,
    pub(super) sides: [Arc<Side>; 2],
    pub(super) condition: Option<Condition>,
    pub(super) schema: SchemaRef,
    pub(super) is_append_only: bool,
}

impl RegularJoinSpec {
    /// The left and the right of `inputs`. Keys are equal if all their columns are; NULL equals nothing, but where
    /// `null_equals` says so it equals NULL. Of rows with equal keys those are partners for which `condition`, a BOOLEAN
    /// over the columns of left and right, is true; it must have the same value every time.
    ///
    /// # Errors
    /// `Usage`, if a column has a type that cannot be a key; `Internal`, if the inputs do not fit: the planner made them.
    pub fn new(
        kind: RegularJoinKind,
        inputs: [RegularJoinInput; 2],
        null_equals: &[bool],
        condition: Option<&Arc<dyn PhysicalExpr>>,
    ) -> Result<Self> {
        check_keys(&inputs, null_equals)?;
        let schema = output_schema(kind, &inputs);
        let condition = condition.map(|expr| Condition::new(expr, &inputs)).transpose()?;
        let [left, right] = &inputs;
        let both_append = left.is_append_only && right.is_append_only;
        let is_append_only = both_append && matches!(kind, RegularJoinKind::Inner | RegularJoinKind::Semi);
        let sides = [
            Arc::new(Side::new(LEFT, left, null_equals, kind)?),
            Arc::new(Side::new(RIGHT, right, null_equals, kind)?),
        ];
        Ok(Self { kind, sides, condition, schema, is_append_only })
    }

    /// The columns that come out: those of left and right, of a semi or anti join only those of left.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// Whether rows only come out, and are never taken back.
    pub fn is_append_only(&self) -> bool {
        self.is_append_only
    }

    /// The state tables whose columns follow from this spec: those of both sides.
    pub fn state_tables(&self) -> Vec<StateTable> {
        self.sides.iter().map(|side| (side.name, side.table.rows())).collect()
    }

    /// What is kept of left and right, for people.
    pub fn kept(&self) -> [String; 2] {
        self.sides.each_ref().map(|side| side.text())
    }

    /// How left and right are kept, in words that never change: stored in checkpoints.
    pub fn layout(&self) -> [String; 2] {
        self.sides.each_ref().map(|side| side.layout())
    }

    /// Makes the operator of each subtask.
    pub fn factory(self) -> SharedFactory {
        Arc::new(move || Ok(RegularJoin::new(self.clone())))
    }
}

fn check_keys(inputs: &[RegularJoinInput; 2], null_equals: &[bool]) -> Result<()> {
    let [left, right] = inputs;
    let wrong = || Error::internal("the keys of a join do not fit each other");
    let columns_exist = |input: &RegularJoinInput| {
        let own = input.keys.iter().chain(input.unique.iter().flatten());
        own.into_iter().all(|column| *column < input.schema.fields().len())
    };
    let same_length = left.keys.len() == right.keys.len() && left.keys.len() == null_equals.len();
    if !same_length || !columns_exist(left) || !columns_exist(right) {
        return Err(wrong());
    }
    let type_of = |input: &RegularJoinInput, key: usize| input.schema.fields().get(key).map(|f| f.data_type().clone());
    let same = left.keys.iter().zip(&right.keys).all(|(l, r)| type_of(left, *l) == type_of(right, *r));
    same.then_some(()).ok_or_else(wrong)
}

fn output_schema(kind: RegularJoinKind, inputs: &[RegularJoinInput; 2]) -> SchemaRef {
    let fields_of = |(side, input): (usize, &RegularJoinInput)| {
        let is_padded = kind.preserves(1 - side);
        let relaxed = move |field: &Arc<Field>| match is_padded && !field.is_nullable() {
            true => Arc::new(field.as_ref().clone().with_nullable(true)),
            false => Arc::clone(field),
        };
        input.schema.fields().iter().map(relaxed).collect::<Vec<_>>()
    };
    let sides = if kind.has_pairs() { 2 } else { 1 };
    let fields: Vec<_> = inputs.iter().take(sides).enumerate().flat_map(fields_of).collect();
    Arc::new(Schema::new(if kind.has_pairs() { fields } else { inputs[LEFT].schema.fields().to_vec() }))
}

/// What partners must meet beside their keys.
#[derive(Debug, Clone)]
pub(super) struct Condition {
    expr: Arc<dyn PhysicalExpr>,
    /// The columns that it reads: side and place.
    pub(super) columns: Vec<(usize, usize)>,
    schema: SchemaRef,
}

impl Condition {
    /// `expr` over the columns of both inputs, over just those that it reads.
    fn new(expr: &Arc<dyn PhysicalExpr>, inputs: &[RegularJoinInput; 2]) -> Result<Self> {
        let [left, right] = inputs;
        let first_right = left.schema.fields().len();
        let mut places: Vec<usize> = collect_columns(expr).iter().map(Column::index).collect();
        places.sort_unstable();
        places.dedup();
        let (mut columns, mut fields, mut moved) = (Vec::new(), Vec::new(), HashMap::new());
        for place in places {
            let (side, input, column) = match place.checked_sub(first_right) {
                None => (LEFT, left, place),
                Some(column) => (RIGHT, right, column),
            };
            let field = input.schema.fields().get(column);
            let field = field.ok_or_else(|| Error::internal("a join's condition reads a column that is not there"))?;
            moved.insert(place, columns.len());
            columns.push((side, column));
            fields.push(Arc::new(field.as_ref().clone().with_name(format!("c{place}")).with_nullable(true)));
        }
        let expr = Arc::clone(expr).transform_down(|expr| match expr.downcast_ref::<Column>() {
            Some(column) => {
                let place = moved.get(&column.index()).copied().unwrap_or_default();
                Ok(Transformed::yes(Arc::new(Column::new(&format!("c{}", column.index()), place)) as _))
            }
            None => Ok(Transformed::no(expr)),
        });
        Ok(Self { expr: expr.map_err(execution_error)?.data, columns, schema: Arc::new(Schema::new(fields)) })
    }

    /// Which of `rows` pairs, of which it gets the columns that it reads, meet it: no value is NULL. `None` if all do.
    pub(super) fn met(&self, columns: Vec<ArrayRef>, rows: usize) -> Result<Option<BooleanArray>> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let pairs = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?;
        let met = evaluate_condition(&self.expr, &pairs)?;
        let met = if met.null_count() > 0 { prep_null_mask_filter(&met) } else { met };
        Ok((met.true_count() < rows).then_some(met))
    }
}
