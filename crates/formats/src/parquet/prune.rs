//! Which row groups may hold rows that are wanted: by the least and the greatest value of a column, which the footer
//! tells of each group.
//!
//! A group stays unless it is certain: figures that are missing, in the fields of old writers whose order nobody knows, of
//! a type whose order is not the column's, or that cannot be converted say nothing.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Scalar};
use arrow::compute::kernels::cmp::{gt, gt_eq, lt, lt_eq};
use arrow::datatypes::DataType;
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::basic::Type;
use ruslo_core::connector::{Bound, Comparison};
use ruslo_core::error::{Error, Result};

use crate::DecoderConfig;
use crate::blocks::guarded;
use crate::fit::convert;

/// For each row group, whether it may hold rows that are wanted.
pub(super) fn may_hold(metadata: &ArrowReaderMetadata, columns: &DecoderConfig<'_>) -> Vec<bool> {
    let mut may_hold = vec![true; metadata.metadata().num_row_groups()];
    for bound in columns.wanted {
        let unknown = |_: String| Error::data("the statistics cannot be read");
        let Ok(Some(answers)) = guarded(|| by_bound(metadata, columns, bound), unknown) else { continue };
        for (may_hold, answer) in may_hold.iter_mut().zip(answers) {
            *may_hold &= answer;
        }
    }
    may_hold
}

/// The answers of one comparison; none, if it says nothing.
fn by_bound(metadata: &ArrowReaderMetadata, columns: &DecoderConfig<'_>, bound: &Bound) -> Result<Option<Vec<bool>>> {
    let (Ok(wanted), Ok(field)) =
        (columns.table.field_with_name(&bound.column), metadata.schema().field_with_name(&bound.column))
    else {
        return Ok(None);
    };
    if !is_ordered_alike(field.data_type(), wanted.data_type()) || bound.value.data_type() != wanted.data_type() {
        return Ok(None);
    }
    let (file, groups) = (metadata.metadata(), metadata.metadata().row_groups());
    let unknown = |error: parquet::errors::ParquetError| Error::data(error.to_string());
    let converter = StatisticsConverter::try_new(&bound.column, metadata.schema(), metadata.parquet_schema());
    let converter = converter.map_err(unknown)?;
    let Some(index) = converter.parquet_column_index() else { return Ok(None) };
    let least = convert(&converter.row_group_mins(groups).map_err(unknown)?, wanted.data_type())?;
    let greatest = convert(&converter.row_group_maxes(groups).map_err(unknown)?, wanted.data_type())?;
    let answers = compare(&least, &greatest, bound)?;
    let is_known = |group: usize| {
        let column = file.row_groups().get(group).and_then(|group| group.columns().get(index));
        column.is_some_and(|column| {
            let statistics = column.statistics().is_some_and(|figures| !figures.is_min_max_deprecated());
            statistics && column.column_type() != Type::INT96
        })
    };
    let answer = |(group, answer): (usize, Option<bool>)| answer.unwrap_or(true) || !is_known(group);
    Ok(Some(answers.iter().enumerate().map(answer).collect()))
}

/// Whether the order of a type in a file is that of the column.
fn is_ordered_alike(file: &DataType, column: &DataType) -> bool {
    match (file, column) {
        (DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View, DataType::Utf8) => true,
        (DataType::Date32, DataType::Date32) | (DataType::Timestamp(..), DataType::Timestamp(..)) => true,
        (file, column) => file.is_signed_integer() && column.is_signed_integer(),
    }
}

/// Of each pair of a least and a greatest value, whether some value between them compares so; NULL, if one is missing.
fn compare(least: &ArrayRef, greatest: &ArrayRef, bound: &Bound) -> Result<BooleanArray> {
    let value = Scalar::new(Arc::clone(&bound.value));
    Ok(match bound.comparison {
        Comparison::Equal => arrow::compute::and(&lt_eq(least, &value)?, &gt_eq(greatest, &value)?)?,
        Comparison::Less => lt(least, &value)?,
        Comparison::LessOrEqual => lt_eq(least, &value)?,
        Comparison::Greater => gt(greatest, &value)?,
        Comparison::GreaterOrEqual => gt_eq(greatest, &value)?,
    })
}
