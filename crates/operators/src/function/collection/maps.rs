//! The parts of maps, and maps made of arrays and of other maps. A map has each key once; the last one wins.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, MapArray, StructArray, UInt64Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, FieldRef};
use arrow::row::{Row, Rows};
use datafusion::common::{Result, ScalarValue};

use super::super::call::Kind::{Array as List, Map, Maps};
use super::super::call::{Arguments, Definition, Gives, bad_value, unfit};
use super::lists::{Lists, RowEnds, array_type, as_first, comparable, list_of};

pub(super) const FUNCTIONS: &[Definition] = &[
    Definition::new("map_keys", &[&[Map]], Gives::Computed(keys_type), keys),
    Definition::new("map_values", &[&[Map]], Gives::Computed(values_type), values),
    Definition::new("map_entries", &[&[Map]], Gives::Computed(entries_type), entries),
    Definition::new("map_from_arrays", &[&[List, List]], Gives::Computed(map_of_arrays), from_arrays),
    Definition::new("map_union", &[&[Maps]], Gives::Computed(as_first), union),
];

/// MAP<key, value>.
pub(super) fn map_type(key: DataType, value: DataType) -> DataType {
    let fields = vec![Field::new("key", key, false), Field::new("value", value, true)];
    DataType::Map(Arc::new(Field::new("entries", DataType::Struct(fields.into()), false)), false)
}

/// The types of the keys and values of the first argument.
fn parts(fields: &[FieldRef]) -> Result<(DataType, DataType)> {
    let parts = fields.first().and_then(|field| match field.data_type() {
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(parts) => match parts.iter().as_slice() {
                [key, value] => Some((key.data_type().clone(), value.data_type().clone())),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    });
    parts.ok_or_else(|| unfit("a MAP is needed"))
}

fn keys_type(fields: &[FieldRef], _: &[Option<&ScalarValue>]) -> Result<DataType> {
    parts(fields).map(|(key, _)| array_type(key))
}

fn values_type(fields: &[FieldRef], _: &[Option<&ScalarValue>]) -> Result<DataType> {
    parts(fields).map(|(_, value)| array_type(value))
}

fn entries_type(fields: &[FieldRef], _: &[Option<&ScalarValue>]) -> Result<DataType> {
    let (key, value) = parts(fields)?;
    let parts = vec![Field::new("key", key, true), Field::new("value", value, true)];
    Ok(array_type(DataType::Struct(parts.into())))
}

fn map_of_arrays(fields: &[FieldRef], _: &[Option<&ScalarValue>]) -> Result<DataType> {
    let element = |field: &FieldRef| match field.data_type() {
        DataType::List(item) => Some(item.data_type().clone()),
        _ => None,
    };
    match fields.iter().map(element).collect::<Option<Vec<_>>>().as_deref() {
        Some([key, value]) => Ok(map_type(key.clone(), value.clone())),
        _ => Err(unfit("two ARRAYs are needed")),
    }
}

fn map_at(args: &Arguments<'_>, place: usize) -> Result<MapArray> {
    args.array(place)?.as_map_opt().cloned().ok_or_else(|| unfit("a MAP is needed"))
}

fn keys(args: &Arguments<'_>) -> Result<ArrayRef> {
    let map = map_at(args, 0)?;
    list_of(args.gives, map.offsets().clone(), map.keys().clone(), map.nulls().cloned())
}

fn values(args: &Arguments<'_>) -> Result<ArrayRef> {
    let map = map_at(args, 0)?;
    list_of(args.gives, map.offsets().clone(), map.values().clone(), map.nulls().cloned())
}

fn entries(args: &Arguments<'_>) -> Result<ArrayRef> {
    let map = map_at(args, 0)?;
    let fields = match args.gives {
        DataType::List(item) => match item.data_type() {
            DataType::Struct(fields) => fields.clone(),
            _ => return Err(unfit("a MAP is needed")),
        },
        _ => return Err(unfit("a MAP is needed")),
    };
    let rows = StructArray::try_new(fields, vec![map.keys().clone(), map.values().clone()], None)?;
    list_of(args.gives, map.offsets().clone(), Arc::new(rows), map.nulls().cloned())
}

/// Maps of keys and values that stand in two columns, by their places there.
struct Pairs<'a> {
    keys: &'a Rows,
    /// Of the row's keys, where each stands in `places`.
    seen: HashMap<Row<'a>, usize>,
    places: Vec<(u64, u64)>,
    ends: RowEnds,
}

impl<'a> Pairs<'a> {
    fn new(keys: &'a Rows, rows: usize) -> Self {
        Self { keys, seen: HashMap::new(), places: Vec::with_capacity(keys.num_rows()), ends: RowEnds::new(rows) }
    }

    /// A key met again gets the new value, at its old place.
    fn put(&mut self, key: usize, value: usize) {
        let pair = (key as u64, value as u64);
        match self.seen.entry(self.keys.row(key)) {
            Entry::Vacant(free) => {
                free.insert(self.places.len());
                self.places.push(pair);
            }
            Entry::Occupied(known) => {
                if let Some(old) = self.places.get_mut(*known.get()) {
                    old.1 = pair.1;
                }
            }
        }
    }

    fn end(&mut self, is_there: bool) -> Result<()> {
        self.seen.clear();
        self.ends.end(self.places.len(), is_there)
    }

    fn finish(self, keys: &ArrayRef, values: &ArrayRef, gives: &DataType) -> Result<ArrayRef> {
        let places = |place: fn(&(u64, u64)) -> u64| self.places.iter().map(place).collect::<UInt64Array>();
        let keys = take(keys, &places(|pair| pair.0), None)?;
        let values = take(values, &places(|pair| pair.1), None)?;
        let (offsets, nulls) = self.ends.finish();
        map_of(gives, (keys, values), offsets, nulls)
    }
}

/// A column of maps of type `gives`.
pub(super) fn map_of(
    gives: &DataType,
    (keys, values): (ArrayRef, ArrayRef),
    offsets: arrow::buffer::OffsetBuffer<i32>,
    nulls: Option<arrow::buffer::NullBuffer>,
) -> Result<ArrayRef> {
    match gives {
        DataType::Map(field, sorted) => match field.data_type() {
            DataType::Struct(fields) => {
                let entries = StructArray::try_new(fields.clone(), vec![keys, values], None)?;
                Ok(Arc::new(MapArray::try_new(field.clone(), offsets, entries, nulls, *sorted)?))
            }
            _ => Err(unfit("a MAP is needed")),
        },
        _ => Err(unfit("a MAP is needed")),
    }
}

/// NULL if one of the arrays is.
fn from_arrays(args: &Arguments<'_>) -> Result<ArrayRef> {
    let (keys, values) = (Lists::of(args, 0)?, Lists::of(args, 1)?);
    let compared = comparable(keys.elements())?;
    let mut made = Pairs::new(&compared, args.rows);
    for row in 0..args.rows {
        let (Some(keys_here), Some(values_here)) = (keys.range(row), values.range(row)) else {
            made.end(false)?;
            continue;
        };
        if keys_here.len() != values_here.len() {
            let (keys, values) = (keys_here.len(), values_here.len());
            return Err(bad_value(format!("MAP_FROM_ARRAYS is given {keys} keys and {values} values")));
        }
        for (key, value) in keys_here.zip(values_here) {
            if keys.elements().is_null(key) {
                return Err(bad_value("MAP_FROM_ARRAYS is given a NULL as a key"));
            }
            made.put(key, value);
        }
        made.end(true)?;
    }
    made.finish(keys.elements(), values.elements(), args.gives)
}

/// NULL if one of the maps is; of a key in many of them the last one's value.
fn union(args: &Arguments<'_>) -> Result<ArrayRef> {
    let maps = (0..args.len()).map(|place| map_at(args, place)).collect::<Result<Vec<_>>>()?;
    let keys: Vec<&dyn Array> = maps.iter().map(|map| map.keys().as_ref()).collect();
    let values: Vec<&dyn Array> = maps.iter().map(|map| map.values().as_ref()).collect();
    let (keys, values) = (arrow::compute::concat(&keys)?, arrow::compute::concat(&values)?);
    let compared = comparable(&keys)?;
    let mut made = Pairs::new(&compared, args.rows);
    for row in 0..args.rows {
        if maps.iter().any(|map| map.is_null(row)) {
            made.end(false)?;
            continue;
        }
        let mut first = 0;
        for map in &maps {
            let offset = |row: usize| map.offsets().get(row).and_then(|offset| usize::try_from(*offset).ok());
            let (from, to) = (offset(row).unwrap_or_default(), offset(row + 1).unwrap_or_default());
            (from..to).for_each(|place| made.put(first + place, first + place));
            first += map.keys().len();
        }
        made.end(true)?;
    }
    made.finish(&keys, &values, args.gives)
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use datafusion::common::ScalarValue;

    use super::super::super::testing::{call, int, refused};
    use super::super::testing::{ints, made, no_ints, texts, whole};

    /// A MAP<STRING, INT>.
    fn map(keys: &[&str], values: &[Option<i32>]) -> ScalarValue {
        let keys: Vec<_> = keys.iter().copied().map(Some).collect();
        ScalarValue::try_from_array(&call("map_from_arrays", &[texts(&keys), ints(values)]).unwrap(), 0).unwrap()
    }

    #[test]
    fn maps_are_made_and_taken_apart() {
        let both = map(&["b", "a"], &[Some(1), None]);
        assert_eq!(made("map_keys", std::slice::from_ref(&both)).as_deref(), Some("[b, a]"));
        assert_eq!(made("map_values", std::slice::from_ref(&both)).as_deref(), Some("[1, NULL]"));
        let entries = call("map_entries", &[both]).unwrap();
        let first = entries.as_list::<i32>().value(1);
        assert_eq!(first.as_struct().column(0).as_string::<i32>().value(1), "a");
        assert_eq!(first.len(), 2);
    }

    #[test]
    fn the_last_value_of_a_key_stays() {
        let twice = [texts(&[Some("a"), Some("b"), Some("a")]), whole(&[1, 2, 3])];
        assert_eq!(made("map_from_arrays", &twice).as_deref(), Some("{a=3, b=2}"));
        let maps = [map(&["a", "c"], &[Some(1), Some(3)]), map(&["a"], &[Some(2)]), map(&["b"], &[None])];
        assert_eq!(made("map_union", &maps).as_deref(), Some("{a=2, c=3, b=NULL}"));
        assert_eq!(made("map_union", &maps[..1]).as_deref(), Some("{a=1, c=3}"));
        assert_eq!(made("map_from_arrays", &[texts(&[]), whole(&[])]).as_deref(), Some("{}"));
        assert_eq!(made("map_from_arrays", &[texts(&[]), no_ints()]), None);
    }

    #[test]
    fn what_makes_no_map_is_refused() {
        let error = |keys: &[Option<&str>]| refused("map_from_arrays", &[texts(keys), whole(&[1])]);
        assert_eq!(error(&[]), "MAP_FROM_ARRAYS is given 0 keys and 1 values");
        assert_eq!(error(&[None]), "MAP_FROM_ARRAYS is given a NULL as a key");
        assert_eq!(refused("map_keys", &[int(1)]), "MAP_KEYS cannot take (INT); there is MAP_KEYS(MAP)");
    }
}
