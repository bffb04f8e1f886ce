//! Unnest: a row for each element of an array or entry of a map, beside the columns of the row that had it.
//!
//! One batch may hold far more elements than rows. So a call emits at most [`OperatorContext::batch_rows`] of them and
//! keeps its place in the batch; a barrier that comes in between lets the rest of the batch out first, in pieces of the
//! same size, so that there is nothing to store.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, OffsetSizeTrait, StructArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::physical_expr::PhysicalExpr;
use ruslo_core::epoch::Epoch;
use ruslo_core::error::{Error, Result};
use ruslo_core::memory::batch_bytes;
use ruslo_core::operator::{InputId, Operator, OperatorContext, Output, Progress, SharedFactory};
use ruslo_core::schema::carry_hidden;

use crate::expression::{evaluate, execution_error};

/// What an unnest makes of its input; cheap to clone.
#[derive(Debug, Clone)]
pub struct UnnestSpec {
    collection: Arc<dyn PhysicalExpr>,
    /// The columns that stay, by place in the input.
    kept: Arc<[usize]>,
    schema: SchemaRef,
    with_ordinality: bool,
    keeps_empty: bool,
}

/// What an unnest does beside the elements.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct UnnestOptions {
    /// WITH ORDINALITY: the element's place behind it, an INT from 1.
    pub with_ordinality: bool,
    /// LEFT JOIN: a row without elements stays, with NULL for the element.
    pub keeps_empty: bool,
}

/// The columns that an element of `collection` becomes: the fields of a ROW, the key and value of a map, or the element
/// itself. None, if it is no collection.
pub fn element_fields(collection: &DataType) -> Option<Fields> {
    match collection {
        DataType::List(element) | DataType::LargeList(element) => Some(match element.data_type() {
            DataType::Struct(fields) => fields.iter().map(nullable).collect(),
            other => [Arc::new(Field::new("EXPR$0", other.clone(), true))].into_iter().collect(),
        }),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) => {
                let named = fields.iter().zip(["KEY", "VALUE"]);
                Some(named.map(|(field, name)| Field::new(name, field.data_type().clone(), true)).collect())
            }
            _ => None,
        },
        _ => None,
    }
}

fn nullable(field: &FieldRef) -> FieldRef {
    Arc::new(field.as_ref().clone().with_nullable(true))
}

impl UnnestSpec {
    /// The elements of `collection`, an expression over `input`, behind the columns `kept`.
    ///
    /// # Errors
    /// `Internal`, if `collection` is no array or map, or a column is missing: the planner made all of them.
    pub fn new(
        input: &Schema,
        collection: Arc<dyn PhysicalExpr>,
        kept: &[usize],
        options: UnnestOptions,
    ) -> Result<Self> {
        let data_type = collection.data_type(input).map_err(execution_error)?;
        let elements = element_fields(&data_type)
            .ok_or_else(|| Error::internal(format!("{data_type} is no collection that UNNEST can take")))?;
        let mut fields = input.project(kept)?.fields().to_vec();
        fields.extend(elements.iter().cloned());
        if options.with_ordinality {
            fields.push(Arc::new(Field::new("ORDINALITY", DataType::Int32, options.keeps_empty)));
        }
        let schema = Arc::new(Schema::new(fields));
        let UnnestOptions { with_ordinality, keeps_empty } = options;
        Ok(Self { collection, kept: kept.into(), schema, with_ordinality, keeps_empty })
    }

    /// The columns that come out, without hidden ones.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// The same with other names for its columns, in order.
    ///
    /// # Errors
    /// `Internal`, if `schema` has other types.
    pub fn with_schema(self, schema: SchemaRef) -> Result<Self> {
        let types = |schema: &SchemaRef| -> Vec<DataType> {
            schema.fields().iter().map(|field| field.data_type().clone()).collect()
        };
        if types(&schema) != types(&self.schema) {
            return Err(Error::internal(format!("an unnest gives {}, not {schema}", self.schema)));
        }
        Ok(Self { schema, ..self })
    }

    /// Makes the operator of each subtask.
    pub fn factory(self) -> SharedFactory {
        Arc::new(move || Ok(Unnest { spec: self.clone(), pending: None }))
    }
}

struct Unnest {
    spec: UnnestSpec,
    pending: Option<Pending>,
}

/// A batch whose elements were not all emitted yet.
struct Pending {
    batch: RecordBatch,
    elements: Elements,
    row: usize,
    /// The next element of `row`, from 0.
    element: usize,
}

/// The elements of a batch's collections: where each row's begin and end among the values.
struct Elements {
    ranges: Vec<(usize, usize)>,
    /// One array a column.
    values: Vec<ArrayRef>,
}

impl Elements {
    fn of(collection: &ArrayRef) -> Result<Self> {
        let broken = || Error::internal(format!("UNNEST over {}", collection.data_type()));
        let (ranges, values) = match collection.data_type() {
            DataType::List(_) => {
                let list = collection.as_list::<i32>();
                (ranges(list, list.value_offsets()), list.values().clone())
            }
            DataType::LargeList(_) => {
                let list = collection.as_list::<i64>();
                (ranges(list, list.value_offsets()), list.values().clone())
            }
            DataType::Map(..) => {
                let map = collection.as_map();
                (ranges(map, map.value_offsets()), Arc::new(map.entries().clone()) as ArrayRef)
            }
            _ => return Err(broken()),
        };
        let values = match values.as_struct_opt() {
            Some(rows) => flattened(rows)?,
            None => vec![values],
        };
        Ok(Self { ranges, values })
    }
}

/// Where the elements of each row are; a NULL collection has none.
fn ranges<O: OffsetSizeTrait>(array: &dyn Array, offsets: &[O]) -> Vec<(usize, usize)> {
    let pairs = offsets.iter().zip(offsets.iter().skip(1)).enumerate();
    let range = |(row, (start, end)): (usize, (&O, &O))| {
        let start = start.as_usize();
        if array.is_null(row) { (start, start) } else { (start, end.as_usize()) }
    };
    pairs.map(range).collect()
}

/// The fields of rows as columns; a field of a NULL row is NULL.
fn flattened(rows: &StructArray) -> Result<Vec<ArrayRef>> {
    let Some(nulls) = rows.nulls().filter(|nulls| nulls.null_count() > 0) else { return Ok(rows.columns().to_vec()) };
    let valid = arrow::array::BooleanArray::new(nulls.inner().clone(), None);
    let missing = arrow::compute::not(&valid)?;
    rows.columns().iter().map(|column| Ok(arrow::compute::nullif(column, &missing)?)).collect()
}

/// Which rows and elements a piece of output is made of.
#[derive(Default)]
struct Piece {
    rows: Vec<u32>,
    /// None where a row without elements stays.
    values: Vec<Option<u32>>,
    places: Vec<Option<i32>>,
}

impl Pending {
    /// The next piece of `rows_max` rows at most.
    fn next_piece(&mut self, rows_max: usize, keeps_empty: bool) -> Piece {
        let mut piece = Piece::default();
        while let Some((start, end)) = self.elements.ranges.get(self.row).copied() {
            let room = rows_max.saturating_sub(piece.rows.len());
            if room == 0 {
                break;
            }
            if start == end && keeps_empty {
                piece.rows.push(self.row as u32);
                piece.values.push(None);
                piece.places.push(None);
            }
            let count = (end - start - self.element).min(room);
            piece.rows.extend(std::iter::repeat_n(self.row as u32, count));
            let first = start + self.element;
            piece.values.extend((first..first + count).map(|value| Some(value as u32)));
            piece.places.extend((self.element..self.element + count).map(|place| Some(place as i32 + 1)));
            self.element += count;
            if start + self.element == end {
                self.row += 1;
                self.element = 0;
            }
        }
        piece
    }

    fn is_done(&self) -> bool {
        self.row >= self.elements.ranges.len()
    }
}

impl Unnest {
    /// Emits one piece of what is pending.
    fn emit_piece(&mut self, rows_max: usize, out: &mut Output) -> Result<Progress> {
        let Some(pending) = &mut self.pending else { return Ok(Progress::Done) };
        let piece = pending.next_piece(rows_max, self.spec.keeps_empty);
        if !piece.rows.is_empty() {
            out.emit(self.spec.rows(pending, piece)?);
        }
        if pending.is_done() {
            self.pending = None;
            return Ok(Progress::Done);
        }
        Ok(Progress::More)
    }

    fn account(&self, ctx: &mut OperatorContext<'_>) -> Result<()> {
        let bytes = self.pending.as_ref().map_or(0, |pending| batch_bytes(&pending.batch));
        ctx.memory.resize(bytes as u64)
    }
}

impl UnnestSpec {
    fn rows(&self, pending: &Pending, piece: Piece) -> Result<RecordBatch> {
        let rows = UInt32Array::from(piece.rows);
        let repeated = repeat_rows(&pending.batch, &rows)?;
        let visible = self.kept.iter().filter_map(|place| repeated.columns().get(*place).cloned());
        let mut columns: Vec<ArrayRef> = visible.collect();
        let chosen = UInt32Array::from(piece.values);
        for values in &pending.elements.values {
            columns.push(take(values, &chosen, None)?);
        }
        if self.with_ordinality {
            columns.push(Arc::new(Int32Array::from(piece.places)));
        }
        carry_hidden(&repeated, &self.schema, columns)
    }

    /// The input with only the columns that stay in their places; the others are not worth repeating.
    fn stripped(&self, batch: RecordBatch) -> Result<RecordBatch> {
        let is_kept = |place: usize| self.kept.contains(&place);
        let first_hidden = ruslo_core::schema::visible_columns(&batch);
        let rows = batch.num_rows();
        let columns = batch.columns().iter().enumerate().map(|(place, column)| {
            if is_kept(place) || place >= first_hidden {
                column.clone()
            } else {
                arrow::array::new_null_array(&DataType::Null, rows)
            }
        });
        let columns: Vec<ArrayRef> = columns.collect();
        let fields = batch.schema_ref().fields().iter().zip(&columns);
        let fields: Vec<Field> = fields
            .map(|(field, column)| {
                let is_void = *column.data_type() == DataType::Null;
                Field::new(field.name(), column.data_type().clone(), is_void || field.is_nullable())
            })
            .collect();
        let options = arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?)
    }
}

fn repeat_rows(batch: &RecordBatch, rows: &UInt32Array) -> Result<RecordBatch> {
    let columns = batch.columns().iter().map(|column| take(column, rows, None));
    let columns = columns.collect::<std::result::Result<Vec<_>, _>>()?;
    let options = arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(rows.len()));
    Ok(RecordBatch::try_new_with_options(batch.schema(), columns, &options)?)
}

impl Operator for Unnest {
    fn on_batch(
        &mut self,
        _input: InputId,
        batch: RecordBatch,
        ctx: &mut OperatorContext<'_>,
        out: &mut Output,
    ) -> Result<Progress> {
        let elements = Elements::of(&evaluate(&self.spec.collection, &batch)?)?;
        let batch = self.spec.stripped(batch)?;
        self.pending = Some(Pending { batch, elements, row: 0, element: 0 });
        self.resume(ctx, out)
    }

    fn resume(&mut self, ctx: &mut OperatorContext<'_>, out: &mut Output) -> Result<Progress> {
        let progress = self.emit_piece(ctx.batch_rows.max(1), out)?;
        self.account(ctx)?;
        Ok(progress)
    }

    fn snapshot(&mut self, _epoch: Epoch, ctx: &mut OperatorContext<'_>, out: &mut Output) -> Result<()> {
        while self.emit_piece(ctx.batch_rows.max(1), out)? == Progress::More {}
        self.account(ctx)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, ListArray, MapBuilder, StringBuilder};
    use arrow::datatypes::Int32Type;
    use arrow::util::pretty::pretty_format_batches;
    use datafusion::physical_expr::expressions::col;
    use ruslo_core::schema::{split_watermarks, visible, with_split_watermarks};

    use super::*;
    use crate::testing::{TestContext, run_batch};

    /// Four rows: two elements (one of them NULL), NULL, none, three elements.
    fn lists() -> RecordBatch {
        let lists = ListArray::from_iter_primitive::<Int32Type, _, _>([
            Some(vec![Some(1), None]),
            None,
            Some(vec![]),
            Some(vec![Some(4), Some(5), Some(6)]),
        ]);
        RecordBatch::try_from_iter([
            ("id", Arc::new(Int64Array::from(vec![10, 20, 30, 40])) as ArrayRef),
            ("list", Arc::new(lists) as ArrayRef),
        ])
        .unwrap()
    }

    fn spec(batch: &RecordBatch, options: UnnestOptions) -> UnnestSpec {
        let schema = batch.schema();
        UnnestSpec::new(&schema, col("list", &schema).unwrap(), &[0], options).unwrap()
    }

    fn cells(batches: &[RecordBatch]) -> Vec<String> {
        let shown: Vec<RecordBatch> = batches.iter().map(visible).collect();
        let table = pretty_format_batches(&shown).unwrap().to_string();
        let rows = table.lines().filter(|line| line.starts_with('|')).skip(1);
        let inside = |line: String| line.strip_prefix('|').and_then(|rest| rest.strip_suffix('|')).unwrap().to_owned();
        rows.map(|line| inside(line.replace(' ', ""))).collect()
    }

    fn run(batch: RecordBatch, options: UnnestOptions, rows: usize) -> Vec<RecordBatch> {
        let mut operator = spec(&batch, options).factory().create().unwrap();
        let mut test = TestContext::new();
        test.batch_rows = rows;
        let made = run_batch(operator.as_mut(), batch, &mut test).unwrap();
        assert!(made.iter().all(|batch| batch.num_rows() <= rows));
        made
    }

    #[test]
    fn each_element_is_a_row_whatever_the_size_of_a_piece() {
        for rows in [1, 2, 3, 100] {
            let made = run(lists(), UnnestOptions::default(), rows);
            assert_eq!(cells(&made), ["10|1", "10|", "40|4", "40|5", "40|6"], "{rows}");
        }
    }

    #[test]
    fn places_count_from_one_and_empty_rows_may_stay() {
        let options = UnnestOptions { with_ordinality: true, keeps_empty: true };
        for rows in [1, 2, 100] {
            let made = run(lists(), options, rows);
            assert_eq!(cells(&made), ["10|1|1", "10||2", "20||", "30||", "40|4|1", "40|5|2", "40|6|3"], "{rows}");
        }
    }

    #[test]
    fn a_sliced_batch_and_lateness_are_respected() {
        let carried = with_split_watermarks(&lists(), Int64Array::from(vec![1, 2, 3, 4])).unwrap().slice(2, 2);
        let made = run(carried, UnnestOptions::default(), 2);
        assert_eq!(cells(&made), ["40|4", "40|5", "40|6"]);
        assert_eq!(split_watermarks(&made[1]).unwrap().values(), &[4]);
    }

    #[test]
    fn a_map_becomes_keys_and_values_in_its_order() {
        let mut builder = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
        builder.keys().append_value("b");
        builder.values().append_value("1");
        builder.keys().append_value("a");
        builder.values().append_null();
        builder.append(true).unwrap();
        builder.append(false).unwrap();
        let batch = RecordBatch::try_from_iter([
            ("id", Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef),
            ("list", Arc::new(builder.finish()) as ArrayRef),
        ])
        .unwrap();
        let made = run(batch.clone(), UnnestOptions::default(), 100);
        assert_eq!(cells(&made), ["1|b|1", "1|a|"]);
        let names: Vec<String> = made[0].schema().fields().iter().map(|field| field.name().clone()).collect();
        assert_eq!(names, ["id", "KEY", "VALUE"]);
    }

    #[test]
    fn a_barrier_lets_the_rest_out_first() {
        let mut operator = spec(&lists(), UnnestOptions::default()).factory().create().unwrap();
        let mut test = TestContext::new();
        test.batch_rows = 2;
        let mut out = Output::default();
        let progress = operator.on_batch(0, lists(), &mut test.context(), &mut out).unwrap();
        assert_eq!(progress, Progress::More);
        operator.snapshot(Epoch(1), &mut test.context(), &mut out).unwrap();
        let made: Vec<RecordBatch> = out.take().into_iter().map(|(_, batch)| batch).collect();
        assert_eq!(cells(&made), ["10|1", "10|", "40|4", "40|5", "40|6"]);
        assert!(made.iter().all(|batch| batch.num_rows() <= 2));
        assert_eq!(operator.resume(&mut test.context(), &mut out).unwrap(), Progress::Done);
        assert!(out.take().is_empty());
        assert_eq!(test.pool.used_bytes(), 0);
    }

    #[test]
    fn what_is_no_collection_is_refused() {
        let schema = lists().schema();
        let error = UnnestSpec::new(&schema, col("id", &schema).unwrap(), &[], UnnestOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ruslo_core::error::ErrorKind::Internal);
    }
}
