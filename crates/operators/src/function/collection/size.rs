//! CARDINALITY and ELEMENT, whose types or answers are not DataFusion's.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, UInt64Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{Result, ScalarValue};

use super::super::call::Kind::{Any, Array as List};
use super::super::call::{Arguments, Definition, Gives, bad_value, unfit};
use super::super::name::sql_name;
use super::lists::{Lists, element_of_first};

pub(super) const FUNCTIONS: &[Definition] = &[
    Definition::new("cardinality", &[&[Any]], Gives::Computed(count_type), cardinality),
    Definition::new("element", &[&[List]], Gives::Computed(element_of_first), element),
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
    Ok(Arc::new(Int32Array::try_new(lengths.into(), array.nulls().cloned())?))
}

/// The only element: NULL of an empty array, an error of a longer one.
fn element(args: &Arguments<'_>) -> Result<ArrayRef> {
    let lists = Lists::of(args, 0)?;
    let places = (0..args.rows).map(|row| match lists.range(row) {
        Some(range) if range.len() > 1 => {
            let more = range.len();
            Err(bad_value(format!("ELEMENT takes an array of one element; this one has {more}")))
        }
        Some(range) if !range.is_empty() => Ok(Some(range.start as u64)),
        _ => Ok(None),
    });
    Ok(take(lists.elements(), &places.collect::<Result<UInt64Array>>()?, None)?)
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{int, refused, shown};
    use super::super::testing::{ints, no_ints, whole};

    #[test]
    fn elements_are_counted_and_taken() {
        assert_eq!(shown("cardinality", &[ints(&[Some(1), None])]).as_deref(), Some("2"));
        assert_eq!(shown("cardinality", &[no_ints()]), None);
        assert_eq!(shown("element", &[whole(&[7])]).as_deref(), Some("7"));
        assert_eq!(shown("element", &[whole(&[])]), None);
        assert_eq!(shown("element", &[no_ints()]), None);
        let error = refused("element", &[whole(&[1, 2])]);
        assert_eq!(error, "ELEMENT takes an array of one element; this one has 2");
        assert_eq!(refused("cardinality", &[int(1)]), "CARDINALITY takes an ARRAY or a MAP, not INT");
        assert_eq!(refused("element", &[int(1)]), "ELEMENT cannot take (INT); there is ELEMENT(ARRAY)");
    }
}
