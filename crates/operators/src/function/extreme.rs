//! GREATEST and LEAST: NULL if one of the values is NULL.

use arrow::array::{Array, ArrayRef, BooleanArray, Datum};
use arrow::compute::kernels::{boolean, cmp, nullif, zip};
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{DataFusionError, Result, ScalarValue};

use super::call::Kind::Same;
use super::call::{Arguments, Definition, Gives, unfit};

pub(super) const FUNCTIONS: &[Definition] = &[
    Definition::new("greatest", &[&[Same]], Gives::Computed(common), greatest),
    Definition::new("least", &[&[Same]], Gives::Computed(common), least),
];

fn common(fields: &[FieldRef], _: &[Option<&ScalarValue>]) -> Result<DataType> {
    let mut types = fields.iter().map(|field| field.data_type());
    let first = types.next().cloned().unwrap_or(DataType::Null);
    if types.all(|other| *other == first) {
        Ok(first)
    } else {
        Err(unfit("GREATEST and LEAST compare values of one type"))
    }
}

fn greatest(args: &Arguments<'_>) -> Result<ArrayRef> {
    extreme(args, cmp::gt)
}

fn least(args: &Arguments<'_>) -> Result<ArrayRef> {
    extreme(args, cmp::lt)
}

type Compare = fn(&dyn Datum, &dyn Datum) -> std::result::Result<BooleanArray, arrow::error::ArrowError>;

fn extreme(args: &Arguments<'_>, wins: Compare) -> Result<ArrayRef> {
    let mut best = args.array(0)?;
    for place in 1..args.len() {
        let other = args.array(place)?;
        let better = wins(&other, &best)?;
        let is_null = boolean::or(&boolean::is_null(&other)?, &boolean::is_null(&best)?)?;
        best = nullif::nullif(&zip::zip(&better, &other, &best)?, &is_null)?;
    }
    if best.len() == args.rows { Ok(best) } else { Err(DataFusionError::Internal("rows went missing".to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{int, null, shown, text};
    use datafusion::common::ScalarValue;

    #[test]
    fn a_null_makes_null() {
        assert_eq!(shown("greatest", &[int(1), int(3), int(2)]).as_deref(), Some("3"));
        assert_eq!(shown("least", &[int(2), int(1), int(3)]).as_deref(), Some("1"));
        assert_eq!(shown("least", &[text("b"), text("a")]).as_deref(), Some("a"));
        assert_eq!(shown("greatest", &[text("b"), null(), text("c")]), None);
        assert_eq!(shown("greatest", &[ScalarValue::Int32(None), int(1)]), None);
    }
}
