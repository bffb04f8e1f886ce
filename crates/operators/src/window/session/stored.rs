//! Open sessions in state. See `docs/design/session-state.md`: what is here is stored in checkpoints.
//!
//! A snapshot appends the generations that state does not have yet, and forgets buckets of which nothing is alive. Rows
//! that died meanwhile stay in their buckets; restoring tells them by the sessions that replaced them and by how far
//! firing had come.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, UInt16Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, UInt16Type};
use arrow::record_batch::RecordBatch;
use ruslo_core::error::{Error, Result};
use ruslo_core::key_group::{KeyGroup, KeyGroupRange};
use ruslo_core::state::OperatorState;

use super::directory::{Directory, NONE, Place};
use super::generation::{Generations, times};
use crate::window::groups::GroupPlan;

/// Sessions, under the epoch whose snapshot wrote them.
pub(super) const SESSIONS: &str = "sessions";
/// Sessions that have ended, but were not out when the barrier came. One bucket.
const DUE: &str = "due";
/// How far firing has come, one row a key group. One bucket.
const FIRED: &str = "fired";
const ONE_BUCKET: i64 = 0;

/// The books over the tables of sessions.
#[derive(Default)]
pub(super) struct Stored {
    last_bucket: i64,
    bytes: usize,
}

impl Stored {
    /// Bytes that the tables hold.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Notes what the tables hold in memory now.
    pub(super) fn look_again(&mut self, state: &mut dyn OperatorState) {
        self.bytes = [SESSIONS, DUE, FIRED].into_iter().map(|name| state.buckets(name).bytes()).sum();
    }

    /// Brings state to what `generations` hold, with everything that ends at `through` or before either out or due.
    pub(super) fn store(
        &mut self,
        plan: &GroupPlan,
        generations: &mut Generations,
        due: &[RecordBatch],
        through: i64,
        at: (i64, KeyGroupRange),
        state: &mut dyn OperatorState,
    ) -> Result<()> {
        let (epoch, groups) = at;
        let bucket = epoch.max(self.last_bucket.saturating_add(1));
        let sessions = state.buckets(SESSIONS);
        for generation in generations.iter_mut().filter(|generation| generation.bucket.is_none()) {
            let rows = Generations::live_rows(generation)?;
            sessions.append(bucket, &plan.key_groups(&rows)?, &rows)?;
            generation.bucket = Some(bucket);
            self.last_bucket = bucket;
        }
        let dead = sessions.buckets().into_iter().filter(|bucket| !generations.has_bucket(*bucket));
        dead.collect::<Vec<_>>().into_iter().for_each(|bucket| sessions.expire(bucket));
        let is_empty = sessions.buckets().is_empty();

        let ended = state.buckets(DUE);
        ended.expire(ONE_BUCKET);
        due.iter().try_for_each(|rows| ended.append(ONE_BUCKET, &plan.key_groups(rows)?, rows))?;
        let fired = state.buckets(FIRED);
        fired.expire(ONE_BUCKET);
        if !is_empty {
            let groups: Vec<KeyGroup> = groups.collect();
            fired.append(ONE_BUCKET, &groups, &fired_rows(&groups, through)?)?;
        }
        self.look_again(state);
        Ok(())
    }

    /// The sessions that restored state has: opened in `directory`, their rows in `generations`.
    pub(super) fn load(
        &mut self,
        plan: &GroupPlan,
        gap: i64,
        directory: &mut Directory,
        generations: &mut Generations,
        state: &mut dyn OperatorState,
    ) -> Result<()> {
        let fired = fired_through(&state.buckets(FIRED).scan(ONE_BUCKET)?)?;
        let mut loading = Loading { plan, gap, directory, generations, keys: Vec::new() };
        for rows in state.buckets(DUE).scan(ONE_BUCKET)? {
            loading.add(rows, None, |_, _| true)?;
        }
        let table = state.buckets(SESSIONS);
        // The newest first: what an older one has of the same session is dead.
        for bucket in table.buckets().into_iter().rev() {
            self.last_bucket = self.last_bucket.max(bucket);
            for rows in table.scan(bucket)? {
                let is_open = |group, end| fired.get(&group).is_none_or(|through| *through < end);
                loading.add(rows, Some(bucket), is_open)?;
            }
        }
        self.look_again(state);
        Ok(())
    }
}

fn fired_rows(groups: &[KeyGroup], through: i64) -> Result<RecordBatch> {
    let schema = Schema::new(vec![
        Field::new("key_group", DataType::UInt16, false),
        Field::new("through", DataType::Int64, false),
    ]);
    let groups: ArrayRef = Arc::new(UInt16Array::from(groups.to_vec()));
    let through: ArrayRef = Arc::new(Int64Array::from(vec![through; groups.len()]));
    Ok(RecordBatch::try_new(Arc::new(schema), vec![groups, through])?)
}

fn fired_through(batches: &[RecordBatch]) -> Result<BTreeMap<KeyGroup, i64>> {
    let mut fired = BTreeMap::new();
    for batch in batches {
        let columns = match batch.columns() {
            [groups, through, ..] => {
                groups.as_primitive_opt::<UInt16Type>().zip(through.as_primitive_opt::<Int64Type>())
            }
            _ => None,
        };
        let (groups, through) = columns.ok_or_else(|| Error::corrupt("stored sessions do not say what was fired"))?;
        fired.extend(groups.values().iter().copied().zip(through.values().iter().copied()));
    }
    Ok(fired)
}

struct Loading<'a> {
    plan: &'a GroupPlan,
    gap: i64,
    directory: &'a mut Directory,
    generations: &'a mut Generations,
    keys: Vec<usize>,
}

impl Loading<'_> {
    /// Adds rows as a generation; dead is what is not open by (key group, end), and what a newer session covers.
    fn add(&mut self, rows: RecordBatch, bucket: Option<i64>, is_open: impl Fn(KeyGroup, i64) -> bool) -> Result<()> {
        let groups = self.plan.key_groups(&rows)?;
        let keys: Vec<ArrayRef> = rows.columns().iter().take(self.plan.key_schema().fields().len()).cloned().collect();
        self.directory.intern(&keys, rows.num_rows(), &mut self.keys)?;
        let (starts, lasts) = times(&rows)?;
        let spans = starts.values().iter().zip(lasts.values()).zip(&groups).zip(&self.keys);
        let mut sessions = Vec::with_capacity(rows.num_rows());
        for (((start, last), group), key) in spans {
            let is_open = is_open(*group, last.saturating_add(self.gap));
            sessions.push(if is_open && !self.directory.covers(*key, *start, *last) {
                self.directory.open(*key, *start, *last, Place::Group(NONE))?
            } else {
                NONE
            });
        }
        self.generations.add(rows, sessions, bucket, self.directory)
    }
}
