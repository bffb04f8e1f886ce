//! What a generated query is made of: relations that are computed one from the other.

use ruslo_core::rng::Rng;

use super::super::query::{Both, both};
use super::super::row::Kind;

/// A column of a relation.
#[derive(Debug, Clone)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: Kind,
    /// Whether it may be an INT, whose sum may not be larger.
    pub(super) is_narrow: bool,
}

/// A table or a view.
#[derive(Debug, Clone)]
pub(super) struct Relation {
    pub(super) name: String,
    pub(super) columns: Vec<Column>,
    /// The column of event time, if its rows are only added and have one.
    pub(super) time: Option<String>,
    /// Columns that tell its rows apart, if some are known to.
    pub(super) key: Vec<usize>,
    /// About how many rows it has at most.
    pub(super) rows: usize,
}

/// A relation, and the query that it is.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) kind: &'static str,
    pub(super) relation: Relation,
    pub(super) text: Both,
}

/// Columns as they are chosen: their expressions, and what they are.
#[derive(Debug, Clone, Default)]
pub(super) struct Selected {
    text: Vec<Both>,
    pub(super) columns: Vec<Column>,
}

impl Relation {
    /// The table `name`.
    pub(super) fn table(name: &str, has_time: bool, rows: usize) -> Self {
        let of = |name: &str, kind, is_narrow| Column { name: name.to_owned(), kind, is_narrow };
        let mut columns = vec![
            of("id", Kind::Int, false),
            of("k", Kind::Text, false),
            of("g", Kind::Int, true),
            of("v", Kind::Int, false),
            of("w", Kind::Int, false),
            of("d", Kind::Money, false),
        ];
        if has_time {
            columns.push(of("ts", Kind::Time, false));
        }
        Self { name: name.to_owned(), columns, time: has_time.then(|| "ts".to_owned()), key: Vec::new(), rows }
    }

    pub(super) fn pick(&self, rng: &mut Rng, kind: Kind) -> Option<&Column> {
        let of_kind: Vec<&Column> = self.columns.iter().filter(|column| column.kind == kind).collect();
        (!of_kind.is_empty()).then(|| of_kind[rng.below(of_kind.len())])
    }

    /// Some of its columns, each at most once: `most` at most, one at least. The time is among them if `with_time`.
    pub(super) fn some(&self, rng: &mut Rng, most: usize, with_time: bool) -> Vec<usize> {
        let mut places: Vec<usize> = (0..self.columns.len()).collect();
        shuffle(rng, &mut places);
        places.truncate(1 + rng.below(most));
        let time = self.columns.iter().position(|column| Some(&column.name) == self.time.as_ref());
        if let (Some(time), true) = (time.filter(|time| !places.contains(time)), with_time) {
            places.push(time);
        }
        // Something to compute with.
        if let Some(number) = self.columns.iter().position(|column| column.kind == Kind::Int)
            && !places.iter().any(|place| self.columns[*place].kind == Kind::Int)
        {
            places.push(number);
        }
        places
    }

    /// A number computed of its columns, which are called by `alias`.
    pub(super) fn int(&self, rng: &mut Rng, alias: &str) -> String {
        let column = |rng: &mut Rng| self.pick(rng, Kind::Int).map(|column| format!("{alias}{}", column.name));
        let Some(first) = column(rng) else { return "1".to_owned() };
        let second = column(rng).unwrap_or_default();
        match rng.below(9) {
            0 => format!("({first} + {second})"),
            1 => format!("({first} - 2)"),
            2 => format!("({first} % 3)"),
            3 => format!("COALESCE({first}, {second}, 7)"),
            4 => format!("CASE WHEN {first} > {second} THEN {first} ELSE 0 END"),
            _ => first,
        }
    }

    /// A condition on its columns.
    pub(super) fn condition(&self, rng: &mut Rng, alias: &str) -> Both {
        let number = self.int(rng, alias);
        let text = self.pick(rng, Kind::Text).map(|column| format!("{alias}{}", column.name));
        let money = self.pick(rng, Kind::Money).map(|column| format!("{alias}{}", column.name));
        match (rng.below(9), text, money) {
            (0, Some(text), _) => both(&format!("{text} IS NOT NULL")),
            (1, Some(text), _) => both(&format!("{text} IN ('a', 'ü')")),
            (2, Some(text), _) => both(&format!("{text} <> 'a'")),
            (3, _, Some(money)) => Both { ours: format!("{money} > 1.00"), oracle: format!("{money} > 100") },
            (4, ..) => both(&format!("{number} BETWEEN -1 AND 2")),
            (5, ..) => both(&format!("({number} IS NULL OR {number} < 2)")),
            (6, ..) => both(&format!("{number} <> 1")),
            _ => both(&format!("{number} >= -1")),
        }
    }

    /// All columns in some order, each in some direction.
    pub(super) fn total_order(&self, rng: &mut Rng) -> String {
        let mut places: Vec<usize> = (0..self.columns.len()).collect();
        shuffle(rng, &mut places);
        let order = places.into_iter().map(|place| {
            let direction = ["ASC", "DESC"][rng.below(2)];
            let nulls = ["NULLS FIRST", "NULLS LAST"][rng.below(2)];
            format!("{} {direction} {nulls}", self.columns[place].name)
        });
        order.collect::<Vec<_>>().join(", ")
    }
}

impl Selected {
    /// Adds `text` under the next name; where that is.
    pub(super) fn push(&mut self, text: Both, kind: Kind, is_narrow: bool) -> String {
        let name = format!("x{}", self.columns.len());
        self.text.push(text.map(|text| format!("{text} AS {name}")));
        self.columns.push(Column { name: name.clone(), kind, is_narrow });
        name
    }

    /// Adds the columns of `relation` at `places`, called by `alias`.
    pub(super) fn take(&mut self, relation: &Relation, places: &[usize], alias: &str) {
        for place in places {
            let column = &relation.columns[*place];
            self.push(both(&format!("{alias}{}", column.name)), column.kind, column.is_narrow);
        }
    }

    /// The name that the column `name` of the relation whose `places` were taken first has now.
    pub(super) fn name_of(relation: &Relation, places: &[usize], name: Option<&String>) -> Option<String> {
        let place = places.iter().position(|place| Some(&relation.columns[*place].name) == name)?;
        Some(format!("x{place}"))
    }

    /// The same with NULL in the columns at `places`, for the oracle.
    pub(super) fn without_keys(&self, places: impl Iterator<Item = usize>) -> Self {
        let mut made = self.clone();
        for place in places {
            let Column { name, kind, .. } = &self.columns[place];
            let data_type = if *kind == Kind::Text { "VARCHAR" } else { "BIGINT" };
            made.text[place] = both(&format!("CAST(NULL AS {data_type}) AS {name}"));
        }
        made
    }

    /// With commas between.
    pub(super) fn list(&self) -> Both {
        let joined = |side: fn(&Both) -> &str| self.text.iter().map(side).collect::<Vec<_>>().join(", ");
        Both { ours: joined(|text| &text.ours), oracle: joined(|text| &text.oracle) }
    }

    /// A query of them with `rest` behind.
    pub(super) fn query(&self, rest: &Both) -> Both {
        both("SELECT ").with(&self.list()).with(&both("\n")).with(rest)
    }
}

pub(super) fn shuffle<T>(rng: &mut Rng, items: &mut [T]) {
    for end in (1..items.len()).rev() {
        items.swap(end, rng.below(end + 1));
    }
}
