//! A sink that takes a few rows a second, behind a source that could give millions: memory stays flat, and under the limit.

use std::io::Read;
use std::time::{Duration, Instant};

use crate::Options;
use crate::home::Home;
use crate::measure::{mib, rss_bytes};

const LIMIT_MIB: u64 = 256;

const JOB: &str = "
    CREATE TABLE bid (
      auction BIGINT, bidder BIGINT, price BIGINT, `dateTime` TIMESTAMP(3), extra STRING,
      WATERMARK FOR `dateTime` AS `dateTime` - INTERVAL '4' SECOND
    ) WITH ('connector' = 'nexmark');
    SELECT auction, bidder, price, extra FROM bid";

pub(crate) fn run(options: &Options) {
    let seconds = Duration::from_secs(options.number("seconds", 15));
    let home = Home::new();
    let limit = format!("pipeline.memory-limit={LIMIT_MIB} mb");
    let arguments = ["run", "-e", JOB, "--set", &limit, "--parallelism", "2", "--checkpoint-interval", "1s"];
    let mut running = home.start_unread(&arguments);
    running.until_it_says("a checkpoint every");
    let mut out = running.take_out();
    let begun = Instant::now();
    let mut samples = Vec::new();
    let mut bytes = [0; 4_096];
    let mut read = 0;
    while begun.elapsed() < seconds {
        // Some forty rows, four times a second.
        read += out.read(&mut bytes).unwrap();
        samples.extend(rss_bytes(running.id()));
        std::thread::sleep(Duration::from_millis(250));
    }
    assert!(!running.is_over(), "it ended: {}", running.err());
    drop(out);
    running.kill();
    let (first, second) = samples.split_at(samples.len() / 2);
    let most = |samples: &[u64]| samples.iter().copied().max().unwrap_or_default();
    println!(
        "slow sink: {read} bytes taken in {} s; resident memory at most {} MiB in the first half, {} MiB in the second; \
         the limit is {LIMIT_MIB} MiB",
        seconds.as_secs(),
        mib(most(first)),
        mib(most(second))
    );
    assert!(most(second) <= (LIMIT_MIB << 20) * 11 / 10, "more than the limit and a tenth");
    // Whole batches come and go.
    assert!(most(second) <= most(first) + (LIMIT_MIB << 20) / 10, "memory grows");
}
