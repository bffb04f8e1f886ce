//! Scenarios: what kind of pipeline, what kind of input, what kind of trouble. A seed fills in the rest.

use std::sync::Arc;
use std::time::Duration;

use ruslo_core::rng::Rng;
use ruslo_runtime::channel::Credit;
use ruslo_runtime::job::JobConfig;

use crate::dataset::{DataSpec, Dataset};
use crate::faults::{Fault, KILLS, Plan};
use crate::oracle::{Expected, expect};
use crate::shape::{EventTime, Kind, Shape, diamond_shape, random_shape, window_shape};
use crate::sink::Permanence;
use crate::source::Manners;

/// A kind of run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scenario {
    /// Source, exchange by key, tumbling window, one or two sinks in two phases.
    Window,
    /// A diamond of passing operators; every row by its identity.
    Diamond,
    /// A window over input so disordered that many rows are late, of short splits.
    LateRows,
    /// Every attempt at another parallelism, by kill or by stop.
    Rescale,
    /// Random graphs at a credit of one row.
    RandomGraph,
    /// Stopped and resumed, and killed while stopping.
    Stop,
    /// Checkpoints are damaged after a crash; sinks take back what was committed.
    Damage,
    /// Processes that were taken for dead go on beside their successor.
    Zombie,
    /// Files fail: errors, a full disk, a sync that is lost.
    DiskFaults,
    /// Operators and windows in the middle of long work when barriers come.
    LongWork,
    /// The product's own file sink, killed at its files' every operation, with damage and failing disks.
    Files,
}

/// All that follows from a scenario and a seed before the first attempt.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The graph.
    pub shape: Shape,
    /// Each source's input.
    pub data: Vec<Arc<Dataset>>,
    /// What must come out.
    pub expected: Expected,
    /// How readers behave.
    pub manners: Manners,
    /// What sinks can do.
    pub permanence: Permanence,
    /// Whether writers keep rows to themselves until the barrier.
    pub buffered: bool,
    /// How jobs run.
    pub config: JobConfig,
    /// Throttles sources.
    pub rows_per_second: Option<u64>,
    /// What may happen to an attempt.
    pub faults: Vec<Fault>,
    /// What happens to the first attempts, whatever may happen to others.
    pub plans: Vec<Plan>,
    /// So many attempts have faults.
    pub faulty_attempts: usize,
    /// Whether every attempt has its own parallelism.
    pub rescale: bool,
    /// Whether checkpoints are damaged after a crash.
    pub damage: bool,
    /// Whether rows go out through the product's file sink.
    pub to_files: bool,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Window,
        Self::Diamond,
        Self::LateRows,
        Self::Rescale,
        Self::RandomGraph,
        Self::Stop,
        Self::Damage,
        Self::Zombie,
        Self::DiskFaults,
        Self::LongWork,
        Self::Files,
    ];

    /// As it is written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Window => "window",
            Self::Diamond => "diamond",
            Self::LateRows => "late_rows",
            Self::Rescale => "rescale",
            Self::RandomGraph => "random_graph",
            Self::Stop => "stop",
            Self::Damage => "damage",
            Self::Zombie => "zombie",
            Self::DiskFaults => "disk_faults",
            Self::LongWork => "long_work",
            Self::Files => "files",
        }
    }

    /// The scenario of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scenario| scenario.name() == name)
    }

    /// What follows from `rng`.
    pub fn setup(self, rng: &mut Rng) -> Setup {
        let event_time = self.event_time(rng);
        let shape = self.shape(event_time, rng);
        let data = self.data(&shape, rng);
        let damage = self == Self::Damage || (self == Self::Files && rng.one_in(2));
        Setup {
            expected: expect(&shape, &data),
            manners: manners(rng),
            permanence: self.permanence(rng),
            buffered: rng.one_in(2),
            config: self.config(rng),
            rows_per_second: rng.one_in(6).then(|| 50 + rng.below(500) as u64),
            faults: self.faults(damage),
            plans: Vec::new(),
            faulty_attempts: 2 + rng.below(6),
            rescale: matches!(self, Self::Rescale | Self::Stop) || rng.one_in(4),
            damage,
            to_files: self == Self::Files,
            shape,
            data,
        }
    }

    fn event_time(self, rng: &mut Rng) -> EventTime {
        let delay_ms = match self {
            Self::LateRows => rng.below(20),
            _ => 20 + rng.below(100),
        };
        let window_ms = if self == Self::LongWork { 400 } else { [7, 50, 200][rng.below(3)] };
        EventTime { delay_ms: delay_ms as i64, window_ms }
    }

    fn shape(self, event_time: EventTime, rng: &mut Rng) -> Shape {
        match self {
            Self::Window | Self::LateRows | Self::LongWork => window_shape(event_time, rng),
            Self::Diamond => diamond_shape(rng.one_in(2).then_some(event_time), rng),
            Self::RandomGraph => random_shape(event_time, rng),
            _ => match rng.below(4) {
                0 => diamond_shape(rng.one_in(2).then_some(event_time), rng),
                1 => random_shape(event_time, rng),
                _ => window_shape(event_time, rng),
            },
        }
    }

    fn data(self, shape: &Shape, rng: &mut Rng) -> Vec<Arc<Dataset>> {
        let sources = shape.nodes.iter().filter(|node| matches!(node.kind, Kind::Source(_))).count();
        let spec = DataSpec {
            lineages_max: if sources > 1 { 2 } else { 4 },
            rows_max: 200,
            keys: if self == Self::LongWork { 40 } else { 1 + rng.below(8) },
            disorder_ms: 60,
        };
        (0..sources).map(|source| Arc::new(spec.make(100 * source as i64, rng))).collect()
    }

    fn permanence(self, rng: &mut Rng) -> Permanence {
        // Falling back behind a commit is only for sinks that can take rows back.
        if self == Self::Damage || rng.one_in(4) { Permanence::Retractable } else { Permanence::Final }
    }

    fn config(self, rng: &mut Rng) -> JobConfig {
        let rows_max = if self == Self::RandomGraph { 1 } else { [1, 8, 10_000][rng.below(3)] };
        let batch_rows = if self == Self::LongWork { 1 + rng.below(3) } else { [1, 7, 64][rng.below(3)] };
        JobConfig {
            credit: Credit { rows_max, bytes_max: 1 << 30 },
            batch_rows,
            checkpoint_interval: (!rng.one_in(16)).then(|| Duration::from_millis(1 + rng.below(200) as u64)),
            ..JobConfig::default()
        }
    }

    fn faults(self, damage: bool) -> Vec<Fault> {
        let stops = [Fault::Stop, Fault::WhileStopping];
        match self {
            Self::Stop => [&stops[..], &stops, &KILLS[..2]].concat(),
            Self::Rescale => [&KILLS[..], &stops].concat(),
            Self::Zombie => vec![Fault::Zombie, Fault::Zombie, Fault::Zombie, Fault::AtManifest, Fault::BeforeCommit],
            Self::DiskFaults => {
                vec![Fault::IoError, Fault::DiskFull, Fault::Sync, Fault::Sync, Fault::Outside, Fault::AtManifest]
            }
            Self::Files => {
                let files = [Fault::AtOutput, Fault::AtOutput, Fault::AtRename, Fault::AtRename, Fault::AtManifest];
                let others = [Fault::AnyStep, Fault::IoError, Fault::DiskFull, Fault::Sync, Fault::Stop];
                // Who commits what was damaged meanwhile cannot be told from who may.
                let zombies: &[_] = if damage { &[] } else { &[Fault::Zombie; 3] };
                [&files[..], &others, zombies].concat()
            }
            _ => KILLS.to_vec(),
        }
    }
}

fn manners(rng: &mut Rng) -> Manners {
    Manners { rows_max: [1, 5, 64][rng.below(3)], pause_one_in: [0, 0, 5, 30][rng.below(4)], hang_after: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_again() {
        for scenario in Scenario::ALL {
            assert_eq!(Scenario::named(scenario.name()), Some(scenario));
        }
        assert_eq!(Scenario::named("nothing"), None);
    }

    #[test]
    fn late_rows_are_late() {
        let late = |seed| Scenario::LateRows.setup(&mut Rng::seeded(seed)).expected.late;
        assert!((0..20).filter(|seed| late(*seed) > 0).count() >= 12);
    }
}
