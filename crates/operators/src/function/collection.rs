//! CARDINALITY and ELEMENT, whose types or answers are not DataFusion's.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, UInt64Array};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{Result, ScalarValue};

use super::call::Kind::Any;
use super::call::{Arguments, Definition, Gives, bad_value, unfit};
use super::name::sql_name;

pub(super) const FUNCTIONS: &[Definition] = &[
    Definition::new("cardinality", &[&[Any]], Gives::Computed(count_type), cardinality),
    Definition::new("element", &[&[Any]], Gives::Computed(element_type), element),
];

fn count_type(fields: &[FieldRef], _: &[Option<&ScalarValue>]) -> Result<DataType> {
    match fields.first().map(|field| field.data_type()) {
        Some(DataType::List(_) | DataType::Map(..)) => Ok(DataType::Int32),
        Some(other) => Err(unfit(format!("CARDINALITY takes an ARRAY or a MAP, not {}", sql_name(other)))),
        None => Err(unfit("CARDINALITY takes an ARRAY or a MAP")),
    }
}

fn cardinality(args: &Arguments<'_>) -> Result<ArrayRef> {
    let array = args.array(0)?;
    let offsets = match (array.as_list_opt::<i32>(), array.as_map_opt()) {
        (Some(list), _) => list.offsets(),
        (_, Some(map)) => map.offsets(),
        _ => return Err(unfit("CARDINALITY takes an ARRAY or a MAP")),
    };
    let lengths: Vec<i32> = offsets.lengths().map(|length| i32::try_from(length).unwrap_or(i32::MAX)).collect();
    Ok(Arc::new(arrow::array::Int32Array::try_new(lengths.into(), array.nulls().cloned())?))
}

fn element_type(fields: &[FieldRef], _: &[Option<&ScalarValue>]) -> Result<DataType> {
    match fields.first().map(|field| field.data_type()) {
        Some(DataType::List(item)) => Ok(item.data_type().clone()),
        Some(other) => Err(unfit(format!("ELEMENT takes an ARRAY, not {}", sql_name(other)))),
        None => Err(unfit("ELEMENT takes an ARRAY")),
    }
}

/// The only element: NULL of an empty array, an error of a longer one.
fn element(args: &Arguments<'_>) -> Result<ArrayRef> {
    let array = args.array(0)?;
    let list = array.as_list_opt::<i32>().ok_or_else(|| unfit("ELEMENT takes an ARRAY"))?;
    let places = (0..args.rows).map(|row| {
        let offsets = (list.offsets().get(row), list.offsets().get(row + 1));
        match offsets {
            (Some(from), Some(to)) if list.is_valid(row) && to > from => match to - from {
                1 => Ok(u64::try_from(*from).ok()),
                more => Err(bad_value(format!("ELEMENT takes an array of one element; this one has {more}"))),
            },
            _ => Ok(None),
        }
    });
    let places = places.collect::<Result<UInt64Array>>()?;
    Ok(cast(&take(list.values(), &places, None)?, args.gives)?)
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Int32Type;
    use datafusion::common::ScalarValue;

    use super::super::testing::{int, refused, shown};

    fn list(values: Vec<Option<Vec<Option<i32>>>>) -> ScalarValue {
        ScalarValue::List(std::sync::Arc::new(arrow::array::ListArray::from_iter_primitive::<Int32Type, _, _>(values)))
    }

    #[test]
    fn elements_are_counted_and_taken() {
        assert_eq!(shown("cardinality", &[list(vec![Some(vec![Some(1), None])])]).as_deref(), Some("2"));
        assert_eq!(shown("cardinality", &[list(vec![None])]), None);
        assert_eq!(shown("element", &[list(vec![Some(vec![Some(7)])])]).as_deref(), Some("7"));
        assert_eq!(shown("element", &[list(vec![Some(vec![])])]), None);
        let error = refused("element", &[list(vec![Some(vec![Some(1), Some(2)])])]);
        assert_eq!(error, "ELEMENT takes an array of one element; this one has 2");
        assert_eq!(refused("cardinality", &[int(1)]), "CARDINALITY takes an ARRAY or a MAP, not INT");
    }
}
