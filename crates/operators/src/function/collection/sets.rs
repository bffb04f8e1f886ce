//! Arrays as sets: each element once, at the place where it first stood.

use std::collections::HashSet;

use arrow::array::ArrayRef;
use datafusion::common::Result;

use super::super::call::Kind::{Alike, Array as List};
use super::super::call::{Arguments, Definition, Gives};
use super::lists::{Gathered, Lists, as_first, comparable, together};

pub(super) const FUNCTIONS: &[Definition] = &[
    Definition::new("array_distinct", &[&[List]], Gives::Computed(as_first), distinct),
    Definition::new("array_union", &[&[Alike, Alike]], Gives::Computed(as_first), union),
    Definition::new("array_except", &[&[Alike, Alike]], Gives::Computed(as_first), except),
    Definition::new("array_intersect", &[&[Alike, Alike]], Gives::Computed(as_first), intersect),
];

fn distinct(args: &Arguments<'_>) -> Result<ArrayRef> {
    let lists = Lists::of(args, 0)?;
    let values = comparable(lists.elements())?;
    let mut seen = HashSet::new();
    let mut made = Gathered::new(args.rows, lists.elements().len());
    for row in 0..args.rows {
        let Some(range) = lists.range(row) else {
            made.end_null()?;
            continue;
        };
        seen.clear();
        made.extend(range.filter(|place| seen.insert(values.row(*place))));
        made.end()?;
    }
    made.finish(lists.elements(), args.gives)
}

/// What becomes of the two arrays of a row.
#[derive(Clone, Copy)]
enum Operation {
    /// Every element of both.
    Union,
    /// The first's elements that the second does not have.
    Except,
    /// The first's elements that the second has.
    Intersect,
}

fn union(args: &Arguments<'_>) -> Result<ArrayRef> {
    combined(args, Operation::Union)
}

fn except(args: &Arguments<'_>) -> Result<ArrayRef> {
    combined(args, Operation::Except)
}

fn intersect(args: &Arguments<'_>) -> Result<ArrayRef> {
    combined(args, Operation::Intersect)
}

/// NULL if one of them is.
fn combined(args: &Arguments<'_>, operation: Operation) -> Result<ArrayRef> {
    let (left, right) = (Lists::of(args, 0)?, Lists::of(args, 1)?);
    let first_right = left.elements().len();
    let elements = together(left.elements(), right.elements())?;
    let values = comparable(&elements)?;
    let (mut seen, mut others) = (HashSet::new(), HashSet::new());
    let mut made = Gathered::new(args.rows, elements.len());
    for row in 0..args.rows {
        let (Some(left), Some(right)) = (left.range(row), right.range(row)) else {
            made.end_null()?;
            continue;
        };
        let right = right.map(|place| first_right + place);
        seen.clear();
        others.clear();
        match operation {
            Operation::Union => made.extend(left.chain(right).filter(|place| seen.insert(values.row(*place)))),
            Operation::Except | Operation::Intersect => {
                let wanted = matches!(operation, Operation::Intersect);
                others.extend(right.map(|place| values.row(place)));
                let left = left.filter(|place| others.contains(&values.row(*place)) == wanted);
                made.extend(left.filter(|place| seen.insert(values.row(*place))));
            }
        }
        made.end()?;
    }
    made.finish(&elements, args.gives)
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::refused;
    use super::super::testing::{ints, made, no_ints, texts, whole};

    #[test]
    fn each_element_comes_once() {
        let array = ints(&[Some(1), None, Some(1), None, Some(2)]);
        assert_eq!(made("array_distinct", &[array]).as_deref(), Some("[1, NULL, 2]"));
        assert_eq!(made("array_distinct", &[no_ints()]), None);
        let letters = texts(&[Some("b"), Some(""), Some("b"), Some("")]);
        assert_eq!(made("array_distinct", &[letters]).as_deref(), Some("[b, ]"));
    }

    #[test]
    fn two_arrays_are_two_sets() {
        let (left, right) = (ints(&[Some(1), Some(1), None, Some(2)]), ints(&[None, Some(2), Some(7)]));
        let both = [left.clone(), right];
        assert_eq!(made("array_union", &both).as_deref(), Some("[1, NULL, 2, 7]"));
        assert_eq!(made("array_except", &both).as_deref(), Some("[1]"));
        assert_eq!(made("array_intersect", &both).as_deref(), Some("[NULL, 2]"));
        for name in ["array_union", "array_except", "array_intersect"] {
            assert_eq!(made(name, &[left.clone(), no_ints()]), None, "{name}");
            assert_eq!(made(name, &[no_ints(), left.clone()]), None, "{name}");
        }
        assert_eq!(made("array_except", &[left, whole(&[])]).as_deref(), Some("[1, NULL, 2]"));
        let error = refused("array_union", &[whole(&[1]), texts(&[Some("a")])]);
        assert_eq!(error, "ARRAY_UNION cannot take (ARRAY<INT>, ARRAY<STRING>); there is ARRAY_UNION(ARRAY, ARRAY)");
    }
}
