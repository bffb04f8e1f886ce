//! The functions that SQL text may call: DataFusion's scalar functions, the aggregates that windows keep state for, and
//! the names that are refused, each with its sentence.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::execution::SessionStateDefaults;
use datafusion::functions_aggregate::{bit_and_or_xor, bool_and_or, correlation, count, covariance, median, min_max};
use datafusion::logical_expr::{AggregateUDF, ScalarUDF};
use ruslo_operators::function::{World, scalar_functions};
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

/// Functions of Flink's that are missing, and DataFusion's that no query can use; behind them what is there instead.
const LATER: [(&str, &str); 13] = [
    ("printf", "|| joins texts, LPAD and RPAD fill them, CAST and DATE_FORMAT make them of numbers and times"),
    ("current_watermark", "what it would say depends on timing; docs/sql/late-data.md tells what becomes of late rows"),
    ("source_watermark", "write the watermark's expression, as in WATERMARK FOR ts AS ts - INTERVAL '5' SECOND"),
    ("parse_json try_parse_json", "there is no VARIANT; JSON_VALUE and JSON_QUERY read texts, and IS JSON checks them"),
    ("json", "JSON_OBJECT and JSON_ARRAY take the result of JSON_QUERY(x, '$') over as JSON"),
    ("json_objectagg json_arrayagg", "ARRAY_AGG makes an ARRAY of a group's values, LISTAGG a text"),
    ("object_of object_update", "there are no structured types; ROW(..) makes a row"),
    (
        "bitmap_and bitmap_andnot bitmap_build bitmap_cardinality bitmap_from_bytes bitmap_or bitmap_to_array bitmap_to_bytes \
      bitmap_to_string bitmap_xor bitmap_and_agg bitmap_and_cardinality_agg bitmap_build_agg bitmap_build_cardinality_agg \
      bitmap_or_agg bitmap_or_cardinality_agg bitmap_xor_agg bitmap_xor_cardinality_agg",
        "there are no bitmaps; COUNT(DISTINCT x) and APPROX_COUNT_DISTINCT(x) count different values",
    ),
    ("collect", "there is no MULTISET; ARRAY_AGG makes an ARRAY"),
    ("percentile", "APPROX_PERCENTILE is at most 0.5 % off, and MEDIAN exact"),
    ("current_database", "there are no databases"),
    ("group_id grouping grouping_id", "there are no GROUPING SETS, CUBE and ROLLUP"),
    (
        "arrow_field arrow_metadata cast_to_type file_row_index input_file_name try_cast_to_type union_extract union_tag \
      with_metadata",
        "docs/sql/functions.md lists those there are",
    ),
];

/// Names of DataFusion's for functions over the clock and chance, which must not be DataFusion's own: it would fold them
/// into the plan.
const OURS: [(&str, &str); 2] = [("today", "current_date"), ("random", "rand")];

/// What forms of SQL become: FLOOR(t TO unit), IS JSON, RETURNING ARRAY, SIMILAR TO, UNIX_TIMESTAMP().
const FORMS: [&str; 7] =
    ["ceil_to", "floor_to", "is_json", "json_query_array", "local_of", "similar_to", "unix_timestamp_now"];

/// Names of Flink's for functions of DataFusion's.
const ALIASES: [(&str, &str); 10] = [
    ("ceiling", "ceil"),
    ("startswith", "starts_with"),
    ("endswith", "ends_with"),
    ("char_length", "character_length"),
    ("datafusion encode", "encode"),
    ("ucase", "upper"),
    ("datafusion sha224", "sha224"),
    ("datafusion sha256", "sha256"),
    ("datafusion sha384", "sha384"),
    ("datafusion sha512", "sha512"),
];

impl Functions {
    /// Every function of this build.
    pub(crate) fn new(world: &World) -> Self {
        let mut scalars = HashMap::new();
        for function in SessionStateDefaults::default_scalar_functions() {
            for alias in function.aliases() {
                scalars.insert(alias.clone(), function.clone());
            }
            scalars.insert(function.name().to_owned(), function);
        }
        for (alias, name) in ALIASES {
            if let Some(function) = scalars.get(name).cloned() {
                scalars.insert(alias.to_owned(), function);
            }
        }
        // Where both have a name, Flink's meaning wins.
        scalars.extend(scalar_functions(world).into_iter().map(|function| (function.name().to_owned(), function)));
        for (alias, name) in OURS {
            if let Some(function) = scalars.get(name).cloned() {
                scalars.insert(alias.to_owned(), function);
            }
        }
        let all = SessionStateDefaults::default_aggregate_functions();
        let names = all.iter().flat_map(|function| function.aliases().iter().cloned().chain([function.name().into()]));
        let mut aggregates_later: Vec<String> = names.collect();
        let aggregates = aggregates();
        aggregates_later.retain(|name| !aggregates.contains_key(name) && !scalars.contains_key(name));
        for name in LATER.iter().flat_map(|(names, _)| names.split_whitespace()) {
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

    /// The names that a user writes.
    pub(crate) fn scalar_names(&self) -> Vec<String> {
        // A name with a space is only this crate's.
        let is_written = |name: &&String| !name.contains(' ') && !FORMS.contains(&name.as_str());
        self.scalars.keys().filter(is_written).cloned().collect()
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
        if let Some((_, instead)) = LATER.iter().find(|(names, _)| names.split_whitespace().any(|word| word == lower)) {
            return Err(SqlError::not_yet(format!("{} calls", name.to_uppercase()), at).help(*instead));
        }
        if self.aggregates_later.contains(&lower) {
            let sentence = format!("{} aggregates", name.to_uppercase());
            return Err(SqlError::not_yet(sentence, at).help("docs/sql/aggregates.md lists those there are"));
        }
        let known = self.scalars.keys().chain(self.aggregates.keys()).map(String::as_str);
        Err(SqlError::new(format!("there is no function '{name}'")).at(at).near(name, known))
    }
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

    fn functions() -> Functions {
        Functions::new(&World::new(&ruslo_core::environment::Environment::local(), chrono_tz::Tz::UTC))
    }

    fn refused(name: &str) -> String {
        functions().check(name, None).unwrap_err().message().to_owned()
    }

    #[test]
    fn names_are_found_in_any_case() {
        for name in ["UPPER", "coalesce", "Count", "SUM", "avg", "NOW", "Date_Format"] {
            functions().check(name, None).unwrap();
        }
    }

    #[test]
    fn what_cannot_be_called_says_why() {
        assert_eq!(refused("CURRENT_WATERMARK"), "CURRENT_WATERMARK calls are not supported yet");
        assert_eq!(refused("nth_value"), "NTH_VALUE aggregates are not supported yet");
        assert_eq!(refused("uper"), "there is no function 'uper'");
        let near = functions().check("uper", None).unwrap_err();
        assert_eq!(near, SqlError::new("there is no function 'uper'").help("did you mean 'upper'?"));
    }

    /// The functions of Flink 2.3's list that SQL can call by a name; those in other forms are Ruslo's grammar.
    const FLINK: &str = "array_agg array_append array_concat array_contains array_distinct array_except array_intersect \
        array_join array_max array_min array_position array_prepend array_remove array_reverse array_slice array_sort \
        array_union bitmap_and bitmap_andnot bitmap_and_agg bitmap_and_cardinality_agg bitmap_build bitmap_build_agg \
        bitmap_build_cardinality_agg bitmap_cardinality bitmap_from_bytes bitmap_or bitmap_or_agg \
        bitmap_or_cardinality_agg bitmap_to_array bitmap_to_bytes bitmap_to_string bitmap_xor bitmap_xor_agg \
        bitmap_xor_cardinality_agg btrim coalesce current_watermark elt endswith greatest ifnull inet_aton inet_ntoa \
        is_alpha is_decimal is_digit json json_array json_arrayagg json_exists json_object json_objectagg json_query \
        json_quote json_string json_unquote json_value least map_entries map_from_arrays map_keys map_union map_values \
        object_of object_update parse_json percentile printf regexp_count regexp_extract_all regexp_instr regexp_substr \
        source_watermark split startswith to_timestamp_ltz translate try_parse_json typeof unhex url_decode url_encode \
        abs acos ascii asin atan atan2 avg bin cardinality ceil ceiling char_length character_length chr collect concat_ws \
        convert_tz cos cosh cot count current_database current_row_timestamp date_format decode degrees element encode exp \
        first_value floor from_base64 from_unixtime group_id grouping grouping_id hex initcap instr last_value left listagg \
        ln locate log10 log2 lower lpad ltrim max md5 min now nullif overlay parse_url pi position power proctime \
        radians rand rand_integer regexp regexp_extract regexp_replace repeat replace reverse right round rpad rtrim sha1 \
        sha224 sha256 sha384 sha512 sign sin sinh split_index sqrt stddev_pop stddev_samp stddev str_to_map substr \
        substring sum tan tanh timestampadd timestampdiff to_base64 to_date to_timestamp to_timestamp_ltz trim truncate \
        unix_timestamp upper uuid var_pop var_samp variance approx_count_distinct";

    #[test]
    fn every_function_of_flink_is_called_or_refused_with_what_is_there_instead() {
        let functions = functions();
        for name in FLINK.split_whitespace().filter(|name| !crate::flink::is_rewritten(name, 1)) {
            let Err(error) = functions.check(name, None) else { continue };
            let sentence = format!("{} calls are not supported yet", name.to_uppercase());
            assert_eq!(error.message(), sentence);
            assert_ne!(error, SqlError::new(sentence), "{name} has no help");
        }
    }

    #[test]
    fn every_function_of_datafusion_is_called_or_refused() {
        let functions = functions();
        for function in SessionStateDefaults::default_scalar_functions() {
            for name in function.aliases().iter().map(String::as_str).chain([function.name()]) {
                let refused = functions.check(name, None).err();
                let is_named = refused.is_none_or(|error| error.message().contains("not supported yet"));
                assert!(is_named, "{name} is neither called nor refused by name");
            }
        }
    }
}
