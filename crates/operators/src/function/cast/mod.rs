//! CAST and TRY_CAST where Flink's rules are not Arrow's: texts, numbers that may not fit, times in the session's zone.
//!
//! Every cast here makes NULL of what cannot be done. TRY_CAST leaves it so; CAST finds the first such row and says
//! which expression, which value and which type it was.

mod read;
mod write;

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Date32Array, Decimal128Array, Int64Array, PrimitiveArray, StringArray,
    Time32MillisecondArray,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Field, FieldRef, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    TimeUnit,
};
use arrow::util::display::array_value_to_string;
use chrono_tz::Tz;
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::calendar::{LocalZone, Moment, SECONDS_A_DAY, Times, per_second};
use super::call::{bad_value, is_text};
use super::name::sql_name;

pub(crate) use read::{date as read_date, is_number, read_moment};

/// A cast of one argument, as a function.
#[derive(Debug, Clone)]
pub struct Cast {
    to: DataType,
    is_try: bool,
    /// The expression that is cast, as the user knows it.
    label: String,
    zone: Tz,
    /// What plans call it.
    name: String,
    signature: Signature,
}

/// The function that casts `from` to `to` by Flink's rules; none where Arrow's are the same. `label` is what a message
/// calls the expression, `zone` the session's.
pub fn cast_function(from: &DataType, to: &DataType, is_try: bool, label: String, zone: Tz) -> Option<Arc<ScalarUDF>> {
    if !is_ours(from, to, zone) {
        return None;
    }
    let signature = Signature::any(1, Volatility::Immutable);
    let name = format!("{} AS {}", if is_try { "TRY_CAST" } else { "CAST" }, sql_name(to));
    Some(Arc::new(ScalarUDF::new_from_impl(Cast { to: to.clone(), is_try, label, zone, name, signature })))
}

fn is_ours(from: &DataType, to: &DataType, zone: Tz) -> bool {
    use DataType as T;
    match (from, to) {
        (T::Utf8, T::Boolean | T::Date32 | T::Time32(TimeUnit::Millisecond) | T::Timestamp(..)) => true,
        (T::Utf8, T::Int8 | T::Int16 | T::Int32 | T::Int64 | T::Float32 | T::Float64 | T::Decimal128(..)) => true,
        (T::Boolean | T::Float32 | T::Float64 | T::Timestamp(..) | T::Binary, T::Utf8) => true,
        (T::Timestamp(_, a), T::Timestamp(_, b)) => zone != Tz::UTC && a.is_some() != b.is_some(),
        (T::Timestamp(_, Some(_)), T::Date32 | T::Time32(_)) | (T::Date32, T::Timestamp(_, Some(_))) => zone != Tz::UTC,
        (from, to) => may_not_fit(from, to),
    }
}

/// Whether `to`, a number, cannot hold every number of `from`.
fn may_not_fit(from: &DataType, to: &DataType) -> bool {
    match (integer_bits(from), integer_bits(to)) {
        (Some(from), Some(to)) => to < from,
        (None, Some(_)) => from.is_floating() || matches!(from, DataType::Decimal128(..)),
        (_, None) => match to {
            DataType::Decimal128(precision, scale) => match from {
                DataType::Decimal128(p, s) => {
                    scale < s || i16::from(*precision) - i16::from(*scale) < i16::from(*p) - i16::from(*s)
                }
                _ => from.is_numeric(),
            },
            _ => false,
        },
    }
}

fn integer_bits(data_type: &DataType) -> Option<usize> {
    match data_type {
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => data_type.primitive_width(),
        _ => None,
    }
}

impl Cast {
    /// The type that comes out.
    pub fn to(&self) -> &DataType {
        &self.to
    }

    /// Whether it is TRY_CAST.
    pub fn is_try(&self) -> bool {
        self.is_try
    }

    /// Casts a column.
    ///
    /// # Errors
    /// The data's fault: CAST of a value that its type cannot hold.
    pub fn run(&self, input: &ArrayRef) -> Result<ArrayRef> {
        let output = self.convert(input)?;
        if !self.is_try && output.null_count() > input.null_count() {
            return Err(self.failure(input, &output));
        }
        Ok(output)
    }

    /// The error of the first row that became NULL.
    fn failure(&self, input: &ArrayRef, output: &ArrayRef) -> DataFusionError {
        let failed = (0..input.len()).find(|row| input.is_valid(*row) && output.is_null(*row)).unwrap_or(0);
        let value = array_value_to_string(input, failed).unwrap_or_default();
        let shown: String = value.chars().take(100).collect();
        let shown = if is_text(input.data_type()) { format!("'{shown}'") } else { shown };
        let to = sql_name(&self.to);
        bad_value(format!("CAST({} AS {to}): {shown} is no {to}; TRY_CAST gives NULL for it", self.label))
    }

    fn convert(&self, input: &ArrayRef) -> Result<ArrayRef> {
        if let (DataType::Utf8, Some(texts)) = (input.data_type(), input.as_string_opt::<i32>()) {
            return self.read_texts(texts);
        }
        if self.to == DataType::Utf8 {
            return write::texts(input, self.zone);
        }
        match (input.data_type(), &self.to) {
            (
                DataType::Timestamp(_, Some(_)) | DataType::Date32,
                DataType::Timestamp(..) | DataType::Date32 | DataType::Time32(_),
            )
            | (DataType::Timestamp(_, None), DataType::Timestamp(_, Some(_))) => self.convert_times(input),
            _ => Ok(cast_with_options(input, &self.to, &CastOptions { safe: true, ..CastOptions::default() })?),
        }
    }

    fn read_texts(&self, texts: &StringArray) -> Result<ArrayRef> {
        Ok(match &self.to {
            DataType::Boolean => {
                let truths = texts.iter().map(|text| read::truth(text?));
                Arc::new(truths.collect::<BooleanArray>())
            }
            DataType::Int8 => integers::<Int8Type>(texts),
            DataType::Int16 => integers::<Int16Type>(texts),
            DataType::Int32 => integers::<Int32Type>(texts),
            DataType::Int64 => integers::<Int64Type>(texts),
            DataType::Float32 => each::<Float32Type>(texts, |text| text.trim().parse().ok()),
            DataType::Float64 => each::<Float64Type>(texts, |text| text.trim().parse().ok()),
            DataType::Decimal128(precision, scale) => {
                let numbers = texts.iter().map(|text| read::decimal(text?, *precision, *scale));
                Arc::new(numbers.collect::<Decimal128Array>().with_precision_and_scale(*precision, *scale)?)
            }
            DataType::Date32 => {
                let days = texts.iter().map(|text| read::date(text?).and_then(|days| i32::try_from(days).ok()));
                Arc::new(days.collect::<Date32Array>())
            }
            DataType::Time32(_) => {
                let times = texts.iter().map(|text| read::time(text?.trim()).map(|nanos| (nanos / 1_000_000) as i32));
                Arc::new(times.collect::<Time32MillisecondArray>())
            }
            DataType::Timestamp(unit, zone) => {
                let session = LocalZone::new(if zone.is_some() { self.zone } else { Tz::UTC });
                let values =
                    texts.iter().map(|text| self.instant(text?, zone.is_some(), &session)?.value(per_second(*unit)));
                arrow::compute::cast(&values.collect::<Int64Array>(), &self.to)?
            }
            other => return Err(DataFusionError::Internal(format!("CAST of text to {other}"))),
        })
    }

    /// A TIMESTAMP_LTZ may name its zone; a TIMESTAMP has none.
    fn instant(&self, text: &str, takes_zone: bool, session: &LocalZone) -> Option<Moment> {
        let (moment, offset) = read::moment_and_zone(text)?;
        match offset {
            Some(offset) if takes_zone => Some(Moment { seconds: moment.seconds - offset, ..moment }),
            Some(offset) if offset != 0 => None,
            _ => Some(Moment { seconds: session.to_utc(moment.seconds), ..moment }),
        }
    }

    fn convert_times(&self, input: &ArrayRef) -> Result<ArrayRef> {
        let times = Times::new(input, self.zone)?;
        let session = LocalZone::new(self.zone);
        let rows = 0..input.len();
        Ok(match &self.to {
            DataType::Date32 => {
                let days = rows.map(|row| i32::try_from(times.local(row)?.seconds.div_euclid(SECONDS_A_DAY)).ok());
                Arc::new(days.collect::<Date32Array>())
            }
            DataType::Time32(_) => {
                let millis = rows.map(|row| {
                    let moment = times.local(row)?;
                    Some((moment.seconds.rem_euclid(SECONDS_A_DAY) * 1_000 + moment.nanos / 1_000_000) as i32)
                });
                Arc::new(millis.collect::<Time32MillisecondArray>())
            }
            DataType::Timestamp(unit, zone) => {
                let values = rows.map(|row| {
                    let local = times.local(row)?;
                    let seconds = if zone.is_some() { session.to_utc(local.seconds) } else { local.seconds };
                    Moment { seconds, ..local }.value(per_second(*unit))
                });
                arrow::compute::cast(&values.collect::<Int64Array>(), &self.to)?
            }
            other => return Err(DataFusionError::Internal(format!("CAST of a time to {other}"))),
        })
    }
}

fn each<T: ArrowPrimitiveType>(texts: &StringArray, read: impl Fn(&str) -> Option<T::Native>) -> ArrayRef {
    Arc::new(texts.iter().map(|text| read(text?)).collect::<PrimitiveArray<T>>())
}

fn integers<T: ArrowPrimitiveType>(texts: &StringArray) -> ArrayRef
where
    T::Native: TryFrom<i64>,
{
    each::<T>(texts, |text| T::Native::try_from(read::integer(text)?).ok())
}

impl PartialEq for Cast {
    fn eq(&self, other: &Self) -> bool {
        self.to == other.to && self.is_try == other.is_try && self.zone == other.zone
    }
}

impl Eq for Cast {}

impl Hash for Cast {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.to.hash(state);
        self.is_try.hash(state);
    }
}

impl ScalarUDFImpl for Cast {
    fn name(&self) -> &str {
        &self.name
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        let args: Vec<String> = args.iter().map(|arg| arg.schema_name().to_string()).collect();
        Ok(args.join(","))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.to.clone())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let nullable = self.is_try || args.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new("cast", self.to.clone(), nullable)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match args.args.as_slice() {
            [ColumnarValue::Array(array)] => Ok(self.run(array)?.into()),
            [ColumnarValue::Scalar(value)] => {
                let made = self.run(&value.to_array()?)?;
                ScalarValue::try_from_array(&made, 0).map(ColumnarValue::Scalar)
            }
            _ => Err(DataFusionError::Internal("CAST takes one value".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, Int64Array, TimestampMillisecondArray};

    use super::*;

    fn cast(input: ArrayRef, to: DataType, zone: &str) -> Result<ArrayRef> {
        let function = cast_function(input.data_type(), &to, false, "x".to_owned(), zone.parse().unwrap()).unwrap();
        function.inner().downcast_ref::<Cast>().unwrap().run(&input)
    }

    fn shown(array: &ArrayRef, row: usize) -> Option<String> {
        array.is_valid(row).then(|| array_value_to_string(array, row).unwrap())
    }

    fn from_text(text: &str, to: DataType) -> Option<String> {
        let input: ArrayRef = Arc::new(StringArray::from(vec![text]));
        let function = cast_function(&DataType::Utf8, &to, true, "x".to_owned(), Tz::UTC).unwrap();
        shown(&function.inner().downcast_ref::<Cast>().unwrap().run(&input).unwrap(), 0)
    }

    fn to_text(input: ArrayRef) -> Vec<Option<String>> {
        let made = cast(input, DataType::Utf8, "UTC").unwrap();
        (0..made.len()).map(|row| shown(&made, row)).collect()
    }

    #[test]
    fn texts_become_values() {
        use DataType as T;
        let millis = || T::Timestamp(TimeUnit::Millisecond, None);
        let cases = [
            (" 42 ", T::Int32, Some("42")),
            ("+7", T::Int8, Some("7")),
            ("-128", T::Int8, Some("-128")),
            ("128", T::Int8, None),
            ("123.98", T::Int32, Some("123")),
            ("12x", T::Int32, None),
            ("1.x", T::Int32, None),
            ("", T::Int64, None),
            ("-9223372036854775808", T::Int64, Some("-9223372036854775808")),
            ("9223372036854775808", T::Int64, None),
            (" 1e3 ", T::Float64, Some("1000.0")),
            ("1.005", T::Decimal128(4, 2), Some("1.01")),
            ("-1.005", T::Decimal128(4, 2), Some("-1.01")),
            ("123.4", T::Decimal128(4, 2), None),
            ("1.2e1", T::Decimal128(4, 2), Some("12.00")),
            ("99.995", T::Decimal128(4, 2), None),
            ("yes", T::Boolean, Some("true")),
            (" F ", T::Boolean, Some("false")),
            ("2", T::Boolean, None),
            ("2024-02-29", T::Date32, Some("2024-02-29")),
            ("2024-2-9 10:00", T::Date32, Some("2024-02-09")),
            ("2024-02-30", T::Date32, None),
            ("2024-02-29 10:11:12.5", millis(), Some("2024-02-29T10:11:12.500")),
            ("2024-02-29T10:11", millis(), Some("2024-02-29T10:11:00")),
            ("2024-02-29", millis(), Some("2024-02-29T00:00:00")),
            ("2024-02-29 25:00:00", millis(), None),
            ("2024-02-29 10:00:00+02:00", millis(), None),
        ];
        for (text, to, expected) in cases {
            assert_eq!(from_text(text, to.clone()).as_deref(), expected, "'{text}' to {to}");
        }
    }

    #[test]
    fn values_become_texts_as_in_java() {
        let doubles = vec![2.75, -2.0, 1e7, 1.5e-5, 0.001, 123456.7, -0.0, f64::NAN, f64::INFINITY];
        let expected = ["2.75", "-2.0", "1.0E7", "1.5E-5", "0.001", "123456.7", "-0.0", "NaN", "Infinity"];
        let made = to_text(Arc::new(Float64Array::from(doubles)));
        assert_eq!(made, expected.map(|text| Some(text.to_owned())));
        let truths = to_text(Arc::new(BooleanArray::from(vec![Some(true), None])));
        assert_eq!(truths, [Some("TRUE".to_owned()), None]);
        let times = to_text(Arc::new(TimestampMillisecondArray::from(vec![0, -1])));
        assert_eq!(times, ["1970-01-01 00:00:00.000", "1969-12-31 23:59:59.999"].map(|text| Some(text.to_owned())));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let wide: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(300)]));
        let error = cast(wide, DataType::Int8, "UTC").unwrap_err().strip_backtrace();
        assert_eq!(error, "Execution error: CAST(x AS TINYINT): 300 is no TINYINT; TRY_CAST gives NULL for it");
    }

    #[test]
    fn instants_are_shown_in_the_sessions_zone() {
        let utc = || Some(Arc::from("UTC"));
        let instants: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![0]).with_timezone("UTC"));
        let local = cast(instants.clone(), DataType::Timestamp(TimeUnit::Microsecond, None), "Asia/Tokyo").unwrap();
        assert_eq!(shown(&local, 0).unwrap(), "1970-01-01T09:00:00");
        let back = cast(local, DataType::Timestamp(TimeUnit::Millisecond, utc()), "Asia/Tokyo").unwrap();
        assert_eq!(&back, &instants);
        let day = cast(instants, DataType::Date32, "America/New_York").unwrap();
        assert_eq!(shown(&day, 0).unwrap(), "1969-12-31");
    }
}
