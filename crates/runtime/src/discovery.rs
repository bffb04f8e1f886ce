//! Looks for what has appeared in watched inputs: when that is due, and what is told of it.
//!
//! ```text
//! due ──▶ a job of the I/O pool asks the source ──▶ the coordinator adds to its ledger and to the book ──▶ readers
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ruslo_core::clock::Instant;
use ruslo_core::environment::Environment;
use ruslo_core::error::Result;
use ruslo_core::graph::NodeIndex;
use ruslo_core::metrics::OperatorMetrics;
use ruslo_core::source::{Discovered, Source};

use crate::ledger::SourceLedger;
use crate::splits::SplitBook;

/// One watched input.
pub struct Watch {
    /// Which operator of the graph.
    pub node: NodeIndex,
    /// Whom to ask.
    pub source: Arc<dyn Source>,
    /// Where splits are given out.
    pub book: Arc<SplitBook>,
    /// Where is counted what is left out.
    pub metrics: Arc<OperatorMetrics>,
    /// How long from an answer to the next question.
    pub interval: Duration,
    /// When to ask; none while an answer is awaited.
    pub next: Option<Instant>,
}

impl Watch {
    /// If it is time, a question for the I/O pool; its answer is for [`Self::take`].
    pub(crate) fn ask(
        &mut self,
        now: Instant,
        known: BTreeSet<String>,
        environment: &Environment,
    ) -> Option<impl FnOnce() -> Result<Discovered> + Send + use<>> {
        self.next.take_if(|next| *next <= now)?;
        let (source, environment) = (Arc::clone(&self.source), environment.clone());
        Some(move || source.discover(&environment, &known))
    }

    /// Takes an answer over. What is added is in the ledger before any task can speak of it, because both are told here.
    pub(crate) fn take(&mut self, discovered: Discovered, ledger: &mut SourceLedger, now: Instant) {
        for name in &discovered.too_old {
            tracing::warn!("{name}: it is not read, because it was changed too long before the newest file");
        }
        self.metrics.too_old_files.add(discovered.too_old.len());
        self.book.forget(&ledger.forget(discovered.forgettable));
        if !discovered.splits.is_empty() {
            ledger.add(self.book.add(discovered.splits));
        }
        self.next = Some(now + self.interval);
    }
}
