//! `ruslo checkpoint`: what stands in a checkpoint folder, for people and for programs.

use std::process::ExitCode;
use std::time::Duration;

use ruslo::core::key_group::KeyGroupRange;
use ruslo::core::memory::human_bytes;
use ruslo::core::time::Timestamp;
use ruslo::inspect::manifest::{LineageState, Manifest, OperatorEntry, RunRef};
use ruslo::inspect::{Listed, Place, Verified};
use ruslo::{Environment, Epoch, ErrorKind, Result};
use serde_json::{Value, json};

use crate::args::{Checkpoint, CheckpointPlace, Output};
use crate::command::say;
use crate::exit;
use crate::screen::Screen;
use crate::table::{Side, Table};
use crate::text::{count, counted, time};

/// Answers, and says what is damaged by the exit code.
pub(crate) fn run(what: &Checkpoint, screen: &Screen) -> ExitCode {
    let done = match what {
        Checkpoint::List(place) => list(place),
        Checkpoint::Inspect { place, epoch } => inspect(place, *epoch),
        Checkpoint::Verify { place, epoch } => verify(place, *epoch),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            screen.line(&format!("error: {error}"));
            exit::of(Err(error.kind()))
        }
    }
}

fn told(output: Output, text: impl FnOnce() -> String, object: impl FnOnce() -> Value) -> Result<()> {
    match output {
        Output::Text => say(&text()),
        Output::Json => say(&format!("{}\n", object())),
    }
}

fn list(arguments: &CheckpointPlace) -> Result<ExitCode> {
    let place = Place::open(&arguments.dir)?;
    let found = place.list()?;
    let now = Environment::local().clock.wall();
    told(
        arguments.output,
        || listing(&found, now),
        || {
            let all: Vec<_> = found.iter().map(listed).collect();
            json!({ "location": place.location().display().to_string(), "checkpoints": all })
        },
    )?;
    Ok(ExitCode::SUCCESS)
}

/// In a word, what can be done with a checkpoint.
fn state(listed: &Listed) -> &'static str {
    match (&listed.problem, &listed.manifest) {
        (Some(problem), _) if problem.kind() == ErrorKind::Usage => "newer",
        (Some(_), _) | (None, None) => "damaged",
        (None, Some(manifest)) if manifest.savepoint.is_some() => "savepoint",
        (None, Some(manifest)) if manifest.finished => "finished",
        (None, Some(manifest)) if is_beginning(manifest) => "beginning",
        (None, Some(_)) => "resumable",
    }
}

fn is_beginning(manifest: &Manifest) -> bool {
    manifest.operators.values().all(|entry| entry.subtasks.is_empty() && entry.committables.is_empty())
}

fn age(written_at: Timestamp, now: Timestamp) -> String {
    let millis = now.millis().saturating_sub(written_at.millis()).max(0);
    // To the second: nobody counts the milliseconds of hours.
    let seconds = Duration::from_secs(u64::try_from(millis / 1_000).unwrap_or_default());
    if seconds.is_zero() { "just now".to_owned() } else { format!("{} ago", time(seconds)) }
}

fn listing(found: &[Listed], now: Timestamp) -> String {
    use Side::{Left, Right};
    if found.is_empty() {
        return "no checkpoints\n".to_owned();
    }
    let columns = [("epoch", Right), ("written", Right), ("size", Right), ("new", Right), ("operators", Right)];
    let mut table = Table::new(&[&columns[..], &[("state", Left), ("", Left)]].concat());
    for listed in found {
        let (bytes, own) = listed.bytes();
        let manifest = listed.manifest.as_ref();
        let of = |show: &dyn Fn(&Manifest) -> String| manifest.map_or_else(|| "–".to_owned(), show);
        let repeats = manifest.and_then(|manifest| manifest.repeats);
        let note = match (&listed.problem, repeats) {
            (Some(problem), _) => problem.to_string(),
            (None, Some(origin)) => format!("checkpoint {origin} again, taken over by a resumed process"),
            (None, None) => String::new(),
        };
        table.row([
            listed.epoch.to_string(),
            of(&|manifest| age(manifest.written_at, now)),
            of(&|_| human_bytes(bytes)),
            of(&|_| human_bytes(own)),
            of(&|manifest| count(manifest.operators.len() as u64)),
            state(listed).to_owned(),
            note,
        ]);
    }
    table.render("")
}

fn listed(listed: &Listed) -> Value {
    let (bytes, own) = listed.bytes();
    let mut object = json!({ "epoch": listed.epoch.0, "state": state(listed) });
    let Some(fields) = object.as_object_mut() else { return object };
    if let Some(manifest) = &listed.manifest {
        let more = [
            ("written_at", json!(manifest.written_at)),
            ("run", json!(manifest.run)),
            ("fingerprint", json!(manifest.fingerprint)),
            ("delivery", json!(manifest.delivery)),
            ("repeats", json!(manifest.repeats.map(|epoch| epoch.0))),
            ("bytes", json!(bytes)),
            ("new_bytes", json!(own)),
            ("operators", json!(manifest.operators.len())),
        ];
        fields.extend(more.map(|(name, value)| (name.to_owned(), value)));
    }
    if let Some(problem) = &listed.problem {
        fields.insert("problem".to_owned(), problem.to_string().into());
    }
    object
}

fn inspect(arguments: &CheckpointPlace, epoch: Option<u64>) -> Result<ExitCode> {
    let place = Place::open(&arguments.dir)?;
    let found = place.find(epoch.map(Epoch))?;
    let Some(manifest) = &found.manifest else {
        return Err(found.problem.unwrap_or_else(|| ruslo::Error::internal("a checkpoint without its manifest")));
    };
    let now = Environment::local().clock.wall();
    told(
        arguments.output,
        || format!("{}{}", heading(&place, &found, manifest, now), tables(manifest)),
        || {
            let mut object = listed(&found);
            if let Some(fields) = object.as_object_mut() {
                let operators: Vec<_> = manifest.operators.iter().map(operator).collect();
                fields.insert("location".to_owned(), place.location().display().to_string().into());
                fields.insert("operators".to_owned(), operators.into());
            }
            object
        },
    )?;
    Ok(if found.problem.is_some() { exit::of(Err(ErrorKind::Corrupt)) } else { ExitCode::SUCCESS })
}

fn heading(place: &Place, found: &Listed, manifest: &Manifest, now: Timestamp) -> String {
    let (bytes, own) = found.bytes();
    let release = manifest.plan.as_ref().map(|plan| format!(", planned by ruslo {}", plan.release));
    let mut lines = vec![
        format!("checkpoint {} in {}: {}", found.epoch, place.location().display(), state(found)),
        format!("  written  {} UTC, {}", manifest.written_at, age(manifest.written_at, now)),
        format!("  size     {}, {} of it new", human_bytes(bytes), human_bytes(own)),
        format!("  run      {}, query {}{}", manifest.run, manifest.fingerprint, release.unwrap_or_default()),
    ];
    lines.extend(manifest.delivery.map(|delivery| format!("  delivery {delivery}")));
    if let Some(origin) = manifest.repeats {
        lines.push(format!("  repeats  checkpoint {origin}, for the process that went on from it"));
    }
    if let Some(problem) = &found.problem {
        lines.push(format!("  damaged  {problem}"));
    }
    lines.join("\n") + "\n"
}

fn tables(manifest: &Manifest) -> String {
    let parts = [
        ("operators", operators(manifest)),
        ("tables", state_tables(manifest)),
        ("rows that the barrier overtook", overtaken(manifest)),
        ("input", inputs(manifest)),
        ("output to commit", outputs(manifest)),
    ];
    let shown = parts.iter().filter(|(_, table)| !table.is_empty());
    shown.map(|(title, table)| format!("\n{title}\n{}", table.render("  "))).collect()
}

fn operators(manifest: &Manifest) -> Table {
    use Side::{Left, Right};
    let columns = [
        ("id", Left),
        ("name", Left),
        ("subtasks", Right),
        ("rows in", Right),
        ("rows out", Right),
        ("late", Right),
        ("watermark", Left),
    ];
    let mut table = Table::new(&columns);
    for (id, entry) in &manifest.operators {
        let sum = |of: fn(&ruslo::core::metrics::RowCounts) -> u64| -> String {
            count(entry.subtasks.iter().map(|subtask| of(&subtask.counts)).sum())
        };
        let watermark = entry.subtasks.iter().map(|subtask| subtask.watermark).min();
        table.row([
            id.to_string(),
            entry.name.clone(),
            count(entry.subtasks.len() as u64),
            sum(|counts| counts.rows_in),
            sum(|counts| counts.rows_out),
            sum(|counts| counts.late_rows),
            watermark.map_or_else(String::new, |watermark| watermark.to_string()),
        ]);
    }
    table
}

fn state_tables(manifest: &Manifest) -> Table {
    use Side::{Left, Right};
    let columns = [
        ("operator", Left),
        ("subtask", Right),
        ("table", Left),
        ("runs", Right),
        ("rows", Right),
        ("bytes", Right),
        ("key groups", Left),
    ];
    let mut table = Table::new(&columns);
    for entry in manifest.operators.values() {
        for (index, subtask) in entry.subtasks.iter().enumerate() {
            for (name, runs) in &subtask.tables {
                table.row([
                    entry.name.clone(),
                    index.to_string(),
                    name.clone(),
                    count(runs.len() as u64),
                    count(runs.iter().map(|run| run.rows).sum()),
                    human_bytes(runs.iter().map(|run| run.length).sum()),
                    groups_of(runs).map_or_else(String::new, |groups| span(groups.start, groups.end)),
                ]);
            }
        }
    }
    table
}

fn overtaken(manifest: &Manifest) -> Table {
    use Side::{Left, Right};
    let columns =
        [("from", Left), ("subtask", Right), ("to", Left), ("subtask", Right), ("rows", Right), ("bytes", Right)];
    let mut table = Table::new(&columns);
    for entry in manifest.operators.values() {
        for rows in &entry.in_flight {
            let from =
                manifest.operators.get(&rows.from).map_or_else(|| rows.from.to_string(), |from| from.name.clone());
            table.row([
                from,
                rows.sender.to_string(),
                entry.name.clone(),
                rows.receiver.to_string(),
                count(rows.batches.iter().map(|run| run.rows).sum()),
                human_bytes(rows.batches.iter().map(|run| run.length).sum()),
            ]);
        }
    }
    table
}

/// The key groups from the first to the last that some run has.
fn groups_of(runs: &[RunRef]) -> Option<KeyGroupRange> {
    let start = runs.iter().map(|run| run.groups.start).min()?;
    Some(start..runs.iter().map(|run| run.groups.end).max()?)
}

/// `0–63` of the half-open interval `0..64`.
fn span<N: std::fmt::Display + Into<u64> + Copy>(start: N, end: N) -> String {
    let last = end.into().saturating_sub(1);
    if last <= start.into() { start.to_string() } else { format!("{start}–{last}") }
}

fn inputs(manifest: &Manifest) -> Table {
    use Side::{Left, Right};
    let columns = [("source", Left), ("lineage", Left), ("splits", Right), ("read", Right), ("being read", Left)];
    let mut table = Table::new(&columns);
    for entry in manifest.operators.values() {
        for lineage in &entry.lineages {
            let reading = lineage.reading.iter().map(|split| format!("{} at {}", split.sequence, split.position));
            table.row([
                entry.name.clone(),
                lineage.lineage.clone(),
                count(lineage.splits),
                count(read_splits(lineage)),
                reading.collect::<Vec<_>>().join(", "),
            ]);
        }
    }
    table
}

fn read_splits(lineage: &LineageState) -> u64 {
    lineage.finished.iter().map(|range| (range.last + 1).saturating_sub(range.first)).sum()
}

fn outputs(manifest: &Manifest) -> Table {
    let mut table = Table::new(&[("sink", Side::Left), ("committables", Side::Right)]);
    for entry in manifest.operators.values().filter(|entry| !entry.committables.is_empty()) {
        table.row([entry.name.clone(), count(entry.committables.len() as u64)]);
    }
    table
}

fn operator((id, entry): (&ruslo::core::graph::OperatorId, &OperatorEntry)) -> Value {
    let subtasks: Vec<_> = entry
        .subtasks
        .iter()
        .map(|subtask| {
            let tables = subtask.tables.iter().map(|(name, runs)| {
                let groups = groups_of(runs);
                json!({
                    "name": name,
                    "runs": runs.len(),
                    "rows": runs.iter().map(|run| run.rows).sum::<u64>(),
                    "bytes": runs.iter().map(|run| run.length).sum::<u64>(),
                    "first_key_group": groups.as_ref().map(|groups| groups.start),
                    "last_key_group": groups.as_ref().map(|groups| groups.end.saturating_sub(1)),
                })
            });
            json!({
                "watermark": subtask.watermark,
                "counts": subtask.counts,
                "tables": tables.collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({
        "id": id,
        "name": entry.name,
        "subtasks": subtasks,
        "lineages": entry.lineages,
        "in_flight": entry.in_flight,
        "committables": entry.committables,
    })
}

fn verify(arguments: &CheckpointPlace, epoch: Option<u64>) -> Result<ExitCode> {
    let place = Place::open(&arguments.dir)?;
    let verified = place.verify(epoch.map(Epoch))?;
    // What another checkpoint names is not looked at if only one was asked for.
    let unnamed = if epoch.is_none() { verified.unnamed.as_slice() } else { &[] };
    told(
        arguments.output,
        || verdict(&verified, unnamed),
        || {
            let damages = verified.damages.iter().map(|damage| {
                json!({
                    "file": damage.file,
                    "offset": damage.offset,
                    "what": damage.what,
                    "epochs": damage.epochs.iter().map(|epoch| epoch.0).collect::<Vec<_>>(),
                })
            });
            json!({
                "location": place.location().display().to_string(),
                "whole": verified.whole.iter().map(|epoch| epoch.0).collect::<Vec<_>>(),
                "damaged": damages.collect::<Vec<_>>(),
                "newer": verified.newer.iter().map(|(epoch, _)| epoch.0).collect::<Vec<_>>(),
                "unnamed": unnamed,
                "runs": verified.runs,
                "bytes": verified.bytes,
            })
        },
    )?;
    Ok(match (verified.damages.is_empty(), verified.newer.is_empty()) {
        (false, _) => exit::of(Err(ErrorKind::Corrupt)),
        (true, false) => exit::of(Err(ErrorKind::Usage)),
        (true, true) => ExitCode::SUCCESS,
    })
}

fn epochs(epochs: &[Epoch]) -> String {
    epochs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn verdict(verified: &Verified, unnamed: &[String]) -> String {
    let mut lines = Vec::new();
    for damage in &verified.damages {
        let of = if damage.epochs.len() == 1 { "of checkpoint" } else { "of checkpoints" };
        lines.push(format!("damaged  {} ({of} {})", damage.what, epochs(&damage.epochs)));
    }
    lines.extend(verified.newer.iter().map(|(_, error)| format!("newer    {error}")));
    if let Some(first) = unnamed.first() {
        let files = counted(unnamed.len() as u64, "file", "files");
        lines.push(format!("unnamed  {files} that no checkpoint names, such as {first}: of a running job, or garbage"));
    }
    let whole = match verified.whole.as_slice() {
        [] => "no checkpoint is whole".to_owned(),
        [one] => format!("checkpoint {one} is whole"),
        many => format!("checkpoints {} are whole", epochs(many)),
    };
    lines.push(format!("{whole}: read {} and {}", counted(verified.runs, "run", "runs"), human_bytes(verified.bytes)));
    lines.join("\n") + "\n"
}
