//! What is joined with what of the time before: checked once, cheap to clone.

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::physical_expr::PhysicalExpr;
use ruslo_core::error::{Error, Result};
use ruslo_core::keyed::TableSchema;
use ruslo_core::operator::SharedFactory;

use super::keys::KeyEncoder;
use super::operator::AsOfJoin;
use super::side::{LeftSide, NANOS_PER_MILLI, RightSide, VERSIONS, unit_nanos};
use crate::StateTable;

/// Which right row counts for a left one, of those with its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AsOf {
    /// The last one at its time or before.
    AtOrBefore,
    /// The last one before its time.
    Before,
}

/// One of the inputs.
#[derive(Debug, Clone)]
pub struct AsOfJoinInput {
    /// Its columns, without hidden ones.
    pub schema: SchemaRef,
    /// The places of the keys; those of both inputs have the same types. Without any, all rows have one key.
    pub keys: Vec<usize>,
    /// The place of its event time.
    pub time: usize,
}

/// A join; cheap to clone.
#[derive(Debug, Clone)]
pub struct AsOfJoinSpec {
    pub(super) as_of: AsOf,
    /// Whether left rows without a right one come out beside NULLs.
    pub(super) keeps_left: bool,
    pub(super) left: Arc<LeftSide>,
    pub(super) right: Arc<RightSide>,
    pub(super) condition: Option<Arc<dyn PhysicalExpr>>,
    /// The columns of both.
    pub(super) both: SchemaRef,
    schema: SchemaRef,
}

impl AsOfJoinSpec {
    /// Each row of the first of `inputs` beside the row of the second one that counts. `right_changes` says whether rows
    /// of the second one are changes, of which those that take away end what was valid; an additional `-U` says nothing.
    ///
    /// # Errors
    /// `Usage`, if a column has a type that cannot be a key; `Internal`, if the inputs do not fit: the planner made them.
    pub fn new(inputs: [AsOfJoinInput; 2], as_of: AsOf, keeps_left: bool, right_changes: bool) -> Result<Self> {
        check(&inputs)?;
        let [left, right] = inputs;
        let fields = left.schema.fields().iter().chain(right.schema.fields());
        let both = Arc::new(Schema::new(fields.cloned().collect::<Vec<_>>()));
        let unit = unit_nanos(&left)?.min(unit_nanos(&right)?).min(NANOS_PER_MILLI);
        let (left, right) = (LeftSide::new(left, unit)?, RightSide::new(right, unit, right_changes)?);
        KeyEncoder::new(&right.key_types())?;
        let schema = Arc::clone(&both);
        Ok(Self { as_of, keeps_left, left: Arc::new(left), right: Arc::new(right), condition: None, both, schema })
    }

    /// The same where the right row counts only if `condition` over the columns of both is true.
    #[must_use]
    pub fn on(self, condition: Arc<dyn PhysicalExpr>) -> Self {
        Self { condition: Some(condition), ..self }
    }

    /// The same with the names and nullability of `schema`, which has the same types.
    ///
    /// # Errors
    /// `Internal`, if it has others.
    pub fn with_schema(self, schema: SchemaRef) -> Result<Self> {
        let types =
            |schema: &SchemaRef| schema.fields().iter().map(|f| f.data_type().clone()).collect::<Vec<DataType>>();
        if types(&schema) != types(&self.schema) {
            return Err(Error::internal("a join has other columns than its plan says"));
        }
        Ok(Self { schema, ..self })
    }

    /// The columns that come out: those of the left, then those of the right.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// The state tables whose columns follow from this spec.
    pub fn state_tables(&self) -> Vec<StateTable> {
        vec![self.left.sort.state_table(), self.right.sort.state_table(), (VERSIONS, self.table().rows())]
    }

    pub(super) fn table(&self) -> &TableSchema {
        &self.right.table
    }

    /// Makes the operator of each subtask.
    pub fn factory(self) -> SharedFactory {
        Arc::new(move || AsOfJoin::new(self.clone()))
    }
}

fn check(inputs: &[AsOfJoinInput; 2]) -> Result<()> {
    let [left, right] = inputs;
    let type_of = |input: &AsOfJoinInput, place: usize| input.schema.fields().get(place).map(|f| f.data_type().clone());
    let has_time = |input: &AsOfJoinInput| matches!(type_of(input, input.time), Some(DataType::Timestamp(..)));
    let same = left.keys.len() == right.keys.len()
        && left.keys.iter().zip(&right.keys).all(|(l, r)| {
            let of_left = type_of(left, *l);
            of_left.is_some() && of_left == type_of(right, *r)
        });
    let fits = same && has_time(left) && has_time(right);
    fits.then_some(()).ok_or_else(|| Error::internal("the inputs of a join by time do not fit each other"))
}
