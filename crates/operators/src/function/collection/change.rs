//! Arrays with more, fewer or other places for their elements.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use datafusion::common::Result;

use super::super::call::Kind::{Alike, Alikes, Array as List, Element, Int, Truth};
use super::super::call::{Arguments, Definition, Gives, unfit};
use super::lists::{Gathered, Lists, as_first, comparable, together};

pub(super) const FUNCTIONS: &[Definition] = &[
    Definition::new("array_append", &[&[Alike, Element]], Gives::Computed(as_first), append),
    Definition::new("array_prepend", &[&[Alike, Element]], Gives::Computed(as_first), prepend),
    Definition::new("array_concat", &[&[Alikes]], Gives::Computed(as_first), concat),
    Definition::new("array_remove", &[&[Alike, Element]], Gives::Computed(as_first), remove),
    Definition::new("array_reverse", &[&[List]], Gives::Computed(as_first), reverse),
    Definition::new("array_slice", &[&[List, Int], &[List, Int, Int]], Gives::Computed(as_first), slice),
    Definition::new("array_sort", &[&[List], &[List, Truth], &[List, Truth, Truth]], Gives::Computed(as_first), sort),
];

fn append(args: &Arguments<'_>) -> Result<ArrayRef> {
    with_one_more(args, false)
}

fn prepend(args: &Arguments<'_>) -> Result<ArrayRef> {
    with_one_more(args, true)
}

fn with_one_more(args: &Arguments<'_>, before: bool) -> Result<ArrayRef> {
    let (lists, more) = (Lists::of(args, 0)?, args.array(1)?);
    let first_more = lists.elements().len();
    let elements = together(lists.elements(), &more)?;
    let mut made = Gathered::new(args.rows, elements.len());
    for row in 0..args.rows {
        let Some(range) = lists.range(row) else {
            made.end_null()?;
            continue;
        };
        let more = std::iter::once(first_more + row);
        if before {
            made.extend(more.chain(range))
        } else {
            made.extend(range.chain(more))
        }
        made.end()?;
    }
    made.finish(&elements, args.gives)
}

/// NULL if one of them is.
fn concat(args: &Arguments<'_>) -> Result<ArrayRef> {
    let lists = (0..args.len()).map(|place| Lists::of(args, place)).collect::<Result<Vec<_>>>()?;
    let columns: Vec<&dyn Array> = lists.iter().map(|lists| lists.elements().as_ref()).collect();
    let elements = arrow::compute::concat(&columns)?;
    let mut made = Gathered::new(args.rows, elements.len());
    for row in 0..args.rows {
        if lists.iter().any(|lists| lists.range(row).is_none()) {
            made.end_null()?;
            continue;
        }
        let mut first = 0;
        for lists in &lists {
            let range = lists.range(row).unwrap_or_default();
            made.extend(range.map(|place| first + place));
            first += lists.elements().len();
        }
        made.end()?;
    }
    made.finish(&elements, args.gives)
}

fn remove(args: &Arguments<'_>) -> Result<ArrayRef> {
    let (lists, unwanted) = (Lists::of(args, 0)?, args.array(1)?);
    let first_unwanted = lists.elements().len();
    let values = comparable(&together(lists.elements(), &unwanted)?)?;
    let mut made = Gathered::new(args.rows, first_unwanted);
    for row in 0..args.rows {
        let Some(range) = lists.range(row) else {
            made.end_null()?;
            continue;
        };
        let unwanted = values.row(first_unwanted + row);
        made.extend(range.filter(|place| values.row(*place) != unwanted));
        made.end()?;
    }
    made.finish(lists.elements(), args.gives)
}

fn reverse(args: &Arguments<'_>) -> Result<ArrayRef> {
    let lists = Lists::of(args, 0)?;
    let mut made = Gathered::new(args.rows, lists.elements().len());
    for row in 0..args.rows {
        match lists.range(row) {
            Some(range) => {
                made.extend(range.rev());
                made.end()?;
            }
            None => made.end_null()?,
        }
    }
    made.finish(lists.elements(), args.gives)
}

/// The elements from one place to another, both counted from 1, from the end if they are negative; 0 is 1.
fn slice(args: &Arguments<'_>) -> Result<ArrayRef> {
    let (lists, starts, ends) = (Lists::of(args, 0)?, args.int(1)?, args.int_or(2, i32::MAX)?);
    let mut made = Gathered::new(args.rows, lists.elements().len());
    for row in 0..args.rows {
        let (Some(range), Some(start), Some(end)) = (lists.range(row), starts.get(row), ends.get(row)) else {
            made.end_null()?;
            continue;
        };
        let length = range.len() as i64;
        let from_begin = |place: i32| i64::from(place) + if place < 0 { length + 1 } else { 0 };
        let start = from_begin(start).max(1);
        let end = match from_begin(end) {
            0 => 1,
            end => end.min(length),
        };
        let skipped = usize::try_from(start - 1).unwrap_or(usize::MAX);
        made.extend(range.skip(skipped).take(usize::try_from(end - start + 1).unwrap_or(0)));
        made.end()?;
    }
    made.finish(lists.elements(), args.gives)
}

/// Ascending with NULLs first, or descending with NULLs last, unless the call says otherwise.
fn sort(args: &Arguments<'_>) -> Result<ArrayRef> {
    let lists = Lists::of(args, 0)?;
    let (elements, values) = (lists.elements(), comparable(lists.elements())?);
    let ascending = if args.len() > 1 { Some(truths(args, 1)?) } else { None };
    let nulls_first = if args.len() > 2 { Some(truths(args, 2)?) } else { None };
    let said = |truths: &Option<BooleanArray>, row: usize, default: bool| match truths {
        Some(truths) => truths.is_valid(row).then(|| truths.value(row)),
        None => Some(default),
    };
    let mut made = Gathered::new(args.rows, elements.len());
    let mut sorted: Vec<usize> = Vec::new();
    for row in 0..args.rows {
        let ascending = said(&ascending, row, true);
        let nulls_first = ascending.and_then(|ascending| said(&nulls_first, row, ascending));
        let (Some(range), Some(ascending), Some(nulls_first)) = (lists.range(row), ascending, nulls_first) else {
            made.end_null()?;
            continue;
        };
        let nulls = range.clone().filter(|place| elements.is_null(*place));
        sorted.clear();
        sorted.extend(range.filter(|place| elements.is_valid(*place)));
        sorted.sort_by(|left, right| {
            let order = values.row(*left).cmp(&values.row(*right));
            if ascending { order } else { order.reverse() }
        });
        let sorted = sorted.iter().copied();
        if nulls_first {
            made.extend(nulls.chain(sorted))
        } else {
            made.extend(sorted.chain(nulls))
        }
        made.end()?;
    }
    made.finish(elements, args.gives)
}

fn truths(args: &Arguments<'_>, place: usize) -> Result<BooleanArray> {
    args.array(place)?.as_boolean_opt().cloned().ok_or_else(|| unfit("a BOOLEAN is needed"))
}

#[cfg(test)]
mod tests {
    use datafusion::common::ScalarValue;

    use super::super::super::testing::{int, long};
    use super::super::testing::{ints, made, no_ints, texts, whole};

    fn truth(value: Option<bool>) -> ScalarValue {
        ScalarValue::Boolean(value)
    }

    #[test]
    fn elements_are_added_at_both_ends() {
        let array = ints(&[Some(1), None]);
        assert_eq!(made("array_append", &[array.clone(), int(3)]).as_deref(), Some("[1, NULL, 3]"));
        assert_eq!(made("array_prepend", &[array.clone(), int(3)]).as_deref(), Some("[3, 1, NULL]"));
        assert_eq!(
            made("array_append", &[array.clone(), ScalarValue::Int32(None)]).as_deref(),
            Some("[1, NULL, NULL]")
        );
        assert_eq!(made("array_append", &[no_ints(), int(3)]), None);
        let wide = made("array_append", &[array.clone(), long(3_000_000_000)]);
        assert_eq!(wide.as_deref(), Some("[1, NULL, 3000000000]"));
        let three = [array.clone(), whole(&[]), whole(&[5, 6])];
        assert_eq!(made("array_concat", &three).as_deref(), Some("[1, NULL, 5, 6]"));
        assert_eq!(made("array_concat", &[array, no_ints()]), None);
    }

    #[test]
    fn elements_are_taken_away_and_turned() {
        let array = ints(&[Some(3), None, Some(1), Some(3)]);
        assert_eq!(made("array_remove", &[array.clone(), int(3)]).as_deref(), Some("[NULL, 1]"));
        assert_eq!(made("array_remove", &[array.clone(), ScalarValue::Int32(None)]).as_deref(), Some("[3, 1, 3]"));
        assert_eq!(made("array_reverse", &[array]).as_deref(), Some("[3, 1, NULL, 3]"));
        assert_eq!(made("array_reverse", &[whole(&[])]).as_deref(), Some("[]"));
        assert_eq!(made("array_reverse", &[no_ints()]), None);
    }

    #[test]
    fn slices_count_from_both_ends() {
        let slice = |start: i32, end: Option<i32>| {
            let args = [whole(&[3, 1, 2, 1]), int(start)].into_iter().chain(end.map(int));
            made("array_slice", &args.collect::<Vec<_>>()).unwrap()
        };
        // As Flink 2.3 has it, the odd ones too.
        let cases = [
            (2, None, "[1, 2, 1]"),
            (2, Some(3), "[1, 2]"),
            (-2, Some(-1), "[2, 1]"),
            (0, Some(2), "[3, 1]"),
            (0, Some(0), "[3]"),
            (3, Some(2), "[]"),
            (-9, Some(2), "[3, 1]"),
            (-9, Some(-9), "[]"),
            (9, None, "[]"),
            (1, Some(-5), "[3]"),
            (i32::MIN, Some(i32::MAX), "[3, 1, 2, 1]"),
        ];
        for (start, end, expected) in cases {
            assert_eq!(slice(start, end), expected, "{start} {end:?}");
        }
        assert_eq!(made("array_slice", &[whole(&[]), int(1), int(0)]).as_deref(), Some("[]"));
        assert_eq!(made("array_slice", &[whole(&[1]), ScalarValue::Int32(None)]), None);
    }

    #[test]
    fn nulls_go_where_the_order_or_the_call_says() {
        let array = ints(&[Some(2), None, Some(1)]);
        let sort = |flags: &[Option<bool>]| {
            let args = [array.clone()].into_iter().chain(flags.iter().copied().map(truth));
            made("array_sort", &args.collect::<Vec<_>>())
        };
        assert_eq!(sort(&[]).as_deref(), Some("[NULL, 1, 2]"));
        assert_eq!(sort(&[Some(false)]).as_deref(), Some("[2, 1, NULL]"));
        assert_eq!(sort(&[Some(true), Some(false)]).as_deref(), Some("[1, 2, NULL]"));
        assert_eq!(sort(&[Some(false), Some(true)]).as_deref(), Some("[NULL, 2, 1]"));
        assert_eq!(sort(&[None]), None);
        let letters = texts(&[Some("b"), Some("ä"), Some("a"), Some("Z")]);
        assert_eq!(made("array_sort", &[letters]).as_deref(), Some("[Z, a, b, ä]"));
    }
}
