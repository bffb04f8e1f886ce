//! How long a job with much state takes to go on.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::Options;
use crate::home::{Home, Running};
use crate::measure::{mib, millis};

const JOB: &str = "
    CREATE TABLE t (n BIGINT, k STRING, ts AS CAST('2026-01-01 00:00:00' AS TIMESTAMP(3)), WATERMARK FOR ts AS ts)
    WITH ('connector' = 'datagen', 'rows-per-second' = '100000000', 'fields.n.min' = '0', 'fields.k.length' = '80');
    CREATE TABLE o (k STRING, c BIGINT, s BIGINT) WITH ('connector' = 'blackhole');
    INSERT INTO o SELECT k, COUNT(*), SUM(n / 1000000) FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' HOUR))
    GROUP BY k, window_start, window_end";

pub(crate) fn run(options: &Options) {
    let wanted = options.number("mib", 16) << 20;
    let home = Home::new();
    home.write("job.sql", JOB);
    let mut running = start(&home);
    // As long as it takes: a GiB needs some minutes where nothing is optimised.
    while runs_bytes(&home) < wanted {
        assert!(!running.is_over(), "it ended: {}", running.err());
        std::thread::sleep(Duration::from_millis(50));
    }
    running.signal("INT");
    running.end().expect(130);
    let state = runs_bytes(&home);
    let begun = Instant::now();
    let mut running = start(&home);
    running.until_it_says("resumed from checkpoint");
    let restored = millis(begun.elapsed());
    let epoch = home.newest_epoch("c");
    running.until_checkpoint(&home, epoch + 1);
    println!(
        "recovery of {} MiB: {restored} ms until it runs, {} ms until its first checkpoint",
        mib(state),
        millis(begun.elapsed())
    );
    running.kill();
    assert!(restored < 10_000, "more than ten seconds");
}

fn start(home: &Home) -> Running {
    let limit = "pipeline.memory-limit=16 gb";
    let job = ["run", "job.sql", "--checkpoint-dir", "c", "--resume", "--checkpoint-interval", "500ms"];
    home.start(&[&job[..], &["--parallelism", "2", "--set", limit]].concat())
}

fn runs_bytes(home: &Home) -> u64 {
    let length = |path: &Path| std::fs::metadata(path).map_or(0, |found| found.len());
    let Ok(entries) = std::fs::read_dir(home.path("c/runs")) else { return 0 };
    entries.map(|entry| length(&entry.unwrap().path())).sum()
}
