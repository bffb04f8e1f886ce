//! The options of `nexmark`.

use ruslo_core::connector::{OptionSpec, TableDefinition};
use ruslo_core::error::Result;

use crate::option::{self, Options, wrong_value};

const TABLE: &str = "table";
const EVENTS: &str = "events.num";
const RATE: &str = "first-event.rate";
const SEED: &str = "seed";

/// What a table may say.
pub(super) const SPECS: [OptionSpec; 5] = [
    OptionSpec {
        key: TABLE,
        required: false,
        doc: "'person', 'auction' or 'bid' (default: what the table is called).",
    },
    OptionSpec {
        key: EVENTS,
        required: false,
        doc: "How many events of all three kinds there are, 1 : 3 : 46; without it they never end.",
    },
    OptionSpec { key: RATE, required: false, doc: "Events a second of event time (default 10000)." },
    OptionSpec { key: SEED, required: false, doc: "Another seed gives other events (default 42)." },
    option::RATE_SPEC,
];

/// One of the three kinds of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Person,
    Auction,
    Bid,
}

/// The options, read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NexmarkOptions {
    pub(super) kind: Kind,
    /// Events of all kinds.
    pub(super) events: Option<u64>,
    /// Events a second of event time.
    pub(super) rate: u64,
    pub(super) seed: u64,
}

impl NexmarkOptions {
    pub(super) fn parse(table: &TableDefinition) -> Result<Self> {
        let options = &table.options;
        Ok(Self {
            kind: kind(options, &table.name)?,
            events: option::whole_number(options, EVENTS, 1)?,
            rate: option::whole_number(options, RATE, 1)?.unwrap_or(10_000),
            seed: option::whole_number(options, SEED, 0)?.unwrap_or(42),
        })
    }
}

fn kind(options: &Options, name: &str) -> Result<Kind> {
    let word = options.get(TABLE).map_or(name, String::as_str);
    match word.trim().to_lowercase().as_str() {
        "person" => Ok(Kind::Person),
        "auction" => Ok(Kind::Auction),
        "bid" => Ok(Kind::Bid),
        _ => Err(wrong_value(TABLE, word, "'person', 'auction' or 'bid'")),
    }
}
