//! What is done to one attempt: faults at the edges of the protocol, of which chance picks one.

use std::io::ErrorKind as Io;

use ruslo_core::rng::Rng;

use crate::process::{Area, Effect, Op, Point, Trigger, Watch};

/// A way in which an attempt can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Killed at any step.
    AnyStep,
    /// Killed in or after the step in which a sink acknowledged.
    AfterAck,
    /// Killed at an operation on a manifest: while it is written, published, synced, read, removed.
    AtManifest,
    /// Killed at an operation on a run file.
    AtRuns,
    /// Killed when a checkpoint is durable and not committed.
    BeforeCommit,
    /// Killed when a committer has made a part visible.
    InCommit,
    /// Killed when one committer is done, and the next not.
    AfterCommit,
    /// Killed while a job is being started: reading, committing again, aborting.
    WhileStarting,
    /// Asked to stop at a checkpoint.
    Stop,
    /// Killed while it stops.
    WhileStopping,
    /// Some file operation fails once.
    IoError,
    /// The disk is full for some operations.
    DiskFull,
    /// One sync of a file or a folder fails.
    Sync,
    /// Declared dead, but goes on beside its successor.
    Zombie,
    /// The external system fails once.
    Outside,
    /// Killed at an operation on an output file.
    AtOutput,
    /// Killed when a file is given another name.
    AtRename,
}

/// Every way to be killed.
pub const KILLS: [Fault; 10] = [
    Fault::AnyStep,
    Fault::AnyStep,
    Fault::AfterAck,
    Fault::AtManifest,
    Fault::AtManifest,
    Fault::AtRuns,
    Fault::BeforeCommit,
    Fault::InCommit,
    Fault::AfterCommit,
    Fault::WhileStarting,
];

/// What happens to one attempt.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// At what the process does.
    pub triggers: Vec<Trigger>,
    /// What follows counts from when the attempt has completed so many checkpoints.
    pub checkpoints_before: u64,
    /// After so many steps it is killed.
    pub kill_at: Option<u64>,
    /// After so many steps it is asked to stop.
    pub stop_at: Option<u64>,
    /// After so many steps it is taken for dead.
    pub zombie_at: Option<u64>,
    /// If it dies, what is not synced is lost.
    pub power_cut: bool,
    /// Now and then the clock jumps by an hour.
    pub clock_jumps: bool,
}

impl Plan {
    /// Picks one of `faults`, and when; none, if there are none.
    pub fn draw(faults: &[Fault], rng: &mut Rng) -> Self {
        let mut plan = Self { power_cut: rng.one_in(2), clock_jumps: rng.one_in(8), ..Self::default() };
        if !faults.is_empty() {
            let fault = faults[rng.below(faults.len())];
            plan.checkpoints_before = if fault == Fault::WhileStarting { 0 } else { rng.below(4) as u64 };
            plan.add(fault, rng);
        }
        plan
    }

    /// Those that count before the first checkpoint, too.
    pub fn triggers_from_start(&self) -> Vec<Trigger> {
        if self.checkpoints_before == 0 { self.triggers.clone() } else { Vec::new() }
    }

    fn add(&mut self, fault: Fault, rng: &mut Rng) {
        let die = [Effect::Die, Effect::DieAfter][rng.below(2)];
        match fault {
            Fault::AnyStep => self.kill_at = Some(steps(rng)),
            Fault::AfterAck => self.trigger(Watch::Point(Point::Prepared), 12, Effect::DieAfterStep, rng),
            Fault::AtManifest => self.trigger(Watch::Area(Area::Manifests), 60, die, rng),
            Fault::AtOutput => self.trigger(Watch::Area(Area::Other), 40, die, rng),
            Fault::AtRename => self.trigger(Watch::Op(Op::Rename), 8, die, rng),
            Fault::AtRuns => self.trigger(Watch::Area(Area::Runs), 30, die, rng),
            Fault::BeforeCommit => self.trigger(Watch::Point(Point::BeforeCommit), 4, Effect::Die, rng),
            Fault::InCommit => self.trigger(Watch::Point(Point::InCommit), 4, Effect::Die, rng),
            Fault::AfterCommit => self.trigger(Watch::Point(Point::AfterCommit), 4, die, rng),
            Fault::WhileStarting => self.trigger(Watch::Starting, 25, die, rng),
            Fault::Stop => self.stop_at = Some(steps(rng)),
            Fault::WhileStopping => {
                let stop_at = steps(rng);
                self.stop_at = Some(stop_at);
                self.kill_at = Some(stop_at + rng.below(200) as u64);
            }
            Fault::IoError => self.trigger(Watch::AnyDisk, 100, Effect::Fail(Io::Other, 1), rng),
            Fault::DiskFull => {
                let times = 1 + rng.below(5) as u32;
                let op = [Op::Create, Op::Write, Op::Sync, Op::Publish][rng.below(4)];
                self.trigger(Watch::Op(op), 12, Effect::Fail(Io::StorageFull, times), rng);
            }
            Fault::Sync => self.trigger(Watch::Syncs, 20, Effect::Fail(Io::Other, 1), rng),
            Fault::Zombie => self.zombie_at = Some(steps(rng)),
            Fault::Outside => {
                let point = [Point::BeforeCommit, Point::InCommit, Point::AfterCommit, Point::BeforeAbort];
                let point = Watch::Point(point[rng.below(4)]);
                self.trigger(point, 4, Effect::Fail(Io::TimedOut, 1), rng);
            }
        }
    }

    fn trigger(&mut self, watch: Watch, skip_max: usize, effect: Effect, rng: &mut Rng) {
        // Small numbers as often as large ones: much happens early.
        let bound = 1 + rng.below(skip_max);
        self.triggers.push(Trigger { watch, skip: rng.below(bound) as u32, effect });
    }
}

fn steps(rng: &mut Rng) -> u64 {
    let bound = 1 + rng.below(600);
    1 + rng.below(bound) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_faults_nothing_happens() {
        let plan = Plan::draw(&[], &mut Rng::seeded(1));
        assert!(plan.triggers.is_empty());
        assert_eq!((plan.kill_at, plan.stop_at, plan.zombie_at), (None, None, None));
    }

    #[test]
    fn who_is_killed_while_stopping_is_asked_to_stop_first() {
        for seed in 0..100 {
            let plan = Plan::draw(&[Fault::WhileStopping], &mut Rng::seeded(seed));
            assert!(plan.stop_at <= plan.kill_at && plan.stop_at.is_some());
        }
    }
}
