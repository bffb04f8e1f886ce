//! Functions of arrays and maps with Flink's names, types and NULLs.
//!
//! | file | holds |
//! |---|---|
//! | `lists` | a column of arrays, and arrays made of other arrays' elements |
//! | `size` | CARDINALITY, ELEMENT |
//! | `search` | ARRAY_CONTAINS, ARRAY_POSITION, ARRAY_MAX, ARRAY_MIN, ARRAY_JOIN |
//! | `change` | ARRAY_APPEND, ARRAY_PREPEND, ARRAY_CONCAT, ARRAY_REMOVE, ARRAY_REVERSE, ARRAY_SLICE, ARRAY_SORT |
//! | `sets` | ARRAY_DISTINCT, ARRAY_UNION, ARRAY_EXCEPT, ARRAY_INTERSECT |
//! | `maps` | MAP_KEYS, MAP_VALUES, MAP_ENTRIES, MAP_FROM_ARRAYS, MAP_UNION |
//! | `parts` | SPLIT, STR_TO_MAP |
//!
//! Elements are not looked at one by one: those of a batch are compared by their bytes in Arrow's row format, a result
//! is a list of places, and one `take` brings its elements together. So a function works for elements of every type.

mod change;
mod lists;
mod maps;
mod parts;
mod search;
mod sets;
mod size;

use super::call::Definition;

/// The functions of this folder.
pub(super) fn functions() -> Vec<Definition> {
    [size::FUNCTIONS, search::FUNCTIONS, change::FUNCTIONS, sets::FUNCTIONS, maps::FUNCTIONS, parts::FUNCTIONS].concat()
}

#[cfg(test)]
mod testing {
    use std::sync::Arc;

    use arrow::array::{Array, ArrayRef, ListArray, ListBuilder, StringBuilder};
    use arrow::datatypes::Int32Type;
    use datafusion::common::ScalarValue;

    use super::super::testing::call;

    /// An ARRAY<INT>.
    pub(super) fn ints(values: &[Option<i32>]) -> ScalarValue {
        let one = [Some(values.to_vec())];
        ScalarValue::List(Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(one)))
    }

    /// An ARRAY<INT> without NULLs.
    pub(super) fn whole(values: &[i32]) -> ScalarValue {
        ints(&values.iter().copied().map(Some).collect::<Vec<_>>())
    }

    /// A NULL of type ARRAY<INT>.
    pub(super) fn no_ints() -> ScalarValue {
        let none: [Option<Vec<Option<i32>>>; 1] = [None];
        ScalarValue::List(Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(none)))
    }

    /// An ARRAY<STRING>.
    pub(super) fn texts(values: &[Option<&str>]) -> ScalarValue {
        let mut list = ListBuilder::new(StringBuilder::new());
        list.append_value(values.iter().copied());
        ScalarValue::List(Arc::new(list.finish()))
    }

    /// The call's value as text: `[1, NULL]`, `{a=1}`; none for NULL.
    pub(super) fn made(name: &str, args: &[ScalarValue]) -> Option<String> {
        let array = call(name, args).unwrap_or_else(|error| panic!("{name}: {error}"));
        array.is_valid(0).then(|| text(&array))
    }

    fn text(array: &ArrayRef) -> String {
        let shown = ScalarValue::try_from_array(array, 0).unwrap();
        let items = |items: &ArrayRef| (0..items.len()).map(|row| one(items, row)).collect::<Vec<_>>();
        match shown {
            ScalarValue::List(list) => format!("[{}]", items(&list.value(0)).join(", ")),
            ScalarValue::Map(map) => {
                let entries = map.value(0);
                let (keys, values) = (items(entries.column(0)), items(entries.column(1)));
                let pairs: Vec<_> = keys.iter().zip(values).map(|(key, value)| format!("{key}={value}")).collect();
                format!("{{{}}}", pairs.join(", "))
            }
            _ => one(array, 0),
        }
    }

    fn one(array: &ArrayRef, row: usize) -> String {
        let is_null = array.is_null(row);
        if is_null { "NULL".to_owned() } else { arrow::util::display::array_value_to_string(array, row).unwrap() }
    }
}
