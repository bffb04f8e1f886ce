//! A source that stops short of its end: who reads it waits for ever, however fast or slow the machine is.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ruslo_core::environment::Environment;
use ruslo_core::error::Result;
use ruslo_core::graph::{Graph, NodeKind};
use ruslo_core::source::{Budget, Discovered, Polled, Position, Source, SourceReader, Split};

struct Gated {
    inner: Arc<dyn Source>,
    /// Rows that may still be read, by all readers together.
    left: Arc<AtomicUsize>,
}

struct GatedReader {
    inner: Box<dyn SourceReader>,
    left: Arc<AtomicUsize>,
}

/// Lets `rows` rows of each source through, and no more.
pub(crate) fn gate(graph: &mut Graph, rows: usize) {
    for node in &mut graph.nodes {
        if let NodeKind::Source(node) = &mut node.kind {
            let left = Arc::new(AtomicUsize::new(rows));
            node.source = Arc::new(Gated { inner: Arc::clone(&node.source), left });
        }
    }
}

impl Source for Gated {
    fn schema(&self) -> arrow::datatypes::SchemaRef {
        self.inner.schema()
    }

    fn rows_per_second(&self) -> Option<u64> {
        self.inner.rows_per_second()
    }

    fn splits(&self, environment: &Environment) -> Result<Vec<Split>> {
        self.inner.splits(environment)
    }

    fn monitor_interval(&self) -> Option<Duration> {
        self.inner.monitor_interval()
    }

    fn discover(&self, environment: &Environment, known: &BTreeSet<String>) -> Result<Discovered> {
        self.inner.discover(environment, known)
    }

    fn reader(&self, environment: &Environment) -> Result<Box<dyn SourceReader>> {
        Ok(Box::new(GatedReader { inner: self.inner.reader(environment)?, left: Arc::clone(&self.left) }))
    }
}

impl SourceReader for GatedReader {
    fn add_split(&mut self, split: Split, position: Option<Position>) -> Result<()> {
        self.inner.add_split(split, position)
    }

    fn poll(&mut self, budget: Budget) -> Result<Polled> {
        let left = self.left.load(Ordering::Relaxed);
        if left == 0 {
            return Ok(Polled::Pending(None));
        }
        let polled = self.inner.poll(Budget { rows_max: budget.rows_max.min(left) })?;
        if let Polled::Batch { batch, .. } = &polled {
            self.left.fetch_sub(batch.num_rows(), Ordering::Relaxed);
        }
        Ok(polled)
    }
}
