//! Scenarios: what kind of pipeline, what kind of input, what kind of trouble. A seed fills in the rest.

use std::sync::Arc;
use std::time::Duration;

use ruslo_core::rng::Rng;
use ruslo_runtime::alignment::Alignment;
use ruslo_runtime::channel::Credit;
use ruslo_runtime::job::JobConfig;

use crate::changing::{final_shape, group_shape, regular_join_shape, transfers_shape, updating_top_n_shape};
use crate::dataset::{DataSpec, Dataset};
use crate::faults::{Fault, KILLS, Plan};
use crate::joined::{interval_shape, window_join_shape};
use crate::nodes::Windows;
use crate::oracle::{Expected, expect};
use crate::shape::{
    EventTime, Kind, Shape, aside_shape, diamond_shape, idle_shape, keyed_shape, random_shape, sorted_shape,
    top_n_shape, two_phase_shape, window_shape,
};
use crate::sink::Permanence;
use crate::source::Manners;
use crate::temporal::temporal_shape;

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
    /// Session windows, rescaled, with late rows and damage.
    Session,
    /// Windows that share slices, HOP and CUMULATE, as [`Scenario::Session`].
    Hop,
    /// Windows in two phases: partial groups before the exchange, as [`Scenario::Session`].
    TwoPhases,
    /// The first rows of each key and window, of which many are equal, as [`Scenario::Session`].
    TopN,
    /// All rows in the order of their time, as [`Scenario::Session`].
    Sorted,
    /// Late rows and bad records to tables of their own, as [`Scenario::Session`].
    Aside,
    /// Two tables that fall idle again and again, united, as [`Scenario::Session`].
    Idle,
    /// Sinks that show rows at once, of which none may be shown twice.
    AtMostOnce,
    /// Sinks that are slow, so that barriers overtake rows; rescaled every other time.
    SlowSink,
    /// Barriers are not aligned: rows may count twice.
    AtLeastOnce,
    /// Stopped with a savepoint, from which a new run begins at another parallelism; killed in between.
    Savepoint,
    /// Keyed tables, in and out of memory: deduplication and rows that are written over and removed; as
    /// [`Scenario::Session`].
    Keyed,
    /// Rows of two tables whose times are near each other, as [`Scenario::Session`].
    IntervalJoin,
    /// Rows of two tables in one window, as [`Scenario::Session`].
    WindowJoin,
    /// Rows beside the version of another table's row at their time, as [`Scenario::Keyed`].
    TemporalJoin,
    /// Two tables that change, joined, as [`Scenario::Keyed`].
    RegularJoin,
    /// Groups without windows, and groups of groups, as [`Scenario::Keyed`].
    GroupBy,
    /// The first rows of tables that change, as [`Scenario::Keyed`].
    UpdatingTopN,
    /// Tables that change, written by another key than theirs, or once at the end, as [`Scenario::Keyed`].
    LastRows,
    /// Money moved between accounts: no checkpoint shows any of it gone.
    Transfers,
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
    /// How long sinks take for a row.
    pub slow_sink: Option<Duration>,
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
    /// Whether stops make savepoints, and new runs begin from these.
    pub savepoints: bool,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Self; 31] = [
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
        Self::Session,
        Self::Hop,
        Self::TopN,
        Self::Sorted,
        Self::TwoPhases,
        Self::Aside,
        Self::Idle,
        Self::AtMostOnce,
        Self::SlowSink,
        Self::AtLeastOnce,
        Self::Savepoint,
        Self::Keyed,
        Self::IntervalJoin,
        Self::WindowJoin,
        Self::TemporalJoin,
        Self::RegularJoin,
        Self::GroupBy,
        Self::UpdatingTopN,
        Self::LastRows,
        Self::Transfers,
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
            Self::Session => "session",
            Self::Hop => "hop",
            Self::TwoPhases => "two_phases",
            Self::TopN => "top_n",
            Self::Sorted => "sorted",
            Self::Aside => "aside",
            Self::Idle => "idle",
            Self::AtMostOnce => "at_most_once",
            Self::SlowSink => "slow_sink",
            Self::AtLeastOnce => "at_least_once",
            Self::Savepoint => "savepoint",
            Self::Keyed => "keyed",
            Self::IntervalJoin => "interval_join",
            Self::WindowJoin => "window_join",
            Self::TemporalJoin => "temporal_join",
            Self::RegularJoin => "regular_join",
            Self::GroupBy => "group_by",
            Self::UpdatingTopN => "updating_top_n",
            Self::LastRows => "last_rows",
            Self::Transfers => "transfers",
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
        let damage = self == Self::Damage
            || (self == Self::Files && rng.one_in(2))
            || (self.is_of_one_operator() && rng.one_in(4));
        Setup {
            expected: expect(&shape, &data),
            manners: self.manners(rng),
            permanence: self.permanence(damage, rng),
            buffered: rng.one_in(2),
            slow_sink: (self == Self::SlowSink).then(|| Duration::from_millis(1 + rng.below(30) as u64)),
            config: JobConfig { memory_limit_bytes: self.memory_limit_bytes(&shape, rng), ..self.config(rng) },
            rows_per_second: rng.one_in(6).then(|| 50 + rng.below(500) as u64),
            faults: self.faults(damage),
            plans: Vec::new(),
            faulty_attempts: 2 + rng.below(6),
            rescale: matches!(self, Self::Rescale | Self::Stop | Self::Savepoint)
                || self.is_of_one_operator()
                || rng.one_in(if self == Self::SlowSink { 2 } else { 4 }),
            damage,
            to_files: self == Self::Files,
            savepoints: self == Self::Savepoint,
            shape,
            data,
        }
    }

    /// Whether it is there for one of the product's operators, and has every trouble that one process can have.
    fn is_of_one_operator(self) -> bool {
        use Scenario as S;
        matches!(self, S::Session | S::Hop | S::TwoPhases | S::TopN | S::Sorted | S::Aside | S::Idle | S::Keyed)
            || matches!(self, S::IntervalJoin | S::WindowJoin | S::TemporalJoin)
            || self.is_of_changes()
    }

    /// Whether its tables change. There is no event time then.
    fn is_of_changes(self) -> bool {
        use Scenario as S;
        matches!(self, S::RegularJoin | S::GroupBy | S::UpdatingTopN | S::LastRows | S::Transfers)
    }

    /// Whether what it keeps is in keyed tables.
    pub fn is_keyed(self) -> bool {
        matches!(self, Self::Keyed | Self::TemporalJoin) || self.is_of_changes()
    }

    /// Whether its operator's results should be half out when barriers come.
    fn is_half_out(self) -> bool {
        use Scenario as S;
        matches!(self, S::TopN | S::Sorted | S::IntervalJoin | S::WindowJoin | S::TemporalJoin)
            || matches!(self, S::RegularJoin | S::LastRows)
    }

    fn event_time(self, rng: &mut Rng) -> EventTime {
        let delay_ms = match self {
            Self::LateRows | Self::AtLeastOnce => rng.below(20),
            Self::TemporalJoin => {
                let most = [120, 120, 60_000][rng.below(3)];
                rng.below(most)
            }
            // Half of the runs have late rows, and half of those many.
            scenario if scenario.is_of_one_operator() => rng.below(120),
            _ => 20 + rng.below(100),
        };
        let window_ms = match self {
            Self::LongWork => 400,
            Self::Session => [2, 10, 40][rng.below(3)],
            Self::AtLeastOnce => [3, 7, 50][rng.below(3)],
            Self::TopN => [50, 200, 400][rng.below(3)],
            _ => [7, 50, 200][rng.below(3)],
        };
        EventTime { delay_ms: delay_ms as i64, window_ms }
    }

    fn shape(self, event_time: EventTime, rng: &mut Rng) -> Shape {
        match self {
            Self::Window | Self::LateRows | Self::LongWork => window_shape(Windows::Tumble, event_time, rng),
            Self::Session => window_shape(Windows::Session, event_time, rng),
            Self::Hop => {
                let slices = 2 + rng.below(4) as i64;
                let windows = if rng.one_in(3) { Windows::Cumulate(slices) } else { Windows::Hop(slices) };
                window_shape(windows, event_time, rng)
            }
            Self::TwoPhases => {
                let slices = 2 + rng.below(4) as i64;
                let all = [Windows::Tumble, Windows::Hop(slices), Windows::Cumulate(slices)];
                two_phase_shape(all[rng.below(3)], event_time, rng)
            }
            Self::TopN => top_n_shape(event_time, rng),
            Self::Sorted => sorted_shape(event_time, rng),
            Self::Keyed => keyed_shape(event_time, rng),
            Self::IntervalJoin => interval_shape(event_time, rng),
            Self::WindowJoin => window_join_shape(event_time, rng),
            Self::TemporalJoin => temporal_shape(event_time, rng),
            Self::RegularJoin => regular_join_shape(rng),
            Self::GroupBy => group_shape(rng),
            Self::UpdatingTopN => updating_top_n_shape(rng),
            Self::LastRows => final_shape(rng),
            Self::Transfers => transfers_shape(rng),
            Self::Aside => {
                let windows = [Windows::Tumble, Windows::Hop(3), Windows::Session];
                aside_shape(windows[rng.below(3)], event_time, rng)
            }
            Self::Idle => idle_shape(event_time, rng),
            Self::Diamond => diamond_shape(rng.one_in(2).then_some(event_time), rng),
            Self::RandomGraph => random_shape(event_time, rng),
            // Rows that went through more than one window cannot be told to be as many as they must, or more.
            Self::AtLeastOnce if rng.one_in(3) => diamond_shape(rng.one_in(2).then_some(event_time), rng),
            Self::AtLeastOnce if rng.one_in(3) => window_shape(Windows::Tumble, event_time, rng),
            Self::AtLeastOnce => Shape { falls_idle: false, ..idle_shape(event_time, rng) },
            _ => match rng.below(4) {
                0 => diamond_shape(rng.one_in(2).then_some(event_time), rng),
                1 => random_shape(event_time, rng),
                _ => window_shape(Windows::Tumble, event_time, rng),
            },
        }
    }

    fn data(self, shape: &Shape, rng: &mut Rng) -> Vec<Arc<Dataset>> {
        let sources = shape.nodes.iter().filter(|node| matches!(node.kind, Kind::Source(_))).count();
        let disorder_ms = match self {
            Self::IntervalJoin => [60, 900][rng.below(2)],
            Self::TemporalJoin => [60, 60_000][rng.below(2)],
            _ => 60,
        };
        let spec = DataSpec {
            lineages_max: if sources > 1 { 2 } else { 4 },
            rows_max: match self {
                // Their pairs are many.
                Self::RegularJoin => 60,
                scenario if scenario.is_of_changes() => 120,
                scenario if scenario.is_of_one_operator() && !scenario.is_keyed() => 120,
                _ => 200,
            },
            keys: match self {
                Self::LongWork => 40,
                Self::Session => 3 + rng.below(8),
                Self::TemporalJoin => [3, 100, 300][rng.below(3)],
                scenario if scenario.is_keyed() => {
                    [3, 20, 100, 300][1 - usize::from(self != Self::Keyed) + rng.below(3)]
                }
                Self::IntervalJoin | Self::WindowJoin => [1, 3, 10][rng.below(3)],
                _ => 1 + rng.below(8),
            },
            values: if self.is_half_out() || self.is_of_changes() {
                [5, 40][usize::from(self.is_of_changes() && rng.one_in(2))]
            } else {
                2001
            },
            disorder_ms,
            // Sorted rows wait in state by the minute, as those for a version do; those of other joins by the second: some
            // runs have several.
            pace_max: match self {
                Self::Sorted => [20, 3000][rng.below(2)],
                Self::IntervalJoin | Self::TemporalJoin => disorder_ms / 3,
                _ => 20,
            },
        };
        let data = (0..sources).zip(shape.told).map(|(source, told)| {
            let data = spec.make(100 * source as i64, rng);
            Arc::new(told.data(data, rng))
        });
        data.collect()
    }

    fn permanence(self, damage: bool, rng: &mut Rng) -> Permanence {
        if self == Self::AtLeastOnce && rng.one_in(2) {
            return Permanence::AtOnce;
        }
        if self == Self::AtMostOnce {
            return Permanence::AtOnce;
        }
        // Falling back behind a commit is only for sinks that can take rows back.
        if (damage && self != Self::Files) || rng.one_in(4) { Permanence::Retractable } else { Permanence::Final }
    }

    fn config(self, rng: &mut Rng) -> JobConfig {
        let rows_max = match self {
            Self::RandomGraph => 1,
            // What waits counts against the memory limit, too.
            scenario if scenario.is_keyed() => [1, 8][rng.below(2)],
            _ => [1, 8, 10_000][rng.below(3)],
        };
        let is_long = matches!(self, Self::LongWork | Self::AtLeastOnce)
            || self.is_half_out()
            || (self.is_of_one_operator() && rng.one_in(2));
        let batch_rows =
            if is_long { 1 + rng.below(3) } else { [1, 7, 64][rng.below(if self.is_keyed() { 2 } else { 3 })] };
        let is_frequent = self.is_of_one_operator() || self == Self::AtLeastOnce;
        let interval_max = if is_frequent { 60 } else { 200 };
        JobConfig {
            alignment: self.alignment(rng),
            credit: Credit { rows_max, bytes_max: 1 << 30 },
            batch_rows,
            checkpoint_interval: (!rng.one_in(16)).then(|| Duration::from_millis(1 + rng.below(interval_max) as u64)),
            holds_output: self == Self::AtMostOnce,
            source_idle_timeout: (self == Self::Idle).then(|| Duration::from_millis(20 + rng.below(400) as u64)),
            ..JobConfig::default()
        }
    }

    fn memory_limit_bytes(self, shape: &Shape, rng: &mut Rng) -> u64 {
        if !self.is_keyed() || rng.one_in(3) {
            return u64::MAX;
        }
        shape.tight_memory_bytes()
    }

    fn alignment(self, rng: &mut Rng) -> Alignment {
        let after = Duration::from_millis(rng.below(40) as u64);
        match self {
            Self::AtLeastOnce => Alignment::AtLeastOnce,
            Self::SlowSink => Alignment::Overtaking { after: after * 4 },
            // What is in flight where inputs fall idle fixes the parallelism, which is changed there at every restart.
            Self::Idle => Alignment::Aligned,
            // What barriers have overtaken is not in what checkpoints show.
            Self::Transfers => Alignment::Aligned,
            _ if rng.one_in(3) => Alignment::Aligned,
            _ => Alignment::Overtaking { after },
        }
    }

    fn manners(self, rng: &mut Rng) -> Manners {
        let rows_max = [1, 5, 64][rng.below(3)];
        // A barrier passes what is half out only while no rows stand before it.
        let pauses = if self.is_half_out() || self == Self::Idle { [2, 3, 5, 30] } else { [0, 0, 5, 30] };
        Manners { rows_max, pause_one_in: pauses[rng.below(4)], hang_after: None }
    }

    fn faults(self, damage: bool) -> Vec<Fault> {
        let stops = [Fault::Stop, Fault::WhileStopping];
        match self {
            Self::Stop => [&stops[..], &stops, &KILLS[..2]].concat(),
            Self::Savepoint => [&stops[..1], &stops, &KILLS[..2], &[Fault::WhileStarting]].concat(),
            scenario if scenario == Self::Rescale || scenario.is_of_one_operator() => [&KILLS[..], &stops].concat(),
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
            Self::AtMostOnce => [&KILLS[..], &stops, &[Fault::Zombie, Fault::Outside]].concat(),
            _ => KILLS.to_vec(),
        }
    }
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
        let late = |seed| Scenario::LateRows.setup(&mut Rng::seeded(seed)).expected.counted.late;
        assert!((0..20).filter(|seed| late(*seed) > 0).count() >= 12);
    }

    #[test]
    fn scenarios_of_one_operator_have_late_rows_and_results() {
        // Where tables fall idle, lateness is chance.
        let foretold = |scenario: &Scenario| scenario.is_of_one_operator() && *scenario != Scenario::Idle;
        for scenario in Scenario::ALL.into_iter().filter(foretold) {
            // Groups are few.
            let rows = if scenario.is_of_changes() { 1 } else { 10 };
            let expected = (0..40).map(|seed| scenario.setup(&mut Rng::seeded(seed)).expected);
            let (late, shown): (Vec<_>, Vec<_>) =
                expected.map(|expected| (expected.counted.late > 0, expected.sinks[0].len() > rows)).unzip();
            let count = |which: Vec<bool>| which.into_iter().filter(|is| *is).count();
            let counts = (count(late), count(shown));
            let late = if scenario.is_of_changes() { 0 } else { 8 };
            assert!(counts.0 >= late && counts.1 >= 28, "{}: {counts:?} of 40", scenario.name());
        }
    }
}
