//! A block as bytes: a few of its rows are copied out without decoding the others.
//!
//! A point lookup wants one row of about a hundred. A [`Picker`] reads blocks one after the other into the same memory,
//! searches the hashes where they stand, and copies the cells of the rows that are wanted into columns. Where the parts
//! of a block stand is read from its message, once for all blocks whose message is the same: most of a run.

use std::ops::Range;

use arrow::array::{ArrayData, NullBufferBuilder};
use arrow::array::{ArrayRef, BooleanBufferBuilder, make_array};
use arrow::buffer::{Buffer, MutableBuffer};
use arrow::datatypes::DataType;
use ruslo_core::error::{Error, Result};

use crate::runs::block::Block;
use crate::runs::rows::place_of;
use crate::runs::run::{Entry, Run};
use crate::runs::schema::{StoredSchema as _, TableSchema};

/// How a column stands in a block, after its validity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// So many bytes a value.
    Fixed(usize),
    /// A bit a value.
    Bits,
    /// Offsets of four bytes, then bytes.
    Short,
    /// Offsets of eight bytes, then bytes.
    Long,
}

impl Shape {
    /// `None`, if a column of the type is more than that.
    fn of(data_type: &DataType) -> Option<Self> {
        match data_type {
            DataType::Boolean => Some(Self::Bits),
            DataType::Utf8 | DataType::Binary => Some(Self::Short),
            DataType::LargeUtf8 | DataType::LargeBinary => Some(Self::Long),
            DataType::FixedSizeBinary(width) => usize::try_from(*width).ok().map(Self::Fixed),
            other => other.primitive_width().map(Self::Fixed),
        }
    }
}

/// Where the parts of a column are in a block.
#[derive(Debug)]
struct Part {
    nulls: Option<Range<usize>>,
    offsets: Range<usize>,
    values: Range<usize>,
}

/// Where the parts of a block are.
#[derive(Debug, Default)]
struct Layout {
    /// The bytes that say so.
    head: Vec<u8>,
    block_bytes: usize,
    rows: usize,
    parts: Vec<Part>,
}

impl Layout {
    /// Of the block `bytes`; `None`, if it is none.
    fn of(bytes: &[u8], shapes: &[Shape]) -> Option<Self> {
        let (mark, length) = bytes.split_first_chunk::<4>()?;
        let body = usize::try_from(u32::from_le_bytes(*length.first_chunk()?)).ok()?.checked_add(8)?;
        let head = bytes.get(..body).filter(|_| *mark == [0xff; 4])?;
        let message = arrow::ipc::root_as_message(head.get(8..)?).ok()?;
        let batch = message.header_as_record_batch().filter(|batch| batch.compression().is_none())?;
        let (nodes, buffers) = (batch.nodes()?, batch.buffers()?);
        let mut buffers = buffers.iter().map(|buffer| {
            let start = body.checked_add(usize::try_from(buffer.offset()).ok()?)?;
            let end = start.checked_add(usize::try_from(buffer.length()).ok()?)?;
            (end <= bytes.len()).then_some(start..end)
        });
        let mut parts = Vec::with_capacity(shapes.len());
        for (node, shape) in nodes.iter().zip(shapes) {
            let nulls = buffers.next()??;
            let has_offsets = matches!(shape, Shape::Short | Shape::Long);
            let offsets = if has_offsets { buffers.next()?? } else { 0..0 };
            parts.push(Part { nulls: (node.null_count() > 0).then_some(nulls), offsets, values: buffers.next()?? });
        }
        let rows = usize::try_from(batch.length()).ok()?;
        let is_whole = nodes.len() == shapes.len() && buffers.next().is_none();
        is_whole.then(|| Self { head: head.to_vec(), block_bytes: bytes.len(), rows, parts })
    }

    /// Whether it is that of the block `bytes` as well.
    fn is_of(&self, bytes: &[u8]) -> bool {
        self.block_bytes == bytes.len() && !self.head.is_empty() && bytes.starts_with(&self.head)
    }
}

/// Cells of one column, copied.
#[derive(Debug)]
struct Cells {
    data_type: DataType,
    shape: Shape,
    nulls: NullBufferBuilder,
    bits: BooleanBufferBuilder,
    /// Where each value ends, if they are not of one length.
    ends: Vec<usize>,
    values: MutableBuffer,
}

impl Cells {
    fn new(data_type: DataType, shape: Shape) -> Self {
        Self {
            data_type,
            shape,
            nulls: NullBufferBuilder::new(0),
            bits: BooleanBufferBuilder::new(0),
            ends: Vec::new(),
            values: MutableBuffer::new(0),
        }
    }

    /// Copies the cell of a row; `None`, if the block is too short.
    #[inline]
    fn push(&mut self, bytes: &[u8], part: &Part, row: usize) -> Option<()> {
        let values = bytes.get(part.values.clone())?;
        match self.shape {
            Shape::Fixed(8) => self.values.extend_from_slice(values.as_chunks::<8>().0.get(row)?),
            Shape::Fixed(width) => self.values.extend_from_slice(values.get(row * width..(row + 1) * width)?),
            Shape::Bits => self.bits.append(bit(values, row)?),
            Shape::Short => {
                let offsets = bytes.get(part.offsets.clone())?.as_chunks::<4>().0;
                let offset = |row: usize| usize::try_from(i32::from_le_bytes(*offsets.get(row)?)).ok();
                self.push_bytes(values.get(offset(row)?..offset(row + 1)?)?);
            }
            Shape::Long => {
                let offsets = bytes.get(part.offsets.clone())?.as_chunks::<8>().0;
                let offset = |row: usize| usize::try_from(i64::from_le_bytes(*offsets.get(row)?)).ok();
                self.push_bytes(values.get(offset(row)?..offset(row + 1)?)?);
            }
        }
        match &part.nulls {
            Some(nulls) => self.nulls.append(bit(bytes.get(nulls.clone())?, row)?),
            None => self.nulls.append_non_null(),
        }
        Some(())
    }

    fn push_bytes(&mut self, bytes: &[u8]) {
        self.values.extend_from_slice(bytes);
        self.ends.push(self.values.len());
    }

    /// The column of `rows` cells.
    fn finish(&mut self, rows: usize) -> Result<ArrayRef> {
        let data = ArrayData::builder(self.data_type.clone()).len(rows).nulls(self.nulls.finish());
        let values = Buffer::from(std::mem::take(&mut self.values));
        let ends = std::mem::take(&mut self.ends);
        let offsets = || std::iter::once(0).chain(ends.iter().copied());
        let data = match self.shape {
            Shape::Fixed(_) => data.add_buffer(values),
            Shape::Bits => data.add_buffer(self.bits.finish().into_inner()),
            Shape::Short => {
                let too_long = |_| Error::internal("the keys of a batch have more than 2 GiB of strings");
                let offsets = offsets().map(|end| i32::try_from(end).map_err(too_long)).collect::<Result<Vec<_>>>()?;
                data.add_buffer(Buffer::from_vec(offsets)).add_buffer(values)
            }
            Shape::Long => {
                let offsets: Vec<_> = offsets().map(|end| end as i64).collect();
                data.add_buffer(Buffer::from_vec(offsets)).add_buffer(values)
            }
        };
        Ok(make_array(data.build()?))
    }
}

#[inline]
fn bit(bytes: &[u8], at: usize) -> Option<bool> {
    Some(bytes.get(at / 8)? >> (at % 8) & 1 == 1)
}

/// Copies rows out of blocks.
#[derive(Debug)]
pub(crate) struct Picker {
    shapes: Vec<Shape>,
    cells: Vec<Cells>,
    picked: usize,
    /// The block being looked at, and where things are in it.
    bytes: Vec<u8>,
    layout: Layout,
}

impl Picker {
    /// For the runs of a table; `None`, if it has columns that only a whole block gives.
    pub(crate) fn new(schema: &TableSchema) -> Option<Self> {
        let stored = schema.stored();
        let types = || stored.fields().iter().map(|field| field.data_type());
        let shapes = types().map(Shape::of).collect::<Option<Vec<_>>>()?;
        let cells = types().zip(&shapes).map(|(data_type, shape)| Cells::new(data_type.clone(), *shape)).collect();
        Some(Self { shapes, cells, picked: 0, bytes: Vec::new(), layout: Layout::default() })
    }

    /// Goes to a block of a run.
    ///
    /// # Errors
    /// `Corrupt`, naming the file; the disk's.
    pub(crate) fn load(&mut self, run: &Run, entry: &Entry) -> Result<()> {
        run.read_into(entry, &mut self.bytes)?;
        if !self.layout.is_of(&self.bytes) {
            let layout = Layout::of(&self.bytes, &self.shapes);
            self.layout = layout.ok_or_else(|| run.damaged(entry.block, damaged()))?;
        }
        Ok(())
    }

    /// The rows of the block at `place`.
    pub(crate) fn rows_at(&self, place: u64) -> Range<usize> {
        let hashes = self.layout.parts.first().and_then(|part| self.bytes.get(part.values.clone()));
        let hashes = hashes.unwrap_or_default().as_chunks::<8>().0;
        let hashes = hashes.get(..self.layout.rows).unwrap_or(hashes);
        let place_at = |hash: &[u8; 8]| place_of(u64::from_le_bytes(*hash));
        let first = hashes.partition_point(|hash| place_at(hash) < place);
        let same = hashes.iter().skip(first).take_while(|hash| place_at(hash) == place).count();
        first..first + same
    }

    /// Copies a row of the block; the number of the copy.
    ///
    /// # Errors
    /// `Corrupt`, without the file's name.
    pub(crate) fn pick(&mut self, row: usize) -> Result<usize> {
        for (cells, part) in self.cells.iter_mut().zip(&self.layout.parts) {
            cells.push(&self.bytes, part, row).ok_or_else(damaged)?;
        }
        self.picked += 1;
        Ok(self.picked - 1)
    }

    /// The copies since the last call, by number.
    ///
    /// # Errors
    /// `Corrupt`, without the file's name, if they are no values of the columns' types.
    pub(crate) fn take(&mut self, schema: &TableSchema) -> Result<Block> {
        let rows = std::mem::take(&mut self.picked);
        let columns = self.cells.iter_mut().map(|cells| cells.finish(rows)).collect::<Result<Vec<_>>>();
        Block::of(schema, columns.map_err(|error| Error::corrupt(error.to_string()))?, rows)
    }
}

fn damaged() -> Error {
    Error::corrupt("a block of a run does not read: it is no batch of rows of the table")
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use arrow::array::{
        BooleanArray, Decimal128Array, FixedSizeBinaryArray, Int16Array, Int64Array, LargeStringArray, StringArray,
        StringViewArray, TimestampMillisecondArray, UInt32Array,
    };
    use arrow::compute::take;
    use arrow::datatypes::Field;
    use ruslo_core::disk::LocalDisk;
    use ruslo_core::key_group::hash_rows;
    use ruslo_core::memory::MemoryPool;

    use super::*;
    use crate::runs::rows::batch_of;
    use crate::runs::{DirtyRows, Op, RunSet, Ttl, WorkFolder};

    const ROWS: usize = 1_000;

    /// Columns of every shape with NULLs, the last of a shape that only whole blocks give.
    fn columns() -> Vec<ArrayRef> {
        let some = |row: usize, every: usize| (!row.is_multiple_of(every)).then_some(row);
        let text = |row: usize| "x".repeat(row % 40) + &row.to_string();
        let fixed = (0..ROWS).map(|row| some(row, 4).map(|row| [row as u8, 2, 3]));
        vec![
            Arc::new(BooleanArray::from_iter((0..ROWS).map(|row| some(row, 3).map(|row| row % 2 == 0)))),
            Arc::new(Int16Array::from_iter((0..ROWS).map(|row| some(row, 5).map(|row| row as i16)))),
            Arc::new(StringArray::from_iter((0..ROWS).map(|row| some(row, 7).map(text)))),
            Arc::new(LargeStringArray::from_iter((0..ROWS).map(|row| some(row, 2).map(text)))),
            Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(fixed, 3).unwrap()),
            Arc::new(Decimal128Array::from_iter((0..ROWS).map(|row| some(row, 9).map(|row| row as i128 - 500)))),
            Arc::new(TimestampMillisecondArray::from_iter_values((0..ROWS as i64).rev()).with_timezone("UTC")),
            Arc::new(StringViewArray::from_iter((0..ROWS).map(|row| some(row, 6).map(text)))),
        ]
    }

    fn field(name: String, data_type: &DataType) -> Arc<Field> {
        Arc::new(Field::new(name, data_type.clone(), true))
    }

    /// Writes two runs of the odd and the even rows, and finds every third row and some that are in none.
    fn write_and_find(folder: &Path, values: &[ArrayRef]) {
        let fields = values.iter().enumerate().map(|(n, values)| field(format!("v{n}"), values.data_type()));
        let key = vec![field("a".to_owned(), &DataType::Utf8), field("b".to_owned(), &DataType::Int64)];
        let schema = TableSchema::value(key, fields.collect()).with_ttl(Some(Ttl { units: 8, unit_ms: 1_000 }));
        let keys = |numbers: &[i64]| -> Vec<ArrayRef> {
            let names = numbers.iter().map(|number| (number % 10 > 0).then(|| format!("name {}", number % 77)));
            vec![Arc::new(StringArray::from_iter(names)), Arc::new(Int64Array::from(numbers.to_vec()))]
        };
        let work = WorkFolder::new(Arc::new(LocalDisk), folder.to_owned());
        let runs = RunSet::new("t", schema.clone(), 0..128, work, MemoryPool::unbounded().reserve("t")).unwrap();
        for odd in 0..2 {
            let numbers: Vec<i64> = (odd..ROWS as i64).step_by(2).collect();
            let rows = UInt32Array::from_iter_values(numbers.iter().map(|number| *number as u32));
            let values = values.iter().map(|values| take(values, &rows, None).unwrap());
            let columns: Vec<_> = keys(&numbers).into_iter().chain(values).collect();
            let dirty = DirtyRows {
                hashes: hash_rows(&keys(&numbers), numbers.len()).unwrap(),
                ops: vec![Op::Put; numbers.len()],
                buckets: numbers.iter().map(|number| *number as u32).collect(),
                rows: vec![batch_of(&schema.rows(), columns, numbers.len()).unwrap()],
            };
            runs.add(dirty.sorted(&schema).unwrap()).unwrap();
        }
        let mut wanted: Vec<i64> = (0..ROWS as i64 + 300).step_by(3).collect();
        wanted.sort_by_key(|number| place_of(hash_rows(&keys(&[*number]), 1).unwrap()[0]));
        let found = runs.find(&hash_rows(&keys(&wanted), wanted.len()).unwrap(), &keys(&wanted)).unwrap();
        let there = || wanted.iter().enumerate().filter(|(_, number)| **number < ROWS as i64);
        assert_eq!(found.requests, there().map(|(request, _)| request as u32).collect::<Vec<_>>());
        assert_eq!(found.rows.buckets, there().map(|(_, number)| *number as u32).collect::<Vec<_>>());
        let rows = UInt32Array::from_iter_values(there().map(|(_, number)| *number as u32));
        for (column, values) in values.iter().enumerate() {
            assert_eq!(found.rows.rows.column(2 + column), &take(values, &rows, None).unwrap(), "column {column}");
        }
    }

    #[test]
    fn columns_of_every_shape_are_found_as_they_were_written() {
        let folder = tempfile::tempdir().unwrap();
        let mut columns = columns();
        let view = columns.pop().unwrap();
        assert!(columns.iter().all(|column| Shape::of(column.data_type()).is_some()));
        assert_eq!(Shape::of(view.data_type()), None);
        write_and_find(folder.path(), &columns);
        columns.push(view);
        write_and_find(folder.path(), &columns);
    }

    #[test]
    fn bytes_that_are_no_block_are_refused() {
        let shapes = [Shape::Fixed(8), Shape::Fixed(1)];
        let folder = tempfile::tempdir().unwrap();
        let schema = TableSchema::value(vec![field("k".to_owned(), &DataType::Int64)], vec![]);
        let work = WorkFolder::new(Arc::new(LocalDisk), folder.path().to_owned());
        let runs = RunSet::new("t", schema.clone(), 0..128, work, MemoryPool::unbounded().reserve("t")).unwrap();
        let keys: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vec![1, 2, 3]))];
        let dirty = DirtyRows {
            hashes: hash_rows(&keys, 3).unwrap(),
            ops: vec![Op::Put; 3],
            buckets: vec![0; 3],
            rows: vec![batch_of(&schema.rows(), keys, 3).unwrap()],
        };
        let run = runs.add(dirty.sorted(&schema).unwrap()).unwrap().unwrap();
        let mut bytes = Vec::new();
        run.read_into(&run.entry(0).unwrap(), &mut bytes).unwrap();
        // Of the three columns two are no block of such a table.
        assert!(Layout::of(&bytes, &shapes).is_none());
        let shapes = [Shape::Fixed(8), Shape::Fixed(1), Shape::Fixed(8)];
        let layout = Layout::of(&bytes, &shapes).unwrap();
        assert_eq!((layout.rows, layout.is_of(&bytes)), (3, true));
        for length in 0..bytes.len() {
            assert!(!layout.is_of(&bytes[..length]));
            // Padding alone may be missing.
            let cut = Layout::of(&bytes[..length], &shapes);
            assert!(cut.is_none_or(|layout| layout.parts.iter().all(|part| part.values.end <= length)));
        }
        let mut picker = Picker::new(&schema).unwrap();
        picker.load(&run, &run.entry(0).unwrap()).unwrap();
        assert_eq!(picker.pick(3).unwrap_err().kind(), ruslo_core::error::ErrorKind::Corrupt);
    }
}
