//! Types as SQL spells them, for messages.

use arrow::datatypes::{DataType, TimeUnit};

/// How SQL spells a type.
pub(crate) fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "BOOLEAN".to_owned(),
        DataType::Int8 => "TINYINT".to_owned(),
        DataType::Int16 => "SMALLINT".to_owned(),
        DataType::Int32 => "INT".to_owned(),
        DataType::Int64 => "BIGINT".to_owned(),
        DataType::Float32 => "FLOAT".to_owned(),
        DataType::Float64 => "DOUBLE".to_owned(),
        DataType::Utf8 => "STRING".to_owned(),
        DataType::Binary => "BYTES".to_owned(),
        DataType::Date32 => "DATE".to_owned(),
        DataType::Time32(unit) | DataType::Time64(unit) => format!("TIME({})", digits(*unit)),
        DataType::Timestamp(unit, None) => format!("TIMESTAMP({})", digits(*unit)),
        DataType::Timestamp(unit, Some(_)) => format!("TIMESTAMP_LTZ({})", digits(*unit)),
        DataType::Decimal128(precision, scale) => format!("DECIMAL({precision}, {scale})"),
        DataType::List(item) => format!("ARRAY<{}>", type_name(item.data_type())),
        DataType::Struct(_) => "ROW<..>".to_owned(),
        DataType::Map(..) => "MAP<..>".to_owned(),
        DataType::Dictionary(_, values) => type_name(values),
        DataType::FixedSizeBinary(length) => format!("BINARY({length})"),
        DataType::Union(..) => "a union of several types".to_owned(),
        other => other.to_string(),
    }
}

fn digits(unit: TimeUnit) -> u8 {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_spelt_as_in_sql() {
        assert_eq!(type_name(&DataType::Int64), "BIGINT");
        assert_eq!(type_name(&DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))), "TIMESTAMP_LTZ(3)");
        assert_eq!(type_name(&DataType::new_list(DataType::Int32, true)), "ARRAY<INT>");
        assert_eq!(type_name(&DataType::Decimal128(10, 2)), "DECIMAL(10, 2)");
    }
}
