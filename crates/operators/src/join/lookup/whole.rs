//! A table that is read to its end and kept in memory by key: for connectors that can be read but not asked.
//!
//! It is read when it is asked for the first time, and again when that is due: after so long, or when its splits are not
//! those that were read (files have sizes and times in theirs). Until the new one is there, whoever asks waits.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, SortField};
use ruslo_core::clock::Instant;
use ruslo_core::environment::Environment;
use ruslo_core::error::{Error, Result};
use ruslo_core::io::IoFuture;
use ruslo_core::lookup::{Found, LookupSource};
use ruslo_core::memory::batch_bytes;
use ruslo_core::schema::visible;
use ruslo_core::source::{Budget, Polled, RowTime, Source, Split, SplitWatermark};

/// When a table is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// When it was looked at so long ago and has changed since.
    WhenChanged(Duration),
    /// So long after it was read.
    Every(Duration),
}

/// Rows that are read at a time.
const BATCH_ROWS: usize = 8_192;

/// What an entry of the index costs beside its key, about.
const ENTRY_BYTES: usize = 56;

/// A table in memory.
pub struct WholeTable {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    source: Arc<dyn Source>,
    row_time: Option<Arc<dyn RowTime>>,
    environment: Environment,
    schema: SchemaRef,
    /// Places of the key's columns in the schema.
    keys: Vec<usize>,
    reload: Reload,
    /// The table, and when to look again.
    loaded: RwLock<Option<(Arc<Loaded>, Instant)>>,
    /// Held by whoever reads.
    loading: Mutex<()>,
}

/// A table as it was read.
struct Loaded {
    splits: Vec<Split>,
    /// The rows, those of one key together.
    rows: RecordBatch,
    index: HashMap<Box<[u8]>, Range<u32>>,
    converter: RowConverter,
    bytes: u64,
}

impl WholeTable {
    /// The table `name`, which is read from `source`; its computed columns come from `row_time`.
    ///
    /// # Errors
    /// `Usage`, if the input has no end or a column cannot be a key.
    pub fn new(
        name: &str,
        (source, row_time): (Arc<dyn Source>, Option<Arc<dyn RowTime>>),
        keys: Vec<usize>,
        reload: Reload,
        environment: &Environment,
    ) -> Result<Self> {
        if !source.is_bounded() || source.monitor_interval().is_some() {
            return Err(Error::usage(format!("the table '{name}' has no end, so it cannot be kept for lookups")));
        }
        if source.tells_changes() {
            return Err(Error::usage(format!("the table '{name}' holds changes, so it cannot be kept for lookups")));
        }
        let schema = row_time.as_ref().map_or_else(|| source.schema(), |row_time| row_time.schema());
        converter(&schema, &keys)?;
        let (loaded, loading) = Default::default();
        let (name, environment) = (name.to_owned(), environment.clone());
        let inner = Inner { name, source, row_time, environment, schema, keys, reload, loaded, loading };
        Ok(Self { inner: Arc::new(inner) })
    }
}

fn converter(schema: &SchemaRef, keys: &[usize]) -> Result<RowConverter> {
    let fields = keys.iter().filter_map(|key| schema.fields().get(*key));
    let fields: Vec<_> = fields.map(|field| SortField::new(field.data_type().clone())).collect();
    if fields.is_empty() || fields.len() != keys.len() {
        return Err(Error::internal("the key of a lookup is not among the table's columns"));
    }
    Ok(RowConverter::new(fields)?)
}

impl Inner {
    fn current(&self) -> Option<(Arc<Loaded>, Instant)> {
        self.loaded.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn reading(&self) -> MutexGuard<'_, ()> {
        self.loading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn current_if_fresh(&self) -> Option<Arc<Loaded>> {
        let (loaded, due) = self.current()?;
        (self.environment.clock.now() < due).then_some(loaded)
    }

    /// The table, read again if that is due.
    fn fresh(&self) -> Result<Arc<Loaded>> {
        let _reading = self.reading();
        if let Some(loaded) = self.current_if_fresh() {
            return Ok(loaded);
        }
        let splits = self.source.splits(&self.environment)?;
        let (now, Reload::WhenChanged(interval) | Reload::Every(interval)) =
            (self.environment.clock.now(), self.reload);
        let loaded = match (self.reload, self.current()) {
            (Reload::WhenChanged(_), Some((loaded, _))) if loaded.splits == splits => loaded,
            _ => Arc::new(self.load(splits)?),
        };
        let due = now.saturating_add(interval);
        *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = Some((Arc::clone(&loaded), due));
        Ok(loaded)
    }

    fn load(&self, splits: Vec<Split>) -> Result<Loaded> {
        let mut rows = Vec::new();
        for split in &splits {
            self.read(split.clone(), &mut rows)?;
        }
        let rows = concat_batches(&self.schema, &rows)?;
        Loaded::new(splits, rows, &self.keys, converter(&self.schema, &self.keys)?)
    }

    fn read(&self, split: Split, rows: &mut Vec<RecordBatch>) -> Result<()> {
        let mut reader = self.source.reader(&self.environment)?;
        reader.add_split(split, None)?;
        let mut watermark = SplitWatermark::START;
        loop {
            let batch = match reader.poll(Budget { rows_max: BATCH_ROWS })? {
                Polled::Batch { batch, .. } => batch,
                Polled::Sifted(sifted) => sifted.batch,
                Polled::Worked(_) => continue,
                Polled::Finished(_) => return Ok(()),
                Polled::Pending(_) => {
                    return Err(Error::unavailable(format!("the table '{}' cannot be read to its end now", self.name)));
                }
            };
            let batch = match &self.row_time {
                Some(row_time) => row_time.assign(batch, &mut watermark, self.environment.clock.wall())?.batch,
                None => batch,
            };
            let columns = visible(&batch).columns().iter().take(self.schema.fields().len()).cloned().collect();
            rows.push(RecordBatch::try_new(Arc::clone(&self.schema), columns)?);
        }
    }
}

impl Loaded {
    fn new(splits: Vec<Split>, rows: RecordBatch, keys: &[usize], converter: RowConverter) -> Result<Self> {
        let columns: Vec<ArrayRef> = keys.iter().filter_map(|key| rows.columns().get(*key)).cloned().collect();
        let encoded = converter.convert_columns(&columns)?;
        let is_null = |row: usize| columns.iter().any(|column| column.is_null(row));
        let mut order: Vec<u32> = (0u32..).take(rows.num_rows()).filter(|row| !is_null(*row as usize)).collect();
        // Rows of one key stay in their order.
        order.sort_by_key(|row| encoded.row(*row as usize));
        let rows = take_record_batch(&rows, &UInt32Array::from(order.clone()))?;
        let mut index: HashMap<Box<[u8]>, Range<u32>> = HashMap::new();
        let mut bytes = batch_bytes(&rows);
        let mut first = 0;
        for key in order.chunk_by(|one, next| encoded.row(*one as usize) == encoded.row(*next as usize)) {
            let Some(row) = key.first() else { continue };
            let (bytes_of_key, count) = (encoded.row(*row as usize), u32::try_from(key.len()).unwrap_or(u32::MAX));
            bytes += bytes_of_key.as_ref().len() + ENTRY_BYTES;
            index.insert(Box::from(bytes_of_key.as_ref()), first..first + count);
            first += count;
        }
        Ok(Self { splits, rows, index, converter, bytes: bytes as u64 })
    }

    fn find(&self, keys: &RecordBatch) -> Result<Found> {
        let encoded = self.converter.convert_columns(keys.columns())?;
        let (mut requests, mut rows) = (Vec::with_capacity(keys.num_rows()), Vec::with_capacity(keys.num_rows()));
        for (request, key) in (0u32..).zip(encoded.iter()) {
            let Some(of_key) = self.index.get(key.as_ref()) else { continue };
            rows.extend(of_key.clone());
            requests.extend(std::iter::repeat_n(request, of_key.len()));
        }
        let found = take_record_batch(&self.rows, &UInt32Array::from(rows))?;
        Ok(Found { requests: UInt32Array::from(requests), columns: found.columns().to_vec() })
    }
}

impl LookupSource for WholeTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.inner.schema)
    }

    fn lookup(&self, keys: RecordBatch) -> IoFuture<Result<Found>> {
        let inner = Arc::clone(&self.inner);
        Box::pin(async move { inner.fresh()?.find(&keys) })
    }

    fn look(&self, keys: &RecordBatch) -> Option<Result<Found>> {
        self.inner.current_if_fresh().map(|loaded| loaded.find(keys))
    }

    fn is_in_memory(&self) -> bool {
        true
    }

    fn bytes(&self) -> u64 {
        self.inner.current().map_or(0, |(loaded, _)| loaded.bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
    use std::task::{Context, Poll, Waker};

    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use ruslo_core::clock::VirtualClock;
    use ruslo_core::source::{Position, SourceReader};

    use super::*;

    /// A file of three rows, (1, v), (NULL, v), (1, v + 1), where v can change.
    #[derive(Default)]
    struct File {
        value: AtomicI64,
        read: AtomicUsize,
    }

    struct Reader(Option<Split>, Option<RecordBatch>);

    fn schema() -> SchemaRef {
        let number = |name| Field::new(name, DataType::Int64, true);
        Arc::new(Schema::new(vec![number("id"), number("v")]))
    }

    struct Shared(Arc<File>);

    impl Source for Shared {
        fn schema(&self) -> SchemaRef {
            schema()
        }

        fn splits(&self, _: &Environment) -> Result<Vec<Split>> {
            let description = serde_json::json!({ "changed": self.0.value.load(Ordering::SeqCst) });
            Ok(vec![Split { lineage: "file".to_owned(), sequence: 0, is_endless: false, description }])
        }

        fn reader(&self, _: &Environment) -> Result<Box<dyn SourceReader>> {
            self.0.read.fetch_add(1, Ordering::SeqCst);
            let value = self.0.value.load(Ordering::SeqCst);
            let ids: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(1)]));
            let values: ArrayRef = Arc::new(Int64Array::from(vec![value, value, value + 1]));
            Ok(Box::new(Reader(None, Some(RecordBatch::try_new(schema(), vec![ids, values])?))))
        }
    }

    impl SourceReader for Reader {
        fn add_split(&mut self, split: Split, _: Option<Position>) -> Result<()> {
            self.0 = Some(split);
            Ok(())
        }

        fn poll(&mut self, _: Budget) -> Result<Polled> {
            let split = self.0.as_ref().map(Split::id).unwrap();
            Ok(match self.1.take() {
                Some(batch) => Polled::Batch { split, batch, position: Position::Null },
                None => Polled::Finished(split),
            })
        }
    }

    struct Setting {
        file: Arc<File>,
        table: WholeTable,
        clock: Arc<VirtualClock>,
    }

    impl Setting {
        fn new(reload: Reload) -> Self {
            let (file, clock) = (Arc::new(File::default()), Arc::new(VirtualClock::default()));
            let environment = Environment { clock: Arc::clone(&clock) as _, ..Environment::local() };
            let source = Arc::new(Shared(Arc::clone(&file)));
            let table = WholeTable::new("dim", (source, None), vec![0], reload, &environment).unwrap();
            Self { file, table, clock }
        }

        /// The values under 1, and whether they were there at once.
        fn ask(&self) -> (Vec<i64>, bool) {
            let ids: ArrayRef = Arc::new(Int64Array::from(vec![9, 1]));
            let keys = RecordBatch::try_from_iter([("key0", ids)]).unwrap();
            let at_once = self.table.look(&keys);
            let is_at_once = at_once.is_some();
            let found = at_once.unwrap_or_else(|| {
                let mut asked = self.table.lookup(keys);
                let polled = asked.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                let Poll::Ready(found) = polled else { panic!("it waits for nobody") };
                found
            });
            let found = found.unwrap();
            assert!(found.requests.values().iter().all(|request| *request == 1));
            (found.columns[1].as_primitive::<Int64Type>().values().to_vec(), is_at_once)
        }
    }

    #[test]
    fn it_is_read_when_it_is_asked_first_and_again_when_it_has_changed() {
        let setting = Setting::new(Reload::WhenChanged(Duration::from_secs(1)));
        assert_eq!((setting.table.bytes(), setting.file.read.load(Ordering::SeqCst)), (0, 0));
        assert_eq!(setting.ask(), (vec![0, 1], false));
        assert_eq!(setting.ask(), (vec![0, 1], true));
        assert!(setting.table.bytes() > 0);
        setting.clock.advance(Duration::from_secs(1));
        assert_eq!(setting.ask(), (vec![0, 1], false), "it was looked at");
        assert_eq!(setting.file.read.load(Ordering::SeqCst), 1, "and not read");
        setting.file.value.store(5, Ordering::SeqCst);
        assert_eq!(setting.ask(), (vec![0, 1], true), "not looked at again so soon");
        setting.clock.advance(Duration::from_secs(1));
        assert_eq!(setting.ask(), (vec![5, 6], false));
    }

    #[test]
    fn by_an_interval_it_is_read_again_whether_it_has_changed_or_not() {
        let setting = Setting::new(Reload::Every(Duration::from_secs(60)));
        setting.ask();
        setting.file.value.store(5, Ordering::SeqCst);
        setting.clock.advance(Duration::from_secs(59));
        assert_eq!(setting.ask(), (vec![0, 1], true));
        setting.clock.advance(Duration::from_secs(1));
        assert_eq!(setting.ask(), (vec![5, 6], false));
        setting.clock.advance(Duration::from_secs(60));
        setting.ask();
        assert_eq!(setting.file.read.load(Ordering::SeqCst), 3);
    }
}
