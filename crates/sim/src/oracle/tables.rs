//! What tables that change come to: every operator over all that is there at the end.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use ruslo_operators::RegularJoinKind;

use crate::changes::Told;
use crate::changing::{Changing, Side, TAKERS};
use crate::dataset::{Dataset, column};
use crate::shape::{Kind, Shape};
use crate::sink::OutRow;

/// NULL.
const NULL: i64 = i64::MIN;

/// Rows, and how often each is there.
type Table = BTreeMap<OutRow, i64>;

/// What is there at the end behind `node`.
pub(super) fn table_behind(shape: &Shape, node: usize, data: &[impl AsRef<Dataset>]) -> Table {
    let inputs = || shape.nodes[node].inputs.iter().map(|link| table_behind(shape, link.from, data)).collect();
    match shape.nodes[node].kind {
        Kind::Source(dataset) if shape.told[dataset] == Told::Changes => left(data[dataset].as_ref()),
        Kind::Source(dataset) => read(data[dataset].as_ref()),
        Kind::Changing(changing) => {
            let widths = shape.nodes[node].inputs.iter().map(|link| shape.schema_of(link.from).fields().len());
            of(changing, inputs(), &widths.collect::<Vec<_>>())
        }
        _ => Table::new(),
    }
}

/// All rows of a source.
fn read(data: &Dataset) -> Table {
    let rows = data.lineages.iter().flat_map(|lineage| {
        let rows = lineage.rows.iter().zip(0..);
        rows.map(|(row, offset)| (vec![lineage.id, offset, row.key, row.value, row.time, 0], 1))
    });
    rows.collect()
}

/// The rows of a source that none has taken back.
fn left(data: &Dataset) -> Table {
    let mut table = Table::new();
    for lineage in &data.lineages {
        for row in &lineage.rows {
            let gone = row.takes_back();
            let of = gone.unwrap_or(*row);
            let count = table.entry(vec![lineage.id, 0, of.key, of.value, 0, 0]).or_default();
            *count += if gone.is_some() { -1 } else { 1 };
        }
    }
    table.retain(|_, count| *count != 0);
    table
}

/// Each row as often as it is there.
fn copies(table: &Table) -> impl Iterator<Item = &OutRow> {
    table.iter().flat_map(|(row, count)| std::iter::repeat_n(row, *count as usize))
}

fn counted(rows: impl IntoIterator<Item = OutRow>) -> Table {
    let mut table = Table::new();
    rows.into_iter().for_each(|row| *table.entry(row).or_default() += 1);
    table
}

fn of(changing: Changing, inputs: Vec<Table>, widths: &[usize]) -> Table {
    match changing {
        Changing::Group { key, value, .. } => grouped(&inputs, key, value),
        Changing::Join { kind, sides, is_less } => joined(kind, sides, is_less, &inputs, widths),
        Changing::Ranked { key, value, limit, has_rank, .. } => ranked(&inputs[0], key, value, limit, has_rank),
        // One of those of each key is there: any.
        Changing::Materialize(_) | Changing::Last(_) => inputs.into_iter().next().unwrap(),
        Changing::Half(takes) => {
            let half = |row: &OutRow| match takes {
                true => vec![row[column::OFFSET] % TAKERS, row[column::VALUE]],
                false => vec![row[column::KEY], -row[column::VALUE]],
            };
            counted(copies(&inputs[0]).map(half))
        }
    }
}

fn grouped(inputs: &[Table], key: Option<usize>, value: usize) -> Table {
    let mut groups = BTreeMap::<Vec<i64>, Vec<i64>>::new();
    for row in inputs.iter().flat_map(copies) {
        groups.entry(key.map(|at| row[at]).into_iter().collect()).or_default().push(row[value]);
    }
    let result = |(key, all): (Vec<i64>, Vec<i64>)| {
        let values: Vec<i64> = all.iter().copied().filter(|value| *value != NULL).collect();
        let sum = if values.is_empty() { NULL } else { values.iter().sum() };
        let extremes = [values.iter().min(), values.iter().max()].map(|value| value.copied().unwrap_or(NULL));
        let distinct = values.iter().collect::<BTreeSet<_>>().len() as i64;
        let results = vec![all.len() as i64, sum, extremes[0], extremes[1], distinct];
        ([key, results].concat(), 1)
    };
    groups.into_iter().map(result).collect()
}

fn ranked(input: &Table, key: Option<usize>, value: usize, limit: usize, has_rank: bool) -> Table {
    let mut groups = BTreeMap::<Option<i64>, Vec<&OutRow>>::new();
    for row in copies(input) {
        groups.entry(key.map(|at| row[at])).or_default().push(row);
    }
    let first = |mut rows: Vec<&OutRow>| {
        rows.sort_by_key(|row| (Reverse(row[value]), (*row).clone()));
        rows.truncate(limit);
        let ranks = rows.into_iter().zip(1..);
        ranks.map(|(row, rank)| row.iter().copied().chain(has_rank.then_some(rank)).collect()).collect::<Vec<OutRow>>()
    };
    counted(groups.into_values().flat_map(first))
}

fn joined(kind: RegularJoinKind, sides: [Side; 2], is_less: bool, inputs: &[Table], widths: &[usize]) -> Table {
    use RegularJoinKind as K;
    let is_pair = |l: &OutRow, r: &OutRow| {
        let (left, right) = (l[sides[0].key], r[sides[1].key]);
        left != NULL && left == right && (!is_less || l[column::VALUE] < r[column::VALUE])
    };
    let [left, right] = [0, 1].map(|side: usize| copies(&inputs[side]).collect::<Vec<_>>());
    let mut found = Vec::new();
    for l in &left {
        let partners: Vec<_> = right.iter().filter(|r| is_pair(l, r)).collect();
        match kind {
            K::Semi | K::Anti if partners.is_empty() == (kind == K::Anti) => found.push((*l).clone()),
            K::Semi | K::Anti => {}
            K::Left | K::Full if partners.is_empty() => found.push([(*l).clone(), vec![NULL; widths[1]]].concat()),
            _ => found.extend(partners.into_iter().map(|r| [l.as_slice(), r].concat())),
        }
    }
    if matches!(kind, K::Right | K::Full) {
        let alone = right.iter().filter(|r| !left.iter().any(|l| is_pair(l, r)));
        found.extend(alone.map(|r| [vec![NULL; widths[0]], (*r).clone()].concat()));
    }
    counted(found)
}

#[cfg(test)]
mod tests {
    use ruslo_operators::UpdatingChanges;

    use super::*;

    const CHANGES: UpdatingChanges = UpdatingChanges { takes_back: true, says_before: true };

    fn table(rows: &[[i64; 2]]) -> Table {
        counted(rows.iter().map(|row| row.to_vec()))
    }

    fn rows(table: &Table) -> Vec<OutRow> {
        copies(table).cloned().collect()
    }

    #[test]
    fn groups_have_what_their_rows_come_to() {
        let input = table(&[[1, 5], [1, 5], [1, -2], [2, 7]]);
        let by_first = Changing::Group { key: Some(0), value: 1, changes: CHANGES };
        let found = of(by_first, vec![input.clone()], &[2]);
        assert_eq!(rows(&found), [[1, 3, 8, -2, 5, 2], [2, 1, 7, 7, 7, 1]]);
        let all = Changing::Group { key: None, value: 1, changes: CHANGES };
        assert_eq!(rows(&of(all, vec![input.clone(), input], &[2, 2])), [[8, 30, -2, 7, 3]]);
    }

    #[test]
    fn equal_rows_have_their_own_ranks() {
        let input = table(&[[1, 5], [1, 5], [1, 9], [2, 7]]);
        let first = |limit, has_rank| {
            let ranked = Changing::Ranked { key: Some(0), value: 1, limit, has_rank, changes: CHANGES };
            rows(&of(ranked, vec![input.clone()], &[2]))
        };
        assert_eq!(first(2, false), [[1, 5], [1, 9], [2, 7]]);
        assert_eq!(first(3, true), [[1, 5, 2], [1, 5, 3], [1, 9, 1], [2, 7, 1]]);
    }

    #[test]
    fn rows_are_beside_those_of_their_key() {
        let side = Side { key: 0, is_append_only: false, is_unique: false };
        let inputs = vec![table(&[[1, 5], [1, 5], [2, 7]]), table(&[[1, 8], [3, 9]])];
        let found =
            |kind| rows(&of(Changing::Join { kind, sides: [side; 2], is_less: false }, inputs.clone(), &[2, 2]));
        assert_eq!(found(RegularJoinKind::Inner), [[1, 5, 1, 8], [1, 5, 1, 8]]);
        assert_eq!(found(RegularJoinKind::Semi), [[1, 5], [1, 5]]);
        assert_eq!(found(RegularJoinKind::Anti), [[2, 7]]);
        let full = [[NULL, NULL, 3, 9], [1, 5, 1, 8], [1, 5, 1, 8], [2, 7, NULL, NULL]];
        assert_eq!(found(RegularJoinKind::Full), full);
    }
}
