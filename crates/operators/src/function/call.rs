//! One shape for all scalar functions: what a function is called, takes, gives and computes.
//!
//! A [`Definition`] is a constant; [`Function`] makes a DataFusion function of it. Arguments are brought to their
//! [`Kind`]s while planning, so that `run` sees columns or constants of known types. A call that does not fit is refused
//! while planning, with the types in SQL's words.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Float64Array, Int32Array, Int64Array, StringArray,
    StringBuilder,
};
use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::type_coercion::binary::type_union_resolution;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};

use super::World;
use super::element;
use super::name::sql_name;

/// What an argument is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// STRING.
    Text,
    /// BYTES.
    Bytes,
    /// Any integer, as INT.
    Int,
    /// Any integer, as BIGINT.
    Long,
    /// Any number, as DOUBLE.
    Double,
    /// Any number as it is.
    Number,
    /// TIMESTAMP or TIMESTAMP_LTZ as it is; a DATE becomes its midnight.
    Time,
    /// TIMESTAMP, TIMESTAMP_LTZ or DATE as it is.
    Day,
    /// Anything as it is.
    Any,
    /// Anything as it is, as often as the call says.
    Rest,
    /// Values of one type, the widest of theirs, as often as the call says.
    Same,
    /// BOOLEAN.
    Truth,
    /// An ARRAY as it is.
    Array,
    /// An ARRAY of STRING.
    Texts,
    /// An ARRAY whose elements get one type with the call's other such arrays and [`Kind::Element`]s.
    Alike,
    /// The same, as often as the call says.
    Alikes,
    /// A value of the type of the arrays' elements.
    Element,
    /// A MAP as it is.
    Map,
    /// MAPs of one type, as often as the call says.
    Maps,
}

/// What a function gives.
#[derive(Clone, Copy)]
pub(crate) enum Gives {
    Text,
    Bytes,
    Int,
    Long,
    Double,
    Truth,
    Date,
    /// TIMESTAMP(3).
    Timestamp,
    /// TIMESTAMP_LTZ(3).
    Instant,
    /// The type that a function of the arguments' types and constants says.
    Computed(fn(&[FieldRef], &[Option<&ScalarValue>]) -> Result<DataType>),
}

/// Refuses what a call's constants say.
pub(crate) type Check = fn(&[Option<&ScalarValue>]) -> Result<()>;

/// A scalar function.
#[derive(Clone, Copy)]
pub(crate) struct Definition {
    /// In lower case.
    pub(crate) name: &'static str,
    /// The argument lists that it takes.
    pub(crate) takes: &'static [&'static [Kind]],
    pub(crate) gives: Gives,
    pub(crate) run: fn(&Arguments<'_>) -> Result<ArrayRef>,
    /// Refuses constants while planning.
    pub(crate) check: Option<Check>,
    /// Another answer at every call, and never NULL.
    pub(crate) is_volatile: bool,
}

impl Definition {
    /// A function that depends on nothing but its arguments.
    pub(crate) const fn new(
        name: &'static str,
        takes: &'static [&'static [Kind]],
        gives: Gives,
        run: fn(&Arguments<'_>) -> Result<ArrayRef>,
    ) -> Self {
        Self { name, takes, gives, run, check: None, is_volatile: false }
    }

    /// The same, with constants checked while planning.
    pub(crate) const fn checked(self, check: Check) -> Self {
        Self { check: Some(check), ..self }
    }

    /// The same, with another answer at every call.
    pub(crate) const fn volatile(self) -> Self {
        Self { is_volatile: true, ..self }
    }

    /// The function for DataFusion's planner.
    pub(crate) fn function(self, world: &World) -> Arc<ScalarUDF> {
        Arc::new(ScalarUDF::new_from_impl(Function::new(self, world.clone())))
    }
}

/// An error of a call that does not fit: the user's, while planning.
pub(crate) fn unfit(sentence: impl Into<String>) -> DataFusionError {
    DataFusionError::Plan(sentence.into())
}

/// An error of a value.
pub(crate) fn bad_value(sentence: impl Into<String>) -> DataFusionError {
    DataFusionError::Execution(sentence.into())
}

/// A [`Definition`] in its world.
pub(crate) struct Function {
    definition: Definition,
    world: World,
    signature: Signature,
}

impl Function {
    fn new(definition: Definition, world: World) -> Self {
        let volatility = if definition.is_volatile { Volatility::Volatile } else { Volatility::Immutable };
        let signature = match definition.takes.iter().any(|kinds| kinds.is_empty()) {
            false => TypeSignature::UserDefined,
            true if definition.takes.len() == 1 => TypeSignature::Nullary,
            true => TypeSignature::OneOf(vec![TypeSignature::Nullary, TypeSignature::UserDefined]),
        };
        Self { definition, world, signature: Signature::new(signature, volatility) }
    }

    /// The arguments' types after coercion, if one of the lists fits.
    fn fitted(&self, types: &[DataType]) -> Option<Vec<DataType>> {
        self.definition.takes.iter().find_map(|kinds| fit(kinds, types))
    }

    fn misfit(&self, types: &[DataType], constants: &[Option<&ScalarValue>]) -> DataFusionError {
        let name = self.definition.name.to_uppercase();
        let given = types.iter().enumerate().map(|(place, given)| {
            let is_int = constant_int(constants, place).is_some_and(|value| i32::try_from(value).is_ok());
            if is_int { "INT".to_owned() } else { sql_name(given) }
        });
        let given: Vec<String> = given.collect();
        let takes: Vec<String> = self.definition.takes.iter().map(|kinds| shown(&name, kinds)).collect();
        unfit(format!("{name} cannot take ({}); there is {}", given.join(", "), takes.join(" and ")))
    }
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.definition.name)
    }
}

impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.definition.name == other.definition.name && self.world.zone == other.world.zone
    }
}

impl Eq for Function {}

impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.definition.name.hash(state);
    }
}

fn shown(name: &str, kinds: &[Kind]) -> String {
    let kinds: Vec<&str> = kinds.iter().map(|kind| kind.shown()).collect();
    format!("{name}({})", kinds.join(", "))
}

impl Kind {
    fn shown(self) -> &'static str {
        match self {
            Self::Text => "STRING",
            Self::Bytes => "BYTES",
            Self::Int => "INT",
            Self::Long => "BIGINT",
            Self::Double | Self::Number => "number",
            Self::Time | Self::Day => "TIMESTAMP",
            Self::Any => "any",
            Self::Rest => "..",
            Self::Same => "values of one type, ..",
            Self::Truth => "BOOLEAN",
            Self::Array | Self::Alike => "ARRAY",
            Self::Texts => "ARRAY<STRING>",
            Self::Alikes => "ARRAY, ..",
            Self::Element => "an element",
            Self::Map => "MAP",
            Self::Maps => "MAP, ..",
        }
    }

    /// What a value of `given` becomes, if it can.
    fn coerced(self, given: &DataType) -> Option<DataType> {
        use DataType as T;
        let null = matches!(given, T::Null);
        match self {
            Self::Text if null || is_text(given) => Some(T::Utf8),
            Self::Bytes if null || matches!(given, T::Binary | T::LargeBinary | T::BinaryView) => Some(T::Binary),
            // Constants are BIGINT until the planner has narrowed them.
            Self::Int if null || given.is_integer() => Some(T::Int32),
            Self::Long if null || given.is_integer() => Some(T::Int64),
            Self::Double if null || given.is_numeric() => Some(T::Float64),
            Self::Number if null => Some(T::Int32),
            Self::Number if given.is_numeric() => Some(given.clone()),
            Self::Time if null || matches!(given, T::Date32) => Some(T::Timestamp(TimeUnit::Millisecond, None)),
            Self::Time | Self::Day if matches!(given, T::Timestamp(TimeUnit::Second, _)) => None,
            Self::Time | Self::Day if matches!(given, T::Timestamp(..)) => Some(given.clone()),
            Self::Day if null || matches!(given, T::Date32) => Some(T::Date32),
            Self::Any | Self::Rest | Self::Element => Some(given.clone()),
            Self::Truth if null || matches!(given, T::Boolean) => Some(T::Boolean),
            Self::Array | Self::Alike if matches!(given, T::List(_)) => Some(given.clone()),
            Self::Texts => element::texts(given),
            Self::Map if matches!(given, T::Map(..)) => Some(given.clone()),
            _ => None,
        }
    }
}

pub(crate) fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn fit(kinds: &[Kind], types: &[DataType]) -> Option<Vec<DataType>> {
    match kinds {
        [Kind::Same] => return type_union_resolution(types).map(|one| vec![one; types.len()]),
        [Kind::Alikes] => return element::alike(&vec![Kind::Alike; types.len()], types),
        [Kind::Maps] => return element::maps(types),
        _ => {}
    }
    let open = kinds.last() == Some(&Kind::Rest);
    let fits = if open { types.len() + 1 >= kinds.len() } else { types.len() == kinds.len() };
    let kinds = kinds.iter().copied().chain(std::iter::repeat(Kind::Rest));
    let kinds: Vec<Kind> = if fits { kinds.take(types.len()).collect() } else { return None };
    let coerced = kinds.iter().zip(types).map(|(kind, given)| kind.coerced(given)).collect::<Option<Vec<_>>>()?;
    element::alike(&kinds, &coerced)
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.definition.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Err(DataFusionError::Internal(format!("{} asks for fields", self.definition.name)))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let types: Vec<DataType> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        if self.fitted(&types).is_none_or(|fitted| fitted != types) {
            return Err(self.misfit(&types, args.scalar_arguments));
        }
        if let Some(check) = self.definition.check {
            check(args.scalar_arguments)?;
        }
        let data_type = match self.definition.gives {
            Gives::Text => DataType::Utf8,
            Gives::Bytes => DataType::Binary,
            Gives::Int => DataType::Int32,
            Gives::Long => DataType::Int64,
            Gives::Double => DataType::Float64,
            Gives::Truth => DataType::Boolean,
            Gives::Date => DataType::Date32,
            Gives::Timestamp => DataType::Timestamp(TimeUnit::Millisecond, None),
            Gives::Instant => DataType::Timestamp(TimeUnit::Millisecond, Some(Arc::from(super::UTC))),
            Gives::Computed(data_type) => data_type(args.arg_fields, args.scalar_arguments)?,
        };
        Ok(Arc::new(Field::new(self.definition.name, data_type, !self.definition.is_volatile)))
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        // What does not fit is refused by `return_field_from_args`, whose error is passed on as it is.
        Ok(self.fitted(types).unwrap_or_else(|| types.to_vec()))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let all_constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let once = all_constant && !self.definition.is_volatile;
        let rows = if once { 1 } else { args.number_rows };
        let arguments =
            Arguments { values: &args.args, rows, world: &self.world, gives: args.return_field.data_type() };
        let array = (self.definition.run)(&arguments)?;
        if once { ScalarValue::try_from_array(&array, 0).map(ColumnarValue::Scalar) } else { Ok(array.into()) }
    }
}

/// What a call is given.
pub(crate) struct Arguments<'a> {
    pub(crate) values: &'a [ColumnarValue],
    pub(crate) rows: usize,
    pub(crate) world: &'a World,
    /// The type that must come out.
    pub(crate) gives: &'a DataType,
}

/// An argument: a column, or the same value for each row.
#[derive(Debug, Clone)]
pub(crate) enum Argument<A, V> {
    Column(A),
    Constant(Option<V>),
}

pub(crate) type Texts<'a> = Argument<&'a StringArray, &'a str>;
pub(crate) type Longs<'a> = Argument<&'a Int64Array, i64>;
pub(crate) type Ints<'a> = Argument<&'a Int32Array, i32>;
pub(crate) type Doubles<'a> = Argument<&'a Float64Array, f64>;
pub(crate) type ManyBytes<'a> = Argument<&'a BinaryArray, &'a [u8]>;

macro_rules! rows {
    ($array:ty, $value:ty) => {
        impl<'a> Argument<&'a $array, $value> {
            /// The value of a row.
            #[inline]
            pub(crate) fn get(&self, row: usize) -> Option<$value> {
                match self {
                    Self::Column(array) => array.is_valid(row).then(|| array.value(row)),
                    Self::Constant(value) => *value,
                }
            }
        }
    };
}

rows!(StringArray, &'a str);
rows!(Int64Array, i64);
rows!(Int32Array, i32);
rows!(Float64Array, f64);
rows!(BinaryArray, &'a [u8]);

impl<'a> Arguments<'a> {
    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    /// The argument at `place`.
    pub(crate) fn value(&self, place: usize) -> Result<&'a ColumnarValue> {
        self.values.get(place).ok_or_else(|| DataFusionError::Internal(format!("argument {place} is missing")))
    }

    /// The argument at `place` as a column.
    pub(crate) fn array(&self, place: usize) -> Result<ArrayRef> {
        self.value(place)?.to_array(self.rows)
    }

    pub(crate) fn text(&self, place: usize) -> Result<Texts<'a>> {
        match self.value(place)? {
            ColumnarValue::Array(array) => array.as_string_opt().map(Argument::Column).ok_or_else(|| wrong(place)),
            ColumnarValue::Scalar(ScalarValue::Utf8(value)) => Ok(Argument::Constant(value.as_deref())),
            ColumnarValue::Scalar(_) => Err(wrong(place)),
        }
    }

    /// The text at `place`, or the same text for each row where the call has none.
    pub(crate) fn text_or(&self, place: usize, default: &'static str) -> Result<Texts<'a>> {
        if place < self.len() { self.text(place) } else { Ok(Argument::Constant(Some(default))) }
    }

    pub(crate) fn long(&self, place: usize) -> Result<Longs<'a>> {
        match self.value(place)? {
            ColumnarValue::Array(array) => array.as_primitive_opt().map(Argument::Column).ok_or_else(|| wrong(place)),
            ColumnarValue::Scalar(ScalarValue::Int64(value)) => Ok(Argument::Constant(*value)),
            ColumnarValue::Scalar(_) => Err(wrong(place)),
        }
    }

    pub(crate) fn int(&self, place: usize) -> Result<Ints<'a>> {
        match self.value(place)? {
            ColumnarValue::Array(array) => array.as_primitive_opt().map(Argument::Column).ok_or_else(|| wrong(place)),
            ColumnarValue::Scalar(ScalarValue::Int32(value)) => Ok(Argument::Constant(*value)),
            ColumnarValue::Scalar(_) => Err(wrong(place)),
        }
    }

    /// The number at `place`, or the same for each row where the call has none.
    pub(crate) fn int_or(&self, place: usize, default: i32) -> Result<Ints<'a>> {
        if place < self.len() { self.int(place) } else { Ok(Argument::Constant(Some(default))) }
    }

    pub(crate) fn double(&self, place: usize) -> Result<Doubles<'a>> {
        match self.value(place)? {
            ColumnarValue::Array(array) => array.as_primitive_opt().map(Argument::Column).ok_or_else(|| wrong(place)),
            ColumnarValue::Scalar(ScalarValue::Float64(value)) => Ok(Argument::Constant(*value)),
            ColumnarValue::Scalar(_) => Err(wrong(place)),
        }
    }

    pub(crate) fn bytes(&self, place: usize) -> Result<ManyBytes<'a>> {
        match self.value(place)? {
            ColumnarValue::Array(array) => array.as_binary_opt().map(Argument::Column).ok_or_else(|| wrong(place)),
            ColumnarValue::Scalar(ScalarValue::Binary(value)) => Ok(Argument::Constant(value.as_deref())),
            ColumnarValue::Scalar(_) => Err(wrong(place)),
        }
    }

    /// A column of texts: `write` appends a row's text, or says that it is NULL.
    pub(crate) fn write_texts(
        &self,
        mut write: impl FnMut(usize, &mut StringBuilder) -> Result<Option<()>>,
    ) -> Result<ArrayRef> {
        let mut out = StringBuilder::with_capacity(self.rows, self.rows * 16);
        for row in 0..self.rows {
            match write(row, &mut out)? {
                Some(()) => out.append_value(""),
                None => out.append_null(),
            }
        }
        Ok(Arc::new(out.finish()))
    }

    /// A column of BOOLEANs, row by row.
    pub(crate) fn truths(&self, each: impl FnMut(usize) -> Option<bool>) -> Result<ArrayRef> {
        Ok(Arc::new((0..self.rows).map(each).collect::<BooleanArray>()))
    }

    /// A column of INTs, row by row.
    pub(crate) fn ints(&self, each: impl FnMut(usize) -> Result<Option<i32>>) -> Result<ArrayRef> {
        Ok(Arc::new((0..self.rows).map(each).collect::<Result<Int32Array>>()?))
    }

    /// A column of BIGINTs, row by row.
    pub(crate) fn longs(&self, each: impl FnMut(usize) -> Result<Option<i64>>) -> Result<ArrayRef> {
        Ok(Arc::new((0..self.rows).map(each).collect::<Result<Int64Array>>()?))
    }

    /// A column of DOUBLEs, row by row.
    pub(crate) fn doubles(&self, each: impl FnMut(usize) -> Option<f64>) -> Result<ArrayRef> {
        Ok(Arc::new((0..self.rows).map(each).collect::<Float64Array>()))
    }
}

fn wrong(place: usize) -> DataFusionError {
    DataFusionError::Internal(format!("argument {place} was not brought to its type"))
}

/// The constant text at `place`, if it is one.
pub(crate) fn constant_text<'a>(constants: &[Option<&'a ScalarValue>], place: usize) -> Option<&'a str> {
    match constants.get(place)?.as_ref()? {
        ScalarValue::Utf8(Some(text)) | ScalarValue::LargeUtf8(Some(text)) | ScalarValue::Utf8View(Some(text)) => {
            Some(text)
        }
        _ => None,
    }
}

/// The constant integer at `place`, if it is one.
pub(crate) fn constant_int(constants: &[Option<&ScalarValue>], place: usize) -> Option<i64> {
    match constants.get(place)?.as_ref()? {
        ScalarValue::Int32(value) => value.map(i64::from),
        ScalarValue::Int64(value) => *value,
        _ => None,
    }
}

/// Appends to the row's text. A builder of texts takes everything.
pub(crate) fn put(out: &mut StringBuilder, text: &str) {
    let _ = std::fmt::Write::write_str(out, text);
}

/// Appends a letter to the row's text.
pub(crate) fn put_char(out: &mut StringBuilder, letter: char) {
    let _ = std::fmt::Write::write_char(out, letter);
}
