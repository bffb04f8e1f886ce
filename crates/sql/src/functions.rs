//! The functions that SQL text may call: DataFusion's scalar functions, the aggregates that windows keep state for, and
//! the names that are refused, each with its sentence.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::execution::SessionStateDefaults;
use datafusion::functions_aggregate::{bit_and_or_xor, bool_and_or, correlation, count, covariance, median, min_max};
use datafusion::logical_expr::{AggregateUDF, ScalarUDF};
use ruslo_operators::{avg_udaf, collecting_udafs, is_ordered, sum_udaf};

use crate::diagnostic::{Position, SqlError};
use crate::group_window;

/// Functions by lower-case name.
#[derive(Debug)]
pub(crate) struct Functions {
    scalars: HashMap<String, Arc<ScalarUDF>>,
    aggregates: HashMap<String, Arc<AggregateUDF>>,
    /// Aggregates that DataFusion has and windows do not keep state for, so far.
    aggregates_later: Vec<String>,
}

/// Functions that give another answer at every call: they need the pipeline's clock and randomness, not the planner's.
const VOLATILE: &str = "current_date current_time current_timestamp current_row_timestamp current_watermark localtime \
    localtimestamp now proctime rand rand_integer random today unix_timestamp uuid gen_random_uuid";

/// Functions of Flink's that are missing, and DataFusion's of the same name with another meaning: Flink's wins, so they
/// are refused until Flink's is here.
const LATER: &str = "cardinality convert_tz date_format element from_base64 from_unixtime greatest hop hop_end hop_start \
    json_query json_value least parse_url regexp_extract session session_end session_start split_index \
    timestampadd timestampdiff to_base64 to_timestamp_ltz tumble_end tumble_start";

impl Functions {
    /// Every function of this build.
    pub(crate) fn new() -> Self {
        let mut scalars = HashMap::new();
        for function in SessionStateDefaults::default_scalar_functions() {
            for alias in function.aliases() {
                scalars.insert(alias.clone(), function.clone());
            }
            scalars.insert(function.name().to_owned(), function);
        }
        let all = SessionStateDefaults::default_aggregate_functions();
        let names = all.iter().flat_map(|function| function.aliases().iter().cloned().chain([function.name().into()]));
        let mut aggregates_later: Vec<String> = names.collect();
        let aggregates = aggregates();
        aggregates_later.retain(|name| !aggregates.contains_key(name) && !scalars.contains_key(name));
        for name in words(VOLATILE).chain(words(LATER)) {
            scalars.remove(name);
        }
        Self { scalars, aggregates, aggregates_later }
    }

    /// The scalar function `name`, in lower case.
    pub(crate) fn scalar(&self, name: &str) -> Option<&Arc<ScalarUDF>> {
        self.scalars.get(name)
    }

    /// The aggregate `name`, in lower case.
    pub(crate) fn aggregate(&self, name: &str) -> Option<&Arc<AggregateUDF>> {
        self.aggregates.get(name)
    }

    /// Whether `name` is an aggregate, in any case, that takes an ORDER BY inside.
    pub(crate) fn is_ordered(&self, name: &str) -> bool {
        self.aggregates.get(&name.to_lowercase()).is_some_and(|function| is_ordered(function.name()))
    }

    /// Whether `name` is an aggregate, in any case.
    pub(crate) fn is_aggregate(&self, name: &str) -> bool {
        self.aggregates.contains_key(&name.to_lowercase())
    }

    pub(crate) fn scalar_names(&self) -> Vec<String> {
        self.scalars.keys().cloned().collect()
    }

    pub(crate) fn aggregate_names(&self) -> Vec<String> {
        self.aggregates.keys().cloned().collect()
    }

    /// Says why `name`, called at `at`, cannot be called.
    pub(crate) fn check(&self, name: &str, at: Option<Position>) -> Result<(), SqlError> {
        let lower = name.to_lowercase();
        if self.scalars.contains_key(&lower) || self.aggregates.contains_key(&lower) || group_window::is_part(&lower) {
            return Ok(());
        }
        if words(VOLATILE).chain(words(LATER)).any(|word| word == lower) {
            return Err(SqlError::not_yet(format!("{} calls", name.to_uppercase()), at));
        }
        if self.aggregates_later.contains(&lower) {
            let sentence = format!("{} aggregates", name.to_uppercase());
            return Err(SqlError::not_yet(sentence, at).help("docs/sql/aggregates.md lists those there are"));
        }
        let known = self.scalars.keys().chain(self.aggregates.keys()).map(String::as_str);
        Err(SqlError::new(format!("there is no function '{name}'")).at(at).near(name, known))
    }
}

fn words(list: &'static str) -> impl Iterator<Item = &'static str> {
    list.split_whitespace()
}

/// Aggregates whose state can be kept and merged in any order: Flink's and ours, and those of DataFusion's that can.
fn aggregates() -> HashMap<String, Arc<AggregateUDF>> {
    let mut functions = vec![count::count_udaf(), sum_udaf(), min_max::min_udaf(), min_max::max_udaf(), avg_udaf()];
    functions.extend([bool_and_or::bool_and_udaf(), bool_and_or::bool_or_udaf()]);
    functions.extend([
        bit_and_or_xor::bit_and_udaf(),
        bit_and_or_xor::bit_or_udaf(),
        bit_and_or_xor::bit_xor_udaf(),
        correlation::corr_udaf(),
        covariance::covar_pop_udaf(),
        covariance::covar_samp_udaf(),
        median::median_udaf(),
    ]);
    functions.extend(collecting_udafs());
    let mut named = HashMap::new();
    for function in functions {
        let aliases = function.aliases().iter().cloned();
        named.extend(aliases.chain([function.name().to_owned()]).map(|name| (name, function.clone())));
    }
    named.insert("every".to_owned(), bool_and_or::bool_and_udaf());
    named
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(name: &str) -> String {
        Functions::new().check(name, None).unwrap_err().message().to_owned()
    }

    #[test]
    fn names_are_found_in_any_case() {
        let functions = Functions::new();
        for name in ["UPPER", "coalesce", "Count", "SUM", "avg"] {
            functions.check(name, None).unwrap();
        }
    }

    #[test]
    fn what_cannot_be_called_says_why() {
        assert_eq!(refused("NOW"), "NOW calls are not supported yet");
        assert_eq!(refused("DATE_FORMAT"), "DATE_FORMAT calls are not supported yet");
        assert_eq!(refused("nth_value"), "NTH_VALUE aggregates are not supported yet");
        assert_eq!(refused("uper"), "there is no function 'uper'");
        let near = Functions::new().check("uper", None).unwrap_err();
        assert_eq!(near, SqlError::new("there is no function 'uper'").help("did you mean 'upper'?"));
    }
}
