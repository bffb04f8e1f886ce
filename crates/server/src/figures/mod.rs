//! What a job is doing, taken at one moment: what [`crate::http`] answers and [`crate::otlp`] sends.
//!
//! Nothing in it touches the job: it reads what the job counts anyway. [`metrics`] gives the figures their names.

pub(crate) mod metrics;
mod rates;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ruslo::core::clock::Instant;
use ruslo::core::graph::Partitioning;
use ruslo::core::metrics::RowCounts;
use ruslo::core::time::Timestamp;
use ruslo::{CheckpointReport, Fill, Job, JobStatus, OperatorStatus, Restarts, Role, Spent, Watcher};

use self::rates::Samples;

/// A job, as far as it can be watched.
pub(crate) struct Watched {
    name: String,
    /// None, if it is a batch job or was finished already.
    watcher: Option<Watcher>,
    begun: Instant,
    samples: Mutex<Samples>,
    dropped_exports: AtomicU64,
}

/// How often the totals that rates are made of should be taken.
pub(crate) const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// A job at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Figures {
    pub(crate) name: String,
    /// The wall clock's time.
    pub(crate) at: Timestamp,
    pub(crate) uptime: Duration,
    /// Exports of these figures that did not arrive.
    pub(crate) dropped_exports: u64,
    pub(crate) restarts: Restarts,
    pub(crate) memory_used_bytes: u64,
    pub(crate) memory_peak_bytes: u64,
    pub(crate) checkpoint: Option<(CheckpointReport, Duration)>,
    pub(crate) operators: Vec<OperatorFigures>,
    pub(crate) edges: Vec<EdgeFigures>,
}

/// An operator.
#[derive(Debug, Clone)]
pub(crate) struct OperatorFigures {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) role: Role,
    /// How long rows have been in the stream when it takes them: a half, and 99 in 100.
    pub(crate) latency: Option<(Duration, Duration)>,
    pub(crate) subtasks: Vec<SubtaskFigures>,
}

/// What a role is called.
pub(crate) fn role(role: Role) -> &'static str {
    match role {
        Role::Source => "source",
        Role::Operator => "operator",
        Role::Sink => "sink",
        Role::SideSink => "side sink",
    }
}

/// A subtask of an operator.
#[derive(Debug, Clone)]
pub(crate) struct SubtaskFigures {
    pub(crate) counts: RowCounts,
    pub(crate) too_old_files: u64,
    /// Rows in and out a second.
    pub(crate) rates: (f64, f64),
    /// Through channels; rows handed on within a task are not.
    pub(crate) bytes_in: Option<u64>,
    pub(crate) bytes_out: Option<u64>,
    /// What its task spends its time on, in milliseconds a second.
    pub(crate) busy_ms: f64,
    pub(crate) idle_ms: f64,
    pub(crate) backpressured_ms: f64,
    /// Of all its task's inputs together; a source has none.
    pub(crate) input_watermark: Option<Timestamp>,
    pub(crate) watermark: Option<Timestamp>,
    /// How far the watermark is behind the clock.
    pub(crate) watermark_lag: Option<Duration>,
    pub(crate) alignment: Duration,
}

/// An edge.
#[derive(Debug, Clone)]
pub(crate) struct EdgeFigures {
    /// Names and ids of the operators at its ends. There may be several edges between two.
    pub(crate) from: String,
    pub(crate) from_id: String,
    pub(crate) to: String,
    pub(crate) to_id: String,
    pub(crate) partitioning: &'static str,
    pub(crate) fill: Fill,
}

impl Watched {
    pub(crate) fn new(job: &Job) -> Self {
        let watcher = job.watcher();
        let begun = job.status().map_or(Instant::ZERO, |status| status.clock.now());
        let (samples, dropped_exports) = Default::default();
        Self { name: job.name().to_owned(), watcher, begun, samples, dropped_exports }
    }

    /// Takes the totals that rates are made of.
    pub(crate) fn sample(&self) {
        if let Some(watcher) = &self.watcher {
            let status = watcher.status();
            let now = status.clock.now();
            self.samples().add(now, totals(&status, now));
        }
    }

    /// An export did not arrive.
    pub(crate) fn dropped_export(&self) {
        self.dropped_exports.fetch_add(1, Ordering::Relaxed);
    }

    fn samples(&self) -> std::sync::MutexGuard<'_, Samples> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the job is doing now; none, if it cannot be watched.
    pub(crate) fn figures(&self) -> Option<Figures> {
        let watcher = self.watcher.as_ref()?;
        let status = &*watcher.status();
        let now = status.clock.now();
        let rates = self.samples().rates(now, &totals(status, now));
        let mut rates = rates.chunks_exact(TOTALS);
        let operators = status.operators.iter().enumerate();
        Some(Figures {
            name: self.name.clone(),
            at: status.clock.wall(),
            dropped_exports: self.dropped_exports.load(Ordering::Relaxed),
            restarts: watcher.restarts(),
            uptime: now.saturating_sub(self.begun),
            memory_used_bytes: status.memory.used_bytes(),
            memory_peak_bytes: status.memory.peak_bytes(),
            checkpoint: status.last_checkpoint().map(|report| (report, now.saturating_sub(report.at))),
            operators: operators.map(|(index, of)| operator(status, index, of, &mut rates, now)).collect(),
            edges: edges(status),
        })
    }
}

/// How many totals a subtask has.
const TOTALS: usize = 5;

/// Of every subtask of every operator: rows in and out, and milliseconds busy, idle and backpressured.
fn totals(status: &JobStatus, now: Instant) -> Vec<f64> {
    let of_subtask = |operator: &OperatorStatus, subtask: usize| {
        let counts = operator.metrics.get(subtask).map(|metrics| metrics.counts()).unwrap_or_default();
        let Spent { idle, busy, backpressured } =
            operator.tasks.get(subtask).map(|task| task.activity().spent(now)).unwrap_or_default();
        let millis = [busy, idle, backpressured].map(|spent| spent.as_secs_f64() * 1_000.0);
        [counts.rows_in as f64, counts.rows_out as f64].into_iter().chain(millis)
    };
    let subtasks = status.operators.iter().flat_map(|of| (0..of.metrics.len()).map(move |subtask| (of, subtask)));
    subtasks.flat_map(|(operator, subtask)| of_subtask(operator, subtask)).collect()
}

fn operator<'a>(
    status: &JobStatus,
    index: usize,
    operator: &OperatorStatus,
    rates: &mut impl Iterator<Item = &'a [f64]>,
    now: Instant,
) -> OperatorFigures {
    let subtasks = (0..operator.metrics.len()).zip(rates);
    OperatorFigures {
        id: operator.id.to_string(),
        name: operator.name.clone(),
        role: operator.role,
        latency: operator.latency(now),
        subtasks: subtasks.map(|(subtask, rates)| subtask_figures(status, index, operator, subtask, rates)).collect(),
    }
}

fn subtask_figures(
    status: &JobStatus,
    index: usize,
    operator: &OperatorStatus,
    subtask: usize,
    rates: &[f64],
) -> SubtaskFigures {
    let rate = |place: usize| rates.get(place).copied().unwrap_or_default();
    let task = operator.tasks.get(subtask);
    let told = |at: &Timestamp| *at > Timestamp::MIN && *at < Timestamp::MAX;
    let watermark = task.map(|task| task.watermark()).filter(told);
    let lag = |at: Timestamp| {
        let behind = status.clock.wall().millis().saturating_sub(at.millis());
        Duration::from_millis(u64::try_from(behind).unwrap_or_default())
    };
    let channels = |is_in: bool| {
        let edges = status.edges.iter().filter(move |edge| (if is_in { edge.to } else { edge.from }) == index);
        let channels = edges.flat_map(|edge| &edge.channels);
        let own = channels.filter(|channel| (if is_in { channel.to } else { channel.from }) == subtask);
        own.map(|channel| channel.fill()).fold(None, |sum: Option<u64>, fill| {
            let waiting = if is_in { fill.bytes as u64 } else { 0 };
            Some(sum.unwrap_or_default() + fill.bytes_sent.saturating_sub(waiting))
        })
    };
    SubtaskFigures {
        counts: operator.metrics.get(subtask).map(|metrics| metrics.counts()).unwrap_or_default(),
        too_old_files: operator.metrics.get(subtask).map(|metrics| metrics.too_old_files.get()).unwrap_or_default(),
        rates: (rate(0), rate(1)),
        bytes_in: channels(true),
        bytes_out: channels(false),
        busy_ms: rate(2),
        idle_ms: rate(3),
        backpressured_ms: rate(4),
        input_watermark: task.map(|task| task.input_watermark()).filter(told),
        watermark,
        watermark_lag: watermark.map(lag),
        alignment: task.map(|task| task.alignment()).unwrap_or_default(),
    }
}

fn edges(status: &JobStatus) -> Vec<EdgeFigures> {
    let ends = |index: usize| {
        let end = status.operators.get(index).map(|operator| (operator.name.clone(), operator.id.to_string()));
        end.unwrap_or_default()
    };
    let figures = status.edges.iter().map(|edge| {
        let ((from, from_id), (to, to_id)) = (ends(edge.from), ends(edge.to));
        let partitioning = match edge.partitioning {
            Partitioning::Forward => "forward",
            Partitioning::KeyGroup(_) => "key group",
            Partitioning::Rebalance => "rebalance",
        };
        EdgeFigures { from, from_id, to, to_id, partitioning, fill: edge.fill() }
    });
    figures.collect()
}
