//! What a message calls a type; TYPEOF.

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::Result;

use super::call::Kind::Any;
use super::call::{Arguments, Definition, Gives, put};

pub(super) const FUNCTIONS: &[Definition] = &[Definition::new("typeof", &[&[Any]], Gives::Text, type_of)];

fn type_of(args: &Arguments<'_>) -> Result<ArrayRef> {
    let name = sql_name(&args.value(0)?.data_type());
    args.write_texts(|_, out| {
        put(out, &name);
        Ok(Some(()))
    })
}

/// The type as SQL spells it.
pub(crate) fn sql_name(data_type: &DataType) -> String {
    let digits = |unit: &TimeUnit| match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    };
    let name = match data_type {
        DataType::Null => "NULL",
        DataType::Boolean => "BOOLEAN",
        DataType::Int8 => "TINYINT",
        DataType::Int16 => "SMALLINT",
        DataType::Int32 => "INT",
        DataType::Int64 => "BIGINT",
        DataType::Float32 => "FLOAT",
        DataType::Float64 => "DOUBLE",
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "STRING",
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "BYTES",
        DataType::Date32 => "DATE",
        DataType::Time32(_) | DataType::Time64(_) => "TIME",
        DataType::Interval(_) | DataType::Duration(_) => "INTERVAL",
        DataType::Decimal128(precision, scale) => return format!("DECIMAL({precision}, {scale})"),
        DataType::Timestamp(unit, None) => return format!("TIMESTAMP({})", digits(unit)),
        DataType::Timestamp(unit, Some(_)) => return format!("TIMESTAMP_LTZ({})", digits(unit)),
        DataType::List(item) | DataType::LargeList(item) => return format!("ARRAY<{}>", sql_name(item.data_type())),
        DataType::Map(entries, _) => return map_name(entries.data_type()),
        DataType::Struct(fields) => {
            let fields: Vec<String> =
                fields.iter().map(|field| format!("{} {}", field.name(), sql_name(field.data_type()))).collect();
            return format!("ROW<{}>", fields.join(", "));
        }
        other => return other.to_string(),
    };
    name.to_owned()
}

fn map_name(entries: &DataType) -> String {
    match entries {
        DataType::Struct(fields) => {
            let names: Vec<String> = fields.iter().map(|field| sql_name(field.data_type())).collect();
            format!("MAP<{}>", names.join(", "))
        }
        other => other.to_string(),
    }
}
