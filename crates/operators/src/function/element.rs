//! One type for the elements of a call's arrays, and of its maps: the widest of theirs. Texts and other values have none.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::logical_expr::type_coercion::binary::type_union_resolution;

use super::call::{Kind, is_text};

/// `types` with one type for the elements of [`Kind::Alike`] and the [`Kind::Element`]s among them.
pub(super) fn alike(kinds: &[Kind], types: &[DataType]) -> Option<Vec<DataType>> {
    let element = |(kind, given): (&Kind, &DataType)| match (kind, given) {
        (Kind::Alike, DataType::List(item)) => Some(Some(item.data_type().clone())),
        (Kind::Alike, _) => None,
        (Kind::Element, given) => Some(Some(given.clone())),
        _ => Some(None),
    };
    let elements = kinds.iter().zip(types).map(element).collect::<Option<Vec<_>>>()?;
    let elements: Vec<DataType> = elements.into_iter().flatten().collect();
    if elements.is_empty() {
        return Some(types.to_vec());
    }
    let one = widest(&elements)?;
    let brought = kinds.iter().zip(types).map(|(kind, given)| match (kind, given) {
        (Kind::Alike, DataType::List(item)) if *item.data_type() == one => given.clone(),
        (Kind::Alike, DataType::List(item)) => {
            DataType::List(Arc::new(item.as_ref().clone().with_data_type(one.clone()).with_nullable(true)))
        }
        (Kind::Element, _) => one.clone(),
        _ => given.clone(),
    });
    Some(brought.collect())
}

/// One type for maps.
pub(super) fn maps(types: &[DataType]) -> Option<Vec<DataType>> {
    let first = types.first()?;
    if types.iter().all(|given| given == first) {
        return matches!(first, DataType::Map(..)).then(|| types.to_vec());
    }
    let parts = types.iter().map(|given| match given {
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) => match fields.iter().as_slice() {
                [key, value] => Some((key.data_type().clone(), value.data_type().clone())),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    });
    let (keys, values): (Vec<_>, Vec<_>) = parts.collect::<Option<Vec<_>>>()?.into_iter().unzip();
    let fields = vec![Field::new("key", widest(&keys)?, false), Field::new("value", widest(&values)?, true)];
    let one = DataType::Map(Arc::new(Field::new("entries", DataType::Struct(fields.into()), false)), false);
    Some(vec![one; types.len()])
}

/// An ARRAY of texts, or of nothing but NULLs, as an ARRAY<STRING>.
pub(super) fn texts(given: &DataType) -> Option<DataType> {
    match given {
        DataType::List(item) if *item.data_type() == DataType::Utf8 => Some(given.clone()),
        DataType::List(item) if is_text(item.data_type()) || item.data_type().is_null() => {
            Some(DataType::new_list(DataType::Utf8, true))
        }
        _ => None,
    }
}

fn widest(types: &[DataType]) -> Option<DataType> {
    let mut known = types.iter().filter(|given| !given.is_null());
    let Some(first) = known.next() else { return Some(DataType::Null) };
    if known.all(|given| given == first) {
        return Some(first.clone());
    }
    let is_mixed = types.iter().any(is_text) && !types.iter().all(|given| is_text(given) || given.is_null());
    if is_mixed { None } else { type_union_resolution(types) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(element: DataType) -> DataType {
        DataType::new_list(element, true)
    }

    #[test]
    fn elements_get_the_widest_type() {
        let fit = |array: DataType, value: DataType| alike(&[Kind::Alike, Kind::Element], &[array, value]);
        use DataType as T;
        assert_eq!(fit(list(T::Int32), T::Int64), Some(vec![list(T::Int64), T::Int64]));
        assert_eq!(fit(list(T::Int64), T::Int32), Some(vec![list(T::Int64), T::Int64]));
        assert_eq!(fit(list(T::Utf8), T::Null), Some(vec![list(T::Utf8), T::Utf8]));
        assert_eq!(fit(list(T::Null), T::Int32), Some(vec![list(T::Int32), T::Int32]));
        assert_eq!(fit(list(T::Utf8), T::Int32), None);
        assert_eq!(fit(T::Int32, T::Int32), None);
    }
}
