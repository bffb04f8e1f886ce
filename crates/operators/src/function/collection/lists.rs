//! A column of arrays, and arrays made of other arrays' elements.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, NullBufferBuilder, UInt64Array};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::{concat, take};
use arrow::datatypes::{DataType, FieldRef, Float32Type, Float64Type};
use arrow::row::{RowConverter, Rows, SortField};
use datafusion::common::{Result, ScalarValue};

use super::super::call::{Arguments, bad_value, unfit};

/// A column of arrays.
pub(super) struct Lists {
    list: ListArray,
}

impl Lists {
    /// The argument at `place`.
    pub(super) fn of(args: &Arguments<'_>, place: usize) -> Result<Self> {
        match args.array(place)?.as_list_opt::<i32>() {
            Some(list) => Ok(Self { list: list.clone() }),
            None => Err(unfit("an ARRAY is needed")),
        }
    }

    /// Where a row's elements stand in [`Self::elements`]; none for NULL.
    #[inline]
    pub(super) fn range(&self, row: usize) -> Option<Range<usize>> {
        let offset = |row: usize| self.list.offsets().get(row).and_then(|offset| usize::try_from(*offset).ok());
        if self.list.is_null(row) { None } else { Some(offset(row)?..offset(row + 1)?) }
    }

    /// The elements of all rows.
    pub(super) fn elements(&self) -> &ArrayRef {
        self.list.values()
    }
}

/// `elements`, then `more`, in one column.
pub(super) fn together(elements: &ArrayRef, more: &ArrayRef) -> Result<ArrayRef> {
    Ok(concat(&[elements.as_ref(), more.as_ref()])?)
}

/// `elements` as bytes that are equal and in order as the elements are, NULL first; NaN is equal to itself and greatest.
pub(super) fn comparable(elements: &ArrayRef) -> Result<Rows> {
    let elements = &match elements.data_type() {
        // Without a zero that is negative.
        DataType::Float32 => {
            Arc::new(elements.as_primitive::<Float32Type>().unary::<_, Float32Type>(|value| value + 0.0)) as ArrayRef
        }
        DataType::Float64 => {
            Arc::new(elements.as_primitive::<Float64Type>().unary::<_, Float64Type>(|value| value + 0.0)) as ArrayRef
        }
        _ => elements.clone(),
    };
    let converter = RowConverter::new(vec![SortField::new(elements.data_type().clone())])?;
    Ok(converter.convert_columns(std::slice::from_ref(elements))?)
}

/// Which rows hold what, while a column of arrays or maps is made.
pub(super) struct RowEnds {
    offsets: Vec<i32>,
    nulls: NullBufferBuilder,
}

impl RowEnds {
    pub(super) fn new(rows: usize) -> Self {
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        Self { offsets, nulls: NullBufferBuilder::new(rows) }
    }

    /// Ends a row behind `elements` elements in all; one that is not there is NULL.
    pub(super) fn end(&mut self, elements: usize, is_there: bool) -> Result<()> {
        let end = i32::try_from(elements).map_err(|_| bad_value("a batch of arrays has more than 2^31 elements"))?;
        self.offsets.push(end);
        self.nulls.append(is_there);
        Ok(())
    }

    pub(super) fn finish(mut self) -> (OffsetBuffer<i32>, Option<NullBuffer>) {
        (OffsetBuffer::new(self.offsets.into()), self.nulls.finish())
    }
}

/// Arrays of other arrays' elements, by their places.
pub(super) struct Gathered {
    places: Vec<u64>,
    ends: RowEnds,
}

impl Gathered {
    pub(super) fn new(rows: usize, elements: usize) -> Self {
        Self { places: Vec::with_capacity(elements), ends: RowEnds::new(rows) }
    }

    pub(super) fn extend(&mut self, places: impl Iterator<Item = usize>) {
        self.places.extend(places.map(|place| place as u64));
    }

    /// Ends a row.
    pub(super) fn end(&mut self) -> Result<()> {
        self.ends.end(self.places.len(), true)
    }

    /// Ends a row that is NULL.
    pub(super) fn end_null(&mut self) -> Result<()> {
        self.ends.end(self.places.len(), false)
    }

    /// The column, of type `gives`.
    pub(super) fn finish(self, elements: &ArrayRef, gives: &DataType) -> Result<ArrayRef> {
        let elements = take(elements, &UInt64Array::from(self.places), None)?;
        let (offsets, nulls) = self.ends.finish();
        list_of(gives, offsets, elements, nulls)
    }
}

/// A column of arrays of type `gives`.
pub(super) fn list_of(
    gives: &DataType,
    offsets: OffsetBuffer<i32>,
    elements: ArrayRef,
    nulls: Option<NullBuffer>,
) -> Result<ArrayRef> {
    match gives {
        DataType::List(item) => Ok(Arc::new(ListArray::try_new(item.clone(), offsets, elements, nulls)?)),
        _ => Err(unfit("an ARRAY is needed")),
    }
}

/// The type of an array of `element`.
pub(super) fn array_type(element: DataType) -> DataType {
    DataType::new_list(element, true)
}

/// The type of the first argument.
pub(super) fn as_first(fields: &[FieldRef], _: &[Option<&ScalarValue>]) -> Result<DataType> {
    fields.first().map(|field| field.data_type().clone()).ok_or_else(|| unfit("an argument is needed"))
}

/// The type of the first argument's elements.
pub(super) fn element_of_first(fields: &[FieldRef], _: &[Option<&ScalarValue>]) -> Result<DataType> {
    match fields.first().map(|field| field.data_type()) {
        Some(DataType::List(item)) => Ok(item.data_type().clone()),
        _ => Err(unfit("an ARRAY is needed")),
    }
}
