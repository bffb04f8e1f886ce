//! What was measured, as a table: the median over the rounds.

use super::Measured;
use crate::text::count;

/// One line a query, in the order in which they ran first.
pub(super) fn of(runs: &[Measured]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for run in runs {
        if !names.contains(&run.query) {
            names.push(run.query);
        }
    }
    let mut text =
        format!("{:12}{:>14}{:>10}{:>14}{:>8}{:>10}\n", "query", "rows", "seconds", "rows/s", "CPU s", "peak MB");
    for name in names {
        let of_query: Vec<&Measured> = runs.iter().filter(|run| run.query == name).collect();
        text.push_str(&line(name, &of_query));
    }
    text
}

fn line(name: &str, runs: &[&Measured]) -> String {
    let median_of =
        |figure: &dyn Fn(&Measured) -> Option<f64>| median(runs.iter().filter_map(|run| figure(run)).collect());
    let shown =
        |figure: Option<f64>, digits: usize| figure.map_or("–".to_owned(), |figure| format!("{figure:.digits$}"));
    let rows = runs.first().map_or(0, |run| run.rows);
    let per_second = median_of(&|run| Some(run.rows_per_second())).unwrap_or_default();
    format!(
        "{name:12}{:>14}{:>10}{:>14}{:>8}{:>10}\n",
        count(rows),
        shown(median_of(&|run| Some(run.seconds)), 2),
        count(per_second as u64),
        shown(median_of(&|run| run.cpu_seconds), 2),
        shown(median_of(&|run| Some(run.peak_rss_bytes? as f64 / 1e6)), 0),
    )
}

/// The middle one; of an even number the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = values.get(values.len() / 2).copied()?;
    let lower = values.get(values.len().saturating_sub(1) / 2).copied()?;
    Some((lower + upper) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_has_one_line_with_its_medians() {
        let run = |query, seconds| Measured {
            query,
            rows: 1000,
            seconds,
            cpu_seconds: None,
            peak_rss_bytes: Some(50_000_000),
        };
        let text = of(&[run("q0", 1.0), run("q1", 2.0), run("q0", 4.0), run("q0", 2.0)]);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["q0", "1,000", "2.00", "500", "–", "50"]);
        assert_eq!((lines[2][0], lines.len()), ("q1", 3));
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
        assert_eq!(median(vec![]), None);
    }
}
