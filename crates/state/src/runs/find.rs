//! Point lookups: the rows of some keys, from the newest run to the oldest.

use std::sync::Arc;

use arrow::array::ArrayRef;
use ruslo_core::error::{Error, Result};

use crate::runs::block::Block;
use crate::runs::merge::gather;
use crate::runs::rows::{Op, SortedRows, place_of};
use crate::runs::run::Run;
use crate::runs::same::{check_types, same_rows};
use crate::runs::schema::{Kind, TableSchema};

/// The rows of the keys that were asked for.
#[derive(Debug)]
pub struct Found {
    /// The rows, all of them puts: by request, those of one key in the order of the sub-key.
    pub rows: SortedRows,
    /// Which request each row answers.
    pub requests: Vec<u32>,
}

/// A row that was found.
#[derive(Debug, Clone, Copy)]
struct Hit {
    request: u32,
    rank: (i64, u64),
    /// Of the run: 0 is the newest.
    age: u32,
    source: usize,
    row: usize,
    op: Op,
}

/// What is asked, and what was found so far.
struct Search<'a> {
    schema: &'a TableSchema,
    places: Vec<u64>,
    keys: &'a [ArrayRef],
    /// Requests that older runs may add to.
    open: Vec<u32>,
    sources: Vec<Arc<Block>>,
    hits: Vec<Hit>,
}

/// The rows of `keys` in `runs`, newest first.
pub(crate) fn find(schema: &TableSchema, runs: &[Arc<Run>], hashes: &[u64], keys: &[ArrayRef]) -> Result<Found> {
    check_types(keys, schema.key.iter().map(|field| field.data_type()))?;
    let places: Vec<_> = hashes.iter().copied().map(place_of).collect();
    if !places.is_sorted() {
        return Err(Error::internal("keys are asked for out of order"));
    }
    let open = (0..places.len() as u32).collect();
    let mut search = Search { schema, places, keys, open, sources: Vec::new(), hits: Vec::new() };
    for (age, run) in runs.iter().enumerate() {
        search.look_in(run, age as u32)?;
    }
    search.answer()
}

impl Search<'_> {
    fn look_in(&mut self, run: &Arc<Run>, age: u32) -> Result<()> {
        let (mut at, mut block): (usize, Option<(usize, usize)>) = (0, None);
        let mut closed = Vec::new();
        for index in 0..self.open.len() {
            let Some(request) = self.open.get(index).copied() else { continue };
            let Some(place) = self.places.get(request as usize).copied().filter(|place| run.may_have(*place)) else {
                continue;
            };
            at = run.block_of(place, at);
            let first_hit = self.hits.len();
            let mut number = at;
            while run.first_place(number).is_some_and(|first| first <= place) {
                let source = match block.filter(|(loaded, _)| *loaded == number) {
                    Some((_, source)) => source,
                    None => self.load(run, number)?,
                };
                block = Some((number, source));
                self.collect(source, request, place, age)?;
                number += 1;
            }
            let found = self.hits.get(first_hit..).unwrap_or_default();
            let is_last = |hit: &Hit| self.schema.kind == Kind::Value || hit.op == Op::Clear;
            if found.iter().any(is_last) {
                closed.push(request);
            }
        }
        let mut closed = closed.into_iter().peekable();
        self.open.retain(|request| closed.next_if_eq(request).is_none());
        Ok(())
    }

    fn load(&mut self, run: &Run, number: usize) -> Result<usize> {
        self.sources.push(Arc::new(run.read_block(number)?));
        Ok(self.sources.len() - 1)
    }

    /// The rows of a block that are of the request's key.
    fn collect(&mut self, source: usize, request: u32, place: u64, age: u32) -> Result<()> {
        let Some(block) = self.sources.get(source) else { return Ok(()) };
        let keys = block.columns.get(self.schema.key_columns()).unwrap_or_default();
        let mut row = block.first_at(place);
        while row < block.len() && block.place(row) == place {
            if same_rows(keys, row, self.keys, request as usize) {
                self.hits.push(Hit { request, rank: block.rank(row), age, source, row, op: block.op(row)? });
            }
            row += 1;
        }
        Ok(())
    }

    fn answer(mut self) -> Result<Found> {
        // A clear closes its request, so what was found is at its run or newer ones; it is no row itself.
        self.hits.retain(|hit| hit.op != Op::Clear);
        self.hits.sort_unstable_by_key(|hit| (hit.request, hit.rank, hit.age));
        let mut picked: Vec<Hit> = Vec::with_capacity(self.hits.len());
        let mut newest: Vec<Hit> = Vec::new();
        for hit in &self.hits {
            if newest.first().is_some_and(|other| (other.request, other.rank) != (hit.request, hit.rank)) {
                picked.extend(newest.drain(..).filter(|hit| hit.op == Op::Put));
            }
            if !newest.iter().any(|other| self.same_sub_key(other, hit)) {
                newest.push(*hit);
            }
        }
        picked.extend(newest.into_iter().filter(|hit| hit.op == Op::Put));
        let picks: Vec<_> = picked.iter().map(|hit| (hit.source, hit.row)).collect();
        let rows = gather(&self.schema.rows(), &self.sources, &picks)?;
        Ok(Found { rows, requests: picked.iter().map(|hit| hit.request).collect() })
    }

    /// Of rows of one key and rank.
    fn same_sub_key(&self, a: &Hit, b: &Hit) -> bool {
        let columns = |hit: &Hit| {
            let block = self.sources.get(hit.source)?;
            block.columns.get(self.schema.sub_key_columns())
        };
        columns(a).zip(columns(b)).is_some_and(|(one, other)| same_rows(one, a.row, other, b.row))
    }
}
