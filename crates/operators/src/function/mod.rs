//! Scalar functions that are Flink's by name or by meaning: one family, one file.
//!
//! | file | holds |
//! |---|---|
//! | `call`, `element` | the shape of a function: names, kinds of arguments, columns and constants |
//! | `text`, `regex`, `url`, `encode`, `inet` | text |
//! | `number`, `extreme`, `random` | numbers, GREATEST and LEAST, RAND and UUID |
//! | `calendar`, `pattern`, `time`, `span`, `clock` | dates and times, Java's patterns, the clock |
//! | `json`, `collection` | JSON, arrays and maps |
//! | `cast`, `decimal` | CAST and the arithmetic of decimals |
//!
//! A function that needs the world outside (the clock, chance, the session's time zone) holds a [`World`]. All of them
//! are DataFusion functions, so that its planner types them and its expressions call them, a batch at a time.

mod calendar;
mod call;
mod cast;
mod clock;
mod collection;
mod decimal;
mod element;
mod encode;
mod extreme;
mod inet;
mod json;
mod name;
mod number;
mod pattern;
mod random;
mod regex;
mod span;
#[cfg(test)]
mod testing;
mod text;
mod time;
mod url;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};

use chrono_tz::Tz;
use datafusion::logical_expr::ScalarUDF;
use ruslo_core::clock::Clock;
use ruslo_core::environment::Environment;
use ruslo_core::rng::Rng;
use ruslo_core::time::Timestamp;

pub use cast::{Cast, cast_function};
pub use decimal::{DecimalArithmetic, Sign, decimal_type, digits_of};

/// The zone that Arrow's type of a TIMESTAMP_LTZ names.
const UTC: &str = "UTC";

/// What functions may touch of the world outside; cheap to clone.
#[derive(Debug, Clone)]
pub struct World {
    clock: Arc<dyn Clock>,
    chance: Arc<Mutex<Chance>>,
    zone: Tz,
    /// When the batch query began, once it has; a stream has no such moment.
    begun: Arc<OnceLock<Timestamp>>,
}

/// Where random values come from: one generator, and one for each seed that a call names.
#[derive(Debug)]
struct Chance {
    free: Rng,
    seeded: BTreeMap<i32, Rng>,
}

impl World {
    /// The clock and the seed of `environment`; `zone` is the session's, `table.local-time-zone`.
    pub fn new(environment: &Environment, zone: Tz) -> Self {
        let chance = Chance { free: Rng::seeded(environment.seed), seeded: BTreeMap::new() };
        let begun = Arc::default();
        Self { clock: environment.clock.clone(), chance: Arc::new(Mutex::new(chance)), zone, begun }
    }

    /// The same world in another zone.
    #[must_use]
    pub fn in_zone(&self, zone: Tz) -> Self {
        Self { zone, ..self.clone() }
    }

    /// A batch query begins: NOW and its kin say this moment from here on, in every clone. The first call counts.
    pub fn begin_query(&self) -> Timestamp {
        *self.begun.get_or_init(|| self.clock.wall())
    }

    /// What NOW says: when the batch query began, or the clock's time.
    fn query_time(&self) -> Timestamp {
        self.begun.get().copied().unwrap_or_else(|| self.clock.wall())
    }

    /// The session's time zone.
    pub fn zone(&self) -> Tz {
        self.zone
    }
}

/// Every function of this folder, in `world`.
pub fn scalar_functions(world: &World) -> Vec<Arc<ScalarUDF>> {
    let families = [
        text::FUNCTIONS,
        regex::FUNCTIONS,
        url::FUNCTIONS,
        encode::FUNCTIONS,
        inet::FUNCTIONS,
        number::FUNCTIONS,
        extreme::FUNCTIONS,
        random::FUNCTIONS,
        clock::FUNCTIONS,
        time::FUNCTIONS,
        span::FUNCTIONS,
        json::FUNCTIONS,
        name::FUNCTIONS,
    ];
    let definitions = families.concat().into_iter().chain(collection::functions());
    definitions.map(|definition| definition.function(world)).collect()
}
