//! The summary of a job: a line for a person, or a JSON object for a program.

use std::time::Duration;

use ruslo::{Ended, OperatorSummary, Role, Summary};
use serde_json::{Value, json};

use crate::text::{counted, time};
use crate::{cost, exit};

/// One line for a person.
pub(crate) fn line(summary: &Summary) -> String {
    let told = [
        (summary.skipped_rows, "bad record skipped", "bad records skipped"),
        (summary.dead_letter_rows, "dead letter", "dead letters"),
        (summary.late_rows, "late row", "late rows"),
        (summary.ahead_rows, "row ahead of the clock", "rows ahead of the clock"),
        (summary.in_doubt_rows, "row in doubt", "rows in doubt"),
    ];
    let told = told.into_iter().filter(|(rows, ..)| *rows > 0);
    let told = told.chain((summary.restarts > 0).then_some((summary.restarts, "restart", "restarts")));
    let told: String = told.map(|(rows, one, many)| format!(", {}", counted(rows, one, many))).collect();
    format!(
        "{}: {} after {}: {} in, {} out{told}",
        summary.name,
        summary.state,
        time(Duration::try_from_secs_f64(summary.seconds).unwrap_or_default()),
        counted(summary.rows_in, "row", "rows"),
        counted(summary.rows_out, "row", "rows"),
    )
}

/// One JSON object for a program.
pub(crate) fn json(ended: &Ended) -> Value {
    let Ended { summary, error } = ended;
    let mut object = json!({
        "name": summary.name,
        "state": summary.state.to_string(),
        "rows_in": summary.rows_in,
        "rows_out": summary.rows_out,
        "late_rows": summary.late_rows,
        "skipped_rows": summary.skipped_rows,
        "dead_letter_rows": summary.dead_letter_rows,
        "ahead_rows": summary.ahead_rows,
        "in_doubt_rows": summary.in_doubt_rows,
        "seconds": summary.seconds,
        "checkpoint": summary.checkpoint.map(|epoch| epoch.0),
        "checkpoint_dir": summary.checkpoint_dir.display().to_string(),
        "peak_memory_bytes": summary.peak_memory_bytes,
        "spilled_bytes": summary.spilled_bytes,
        "restarts": summary.restarts,
        "cpu_seconds": cost::cpu_seconds(),
        "peak_rss_bytes": cost::peak_rss_bytes(),
        "operators": summary.operators.iter().map(operator).collect::<Vec<_>>(),
    });
    if let (Some(failure), Some(fields)) = (&summary.last_failure, object.as_object_mut()) {
        fields.insert("last_failure".to_owned(), failure.to_string().into());
    }
    if let (Some(error), Some(fields)) = (error, object.as_object_mut()) {
        fields.insert("error".to_owned(), error.to_string().into());
        fields.insert("error_kind".to_owned(), exit::name(error.kind()).into());
    }
    object
}

fn operator(operator: &OperatorSummary) -> Value {
    let role = match operator.role {
        Role::Source => "source",
        Role::Operator => "operator",
        Role::Sink => "sink",
        Role::SideSink => "side-sink",
    };
    json!({
        "name": operator.name,
        "role": role,
        "rows_in": operator.rows_in,
        "rows_out": operator.rows_out,
        "late_rows": operator.late_rows,
        "skipped_rows": operator.skipped_rows,
        "dead_letter_rows": operator.dead_letter_rows,
        "ahead_rows": operator.ahead_rows,
        "in_doubt_rows": operator.in_doubt_rows,
    })
}

#[cfg(test)]
mod tests {
    use ruslo::{Epoch, Error, State};

    use super::*;

    fn ended(error: Option<Error>) -> Ended {
        let operator = OperatorSummary {
            name: "Source t".to_owned(),
            role: Role::Source,
            rows_in: 3,
            rows_out: 3,
            late_rows: 0,
            skipped_rows: 0,
            dead_letter_rows: 0,
            ahead_rows: 0,
            in_doubt_rows: 0,
        };
        let summary = Summary {
            name: "j".to_owned(),
            state: if error.is_some() { State::Failed } else { State::Finished },
            rows_in: 3,
            rows_out: 1,
            late_rows: 1,
            skipped_rows: 0,
            dead_letter_rows: 0,
            ahead_rows: 0,
            in_doubt_rows: 0,
            seconds: 1.5,
            checkpoint: Some(Epoch(7)),
            checkpoint_dir: "c".into(),
            peak_memory_bytes: 10,
            restarts: 0,
            last_failure: None,
            spilled_bytes: 0,
            operators: vec![operator],
        };
        Ended { summary, error }
    }

    #[test]
    fn a_person_reads_a_line() {
        let mut summary = ended(None).summary;
        assert_eq!(line(&summary), "j: finished after 1.5 s: 3 rows in, 1 row out, 1 late row");
        (summary.late_rows, summary.dead_letter_rows, summary.ahead_rows) = (0, 2, 1);
        let expected = "j: finished after 1.5 s: 3 rows in, 1 row out, 2 dead letters, 1 row ahead of the clock";
        assert_eq!(line(&summary), expected);
        (summary.dead_letter_rows, summary.ahead_rows) = (0, 0);
        assert_eq!(line(&summary), "j: finished after 1.5 s: 3 rows in, 1 row out");
        summary.restarts = 2;
        assert_eq!(line(&summary), "j: finished after 1.5 s: 3 rows in, 1 row out, 2 restarts");
    }

    #[test]
    fn a_program_reads_an_object() {
        let object = json(&ended(None));
        assert_eq!((&object["state"], &object["checkpoint"]), (&json!("finished"), &json!(7)));
        assert_eq!(object["operators"][0]["role"], "source");
        assert!(object.get("error").is_none());
        let failed = json(&ended(Some(Error::data("bad row"))));
        assert_eq!((&failed["error"], &failed["error_kind"]), (&json!("bad row"), &json!("data")));
    }
}
