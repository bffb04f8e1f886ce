//! One attempt: a process that starts the job from what is on the disk and runs it, until it ends or is broken.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ruslo_core::clock::VirtualClock;
use ruslo_core::disk::{Disk, DiskLock};
use ruslo_core::environment::Environment;
use ruslo_core::epoch::Epoch;
use ruslo_core::error::{Error, Result};
use ruslo_core::rng::Rng;
use ruslo_core::standard_input::NoInput;
use ruslo_runtime::ask::{Answer, Ask, Then};
use ruslo_runtime::coordinator::Outcome;
use ruslo_runtime::executor::seeded::SeededJob;
use ruslo_runtime::job::{JobSpec, Start};
use ruslo_runtime::status::{JobStatus, Role};
use ruslo_state::manifest::Manifest;
use ruslo_state::savepoint::{self, Target};
use ruslo_state::store::CheckpointStore;

use crate::changes::Told;
use crate::damage::FOLDER;
use crate::disk::Machine;
use crate::faults::Plan;
use crate::files;
use crate::process::Process;
use crate::scenario::Setup;
use crate::shape::{BadRecords, Ends};
use crate::sink::{Outside, SimSink};
use crate::source::SimSource;
use crate::trace::Trace;

/// So many steps without anything happening are a standstill.
const IDLE_STEPS_MAX: u64 = 20_000;

/// So many steps are too many, whatever happens.
const STEPS_MAX: u64 = 400_000;

/// What outlives a process.
#[derive(Debug, Clone)]
pub struct World {
    /// Files.
    pub machine: Machine,
    /// What sinks write to.
    pub outside: Outside,
    /// Time.
    pub clock: Arc<VirtualClock>,
    /// What happens.
    pub trace: Trace,
    /// The savepoint with which the last process stopped.
    pub savepoint: Option<PathBuf>,
}

impl World {
    /// A world in which nothing has happened; what happens goes into `trace`.
    pub fn new(trace: Trace) -> Self {
        Self {
            machine: Machine::new(trace.clone()),
            outside: Outside::default(),
            clock: Arc::default(),
            trace,
            savepoint: None,
        }
    }
}

/// A process and the job that it runs.
pub struct Attempt {
    /// The process.
    pub process: Arc<Process>,
    /// What is done to it.
    pub plan: Plan,
    job: SeededJob,
    _lock: Box<dyn DiskLock>,
    trace: Trace,
    clock: Arc<VirtualClock>,
    steps: u64,
    /// The step at which the plan came into force.
    armed_at: Option<u64>,
    idle: u64,
    seen: u64,
    last_epoch: Option<Epoch>,
    /// Checkpoints completed by this attempt.
    pub checkpoints: u64,
    /// Of those, with rows that a barrier had overtaken.
    pub overtaken: u64,
    /// Of a scenario with savepoints.
    disk: Option<Arc<dyn Disk>>,
    answer: Option<Receiver<Result<Answer>>>,
}

/// What becomes of what is read, in rows: `read = rows + skipped + letters`, and of the rows some are late.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// Records that sources read.
    pub read: u64,
    /// Rows that sources gave out.
    pub rows: u64,
    /// Rows that operators dropped, or gave aside, because they were late.
    pub late: u64,
    /// Bad records that sources left out.
    pub skipped: u64,
    /// Bad records that sources gave aside.
    pub letters: u64,
}

/// What the job went on from.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The checkpoint; none is from the start.
    pub epoch: Option<Epoch>,
    /// What was wrong with newer ones.
    pub skipped: Vec<Error>,
}

/// What a step came to.
#[derive(Debug)]
pub enum Stepped {
    /// Go on.
    On,
    /// The process was killed.
    Killed,
    /// It is to be taken for dead.
    Replaced,
    /// The job has ended.
    Ended(Outcome),
    /// The job failed.
    Failed(Error),
    /// Nothing happens any more.
    Stuck(String),
}

/// Makes the graph of a process.
pub fn ends(
    setup: &Setup,
    world: &World,
    process: &Arc<Process>,
    environment: &Environment,
    rng: &mut Rng,
) -> Result<Ends> {
    let source = |(data, told): (&Arc<_>, Told)| {
        let rng = Rng::seeded(rng.next_u64());
        let source = SimSource::new(Arc::clone(data), setup.manners, world.trace.clone(), rng).telling(told);
        Arc::new(source.rejecting(setup.shape.bad_records != BadRecords::None)) as _
    };
    let sink = |number| {
        if setup.to_files {
            return files::sink(number, setup.shape.sink_schema(number), environment);
        }
        Ok(Arc::new(SimSink {
            outside: world.outside.clone(),
            number,
            permanence: setup.permanence,
            buffered: setup.buffered,
            delay: setup.slow_sink.map(|row| (Arc::clone(&world.clock), row)),
            changes: setup.shape.changelog(number).is_some(),
            process: Arc::clone(process),
            trace: world.trace.clone(),
        }) as _)
    };
    Ok(Ends {
        sources: setup.data.iter().zip(setup.shape.told).map(source).collect(),
        sinks: (0..setup.shape.sinks()).map(sink).collect::<Result<_>>()?,
        rows_per_second: setup.rows_per_second,
    })
}

impl Attempt {
    /// Starts the job in `process`, from the newest checkpoint if there is one.
    pub fn start(
        setup: &Setup,
        world: &World,
        process: Arc<Process>,
        plan: Plan,
        parallelism: &[usize],
        rng: &mut Rng,
    ) -> Result<(Self, Origin)> {
        let disk: Arc<dyn Disk> = Arc::new(world.machine.disk(&process));
        let store = CheckpointStore::open(Arc::clone(&disk), Path::new(FOLDER), format!("p{}", process.id))?;
        let lock = store.lock()?;
        if let Some(folder) = &world.savepoint {
            let changed = |manifest| Manifest { run: format!("run{}", process.id), ..manifest };
            savepoint::open(Arc::clone(&disk), folder)?.begin(&store, changed, &BTreeMap::new())?;
        }
        let (start, origin) = start_of(&store, &process)?;
        let console = Arc::new(Mutex::new(std::io::sink()));
        let savepoints = setup.savepoints.then(|| Arc::clone(&disk));
        let environment =
            Environment { clock: Arc::clone(&world.clock) as _, disk, input: Arc::new(NoInput), console, seed: 0 };
        let graph = setup.shape.graph(&ends(setup, world, &process, &environment, rng)?, parallelism);
        let fingerprint = "simulated".to_owned();
        let spec = JobSpec { graph, config: setup.config.clone(), environment, store, fingerprint, plan: None, start };
        let job = SeededJob::start(spec, Arc::clone(&world.clock), Rng::seeded(rng.next_u64()))?;
        process.started();
        let armed_at = (plan.checkpoints_before == 0).then_some(0);
        let attempt = Self {
            process,
            plan,
            job,
            _lock: lock,
            trace: world.trace.clone(),
            clock: Arc::clone(&world.clock),
            steps: 0,
            armed_at,
            idle: 0,
            seen: 0,
            last_epoch: None,
            checkpoints: 0,
            overtaken: 0,
            disk: savepoints,
            answer: None,
        };
        Ok((attempt, origin))
    }

    /// What may be seen of the job.
    pub fn status(&self) -> &JobStatus {
        self.job.status()
    }

    /// How many steps it has taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The job itself.
    pub fn job(&mut self) -> &mut SeededJob {
        &mut self.job
    }

    /// Takes one step, with what the plan has for it.
    pub fn step(&mut self, rng: &mut Rng) -> Stepped {
        self.steps += 1;
        let now = self.steps_since_armed();
        if now.is_some() && self.plan.kill_at == now {
            self.process.kill();
            return Stepped::Killed;
        }
        if now.is_some() && self.plan.zombie_at == now {
            return Stepped::Replaced;
        }
        if now.is_some() && self.plan.stop_at == now {
            self.stop();
        }
        if self.plan.clock_jumps && rng.one_in(500) {
            self.clock.advance(Duration::from_secs(3600));
        }
        let result = self.job.step();
        self.note(&result);
        if self.process.end_step() {
            return Stepped::Killed;
        }
        match result {
            Ok(Some(outcome)) => Stepped::Ended(outcome),
            Err(error) => Stepped::Failed(error),
            Ok(None) if self.idle > IDLE_STEPS_MAX => {
                Stepped::Stuck(format!("{IDLE_STEPS_MAX} steps without progress"))
            }
            Ok(None) if self.steps > STEPS_MAX => Stepped::Stuck(format!("not at the end after {STEPS_MAX} steps")),
            Ok(None) => Stepped::On,
        }
    }

    /// Asks the job to stop, with a savepoint where the scenario has them.
    fn stop(&mut self) {
        let id = self.process.id;
        let target = self.disk.as_ref().map(|disk| {
            let folder = PathBuf::from(format!("/savepoints/{id}"));
            Target::prepare(Arc::clone(disk), &folder, "simulated", &format!("s{id}"))
        });
        match target {
            Some(Ok(target)) => {
                let (answer, answered) = channel();
                self.answer = Some(answered);
                self.job.ask(Ask { target: Some(target), then: Then::Stop, answer });
            }
            Some(Err(_)) | None => self.job.stop(),
        }
    }

    /// The savepoint that was made as the job stopped.
    pub fn savepoint(&self) -> Option<PathBuf> {
        let answer = self.answer.as_ref()?.try_recv().ok()?.ok()?;
        answer.saved.map(|saved| saved.folder)
    }

    /// How many steps the plan has been in force for; brings it into force when its time has come.
    fn steps_since_armed(&mut self) -> Option<u64> {
        if self.armed_at.is_none() && self.checkpoints >= self.plan.checkpoints_before {
            self.armed_at = Some(self.steps - 1);
            self.process.arm(&self.plan.triggers);
        }
        self.armed_at.map(|armed_at| self.steps - armed_at)
    }

    /// Notes what can be seen now, and whether that is something new.
    fn note(&mut self, result: &Result<Option<Outcome>>) {
        let status = self.job.status();
        let mut now = self.trace.events();
        let operators = status.operators.iter().flat_map(|operator| {
            let counts = operator.counts();
            let marks = operator.tasks.iter().map(|task| task.watermark().millis() as u64);
            [counts.rows_in, counts.rows_out, counts.late_rows].into_iter().chain(marks)
        });
        for word in operators {
            now = (now ^ word).wrapping_mul(0x9FB2_1C65_1E98_DF25).rotate_left(31);
        }
        let ended = matches!(result, Ok(None));
        self.trace.step([now, u64::from(ended), self.process.id].into_iter());
        self.idle = if now == self.seen { self.idle + 1 } else { 0 };
        self.seen = now;
        let report = status.last_checkpoint();
        let epoch = report.map(|report| report.epoch);
        if epoch != self.last_epoch {
            self.last_epoch = epoch;
            self.checkpoints += 1;
            self.overtaken += u64::from(report.is_some_and(|report| report.rows_in_flight > 0));
        }
    }

    /// How many rows are not shown again, whether they were shown before or not.
    pub fn in_doubt(&self) -> u64 {
        self.job.status().operators.iter().map(|operator| operator.counts().in_doubt_rows).sum()
    }

    /// What the job counted.
    pub fn counted(&self) -> Counted {
        let status = self.job.status();
        let sources = status.counts(Role::Source);
        Counted {
            read: sources.rows_in,
            rows: sources.rows_out,
            late: status.late_rows(),
            skipped: sources.skipped_rows,
            letters: sources.dead_letter_rows,
        }
    }
}

fn start_of(store: &CheckpointStore, process: &Process) -> Result<(Start, Origin)> {
    Ok(match store.restore_newest()? {
        None => (Start::Fresh { run: format!("run{}", process.id) }, Origin { epoch: None, skipped: Vec::new() }),
        Some(restored) => {
            let origin = Origin { epoch: Some(restored.manifest.epoch), skipped: restored.skipped.clone() };
            (Start::Restore(restored), origin)
        }
    })
}
