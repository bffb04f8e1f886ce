//! What is in an array, where, the greatest and the least of it, and all of it as one text.

use arrow::array::{Array, ArrayRef, AsArray, UInt64Array};
use arrow::compute::take;
use datafusion::common::Result;

use super::super::call::Kind::{Alike, Array as List, Element, Text, Texts};
use super::super::call::{Arguments, Definition, Gives, put, unfit};
use super::lists::{Lists, comparable, element_of_first, together};

pub(super) const FUNCTIONS: &[Definition] = &[
    Definition::new("array_contains", &[&[Alike, Element]], Gives::Truth, contains),
    Definition::new("array_position", &[&[Alike, Element]], Gives::Int, position),
    Definition::new("array_max", &[&[List]], Gives::Computed(element_of_first), max),
    Definition::new("array_min", &[&[List]], Gives::Computed(element_of_first), min),
    Definition::new("array_join", &[&[Texts, Text], &[Texts, Text, Text]], Gives::Text, join),
];

/// How many elements stand before the sought one in each row's array: an array that is NULL, one without it, its place.
fn places(args: &Arguments<'_>) -> Result<Vec<Option<Option<usize>>>> {
    let (lists, sought) = (Lists::of(args, 0)?, args.array(1)?);
    let first_sought = lists.elements().len();
    let values = comparable(&together(lists.elements(), &sought)?)?;
    let find = |row: usize| {
        let wanted = values.row(first_sought + row);
        lists.range(row).map(|mut range| range.position(|place| values.row(place) == wanted))
    };
    Ok((0..args.rows).map(find).collect())
}

/// NULL is found, too.
fn contains(args: &Arguments<'_>) -> Result<ArrayRef> {
    let places = places(args)?;
    args.truths(|row| places.get(row).copied().flatten().map(|place| place.is_some()))
}

/// From 1; 0 for nowhere; NULL for NULL.
fn position(args: &Arguments<'_>) -> Result<ArrayRef> {
    let (places, sought) = (places(args)?, args.array(1)?);
    args.ints(|row| {
        let place = places.get(row).copied().flatten().filter(|_| sought.is_valid(row));
        Ok(place.map(|place| place.map_or(0, |before| i32::try_from(before + 1).unwrap_or(i32::MAX))))
    })
}

fn max(args: &Arguments<'_>) -> Result<ArrayRef> {
    extreme(args, std::cmp::Ordering::Greater)
}

fn min(args: &Arguments<'_>) -> Result<ArrayRef> {
    extreme(args, std::cmp::Ordering::Less)
}

/// NULLs do not count.
fn extreme(args: &Arguments<'_>, wins: std::cmp::Ordering) -> Result<ArrayRef> {
    let lists = Lists::of(args, 0)?;
    let (elements, values) = (lists.elements(), comparable(lists.elements())?);
    let best = |row: usize| {
        let range = lists.range(row)?.filter(|place| elements.is_valid(*place));
        let best = |best: usize, next: usize| {
            if values.row(next).cmp(&values.row(best)) == wins { next } else { best }
        };
        range.reduce(best).map(|place| place as u64)
    };
    let places: UInt64Array = (0..args.rows).map(best).collect();
    Ok(take(elements, &places, None)?)
}

/// NULLs are left out, or stand as the third argument says.
fn join(args: &Arguments<'_>) -> Result<ArrayRef> {
    let (lists, separators) = (Lists::of(args, 0)?, args.text(1)?);
    let nulls = if args.len() > 2 { Some(args.text(2)?) } else { None };
    let texts = lists.elements().as_string_opt::<i32>().ok_or_else(|| unfit("ARRAY_JOIN takes an ARRAY of STRING"))?;
    args.write_texts(|row, out| {
        let (Some(range), Some(separator)) = (lists.range(row), separators.get(row)) else { return Ok(None) };
        let for_null = nulls.as_ref().map(|nulls| nulls.get(row));
        if for_null == Some(None) {
            return Ok(None);
        }
        let mut is_first = true;
        for place in range {
            let text = if texts.is_valid(place) { Some(texts.value(place)) } else { for_null.flatten() };
            let Some(text) = text else { continue };
            if !std::mem::replace(&mut is_first, false) {
                put(out, separator);
            }
            put(out, text);
        }
        Ok(Some(()))
    })
}

#[cfg(test)]
mod tests {
    use arrow::array::ListArray;
    use arrow::datatypes::Float64Type;
    use datafusion::common::ScalarValue;

    use super::super::super::testing::{int, long, null, refused, text};
    use super::super::testing::{ints, made, no_ints, texts, whole};

    #[test]
    fn elements_are_found() {
        let array = ints(&[Some(3), None, Some(1), Some(3)]);
        let null_int = ScalarValue::Int32(None);
        let found = |sought: ScalarValue| {
            let args = [array.clone(), sought];
            (made("array_contains", &args), made("array_position", &args))
        };
        let is = |contains: &str, position: Option<&str>| (Some(contains.to_owned()), position.map(str::to_owned));
        assert_eq!(found(int(3)), is("true", Some("1")));
        assert_eq!(found(int(1)), is("true", Some("3")));
        assert_eq!(found(long(1 << 40)), is("false", Some("0")));
        assert_eq!(found(null_int.clone()), is("true", None));
        assert_eq!(made("array_contains", &[whole(&[1]), null_int]).as_deref(), Some("false"));
        assert_eq!(made("array_contains", &[no_ints(), int(1)]), None);
        assert_eq!(made("array_position", &[no_ints(), int(1)]), None);
        let error = refused("array_contains", &[array, text("3")]);
        let there = "there is ARRAY_CONTAINS(ARRAY, an element)";
        assert_eq!(error, format!("ARRAY_CONTAINS cannot take (ARRAY<INT>, STRING); {there}"));
    }

    #[test]
    fn the_greatest_and_the_least_are_no_nulls() {
        let array = ints(&[None, Some(-4), Some(9), Some(2)]);
        assert_eq!(made("array_max", std::slice::from_ref(&array)).as_deref(), Some("9"));
        assert_eq!(made("array_min", &[array]).as_deref(), Some("-4"));
        assert_eq!(made("array_min", &[texts(&[Some("b"), None, Some("ab")])]).as_deref(), Some("ab"));
        for array in [ints(&[None]), whole(&[]), no_ints()] {
            assert_eq!(made("array_max", &[array]), None);
        }
        let doubles = ListArray::from_iter_primitive::<Float64Type, _, _>([Some(vec![Some(f64::NAN), Some(1.5)])]);
        let doubles = ScalarValue::List(std::sync::Arc::new(doubles));
        assert_eq!(made("array_min", &[doubles]).as_deref(), Some("1.5"));
    }

    #[test]
    fn texts_are_joined() {
        let array = texts(&[Some("a"), None, Some(""), Some("b")]);
        assert_eq!(made("array_join", &[array.clone(), text("-")]).as_deref(), Some("a--b"));
        assert_eq!(made("array_join", &[array.clone(), text("-"), text("?")]).as_deref(), Some("a-?--b"));
        assert_eq!(made("array_join", &[array.clone(), null()]), None);
        assert_eq!(made("array_join", &[array, text("-"), null()]), None);
        assert_eq!(made("array_join", &[texts(&[]), text("-")]).as_deref(), Some(""));
        let error = refused("array_join", &[whole(&[1]), text("-")]);
        assert!(error.starts_with("ARRAY_JOIN cannot take (ARRAY<INT>, STRING)"), "{error}");
    }
}
