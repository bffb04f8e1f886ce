//! `SET 'key' = 'value'`: the keys there are, their types and defaults. The command line's `--set` comes the same way.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono_tz::{TZ_VARIANTS, Tz};
use ruslo_core::sink::Guarantee;
use ruslo_operators::MiniBatch;

use crate::diagnostic::{Sql, SqlError, nearest};
use crate::lookup_options::AsyncLookup;
use crate::parallelism::PREFIX;
use crate::restart::{self, RestartSettings, thousandths};

/// Which engine runs a script's job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RuntimeMode {
    /// The streaming engine: rows come out as event time goes on, over bounded input and unbounded.
    #[default]
    Streaming,
    /// DataFusion's batch engine: over bounded input, everything that a query has to say at its end.
    Batch,
    /// Batch if all tables that are read end, streaming otherwise.
    Automatic,
}

/// In how many phases aggregates are computed; those without a window in two only with `table.exec.mini-batch.enabled`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AggregatePhases {
    /// Two where there is no key, so that all rows would go to one subtask; else one.
    #[default]
    Auto,
    /// Rows are exchanged by key, then aggregated.
    One,
    /// Rows are aggregated where they are, partial groups exchanged by key and merged: wherever an aggregate can be split.
    Two,
}

/// How long a barrier waits for the other channels before it overtakes what they hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AlignmentTimeout {
    /// As long as the runtime thinks fit.
    #[default]
    Runtime,
    /// So long; at once, if zero.
    After(Duration),
    /// However long it takes.
    Never,
}

/// How a pipeline runs; every field but the name comes from a key in [`SETTINGS`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// `execution.runtime-mode`.
    pub runtime_mode: RuntimeMode,
    /// `parallelism.default`; none leaves it to the caller (one subtask per core).
    pub parallelism: Option<usize>,
    /// `execution.checkpointing.aligned-checkpoint-timeout`.
    pub alignment_timeout: AlignmentTimeout,
    /// `execution.checkpointing.interval`; none leaves it to the caller.
    pub checkpoint_interval: Option<Duration>,
    /// `execution.delivery`; none is the most that every table of the pipeline can do.
    pub delivery: Option<Guarantee>,
    /// `pipeline.memory-limit`, in bytes; none leaves it to the caller.
    pub memory_limit_bytes: Option<u64>,
    /// `pipeline.name`.
    pub name: Option<String>,
    /// `execution.batch-rows`: rows of a source's batch at most; none leaves it to the runtime.
    pub batch_rows: Option<usize>,
    /// `execution.channel.rows`: rows that wait on an edge at most; none leaves it to the runtime.
    pub channel_rows: Option<usize>,
    /// `execution.channel.bytes`: bytes that wait on an edge at most; none leaves it to the runtime.
    pub channel_bytes: Option<u64>,
    /// `restart-strategy.*`.
    pub restart: RestartSettings,
    /// `table.exec.async-lookup.*`.
    pub async_lookup: AsyncLookup,
    /// `table.exec.mini-batch.enabled`.
    pub mini_batch: bool,
    /// `table.exec.mini-batch.allow-latency`; none is a second.
    pub mini_batch_latency: Option<Duration>,
    /// `table.exec.mini-batch.size`, in rows; none is 5,000.
    pub mini_batch_rows: Option<usize>,
    /// `table.exec.source.idle-timeout`; none is never.
    pub source_idle_timeout: Option<Duration>,
    /// `table.exec.state.ttl`; none is for ever.
    pub state_ttl: Option<Duration>,
    /// `table.local-time-zone`.
    pub time_zone: Tz,
    /// `table.optimizer.agg-phase-strategy`.
    pub aggregate_phases: AggregatePhases,
    /// `parallelism.<operator>`: subtasks of operators, by the name or id that EXPLAIN shows.
    pub operator_parallelism: BTreeMap<String, usize>,
}

/// A key that SET knows.
#[derive(Debug, Clone, Copy)]
pub struct SettingSpec {
    /// The key, as Flink spells it where Flink has it.
    pub key: &'static str,
    /// What it means, with its unit and default.
    pub doc: &'static str,
    apply: fn(&mut Settings, &str) -> Result<(), String>,
    reset: fn(&mut Settings),
}

/// Every key that SET knows.
pub const SETTINGS: &[SettingSpec] = &[
    SettingSpec {
        key: "execution.batch-rows",
        doc: "rows of a source's batch at most; default: the runtime's",
        apply: |settings, value| number(value, 1, 1 << 20).map(|rows| settings.batch_rows = Some(rows)),
        reset: |settings| settings.batch_rows = None,
    },
    SettingSpec {
        key: "execution.channel.bytes",
        doc: "bytes that wait on an edge at most ('64 mb'); default: the runtime's",
        apply: |settings, value| bytes(value).map(|bytes| settings.channel_bytes = Some(bytes)),
        reset: |settings| settings.channel_bytes = None,
    },
    SettingSpec {
        key: "execution.channel.rows",
        doc: "rows that wait on an edge at most; default: the runtime's",
        apply: |settings, value| number(value, 1, usize::MAX).map(|rows| settings.channel_rows = Some(rows)),
        reset: |settings| settings.channel_rows = None,
    },
    SettingSpec {
        key: "execution.checkpointing.aligned-checkpoint-timeout",
        doc: "how long a checkpoint's barrier waits for rows before it overtakes them and stores them ('500 ms'); '0' is at \
              once, 'never' however long it takes; default: '1 s'",
        apply: |settings, value| alignment_timeout(value).map(|timeout| settings.alignment_timeout = timeout),
        reset: |settings| settings.alignment_timeout = AlignmentTimeout::default(),
    },
    SettingSpec {
        key: "execution.checkpointing.interval",
        doc: "time between two checkpoints ('10 s'); default: the caller's",
        apply: |settings, value| positive(value).map(|every| settings.checkpoint_interval = Some(every)),
        reset: |settings| settings.checkpoint_interval = None,
    },
    SettingSpec {
        key: "execution.delivery",
        doc: "what holds if the process dies: 'exactly-once', 'at-least-once' or 'at-most-once'; default: the most that \
              every table of the pipeline can do",
        apply: |settings, value| delivery(value).map(|delivery| settings.delivery = Some(delivery)),
        reset: |settings| settings.delivery = None,
    },
    SettingSpec {
        key: "execution.runtime-mode",
        doc: "'streaming' or, over bounded tables, 'batch'; 'automatic' takes batch if all tables end; default: 'streaming'",
        apply: |settings, value| runtime_mode(value).map(|mode| settings.runtime_mode = mode),
        reset: |settings| settings.runtime_mode = RuntimeMode::default(),
    },
    SettingSpec {
        key: "parallelism.default",
        doc: "subtasks of each operator, 1 to 128; default: the caller's",
        apply: |settings, value| {
            let most = usize::from(ruslo_core::key_group::KEY_GROUPS);
            number(value, 1, most).map(|subtasks| settings.parallelism = Some(subtasks))
        },
        reset: |settings| settings.parallelism = None,
    },
    SettingSpec {
        key: "pipeline.memory-limit",
        doc: "memory of the pipeline's rows and state ('512 mb'); default: the caller's",
        apply: |settings, value| bytes(value).map(|bytes| settings.memory_limit_bytes = Some(bytes)),
        reset: |settings| settings.memory_limit_bytes = None,
    },
    SettingSpec {
        key: "pipeline.name",
        doc: "what the pipeline is called; default: the script's name",
        apply: |settings, value| {
            settings.name = Some(value.to_owned());
            Ok(())
        },
        reset: |settings| settings.name = None,
    },
    SettingSpec {
        key: "restart-strategy.exponential-delay.attempts-before-reset-backoff",
        doc: "restarts in turn at most, or 'infinite'; default: 'infinite'",
        apply: |settings, value| restart::attempts(value).map(|most| settings.restart.backoff_attempts = most),
        reset: |settings| settings.restart.backoff_attempts = RestartSettings::default().backoff_attempts,
    },
    SettingSpec {
        key: "restart-strategy.exponential-delay.backoff-multiplier",
        doc: "what each delay is multiplied by for the next, 1 to 100; default: '1.5'",
        apply: |settings, value| {
            thousandths(value, 1_000, 100_000).map(|by| settings.restart.backoff_multiplier_milli = by)
        },
        reset: |settings| {
            settings.restart.backoff_multiplier_milli = RestartSettings::default().backoff_multiplier_milli
        },
    },
    SettingSpec {
        key: "restart-strategy.exponential-delay.initial-backoff",
        doc: "the first delay; default: '1 s'",
        apply: |settings, value| duration(value).map(|time| settings.restart.backoff_initial = time),
        reset: |settings| settings.restart.backoff_initial = RestartSettings::default().backoff_initial,
    },
    SettingSpec {
        key: "restart-strategy.exponential-delay.jitter-factor",
        doc: "how much of a delay is chance, more or less, 0 to 1; default: '0.1'",
        apply: |settings, value| thousandths(value, 0, 1_000).map(|part| settings.restart.backoff_jitter_milli = part),
        reset: |settings| settings.restart.backoff_jitter_milli = RestartSettings::default().backoff_jitter_milli,
    },
    SettingSpec {
        key: "restart-strategy.exponential-delay.max-backoff",
        doc: "the longest delay; default: '1 min'",
        apply: |settings, value| duration(value).map(|time| settings.restart.backoff_max = time),
        reset: |settings| settings.restart.backoff_max = RestartSettings::default().backoff_max,
    },
    SettingSpec {
        key: "restart-strategy.exponential-delay.reset-backoff-threshold",
        doc: "after so long without a failure the first delay comes again; default: '1 h'",
        apply: |settings, value| duration(value).map(|time| settings.restart.backoff_reset = time),
        reset: |settings| settings.restart.backoff_reset = RestartSettings::default().backoff_reset,
    },
    SettingSpec {
        key: "restart-strategy.failure-rate.delay",
        doc: "time before each restart; default: '1 s'",
        apply: |settings, value| duration(value).map(|time| settings.restart.rate_delay = time),
        reset: |settings| settings.restart.rate_delay = RestartSettings::default().rate_delay,
    },
    SettingSpec {
        key: "restart-strategy.failure-rate.failure-rate-interval",
        doc: "the time in which failures are counted; default: '1 min'",
        apply: |settings, value| duration(value).map(|time| settings.restart.rate_interval = time),
        reset: |settings| settings.restart.rate_interval = RestartSettings::default().rate_interval,
    },
    SettingSpec {
        key: "restart-strategy.failure-rate.max-failures-per-interval",
        doc: "failures in that time at most; default: 1",
        apply: |settings, value| number(value, 1, usize::MAX).map(|most| settings.restart.rate_failures_max = most),
        reset: |settings| settings.restart.rate_failures_max = RestartSettings::default().rate_failures_max,
    },
    SettingSpec {
        key: "restart-strategy.fixed-delay.attempts",
        doc: "restarts at most; default: 1",
        apply: |settings, value| number(value, 1, usize::MAX).map(|most| settings.restart.fixed_attempts = most),
        reset: |settings| settings.restart.fixed_attempts = RestartSettings::default().fixed_attempts,
    },
    SettingSpec {
        key: "restart-strategy.fixed-delay.delay",
        doc: "time before each restart; default: '1 s'",
        apply: |settings, value| duration(value).map(|time| settings.restart.fixed_delay = time),
        reset: |settings| settings.restart.fixed_delay = RestartSettings::default().fixed_delay,
    },
    SettingSpec {
        key: "restart-strategy.type",
        doc: "whether a job that failed goes on from its last checkpoint: 'none', 'fixed-delay', 'exponential-delay' or \
              'failure-rate'; default: 'exponential-delay', if its input is endless and can be read again, else 'none'",
        apply: |settings, value| restart::kind(value).map(|kind| settings.restart.kind = Some(kind)),
        reset: |settings| settings.restart.kind = RestartSettings::default().kind,
    },
    SettingSpec {
        key: "table.exec.async-lookup.buffer-capacity",
        doc: "batches of each subtask of a lookup join that wait for their answers at a time; default: 100",
        apply: |settings, value| number(value, 1, 1 << 20).map(|most| settings.async_lookup.requests_max = most),
        reset: |settings| settings.async_lookup.requests_max = AsyncLookup::default().requests_max,
    },
    SettingSpec {
        key: "table.exec.async-lookup.output-mode",
        doc: "whether rows leave a lookup join as they came ('ORDERED') or as they are answered, but never past a \
              watermark ('ALLOW_UNORDERED'); default: 'ORDERED'",
        apply: |settings, value| is_ordered(value).map(|is_ordered| settings.async_lookup.is_ordered = is_ordered),
        reset: |settings| settings.async_lookup.is_ordered = AsyncLookup::default().is_ordered,
    },
    SettingSpec {
        key: "table.exec.async-lookup.timeout",
        doc: "how long a table may take to answer a lookup join before it is asked again ('30 s'); default: '3 min'",
        apply: |settings, value| positive(value).map(|timeout| settings.async_lookup.timeout = timeout),
        reset: |settings| settings.async_lookup.timeout = AsyncLookup::default().timeout,
    },
    SettingSpec {
        key: "table.exec.mini-batch.allow-latency",
        doc: "how long a GROUP BY without a window holds rows before the exchange by key ('500 ms'), if \
              'table.exec.mini-batch.enabled'; default: '1 s'",
        apply: |settings, value| positive(value).map(|latency| settings.mini_batch_latency = Some(latency)),
        reset: |settings| settings.mini_batch_latency = None,
    },
    SettingSpec {
        key: "table.exec.mini-batch.enabled",
        doc: "whether a GROUP BY without a window groups rows before the exchange by key, too: 'true' or 'false'; \
              default: 'false'",
        apply: |settings, value| truth(value).map(|is_on| settings.mini_batch = is_on),
        reset: |settings| settings.mini_batch = false,
    },
    SettingSpec {
        key: "table.exec.mini-batch.size",
        doc: "how many rows it holds before the exchange at most; default: 5000",
        apply: |settings, value| number(value, 1, usize::MAX).map(|rows| settings.mini_batch_rows = Some(rows)),
        reset: |settings| settings.mini_batch_rows = None,
    },
    SettingSpec {
        key: "table.exec.source.idle-timeout",
        doc: "a file, partition or generator that brings no row for so long ('5 s') does not hold the watermark; default: \
              '0', all are waited for",
        apply: |settings, value| {
            let after = duration(value)?;
            settings.source_idle_timeout = Some(after).filter(|after| !after.is_zero());
            Ok(())
        },
        reset: |settings| settings.source_idle_timeout = None,
    },
    SettingSpec {
        key: "table.exec.state.ttl",
        doc: "an updating query forgets what it keeps of a key that has had no row for so long ('1 d'), by the clock; \
              default: '0', it never does",
        apply: |settings, value| {
            settings.state_ttl = Some(duration(value)?).filter(|lifetime| !lifetime.is_zero());
            Ok(())
        },
        reset: |settings| settings.state_ttl = None,
    },
    SettingSpec {
        key: "table.local-time-zone",
        doc: "the zone in which TIMESTAMP_LTZ is shown and read, such as 'Europe/Berlin'; default 'UTC'",
        apply: |settings, value| {
            settings.time_zone = zone(value)?;
            Ok(())
        },
        reset: |settings| settings.time_zone = Tz::UTC,
    },
    SettingSpec {
        key: "table.optimizer.agg-phase-strategy",
        doc: "whether window aggregates are computed before the exchange by key, too: 'ONE_PHASE', 'TWO_PHASE' or 'AUTO', \
              which is two where there is no key; default: 'AUTO'",
        apply: |settings, value| aggregate_phases(value).map(|phases| settings.aggregate_phases = phases),
        reset: |settings| settings.aggregate_phases = AggregatePhases::default(),
    },
];

/// What a GROUP BY without a window holds where nothing else is said.
const MINI_BATCH: MiniBatch = MiniBatch { rows: 5_000, latency: Duration::from_secs(1) };

impl Settings {
    /// How much a GROUP BY without a window holds before the exchange by key, if it does.
    pub(crate) fn mini_batch(&self) -> Option<MiniBatch> {
        let rows = self.mini_batch_rows.unwrap_or(MINI_BATCH.rows);
        let latency = self.mini_batch_latency.unwrap_or(MINI_BATCH.latency);
        (self.mini_batch && self.aggregate_phases != AggregatePhases::One).then_some(MiniBatch { rows, latency })
    }

    /// Sets `key` to `value`.
    pub(crate) fn set(&mut self, key: &str, value: &str) -> Result<(), Rejected> {
        if let Some(operator) = operator(key) {
            let most = usize::from(ruslo_core::key_group::KEY_GROUPS);
            let subtasks = number(value, 1, most);
            let subtasks =
                subtasks.map_err(|sentence| Rejected::Value(SqlError::new(format!("'{key}': {sentence}"))))?;
            self.operator_parallelism.insert(operator.to_owned(), subtasks);
            return Ok(());
        }
        let spec = spec(key).ok_or_else(|| Rejected::Key(unknown(key)))?;
        (spec.apply)(self, value).map_err(|sentence| Rejected::Value(SqlError::new(format!("'{key}': {sentence}"))))
    }

    /// Sets `key` back to its default; without a key, all of them.
    pub(crate) fn reset(&mut self, key: Option<&str>) -> Sql<()> {
        match key {
            None => *self = Self::default(),
            Some(key) if operator(key).is_some() => {
                operator(key).map(|operator| self.operator_parallelism.remove(operator));
            }
            Some(key) => (spec(key).ok_or_else(|| unknown(key))?.reset)(self),
        }
        Ok(())
    }
}

/// Which half of `key = value` is wrong, so that the caret stands under it.
#[derive(Debug)]
pub(crate) enum Rejected {
    Key(SqlError),
    Value(SqlError),
}

impl From<Rejected> for SqlError {
    fn from(rejected: Rejected) -> Self {
        match rejected {
            Rejected::Key(error) | Rejected::Value(error) => error,
        }
    }
}

/// The operator in `parallelism.<operator>`; a key that is nearly another one is not of an operator.
fn operator(key: &str) -> Option<&str> {
    let operator = key.strip_prefix(PREFIX)?;
    nearest(key, ["parallelism.default"]).is_none().then_some(operator)
}

fn spec(key: &str) -> Option<&'static SettingSpec> {
    SETTINGS.iter().find(|spec| spec.key == key)
}

fn unknown(key: &str) -> SqlError {
    SqlError::new(format!("there is no setting '{key}'")).near(key, SETTINGS.iter().map(|spec| spec.key))
}

fn runtime_mode(value: &str) -> Result<RuntimeMode, String> {
    let all = [RuntimeMode::Streaming, RuntimeMode::Batch, RuntimeMode::Automatic];
    one_of("runtime mode", value, ["streaming", "batch", "automatic"], all)
}

fn delivery(value: &str) -> Result<Guarantee, String> {
    let all = [Guarantee::ExactlyOnce, Guarantee::AtLeastOnce, Guarantee::AtMostOnce];
    one_of("delivery", value, ["exactly-once", "at-least-once", "at-most-once"], all)
}

fn aggregate_phases(value: &str) -> Result<AggregatePhases, String> {
    let all = [AggregatePhases::Auto, AggregatePhases::One, AggregatePhases::Two];
    one_of("strategy", value, ["AUTO", "ONE_PHASE", "TWO_PHASE"], all)
}

fn truth(value: &str) -> Result<bool, String> {
    match value.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("'{value}' is neither 'true' nor 'false'")),
    }
}

/// Of three, the one whose name is `value`, in letters of any size, with `-` for `_` or the other way round.
fn one_of<T>(what: &str, value: &str, names: [&str; 3], all: [T; 3]) -> Result<T, String> {
    let plain = |name: &str| name.to_ascii_lowercase().replace('_', "-");
    let found = names.iter().zip(all).find(|(name, _)| plain(name) == plain(value));
    let [first, second, third] = names;
    let unknown = || format!("'{value}' is no {what}; there are '{first}', '{second}' and '{third}'");
    found.map(|(_, found)| found).ok_or_else(unknown)
}

fn is_ordered(value: &str) -> Result<bool, String> {
    match value.trim().to_ascii_uppercase().as_str() {
        "ORDERED" => Ok(true),
        "ALLOW_UNORDERED" => Ok(false),
        _ => Err(format!("'{value}' is no output mode; there are 'ORDERED' and 'ALLOW_UNORDERED'")),
    }
}

fn alignment_timeout(value: &str) -> Result<AlignmentTimeout, String> {
    match value.to_ascii_lowercase().as_str() {
        "never" => Ok(AlignmentTimeout::Never),
        _ => match duration(value) {
            Ok(after) => Ok(AlignmentTimeout::After(after)),
            Err(sentence) => Err(format!("{sentence}, nor 'never'")),
        },
    }
}

fn zone(value: &str) -> Result<Tz, String> {
    let name = if matches!(value, "Z" | "+00:00") { "UTC" } else { value };
    name.parse().map_err(|_| match nearest(value, TZ_VARIANTS.iter().map(|zone| zone.name())) {
        Some(near) => format!("there is no time zone '{value}'; did you mean '{near}'?"),
        None => format!("there is no time zone '{value}'; there are names such as 'Europe/Berlin'"),
    })
}

fn number(value: &str, least: usize, most: usize) -> Result<usize, String> {
    let number = value.trim().parse::<usize>().map_err(|_| format!("'{value}' is not a whole number"))?;
    if (least..=most).contains(&number) {
        Ok(number)
    } else if most == usize::MAX {
        Err(format!("{number} is too small: {least} is the least"))
    } else {
        Err(format!("{number} is not between {least} and {most}"))
    }
}

/// A number and its unit: `10 s` → (10, "s").
fn with_unit(value: &str) -> Option<(u64, String)> {
    let value = value.trim();
    let digits = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
    let (number, unit) = value.split_at_checked(digits)?;
    Some((number.parse().ok()?, unit.trim().to_ascii_lowercase()))
}

/// A time as Flink writes it: `10 s`, `500ms`, `1 min`; a bare number is milliseconds.
///
/// # Errors
/// A sentence that names the value.
pub fn duration(value: &str) -> Result<Duration, String> {
    let no_time = || format!("'{value}' is not a time such as '10 s', '500 ms' or '1 min'");
    let (number, unit) = with_unit(value).ok_or_else(no_time)?;
    let unit_ns: u64 = match unit.as_str() {
        "ns" | "nano" | "nanosecond" | "nanoseconds" => 1,
        "us" | "µs" | "micro" | "microsecond" | "microseconds" => 1_000,
        "" | "ms" | "milli" | "millis" | "millisecond" | "milliseconds" => 1_000_000,
        "s" | "sec" | "secs" | "second" | "seconds" => 1_000_000_000,
        "m" | "min" | "minute" | "minutes" => 60_000_000_000,
        "h" | "hour" | "hours" => 3_600_000_000_000,
        "d" | "day" | "days" => 86_400_000_000_000,
        _ => return Err(no_time()),
    };
    number.checked_mul(unit_ns).map(Duration::from_nanos).ok_or_else(no_time)
}

fn positive(value: &str) -> Result<Duration, String> {
    match duration(value)? {
        Duration::ZERO => Err("the time must be longer than 0".to_owned()),
        time => Ok(time),
    }
}

/// An amount of memory as Flink writes it: `512 mb`, `1g`; powers of 1024, a bare number is bytes.
fn bytes(value: &str) -> Result<u64, String> {
    let no_amount = || format!("'{value}' is not an amount of memory such as '512 mb' or '2 gb'");
    let (number, unit) = with_unit(value).ok_or_else(no_amount)?;
    let shift = match unit.as_str() {
        "" | "b" | "bytes" => 0,
        "k" | "kb" | "kib" | "kibibytes" => 10,
        "m" | "mb" | "mib" | "mebibytes" => 20,
        "g" | "gb" | "gib" | "gibibytes" => 30,
        "t" | "tb" | "tib" | "tebibytes" => 40,
        _ => return Err(no_amount()),
    };
    number.checked_mul(1 << shift).filter(|bytes| *bytes > 0).ok_or_else(no_amount)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::restart::RestartKind;

    fn refused(key: &str, value: &str) -> String {
        SqlError::from(Settings::default().set(key, value).unwrap_err()).message().to_owned()
    }

    #[test]
    fn every_setting_is_typed() {
        let mut settings = Settings::default();
        let given = [
            ("parallelism.default", "3"),
            ("execution.checkpointing.interval", "10 s"),
            ("execution.delivery", "AT_LEAST_ONCE"),
            ("execution.checkpointing.aligned-checkpoint-timeout", "500 ms"),
            ("execution.runtime-mode", "STREAMING"),
            ("table.exec.mini-batch.enabled", "TRUE"),
            ("table.exec.mini-batch.allow-latency", "2 s"),
            ("table.exec.mini-batch.size", "100"),
            ("table.exec.source.idle-timeout", "5 s"),
            ("table.exec.state.ttl", "1 d"),
            ("table.local-time-zone", "Europe/Berlin"),
            ("table.optimizer.agg-phase-strategy", "two_phase"),
            ("pipeline.memory-limit", "512mb"),
            ("pipeline.name", "hourly delays"),
            ("execution.batch-rows", "7"),
            ("execution.channel.rows", "1"),
            ("execution.channel.bytes", "64 kb"),
            ("table.exec.async-lookup.buffer-capacity", "5"),
            ("table.exec.async-lookup.output-mode", "allow_unordered"),
            ("table.exec.async-lookup.timeout", "7 s"),
            ("restart-strategy.type", "Fixed-Delay"),
            ("restart-strategy.fixed-delay.attempts", "3"),
            ("restart-strategy.fixed-delay.delay", "0"),
            ("restart-strategy.failure-rate.delay", "2 s"),
            ("restart-strategy.failure-rate.failure-rate-interval", "2 min"),
            ("restart-strategy.failure-rate.max-failures-per-interval", "4"),
            ("restart-strategy.exponential-delay.initial-backoff", "10 ms"),
            ("restart-strategy.exponential-delay.max-backoff", "5 s"),
            ("restart-strategy.exponential-delay.backoff-multiplier", "2.25"),
            ("restart-strategy.exponential-delay.reset-backoff-threshold", "1 d"),
            ("restart-strategy.exponential-delay.jitter-factor", "0"),
            ("restart-strategy.exponential-delay.attempts-before-reset-backoff", "9"),
        ];
        assert_eq!(given.len(), SETTINGS.len());
        given.iter().for_each(|(key, value)| settings.set(key, value).unwrap());
        let expected = Settings {
            runtime_mode: RuntimeMode::Streaming,
            parallelism: Some(3),
            checkpoint_interval: Some(Duration::from_secs(10)),
            delivery: Some(Guarantee::AtLeastOnce),
            memory_limit_bytes: Some(512 << 20),
            name: Some("hourly delays".to_owned()),
            batch_rows: Some(7),
            channel_rows: Some(1),
            channel_bytes: Some(64 << 10),
            async_lookup: AsyncLookup { is_ordered: false, requests_max: 5, timeout: Duration::from_secs(7) },
            mini_batch: true,
            mini_batch_latency: Some(Duration::from_secs(2)),
            mini_batch_rows: Some(100),
            source_idle_timeout: Some(Duration::from_secs(5)),
            state_ttl: Some(Duration::from_secs(86_400)),
            time_zone: Tz::Europe__Berlin,
            aggregate_phases: AggregatePhases::Two,
            restart: RestartSettings {
                kind: Some(RestartKind::FixedDelay),
                fixed_attempts: 3,
                fixed_delay: Duration::ZERO,
                rate_failures_max: 4,
                rate_interval: Duration::from_secs(120),
                rate_delay: Duration::from_secs(2),
                backoff_initial: Duration::from_millis(10),
                backoff_max: Duration::from_secs(5),
                backoff_multiplier_milli: 2_250,
                backoff_reset: Duration::from_secs(86_400),
                backoff_jitter_milli: 0,
                backoff_attempts: Some(9),
            },
            alignment_timeout: AlignmentTimeout::After(Duration::from_millis(500)),
            ..Settings::default()
        };
        assert_eq!(settings, expected);
        settings.set("execution.checkpointing.aligned-checkpoint-timeout", "never").unwrap();
        assert_eq!(settings.alignment_timeout, AlignmentTimeout::Never);
        settings.set("table.exec.source.idle-timeout", "0").unwrap();
        assert_eq!(settings.source_idle_timeout, None);
        let bounds = MiniBatch { rows: 100, latency: Duration::from_secs(2) };
        assert_eq!(settings.mini_batch(), Some(bounds));
        settings.set("table.optimizer.agg-phase-strategy", "ONE_PHASE").unwrap();
        assert_eq!(settings.mini_batch(), None);
        settings.reset(Some("parallelism.default")).unwrap();
        assert_eq!(settings.parallelism, None);
        settings.reset(None).unwrap();
        assert_eq!(settings, Settings::default());
    }

    #[test]
    fn what_does_not_fit_says_what_would() {
        assert_eq!(refused("paralelism.default", "3"), "there is no setting 'paralelism.default'");
        let there = "there are 'exactly-once', 'at-least-once' and 'at-most-once'";
        assert_eq!(
            refused("execution.delivery", "once"),
            format!("'execution.delivery': 'once' is no delivery; {there}")
        );
        assert_eq!(
            refused("table.exec.mini-batch.enabled", "yes"),
            "'table.exec.mini-batch.enabled': 'yes' is neither 'true' nor 'false'"
        );
        assert_eq!(refused("parallelism.default", "0"), "'parallelism.default': 0 is not between 1 and 128");
        assert_eq!(refused("parallelism.default", "two"), "'parallelism.default': 'two' is not a whole number");
        assert_eq!(
            refused("execution.runtime-mode", "auto"),
            "'execution.runtime-mode': 'auto' is no runtime mode; there are 'streaming', 'batch' and 'automatic'"
        );
        assert_eq!(
            refused("execution.checkpointing.interval", "soon"),
            "'execution.checkpointing.interval': 'soon' is not a time such as '10 s', '500 ms' or '1 min'"
        );
        assert_eq!(
            refused("execution.checkpointing.aligned-checkpoint-timeout", "soon"),
            "'execution.checkpointing.aligned-checkpoint-timeout': 'soon' is not a time such as '10 s', '500 ms' or \
             '1 min', nor 'never'"
        );
        assert_eq!(
            refused("pipeline.memory-limit", "0"),
            "'pipeline.memory-limit': '0' is not an amount of memory such as '512 mb' or '2 gb'"
        );
        assert_eq!(
            refused("table.optimizer.agg-phase-strategy", "three"),
            "'table.optimizer.agg-phase-strategy': 'three' is no strategy; there are 'AUTO', 'ONE_PHASE' and 'TWO_PHASE'"
        );
        assert_eq!(
            refused("table.local-time-zone", "Mars/Olympus"),
            "'table.local-time-zone': there is no time zone 'Mars/Olympus'; there are names such as 'Europe/Berlin'"
        );
        assert_eq!(
            refused("table.local-time-zone", "Europe/Berln"),
            "'table.local-time-zone': there is no time zone 'Europe/Berln'; did you mean 'Europe/Berlin'?"
        );
    }

    #[test]
    fn settings_are_sorted_and_documented() {
        assert!(SETTINGS.is_sorted_by_key(|spec| spec.key));
        assert!(SETTINGS.iter().all(|spec| !spec.doc.is_empty()));
    }
}
