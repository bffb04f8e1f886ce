//! `/api/v1/jobs`: the graph and its figures. Names are Flink's where it has them; times are in milliseconds.

use std::time::Duration;

use ruslo::Failure;
use serde_json::{Value, json};

use crate::exit;
use crate::figures::{EdgeFigures, Figures, OperatorFigures, SubtaskFigures, role};

/// All jobs of this process that can be watched.
pub(super) fn jobs(figures: &[Figures]) -> Value {
    json!({ "jobs": figures.iter().map(job).collect::<Vec<_>>() })
}

fn job(figures: &Figures) -> Value {
    let checkpoint = figures.checkpoint.map(|(report, age)| {
        json!({
            "lastCheckpointId": report.epoch.0,
            "lastCheckpointDuration": millis(report.took),
            "lastCheckpointSize": report.bytes_written,
            "lastCheckpointFullSize": report.bytes,
            "lastCheckpointAge": millis(age),
            "numberOfCompletedCheckpoints": report.completed,
        })
    });
    json!({
        "name": figures.name,
        "state": if figures.restarts.is_waiting { "RESTARTING" } else { "RUNNING" },
        "numRestarts": figures.restarts.count,
        "lastFailure": figures.restarts.last_failure.as_ref().map(failure),
        "uptime": millis(figures.uptime),
        "memory": { "usedBytes": figures.memory_used_bytes, "peakBytes": figures.memory_peak_bytes },
        "checkpoint": checkpoint,
        "operators": figures.operators.iter().map(operator).collect::<Vec<_>>(),
        "edges": figures.edges.iter().map(edge).collect::<Vec<_>>(),
    })
}

fn failure(failure: &Failure) -> Value {
    json!({
        "error": failure.error.to_string(),
        "errorKind": exit::name(failure.error.kind()),
        "at": failure.at.millis(),
        "delay": millis(failure.delay),
    })
}

fn operator(operator: &OperatorFigures) -> Value {
    json!({
        "id": operator.id,
        "name": operator.name,
        "role": role(operator.role),
        "parallelism": operator.subtasks.len(),
        "latencyP50": operator.latency.map(|(half, _)| millis(half)),
        "latencyP99": operator.latency.map(|(_, most)| millis(most)),
        "subtasks": operator.subtasks.iter().map(subtask).collect::<Vec<_>>(),
    })
}

fn subtask(subtask: &SubtaskFigures) -> Value {
    json!({
        "numRecordsIn": subtask.counts.rows_in,
        "numRecordsOut": subtask.counts.rows_out,
        "numRecordsInPerSecond": subtask.rates.0,
        "numRecordsOutPerSecond": subtask.rates.1,
        "numBytesIn": subtask.bytes_in,
        "numBytesOut": subtask.bytes_out,
        "numLateRecords": subtask.counts.late_rows,
        "numSkippedRecords": subtask.counts.skipped_rows,
        "numDeadLetters": subtask.counts.dead_letter_rows,
        "numRecordsAhead": subtask.counts.ahead_rows,
        "numFilesTooOld": subtask.too_old_files,
        "busyTimeMsPerSecond": subtask.busy_ms,
        "idleTimeMsPerSecond": subtask.idle_ms,
        "backPressuredTimeMsPerSecond": subtask.backpressured_ms,
        "currentInputWatermark": subtask.input_watermark.map(|at| at.millis()),
        "currentOutputWatermark": subtask.watermark.map(|at| at.millis()),
        "watermarkLag": subtask.watermark_lag.map(millis),
        "checkpointAlignmentTime": millis(subtask.alignment),
    })
}

fn edge(edge: &EdgeFigures) -> Value {
    json!({
        "from": edge.from,
        "fromId": edge.from_id,
        "to": edge.to,
        "toId": edge.to_id,
        "partitioning": edge.partitioning,
        "queuedRecords": edge.fill.rows,
        "queuedBytes": edge.fill.bytes,
        "queuedAge": millis(edge.fill.age),
        "numRecords": edge.fill.rows_sent,
        "numBytes": edge.fill.bytes_sent,
    })
}

fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1_000_000.0).round() / 1_000.0
}
