//! The join itself: asks, waits, gives out.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, UInt32Array};
use arrow::datatypes::{DataType, Field, Schema, UInt32Type};
use arrow::record_batch::RecordBatch;
use arrow::row::RowConverter;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use ruslo_core::clock::Instant;
use ruslo_core::epoch::Epoch;
use ruslo_core::error::{Error, Result};
use ruslo_core::io::{IoRequest, IoResult};
use ruslo_core::lookup::{Found, LookupSource};
use ruslo_core::operator::{InputId, Operator, OperatorContext, Output, Progress};
use ruslo_core::time::Timestamp;

use super::cache::{Cache, united};
use super::keys::Keys;
use super::pairs::{Matches, Progressed, next_lines};
use super::spec::LookupJoinSpec;
use super::waiting::{Answer, Waiting, restore, store};

/// Rows of a subtask that wait at a time, at most by one batch more.
const ROWS_MAX: usize = 65_536;

/// How long a request that failed is left alone at first; twice as long each time.
const BACKOFF: Duration = Duration::from_millis(100);

/// And at most.
const BACKOFF_MAX: Duration = Duration::from_secs(10);

pub(super) struct LookupJoin {
    spec: LookupJoinSpec,
    converter: RowConverter,
    cache: Option<Cache>,
    waiting: VecDeque<Waiting>,
    next_id: u64,
}

impl LookupJoin {
    pub(super) fn new(spec: LookupJoinSpec) -> Result<Self> {
        let converter = spec.keys.converter()?;
        let cache = spec.options.cache.clone().map(Cache::new);
        Ok(Self { spec, converter, cache, waiting: VecDeque::new(), next_id: 0 })
    }

    /// Takes a batch in: asks for what is not known.
    fn take_in(
        &mut self,
        rows: RecordBatch,
        before: Timestamp,
        progressed: Progressed,
        ctx: &mut OperatorContext<'_>,
    ) -> Result<()> {
        let answer = self.answer(&rows, ctx)?;
        self.waiting.push_back(Waiting { rows, before, progressed, answer });
        Ok(())
    }

    fn answer(&mut self, rows: &RecordBatch, ctx: &mut OperatorContext<'_>) -> Result<Answer> {
        // Each key once: what is found of it is there once, too, however many rows ask.
        let keys = self.spec.keys.distinct(rows, &self.converter)?;
        if let Some(found) = self.spec.source.look(&keys.keys) {
            return self.matched(keys, found?).map(Answer::Found);
        }
        let now = ctx.environment.clock.now();
        let (missing, hits) = match &mut self.cache {
            Some(cache) => cache.known(&keys, &self.converter, now)?,
            None => ((0u32..).take(keys.keys.num_rows()).collect(), None),
        };
        if missing.is_empty() {
            let none = || Found { requests: UInt32Array::from(Vec::<u32>::new()), columns: Vec::new() };
            return self.matched(keys, hits.unwrap_or_else(none)).map(Answer::Found);
        }
        let id = self.ask(&keys, &missing, Duration::ZERO, ctx)?;
        Ok(Answer::Asked { id, keys, missing, hits, tries: 1, since: now })
    }

    fn matched(&self, keys: Keys, found: Found) -> Result<Matches> {
        Matches::new(keys, found).map_err(|error| error.context(self.name()))
    }

    fn name(&self) -> String {
        format!("the lookup table '{}'", self.spec.table)
    }

    fn ask(&mut self, keys: &Keys, missing: &[u32], delay: Duration, ctx: &mut OperatorContext<'_>) -> Result<u64> {
        let (keys, source) = (keys.some(missing)?, Arc::clone(&self.spec.source));
        let id = self.next_id;
        self.next_id += 1;
        let schema = answer_schema(source.as_ref());
        let work = Box::new(move || {
            let asked = source.lookup(keys);
            Box::pin(async move { packed(&schema, asked.await?) }) as _
        });
        ctx.submit_io(IoRequest { id, work, delay, timeout: self.spec.options.timeout });
        Ok(id)
    }

    /// Books an answer, or asks once more.
    fn answered(&mut self, done: IoResult, ctx: &mut OperatorContext<'_>) -> Result<()> {
        let of_id = |waiting: &Waiting| matches!(&waiting.answer, Answer::Asked { id, .. } if *id == done.id);
        let Some(place) = self.waiting.iter().position(of_id) else { return Ok(()) };
        let Some(mut waiting) = self.waiting.remove(place) else { return Ok(()) };
        waiting.answer = match waiting.answer {
            Answer::Asked { keys, missing, hits, tries, since, .. } => match done.answer {
                Ok(answer) => {
                    let found = unpacked(&answer);
                    self.keep(&keys, &missing, &found, ctx)?;
                    Answer::Found(self.matched(keys, united(hits, &missing, found)?)?)
                }
                Err(error) if error.is_retryable() && tries <= self.spec.options.retries_max => {
                    let delay = BACKOFF.saturating_mul(1 << tries.saturating_sub(1).min(16)).min(BACKOFF_MAX);
                    let id = self.ask(&keys, &missing, delay, ctx)?;
                    Answer::Asked { id, keys, missing, hits, tries: tries + 1, since }
                }
                Err(error) => return Err(self.gave_up(&error, (&keys, &missing), (tries, since), ctx)),
            },
            found @ Answer::Found(_) => found,
        };
        self.waiting.insert(place, waiting);
        Ok(())
    }

    /// Says which table did not answer, for what, and for how long.
    fn gave_up(
        &self,
        error: &Error,
        (keys, missing): (&Keys, &[u32]),
        (tries, since): (u32, Instant),
        ctx: &OperatorContext<'_>,
    ) -> Error {
        let name = self.name();
        if !error.is_retryable() {
            return error.clone().context(name);
        }
        let first = missing.first().map(|number| shown(&keys.keys, *number as usize)).unwrap_or_default();
        let seconds = ctx.environment.clock.now().saturating_sub(since).as_secs_f64();
        Error::unavailable(format!(
            "{name} did not answer: {error}; it was asked {tries} times in {seconds:.1} s for {} keys such as {first}; see \
             to it, then resume; 'lookup.max-retries' and 'table.exec.async-lookup.timeout' say how long it is tried",
            missing.len()
        ))
    }

    fn keep(&mut self, keys: &Keys, missing: &[u32], found: &Found, ctx: &OperatorContext<'_>) -> Result<()> {
        let Some(cache) = &mut self.cache else { return Ok(()) };
        let encoded = self.converter.convert_columns(keys.some(missing)?.columns())?;
        let rows = rows_bytes(&self.waiting);
        cache.keep(&encoded, found, ctx.environment.clock.now(), |bytes| ctx.memory.may_hold((rows + bytes) as u64))
    }

    /// Gives out what may go, one piece.
    fn advance(&mut self, ctx: &mut OperatorContext<'_>, out: &mut Output) -> Result<Progress> {
        if let Some(place) = self.next_out()
            && let Some(waiting) = self.waiting.get_mut(place)
            && let Answer::Found(matches) = &waiting.answer
        {
            let (lines, after) = next_lines(&self.spec, &waiting.rows, matches, waiting.progressed, ctx.batch_rows)?;
            waiting.progressed = after;
            out.emit(lines);
            if waiting.rows_left() == 0 {
                self.waiting.remove(place);
            }
        }
        self.account(ctx)?;
        Ok(self.progress())
    }

    /// The batch whose rows may go out next.
    fn next_out(&self) -> Option<usize> {
        let is_found = |waiting: &Waiting| matches!(waiting.answer, Answer::Found(_));
        let first = self.waiting.front()?;
        if self.spec.options.is_ordered {
            return is_found(first).then_some(0);
        }
        let same = self.waiting.iter().take_while(|waiting| waiting.before == first.before);
        same.enumerate().find(|(_, waiting)| is_found(waiting)).map(|(place, _)| place)
    }

    fn progress(&self) -> Progress {
        if self.next_out().is_some() {
            return Progress::More;
        }
        let asked = self.waiting.iter().filter(|waiting| matches!(waiting.answer, Answer::Asked { .. })).count();
        let rows: usize = self.waiting.iter().map(Waiting::rows_left).sum();
        match asked >= self.spec.options.requests_max || rows >= ROWS_MAX {
            true => Progress::Waiting,
            false => Progress::Done,
        }
    }

    fn account(&self, ctx: &OperatorContext<'_>) -> Result<()> {
        let table = if ctx.subtask.index == 0 { self.spec.source.bytes() } else { 0 };
        let cached = self.cache.as_ref().map_or(0, Cache::bytes);
        ctx.metrics.waiting_rows.set(self.waiting.iter().map(Waiting::rows_left).sum());
        ctx.memory.resize(table + (rows_bytes(&self.waiting) + cached) as u64)
    }
}

fn rows_bytes(waiting: &VecDeque<Waiting>) -> usize {
    waiting.iter().map(Waiting::bytes).sum()
}

/// What an answer looks like on its way: which key each row is of, then the row.
fn answer_schema(source: &dyn LookupSource) -> Arc<Schema> {
    let request = Arc::new(Field::new("request", DataType::UInt32, false));
    let fields = source.schema();
    let fields = fields.fields().iter().map(|field| Arc::new(field.as_ref().clone().with_nullable(true)));
    Arc::new(Schema::new([request].into_iter().chain(fields).collect::<Vec<_>>()))
}

fn packed(schema: &Arc<Schema>, found: Found) -> Result<RecordBatch> {
    let requests: ArrayRef = Arc::new(found.requests);
    let columns = [requests].into_iter().chain(found.columns).collect();
    RecordBatch::try_new(Arc::clone(schema), columns)
        .map_err(|error| Error::usage(format!("it answered with other columns than it has: {error}")))
}

fn unpacked(answer: &RecordBatch) -> Found {
    let requests = answer.columns().first().and_then(|column| column.as_primitive_opt::<UInt32Type>().cloned());
    let columns = answer.columns().get(1..).unwrap_or_default().to_vec();
    Found { requests: requests.unwrap_or_else(|| UInt32Array::from(Vec::<u32>::new())), columns }
}

/// A key for people: `(7, Berlin)`.
fn shown(keys: &RecordBatch, row: usize) -> String {
    let options = FormatOptions::default().with_null("NULL");
    let value = |column: &ArrayRef| {
        let formatter = ArrayFormatter::try_new(column.as_ref(), &options).ok()?;
        (row < column.len()).then(|| formatter.value(row).to_string())
    };
    let values: Vec<String> = keys.columns().iter().filter_map(value).collect();
    match values.as_slice() {
        [one] => one.clone(),
        several => format!("({})", several.join(", ")),
    }
}

impl Operator for LookupJoin {
    fn open(&mut self, ctx: &mut OperatorContext<'_>) -> Result<()> {
        let rows_max = ctx.batch_rows.max(1);
        for (rows, progressed) in restore(&self.spec.left, ctx.state)? {
            for first in (0..rows.num_rows()).step_by(rows_max) {
                let part = rows.slice(first, rows_max.min(rows.num_rows() - first));
                let progressed = if first == 0 { progressed } else { Progressed::default() };
                self.take_in(part, Timestamp::MIN, progressed, ctx)?;
            }
        }
        self.account(ctx)
    }

    fn on_batch(
        &mut self,
        _: InputId,
        batch: RecordBatch,
        ctx: &mut OperatorContext<'_>,
        out: &mut Output,
    ) -> Result<Progress> {
        self.take_in(batch, ctx.watermark, Progressed::default(), ctx)?;
        self.advance(ctx, out)
    }

    fn on_io(&mut self, done: IoResult, ctx: &mut OperatorContext<'_>, out: &mut Output) -> Result<Progress> {
        self.answered(done, ctx)?;
        self.advance(ctx, out)
    }

    fn resume(&mut self, ctx: &mut OperatorContext<'_>, out: &mut Output) -> Result<Progress> {
        self.advance(ctx, out)
    }

    fn holds_rows(&self) -> bool {
        !self.waiting.is_empty()
    }

    fn output_watermark(&self, watermark: Timestamp) -> Timestamp {
        self.waiting.front().map_or(watermark, |waiting| waiting.before.min(watermark))
    }

    fn snapshot(&mut self, _: Epoch, ctx: &mut OperatorContext<'_>, _: &mut Output) -> Result<()> {
        store(&self.waiting, ctx.state)
    }
}
