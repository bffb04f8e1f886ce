//! 1 → 3 → 2 subtasks while rows keep coming: after a kill, and after a stop.

use crate::Options;
use crate::home::{Home, Running};
use crate::pipeline::{KINDS, Pipeline};

const ROWS: usize = 12_000;

pub(crate) fn run(options: &Options) {
    for kind in KINDS {
        let pipeline = Pipeline::new(kind, options.number("seed", 7), ROWS);
        let home = Home::new();
        pipeline.prepare(&home);
        let first = under_load(&home, "1");
        first.kill();
        let second = under_load(&home, "3");
        second.signal("INT");
        second.end().expect(130);
        let third = under_load(&home, "2");
        third.kill();
        home.ruslo(&["run", "job.sql", "--checkpoint-dir", "c", "--resume", "--parallelism", "2"]).expect(0);
        pipeline.check(&home);
        println!("{kind:?}: 1, 3 and 2 subtasks, {} rows written as the oracle says", pipeline.expected().len());
    }
}

/// At work, and past its second checkpoint.
fn under_load(home: &Home, parallelism: &str) -> Running {
    let before = home.newest_epoch("c").max(1);
    let rate = ["--set", "source.rows-per-second=3000", "--set", "execution.batch-rows=64"];
    let job = ["run", "job.sql", "--checkpoint-dir", "c", "--checkpoint-interval", "100ms", "--resume"];
    let mut running = home.start(&[&job[..], &rate, &["--parallelism", parallelism]].concat());
    running.until_checkpoint(home, before + 3);
    running
}
