//! Calls a function by its name, for tests.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{Field, FieldRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF};
use ruslo_core::clock::VirtualClock;
use ruslo_core::environment::Environment;

use super::{World, scalar_functions};

pub(super) fn world() -> World {
    world_in("UTC")
}

/// A world whose clock stands at 1970-01-02 00:00:00.123.
pub(super) fn world_in(zone: &str) -> World {
    let clock = VirtualClock::default();
    clock.advance(std::time::Duration::from_millis(86_400_123));
    World::new(&Environment { clock: Arc::new(clock), seed: 7, ..Environment::local() }, zone.parse().unwrap())
}

pub(super) fn text(value: &str) -> ScalarValue {
    ScalarValue::Utf8(Some(value.to_owned()))
}

pub(super) fn null() -> ScalarValue {
    ScalarValue::Utf8(None)
}

pub(super) fn int(value: i32) -> ScalarValue {
    ScalarValue::Int32(Some(value))
}

pub(super) fn long(value: i64) -> ScalarValue {
    ScalarValue::Int64(Some(value))
}

fn named(name: &str, world: &World) -> Arc<ScalarUDF> {
    scalar_functions(world).into_iter().find(|function| function.name() == name).expect(name)
}

/// The call with constants and, which must give the same, with columns.
pub(super) fn call_in(world: &World, name: &str, args: &[ScalarValue]) -> Result<ArrayRef> {
    let function = named(name, world);
    let types: Vec<_> = args.iter().map(ScalarValue::data_type).collect();
    let types = if types.is_empty() { types } else { function.coerce_types(&types)? };
    let args = args.iter().zip(&types).map(|(arg, to)| arg.cast_to(to)).collect::<Result<Vec<_>>>()?;
    let fields: Vec<FieldRef> =
        types.iter().map(|to| Arc::new(Field::new("a", to.clone(), true)) as FieldRef).collect();
    let constants: Vec<Option<&ScalarValue>> = args.iter().map(Some).collect();
    let given = ReturnFieldArgs { arg_fields: &fields, scalar_arguments: &constants };
    let return_field = function.return_field_from_args(given)?;
    let run = |args: Vec<ColumnarValue>| {
        let config_options = Arc::new(ConfigOptions::default());
        let (arg_fields, return_field) = (fields.clone(), return_field.clone());
        let given = ScalarFunctionArgs { args, arg_fields, number_rows: 2, return_field, config_options };
        function.invoke_with_args(given)?.into_array(2)
    };
    let constant = run(args.iter().cloned().map(ColumnarValue::Scalar).collect())?;
    let columns = args.iter().map(|arg| Ok(ColumnarValue::Array(arg.to_array_of_size(2)?))).collect::<Result<_>>()?;
    let column = run(columns)?;
    if function.signature().volatility != datafusion::logical_expr::Volatility::Volatile {
        assert_eq!(&constant, &column, "{name}");
    }
    assert_eq!(column.len(), 2, "{name}");
    Ok(column)
}

pub(super) fn call(name: &str, args: &[ScalarValue]) -> Result<ArrayRef> {
    call_in(&world(), name, args)
}

/// The call's value as text; none for NULL.
pub(super) fn shown_in(world: &World, name: &str, args: &[ScalarValue]) -> Option<String> {
    let array = call_in(world, name, args).unwrap_or_else(|error| panic!("{name}: {error}"));
    array.is_valid(0).then(|| arrow::util::display::array_value_to_string(&array, 0).unwrap())
}

pub(super) fn shown(name: &str, args: &[ScalarValue]) -> Option<String> {
    shown_in(&world(), name, args)
}

/// The call's one value.
pub(super) fn texts(name: &str, args: &[ScalarValue]) -> Vec<Option<String>> {
    vec![shown(name, args)]
}

/// The sentence that refuses the call.
pub(super) fn refused(name: &str, args: &[ScalarValue]) -> String {
    let error = call(name, args).unwrap_err().strip_backtrace();
    error.trim_start_matches("Execution error: ").trim_start_matches("Error during planning: ").to_owned()
}
