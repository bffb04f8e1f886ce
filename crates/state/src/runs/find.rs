//! Point lookups: the rows of some keys, from the newest run to the oldest.

use std::sync::Arc;

use arrow::array::ArrayRef;
use ruslo_core::error::{Error, Result};

use crate::runs::block::Block;
use crate::runs::merge::gather;
use crate::runs::raw::Picker;
use crate::runs::rows::{Op, SortedRows, place_of};
use crate::runs::run::{Entry, Run};
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

/// A row at the place of a request, which may be of another key.
struct Candidate {
    request: u32,
    source: usize,
    row: usize,
}

/// A block that may have a key.
struct Read {
    request: u32,
    place: u64,
    entry: Entry,
}

/// What is asked, and what was found so far.
struct Search<'a> {
    schema: &'a TableSchema,
    places: Vec<u64>,
    keys: &'a [ArrayRef],
    /// Requests that older runs may add to.
    open: Vec<u32>,
    /// Copies the candidates out of blocks: those of a run become one source. Without it a block is a source.
    picker: Option<Picker>,
    sources: Vec<Arc<Block>>,
    candidates: Vec<Candidate>,
    hits: Vec<Hit>,
}

/// The rows of `keys` in `runs`, newest first.
pub(crate) fn find(schema: &TableSchema, runs: &[Arc<Run>], hashes: &[u64], keys: &[ArrayRef]) -> Result<Found> {
    check_types(keys, schema.key.iter().map(|field| field.data_type()))?;
    let places: Vec<_> = hashes.iter().copied().map(place_of).collect();
    if !places.is_sorted() {
        return Err(Error::internal("keys are asked for out of order"));
    }
    let mut search = Search {
        schema,
        open: (0..places.len() as u32).collect(),
        places,
        keys,
        picker: Picker::new(schema),
        sources: Vec::new(),
        candidates: Vec::new(),
        hits: Vec::new(),
    };
    for (age, run) in runs.iter().enumerate() {
        search.look_in(run, age as u32)?;
    }
    search.answer()
}

impl Search<'_> {
    fn look_in(&mut self, run: &Run, age: u32) -> Result<()> {
        self.walk(run, &self.reads(run)?)?;
        if let Some(picker) = self.picker.as_mut().filter(|_| !self.candidates.is_empty()) {
            let copies = picker.take(self.schema).map_err(|error| run.named(error))?;
            self.sources.push(Arc::new(copies));
        }
        self.confirm(age)
    }

    /// The blocks that may have what is asked for, in order. Filter and index are gone through before anything is read:
    /// what each key needs of them is waited for together.
    fn reads(&self, run: &Run) -> Result<Vec<Read>> {
        let asked = self.open.iter().filter_map(|request| Some((*request, *self.places.get(*request as usize)?)));
        let asked: Vec<(u32, u64, bool)> =
            asked.map(|(request, place)| (request, place, run.may_have(place))).collect();
        let (mut reads, mut at) = (Vec::new(), 0);
        for (request, place, _) in asked.into_iter().filter(|(.., may_have)| *may_have) {
            at = run.block_of(place, at);
            let mut number = at;
            while run.first_place(number).is_some_and(|first| first <= place) {
                reads.push(Read { request, place, entry: run.entry(number)? });
                number += 1;
            }
        }
        Ok(reads)
    }

    fn walk(&mut self, run: &Run, reads: &[Read]) -> Result<()> {
        let mut loaded = None;
        for Read { request, place, entry } in reads {
            if loaded != Some(entry.block) {
                self.load(run, entry)?;
                loaded = Some(entry.block);
            }
            self.collect(*request, *place).map_err(|error| run.damaged(entry.block, error))?;
        }
        Ok(())
    }

    fn load(&mut self, run: &Run, entry: &Entry) -> Result<()> {
        match &mut self.picker {
            Some(picker) => picker.load(run, entry),
            None => {
                self.sources.push(Arc::new(run.read_block(entry.block)?));
                Ok(())
            }
        }
    }

    /// The rows at a place of the block that was loaded last.
    fn collect(&mut self, request: u32, place: u64) -> Result<()> {
        let sources = self.sources.len();
        if let Some(picker) = &mut self.picker {
            for row in picker.rows_at(place) {
                self.candidates.push(Candidate { request, source: sources, row: picker.pick(row)? });
            }
            return Ok(());
        }
        let Some(block) = self.sources.last() else { return Ok(()) };
        let rows = (block.first_at(place)..block.len()).take_while(|row| block.place(*row) == place);
        self.candidates.extend(rows.map(|row| Candidate { request, source: sources - 1, row }));
        Ok(())
    }

    /// Takes those candidates that are of the keys that are asked for.
    fn confirm(&mut self, age: u32) -> Result<()> {
        let mut closed = Vec::new();
        for Candidate { request, source, row } in self.candidates.drain(..) {
            let Some(block) = self.sources.get(source) else { continue };
            let keys = block.columns.get(self.schema.key_columns()).unwrap_or_default();
            if !same_rows(keys, row, self.keys, request as usize) {
                continue;
            }
            let op = block.op(row)?;
            self.hits.push(Hit { request, rank: block.rank(row), age, source, row, op });
            if self.schema.kind == Kind::Value || op == Op::Clear {
                closed.push(request);
            }
        }
        closed.dedup();
        let mut closed = closed.into_iter().peekable();
        self.open.retain(|request| closed.next_if_eq(request).is_none());
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
