//! A simulated process: alive until a trigger, or the run, kills it.
//!
//! Whatever the process touches of the world outside (files, sinks) asks [`Process::reach`] first. A [`Trigger`] waits
//! there for its moment: the k-th operation of some kind.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What is done to files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as the methods of `Disk`")]
pub enum Op {
    Open,
    Create,
    Write,
    Sync,
    List,
    Rename,
    Publish,
    Remove,
    CreateFolder,
    SyncFolder,
    Lock,
}

/// Which files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Area {
    /// The checkpoint store's manifests.
    Manifests,
    /// The checkpoint store's runs.
    Runs,
    /// Anything else.
    Other,
}

/// A moment at which a process touches the world outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// Before a file operation.
    Disk(Op, Area),
    /// A sink's writer has prepared its rows; its task acknowledges in the same step.
    Prepared,
    /// A committer is asked to commit something.
    BeforeCommit,
    /// A committer has made one committable visible, of several.
    InCommit,
    /// A committer has made all visible.
    AfterCommit,
    /// A committer is asked to abort.
    BeforeAbort,
    /// A committer has aborted.
    AfterAbort,
}

/// Which points a trigger counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    /// Every file operation.
    AnyDisk,
    /// File operations in one place.
    Area(Area),
    /// One kind of file operation.
    Op(Op),
    /// File operations that change something, while the job is being started.
    Starting,
    /// Syncs of files and folders.
    Syncs,
    /// One point.
    Point(Point),
}

/// What a trigger does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The process dies instead.
    Die,
    /// The process dies right after the operation has been done.
    DieAfter,
    /// The process dies at the end of the current step.
    DieAfterStep,
    /// So many operations fail in turn, with this error.
    Fail(io::ErrorKind, u32),
}

/// Does something at the moment after `skip` others.
#[derive(Debug, Clone, Copy)]
pub struct Trigger {
    /// Which moments count.
    pub watch: Watch,
    /// How many go by.
    pub skip: u32,
    /// What happens then.
    pub effect: Effect,
}

/// What becomes of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is done.
    Go,
    /// It is done, and the process is dead then.
    LastBreath,
    /// It is not done: the process is dead.
    Dead,
    /// It fails.
    Fail(io::ErrorKind),
}

#[derive(Debug, Default)]
struct Life {
    dead: bool,
    doomed: bool,
    starting: bool,
    failed: u32,
    triggers: Vec<Trigger>,
}

/// A simulated process.
#[derive(Debug)]
pub struct Process {
    /// Tells it from all others of a run.
    pub id: u64,
    life: Mutex<Life>,
}

impl Process {
    /// A process that is about to start a job, with what will happen to it from the start.
    pub fn new(id: u64, triggers: Vec<Trigger>) -> Self {
        Self { id, life: Mutex::new(Life { starting: true, triggers, ..Life::default() }) }
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What becomes of what is about to be done at `point`.
    pub fn reach(&self, point: Point) -> Verdict {
        let mut life = self.life();
        if life.dead {
            return Verdict::Dead;
        }
        let starting = life.starting;
        let Some(index) = life.triggers.iter_mut().position(|trigger| trigger.is_due(point, starting)) else {
            return Verdict::Go;
        };
        let effect = life.triggers[index].effect;
        if let Effect::Fail(_, times @ 2..) = &mut life.triggers[index].effect {
            *times -= 1;
        } else {
            life.triggers.remove(index);
        }
        life.apply(effect)
    }

    /// The job runs now.
    pub fn started(&self) {
        self.life().starting = false;
    }

    /// From now on `triggers` count.
    pub fn arm(&self, triggers: &[Trigger]) {
        self.life().triggers.extend_from_slice(triggers);
    }

    /// Kills it.
    pub fn kill(&self) {
        self.life().dead = true;
    }

    /// A step is over: who is doomed dies. Whether the process is dead.
    pub fn end_step(&self) -> bool {
        let mut life = self.life();
        life.dead |= life.doomed;
        life.dead
    }

    /// Whether it is dead.
    pub fn is_dead(&self) -> bool {
        self.life().dead
    }

    /// How many operations failed by a trigger.
    pub fn failed(&self) -> u32 {
        self.life().failed
    }
}

impl Life {
    fn apply(&mut self, effect: Effect) -> Verdict {
        match effect {
            Effect::Die => {
                self.dead = true;
                Verdict::Dead
            }
            Effect::DieAfter => {
                self.dead = true;
                Verdict::LastBreath
            }
            Effect::DieAfterStep => {
                self.doomed = true;
                Verdict::Go
            }
            Effect::Fail(kind, _) => {
                self.failed += 1;
                Verdict::Fail(kind)
            }
        }
    }
}

impl Trigger {
    fn is_due(&mut self, point: Point, starting: bool) -> bool {
        if !self.watch.counts(point, starting) {
            return false;
        }
        let due = self.skip == 0;
        self.skip = self.skip.saturating_sub(1);
        due
    }
}

impl Watch {
    fn counts(self, point: Point, starting: bool) -> bool {
        match (self, point) {
            (Self::Point(wanted), point) => wanted == point,
            (Self::AnyDisk, Point::Disk(..)) => true,
            (Self::Area(wanted), Point::Disk(_, area)) => wanted == area,
            (Self::Op(wanted), Point::Disk(op, _)) => wanted == op,
            (Self::Syncs, Point::Disk(op, _)) => matches!(op, Op::Sync | Op::SyncFolder),
            (Self::Starting, _) => starting,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYNC: Point = Point::Disk(Op::Sync, Area::Runs);

    fn process(watch: Watch, skip: u32, effect: Effect) -> Process {
        Process::new(1, vec![Trigger { watch, skip, effect }])
    }

    #[test]
    fn a_trigger_waits_for_its_turn_and_fires_once() {
        let process = process(Watch::Syncs, 1, Effect::Fail(io::ErrorKind::Other, 1));
        assert_eq!(process.reach(Point::Disk(Op::Write, Area::Runs)), Verdict::Go);
        assert_eq!(process.reach(SYNC), Verdict::Go);
        assert_eq!(process.reach(SYNC), Verdict::Fail(io::ErrorKind::Other));
        assert_eq!((process.reach(SYNC), process.failed()), (Verdict::Go, 1));
    }

    #[test]
    fn the_dead_do_nothing_more() {
        let process = process(Watch::Point(Point::BeforeCommit), 0, Effect::DieAfter);
        assert_eq!(process.reach(Point::BeforeCommit), Verdict::LastBreath);
        assert_eq!(process.reach(SYNC), Verdict::Dead);
    }

    #[test]
    fn the_doomed_finish_their_step() {
        let process = process(Watch::Point(Point::Prepared), 0, Effect::DieAfterStep);
        assert_eq!(process.reach(Point::Prepared), Verdict::Go);
        assert!(!process.is_dead());
        assert!(process.end_step());
    }
}
